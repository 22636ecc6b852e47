"""Rows that share a run of n words: exact, with the words as numbers and their n-grams in one open-addressed table."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from star1.kernels import compiled
from star1.matches import Drop, Indices

Survivor: TypeAlias = Literal["first", "as_published"]
Numbers: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True)
class Words:
    """Texts as words: lower-cased and split at white space, equal words with equal numbers.

    Attributes:
        texts: the texts `[n]`.
        flat: the words of all texts in order `[words]`.
        starts: where the words of each text start in `flat` `[n + 1]`.
    """

    texts: Sequence[str]
    flat: Numbers
    starts: Indices

    def ngram(self, row: int, at: int, n: int) -> str:
        """The n-gram of a row that starts at the place `at` of `flat`."""
        start = at - int(self.starts[row])
        return " ".join(self.texts[row].lower().split()[start : start + n])

    def count(self, n: int) -> int:
        """How many n-grams there are."""
        return int(np.maximum(np.diff(self.starts) - n + 1, 0).sum())


def split(texts: Sequence[str]) -> Words:
    """The words of texts."""
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__
    flat, starts = array("i"), np.zeros(len(texts) + 1, np.int64)
    for row, text in enumerate(texts):
        flat.extend(map(number.__getitem__, text.lower().split()))
        starts[row + 1] = len(flat)
    return Words(texts, np.array(flat, dtype=np.int32), starts)


class Table:
    """The n-grams of rows that were added, each with the first row that holds it.

    Args:
        words: the words of all rows there will be.
        n: length of the n-grams [words].
    """

    def __init__(self, words: Words, n: int) -> None:
        self.words, self.n = words, n
        size = 1 << max(4, (2 * words.count(n)).bit_length())
        self.place, self.row = np.full(size, -1, np.int64), np.full(size, -1, np.int32)

    def add(self, rows: Sequence[int] | Indices) -> None:
        """Add the n-grams of rows."""
        _add(self.words.flat, self.words.starts, np.asarray(rows, np.int64), self.n, self.place, self.row)

    def match(self, rows: Sequence[int] | Indices, growing: bool = False) -> list[Drop]:
        """Rows that share an n-gram with an added one, in order, matched with the first that holds their first such n-gram.

        Args:
            rows: the rows, by number; those of the result are places in this list.
            growing: add each row that shares none before the next is looked at; then matches are places in the list too.
        """
        rows = np.asarray(rows, np.int64)
        found, at = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.int64)
        _match(self.words.flat, self.words.starts, rows, self.n, self.place, self.row, found, at, growing)
        hits = np.flatnonzero(found >= 0).tolist()
        start = int(rows[0]) if growing and len(rows) else 0
        return [
            Drop(hit, int(found[hit]) - start, ngram=self.words.ngram(int(rows[hit]), int(at[hit]), self.n))
            for hit in hits
        ]


def self_ngram(words: Words, rows: range, n: int, survivor: Survivor) -> list[Drop]:
    """Rows that share an n-gram with another row of the same range; their numbers count from its start.

    With `first`, a row goes if it shares an n-gram with an earlier row that stays. So the first row of every cluster
    stays, and no two rows that stay share an n-gram.

    With `as_published`, each n-gram that several rows hold keeps the one that `set.pop()` takes from the Python set of
    their numbers (not in general the first), and all its other holders go, even if another n-gram keeps them. So all
    rows of a cluster can go.
    """
    part = _part(words, rows)
    if survivor == "first":
        return Table(part, n).match(range(len(rows)), growing=True)
    drops: dict[int, Drop] = {}
    for at, holders in _shared(part, n):
        indices: set[int] = set()
        for index in holders:  # one by one: the place of a number in a Python set depends on the way it grew
            indices.add(index)
        stays = indices.pop()
        for index in indices - drops.keys():
            drops[index] = Drop(index, stays, ngram=part.ngram(holders[0], at, n))
    return [drops[index] for index in sorted(drops)]


def differences(words: Words, rows: range, n: int) -> dict[str, int]:
    """How the two survivors of `self_ngram` differ on the same rows.

    Returns:
        Rows that stay under `first` and under `as_published`, rows that stay under only one of them, and how many
        clusters (rows connected by shared n-grams) there are and how many of them `as_published` loses whole.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    gone = {survivor: {drop.index for drop in self_ngram(words, rows, n, survivor)} for survivor in SURVIVORS}
    shared = _shared(_part(words, rows), n)
    left = [holders[0] for _, holders in shared for _ in holders]
    right = [index for _, holders in shared for index in holders]
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(rows), len(rows)))
    _, label = connected_components(graph, directed=False)
    clusters = {int(label[index]) for index in right}
    alive = {int(label[index]) for index in set(right) - gone["as_published"]}
    return {
        "first": len(rows) - len(gone["first"]),
        "as_published": len(rows) - len(gone["as_published"]),
        "only_first": len(gone["as_published"] - gone["first"]),
        "only_as_published": len(gone["first"] - gone["as_published"]),
        "clusters": len(clusters),
        "clusters_lost_as_published": len(clusters - alive),
    }


