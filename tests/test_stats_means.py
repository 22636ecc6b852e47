"""Means and averages: closed forms, libraries, and simulated coverage."""

from itertools import combinations

import numpy as np
import pytest

from star1 import stats
from star1.stats_means import Estimate, Floats, average, bootstrap, mean_of_items, pass_at, wilson

SIMULATIONS = 2_000
NOMINAL = (0.93, 0.97)


def covered(found: Estimate, truth: float) -> float:
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


def test_wilson_for_arrays_is_that_of_single_rates() -> None:
    counts = np.array([0, 1, 15, 29, 30])
    found = wilson(counts / 30, np.full(5, 30), 0.95)
    known = [stats.rate(int(count), 30, 0.95) for count in counts]
    assert found.low == pytest.approx([one.low for one in known], abs=1e-12)
    assert found.high == pytest.approx([one.high for one in known], abs=1e-12)


@pytest.mark.parametrize(("n", "share"), [(100, 0.37), (313, 0.182), (370, 0.9), (500, 0.5)])
def test_wilson_covers(n: int, share: float) -> None:
    counts = np.random.default_rng(n).binomial(n, share, SIMULATIONS)
    assert NOMINAL[0] <= covered(wilson(counts / n, np.full(SIMULATIONS, n), 0.95), share) <= NOMINAL[1]


def test_one_sample_of_many_items_is_nearly_wilson() -> None:
    values = np.repeat([0.0, 1.0], [150, 350])
    found, known = mean_of_items(values, 0.95, 500), stats.rate(350, 500, 0.95)
    assert (float(found.low), float(found.high)) == pytest.approx((known.low, known.high), abs=2e-3)


def test_samples_of_one_item_are_not_items() -> None:
    """Eight samples of 30 problems that are each solved always or never are 30 observations, not 240."""
    items = np.repeat([0.0, 1.0], [10, 20])
    found, naive = mean_of_items(items, 0.95, 240), stats.rate(160, 240, 0.95)
    honest = stats.rate(20, 30, 0.95)
    assert naive.high is not None
    assert naive.low is not None
    assert honest.high is not None
    assert honest.low is not None
    assert found.high - found.low > 1.5 * (naive.high - naive.low)
    assert found.high - found.low == pytest.approx(honest.high - honest.low, rel=0.06)


def test_items_that_all_agree_still_have_an_interval() -> None:
    for share, ends in ((1.0, (0.88, 1.0)), (0.0, (0.0, 0.12))):
        found = mean_of_items(np.full(30, share), 0.95, 240)
        assert (float(found.low), float(found.high)) == pytest.approx(ends, abs=0.01)
    # Of two samples a problem, 60 answers of which half are right: it was taken for 1,770 of them.
    half, known = mean_of_items(np.full(30, 0.5), 0.95, 60), stats.rate(30, 60, 0.95)
    assert known.low is not None
    assert float(half.low) == pytest.approx(known.low, abs=0.01)


def test_nearly_all_alike_is_no_more_certain_than_all_alike() -> None:
    """One problem of 30 solved by 7 samples of 8, the others by all: the interval was a tenth of that of 30 solved ones."""
    alike = mean_of_items(np.ones(30), 0.95, 240)
    nearly = mean_of_items(np.r_[np.ones(29), 7 / 8], 0.95, 240)
    assert float(nearly.low) < 0.93
    assert float(alike.low) == pytest.approx(0.88, abs=0.01)


# Shapes of how hard problems are: all or nothing, mostly hard, middling.
SHAPES = [(0.5, 0.5), (1.0, 9.0), (2.0, 2.0)]


def correct(n: int, k: int, shape: tuple[float, float]) -> Floats:
    random = np.random.default_rng(n + k)
    return random.binomial(k, random.beta(*shape, (SIMULATIONS, n))).astype(float)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n", "k"), [(30, 4), (30, 16), (198, 8)])
