"""Paired comparisons: libraries, closed forms, simulated coverage and power."""

from typing import Any

import numpy as np
import pytest

from star1.stats_means import Floats, average
from star1.stats_pairs import (
    detectable_paired,
    detectable_unpaired,
    holm,
    mcnemar,
    mean_test,
    paired_means,
    paired_shares,
)

SIMULATIONS = 2_000


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 5), (12, 3), (40, 61), (300, 250)])
def test_mcnemar_is_that_of_statsmodels(gained: int, lost: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as known

    expected = known([[7, gained], [lost, 9]], exact=True).pvalue
    assert mcnemar(gained, lost) == pytest.approx(float(expected), abs=1e-12)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


@pytest.mark.parametrize(("gained", "lost"), [(1, 1), (3, 3), (1, 0), (0, 6), (12, 3), (40, 61)])
def test_mid_p_counts_outcomes_as_likely_as_the_observed_one_half(gained: int, lost: int) -> None:
    from scipy.stats import binom

    both = gained + lost
    chances = binom.pmf(np.arange(both + 1), both, 0.5)
    further = np.abs(np.arange(both + 1) - both / 2) > abs(gained - lost) / 2
    equal = np.abs(np.arange(both + 1) - both / 2) == abs(gained - lost) / 2
    assert mcnemar(gained, lost, mid_p=True) == pytest.approx(float(chances[further].sum() + chances[equal].sum() / 2))
    assert mcnemar(gained, lost, mid_p=True) <= mcnemar(gained, lost)


def restricted_score(gained: int, lost: int, n: int, difference: float) -> float:
    """The score of a difference, the likelihood under it maximised by a general optimiser."""
    from scipy.optimize import minimize_scalar

    def unlikely(share: float) -> Any:
        chances = (share + difference, share, 1 - 2 * share - difference)
        return -sum(
            count * np.log(max(one, 1e-300))
            for count, one in zip((gained, lost, n - gained - lost), chances, strict=True)
        )

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    share = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return float((gained - lost - n * difference) / np.sqrt(n * (2 * share + difference - difference**2)))


def test_score_interval_is_the_one_that_the_test_does_not_reject() -> None:
    """Its ends at confidence c are the differences that a score test at level 1 - c just does not reject."""
    found = paired_shares(np.array(12.0), np.array(3.0), np.array(60.0), 0.95)
    assert float(found.value) == pytest.approx(0.15)
    for gained, lost, n in ((12, 3, 60), (0, 1, 44), (5, 5, 30)):
        one = paired_shares(np.array(gained), np.array(lost), np.array(n), 0.95)
        for end in (float(one.low), float(one.high)):
            assert abs(restricted_score(gained, lost, n, end)) == pytest.approx(1.959964, abs=1e-4)
    # Zero is outside exactly where McNemar's statistic without correction exceeds its quantile.
    for gained, lost in ((12, 3), (9, 3), (8, 3), (20, 10), (19, 10), (15, 5)):
        one = paired_shares(np.array(gained), np.array(lost), np.array(60), 0.95)
        rejected = (gained - lost) ** 2 / (gained + lost) > 1.959964**2
        assert (float(one.low) > 0) is rejected


def test_no_discordant_item_is_no_certainty() -> None:
    found = paired_shares(np.array(0), np.array(0), np.array(30), 0.95)
    assert (float(found.low), float(found.high)) == pytest.approx((-0.1135, 0.1135), abs=1e-3)
    same = paired_means(np.zeros(30), 0.95)
    assert float(same.high) == pytest.approx(float(found.high))
    assert mcnemar(0, 0, mid_p=True) == mcnemar(0, 0) == mean_test(np.zeros(30)) == 1.0
    assert mean_test(np.full(30, 0.25)) == mcnemar(30, 0)  # no spread to divide by: two items alike were told as p = 0
    assert mean_test(np.full(2, 0.25)) == 0.5
    thirds = np.array([2 / 3 - 1 / 3, 1 / 3, 1 - 2 / 3] * 2)  # alike but for rounding
    assert mean_test(thirds) == mcnemar(6, 0)


# Shares of items that both, the first alone, the second alone have.
CASES = [(0.5, 0.1, 0.1), (0.3, 0.3, 0.1), (0.05, 0.7, 0.01), (0.2, 0.01, 0.4)]


def tables(n: int, case: tuple[float, float, float], seed: int = 0) -> tuple[Floats, Floats]:
    drawn = np.random.default_rng(n + seed).multinomial(n, [*case, 1 - sum(case)], SIMULATIONS)
    return drawn[:, 1].astype(float), drawn[:, 2].astype(float)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [30, 100, 313])
