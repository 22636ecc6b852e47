"""The table of paired comparisons: every run against its base model, on the same items of each benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from star1 import tables
from star1.errors import InputError
from star1.records import Row
from star1.stats_means import Estimate, average, bootstrap
from star1.stats_pairs import (
    detectable_paired,
    detectable_unpaired,
    holm,
    mcnemar,
    mean_test,
    paired_means,
    paired_shares,
)
from star1.tables import Judgements, by_item, measure_of, primary
from star1.tables_means import Settings
from star1.tables_pages import Block, Page

MCNEMAR, T_TEST = "McNemar, mid-p", "paired t"
ABOUT = (
    "Percentage points: the first model's rate minus the second's, on the items that both have a verdict on; {level} intervals. "
    "p: {tests}; Holm: adjusted over the benchmarks of a pair. Gained and lost: items that only the first, only the second has. "
    "Detectable: the smallest difference that such a comparison finds with a chance of {power}; in brackets without pairing."
)


def pairs_of(
    models: Sequence[str], bases: Mapping[str, str], further: Sequence[Sequence[str]]
) -> list[tuple[str, str]]:
    """Every run with its base model, where both were evaluated, and the further pairs."""
    found = [(model, bases[model]) for model in models if bases.get(model) in models]
    return list(dict.fromkeys([*found, *((one, other) for one, other in further)]))


def compare(
    judgements: Judgements, bases: Mapping[str, str], groups: Mapping[str, Sequence[str]], settings: Settings
) -> Row:
    """The table of paired comparisons.

    Args:
        judgements: by model, and by run over its seeds.
        bases: base model of each run.
        groups: models that stand for one seed of a run; they are compared by their run alone.
        settings: how tables are made.
    """
    single = {model for run, models in groups.items() if run in judgements and len(models) > 1 for model in models}
    shown = [model for model in judgements if model not in single]
    rows: list[Row] = []
    without = []
    for run, base in pairs_of(shown, bases, settings.pairs):
        own = _pair(run, base, judgements, settings)
        for one, adjusted in zip(own, holm([one["p"] for one in own]), strict=True):
            one["p_holm"] = adjusted
        rows += own + _averages(run, base, own, judgements, settings)
        there, asked = {one["benchmark"] for one in own}, judgements[base]
        if silent := [name for name in judgements[run] if name in asked and name not in there]:
            without.append({"run": run, "base": base, "benchmarks": silent})
    notice = tables.notice([row for row in rows if "judges" in row])
    return {
        "title": "Paired comparisons",
        "notice": notice,
        "confidence": settings.confidence,
        "power": settings.power,
        "comparisons": rows,
        "without": without,
    }


def _pair(run: str, base: str, judgements: Judgements, settings: Settings) -> list[Row]:
    names = [name for name in judgements[run] if name in judgements[base]]
    found = (difference(run, base, name, judgements[run][name], judgements[base][name], settings) for name in names)
    return [one for one in found if one["n"]]


def difference(
    run: str, base: str, benchmark: str, own: Sequence[Row], other: Sequence[Row], settings: Settings
) -> Row:
    """One model against another on one benchmark.

    Raises:
        InputError: the two were not asked the same, or not judged by the same measure.
    """
    own, other = primary(own), primary(other)
    where = f"{run} and {base} on {benchmark}"
    (_, _, measure, counting), (_, _, second, _) = measure_of(where, own), measure_of(where, other)
    if measure != second:
        raise InputError(where, f"measures {measure!r} and {second!r}", "one measure")
    _same_questions(where, own, other)
    ours, theirs = by_item(own, counting), by_item(other, counting)
    both = [name for name in sorted({*ours} & {*theirs}) if ours[name] and theirs[name]]
    means = np.array([[_mean(marks[name]) for name in both] for marks in (ours, theirs)]).reshape(2, -1)
    single = max(map(len, [*ours.values(), *theirs.values()]), default=0) <= 1
    told: Row = {"run": run, "base": base, "benchmark": benchmark, "measure": measure}
    told |= {"n": len(both), "total": len({*ours} | {*theirs}), "left_out": _left_out(ours, theirs)}
    told |= {"judges": sorted({row["judge"] for row in [*own, *other]})}
    told["coverage"] = told["n"] / told["total"]
    return told | (_figures(means, single, settings) if both else {})


def _mean(marks: Sequence[int]) -> float:
    return sum(marks) / len(marks)


def _same_questions(where: str, own: Sequence[Row], other: Sequence[Row]) -> None:
    asked = {row["id"]: row["question_digest"] for row in own if "question_digest" in row}
    for row in other:
        if asked.get(row["id"], row.get("question_digest")) != row.get("question_digest"):
            raise InputError(f"{where}, row {row['id']}", "two questions", "one", "generate and judge both anew")


def _left_out(ours: Mapping[str, Sequence[int]], theirs: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Items without a verdict, by whose it is that lacks."""
    lacks = [(not ours.get(name), not theirs.get(name)) for name in {*ours} | {*theirs}]
    kinds = {"unscored in the first": (True, False), "in the second": (False, True), "in both": (True, True)}
    return {name: lacks.count(kind) for name, kind in kinds.items()}


