"""Joins of vectors by cosine: dense products in float32, block by block, whose close calls float64 decides.

Two vectors are alike if the float64 cosine of their float32 values is at least the threshold, up to `TIE`. So the answer
depends neither on the blocks, nor on the threads, nor on the machine. Memory grows with the number of rows (and, in
`pairs_*`, of pairs found), never with its square. A vector of zeros is like none.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from star1.errors import InputError
from star1.kernels import cores, in_threads
from star1.matches import TIE, Drop, Floats, Indices, Pairs
from star1.progress import track

Vectors: TypeAlias = NDArray[np.float32]

# A block of rows is multiplied with a tile of rows: wide enough for the product to be all of the work, 16 MB in all.
BLOCK, TILE = 1024, 4096
# Rows of a product whose pairs are listed at a time, and pairs compared in float64 at a time (24 MB at 384 numbers each).
LISTED, COMPARED = 64, 4096
# Joins of at least this many rows on both sides look at so many numbers of each vector first, see `_Rows`.
FILTERED, HEAD = 4096, 192


@cache
def gpu() -> str | None:
    """The torch device of this machine's GPU; None without one, found out without the seconds that torch needs to load."""
    if find_spec("torch") is None or not any(Path(f"/dev/{name}").exists() for name in ("nvidiactl", "dxg", "kfd")):
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


@cache
def _libraries() -> Any:
    return ThreadpoolController()


class _Rows(NamedTuple):
    """Rows of length 1 (zeros stay), in float32.

    Attributes:
        unit: the rows `[n, d]`.
        head: their numbers along the axes that tell most about all rows, and the length of the rest `[n, HEAD]`. The product
            of two heads is at least that of the rows, so where it is too small, half of the work is saved. `None` without axes.
    """

    unit: Vectors
    head: Vectors | None

    def take(self, rows: slice | Indices) -> "_Rows":
        """Some of the rows."""
        return _Rows(self.unit[rows], None if self.head is None else self.head[rows])


