"""Training rows for the page: question, thinking, answer, categories, source and marks."""

import re
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from star1.errors import InputError
from star1.records import Row
from star1.report.parts import Parts, stream
from star1.report.transcripts_evaluation import Names, head
from star1.responses import split

# In a column: there is none.
NONE = -1
# What of a reason tells one row from all others, and is no kind to filter by.
STEP = re.compile(r" at step \d+.*")


def write(folder: Path, place: str, path: Path, subsets: Mapping[str, Path], outcomes: Path | None) -> Row:
    """Write the texts of a set of training rows.

    Args:
        folder: of the page.
        place: what the names of its files begin with.
        path: the rows.
        subsets: files with some of these rows, by name.
        outcomes: rows with `id` and the `reason` why one is not in the final data set.

    Returns:
        The columns that the page filters by.

    Raises:
        InputError: a file cannot be read, an id comes twice, or a subset has a row that the set has not.
    """
    parts = {name: Parts(folder, f"{place}/{name}") for name in ("heads", "prompts", "answers", "thinking")}
    sources, categories, reasons = Names(), Names(), Names()
    why = {row["id"]: str(row["reason"]) for _, row in stream(outcomes)} if outcomes else {}
    columns: dict[str, Any] = {"ids": [], "source": [], "category": [], "outcome": []}
    marks: dict[str, array[int]] = {}
    for number, (_, row) in enumerate(stream(path)):
        columns["ids"].append(_id(path, row))
        columns["source"].append(sources.number(row.get("source", "")))
        columns["category"].append([categories.number(name) for name in row.get("category") or ()])
        reason = why.get(row["id"])
        columns["outcome"].append(NONE if reason is None else reasons.number(STEP.sub("", reason)))
        _add_marks(marks, row.get("score") or {}, number)
        _add_texts(parts, row, reason)
    numbers = _numbers(path, columns["ids"])
    chosen = {name: _chosen(file, numbers) for name, file in subsets.items()}
    told = {"kind": "training", **columns, "sources": list(sources), "categories": list(categories)}
    told |= {"outcomes": list(reasons), "marks": {name: list(values) for name, values in marks.items()}}
    return told | {"subsets": chosen, "parts": {name: one.close() for name, one in parts.items()}}


def _id(path: Path, row: Row) -> str:
    if not isinstance(row.get("id"), str) or not isinstance(row.get("question"), str):
        raise InputError(path, f"a row with id {row.get('id')!r}", "rows with id and question, both text")
    return str(row["id"])


def _add_marks(marks: dict[str, "array[int]"], score: Mapping[str, int], number: int) -> None:
    for name in score:
        if name not in marks:
            marks[name] = array("h", [NONE] * number)
    for name, column in marks.items():
        column.append(score.get(name, NONE))


def _add_texts(parts: Mapping[str, Parts], row: Row, reason: str | None) -> None:
    response = row.get("response") or ""
    found = split(response)
    beside = {"original": row.get("original"), "left_out": reason}
    parts["heads"].add(head(row["question"]))
    parts["prompts"].add({"question": row["question"], **{name: text for name, text in beside.items() if text}})
    parts["answers"].add([{"answer": found.answer if found else response}])
    parts["thinking"].add([found.thinking if found else None])


def _numbers(path: Path, ids: list[str]) -> dict[str, int]:
    numbers = {name: number for number, name in enumerate(ids)}
    if len(numbers) < len(ids):
        twice = next(name for number, name in enumerate(ids) if numbers[name] != number)
        raise InputError(path, f"the id {twice!r} twice", "each id once")
    return numbers


def _chosen(path: Path, numbers: Mapping[str, int]) -> list[int]:
    found = []
    for _, row in stream(path):
        if row.get("id") not in numbers:
            hint = "was it made of other rows? `snakemake` makes it anew"
            raise InputError(path, f"row {row.get('id')!r}", "rows of the set that it is chosen from", hint)
        found.append(numbers[row["id"]])
    return sorted(found)
