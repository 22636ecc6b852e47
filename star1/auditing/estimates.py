"""What a labelled sample says about a judge: kappa, sensitivity and specificity, and rates corrected for its errors.

An answer of the sample stands for as many as its part of the population has. Judges' verdicts are known of all answers, so a
part is the answers of one stratum on which the judge says the same; that answers on which judges disagree are looked at more
often then weighs nothing in (Begg and Greenes 1983). Intervals are the posterior under Jeffreys' prior in each part, drawn by
the Bayesian bootstrap over prompts, as those of star1/agreement.py; docs/audit.md has their coverage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from star1.agreement import PRIOR, Options, kappa

Floats = npt.NDArray[np.float64]
# Cells, as in star1/agreement.py: the person and the judge say yes, the person alone, the judge alone, neither.
BOTH, PERSON, JUDGE, NEITHER = range(4)
SIDE = {True: (BOTH, JUDGE), False: (PERSON, NEITHER)}
EVERY = (BOTH, PERSON, JUDGE, NEITHER)


@dataclass(frozen=True)
class Part:
    """Answers of which a simple random sample was labelled.

    Attributes:
        population: how many there are.
        counts: labelled ones of each prompt by cell, `[prompts, 4]`.
        possible: the cells in which they can be.
    """

    population: int
    counts: Floats
    possible: tuple[int, ...] = EVERY

    @property
    def labelled(self) -> float:
        """How many were labelled."""
        return float(self.counts.sum())


@dataclass(frozen=True)
class Figure:
    """A value with its interval; None where it is not defined, and then why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None


def cells_of(yes: float, judge: bool) -> Floats:
    """An answer's cells `[4]`, where people say yes with weight `yes`, in [0, 1]."""
    found = np.zeros(4)
    found[SIDE[judge][0]], found[SIDE[judge][1]] = yes, 1 - yes
    return found


def by_prompt(rows: Iterable[tuple[object, Floats]]) -> Floats:
    """Cells of single answers, added up by prompt, `[prompts, 4]`."""
    found: dict[object, Floats] = {}
    for prompt, cells in rows:
        found[prompt] = found.get(prompt, np.zeros(4)) + cells
    return np.array(list(found.values())).reshape(-1, 4)


def whole(parts: Sequence[Part]) -> tuple[list[Part], bool]:
    """Parts of which something was labelled, which stand for those of the same cells as well; whether any stand for others.

    A part that none stands for is left out.
    """
    given = [one for one in parts if one.labelled]
    found, moved = [], False
    for one in given:
        alike = [other for other in parts if other.possible == one.possible]
        empty = sum(other.population for other in alike if not other.labelled)
        known = sum(other.population for other in alike if other.labelled)
        moved |= empty > 0
        found.append(Part(round(one.population * (1 + empty / known)), one.counts, one.possible))
    return found, moved


def shares(parts: Sequence[Part]) -> Floats:
    """Estimated shares of the cells `[4]` in all parts together."""
    total = sum(one.population for one in parts)
    return np.asarray(sum((one.population / total * one.counts.sum(0) / one.labelled for one in parts), np.zeros(4)))


def draws(parts: Sequence[Part], options: Options) -> Floats:
    """Draws of the shares of the cells, `[resamples, 4]`."""
    generator = np.random.default_rng(options.seed)
    sizes = [one.population + PRIOR * len(one.possible) for one in parts]
    weights = generator.standard_gamma(sizes, size=(options.resamples, len(parts)))
    weights /= weights.sum(1, keepdims=True)
    found = np.zeros((options.resamples, 4))
    for at, one in enumerate(parts):
        drawn = _within(one, options.resamples, generator)
        found += weights[:, at : at + 1] * drawn
    return found


def _within(part: Part, number: int, generator: np.random.Generator) -> Floats:
    """Draws of the shares of the cells within a part: prompts are drawn, and Jeffreys' half of one in each cell."""
    patterns, times = np.unique(part.counts, axis=0, return_counts=True)
    prior = np.eye(4)[list(part.possible)] * part.labelled / len(part.counts)
    shapes = np.concatenate([times.astype(float), np.full(len(prior), PRIOR)])
    found = generator.standard_gamma(shapes, size=(number, len(shapes))) @ np.concatenate([patterns, prior])
    return np.asarray(found / found.sum(1, keepdims=True))


def rate_draws(items: Floats, options: Options) -> Floats:
    """Draws of a rate `[resamples]` from the means of its items `[n]`; with one sample an item, Jeffreys' posterior."""
    generator = np.random.default_rng(options.seed + 1)
    values, times = np.unique(items, return_counts=True)
    values, shapes = np.concatenate([values, [0.0, 1.0]]), np.concatenate([times.astype(float), [PRIOR, PRIOR]])
    weights = generator.standard_gamma(shapes, size=(options.resamples, len(shapes)))
    return np.asarray(weights @ values / weights.sum(1))


