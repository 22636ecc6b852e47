"""Joins of vectors by cosine: who is like whom among dense vectors, such as sentence embeddings.

Two vectors are alike if the float64 cosine of their float32 values is at least the threshold, up to `TIE`: `products`
rules pairs out in float32, and float64 decides the close calls. So the answer depends neither on the blocks, nor on the
threads, nor on the machine. Memory grows with the number of rows (and, in `pairs_*`, of pairs found), never with its
square. A vector of zeros is like none.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from star1.matches import Drop, Indices, Pairs
from star1.products import BLOCK, TILE, Products, Side, Vectors, where
from star1.progress import track

# Rows of a product whose pairs are listed at a time.
LISTED = 64


class _Join(Products):
    """Finds the pairs of rows that are alike."""

    def alike(self, near: Vectors, rows: Indices, others: Indices) -> NDArray[np.bool_]:
        """Which of `rows` and `others` are alike, `[rows, others]`, given their float32 products."""
        alike: NDArray[np.bool_] = near >= self.certain
        for start in range(0, len(near), LISTED):
            part = slice(start, start + LISTED)
            i, j = where((near[part] >= self.possible) & ~alike[part])
            alike[start + i, j] = self.cosines(rows[start + i], others[j]) >= self.reaches
        return alike

    def pairs(self, near: Vectors, rows: Indices, others: Indices, lower: bool) -> Iterator[Pairs]:
        """The pairs of `rows` and `others` that are alike; only those with the earlier of the two at the right if `lower`."""
        for start in range(0, len(near), LISTED):
            i, j = where(near[start : start + LISTED] >= self.possible)
            left, right = rows[start + i], others[j]
            if lower:
                left, right = left[right < left], right[right < left]
            cosines = self.cosines(left, right)
            hit = cosines >= self.reaches
            yield Pairs(left[hit], right[hit], cosines[hit])

    def first(self, block: Vectors, rows: Indices, units: Vectors, others: Indices) -> Indices:
        """For each of `rows`, prepared in `block`, the place of the first of `others`, prepared in `units`, alike; or -1."""
        found = np.full(len(rows), -1)
        for start in range(0, len(others), TILE):
            open_ = np.flatnonzero(found < 0)
            tile = slice(start, start + TILE)
            places, near = self.near(block[open_], units[tile])
            alike = self.alike(near, rows[open_[places]], others[tile])
            hit = np.flatnonzero(alike.any(axis=1))
            found[open_[places[hit]]] = start + alike[hit].argmax(axis=1)
        return found


def greedy(vectors: Vectors, threshold: float) -> list[Drop]:
    """Rows that are like an earlier row that stays, decided in order; matched with the first such row."""
    side = Side(vectors)
    join = _Join(side, side, threshold)
    # Only rows that stay are compared with, so they are laid side by side.
    units, stays, count = np.empty((len(vectors), join.width), np.float32), np.empty(len(vectors), np.int64), 0
    matched, n = np.full(len(vectors), -1), len(vectors)
    for start in track(range(0, n, BLOCK), "compare vectors", -(-n // BLOCK), "blocks"):
        rows = np.arange(start, min(start + BLOCK, n))
        block = join.prepared(side, start, start + len(rows))
        found = join.first(block, rows, units[:count], stays[:count])
        matched[rows] = np.where(found < 0, -1, stays[found] if count else -1)
        left = np.flatnonzero(found < 0)
        _within(join, block[left], rows[left], matched)
        left = left[matched[rows[left]] < 0]
        units[count : count + len(left)], stays[count : count + len(left)] = block[left], rows[left]
        count += len(left)
    return _drops(join, matched)


def _within(join: _Join, block: Vectors, rows: Indices, matched: Indices) -> None:
    """Match, in `matched`, the rows of one block that are like an earlier one of it that stays."""
    places, near = join.near(block, block)
    alike = join.alike(near, rows[places], rows) & (np.arange(len(rows)) < places[:, None])
    stays = np.ones(len(rows), np.bool_)
    for line in np.flatnonzero(alike.any(axis=1)):
        hits = alike[line] & stays
        if hits.any():
            matched[rows[places[line]]] = rows[hits.argmax()]
            stays[places[line]] = False


def _drops(join: _Join, matched: Indices) -> list[Drop]:
    rows = np.flatnonzero(matched >= 0)
    columns = rows.tolist(), matched[rows].tolist(), join.cosines(rows, matched[rows]).tolist()
    return [Drop(row, other, cosine) for row, other, cosine in zip(*columns, strict=True)]


def against(vectors: Vectors, others: Vectors, threshold: float) -> list[Drop]:
    """Rows that are like any of `others`; matched with the first such."""
    side, other = Side(vectors), Side(others)
    join, matched = _Join(side, other, threshold), np.full(len(vectors), -1)
    units = join.prepared(other, 0, len(others))
    for start in range(0, len(vectors), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(vectors)))
        matched[rows] = join.first(join.prepared(side, start, start + len(rows)), rows, units, np.arange(len(others)))
    return _drops(join, matched)


def pairs_within(vectors: Vectors, rows: range, threshold: float) -> Pairs:
    """All pairs of one of `rows` and an earlier row that are alike: one shard of the join of `vectors` with itself."""
    side = Side(vectors[: rows.stop])
    return _pairs(_Join(side, side, threshold), rows, lower=True)


def pairs_against(vectors: Vectors, rows: range, others: Vectors, threshold: float) -> Pairs:
    """All pairs of one of `rows` and one of `others` that are alike."""
    return _pairs(_Join(Side(vectors[: rows.stop]), Side(others), threshold), rows, lower=False)


def _pairs(join: _Join, rows: range, lower: bool) -> Pairs:
    n = len(join.right.vectors)
    units, parts = join.prepared(join.right, 0, n), []
    for start in track(range(rows.start, rows.stop, BLOCK), "compare vectors", -(-len(rows) // BLOCK), "blocks"):
        left = np.arange(start, min(start + BLOCK, rows.stop))
        block, found = join.prepared(join.left, start, start + len(left)), []
        for low in range(0, min(n, left[-1] + 1) if lower else n, TILE):
            others = np.arange(low, min(low + TILE, n))
            places, near = join.near(block, units[low : low + TILE])
            found += list(join.pairs(near, left[places], others, lower))
        tiles = Pairs.joined(found)
        order = np.lexsort((tiles.right, tiles.left))
        parts.append(Pairs(tiles.left[order], tiles.right[order], tiles.similarity[order]))
    return Pairs.joined(parts)
