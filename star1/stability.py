"""How much of the final data set hangs on single marks of the judge, on the threshold, and on the order of the rows.

The selection is done anew after each change, and compared with the one without. A judge that is asked again does not give the
same marks: a mark that is one lower is the smallest such change, and takes its row out of those with full marks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from star1.balancing import Groups, Integers, group, removals
from star1.datasets import Noise
from star1.errors import InputError
from star1.marks import check_rows
from star1.policies import Rubric
from star1.records import Row

# Thresholds below full marks that are tried.
BELOW = (1, 2)


@dataclass(frozen=True)
class _Trial:
    """One changed selection: rows that pass and rows kept, and of the unchanged selection the shares that pass and stay.

    Attributes:
        share: rows in both selections, of those in the unchanged one, in [0, 1].
        jaccard: rows in both, of those in either, in [0, 1].
        chance: what `share` would be for rows drawn at random from those that pass.
    """

    passing: int
    kept: int
    still_pass: float
    share: float
    jaccard: float
    chance: float


@dataclass(frozen=True)
class _Rows:
    """Rows with a category of the pack: their groups, marks `[n, criteria]`, and how many are kept."""

    groups: Groups
    marks: Integers
    size: int

    def select(self, passing: NDArray[np.bool_], order: Integers | None = None) -> NDArray[np.bool_]:
        """Which rows are kept `[n]` of those that pass, looked at in `order`."""
        rows = np.flatnonzero(passing) if order is None else order[passing[order]]
        kept = np.zeros(len(passing), bool)
        kept[rows] = True
        kept[removals(self.groups, self.size, rows)] = False
        return kept


def perturb(
    rows: Sequence[Row], rubric: Rubric, other: str, size: int, noise: Noise, confidence: float
) -> dict[str, Any]:
    """The stability table.

    Args:
        rows: scored rows, in order.
        rubric: criteria and range of the marks.
        other: category that is not taken.
        size: rows wanted at most.
        noise: probabilities and number of trials.
        confidence: share of the trials that an interval holds, in (0, 1).

    Raises:
        InputError: a row that cannot be read, or none with full marks.
    """
    check_rows("curate_perturb", rows, rubric)
    taken = [row for row in rows if row["category"] and other not in row["category"]]
    groups = group((row["source"], tuple(row["category"])) for row in taken)
    marks = np.array([[row["score"][name] for name in rubric.criteria] for row in taken], np.int64)
    marks = marks.reshape(len(taken), len(rubric.criteria))
    tried = _Rows(groups, marks, size)
    passing = _pass(marks, rubric.maximum)
    if not passing.any():
        raise InputError("curate_perturb", f"none of {len(rows)} rows has full marks", "at least one")
    kept = tried.select(passing)
    lines = [
        {"change": change, "trials": len(found), **_means(found, confidence)}
        for change, found in _changes(tried, kept, rubric, noise).items()
    ]
    return {
        "title": "Stability of the selection",
        "confidence": confidence,
        "full_marks": int(passing.sum()),
        "kept": int(kept.sum()),
        "changes": lines,
    }


def _pass(marks: Integers, least: int) -> NDArray[np.bool_]:
    """Which rows of `marks` have at least `least` throughout."""
    return np.asarray((marks >= least).all(axis=1))


def _changes(tried: _Rows, kept: NDArray[np.bool_], rubric: Rubric, noise: Noise) -> dict[str, list[_Trial]]:
    """The trials of each change, by its description."""
    full = _pass(tried.marks, rubric.maximum)

    def trial(passing: NDArray[np.bool_], order: Integers | None = None) -> _Trial:
        return _compare(kept, passing, tried.select(passing, order))

    def lowered(probability: float, seed: int) -> _Trial:
        # The same draws for every probability, so that rows which go at a small one also go at a larger one.
        hit = np.random.default_rng([noise.seed, seed]).random(tried.marks.shape) < probability
        return trial(_pass(np.maximum(tried.marks - hit, rubric.minimum), rubric.maximum))

    def shuffled(seed: int) -> _Trial:
        return trial(full, np.random.default_rng([noise.seed, seed, 1]).permutation(len(full)))

    found = {
        f"each mark one lower with p = {p:g}": [lowered(p, n) for n in range(noise.repeats)] for p in noise.lowered
    }
    for below in BELOW:
        least = rubric.maximum - below
        if least > rubric.minimum:
            found[f"every mark at least {least}"] = [trial(_pass(tried.marks, least))]
    found["rows in another order"] = [shuffled(n) for n in range(noise.repeats)]
    return found


def _compare(before: NDArray[np.bool_], passing: NDArray[np.bool_], after: NDArray[np.bool_]) -> _Trial:
    n_before, n_passing, n_after = int(before.sum()), int(passing.sum()), int(after.sum())
    both, pass_too = int((before & after).sum()), int((before & passing).sum())
    return _Trial(
        passing=n_passing,
        kept=n_after,
        still_pass=pass_too / n_before,
        share=both / n_before,
        jaccard=both / int((before | after).sum()),
        chance=pass_too / n_before * n_after / n_passing if n_passing else 0.0,
    )


def _means(trials: Sequence[_Trial], confidence: float) -> dict[str, Any]:
    """Means over the trials; for the overlaps also the interval that holds `confidence` of the trials."""
    found: dict[str, Any] = {
        name: float(np.mean([getattr(one, name) for one in trials]))
        for name in ("passing", "kept", "still_pass", "chance")
    }
    for name in ("share", "jaccard"):
        values = [getattr(one, name) for one in trials]
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        several = len(trials) > 1
        found[name] = {
            "mean": float(np.mean(values)),
            "low": float(low) if several else None,
            "high": float(high) if several else None,
        }
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    head = ["change", "trials", "rows that pass", "of the selection still pass", "stays", "by chance", "Jaccard"]
    lines = [_line(one) for one in result["changes"]]
    rows = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]
    told = (
        f"{result['kept']:,} rows selected of {result['full_marks']:,} with full marks. Means over the trials, in percent"
        f" [the range that holds {100 * result['confidence']:g} % of them]. *Stays*: of the selection, what is also in the"
        " new one; *by chance*: the same, if the new one were drawn at random from the rows that pass."
    )
    return "\n\n".join([f"# {result['title']}", told, "\n".join(rows)]) + "\n"


def _line(one: Mapping[str, Any]) -> list[str]:
    percent: Callable[[float], str] = lambda value: f"{100 * value:.1f}"  # noqa: E731

    def interval(overlap: Mapping[str, float | None]) -> str:
        mean, low, high = (overlap[name] for name in ("mean", "low", "high"))
        return percent(mean or 0.0) + ("" if low is None or high is None else f" [{percent(low)}, {percent(high)}]")

    counts = [one["change"], str(one["trials"]), f"{one['passing']:,.0f}", percent(one["still_pass"])]
    return [*counts, interval(one["share"]), percent(one["chance"]), interval(one["jaccard"])]


def metrics(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The table as DVC metrics: change -> mean overlaps."""
    return {
        one["change"]: {"share": one["share"]["mean"], "jaccard": one["jaccard"]["mean"], "chance": one["chance"]}
        for one in result["changes"]
    }


def summary(result: Mapping[str, Any]) -> str:
    """The table in one line."""
    parts = (f"{one['change']}: {100 * one['share']['mean']:.0f} % stays" for one in result["changes"])
    return f"{result['kept']} of {result['full_marks']} selected; " + "; ".join(parts)