# ---------------------------------------------------------------- figures


def sensitivity(cells: Floats) -> Floats:
    """Share of what people say yes to that the judge says yes to `[...]`, from cells `[..., 4]`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(cells[..., BOTH] / (cells[..., BOTH] + cells[..., PERSON]))


def specificity(cells: Floats) -> Floats:
    """Share of what people say no to that the judge says no to `[...]`, from cells `[..., 4]`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(cells[..., NEITHER] / (cells[..., NEITHER] + cells[..., JUDGE]))


def figure(value: float, drawn: Floats, options: Options, why: str) -> Figure:
    """A value with the interval of its draws, which holds it; `why` it has none, where it is not a number."""
    if value != value:
        return Figure(None, note=why)
    low, high = np.nanquantile(drawn, [(1 - options.confidence) / 2, (1 + options.confidence) / 2])
    return Figure(value, min(float(low), value), max(float(high), value))


def about(
    parts: Sequence[Part], options: Options, sides: tuple[str, str]
) -> tuple[Mapping[str, Figure], Floats | None]:
    """Kappa, agreement, sensitivity and specificity, and the draws that they are from.

    Args:
        parts: at least one of them labelled.
        options: confidence, number and seed of the draws.
        sides: words for yes and no.
    """
    known, moved = whole(parts)
    if not known:
        return dict.fromkeys(
            ("kappa", "agreement", "sensitivity", "specificity"), Figure(None, note="nothing labelled")
        ), None
    missing = {one.possible for one in parts} - {one.possible for one in known}
    if missing:
        note = "nothing was labelled of what the judge says about one side"
        return dict.fromkeys(("kappa", "agreement", "sensitivity", "specificity"), Figure(None, note=note)), None
    value, drawn = shares(known), draws(known, options)
    found = {
        "kappa": figure(float(kappa(value)), kappa(drawn), options, "one and the same of everything"),
        "agreement": figure(value[BOTH] + value[NEITHER], drawn[:, BOTH] + drawn[:, NEITHER], options, ""),
        "sensitivity": figure(
            float(sensitivity(value)), sensitivity(drawn), options, f"people found nothing {sides[0]}"
        ),
        "specificity": figure(
            float(specificity(value)), specificity(drawn), options, f"people found nothing {sides[1]}"
        ),
    }
    return {name: _moved(one) if moved else one for name, one in found.items()}, drawn


def _moved(one: Figure) -> Figure:
    note = "strata without a label are taken to be like the others"
    return Figure(one.value, one.low, one.high, f"{one.note}; {note}" if one.note else note)


def corrected(rate: float, rates: Floats, errors: tuple[Figure, Figure], drawn: Floats, options: Options) -> Figure:
    """A rate without the judge's errors.

    Args:
        rate: share of yes by the judge.
        rates: draws of it.
        errors: sensitivity and specificity.
        drawn: draws of the cells that those are from.
        options: confidence.

    Source: Rogan and Gladen (1978): (rate + specificity - 1) / (sensitivity + specificity - 1).
    """
    if errors[0].value is None or errors[1].value is None:
        return Figure(None, note=errors[0].note or errors[1].note)
    if errors[0].value + errors[1].value <= 1:
        return Figure(None, note="undefined: sensitivity and specificity together are not above 1, as by chance")
    value = _rogan_gladen(np.array(rate), np.array(errors[0].value), np.array(errors[1].value))
    better = sensitivity(drawn) + specificity(drawn) > 1
    note = None if 0 <= value <= 1 else f"{'below 0' if value < 0 else 'above 1'} before it was clipped"
    clipped = float(np.clip(value, 0, 1))
    if (~better).mean() > (1 - options.confidence) / 2:
        return Figure(clipped, 0.0, 1.0, "the judge may be no better than chance: no interval but the whole")
    ends = _rogan_gladen(rates[better], sensitivity(drawn)[better], specificity(drawn)[better])
    one = figure(clipped, np.clip(ends, 0, 1), options, "")
    return Figure(one.value, one.low, one.high, note)


def _rogan_gladen(rate: Floats, sensitive: Floats, specific: Floats) -> Floats:
    return np.asarray((rate + specific - 1) / (sensitive + specific - 1))


def direct(parts: Sequence[Part], options: Options) -> Figure:
    """The share of yes among all answers by people: what the correction comes to where it is about all of them."""
    known, _ = whole(parts)
    value, drawn = shares(known), draws(known, options)
    return figure(float(value[BOTH] + value[PERSON]), drawn[:, BOTH] + drawn[:, PERSON], options, "")