SURVIVORS: tuple[Survivor, Survivor] = ("first", "as_published")


def _part(words: Words, rows: range) -> Words:
    starts = words.starts[rows.start : rows.stop + 1]
    flat = words.flat[starts[0] : starts[-1]]
    return Words(words.texts[rows.start : rows.stop], flat, starts - starts[0])


def _shared(words: Words, n: int) -> list[tuple[int, list[int]]]:
    """The n-grams that several rows hold, in the order of their first place, with that place and the rows in order."""
    table = Table(words, n)
    count = _count_holders(words.flat, words.starts, n, table.place, table.row)
    ngram, holder = _holders(words.flat, words.starts, n, table.place, table.row, count)
    order = np.lexsort((holder, ngram))
    ngram, holder = ngram[order], holder[order]
    places, first = np.unique(ngram, return_index=True)
    groups = np.split(holder, first[1:]) if len(places) else []
    return [(int(at), list(dict.fromkeys(group.tolist()))) for at, group in zip(places, groups, strict=True)]


# --- kernels ----------------------------------------------------------------------------------------------------------


@compiled
def _slot(flat: Numbers, at: int, n: int, place: Indices) -> np.int64:
    """Where the table has the n-gram at `at`, or the free slot where it belongs."""
    code = np.uint64(1469598103934665603)
    for word in flat[at : at + n]:
        code = (code ^ np.uint64(word)) * np.uint64(0x9E3779B97F4A7C15)
        code ^= code >> np.uint64(29)
    slot = np.int64(code & np.uint64(len(place) - 1))
    while place[slot] >= 0:
        other, same = place[slot], True
        for step in range(n):
            if flat[other + step] != flat[at + step]:
                same = False
                break
        if same:
            break
        slot = (slot + 1) & (len(place) - 1)
    return slot


@compiled
def _add(flat: Numbers, starts: Indices, rows: Indices, n: int, place: Indices, row: Numbers) -> None:
    for added in rows:
        for at in range(starts[added], starts[added + 1] - n + 1):
            slot = _slot(flat, at, n, place)
            if place[slot] < 0:
                place[slot], row[slot] = at, added


@compiled
def _match(
    flat: Numbers,
    starts: Indices,
    rows: Indices,
    n: int,
    place: Indices,
    row: Numbers,
    found: Indices,
    found_at: Indices,
    growing: bool,
) -> None:
    for position, looked in enumerate(rows):
        for at in range(starts[looked], starts[looked + 1] - n + 1):
            slot = _slot(flat, at, n, place)
            if place[slot] >= 0:
                found[position], found_at[position] = row[slot], at
                break
        if growing and found[position] < 0:
            _add(flat, starts, rows[position : position + 1], n, place, row)


@compiled
def _count_holders(flat: Numbers, starts: Indices, n: int, place: Indices, row: Numbers) -> Numbers:
    """Fill the table with the last holder of each n-gram, and count its holders."""
    count = np.zeros(len(place), np.int32)
    for holder in range(len(starts) - 1):
        for at in range(starts[holder], starts[holder + 1] - n + 1):
            slot = _slot(flat, at, n, place)
            if place[slot] < 0:
                place[slot] = at
            if row[slot] != holder:
                row[slot] = holder
                count[slot] += 1
    return count


@compiled
def _holders(
    flat: Numbers, starts: Indices, n: int, place: Indices, row: Numbers, count: Numbers
) -> tuple[Indices, Indices]:
    """First place and holder, for every holder of an n-gram that has several (a row comes as often as it holds it)."""
    size = 0
    for holder in range(len(starts) - 1):
        for at in range(starts[holder], starts[holder + 1] - n + 1):
            size += count[_slot(flat, at, n, place)] > 1
    ngram, holders = np.empty(size, np.int64), np.empty(size, np.int64)
    size = 0
    for holder in range(len(starts) - 1):
        for at in range(starts[holder], starts[holder + 1] - n + 1):
            slot = _slot(flat, at, n, place)
            if count[slot] > 1:
                ngram[size], holders[size] = place[slot], holder
                size += 1
    return ngram, holders
