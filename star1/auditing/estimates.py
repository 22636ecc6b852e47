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
Ends = tuple[float, float, float]
# Cells, as in star1/agreement.py: the person and the judge say yes, the person alone, the judge alone, neither.
BOTH, PERSON, JUDGE, NEITHER = range(4)
SIDE = {True: (BOTH, JUDGE), False: (PERSON, NEITHER)}
EVERY = (BOTH, PERSON, JUDGE, NEITHER)
FIGURES = ("kappa", "agreement", "sensitivity", "specificity")
MOVED = "strata without a label are taken to be like the others"


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

    @property
    def yes(self) -> bool:
        """Whether it is the judge's yes."""
        return BOTH in self.possible and PERSON not in self.possible


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


# ---------------------------------------------------------------- parts


def standing(parts: Sequence[Part]) -> Floats | None:
    """Which labelled part stands for which part, and how far `[parts, labelled parts]`.

    One without a label has those stand for it that have the same cells; None where there are none.
    """
    known = [at for at, one in enumerate(parts) if one.labelled]
    found = np.zeros((len(parts), len(known)))
    for at, one in enumerate(parts):
        alike = [at] if one.labelled else [k for k in known if parts[k].possible == one.possible]
        if not alike:
            return None
        total = sum(parts[k].population for k in alike)
        for k in alike:
            found[at, known.index(k)] = parts[k].population / total
    return found


def shares(parts: Sequence[Part], stand: Floats) -> Floats:
    """Estimated shares of the cells `[4]` in all parts together."""
    weights = np.array([one.population for one in parts], float) @ stand
    within = np.array([one.counts.sum(0) / one.labelled for one in parts if one.labelled])
    return np.asarray(weights / weights.sum() @ within)


def masses(items: Sequence[Floats], options: Options) -> list[Floats]:
    """Draws of how much of each set of answers is in each part `[resamples, parts]`: its items are drawn, with all their samples.

    Args:
        items: for each set, answers to each item by part `[items, parts]`.
        options: number and seed of the draws.
    """
    generator = np.random.default_rng(options.seed)
    found = []
    for one in items:
        patterns, times = np.unique(one, axis=0, return_counts=True)
        found.append(generator.standard_gamma(times.astype(float), size=(options.resamples, len(times))) @ patterns)
    return found


def draws(parts: Sequence[Part], stand: Floats, population: Floats, options: Options) -> Floats:
    """Draws of the shares of the cells, `[resamples, 4]`.

    Args:
        parts: what was labelled.
        stand: as `standing` has it.
        population: draws of the parts' sizes `[resamples, parts]`.
        options: number and seed of the draws.
    """
    generator = np.random.default_rng([options.seed, 1])
    prior = generator.standard_gamma([PRIOR * len(one.possible) for one in parts], size=population.shape)
    weights = (population + prior) @ stand
    within = [_within(one, options.resamples, generator) for one in parts if one.labelled]
    found = np.asarray(sum(weights[:, at : at + 1] * one for at, one in enumerate(within)))
    # A judge that puts everything on one side may put the next answer on the other.
    for cell in sorted({*EVERY}.difference(*(one.possible for one in parts))):
        found[:, cell] += generator.standard_gamma(PRIOR, size=options.resamples)
    return np.asarray(found / found.sum(1, keepdims=True))


def _within(part: Part, number: int, generator: np.random.Generator) -> Floats:
    """Draws of the shares of the cells within a part: prompts are drawn, and Jeffreys' half of one in each cell."""
    patterns, times = np.unique(part.counts, axis=0, return_counts=True)
    prior = np.eye(4)[list(part.possible)] * part.labelled / len(part.counts)
    shapes = np.concatenate([times.astype(float), np.full(len(prior), PRIOR)])
    found = generator.standard_gamma(shapes, size=(number, len(shapes))) @ np.concatenate([patterns, prior])
    return np.asarray(found / found.sum(1, keepdims=True))


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
    return Figure(float(value), float(min(low, value)), float(max(high, value)))


@dataclass(frozen=True)
class Audited:
    """What people's labels say about a judge.

    Attributes:
        figures: by the names of `FIGURES`.
        share: of yes, by people, among all answers that the judge has a verdict on.
        drawn: draws of the shares of the cells `[resamples, 4]`, and of the parts' sizes in each set; None without figures.
    """

    figures: Mapping[str, Figure]
    share: Figure
    drawn: tuple[Floats, list[Floats]] | None


