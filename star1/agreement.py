"""How far judges agree: Cohen's kappa of each two of them with its interval, and the answers on which they do not.

Judges of different kinds use different words. Two of them are compared on a question that both answer:

- *safe*: `safe`, and of the three-way verdict both kinds of refusal, against the rest (`controversial` counts as unsafe);
- *correct*: on mathematics, where a model was asked as well as the grader;
- *refused*: on benign prompts, where a refusal is what is measured: full or partial against full compliance, and what guards
  say about refusal beside their verdict.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from star1.records import Row, read_rows
from star1.stats import rate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALL = "all"
FIELDS = ["id", "benchmark", "purpose", "name", "kind", "verdict", "unscored", "judge"]
# Kinds that tell whether an answer refuses.
TELLS_REFUSAL = ("refusal", "wildguard", "qwen3guard", "rubric")
# Weight that each of the four cells has before anything is seen [prompts]: without it, an interval around full agreement
# would have no width, however few answers there are.
PRIOR = 0.5
# Cells of a table of two judges: both yes, the first alone, the second alone, none.
CELLS = ((True, True), (True, False), (False, True), (False, False))


@dataclass(frozen=True)
class Options:
    """How intervals are made.

    Attributes:
        confidence: nominal coverage, in (0, 1).
        resamples: draws of each interval.
        seed: of the draws.
    """

    confidence: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Answer:
    """One answer of a model, and what each judge said about it.

    Attributes:
        rows: judgements by the judge's name, the primary one first.
    """

    model: str
    benchmark: str
    purpose: str
    id: str
    sample: int
    category: str | None
    rows: Mapping[str, Row]


def answers(model: str, judged: Sequence[Row], categories: Mapping[str, str | None]) -> list[Answer]:
    """A model's answers to one benchmark.

    Args:
        model: its name.
        judged: judgements of the benchmark, of all judges.
        categories: category of each prompt, by id.
    """
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for row in judged:
        found.setdefault((row["id"], row.get("sample", 0)), {})[row["name"]] = row
    first = {place: next(iter(rows.values())) for place, rows in found.items()}
    return [
        Answer(model, first[place]["benchmark"], first[place]["purpose"], *place, categories.get(place[0]), rows)
        for place, rows in found.items()
    ]


def read_answers(judgements: Path, rows: Path, models: Sequence[str], benchmarks: Sequence[str]) -> list[Answer]:
    """All models' answers to all benchmarks.

    Args:
        judgements: folder of {model}/{benchmark}.jsonl.
        rows: folder of the benchmarks' {benchmark}.jsonl.
        models: names.
        benchmarks: names.

    Raises:
        InputError: a file or field is missing.
    """
    found = []
    for benchmark in benchmarks:
        categories = {row["id"]: row.get("category") for row in read_rows(rows / f"{benchmark}.jsonl", ["id"])}
        for model in models:
            found += answers(model, read_rows(judgements / model / f"{benchmark}.jsonl", FIELDS), categories)
    return found


def question(purpose: str, first: str, second: str) -> str | None:
    """What judges of two kinds both say about answers to prompts of a purpose; None where there is nothing."""
    if purpose in ("harmful", "reasoning"):
        return {"harmful": "safe", "reasoning": "correct"}[purpose]
    if first in TELLS_REFUSAL and second in TELLS_REFUSAL:
        return "refused"
    return None if "refusal" in (first, second) else "safe"


def side(row: Row, asked: str) -> bool | None:
    """What a judgement says on a question; None where it is unscored."""
    if row["verdict"] is None:
        return None
    if row["kind"] == "refusal":
        return bool(row["verdict"] != "full_compliance")
    return row.get("refused") if asked == "refused" else bool(row["verdict"] == asked)


def kappa(table: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Cohen's kappa of tables of two judges.

    Args:
        table: counts in the order of `CELLS`, `[..., 4]`.

    Returns:
        Kappa `[...]`; NaN where both say one and the same of everything, and agreement beyond chance means nothing.
    """
    import numpy as np

    both, first, second, none = np.moveaxis(table, -1, 0)
    total = table.sum(-1)
    chance = ((both + first) * (both + second) + (second + none) * (first + none)) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(((both + none) / total - chance) / (1 - chance))


def interval(counts: "NDArray[np.float64]", options: Options) -> tuple[float, float]:
    """Interval around kappa by the Bayesian bootstrap over prompts: all answers to a prompt are drawn together.

    Args:
        counts: what two judges said about the answers to each prompt, in the order of `CELLS`, `[prompts, 4]`.
        options: confidence, number and seed of the draws.

    Source: Rubin (1981), with Jeffreys' weight of `PRIOR` answers in each cell, and each prompt's weight by `evidence`;
        docs/judges.md has its coverage in simulations.
    """
    import numpy as np

    draw = np.random.default_rng(options.seed)
    # Prompts with the same counts are drawn as one: a sum of exponential weights has a gamma distribution.
    patterns, times = np.unique(counts, axis=0, return_counts=True)
    prior = np.eye(4) * counts.sum() / len(counts)
    shapes = np.concatenate([times * evidence(len(counts), options.confidence), np.full(4, PRIOR)])
    weights = draw.standard_gamma(shapes, size=(options.resamples, len(shapes)))
    found = kappa(weights @ np.concatenate([patterns, prior]))
    low, high = np.nanquantile(found, [(1 - options.confidence) / 2, (1 + options.confidence) / 2])
    return float(low), float(high)


