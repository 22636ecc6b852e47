"""Other choices of the scored rows than STAR-1: balanced, random or by category, of full or of other marks.

What is drawn is drawn in the order of a digest of seed and id. So a smaller selection is part of a larger one of the same
seed, and a row more or less in the pool changes nothing about the others.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence

from star1.curation import balance, low_mark
from star1.datasets import Selection
from star1.errors import InputError, SettingError
from star1.marks import check_rows
from star1.policies import Rubric
from star1.records import Row


def select(name: str, rows: Sequence[Row], rubric: Rubric, other: str, selection: Selection) -> list[Row]:
    """The rows of a selection, in the order of `rows`.

    Args:
        name: of the selection.
        rows: scored rows, in order.
        rubric: criteria and range of the marks.
        other: category that is not taken.
        selection: how to choose.

    Raises:
        SettingError: marks that the rubric does not have.
        InputError: a row that cannot be read, or none that can be taken.
    """
    pool = pooled(name, rows, rubric, other, selection)
    if selection.kind == "balanced":
        return balance(pool, selection.size)[0]
    drawn = sorted(pool, key=lambda row: _draw(selection.seed, row["id"]))
    chosen = drawn if selection.kind == "random" else in_turn(drawn)
    ids = {row["id"] for row in chosen[: selection.size]}
    return [row for row in pool if row["id"] in ids]


def pooled(name: str, rows: Sequence[Row], rubric: Rubric, other: str, selection: Selection) -> list[Row]:
    """The rows that a selection chooses from: their lowest mark is within its marks."""
    low, high = rubric.minimum if selection.marks == "all" else rubric.maximum, rubric.maximum
    if isinstance(selection.marks, list):
        low, high = selection.marks
    if low < rubric.minimum or high > rubric.maximum:
        expected = f"within {rubric.minimum} to {rubric.maximum}, the rubric's"
        raise SettingError(f"curate.selections.{name}.marks", f"{low} to {high}", expected)
    check_rows(f"selection {name}", rows, rubric)
    pool = [row for row in rows if not low_mark(row, low, other) and min(row["score"].values()) <= high]
    if not pool:
        found = f"none of {len(rows)} rows has a lowest mark from {low} to {high}"
        raise InputError(f"selection {name}", found, "at least one", "widen curate.selections.*.marks")
    return pool


def _draw(seed: int | None, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).hexdigest()


def in_turn(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order in which the categories, sorted by name, take one row of theirs each, in turn.

    A row of several categories is taken once, by the first of them whose turn it is.
    """
    waiting = {name: deque(row for row in rows if name in row["category"]) for name in sorted(_names(rows))}
    taken: dict[str, Row] = {}
    while len(taken) < len(rows):
        for queue in waiting.values():
            while queue and queue[0]["id"] in taken:
                queue.popleft()
            if queue:
                row = queue.popleft()
                taken[row["id"]] = row
    return list(taken.values())


def _names(rows: Sequence[Row]) -> Counter[str]:
    return Counter(name for row in rows for name in row["category"])


def summary(name: str, rows: Sequence[Row], kept: Sequence[Row], selection: Selection) -> str:
    """A selection in one line."""
    short = f" (fewer than the {selection.size} asked for)" if len(kept) < selection.size else ""
    labels = ", ".join(f"{count} {label}" for label, count in _names(kept).most_common())
    return f"curate_select {name}: {len(rows)} rows in, {len(kept)} kept{short}: {labels}"
