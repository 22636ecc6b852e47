"""Intervals around rates."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """A share with its interval.

    Attributes:
        count: how many of `n` have the property.
        n: how many were scored.
        value: count / n, in [0, 1]; None without any.
        low: lower end of the interval, in [0, 1].
        high: upper end of the interval, in [0, 1].
    """

    count: int
    n: int
    value: float | None
    low: float | None
    high: float | None


def rate(count: int, n: int, confidence: float) -> Rate:
    """A rate with its Wilson score interval.

    Args:
        count: successes, 0 to n.
        n: trials; with none there is no rate.
        confidence: nominal coverage of the interval, in (0, 1).

    Source: Wilson (1927). Written out, since `scipy.stats` takes longer to load than most commands to run.
    """
    if n == 0:
        return Rate(count, n, None, None, None)
    from statistics import NormalDist  # loads fractions and decimals, which only this line needs

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle, half = 2 * count + z**2, z * math.sqrt(4 * count * (n - count) / n + z**2)
    low, high = ((middle + sign * half) / (2 * (n + z**2)) for sign in (-1, 1))
    # At the ends the two terms are equal on paper.
    return Rate(count, n, count / n, 0.0 if count == 0 else low, 1.0 if count == n else high)