def test_paired_difference_covers(n: int, case: tuple[float, float, float]) -> None:
    found = paired_shares(*tables(n, case), np.array(float(n)), 0.95)
    truth = case[1] - case[2]
    assert 0.93 <= float(np.mean((found.low <= truth) & (truth <= found.high))) <= 0.97


def test_paired_difference_of_averages_covers() -> None:
    sizes, cases = (313, 100, 370, 250), CASES
    parts = [paired_shares(*tables(n, case, 9), np.array(float(n)), 0.95) for n, case in zip(sizes, cases, strict=True)]
    found, truth = average(parts), float(np.mean([case[1] - case[2] for case in cases]))
    assert 0.93 <= float(np.mean((found.low <= truth) & (truth <= found.high))) <= 0.97


@pytest.mark.parametrize(("n", "k"), [(30, 4), (198, 8)])
@pytest.mark.parametrize("shape", [(0.5, 0.5), (1.0, 9.0), (2.0, 2.0)])
def test_paired_difference_of_sample_means_covers(n: int, k: int, shape: tuple[float, float]) -> None:
    random = np.random.default_rng(n)
    base = random.beta(*shape, (SIMULATIONS, n))
    better = base + 0.2 * (1 - base)
    differences = (random.binomial(k, better) - random.binomial(k, base)) / k
    found, truth = paired_means(differences, 0.95), 0.2 * (1 - shape[0] / sum(shape))
    assert 0.93 <= float(np.mean((found.low <= truth) & (truth <= found.high))) <= 0.97


def test_mean_test_is_that_of_scipy() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(5).choice([-0.5, 0, 0.25, 0.5], 60)
    assert mean_test(values) == pytest.approx(float(ttest_1samp(values, 0).pvalue), abs=1e-12)
    assert mean_test(values[::-1]) == mean_test(values)


def test_holm_is_that_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    for size in (1, 5, 40):
        values = np.random.default_rng(size).beta(0.3, 2, size).round(2).tolist()
        assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist(), abs=1e-12)


def test_holm_is_the_step_down_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(("discordant", "n"), [(0.2, 313), (0.4, 100), (0.1, 500)])
def test_a_difference_just_detectable_is_found_as_often_as_promised(discordant: float, n: int) -> None:
    difference = detectable_paired(discordant, n, 0.8, 0.95)
    assert difference is not None
    up, down = (discordant + difference) / 2, (discordant - difference) / 2
    gained, lost = tables(n, (0.3, up, down), 4)
    found = np.mean([mcnemar(int(one), int(other), mid_p=True) < 0.05 for one, other in zip(gained, lost, strict=True)])
    assert 0.74 <= float(found) <= 0.86


def test_what_cannot_be_detected_is_said_so() -> None:
    assert detectable_paired(0.05, 30, 0.8, 0.95) is None
    assert detectable_unpaired(0.5, 10, 0.8, 0.95) is not None
    assert detectable_unpaired(0.5, 3, 0.8, 0.95) is None


def test_unpaired_difference_is_that_of_statsmodels() -> None:
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    found = detectable_unpaired(0.3, 313, 0.8, 0.95)
    assert found is not None
    expected = NormalIndPower().power(proportion_effectsize(0.3 + found, 0.3), 313, 0.05, 1.0)
    assert float(expected) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("share", "n"), [(0.3, 313), (0.9, 250), (0.5, 100)])
def test_unpaired_difference_is_found_as_often_as_promised(share: float, n: int) -> None:
    difference = detectable_unpaired(share, n, 0.8, 0.95)
    assert difference is not None
    other = share + difference if share <= 0.5 else share - difference
    random = np.random.default_rng(n)
    one, two = (random.binomial(n, value, SIMULATIONS) / n for value in (share, other))
    pooled = (one + two) / 2
    z = np.abs(one - two) / np.sqrt(2 * pooled * (1 - pooled) / n)
    assert 0.76 <= float(np.mean(z > 1.959964)) <= 0.86