class _Side:
    """The vectors of one side of a join, with their float64 lengths (NaN for a vector of zeros: like none)."""

    def __init__(self, vectors: Vectors) -> None:
        self.axes: Floats | None = None
        self.vectors = np.asarray(vectors, np.float32)
        self.lengths = np.empty(len(self.vectors))
        for start in range(0, len(self.vectors), TILE):
            wide = self.vectors[start : start + TILE].astype(np.float64)
            self.lengths[start : start + TILE] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        if not np.isfinite(self.lengths).all():
            row = int(np.flatnonzero(~np.isfinite(self.lengths))[0])
            raise InputError("vectors", f"row {row} holds a value that is not finite", "numbers only")
        self.scales = np.where(self.lengths == 0, 1, self.lengths)[:, None]
        self.lengths[self.lengths == 0] = np.nan

    def main_axes(self) -> Floats:
        """The axes, at right angles, along which a sample of the rows is longest `[d, HEAD - 1]`."""
        chosen = slice(None, None, -(-len(self.vectors) // TILE))
        sample = self.vectors[chosen] / self.scales[chosen]
        axes: Floats = np.linalg.eigh(sample.T @ sample).eigenvectors[:, :-HEAD:-1]
        return axes

    def room(self, n: int) -> _Rows:
        """Memory for rows."""
        head = None if self.axes is None else np.empty((n, self.axes.shape[1] + 1), np.float32)
        return _Rows(np.empty((n, self.vectors.shape[1]), np.float32), head)

    def unit(self, start: int, stop: int) -> _Rows:
        """The rows `start` to `stop`."""
        rows = self.room(stop - start)
        for low in range(start, stop, TILE):
            part = slice(low, min(low + TILE, stop))
            into = slice(low - start, part.stop - start)
            scaled = self.vectors[part] / self.scales[part]
            rows.unit[into] = scaled
            if rows.head is not None and self.axes is not None:
                along = scaled @ self.axes
                rest = np.einsum("ij,ij->i", scaled, scaled) - np.einsum("ij,ij->i", along, along)
                rows.head[into, :-1], rows.head[into, -1] = along, np.sqrt(np.maximum(rest, 0))
        return rows


class _Join:
    """Compares rows of two sides."""

    def __init__(self, left: _Side, right: _Side, threshold: float) -> None:
        if not threshold > 0:
            raise ValueError(f"threshold {threshold}: a cosine above 0 is needed")
        self.left, self.right, self.reaches = left, right, threshold - TIE
        # The most that a float32 product of two vectors of length 1 can be off, whatever the order of its sum: a rounding
        # for each product and sum, two for the scaling, the rest for the threshold itself.
        margin = (1.01 * left.vectors.shape[1] + 8) * 2.0**-24 + TIE
        self.possible, self.certain = threshold - margin, threshold + margin
        self.room = np.empty(BLOCK * max(BLOCK, TILE), np.float32)
        if (
            min(len(left.vectors), len(right.vectors)) >= FILTERED
            and left.vectors.shape[1] >= 2 * HEAD
            and gpu() is None
        ):
            with _libraries().limit(limits=1, user_api="blas"):
                left.axes = right.axes = right.main_axes()

    def products(self, left: _Rows, right: _Rows) -> tuple[Indices, Vectors]:
        """The places of the left rows with a product that may reach the threshold, and the products of these rows.

        Those that cannot reach the threshold may be given as -2.
        """
        if not (len(left.unit) and len(right.unit)):
            return np.zeros(0, np.int64), np.zeros((0, len(right.unit)), np.float32)
        if gpu() is not None:
            return self._products_on_gpu(left.unit, right.unit)
        if left.head is None or right.head is None:
            return self._multiplied(left.unit, right.unit)
        places, most = self._multiplied(left.head, right.head)
        i, j = np.divmod(np.flatnonzero(most >= self.possible), len(right.unit))
        # Where many are left, one by one would take longer.
        if len(i) > most.size // 32:
            again, near = self._multiplied(left.unit[places], right.unit)
            return places[again], near
        near = np.full(most.shape, -2, np.float32)
        near[i, j] = np.einsum("ij,ij->i", left.unit[places[i]], right.unit[j])
        return places, near

    def _multiplied(self, left: Vectors, right: Vectors) -> tuple[Indices, Vectors]:
        # One piece of memory for all products: to get it anew each time takes longer than the product.
        product = self.room[: len(left) * len(right)].reshape(len(left), len(right))
        most = np.empty(len(left), np.float32)

        def multiply(_: int, low: int, high: int) -> None:
            np.matmul(left[low:high], right.T, out=product[low:high])
            product[low:high].max(axis=1, out=most[low:high])

        # Threads of the BLAS library wait for each other in busy loops; these do not.
        with _libraries().limit(limits=1, user_api="blas"):
            in_threads(multiply, 0, len(left), cores())
        places = np.flatnonzero(most >= self.possible)
        return places, product[places]

    def _products_on_gpu(self, left: Vectors, right: Vectors) -> tuple[Indices, Vectors]:
        import torch

        # In full float32: NVIDIA's shorter format is off by more than the margin.
        torch.backends.cuda.matmul.allow_tf32 = False
        product: Any = torch.from_numpy(left).to(gpu()) @ torch.from_numpy(right).to(gpu()).T
        places = (product.amax(dim=1) >= self.possible).nonzero()[:, 0]
        return places.cpu().numpy(), product[places].cpu().numpy()

    def cosines(self, left: Indices, right: Indices) -> Floats:
        """The cosines that decide, `[pairs]`, each summed on its own."""
        cosines = np.empty(len(left))
        for start in range(0, len(left), COMPARED):
            rows, others = left[start : start + COMPARED], right[start : start + COMPARED]
            first, second = self.left.vectors[rows].astype(np.float64), self.right.vectors[others].astype(np.float64)
            lengths = self.left.lengths[rows] * self.right.lengths[others]
            cosines[start : start + COMPARED] = np.einsum("ij,ij->i", first, second) / lengths
        return cosines

    def alike(self, near: Vectors, rows: Indices, others: Indices) -> NDArray[np.bool_]:
        """Which of `rows` and `others` are alike, `[rows, others]`, given their float32 products."""
        alike: NDArray[np.bool_] = near >= self.certain
        for start in range(0, len(near), LISTED):
            part = slice(start, start + LISTED)
            close = (near[part] >= self.possible) & ~alike[part]
            i, j = np.divmod(np.flatnonzero(close), near.shape[1])
            alike[start + i, j] = self.cosines(rows[start + i], others[j]) >= self.reaches
        return alike

    def pairs(self, near: Vectors, rows: Indices, others: Indices, lower: bool) -> Iterator[Pairs]:
        """The pairs of `rows` and `others` that are alike; only those with the earlier of the two at the right if `lower`."""
        for start in range(0, len(near), LISTED):
            i, j = np.nonzero(near[start : start + LISTED] >= self.possible)
            left, right = rows[start + i], others[j]
            if lower:
                left, right = left[right < left], right[right < left]
            cosines = self.cosines(left, right)
            hit = cosines >= self.reaches
            yield Pairs(left[hit], right[hit], cosines[hit])

    def first(self, block: _Rows, rows: Indices, units: _Rows, others: Indices) -> Indices:
        """For each of `rows`, scaled in `block`, the place of the first of `others`, scaled in `units`, alike; or -1."""
        found = np.full(len(rows), -1)
        for start in range(0, len(others), TILE):
            open_ = np.flatnonzero(found < 0)
            tile = slice(start, start + TILE)
            places, near = self.products(block.take(open_), units.take(tile))
            alike = self.alike(near, rows[open_[places]], others[tile])
            hit = np.flatnonzero(alike.any(axis=1))
            found[open_[places[hit]]] = start + alike[hit].argmax(axis=1)
        return found


def greedy(vectors: Vectors, threshold: float) -> list[Drop]:
    """Rows that are like an earlier row that stays, decided in order; matched with the first such row."""
    side = _Side(vectors)
    join = _Join(side, side, threshold)
    # Only rows that stay are compared with, so they are laid side by side.
    units, stays, count = side.room(len(vectors)), np.empty(len(vectors), np.int64), 0
    matched, n = np.full(len(vectors), -1), len(vectors)
    for start in track(range(0, n, BLOCK), "compare vectors", -(-n // BLOCK), "blocks"):
        rows = np.arange(start, min(start + BLOCK, n))
        block = side.unit(start, start + len(rows))
        found = join.first(block, rows, units.take(slice(count)), stays[:count])
        matched[rows] = np.where(found < 0, -1, stays[found] if count else -1)
        left = np.flatnonzero(found < 0)
        _within(join, block.take(left), rows[left], matched)
        left = left[matched[rows[left]] < 0]
        for kept, new in zip(units, block.take(left), strict=True):
            if kept is not None and new is not None:
                kept[count : count + len(left)] = new
        stays[count : count + len(left)] = rows[left]
        count += len(left)
    return _drops(join, matched)


def _within(join: _Join, block: _Rows, rows: Indices, matched: Indices) -> None:
    """Match, in `matched`, the rows of one block that are like an earlier one of it that stays."""
    places, near = join.products(block, block)
    alike = join.alike(near, rows[places], rows) & (np.arange(len(rows)) < places[:, None])
    stays = np.ones(len(rows), np.bool_)
    for line in np.flatnonzero(alike.any(axis=1)):
        hits = alike[line] & stays
        if hits.any():
            matched[rows[places[line]]] = rows[hits.argmax()]
            stays[places[line]] = False


def _drops(join: _Join, matched: Indices) -> list[Drop]:
    rows = np.flatnonzero(matched >= 0)
    columns: Sequence[Any] = (rows, matched[rows], join.cosines(rows, matched[rows]))
    return [Drop(*drop) for drop in zip(*(column.tolist() for column in columns), strict=True)]


def against(vectors: Vectors, others: Vectors, threshold: float) -> list[Drop]:
    """Rows that are like any of `others`; matched with the first such."""
    side, other = _Side(vectors), _Side(others)
    join, units, matched = _Join(side, other, threshold), other.unit(0, len(others)), np.full(len(vectors), -1)
    for start in range(0, len(vectors), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(vectors)))
        matched[rows] = join.first(side.unit(start, start + len(rows)), rows, units, np.arange(len(others)))
    return _drops(join, matched)


def pairs_within(vectors: Vectors, rows: range, threshold: float) -> Pairs:
    """All pairs of one of `rows` and an earlier row that are alike: one shard of the join of `vectors` with itself."""
    side = _Side(vectors[: rows.stop])
    return _pairs(_Join(side, side, threshold), rows, lower=True)


def pairs_against(vectors: Vectors, rows: range, others: Vectors, threshold: float) -> Pairs:
    """All pairs of one of `rows` and one of `others` that are alike."""
    return _pairs(_Join(_Side(vectors[: rows.stop]), _Side(others), threshold), rows, lower=False)


def _pairs(join: _Join, rows: range, lower: bool) -> Pairs:
    n = len(join.right.vectors)
    units, parts = join.right.unit(0, n), []
    for start in track(range(rows.start, rows.stop, BLOCK), "compare vectors", -(-len(rows) // BLOCK), "blocks"):
        left = np.arange(start, min(start + BLOCK, rows.stop))
        block, found = join.left.unit(start, start + len(left)), []
        for low in range(0, min(n, left[-1] + 1) if lower else n, TILE):
            others = np.arange(low, min(low + TILE, n))
            places, near = join.products(block, units.take(slice(low, low + TILE)))
            found += list(join.pairs(near, left[places], others, lower))
        tiles = Pairs.joined(found)
        order = np.lexsort((tiles.right, tiles.left))
        parts.append(Pairs(tiles.left[order], tiles.right[order], tiles.similarity[order]))
    return Pairs.joined(parts)
