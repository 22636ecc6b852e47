"""Rows with a common run of words: both rules for the survivor, against the rules written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from star1.matches import Drop
from star1.ngrams import Survivor, Table, differences, self_ngram, split

few_words = st.lists(st.lists(st.sampled_from("ab"), max_size=5).map(" ".join), max_size=12)


def word_ngrams(text: str, n: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]


def drops_of(texts: list[str], n: int, survivor: Survivor) -> list[Drop]:
    return self_ngram(split(texts), range(len(texts)), n, survivor)


def dropped(texts: list[str], n: int, survivor: Survivor) -> list[int]:
    return [drop.index for drop in drops_of(texts, n, survivor)]


@given(few_words)
def test_first_is_the_rule_written_out(texts: list[str]) -> None:
    holders: dict[str, int] = {}
    expected = []
    for index, text in enumerate(texts):
        ngrams = word_ngrams(text, 2)
        shared = next((ngram for ngram in ngrams if ngram in holders), None)
        if shared is None:
            for ngram in ngrams:
                holders.setdefault(ngram, index)
        else:
            expected.append(Drop(index, holders[shared], ngram=shared))
    assert drops_of(texts, 2, "first") == expected


@given(few_words)
def test_first_keeps_a_first_row_of_every_cluster(texts: list[str]) -> None:
    gone = dropped(texts, 2, "first")
    grams = [set(word_ngrams(text, 2)) for text in texts]
    kept = [index for index in range(len(texts)) if index not in gone]
    assert not any(grams[i] & grams[j] for i in kept for j in kept if i < j)


@given(few_words)
def test_as_published_is_the_rule_written_out(texts: list[str]) -> None:
    holders: dict[str, set[int]] = {}
    for index, text in enumerate(texts):
        for ngram in word_ngrams(text, 2):
            holders.setdefault(ngram, set()).add(index)
    expected: dict[int, Drop] = {}
    for ngram, indices in holders.items():
        if len(indices) > 1:
            stays = indices.pop()
            for index in indices:
                expected.setdefault(index, Drop(index, stays, ngram=ngram))
    assert drops_of(texts, 2, "as_published") == sorted(expected.values(), key=lambda drop: drop.index)


def test_as_published_can_keep_a_later_row() -> None:
    # In a set of 1 and 8, the table slot of 8 comes first.
    texts = ["x"] + ["same words here"] + ["x"] * 6 + ["same words here"]
    assert dropped(texts, 3, "as_published") == [1]
    assert dropped(texts, 3, "first") == [8]


def test_as_published_can_lose_a_whole_cluster() -> None:
    # Five indices have a larger table than two: "a b" keeps row 1 and drops 8, "c d" keeps row 8 and drops 1.
    texts = ["x", "a b c d", "a b", "a b", "a b", "x", "x", "x", "a b q c d"]
    assert dropped(texts, 2, "as_published") == [1, 2, 3, 4, 8]
    assert dropped(texts, 2, "first") == [2, 3, 4, 8]
    assert differences(split(texts), range(len(texts)), 2) == {
        "first": 5,
        "as_published": 4,
        "only_first": 1,
        "only_as_published": 0,
        "clusters": 1,
        "clusters_lost_as_published": 1,
    }


@pytest.mark.parametrize("survivor", ["first", "as_published"])
def test_words_are_compared_without_case_and_spacing(survivor: Survivor) -> None:
    assert len(drops_of(["One  TWO\tthree", "\none two\n\nThree "], 3, survivor)) == 1
    assert drops_of(["one two", "one two", ""], 3, survivor) == []  # too short to have an n-gram


@pytest.mark.parametrize("survivor", ["first", "as_published"])
def test_a_range_is_compared_with_itself_alone(survivor: Survivor) -> None:
    words = split(["a b", "c d", "a b", "c d", "c d"])
    drops = self_ngram(words, range(2, 5), 2, survivor)
    assert [(drop.index, drop.matched, drop.ngram) for drop in drops] == [(2, 1, "c d")]


def test_a_table_names_the_first_holder_and_the_first_ngram() -> None:
    words = split(["a b c", "b c d", "b c e", "x y", "z B  C d", "c e"])
    table = Table(words, 2)
    table.add(range(3))
    drops = table.match(range(3, 6))
    assert [(drop.index, drop.matched, drop.ngram) for drop in drops] == [(1, 0, "b c"), (2, 2, "c e")]


def test_many_rows_agree_with_sets_of_strings() -> None:
    """A table that has to step over thousands of collisions."""
    random = np.random.default_rng(0)
    texts = [" ".join(map(str, random.integers(0, 40, 6))) for _ in range(5000)]
    words, pool = split(texts), {ngram for text in texts[:3000] for ngram in word_ngrams(text, 3)}
    table = Table(words, 3)
    table.add(range(3000))
    found = {drop.index for drop in table.match(range(3000, 5000))}
    expected = {row for row, text in enumerate(texts[3000:]) if pool & set(word_ngrams(text, 3))}
    assert found == expected
    assert 100 < len(found) < 1900
