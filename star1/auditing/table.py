"""The table of an audit: judges against people, people against each other, and rates corrected for the judges' errors."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from star1.agreement import Answer, Options
from star1.auditing import estimates
from star1.auditing.design import PURPOSES, Place, Sample, place
from star1.auditing.labels import NAMED, Labels, sides, verdict
from star1.auditing.questions import QUESTIONS, THINKING, UNCLEAR, questions_of, said
from star1.errors import InputError
from star1.records import Row
from star1.stats import rate
from star1.stats_means import mean_of_items
from star1.tables import NOTICE, STAND_IN

if TYPE_CHECKING:
    from star1.auditing.estimates import Figure, Floats

ALL = "all"
VERSION = 1
# Views of a response with the thinking in them.
WITH_THINKING = frozenset({THINKING, "response"})
UNREAD = "it was shown the thinking, which people did not read"


@dataclasses.dataclass(frozen=True)
class Judge:
    """A judge whose verdicts are held against people on one question.

    Attributes:
        row: one of its judgements.
        answers: those that it is about, with what it says.
    """

    purpose: str
    question: str
    row: Row
    answers: Sequence[tuple[Answer, bool]]


def table(sample: Sample, labels: Labels, answers: Sequence[Answer], options: Options) -> Row:
    """Everything that the labels of a sample say.

    Raises:
        InputError: the answers are not those that people labelled.
    """
    found = _held(sample, labels, answers)
    items = {_place(row): item for item, row in sample.key.items()}
    judges, rates = [], []
    for one in _judges(sample, found):
        told, mine = _judged(one, sample, labels, items, options)
        judges.append(told)
        rates += mine
    stand_ins = sorted({row["model"] for row in judges if STAND_IN in row["model"]})
    people = sorted({who for said in labels.values() for who in said})
    return {
        "title": "Judges against people",
        "version": VERSION,
        "notice": NOTICE.format(labels=f"verdicts by {', '.join(stand_ins)}") if stand_ins else None,
        "sample": sample.design["name"],
        "confidence": options.confidence,
        "resamples": options.resamples,
        "seed": options.seed,
        "annotators": people,
        "strata": _strata(sample, labels),
        "judges": judges,
        "people": list(_people(sample, labels, options)),
        "rates": rates,
    }


def _place(row: Row) -> Place:
    return row["model"], row["benchmark"], row["id"], row["sample"]


def _held(sample: Sample, labels: Labels, answers: Sequence[Answer]) -> dict[Place, Answer]:
    """The answers of the frame, those with labels being what they were."""
    known = {place(one): one for one in answers}
    gone = [at for at in sample.frame if at not in known]
    other = [
        _place(row)
        for item, row in sample.key.items()
        if item in labels and _place(row) in known and _digest(known[_place(row)]) != row["response_digest"]
    ]
    if gone or other:
        parts = [f"{len(gone):,} answers of the sample's frame are gone"] if gone else []
        parts += [f"{len(other):,} labelled answers are others now"] if other else []
        first = ", ".join("/".join(map(str, at)) for at in [*gone, *other][:NAMED])
        found = f"{' and '.join(parts)} ({first}, ...)"
        hint = "labels are about the answers that people read: draw a new sample with another --name."
        raise InputError(sample.folder, found, "the answers from which it was drawn", hint)
    return {at: known[at] for at in sample.frame}


def _digest(one: Answer) -> object:
    return next(iter(one.rows.values()))["response_digest"]


def _strata(sample: Sample, labels: Labels) -> list[Row]:
    done = Counter(sample.key[item]["stratum"] for item, people in labels.items() if any(people.values()))
    return [{"stratum": name, **one, "labelled": done[name]} for name, one in sample.design["strata"].items()]


# ---------------------------------------------------------------- judges


def _judges(sample: Sample, found: Mapping[Place, Answer]) -> Iterator[Judge]:
    for purpose in PURPOSES:
        mine = [one for one in found.values() if one.purpose == purpose]
        rows = {name: row for one in mine for name, row in one.rows.items()}
        for name, row in rows.items():
            for question in questions_of(purpose, row["kind"]):
                if question in sample.design["questions"].get(purpose, ()):
                    told = [(one, said(one.rows[name], question)) for one in mine if name in one.rows]
                    yield Judge(purpose, question, row, [(one, side) for one, side in told if side is not None])


def _judged(
    judge: Judge, sample: Sample, labels: Labels, items: Mapping[Place, str], options: Options
) -> tuple[Row, list[Row]]:
    """What is told of a judge, and the rates that are its."""
    question = QUESTIONS[judge.question]
    keys = sorted({(sample.frame[place(one)], side) for one, side in judge.answers})
    parts = [_part(judge, key, sample, labels, items) for key in keys]
    sets = _sets(judge, keys, sample)
    if _unread(judge):
        audited = estimates.Audited(
            dict.fromkeys(estimates.FIGURES, estimates.Figure(None, note=UNREAD)), _unread_share(), None
        )
    else:
        audited = estimates.audit(parts, [one for _, one in sets.values()], options, question.sides)
    row = judge.row
    about = {"purpose": judge.purpose, "judge": row["name"], "question": judge.question}
    told = about | {
        "kind": row["kind"],
        "model": row["judge"],
        "view": row.get("view"),
        "primary": bool(row["primary"]),
        "yes": question.sides[0],
        "no": question.sides[1],
        "population": len(judge.answers),
        "labelled": round(sum(one.labelled for one in parts)),
        "unclear": _unclear(judge, labels, items),
        "confusion": _confusion(judge, labels, items),
        **{name: _figure(one) for name, one in audited.figures.items()},
    }
    return told, [about | one for one in _rates(sets, parts, audited, options)]


def _unread(judge: Judge) -> bool:
    views = {row.get("view") for one, _ in judge.answers[:1] for row in one.rows.values() if row["primary"]}
    return judge.row.get("view") in WITH_THINKING and not views & WITH_THINKING


def _unread_share() -> "Figure":
    return estimates.Figure(None, note=UNREAD)


def _part(
    judge: Judge, key: tuple[str, bool], sample: Sample, labels: Labels, items: Mapping[Place, str]
) -> estimates.Part:
    population, cells = 0, []
    for one, side in judge.answers:
        if (sample.frame[place(one)], side) == key:
            population += 1
            yes = verdict(labels.get(items.get(place(one), ""), {}), judge.question)
            if yes is not None:
                cells.append(((one.benchmark, one.id), estimates.cells_of(yes, side)))
    return estimates.Part(population, estimates.by_prompt(cells), estimates.SIDE[key[1]])


def _sets(
    judge: Judge, keys: Sequence[tuple[str, bool]], sample: Sample
) -> dict[tuple[str, str], tuple[list[str], "Floats"]]:
    """Ids of the items of each model's answers to a benchmark, and how many answers to each are in each part."""
    at = {key: number for number, key in enumerate(keys)}
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for one, side in judge.answers:
        counts = found.setdefault((one.model, one.benchmark), {}).setdefault(one.id, [0] * len(keys))
        counts[at[sample.frame[place(one)], side]] += 1
    return {name: (list(one), np.array(list(one.values()), float)) for name, one in found.items()}