def audit(parts: Sequence[Part], items: Sequence[Floats], options: Options, sides: tuple[str, str]) -> Audited:
    """Hold a judge against people.

    Args:
        parts: of the answers that it has a verdict on.
        items: for each set of answers, those to each item by part, `[items, parts]`.
        options: confidence, number and seed of the draws.
        sides: words for yes and no.
    """
    if (stand := standing(parts)) is None or not stand.size:
        note = "nothing was labelled of what the judge puts on one side" if stand is None else "nothing was labelled"
        return Audited(dict.fromkeys(FIGURES, Figure(None, note=note)), Figure(None, note=note), None)
    value, population = shares(parts, stand), masses(items, options)
    drawn = draws(parts, stand, np.asarray(sum(population)), options)
    found = {
        "kappa": figure(float(kappa(value)), kappa(drawn), options, "one and the same of everything"),
        "agreement": figure(float(value[BOTH] + value[NEITHER]), drawn[:, BOTH] + drawn[:, NEITHER], options, ""),
        "sensitivity": figure(
            float(sensitivity(value)), sensitivity(drawn), options, f"people found nothing {sides[0]}"
        ),
        "specificity": figure(
            float(specificity(value)), specificity(drawn), options, f"people found nothing {sides[1]}"
        ),
    }
    share = figure(float(value[BOTH] + value[PERSON]), drawn[:, BOTH] + drawn[:, PERSON], options, "")
    if any(not one.labelled for one in parts):
        found, share = {name: _moved(one) for name, one in found.items()}, _moved(share)
    return Audited(found, share, (drawn, population))


def _moved(one: Figure) -> Figure:
    return Figure(one.value, one.low, one.high, f"{one.note}; {MOVED}" if one.note else MOVED)


def corrected(one: Audited, parts: Sequence[Part], at: int, raw: Ends, options: Options) -> Figure:
    """The rate of one set of answers without the judge's errors, clipped to [0, 1].

    What was clipped does not fit the errors, which are of all sets together: its interval then reaches as far as the raw one.

    Args:
        one: what the labels say about the judge.
        parts: as they were audited.
        at: which set.
        raw: share of yes in it by the judge, and the ends of its interval.
        options: confidence.

    Source: Rogan and Gladen (1978): (rate + specificity - 1) / (sensitivity + specificity - 1).
    """
    errors = one.figures["sensitivity"], one.figures["specificity"]
    if one.drawn is None or errors[0].value is None or errors[1].value is None:
        return Figure(None, note=next(filter(None, (error.note for error in errors)), None))
    if errors[0].value + errors[1].value <= 1:
        return Figure(None, note="undefined: sensitivity and specificity together are not above 1, as by chance")
    value = float(_rogan_gladen(np.array(raw[0]), np.array(errors[0].value), np.array(errors[1].value)))
    clipped = min(max(value, 0.0), 1.0)
    drawn, rates = one.drawn[0], _rates(parts, one.drawn[1][at], options)
    better = sensitivity(drawn) + specificity(drawn) > 1
    if (~better).mean() > (1 - options.confidence) / 2:
        return Figure(clipped, 0.0, 1.0, "the judge may be no better than chance: no interval but the whole")
    ends = _rogan_gladen(rates[better], sensitivity(drawn)[better], specificity(drawn)[better])
    found = figure(clipped, np.clip(ends, 0, 1), options, "")
    if value == clipped:
        return found
    note = f"{value:.3f} before it was clipped"
    return Figure(clipped, min(found.low or 0.0, raw[1]), max(found.high or 0.0, raw[2]), note)


def _rates(parts: Sequence[Part], population: Floats, options: Options) -> Floats:
    """Draws of the share of yes by the judge in a set: with one answer to an item, Jeffreys' posterior."""
    prior = np.random.default_rng([options.seed, 2]).standard_gamma(PRIOR, size=(len(population), 2))
    yes = population[:, [one.yes for one in parts]].sum(1) + prior[:, 0]
    return np.asarray(yes / (population.sum(1) + prior.sum(1)))


def _rogan_gladen(rate: Floats, sensitive: Floats, specific: Floats) -> Floats:
    return np.asarray((rate + specific - 1) / (sensitive + specific - 1))


def people(parts: Sequence[Part], options: Options) -> Figure:
    """Kappa of two people on what both have labelled, as it would be among all answers."""
    known = [one for one in parts if one.labelled]
    if not known:
        return Figure(None, note="nothing that both have labelled")
    stand = np.eye(len(known))
    sizes = np.tile([float(one.population) for one in known], (options.resamples, 1))
    drawn = draws(known, stand, sizes, options)
    found = figure(float(kappa(shares(known, stand))), kappa(drawn), options, "one and the same of everything")
    return _moved(found) if len(known) < len(parts) else found
