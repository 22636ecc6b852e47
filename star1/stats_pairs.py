"""Two models on the same items: difference, interval, test, and what could have been found.

Distributions are those of `scipy.special`: `scipy.stats` and statsmodels, which the tests compare with, take seconds to load.

Functions on counts work on arrays with any leading axes. Of the items that both models have a verdict on, `gained` are those
on which the first alone has the property, `lost` those on which the second alone has it.
"""

from collections.abc import Sequence

import numpy as np

from star1.stats_means import Estimate, Floats, normal_quantile, unseen

# Bisections of the score interval: the ends are found to 2^-45.
STEPS = 45
# Differences between items that are no more than what sums of floats leave.
SAME = 1e-9


def mcnemar(gained: int, lost: int, mid_p: bool = False) -> float:
    """Two-sided p-value of McNemar's exact test: whether items change in one direction as often as in the other.

    Args:
        gained: discordant items of one kind.
        lost: of the other kind.
        mid_p: count what was observed half, which is less conservative.

    Source: McNemar (1947); mid-p: Fagerland, Lydersen and Laake (2013).
    """
    from scipy.special import bdtr

    fewer, both = min(gained, lost), gained + lost
    tail = float(bdtr(fewer, both, 0.5))
    here = tail - (float(bdtr(fewer - 1, both, 0.5)) if fewer else 0.0)
    if gained == lost:
        # All of the outcomes are as far out as this one; of the middle one, mid-p counts half. Without any there is no test.
        return 1 - here / 2 if mid_p and both else 1.0
    return 2 * tail - here if mid_p else min(1.0, 2 * tail)


def paired_shares(gained: Floats, lost: Floats, n: Floats, confidence: float) -> Estimate:
    """Difference of two shares on the same `n` items, with its score interval.

    Source: Tango (1998). It is the interval that belongs to McNemar's test, and holds for few items and without discordant ones.
    """
    gained, lost, n = np.broadcast_arrays(*(np.asarray(one, float) for one in (gained, lost, n)))
    difference, z = (gained - lost) / n, normal_quantile(confidence)

    def end(towards: float) -> Floats:
        inside, outside = difference.copy(), np.full_like(difference, towards)
        for _ in range(STEPS):
            middle = (inside + outside) / 2
            fits = np.abs(_score(gained, lost, n, middle)) <= z
            inside, outside = np.where(fits, middle, inside), np.where(fits, outside, middle)
        return inside

    return Estimate(difference, end(-1.0), end(1.0))


def _score(gained: Floats, lost: Floats, n: Floats, difference: Floats) -> Floats:
    """Standardised distance of what was observed from a difference, its variance estimated under it."""
    linear = (2 * n - gained + lost) * difference - gained - lost
    root = np.sqrt(np.maximum(linear**2 + 8 * n * lost * difference * (1 - difference), 0))
    share = (root - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    return np.asarray((gained - lost - n * difference) / np.sqrt(np.maximum(variance, 1e-300)))


def paired_means(differences: Floats, confidence: float) -> Estimate:
    """Mean over items of the difference of their means over samples `[..., n]`, in [-1, 1]."""
    differences = np.sort(np.asarray(differences, float), axis=-1)
    n = differences.shape[-1]
    mean = differences.mean(axis=-1)
    return paired_moments(mean, ((differences - mean[..., None]) ** 2).sum(axis=-1), n, confidence)


def paired_moments(mean: Floats, squares: Floats, n: int, confidence: float) -> Estimate:
    """As `paired_means`, from what it takes of the differences.

    Student's t interval, which is no narrower than items allow that only one of the two solves and that none of `n` need have
    shown. Of items that do not differ at all it is Tango's interval without a discordant item.

    Args:
        mean: of the items' differences `[...]`, in [-1, 1].
        squares: sum of the squares of their distances from it `[...]`.
        n: items.
        confidence: nominal coverage.
    """
    from scipy.special import stdtrit

    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2)) if n > 1 else 0.0
    half = quantile * np.sqrt(squares / max(n - 1, 1) / n)
    low, high = unseen(mean, n, confidence, -1.0)
    return Estimate(mean, np.minimum(low, np.maximum(mean - half, -1)), np.maximum(high, np.minimum(mean + half, 1)))


def mean_test(differences: Floats) -> float:
    """Two-sided p-value of the paired t-test on the items' differences `[n]`; 1 where none differs.

    Where all differ by the same amount there is no spread to divide by, and the sign test speaks.
    """
    differences = np.sort(np.asarray(differences, float))
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) < SAME:
        return mcnemar(len(differences), 0)
    from scipy.special import stdtr

    n = len(differences)
    statistic = differences.mean() / (differences.std(ddof=1) / np.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(statistic)))


def holm(values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted so that one false alarm among all is as rare as the level says (Holm 1979)."""
    order = np.argsort(values, kind="stable")
    stepped = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def detectable_paired(discordant: float, n: int, power: float, confidence: float) -> float | None:
    """Smallest difference of two shares on the same items that McNemar's test finds with probability `power`.

    Args:
        discordant: share of items on which the two differ, in [0, 1]; a difference cannot be larger.
        n: items.
        power: wanted, in (0, 1).
        confidence: one minus the two-sided level of the test.

    Returns:
        The difference in [0, 1], or None where even the largest one that is possible would not be found.

    Source: Connor (1987), n = (z_a sqrt(D) + z_b sqrt(D - d²))² / d², solved for d.
    """
    from scipy.special import ndtri

    alpha, beta = normal_quantile(confidence), float(ndtri(power))
    # sqrt(n) d - alpha sqrt(D) = beta sqrt(D - d²), squared: a quadratic in d.
    a, b = n + beta**2, -2 * np.sqrt(n * discordant) * alpha
    c = discordant * (alpha**2 - beta**2)
    found = float((-b + np.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a))
    return found if 0 < found <= min(discordant, 1.0) else None


def detectable_unpaired(share: float, n: int, power: float, confidence: float) -> float | None:
    """Smallest difference from `share` that two samples of `n` items each find with probability `power`.

    The direction is the one in which there is more room.

    Source: Cohen (1988), effect size h, the difference of the arcsines of the roots.
    """
    from scipy.special import ndtri

    effect = (normal_quantile(confidence) + float(ndtri(power))) * np.sqrt(2 / n)
    angle = 2 * np.arcsin(np.sqrt(share))
    other = angle + effect if share <= 0.5 else angle - effect
    return abs(float(np.sin(other / 2) ** 2) - share) if 0 <= other <= np.pi else None