def _unclear(judge: Judge, labels: Labels, items: Mapping[Place, str]) -> int:
    """Items on which everybody who labelled them could not tell."""
    people = [labels.get(items.get(place(one), ""), {}) for one, _ in judge.answers]
    told = [[one[judge.question] for one in said.values() if judge.question in one] for said in people]
    return sum(bool(one) and set(one) == {UNCLEAR} for one in told)


def _confusion(judge: Judge, labels: Labels, items: Mapping[Place, str]) -> dict[str, dict[str, int]]:
    """How often people said each word where the judge said each: labels as counted, not weighted."""
    found: dict[str, Counter[str]] = {}
    for one, yes in judge.answers:
        for told in labels.get(items.get(place(one), ""), {}).values():
            if word := told.get(judge.question):
                found.setdefault(word, Counter())[_word(judge, one, yes)] += 1
    order = (*QUESTIONS[judge.question].labels, UNCLEAR)
    return {word: dict(sorted(found[word].items())) for word in order if word in found}


def _word(judge: Judge, one: Answer, yes: bool) -> str:
    """What a judge says on the question; where its verdict is on another one, the side on which it is."""
    if judge.question == "refusal" and judge.row["kind"] != "refusal":
        return QUESTIONS[judge.question].sides[0 if yes else 1]
    return str(one.rows[judge.row["name"]]["verdict"])


def _rates(
    sets: Mapping[tuple[str, str], tuple[list[str], "Floats"]],
    parts: Sequence[estimates.Part],
    audited: estimates.Audited,
    options: Options,
) -> Iterator[Row]:
    yes = [one.yes for one in parts]
    for at, ((model, benchmark), (_, counts)) in enumerate(sets.items()):
        raw = _raw(counts, yes, options)
        one = raw["raw"]
        fixed = estimates.corrected(audited, parts, at, (one["value"], one["low"], one["high"]), options)
        yield {"model": model, "benchmark": benchmark, **raw, "corrected": _figure(fixed)}
    if len(sets) > 1:
        whole = _raw(np.concatenate([counts for _, counts in sets.values()]), yes, options)
        yield {"model": ALL, "benchmark": ALL, **whole, "corrected": _figure(audited.share)}


def _raw(counts: "Floats", yes: Sequence[bool], options: Options) -> Row:
    """The judge's own rate, as in the tables: with several answers to an item, by items."""
    n, count = int(counts.sum()), int(counts[:, yes].sum())
    if counts.sum(1).max() <= 1:
        one = rate(count, n, options.confidence)
        return {"n": n, "count": count, "raw": {"value": one.value, "low": one.low, "high": one.high, "note": None}}
    mean = mean_of_items(counts[:, yes].sum(1) / counts.sum(1), options.confidence, n)
    told = {"value": float(mean.value), "low": float(mean.low), "high": float(mean.high), "note": None}
    return {"n": n, "count": count, "raw": told}


def _figure(one: "Figure") -> Row:
    return dataclasses.asdict(one)


# ---------------------------------------------------------------- people


def _people(sample: Sample, labels: Labels, options: Options) -> Iterator[Row]:
    for purpose, asked in sample.design["questions"].items():
        for question in asked:
            told = {
                item: sides(people, question)
                for item, people in labels.items()
                if sample.key[item]["purpose"] == purpose
            }
            for first, second in itertools.combinations(sorted({who for one in told.values() for who in one}), 2):
                both = {item: (one[first], one[second]) for item, one in told.items() if {first, second} <= {*one}}
                if both:
                    about = {"purpose": purpose, "question": question, "first": first, "second": second}
                    yield about | _pair(sample, purpose, both, options)


def _pair(sample: Sample, purpose: str, both: Mapping[str, tuple[bool, bool]], options: Options) -> Row:
    parts = []
    for stratum, design in sample.design["strata"].items():
        if stratum.startswith(f"{purpose}/"):
            cells = []
            for item, (one, other) in both.items():
                row = sample.key[item]
                if row["stratum"] == stratum:
                    cells.append(((row["benchmark"], row["id"]), estimates.cells_of(float(one), other)))
            parts.append(estimates.Part(design["population"], estimates.by_prompt(cells)))
    same = sum(one == other for one, other in both.values())
    return {"n": len(both), "agree": same, "kappa": _figure(estimates.people(parts, options))}
