"""TF-IDF joins over an inverted index: against dense matrices of scikit-learn and the greedy rule written out."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from star1 import matches, tfidf
from star1.matches import TIE, Drop, Pairs
from star1.tfidf import Terms, Vocabulary

COLOURS = ["red", "green", "blue", "grey", "pink", "teal"]


def terms(texts: Sequence[str]) -> Terms:
    return Vocabulary().terms(texts)


def colours(seed: int, n: int = 60, k: int = 5) -> list[str]:
    return [" ".join(random.Random(seed * 1000 + row).choices(COLOURS, k=k)) for row in range(n)]


def cosines(texts: Sequence[str]) -> Any:
    matrix = TfidfVectorizer().fit_transform(texts)
    return (matrix @ matrix.T).toarray()


def literal_greedy(similarity: Any, threshold: float) -> dict[int, int]:
    """First wins, written out: which earlier row that stays, if any, each row is like."""
    kept: list[int] = []
    matched: dict[int, int] = {}
    for index in range(len(similarity)):
        like = [other for other in kept if similarity[index][other] >= threshold - TIE]
        if like:
            matched[index] = like[0]
        else:
            kept.append(index)
    return matched


def matched(drops: Sequence[Drop]) -> dict[int, int]:
    return {drop.index: drop.matched for drop in drops}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block", [7, 4096])
def test_joins_are_the_rule_written_out(monkeypatch: pytest.MonkeyPatch, seed: int, block: int) -> None:
    monkeypatch.setattr(tfidf, "BLOCK", block)
    texts = colours(seed)
    similarity = cosines(texts)
    # A cosine that occurs is a threshold with ties.
    for threshold in (0.8, float(similarity[0][similarity[0] < 0.99].max())):
        drops = tfidf.greedy(terms(texts), threshold)
        assert matched(drops) == literal_greedy(similarity, threshold)
        assert all(abs((drop.similarity or 0) - similarity[drop.index, drop.matched]) < TIE for drop in drops)
    pool, rows = terms(texts).take(range(25)), terms(texts).take(range(25, 60))
    expected = {
        i: int(np.argmax(row >= 0.9 - TIE)) for i, row in enumerate(similarity[25:, :25]) if row.max() >= 0.9 - TIE
    }
    assert matched(tfidf.against(pool, rows, 0.9)) == expected


@given(
    st.lists(st.lists(st.sampled_from(COLOURS), max_size=6).map(" ".join), max_size=25),
    st.sampled_from([0.05, 0.3, 0.5, 0.6, 0.7071067811865475, 0.9, 1.0]),
)
def test_any_rows_and_threshold(texts: list[str], threshold: float) -> None:
    """Short rows over six words: ties and equal rows all the time, and rows without a word."""
    rows = terms(texts)
    similarity = cosines(texts) if any(texts) else np.zeros((len(texts), len(texts)))
    drops = tfidf.greedy(rows, threshold)
    assert matched(drops) == literal_greedy(similarity, threshold)
    assert matches.greedy(tfidf.pairs_within(rows, range(len(rows)), threshold), len(rows)) == drops


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("bounds", [[0, 60], [0, 1, 59, 60], [0, 30, 45, 60]])
def test_parts_and_threads_change_nothing(threads: int, bounds: list[int]) -> None:
    rows = terms(colours(3))
    whole = tfidf.pairs_within(rows, range(len(rows)), 0.7, 1)
    parts = [tfidf.pairs_within(rows, range(*pair), 0.7, threads) for pair in itertools.pairwise(bounds)]
    joined = Pairs.joined(parts)
    for column in ("left", "right", "similarity"):
        assert np.array_equal(getattr(joined, column), getattr(whole, column))
    assert tfidf.greedy(rows, 0.7, threads) == tfidf.greedy(rows, 0.7, 1)
    assert len(whole.left) > 100


def test_fixed_weights_make_earlier_rows_independent_of_later_ones() -> None:
    """Weights are fitted on all rows; with them given, what is appended decides nothing about what was there."""
    rows = terms(colours(5, 400))
    pairs = tfidf.pairs_within(rows, range(400), 0.8)
    early = pairs.left < 300
    part = Pairs(pairs.left[early], pairs.right[early], pairs.similarity[early])
    assert matches.greedy(part, 300) == [drop for drop in matches.greedy(pairs, 400) if drop.index < 300]


def test_words_are_those_of_scikit_learn() -> None:
    texts = ["Ünïcode wörds, a b cc! under_score don't 12 3", "cc CC Cc x", "日本語 と emoji 🙂🙂", "", "a ! ?"]
    ours = terms(texts)
    words = TfidfVectorizer().build_analyzer()
    assert [int(ours.counts[a:b].sum()) for a, b in zip(ours.starts, ours.starts[1:], strict=False)] == [
        len(words(text)) for text in texts
    ]
    assert len(set(ours.words.tolist())) == len({word for text in texts for word in words(text)})


@pytest.mark.parametrize("texts", [[], ["?", "?"], ["a b", "a b"], ["", "x"]])
def test_texts_without_a_word_are_like_nothing(texts: list[str]) -> None:
    # scikit-learn refuses an empty vocabulary; a source of emoji must not end the run.
    assert tfidf.greedy(terms(texts), 0.6) == []
    assert tfidf.against(terms(texts), terms(texts), 0.6) == []


def test_everything_alike_takes_no_more_memory_than_anything_else() -> None:
    """Equal rows meet at every word; only those that stay are kept in the index."""
    rows = terms(["where do swallows spend the winter"] * 20_000 + ["somewhere warm"])
    drops = tfidf.greedy(rows, 0.6)
    assert len(drops) == 19_999
    assert {drop.matched for drop in drops} == {0}


def test_a_row_of_a_hundred_thousand_words() -> None:
    long = " ".join(f"w{number}" for number in range(100_000))
    drops = tfidf.greedy(terms([long, "w1 w2", long + " w1"]), 0.6)
    assert matched(drops) == {2: 0}
