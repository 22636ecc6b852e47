"""The released data sets held against what is published about them, and the selection run on them. No model is called."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from star1 import facts, layouts, published, responses
from star1.curation import balance, low_mark
from star1.errors import InputError
from star1.facts import BENIGN, STAR_1, STAR_41K
from star1.marks import row_flaw, score_flaw
from star1.policies import Rubric
from star1.records import Row

OK, DIFFERS, UNPUBLISHED = "ok", "DIFFERS", "no published figure"


@dataclass(frozen=True)
class Check:
    """A published figure beside the recomputed one.

    Attributes:
        of: data set.
        what: the figure.
        published: its value; None where none is published.
        found: what was recomputed; None where that needs what is not here.
        verdict: `OK`, `DIFFERS`, `UNPUBLISHED`, or what is needed to check it.
    """

    of: str
    what: str
    published: Any
    found: Any
    verdict: str


class Released:
    """The rows of a released file, as they are, and what is counted in them."""

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


# --- the files --------------------------------------------------------------------------------------------------------


def find(name: str, given: Path | None, root: Path = Path()) -> Path | None:
    """Where a released data set lies: as given, else where `star1 import-published` or the stage `fetch` puts it."""
    if given is not None:
        return given
    places = (root / published.FOLDER / f"{name}.json", root / f"data/published/{name}.jsonl")
    return next((path for path in places if path.is_file()), None)


def read(name: str, path: Path) -> Released:
    """Read a released file: a JSON list, or JSON Lines.

    Raises:
        InputError: no such file, or not of that layout.
    """
    if not path.is_file():
        raise InputError(path, "no such file", f"the released {name}", f"`star1 import-published {name}` fetches it")
    layouts.look_at(path)
    rows = list(layouts.objects(path, "jsonl" if ".jsonl" in path.name else "json", "question"))
    if not rows:
        raise InputError(path, "no rows", f"the released {name}")
    return Released(name, path, rows)


def recorded_md5(name: str, root: Path = Path()) -> str | None:
    """The digest by which `star1 import-published` knows the file, if one is recorded."""
    path = root / published.FOLDER / f"{name}.json.dvc"
    found = yaml.safe_load(path.read_text("utf-8"))["outs"][0].get("md5") if path.is_file() else None
    return None if found is None else str(found)


# --- the figures ------------------------------------------------------------------------------------------------------


def audit(sets: Mapping[str, Released], root: Path = Path()) -> tuple[list[Check], dict[str, dict[str, list[str]]]]:
    """Check every published figure.

    Args:
        sets: the data sets that are here, by name.
        root: the project's folder.

    Returns:
        The checks; and for each selection that was compared with STAR-1 the ids that `both` have, or one alone.
    """
    checks: list[Check] = []
    for name in facts.NAMES:
        for what, value, measure in _figures(name, recorded_md5(name, root)):
            checks.append(_check(name, what, value, measure, (name,), sets))
    overlaps: dict[str, dict[str, list[str]]] = {}
    if STAR_1 in sets and STAR_41K in sets:
        overlaps = {order: overlap(sets[STAR_41K], sets[STAR_1], order) for order in ORDERS}
    for what, value, measure in _across(overlaps):
        checks.append(_check(STAR_41K, what, value, measure, (STAR_1, STAR_41K), sets))
    ours = _check(BENIGN, "ids that are ids of STAR-1", None, _shared_ids, (STAR_1, BENIGN), sets)
    never = [
        Check("-", what, value, None, f"cannot be checked from here: needs {how}")
        for what, value, how in facts.NOT_RELEASED
    ]
    return [*checks, ours, *never], overlaps


Measure = Callable[..., Any]
Figure = tuple[str, Any, Measure]


def _check(
    of: str, what: str, value: Any, measure: Measure, needs: Sequence[str], sets: Mapping[str, Released]
) -> Check:
    if missing := [name for name in needs if name not in sets]:
        return Check(of, what, value, None, f"cannot be checked from here: needs {' and '.join(missing)}")
    found = measure(*(sets[name] for name in needs))
    return Check(of, what, value, found, UNPUBLISHED if value is None else OK if found == value else DIFFERS)


def _figures(name: str, md5: str | None) -> Iterator[Figure]:
    """The figures that one data set alone tells."""
    rows, top = facts.ROWS[name], facts.BENIGN_RUBRIC.maximum if name == BENIGN else facts.RUBRIC.maximum
    yield "MD5 of the file", md5, lambda one: hashlib.md5(one.path.read_bytes(), usedforsecurity=False).hexdigest()
    yield "rows", rows, lambda one: len(one.rows)
    yield "rows of the schema", rows, lambda one: len(one.sound)
    yield "distinct ids", rows, lambda one: len({str(row.get("id")) for row in one.rows})
    full = None if name == STAR_41K else rows
    yield f"rows with {top} on every criterion", full, lambda one: len(one.full)
    if name != BENIGN:
        yield "sources", len(facts.SOURCES), lambda one: len(one.sources)
        yield "names of categories that are not the eight", 0, lambda one: len(set(one.labels) - {*facts.LABELS})
    if name == STAR_1:
        yield from _figures_of_star_1()


def _figures_of_star_1() -> Iterator[Figure]:
    for source, count in facts.SOURCES.items():
        yield f"rows of {source}", count, lambda one, source=source: one.sources[source]
    yield "fewest rows of a source", min(facts.SOURCES.values()), lambda one: min(one.sources.values())
    yield "most rows of a source", max(facts.SOURCES.values()), lambda one: max(one.sources.values())
    for label, count in facts.LABELS.items():
        yield f"labels {label}", count, lambda one, label=label: one.labels[label]
    for width, count in facts.LABELS_PER_ROW.items():
        yield f"rows with {width} label{'s' * (width > 1)}", count, lambda one, width=width: one.widths[width]
    for (part, measure), value in facts.WORDS.items():
        told = {"median": "median", "p90": "ninetieth percentile", "max": "longest"}[measure]
        yield f"words of the {part}, {told}", value, lambda one, part=part, measure=measure: one.words(part, measure)
    yield (
        'answers with "polic" in them',
        facts.POLIC_ANSWERS,
        lambda one: sum("polic" in text.lower() for text in one.texts["answer"]),
    )
    yield (
        "answers with the word policy or policies",
        None,
        lambda one: sum(
            any(word in {"policy", "policies"} for word in responses.bare_words(text)) for text in one.texts["answer"]
        ),
    )


# --- the selection run on the released rows ---------------------------------------------------------------------------

ORDERS = ("in the file's order", "in the order of ids")


def overlap(pool: Released, chosen: Released, order: str) -> dict[str, list[str]]:
    """The ids that the selection run on `pool` shares with `chosen`, and those that one of them alone has."""
    rows = pool.full if order == ORDERS[0] else sorted(pool.full, key=_by_id)
    ours = {row["id"] for row in balance(rows, len(chosen.rows))[0]} if rows else set()
    theirs = {str(row.get("id")) for row in chosen.rows}
    parts = {"both": ours & theirs, "published_alone": theirs - ours, "ours_alone": ours - theirs}
    return {name: sorted(ids, key=lambda one: _by_id({"id": one})) for name, ids in parts.items()}


def _by_id(row: Row) -> tuple[int, str]:
    name = str(row["id"])
    return (int(name), "") if name.isdecimal() else (1 << 62, name)


def _across(overlaps: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[Figure]:
    """The figures that STAR-1 and STAR-41K tell together."""
    count = facts.ROWS[STAR_1]
    yield (
        "rows of STAR-1 in it, by question",
        count,
        lambda small, large: len(_values(small, "question") & _values(large, "question")),
    )
    yield "rows of STAR-1 in it, by id and question", count, lambda small, large: len(_pairs(small) & _pairs(large))
    yield (
        "rows of STAR-1 with full marks in it, by id",
        count,
        lambda small, large: len(_values(small, "id") & {row["id"] for row in large.full}),
    )
    for order in ORDERS:
        published = count if order == ORDERS[0] else None
        yield (
            f"ids of STAR-1 that curate selects {order}",
            published,
            lambda *_, order=order: len(overlaps[order]["both"]),
        )


def _values(one: Released, field: str) -> set[str]:
    return {str(row.get(field)) for row in one.rows}


def _pairs(one: Released) -> set[tuple[str, str]]:
    return {(str(row.get("id")), str(row.get("question"))) for row in one.rows}


def _shared_ids(small: Released, benign: Released) -> int:
    return len(_values(small, "id") & _values(benign, "id"))


# --- the report -------------------------------------------------------------------------------------------------------


def report(
    checks: Sequence[Check], overlaps: Mapping[str, Mapping[str, Sequence[str]]], sets: Mapping[str, Released]
) -> list[str]:
    """The checks as a table, what is wrong with rows, and how to get what is missing."""
    cells = [[one.of, one.what, _shown(one.published), _shown(one.found), one.verdict] for one in checks]
    table = [["data set", "figure", "published", "recomputed", "verdict"], *cells]
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    table.insert(1, ["-" * width for width in widths])
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |" for line in table]
    for one in sets.values():
        counts = Counter(found.partition(";")[0] for found in one.flaws if found)
        lines += [f"{one.name}: {count} rows: {what}" for what, count in counts.most_common(10)]
    for order, ids in overlaps.items():
        if alone := ids["published_alone"] + ids["ours_alone"]:
            counts = Counter({name: len(found) for name, found in ids.items()})
            told = f"{counts['published_alone']} published ids not selected, {counts['ours_alone']} selected ids not published"
            lines.append(f"{order}: {told}; the first ones: {', '.join(alone[:10])}")
    if missing := [name for name in facts.NAMES if name not in sets]:
        lines.append(f"Not here: {', '.join(missing)}. `star1 import-published {' '.join(missing)}` fetches them.")
    verdicts = Counter(one.verdict.partition(":")[0] for one in checks)
    lines.append(
        f"{len(checks)} figures: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    )
    return lines


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int | float) and float(value).is_integer() else str(value)


def as_json(checks: Sequence[Check], overlaps: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result, with every id of the overlaps."""
    return {"checks": [asdict(one) for one in checks], "overlaps": dict(overlaps)}
