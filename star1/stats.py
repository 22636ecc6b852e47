"""Intervals around rates."""

from dataclasses import dataclass

from scipy.stats import binomtest


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

    Source: Wilson (1927), as in `scipy.stats`.
    """
    if n == 0:
        return Rate(count, n, None, None, None)
    interval = binomtest(count, n).proportion_ci(confidence, method="wilson")
    return Rate(count, n, count / n, float(interval.low), float(interval.high))
