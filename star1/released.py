"""The data sets that the authors released, read as they are, with what can be counted in them."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import yaml

from star1 import facts, layouts, published, responses
from star1.curation import low_mark
from star1.errors import InputError
from star1.facts import BENIGN
from star1.marks import row_flaw, score_flaw
from star1.policies import Rubric
from star1.records import Row


class Released:
    """A released file: its rows as they are, and counts of those that are of the schema."""

    def __init__(self, name: str, path: Path, rows: Sequence[Row]) -> None:
        self.name, self.path, self.rows = name, path, rows
        self.rubric: Rubric = facts.BENIGN_RUBRIC if name == BENIGN else facts.RUBRIC

    @cached_property
    def flaws(self) -> list[str | None]:
        """For each row what keeps it from being of the schema, if anything."""
        return [flaw(row, self.rubric, self.name == BENIGN) for row in self.rows]

    @cached_property
    def sound(self) -> list[Row]:
        """The rows of the schema."""
        return [row for row, found in zip(self.rows, self.flaws, strict=True) if not found]

    @cached_property
    def full(self) -> list[Row]:
        """The rows of the schema with full marks, and none that is of no category."""
        if self.name == BENIGN:
            return [row for row in self.sound if min(row["score"].values()) == self.rubric.maximum]
        return [row for row in self.sound if not low_mark(row, self.rubric.maximum, facts.OTHER)]

    @cached_property
    def sources(self) -> Counter[str]:
        """Rows by source."""
        return Counter(row["source"] for row in self.sound)

    @cached_property
    def labels(self) -> Counter[str]:
        """Labels by category."""
        return Counter(name for row in self.sound for name in row["category"])

    @cached_property
    def widths(self) -> Counter[int]:
        """Rows by number of labels."""
        return Counter(len(row["category"]) for row in self.sound)

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Questions, thinking and answers."""
        thoughts = [found for row in self.sound if (found := responses.split(row["response"]))]
        return {
            "question": [row["question"] for row in self.sound],
            "thinking": [one.thinking for one in thoughts],
            "answer": [one.answer for one in thoughts],
        }

    def words(self, part: str, measure: str) -> float | None:
        """A figure about the lengths of texts [words]."""
        return responses.spread([responses.words(text) for text in self.texts[part]])[measure]


def flaw(row: Row, rubric: Rubric, benign: bool) -> str | None:
    """What keeps a row from being of the released schema; of benign rows, category and source are not known to be there."""
    found = score_flaw(row.get("score"), rubric) if benign else row_flaw(row, rubric)
    for name in ("id", "question", "response"):
        if not isinstance(row.get(name), str) or not row[name]:
            return f"{name} missing, empty or no text"
    if responses.split(row["response"]) is None:
        return "response not in the two parts <think>…</think> and answer"
    return found


def find(name: str, given: Path | None, root: Path = Path()) -> Path | None:
    """Where a released data set lies: as given, else where `star1 import-published` or the stage `fetch` puts it."""
    if given is not None:
        return given
    places = (root / published.FOLDER / f"{name}.json", root / f"data/published/{name}.jsonl")
    return next((path for path in places if path.is_file()), None)


def read(name: str, path: Path) -> Released:
    """Read a released file: a JSON list, or JSON Lines.

    Raises:
        InputError: no such file, not of that layout, or none of its rows is of the schema.
    """
    if not path.is_file():
        raise InputError(path, "no such file", f"the released {name}", f"`star1 import-published {name}` fetches it")
    layouts.look_at(path)
    rows = list(layouts.objects(path, "jsonl" if ".jsonl" in path.name else "json", "question"))
    if not rows:
        raise InputError(path, "no rows", f"the released {name}")
    found = Released(name, path, rows)
    if not found.sound:
        raise InputError(path, f"no row of the schema (the first: {found.flaws[0]})", f"the released {name}")
    return found


def recorded_md5(name: str, file: Path | None, root: Path = Path()) -> str | None:
    """The digest by which `star1 import-published` knows the file, if one is recorded; a file in another layout has none."""
    if file is not None and file.suffix != ".json":
        return None
    path = root / published.FOLDER / f"{name}.json.dvc"
    found = yaml.safe_load(path.read_text("utf-8"))["outs"][0].get("md5") if path.is_file() else None
    return None if found is None else str(found)