def test_average_of_samples_covers(n: int, k: int, shape: tuple[float, float]) -> None:
    found = mean_of_items(correct(n, k, shape) / k, 0.95, n * k)
    assert NOMINAL[0] <= covered(found, shape[0] / sum(shape)) <= NOMINAL[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n", "k"), [(30, 4), (198, 8)])
def test_pass_at_k_covers(n: int, k: int, shape: tuple[float, float]) -> None:
    drawn = k // 2
    truth = 1 - float(np.prod([(shape[1] + one) / (sum(shape) + one) for one in range(drawn)]))
    values = pass_at(correct(n, k, shape), np.full(n, k), drawn)
    assert NOMINAL[0] <= covered(mean_of_items(values, 0.95, n * (k // drawn)), truth) <= NOMINAL[1]


# How hard problems are (a beta distribution), and the share of them that no sample solves.
HARD: dict[str, tuple[tuple[float, float], float]] = {
    "middling": ((2.0, 2.0), 0.0),
    "easy": ((9.0, 1.0), 0.0),
    "hard": ((1.0, 9.0), 0.0),
    "easy or not at all": ((3.0, 0.3), 0.0),
    "one in twenty out of reach": ((20.0, 1.0), 0.05),
    "one in fifty out of reach": ((20.0, 1.0), 0.02),
}
# Problems, samples, k; the share of simulations in which the interval holds the truth has to be within NOMINAL unless it
# stands in one of the tables below.
DRAWN = [(30, 4, 1), (30, 8, 1), (30, 64, 1), (30, 16, 8), (30, 64, 8), (198, 8, 4), (198, 64, 8)]
# Too few: the problem that nobody solves is not among those drawn, and the others are many and sure.
MISSED = {
    ("one in twenty out of reach", (30, 4, 1)): 0.90,
    ("one in twenty out of reach", (30, 8, 1)): 0.86,
    ("one in twenty out of reach", (30, 64, 1)): 0.75,
    ("one in fifty out of reach", (30, 64, 1)): 0.89,
}
# Too many: next to 1, and no problem that is not solved.
SURE = 0.97


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("kind", list(HARD))
def test_means_near_and_far_from_one_cover(kind: str, drawn: tuple[int, int, int]) -> None:
    """At a true pass@8 of 94.5 % on 30 problems 85 % were covered, of 98 % with 64 samples 44 %."""
    (shape, out), (n, samples, k) = HARD[kind], drawn
    random = np.random.default_rng(n + samples + k)
    solvable = random.random((SIMULATIONS, n)) >= out
    right = random.binomial(samples, random.beta(*shape, (SIMULATIONS, n)) * solvable).astype(float)
    truth = (1 - out) * (1 - float(np.prod([(shape[1] + one) / (sum(shape) + one) for one in range(k)])))
    found = mean_of_items(pass_at(right, np.full(n, samples), k), 0.95, n * (samples // k))
    share = covered(found, truth)
    assert share >= MISSED.get((kind, drawn), NOMINAL[0] - 0.005)
    assert share <= (1.0 if truth > SURE else NOMINAL[1] + 0.01)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_pass_at_k_is_the_share_of_all_draws(k: int) -> None:
    for right in range(7):
        samples = [True] * right + [False] * (6 - right)
        draws = [any(one) for one in combinations(samples, k)]
        assert float(pass_at(np.array(right), np.array(6), k)) == pytest.approx(sum(draws) / len(draws))


SAFETY = ((313, 100, 370, 250), (0.36, 0.37, 0.58, 0.5))
TUNED = ((313, 100, 370, 250), (0.98, 0.97, 0.88, 0.87))
REASONING = ((12_032, 30, 500, 198, 164), (0.5, 0.4, 0.87, 0.41, 0.68))


@pytest.mark.parametrize(("sizes", "shares"), [SAFETY, TUNED, REASONING])
def test_averages_over_benchmarks_cover(sizes: tuple[int, ...], shares: tuple[float, ...]) -> None:
    random = np.random.default_rng(7)
    found = [random.binomial(n, share, SIMULATIONS) / n for n, share in zip(sizes, shares, strict=True)]
    parts = [wilson(one, np.full(SIMULATIONS, n), 0.95) for one, n in zip(found, sizes, strict=True)]
    assert NOMINAL[0] <= covered(average(parts), float(np.mean(shares))) <= NOMINAL[1]


@pytest.mark.parametrize(("sizes", "shares"), [SAFETY, TUNED, REASONING])
def test_bootstrap_of_averages_covers(sizes: tuple[int, ...], shares: tuple[float, ...]) -> None:
    random, hits = np.random.default_rng(8), 0
    for number in range(SIMULATIONS):
        strata = [np.arange(n) < random.binomial(n, share) for n, share in zip(sizes, shares, strict=True)]
        low, high = bootstrap([one.astype(float) for one in strata], 0.95, 400, number)
        hits += low <= float(np.mean(shares)) <= high
    assert NOMINAL[0] <= hits / SIMULATIONS <= NOMINAL[1]


def test_bootstrap_is_blind_where_every_answer_is_safe_and_the_average_is_not() -> None:
    """Why the shown interval of averages is not the bootstrap's."""
    ones = [np.ones(30), np.ones(24)]
    assert bootstrap(ones, 0.95, 1000, 1) == (1.0, 1.0)
    found = average([wilson(np.array(1.0), np.array(n), 0.95) for n in (30, 24)])
    assert 0.85 < float(found.low) < 0.95


def test_bootstrap_is_that_of_scipy_and_does_not_see_the_order_of_rows() -> None:
    from scipy.stats import bootstrap as known

    values = np.random.default_rng(3).choice([0, 0.25, 0.5, 1], 120)
    found = bootstrap([values], 0.95, 20_000, 5)
    other = known((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(6))
    assert found == pytest.approx(tuple(other.confidence_interval), abs=4e-3)
    assert bootstrap([values[::-1]], 0.95, 20_000, 5) == found
    assert mean_of_items(values[::-1], 0.95, 480) == mean_of_items(values, 0.95, 480)
