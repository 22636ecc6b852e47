"""Which vectors may have a cosine of at least a threshold, by float32 products of blocks; and the cosines that decide.

Most pairs are ruled out by a third of the work: with `p` the part of a vector of length 1 along the main directions of
the data and `r` the length of the rest, `x.y <= p.q + r.s`. The other pairs get their whole product.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from star1.errors import InputError
from star1.kernels import cores, in_threads
from star1.matches import TIE, Floats, Indices

Vectors: TypeAlias = NDArray[np.float32]

# A block of rows is multiplied with a tile of rows: wide enough for the product to be most of the work, 16 MB in all.
BLOCK, TILE = 1024, 4096
# Pairs multiplied on their own at a time (24 MB in float64, of vectors of 384 numbers).
COMPARED = 4096
# Rows from which the main directions are worth finding, of how many rows they are found, and the share of pairs not
# ruled out that is too large.
FILTERED, SAMPLE, CROWDED = 4096, 2048, 0.02


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


def where(mask: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Rows and columns of what is true, in order: `nonzero`, but quick where little is."""
    rows, columns = np.divmod(np.flatnonzero(mask), max(mask.shape[1], 1))
    return rows, columns


class Side:
    """The vectors of one side of a join, with their float64 lengths (NaN for a vector of zeros: like none)."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = np.asarray(vectors, np.float32)
        self.lengths = np.empty(len(self.vectors))
        for start in range(0, len(self.vectors), TILE):
            wide = self.vectors[start : start + TILE].astype(np.float64)
            self.lengths[start : start + TILE] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        if not np.isfinite(self.lengths).all():
            row = int(np.flatnonzero(~np.isfinite(self.lengths))[0])
            raise InputError("vectors", f"row {row} holds a value that is not finite", "numbers only")
        self.lengths[self.lengths == 0] = np.nan

    def units(self, rows: slice) -> Floats:
        """Rows scaled to length 1, in float64; zeros stay."""
        units: Floats = np.nan_to_num(self.vectors[rows] / self.lengths[rows, None])
        return units


class Products:
    """Compares rows of two sides by cosine with a threshold above 0."""

    def __init__(self, left: Side, right: Side, threshold: float) -> None:
        if not threshold > 0:
            raise ValueError(f"threshold {threshold}: a cosine above 0 is needed")
        self.left, self.right, self.reaches = left, right, threshold - TIE
        # The most that a float32 product of two vectors of length 1 can be off, whatever the order of its sum: a rounding
        # for each product and sum, two for the scaling, the rest for the threshold itself.
        margin = (1.01 * left.vectors.shape[1] + 8) * 2.0**-24 + TIE
        self.possible, self.certain = threshold - margin, threshold + margin
        self.room = np.empty(BLOCK * max(BLOCK, TILE), np.float32)
        self.compared = self.crowd = 0
        self.directions = self._directions()
        # So many numbers come before the vector itself in a prepared row.
        self.narrow = 0 if self.directions is None else self.directions.shape[1] + 1
        self.width = self.narrow + left.vectors.shape[1]

    def _directions(self) -> Floats | None:
        """The main directions of the data, `[d, d / 3]`, orthonormal; None where they are not worth their while.

        Any orthonormal directions are right; a few power iterations on a sample give good ones.
        """
        n, d = self.right.vectors.shape
        if n < FILTERED or gpu() is not None:
            return None
        with _libraries().limit(limits=1, user_api="blas"):
            sample = self.right.units(slice(None, None, -(-n // SAMPLE)))
            moments = sample.T @ sample
            directions: Floats = np.random.default_rng(0).standard_normal((d, d // 3))
            for _ in range(4):
                directions = np.linalg.qr(moments @ directions)[0]
        return directions

    def prepared(self, side: Side, start: int, stop: int) -> Vectors:
        """The rows as `near` takes them: `p` and `r`, if there are main directions, and the vector, of length 1."""
        rows = np.empty((stop - start, self.width), np.float32)
        for low in range(start, stop, TILE):
            high = min(low + TILE, stop)
            units, part = side.units(slice(low, high)), rows[low - start : high - start]
            part[:, self.narrow :] = units
            if self.directions is not None:
                with _libraries().limit(limits=1, user_api="blas"):
                    main = units @ self.directions
                part[:, : self.narrow - 1] = main
                # Never less than the length of the rest, whatever float64 rounds.
                rest = np.maximum(1 - np.einsum("ij,ij->i", main, main), 0) + 1e-12
                part[:, self.narrow - 1] = np.sqrt(rest)
        return rows

    def near(self, left: Vectors, right: Vectors) -> tuple[Indices, Vectors]:
        """The places of prepared left rows that may be like a right one, and products of these with all right ones.

        What stands for a product below `possible` need not be the product, but shows that the two are not alike.
        """
        if not (len(left) and len(right)):
            return np.zeros(0, np.int64), np.zeros((0, len(right)), np.float32)
        if gpu() is not None:
            return self._near_on_gpu(left, right)
        parts: dict[int, tuple[Indices, Vectors]] = {}

        def work(thread: int, low: int, high: int) -> None:
            # One piece of memory for all products: to get it anew each time takes longer than the product.
            room = self.room[low * len(right) : high * len(right)].reshape(high - low, len(right))
            places, near = self._near_in(room, left[low:high], right)
            parts[thread] = low + places, near

        # Threads of the BLAS library wait for each other in busy loops; these do not.
        with _libraries().limit(limits=1, user_api="blas"):
            in_threads(work, 0, len(left), min(cores(), len(left)))
        columns = zip(*(parts[thread] for thread in sorted(parts)), strict=True)
        places, near = (np.concatenate(column) for column in columns)
        return places, near

    def _near_in(self, room: Vectors, left: Vectors, right: Vectors) -> tuple[Indices, Vectors]:
        filtered = self.narrow > 0 and self.crowd <= CROWDED * self.compared
        columns = slice(None, self.narrow) if filtered else slice(self.narrow, None)
        np.matmul(left[:, columns], right[:, columns].T, out=room)
        places = np.flatnonzero(room.max(axis=1) >= self.possible)
        near = room[places]
        if filtered:
            near = self._whole(left[places, self.narrow :], right[:, self.narrow :], near)
            self.compared += room.size
            left_over = np.flatnonzero(near.max(axis=1, initial=0) >= self.possible)
            places, near = places[left_over], near[left_over]
        return places, near

    def _whole(self, left: Vectors, right: Vectors, near: Vectors) -> Vectors:
        """Put the product of whole vectors where `near` does not rule a pair out."""
        i, j = where(near >= self.possible)
        self.crowd += len(i)
        if len(i) > CROWDED * near.size:
            return left @ right.T
        for start in range(0, len(i), COMPARED):
            rows, others = i[start : start + COMPARED], j[start : start + COMPARED]
            near[rows, others] = np.einsum("ij,ij->i", left[rows], right[others])
        return near

    def _near_on_gpu(self, left: Vectors, right: Vectors) -> tuple[Indices, Vectors]:
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