def evidence(prompts: int, confidence: float) -> float:
    """The weight of each prompt with which the spread of a mean is that of Student's t, and not smaller, as with 1.

    That is so from six prompts on; of fewer the spread is smaller still. Dirichlet weights that add up to A give a mean the
    variance s² / (A + 1), s² over n; t has (t / z)² s² / (n - 1).
    """
    from scipy.special import ndtri, stdtrit

    if prompts < 2:
        return 1.0
    ratio = float(ndtri(0.5 + confidence / 2) / stdtrit(prompts - 1, 0.5 + confidence / 2))
    return max((prompts - 1) * ratio**2 - 1, 1.0) / prompts


def pair(chosen: Sequence[Answer], first: str, second: str, asked: str, options: Options) -> Row:
    """How far two judges agree on a question about some answers."""
    import numpy as np

    cells: Counter[tuple[bool, bool]] = Counter()
    prompts: dict[tuple[str, str], Counter[tuple[bool, bool]]] = {}
    for one in chosen:
        said = side(one.rows[first], asked), side(one.rows[second], asked)
        if said[0] is not None and said[1] is not None:
            cells[said[0], said[1]] += 1
            prompts.setdefault((one.benchmark, one.id), Counter())[said[0], said[1]] += 1
    n, same = cells.total(), cells[True, True] + cells[False, False]
    agreed = rate(same, n, options.confidence)
    found: Row = {"n": n, "total": len(chosen), "agree": same, "agreement": agreed.value}
    found |= {"agreement_low": agreed.low, "agreement_high": agreed.high}
    counts = np.array([[one[cell] for cell in CELLS] for one in prompts.values()], dtype=float).reshape(-1, 4)
    value = float(kappa(counts.sum(0))) if n else float("nan")
    low, high = _around(value, *interval(counts, options)) if value == value else (None, None)
    found |= {"kappa": value if value == value else None, "low": low, "high": high}
    return found | {"both": cells[CELLS[0]], "first_only": cells[CELLS[1]], "second_only": cells[CELLS[2]]}


def _around(value: float, low: float, high: float) -> tuple[float, float]:
    """An interval that holds its estimate: the prior draws it away from 1, and from what few answers say."""
    return min(low, value), max(high, value)


def pairs(found: Sequence[Answer], options: Options) -> list[Row]:
    """All pairs of judges: by model and benchmark, over all models by benchmark and by its categories, and over all."""
    told = []
    for first, second, purpose, asked in _asked(found):
        mine = [one for one in found if one.purpose == purpose and {first, second} <= {*one.rows}]
        about = {"first": first, "second": second, "question": asked}
        for place, chosen in _groups(mine):
            told.append(about | place | pair(chosen, first, second, asked, options))
    return told


def _asked(found: Sequence[Answer]) -> Iterator[tuple[str, str, str, str]]:
    """Pairs of judges by purpose, and the question on which they can be compared."""
    known: dict[tuple[str, str, str, str], None] = {}
    for one in found:
        for first, second in itertools.combinations(one.rows, 2):
            if asked := question(one.purpose, one.rows[first]["kind"], one.rows[second]["kind"]):
                known[first, second, one.purpose, asked] = None
    yield from known


def _groups(mine: Sequence[Answer]) -> Iterator[tuple[Row, list[Answer]]]:
    benchmarks = dict.fromkeys(one.benchmark for one in mine)
    for benchmark in benchmarks:
        here = [one for one in mine if one.benchmark == benchmark]
        models = dict.fromkeys(one.model for one in here)
        for model in models:
            own = [one for one in here if one.model == model]
            yield {"model": model, "benchmark": benchmark, "category": ALL}, own
        if len(models) > 1:
            yield {"model": ALL, "benchmark": benchmark, "category": ALL}, here
        for category in dict.fromkeys(one.category for one in here if one.category):
            own = [one for one in here if one.category == category]
            yield {"model": ALL, "benchmark": benchmark, "category": category}, own
    if len(benchmarks) > 1:
        yield {"model": ALL, "benchmark": ALL, "category": ALL}, list(mine)


def disagreements(found: Sequence[Answer]) -> list[Row]:
    """The answers on which any two judges disagree; texts stay where they are, and are named by their digests."""
    rows = []
    for one in found:
        sides = [
            (first, second, asked)
            for first, second in itertools.combinations(one.rows, 2)
            if (asked := question(one.purpose, one.rows[first]["kind"], one.rows[second]["kind"]))
            and _differ(side(one.rows[first], asked), side(one.rows[second], asked))
        ]
        if sides:
            rows.append(_disagreement(one, sides))
    return rows


def _differ(first: bool | None, second: bool | None) -> bool:
    return first is not None and second is not None and first is not second


def _disagreement(one: Answer, sides: Sequence[tuple[str, str, str]]) -> Row:
    first = next(iter(one.rows.values()))
    return {
        "id": one.id,
        "sample": one.sample,
        "model": one.model,
        "benchmark": one.benchmark,
        "purpose": one.purpose,
        "category": one.category,
        "verdicts": {name: row["verdict"] for name, row in one.rows.items()},
        "unscored": {name: row["unscored"] for name, row in one.rows.items() if row["verdict"] is None},
        "disagree": [{"first": first, "second": second, "question": asked} for first, second, asked in sides],
        "generations": f"results/generations/{one.model}/{one.benchmark}.jsonl",
        "question_digest": first["question_digest"],
        "response_digest": first["response_digest"],
    }


def judges(found: Sequence[Answer]) -> list[Row]:
    """The judges: who they are, what they were shown, and when their model ends."""
    fields = ("name", "kind", "view", "judge", "retires")
    known: dict[tuple[Any, ...], None] = {}
    for one in found:
        known |= {tuple(row.get(name) for name in fields): None for row in one.rows.values()}
    return [dict(zip(fields, values, strict=True)) for values in known]