def _figures(means: Any, single: bool, settings: Settings) -> Row:
    """The figures of a comparison, from the means `[2, n]` of the items of both models."""
    first, second = means
    differences, n = first - second, len(first)
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    if single:
        found = paired_shares(np.array(gained), np.array(lost), np.array(n), settings.confidence)
        p = mcnemar(gained, lost, mid_p=True)
    else:
        found, p = paired_means(differences, settings.confidence), mean_test(differences)
    low, high = bootstrap([differences], settings.confidence, settings.resamples, settings.seed)
    told: Row = {"value": float(found.value), "low": float(found.low), "high": float(found.high), "p": p}
    told |= {
        "test": MCNEMAR if single else T_TEST,
        "run_value": float(first.mean()),
        "base_value": float(second.mean()),
    }
    told |= {"gained": gained, "lost": lost, "bootstrap": [low, high]}
    told |= {"p_exact": mcnemar(gained, lost)} if single else {}
    return told | (_detectable(gained + lost, n, float(second.mean()), settings) if single else {})


def _detectable(discordant: int, n: int, share: float, settings: Settings) -> Row:
    """Smallest differences that would be found: with as many discordant items, and one more; and unpaired."""
    expected = min(1.0, (discordant + 1) / n)
    return {
        "detectable": detectable_paired(expected, n, settings.power, settings.confidence),
        "detectable_unpaired": detectable_unpaired(share, n, settings.power, settings.confidence),
    }


def _averages(run: str, base: str, own: Sequence[Row], judgements: Judgements, settings: Settings) -> list[Row]:
    """The differences of averages, from those on their benchmarks."""
    by_name, found = {one["benchmark"]: one for one in own}, []
    for name, members in (settings.averages or {}).items():
        parts = [by_name[one] for one in members if one in by_name]
        if len(parts) < len(members) or len({one["measure"] for one in parts}) > 1:
            continue
        mean = average([Estimate(*(np.array(one[key]) for key in ("value", "low", "high"))) for one in parts])
        strata = [_differences(judgements[run][one], judgements[base][one]) for one in members]
        low, high = bootstrap(strata, settings.confidence, settings.resamples, settings.seed)
        ends = {key: float(getattr(mean, key)) for key in ("value", "low", "high")}
        sums = {key: sum(one[key] for one in parts) for key in ("n", "total", "gained", "lost")}
        told = {"run": run, "base": base, "average": name, "benchmarks": list(members), "measure": parts[0]["measure"]}
        found.append(told | ends | sums | {"coverage": sums["n"] / sums["total"], "bootstrap": [low, high]})
    return found


def _differences(own: Sequence[Row], other: Sequence[Row]) -> list[float]:
    counting = measure_of("judgements", primary(own))[3]
    ours, theirs = by_item(primary(own), counting), by_item(primary(other), counting)
    return [_mean(ours[name]) - _mean(theirs[name]) for name in ours if ours[name] and theirs.get(name)]


def page(result: Mapping[str, Any]) -> Page:
    """The table as a page."""
    level, power = f"{100 * result['confidence']:g} %", f"{100 * result['power']:g} %"
    rows = result["comparisons"]
    tests = " and ".join(sorted({one["test"] for one in rows if "test" in one})) or MCNEMAR
    made = Page(result["title"], result["notice"], ABOUT.format(level=level, power=power, tests=tests))
    head = ["benchmark", "difference", "p", "Holm", "gained", "lost", "pairs", "detectable"]
    for pair in dict.fromkeys((one["run"], one["base"]) for one in rows):
        lines = [_line(one) for one in rows if (one["run"], one["base"]) == pair]
        made.blocks.append(Block([f"{pair[0]} - {pair[1]}: {head[0]}", "measure", *head[1:]], lines))
    for one in result["without"]:
        names = ", ".join(one["benchmarks"])
        made.footnotes.append(f"{one['run']} - {one['base']}: no item with a verdict on both on {names}.")
    made.footnotes.append("The intervals are over items; they say nothing of how another seed would have come out.")
    if not rows:
        made.footnotes.append("No run was evaluated beside its base model.")
    return made


def _line(one: Row) -> list[str]:
    name = one.get("benchmark") or f"average: {one['average']}"
    ends = f"{_points(one['value'])} [{_points(one['low'])}, {_points(one['high'])}]"
    p_values = [_p(one.get("p")), _p(one.get("p_holm"))]
    pairs = f"{one['n']}/{one['total']} ({tables.whole_coverage(one)}%)"
    detectable = "-"
    if "detectable" in one:
        detectable = f"{tables.percent(one['detectable'])} ({tables.percent(one['detectable_unpaired'])})"
    return [name, one["measure"], ends, *p_values, str(one["gained"]), str(one["lost"]), pairs, detectable]


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def metrics(result: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    """The comparisons as DVC metrics: pair -> benchmark or average -> difference and adjusted p."""
    found: dict[str, dict[str, Row]] = {}
    for one in result["comparisons"]:
        name = one.get("benchmark") or f"average {one['average']}"
        shown = {"difference": one["value"], "p_holm": one.get("p_holm")}
        found.setdefault(f"{one['run']} - {one['base']}", {})[name] = shown
    return found
