"""Intervals against closed forms."""

import math

import pytest

from star1.stats import rate


def wilson(count: int, n: int, z: float) -> tuple[float, float]:
    share = count / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


@pytest.mark.parametrize(("count", "n"), [(0, 10), (10, 10), (3, 10), (187, 313), (1, 1)])
def test_wilson_interval_is_the_closed_form(count: int, n: int) -> None:
    found = rate(count, n, 0.95)
    assert (found.low, found.high) == pytest.approx(wilson(count, n, 1.959963984540054), abs=1e-9)
    assert found.value == count / n
    wide = rate(count, n, 0.99)
    assert (wide.low, wide.high) == pytest.approx(wilson(count, n, 2.5758293035489004), abs=1e-9)
    ends = [0, wide.low or 0, found.low or 0, count / n, found.high or 0, wide.high or 0, 1]
    assert ends == sorted(ends)


def test_no_rate_without_trials() -> None:
    found = rate(0, 0, 0.95)
    assert (found.value, found.low, found.high) == (None, None, None)
