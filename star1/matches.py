"""Who is like whom: what the joins of `ngrams`, `tfidf` and `vectors` give, and the greedy choice among it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

# A cosine this little below a threshold reaches it: sums of the same numbers in another order differ by less, so what is
# a tie on paper is decided in the same way on every machine, and equal rows have a cosine of 1.
TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that goes: its `index`, the index of the row it is `matched` with, and by what."""

    index: int
    matched: int
    similarity: float | None = None
    ngram: str | None = None


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows that are alike, sorted by `left` and then `right`.

    Attributes:
        left: row of the one side `[pairs]`.
        right: row of the other side `[pairs]`; where both sides are the same rows, an earlier one.
        similarity: their cosine `[pairs]`.
    """

    left: Indices
    right: Indices
    similarity: Floats

    @staticmethod
    def none() -> "Pairs":
        """No pair."""
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    @staticmethod
    def joined(parts: Sequence["Pairs"]) -> "Pairs":
        """The pairs of all parts, whose left rows ascend from part to part."""
        if not parts:
            return Pairs.none()
        return Pairs(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("left", "right", "similarity"))
        )


def greedy(pairs: Pairs, n: int, alive: Callable[[int], bool] = lambda row: True) -> list[Drop]:
    """Rows that are like an earlier row that stays, decided in order; matched with the first such row.

    Args:
        pairs: all pairs `(row, earlier row)` that are alike.
        n: number of rows.
        alive: whether a row takes part at all.
    """
    stays = [alive(row) for row in range(n)]
    drops: list[Drop] = []
    previous = -1
    for left, right, similarity in zip(
        pairs.left.tolist(), pairs.right.tolist(), pairs.similarity.tolist(), strict=True
    ):
        # Pairs come in the order of their later row, so whether the earlier one stays is known by then.
        if left != previous and stays[left] and stays[right]:
            drops.append(Drop(left, right, similarity))
            stays[left] = False
            previous = left
    return drops


def first(pairs: Pairs) -> list[Drop]:
    """A drop for every left row, matched with the first row that it is like."""
    _, places = np.unique(pairs.left, return_index=True)
    columns = (pairs.left[places].tolist(), pairs.right[places].tolist(), pairs.similarity[places].tolist())
    return [Drop(left, right, similarity) for left, right, similarity in zip(*columns, strict=True)]
