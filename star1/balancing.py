"""The published balancing of sources and categories, by groups of rows that are alike to it.

Rows with the same source and the same categories in the same order have the same weight at every step, so each group is
weighed once: O(groups) work a step and O(rows) memory, where the published loop weighs every row.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from star1.kernels import compiled

Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Rows by source and category list.

    Attributes:
        group: group of each row `[n]`.
        source: source of each group `[g]`.
        names: category list of each group `[g]`, a row of `labels`.
        labels: categories of each distinct list, in its own order `[lists, longest]`; what is beyond its width is 0.
        widths: number of categories of each list `[lists]`.
        n_sources: number of sources.
        n_categories: number of categories.
    """

    group: Integers
    source: Integers
    names: Integers
    labels: Integers
    widths: Integers
    n_sources: int
    n_categories: int


def group(rows: Iterable[tuple[str, tuple[str, ...]]]) -> Groups:
    """Group rows, each given as its source and its categories (at least one) in order."""
    seen: dict[tuple[str, tuple[str, ...]], int] = {}
    of_row = np.array([seen.setdefault(row, len(seen)) for row in rows], np.int64)
    sources = {name: i for i, name in enumerate(dict.fromkeys(source for source, _ in seen))}
    lists = {names: i for i, names in enumerate(dict.fromkeys(names for _, names in seen))}
    categories = {name: i for i, name in enumerate(dict.fromkeys(name for names in lists for name in names))}
    widths = np.array([len(names) for names in lists], np.int64)
    labels = np.zeros((len(lists), int(widths.max(initial=1))), np.int64)
    for place, names in enumerate(lists):
        labels[place, : len(names)] = [categories[name] for name in names]
    by_source = np.array([sources[source] for source, _ in seen], np.int64)
    by_list = np.array([lists[names] for _, names in seen], np.int64)
    return Groups(of_row, by_source, by_list, labels, widths, len(sources), len(categories))


def removals(groups: Groups, size: int, rows: Integers | None = None) -> Integers:
    """The rows that go, in the order they go, until `size` are left.

    The row that goes has the largest P(source) x sum over its categories of P(category), where P(source) is over the
    rows left and P(category) over all their labels; among equals, the first row goes.

    Args:
        groups: all rows.
        size: rows wanted at most.
        rows: the rows to balance, in the order in which they are looked at; all in their order when not given.

    Source: UCSC-VLAA/STAR-1 @ b493335, the selection in scorer.py, as Python 3.11 computes it.
    Differs: nothing but the work; a weight is the same to the last bit, since it is the same operations in the same order.
    """
    chosen = np.arange(len(groups.group)) if rows is None else rows
    of_row = groups.group[chosen]
    order = np.argsort(of_row, kind="stable")
    starts = np.searchsorted(of_row[order], np.arange(len(groups.source) + 1))
    steps = max(len(chosen) - size, 0)
    gone = _removals(
        order, starts, groups.source, groups.names, groups.labels, groups.widths,
        groups.n_sources, groups.n_categories, steps,
    )  # fmt: skip
    return np.asarray(chosen[gone], np.int64)


@compiled
def _removals(
    order: Integers, starts: Integers, source: Integers, names: Integers, labels: Integers, widths: Integers,
    n_sources: int, n_categories: int, steps: int,
) -> Integers:  # fmt: skip
    """Places of the rows that go; `order` holds the places of each group's rows, ascending, from `starts[g]` on."""
    following, gone = starts.copy(), np.empty(steps, np.int64)
    by_source, by_category = np.zeros(n_sources, np.int64), np.zeros(n_categories, np.int64)
    weights, sums = np.empty(n_categories), np.empty(len(widths))
    rows, marks = 0, 0
    for g in range(len(source)):
        count = starts[g + 1] - starts[g]
        rows += count
        by_source[source[g]] += count
        for column in range(widths[names[g]]):
            by_category[labels[names[g], column]] += count
            marks += count
    for step in range(steps):
        for category in range(n_categories):
            weights[category] = by_category[category] / marks
        # From 0.0 on, one addition after the other in the list's own order: what `sum` does in Python 3.11.
        for place in range(len(widths)):
            total = 0.0
            for column in range(widths[place]):
                total += weights[labels[place, column]]
            sums[place] = total
        best, most = -1, -1.0
        for g in range(len(source)):
            if following[g] == starts[g + 1]:
                continue
            weight = (by_source[source[g]] / rows) * sums[names[g]]
            if weight > most or (weight == most and order[following[g]] < order[following[best]]):
                best, most = g, weight
        gone[step] = order[following[best]]
        following[best] += 1
        rows -= 1
        by_source[source[best]] -= 1
        for column in range(widths[names[best]]):
            by_category[labels[names[best], column]] -= 1
            marks -= 1
    return gone
