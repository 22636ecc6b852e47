"""The greedy choice among pairs."""

import numpy as np

from star1.matches import Drop, Pairs, first, greedy


def pairs(*rows: tuple[int, int, float]) -> Pairs:
    left, right, similarity = zip(*rows, strict=True)
    return Pairs(np.array(left), np.array(right), np.array(similarity))


def test_a_chain_keeps_every_second_row() -> None:
    # 1 is like 0 and goes; 2 is like 1 alone, so it stays: only rows that stay count.
    assert greedy(pairs((1, 0, 0.7), (2, 1, 0.8), (3, 2, 0.9)), 4) == [Drop(1, 0, 0.7), Drop(3, 2, 0.9)]


def test_the_first_row_that_stays_is_the_match() -> None:
    found = greedy(pairs((1, 0, 0.7), (2, 0, 0.8), (2, 1, 0.9), (3, 2, 1.0)), 4)
    assert found == [Drop(1, 0, 0.7), Drop(2, 0, 0.8)]


def test_rows_that_are_not_alive_neither_go_nor_match() -> None:
    assert greedy(pairs((1, 0, 0.7), (2, 1, 0.8)), 3, alive=lambda row: row != 0) == [Drop(2, 1, 0.8)]


def test_no_pair_and_joined_parts() -> None:
    assert greedy(Pairs.none(), 3) == first(Pairs.joined([])) == []
    joined = Pairs.joined([pairs((1, 0, 0.7)), Pairs.none(), pairs((2, 0, 0.8), (2, 1, 0.9))])
    assert first(joined) == [Drop(1, 0, 0.7), Drop(2, 0, 0.8)]
