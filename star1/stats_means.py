"""Intervals around means: of several samples of each item (avg@k, pass@k, seeds), and of averages over benchmarks.

All functions work on arrays with any leading axes, so that their coverage can be simulated in seconds. Confidences are
nominal coverages in (0, 1); values are shares in [0, 1]. docs/statistics.md says why each method was taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A variance that is no more than what sums of floats leave.
NONE = 1e-18


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; arrays where several are estimated at once."""

    value: Floats
    low: Floats
    high: Floats


def normal_quantile(confidence: float) -> float:
    """Half width of a two-sided normal interval, in standard errors."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


def wilson(share: Floats, n: Floats, confidence: float) -> Estimate:
    """Wilson's score interval of shares, as `star1.stats.rate`, for arrays; `n` need not be whole."""
    share, n = np.asarray(share, float), np.asarray(n, float)
    z = normal_quantile(confidence)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = np.where(share <= 0, 0.0, np.maximum(middle - half, 0.0))
    return Estimate(share, low, np.where(share >= 1, 1.0, np.minimum(middle + half, 1.0)))


def mean_of_items(values: Floats | Sequence[float], confidence: float, answers: float) -> Estimate:
    """The mean over items, each the mean of its samples: the items are what was drawn, and samples of one belong together.

    Args:
        values: of the items `[..., n]`, in [0, 1].
        confidence: nominal coverage.
        answers: samples behind all values.
    """
    # Summed in order of size: the same to the last bit, whatever the order of the rows.
    values = np.sort(np.asarray(values, float), axis=-1)
    mean = np.clip(values.mean(axis=-1), 0, 1)
    squares = ((values - mean[..., None]) ** 2).sum(axis=-1)
    return mean_of_moments(mean, squares, values.shape[-1], confidence, answers)


def mean_of_moments(mean: Floats, squares: Floats, n: int, confidence: float, answers: float) -> Estimate:
    """As `mean_of_items`, from what it takes of the values.

    Wilson's interval for as many items as would have the variance that is found between them: for no fewer than there are
    (single answers have the widest variance that there is), and no more than there are samples, however alike the items are.
    Either end is at least as far out as a kind of item would draw it that none of `n` need have shown.

    Args:
        mean: of the items' values `[...]`, in [0, 1].
        squares: sum of the squares of their distances from it `[...]`.
        n: items.
        confidence: nominal coverage.
        answers: samples behind all values.

    Source: Korn and Graubard (1998) for the effective number, there with the exact binomial interval. Differs: Wilson's
        interval, the two bounds, and `unseen`.
    """
    widest = mean * (1 - mean)
    variance = np.maximum(squares / max(n - 1, 1), NONE)
    items = np.clip(n * widest / variance, n, max(n, answers))
    seen, ends = wilson(mean, items, confidence), unseen(mean, n, confidence, 0.0)
    return Estimate(seen.value, np.minimum(seen.low, ends[0]), np.maximum(seen.high, ends[1]))


def unseen(mean: Floats, n: int, confidence: float, lowest: float) -> tuple[Floats, Floats]:
    """How far a mean of values in [`lowest`, 1] is drawn to either end by the largest share of items that may not be among `n`.

    That share is the upper end of Wilson's interval of 0 of `n`: such items are unseen with a chance that is as small as that
    of an end of the interval to miss. Without it, few items that are nearly alike would pass for certainty: one problem in
    twenty that is never solved is not among 30 in one case of five, and nothing that was drawn tells of it.

    Source: the "rule of three" (Jovanovic and Levy 1997), there with the exact binomial end and for a share alone.
    """
    z = normal_quantile(confidence)
    share = z * z / (n + z * z)
    return mean - share * (mean - lowest), mean + share * (1 - mean)


def average(parts: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of independent estimates, with the interval that theirs give.

    Source: Zou and Donner (2008), the method of variance estimates recovery: each end takes the parts' own distances to that
        end, so that it holds near 0 and 1, where the bootstrap knows no variance.
    """
    values = np.stack([np.asarray(one.value, float) for one in parts])
    below = values - np.stack([np.asarray(one.low, float) for one in parts])
    above = np.stack([np.asarray(one.high, float) for one in parts]) - values
    mean = values.mean(axis=0)
    return Estimate(mean, mean - _length(below), mean + _length(above))


def _length(distances: Floats) -> Floats:
    return np.asarray(np.sqrt((distances**2).sum(axis=0)) / len(distances))


def pass_at(correct: Floats, samples: Floats, k: int) -> Floats:
    """Chance that at least one of `k` samples of an item is correct, without bias, from `samples >= k` of them.

    Args:
        correct: correct samples of each item `[...]`.
        samples: samples of each item `[...]`.
        k: samples drawn.

    Source: Chen et al. (2021), arXiv 2107.03374: 1 - C(n - c, k) / C(n, k).
    """
    correct, samples = np.asarray(correct, float), np.asarray(samples, float)
    missed = np.ones(np.broadcast_shapes(correct.shape, samples.shape))
    for drawn in range(k):
        missed = missed * np.clip((samples - correct - drawn) / (samples - drawn), 0, 1)
    return 1 - missed


def bootstrap(
    strata: Sequence[Floats | Sequence[float]], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of the unweighted mean of the strata's means, items drawn anew within each stratum.

    Resampling items is resampling how often each *different* value occurs, which is quick, and the same in any order of rows.

    Args:
        strata: values of the items `[n]` of each stratum, such as a benchmark.
        confidence: nominal coverage.
        resamples: how many times.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for values in strata:
        different, counts = np.unique(np.asarray(values, float), return_counts=True)
        drawn = random.multinomial(counts.sum(), counts / counts.sum(), size=resamples)
        means += drawn @ different / counts.sum() / len(strata)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
