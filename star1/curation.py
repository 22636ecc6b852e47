"""From scored rows to STAR-1: full marks on every criterion, then the published balancing of sources and categories."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from star1.errors import InputError
from star1.records import Row


def curate(rows: Sequence[Row], maximum: int, other: str, size: int) -> tuple[list[Row], list[Row], list[Row]]:
    """Select the final data set.

    Args:
        rows: scored rows, in order.
        maximum: mark that every criterion must have.
        other: category that is not taken.
        size: rows wanted at most.

    Returns:
        The rows with full marks, those of them that are selected, and `{"id", "source", "category", "score",
        "reason"}` of every row that is not.

    Raises:
        InputError: no row has full marks.
    """
    full, failed = full_marks(rows, maximum, other)
    if not full:
        raise InputError("curate", f"none of {len(rows)} rows has full marks", "at least one", "look at the scores")
    kept, removed = balance(full, size)
    return full, kept, failed + removed


def full_marks(rows: Sequence[Row], maximum: int, other: str) -> tuple[list[Row], list[Row]]:
    """Split rows into those with `maximum` on all criteria and no category `other`, and the rest with reasons."""
    kept, dropped = [], []
    for row in rows:
        if reason := _fault(row, maximum, other):
            dropped.append(_dropped(row, reason))
        else:
            kept.append(row)
    return kept, dropped


def _fault(row: Row, maximum: int, other: str) -> str | None:
    if not row["category"]:
        return "no category"
    if other in row["category"]:
        return other
    if not row["score"]:
        return "no score"
    low = next((criterion for criterion, mark in row["score"].items() if mark != maximum), None)
    return None if low is None else f"score {row['score'][low]} on {low}"


def _dropped(row: Row, reason: str) -> Row:
    return {name: row[name] for name in ("id", "source", "category", "score")} | {"reason": reason}


@dataclass
class _Groups:
    """Rows that are alike to the balancing: same source, same categories in the same order.

    Attributes:
        members: row indices of each group, ascending.
        sources: source index of each group `[g]`.
        labels: category indices of each group in its own order `[g, most categories]`, filled up with `n_categories`.
        widths: number of categories of each group `[g]`.
    """

    members: list[deque[int]]
    sources: np.ndarray
    labels: np.ndarray
    widths: np.ndarray
    n_sources: int
    n_categories: int


def _group(rows: Sequence[Row]) -> _Groups:
    members: dict[tuple[str, tuple[str, ...]], deque[int]] = {}
    for index, row in enumerate(rows):
        members.setdefault((row["source"], tuple(row["category"])), deque()).append(index)
    sources = {name: i for i, name in enumerate(dict.fromkeys(source for source, _ in members))}
    categories = {name: i for i, name in enumerate(dict.fromkeys(name for _, names in members for name in names))}
    widths = np.array([len(names) for _, names in members])
    labels = np.full((len(members), int(widths.max())), len(categories))
    for position, (_, names) in enumerate(members):
        labels[position, : len(names)] = [categories[name] for name in names]
    by_source = np.array([sources[source] for source, _ in members])
    return _Groups(list(members.values()), by_source, labels, widths, len(sources), len(categories))


def balance(rows: Sequence[Row], size: int) -> tuple[list[Row], list[Row]]:
    """Drop rows one by one until `size` remain, each time the one from the most crowded source and categories.

    The row that goes has the largest P(source) x sum over its categories of P(category), where P(source) is over the
    remaining rows and P(category) over all their labels; among equals, the first row goes.

    Returns:
        The rows that remain, in order, and the dropped ones in the order they went, with reasons.

    Source: UCSC-VLAA/STAR-1 @ b493335, the selection in scorer.py.
    Differs: rows that cannot differ in weight are weighed once; the result is the same to the last bit, since the sum
    runs over a row's categories in its own order, one float64 addition after the other.
    """
    if len(rows) <= size:
        return list(rows), []
    groups = _group(rows)
    counts = np.array([len(members) for members in groups.members])
    first = np.array([members[0] for members in groups.members])
    gone: dict[int, int] = {}
    for step in range(1, len(rows) - size + 1):
        weights = np.where(counts > 0, _weights(groups, counts), -1.0)
        tied = np.flatnonzero(weights == weights.max())
        group = int(tied[np.argmin(first[tied])])
        gone[groups.members[group].popleft()] = step
        counts[group] -= 1
        if counts[group]:
            first[group] = groups.members[group][0]
    kept = [row for index, row in enumerate(rows) if index not in gone]
    reasons = [(rows[index], f"balanced out at step {k} (source {rows[index]['source']})") for index, k in gone.items()]
    return kept, [_dropped(row, reason) for row, reason in reasons]


def _weights(groups: _Groups, counts: np.ndarray) -> np.ndarray:
    """Weight of a row of each group `[g]`, float64."""
    by_source = np.bincount(groups.sources, weights=counts, minlength=groups.n_sources)
    by_category = np.zeros(groups.n_categories + 1)
    np.add.at(by_category, groups.labels, counts[:, None])
    by_category[-1] = 0.0  # the filling: adding 0 does not change a sum
    share = by_category / float((counts * groups.widths).sum())
    total = np.zeros(len(counts))
    for column in groups.labels.T:
        total += share[column]
    return np.asarray((by_source / float(counts.sum()))[groups.sources] * total)
