"""The joins of vectors against a literal float64 comparison of every pair, with ties and near-ties planted."""

import importlib.util
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from star1 import matches, vectors
from star1.errors import InputError
from star1.matches import TIE, Drop
from star1.vectors import Vectors

THRESHOLDS = (0.5, 0.6, 0.7, 0.96, 1.0)


def cosine(left: Vectors, right: Vectors) -> float:
    """The rule in one line; a vector of zeros is like none."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else -1


def literal_greedy(rows: Vectors, threshold: float) -> list[tuple[int, int]]:
    stays: list[int] = []
    drops = []
    for row in range(len(rows)):
        matched = next((early for early in stays if cosine(rows[row], rows[early]) >= threshold - TIE), None)
        if matched is None:
            stays.append(row)
        else:
            drops.append((row, matched))
    return drops


def literal_pairs(rows: Vectors, others: Vectors, threshold: float) -> list[tuple[int, int]]:
    places = [(row, other) for row in range(len(rows)) for other in range(len(others))]
    return [(row, other) for row, other in places if cosine(rows[row], others[other]) >= threshold - TIE]


def places(drops: list[Drop]) -> list[tuple[int, int]]:
    return [(drop.index, drop.matched) for drop in drops]


def listed(pairs: matches.Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Vectors, float]:
    """Rows of which many are a copy, a multiple, or at a cosine of almost exactly the threshold to another row."""
    threshold = draw(st.sampled_from(THRESHOLDS))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(1, 40)), draw(st.sampled_from([2, 3, 16]))
    rows: list[Any] = [random.standard_normal(d)]
    for kind in draw(
        st.lists(st.sampled_from(["new", "small", "copy", "scaled", "near", "zero"]), min_size=n, max_size=n)
    ):
        other = rows[int(random.integers(len(rows)))]
        rows.append(_planted(kind, other, threshold, random))
    return np.array(rows, dtype=np.float32), threshold


def _planted(kind: str, other: Any, threshold: float, random: np.random.Generator) -> Any:
    if kind == "zero":
        return other * 0
    if kind == "small":  # whole numbers: cosines of exactly 0.5, 0.6 and so on
        return random.integers(-1, 2, len(other)).astype(float)
    if kind == "copy" or (kind != "new" and not np.linalg.norm(other)):
        return other.copy()
    if kind == "scaled":
        return other * 10.0 ** random.integers(-15, 15)
    fresh = random.standard_normal(len(other))
    if kind == "new":
        return fresh
    unit = other / np.linalg.norm(other)
    across = fresh - (fresh @ unit) * unit
    wanted = min(threshold + random.choice([0, 1e-8, 1e-7, -1e-7, 1e-6, -1e-6, 1e-5, -1e-5]), 1)
    return wanted * unit + np.sqrt(1 - wanted**2) * across / np.linalg.norm(across)


@pytest.fixture(params=["whole", "heads first", "heads first, small blocks", "small blocks", "gpu code"])
def blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """The joins in one block, in many, by the code for many rows, and by that for a GPU (run by torch on the CPU)."""
    with pytest.MonkeyPatch.context() as patch:
        if "heads" in request.param:
            patch.setattr(vectors, "FILTERED", 1)
            patch.setattr(vectors, "HEAD", 4)
        if request.param not in ("whole", "heads first"):
            for name, size in (("BLOCK", 7), ("TILE", 5), ("LISTED", 2), ("COMPARED", 3)):
                patch.setattr(vectors, name, size)
        if request.param == "gpu code":
            if importlib.util.find_spec("torch") is None:
                pytest.skip("torch is not installed")
            patch.setattr(vectors, "gpu", lambda: "cpu")
        yield


@pytest.mark.usefixtures("blocks")
class TestEveryJoin:
    # The fixture holds for all examples of a test alike, so they need no fresh one each.
    @settings(max_examples=120, deadline=None)
    @given(corpora())
    def test_greedy(self, corpus: tuple[Vectors, float]) -> None:
        rows, threshold = corpus
        drops = vectors.greedy(rows, threshold)
        assert places(drops) == literal_greedy(rows, threshold)
        assert drops == matches.greedy(vectors.pairs_within(rows, range(len(rows)), threshold), len(rows))
        assert all(drop.similarity == pytest.approx(cosine(rows[drop.index], rows[drop.matched])) for drop in drops)

    @settings(max_examples=80, deadline=None)
    @given(corpora(), st.integers(0, 41))
    def test_shards(self, corpus: tuple[Vectors, float], cut: int) -> None:
        rows, threshold = corpus
        parts = [range(0, min(cut, len(rows))), range(min(cut, len(rows)), len(rows))]
        shards = [vectors.pairs_within(rows, part, threshold) for part in parts]
        expected = [(left, right) for left, right in literal_pairs(rows, rows, threshold) if right < left]
        assert listed(matches.Pairs.joined(shards)) == expected
        assert matches.greedy(matches.Pairs.joined(shards), len(rows)) == vectors.greedy(rows, threshold)

    @settings(max_examples=80, deadline=None)
    @given(corpora(), st.integers(0, 41))
    def test_against(self, corpus: tuple[Vectors, float], cut: int) -> None:
        (rows, threshold), middle = corpus, len(corpus[0]) // 2
        others, cut = rows[:cut], min(middle, cut)
        expected = literal_pairs(rows, others, threshold)
        parts = [vectors.pairs_against(rows, part, others, threshold) for part in (range(cut), range(cut, len(rows)))]
        assert listed(matches.Pairs.joined(parts)) == expected
        first = dict(reversed(expected))
        drops = vectors.against(rows, others, threshold)
        assert places(drops) == sorted(first.items())
        assert drops == matches.first(matches.Pairs.joined(parts))

    @settings(max_examples=80, deadline=None)
    @given(corpora(), st.integers(0, 41))
    def test_appended_rows_change_no_earlier_fate(self, corpus: tuple[Vectors, float], cut: int) -> None:
        rows, threshold = corpus
        before = vectors.greedy(rows[:cut], threshold)
        assert [drop for drop in vectors.greedy(rows, threshold) if drop.index < cut] == before


def near_ties(n: int, threshold: float) -> Vectors:
    """Rows of 384 numbers at cosines to each other of the threshold, up to what float32 gets wrong."""
    random = np.random.default_rng(3)
    base, _ = np.linalg.qr(random.standard_normal((384, 384)))
    common, own = np.sqrt(threshold), np.sqrt(1 - threshold)
    rows = common * base[0] + own * base[1 + np.arange(n) % 300] + random.standard_normal((n, 384)) * 3e-8
    return np.asarray(rows, np.float32)


def test_close_calls_at_the_real_width() -> None:
    rows = near_ties(200, 0.7)
    exact = rows.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    alike = np.tril(exact @ exact.T >= 0.7 - TIE, -1)
    assert 0.2 < alike.sum() / (200 * 199 / 2) < 0.8  # or these are no close calls
    assert listed(vectors.pairs_within(rows, range(200), 0.7)) == [tuple(pair) for pair in np.argwhere(alike).tolist()]
    assert places(vectors.greedy(rows, 0.7)) == literal_greedy(rows, 0.7)


def test_any_number_of_threads_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = near_ties(1500, 0.7)
    found = []
    for threads in (1, 2, 3, 70):
        monkeypatch.setattr(vectors, "cores", lambda threads=threads: threads)
        found.append((vectors.greedy(rows, 0.7), listed(vectors.pairs_within(rows, range(900, 1500), 0.7))))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][0]


@pytest.mark.parametrize("kind", ["equal", "close calls"])
def test_memory_stays_small_when_all_rows_are_alike(kind: str) -> None:
    n, d = 12_000, 16
    rows = np.ones((n, d), np.float32)
    if kind == "close calls":  # two halves at a cosine that float32 cannot tell from the threshold
        rows[:, 0] = 1 + 1e-6 * np.arange(n)
    threshold = 1.0 if kind == "close calls" else 0.7
    tracemalloc.start()
    try:
        drops = vectors.greedy(rows, threshold)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(drops) > n // 2
    assert peak < 100e6  # a byte for each pair of rows is 144 MB; a pair of indices for each, 1.2 GB


def test_nothing_to_compare() -> None:
    none, some = np.zeros((0, 4), np.float32), np.ones((2, 4), np.float32)
    assert vectors.greedy(none, 0.7) == []
    assert vectors.against(none, some, 0.7) == vectors.against(some, none, 0.7) == []
    assert listed(vectors.pairs_within(some, range(1, 1), 0.7)) == []
    assert listed(vectors.pairs_against(some, range(2), none, 0.7)) == []


def test_values_that_are_no_numbers_are_told() -> None:
    rows = np.ones((3, 4), np.float32)
    rows[1, 2] = np.nan
    with pytest.raises(InputError, match="row 1"):
        vectors.greedy(rows, 0.7)
    with pytest.raises(ValueError, match="above 0"):
        vectors.greedy(rows[:1], 0.0)
