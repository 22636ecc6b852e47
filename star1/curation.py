"""From scored rows to STAR-1: full marks on every criterion, then the published balancing of sources and categories."""

from collections.abc import Sequence

import numpy as np

from star1.balancing import group, removals
from star1.errors import InputError
from star1.marks import check_rows
from star1.policies import Rubric
from star1.records import Row


def curate(rows: Sequence[Row], rubric: Rubric, other: str, size: int) -> tuple[list[Row], list[Row], list[Row]]:
    """Select the final data set.

    Args:
        rows: scored rows, in order.
        rubric: criteria that each row has marks on, and the mark that all of them must have.
        other: category that is not taken.
        size: rows wanted at most.

    Returns:
        The rows with full marks, those of them that are selected, and `{"id", "source", "category", "score",
        "reason"}` of every row that is not.

    Raises:
        InputError: a row's fields or marks are not what the rubric calls for, an id comes twice, or no row has full marks.
    """
    check_rows("curate", rows, rubric)
    full, failed = full_marks(rows, rubric.maximum, other)
    if not full:
        raise InputError("curate", f"none of {len(rows)} rows has full marks", "at least one", "look at the scores")
    kept, removed = balance(full, size)
    return full, kept, failed + removed


def full_marks(rows: Sequence[Row], maximum: int, other: str) -> tuple[list[Row], list[Row]]:
    """Split checked rows into those with `maximum` on all criteria and no category `other`, and the rest with reasons."""
    kept, dropped = [], []
    for row in rows:
        if reason := low_mark(row, maximum, other):
            dropped.append(_dropped(row, reason))
        else:
            kept.append(row)
    return kept, dropped


def low_mark(row: Row, least: int, other: str) -> str | None:
    """Why a checked row is not taken where every mark must be at least `least`; None when it is."""
    if not row["category"]:
        return "no category"
    if other in row["category"]:
        return other
    low = next((criterion for criterion, mark in row["score"].items() if mark < least), None)
    return None if low is None else f"score {row['score'][low]} on {low}"


def _dropped(row: Row, reason: str) -> Row:
    return {name: row[name] for name in ("id", "source", "category", "score")} | {"reason": reason}


def balance(rows: Sequence[Row], size: int) -> tuple[list[Row], list[Row]]:
    """Drop rows one by one until `size` remain, each time the first one from the most crowded source and categories.

    Returns:
        The rows that remain, in order, and the dropped ones in the order they went, with reasons.

    Source: UCSC-VLAA/STAR-1 @ b493335, the selection in scorer.py; see `star1.balancing.removals`.
    """
    gone = removals(group((row["source"], tuple(row["category"])) for row in rows), size)
    stays = np.ones(len(rows), bool)
    stays[gone] = False
    kept = [row for row, stay in zip(rows, stays, strict=True) if stay]
    left = enumerate((rows[index] for index in gone), start=1)
    return kept, [_dropped(row, f"balanced out at step {step} (source {row['source']})") for step, row in left]
