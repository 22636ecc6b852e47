"""Intervals against closed forms, and against a library."""

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


@pytest.mark.parametrize("n", [1, 2, 30, 313, 1442])
def test_wilson_interval_is_that_of_scipy(n: int) -> None:
    from scipy.stats import binomtest

    for count in range(0, n + 1, max(1, n // 20)):
        for confidence in (0.5, 0.9, 0.95, 0.999):
            known = binomtest(count, n).proportion_ci(confidence, method="wilson")
            found = rate(count, n, confidence)
            assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-14)
    assert rate(0, n, 0.95).low == 0
    assert rate(n, n, 0.95).high == 1


def test_no_rate_without_trials() -> None:
    found = rate(0, 0, 0.95)
    assert (found.value, found.low, found.high) == (None, None, None)
