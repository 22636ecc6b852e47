"""What the main table adds to its cells: averages as the paper takes them, seeds pooled, pass@k, and the other judges."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from star1.records import Row
from star1.stats_means import Estimate, average, bootstrap, mean_of_items, pass_at
from star1.tables import Judgements, by_item, cell, measure_of, notice, primary, table


@dataclass(frozen=True)
class Settings:
    """How tables are made.

    Attributes:
        confidence: of the intervals, in (0, 1).
        power: wanted of a test, for the smallest difference that it finds, in (0, 1).
        averages: benchmarks of each average, by its name.
        pass_at: k of pass@k, where there are as many samples.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        pairs: further comparisons, beside that of every run with its base model.
    """

    confidence: float
    power: float = 0.8
    averages: Mapping[str, Sequence[str]] | None = None
    pass_at: Sequence[int] = ()
    resamples: int = 10_000
    seed: int = 2002
    pairs: Sequence[Sequence[str]] = ()


def pool_seeds(judgements: Judgements, seeds: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[Row]]]:
    """The judgements of each run's seeds as one model, whose samples of an item are the samples of all of them.

    Args:
        judgements: by model.
        seeds: the models of a run, one a seed, by its name; one whose models were not asked is passed over.
    """
    pooled: dict[str, dict[str, list[Row]]] = {}
    for run, models in seeds.items():
        there = [model for model in models if model in judgements]
        if not there:
            continue
        names = [name for name in judgements[there[0]] if all(name in judgements[model] for model in there)]
        pooled[run] = {name: _shifted([primary(judgements[model][name]) for model in there]) for name in names}
    return pooled


def _shifted(parts: Sequence[Sequence[Row]]) -> list[Row]:
    """Rows of several models with samples numbered on, so that none has the number of another."""
    size = 1 + max((row.get("sample") or 0 for rows in parts for row in rows), default=0)
    return [
        {**row, "sample": place * size + (row.get("sample") or 0)} for place, rows in enumerate(parts) for row in rows
    ]


def averages(cells: Sequence[Row], judgements: Judgements, settings: Settings) -> list[Row]:
    """The averages of each model over benchmarks, all of which have to be there and of one measure."""
    own = {(one["model"], one["benchmark"]): one for one in cells}
    return [
        _average(model, name, [own.get((model, one)) for one in members], members, judgements, settings)
        for name, members in (settings.averages or {}).items()
        for model in dict.fromkeys(one["model"] for one in cells)
    ]


def _average(
    model: str,
    name: str,
    parts: Sequence[Row | None],
    members: Sequence[str],
    judgements: Judgements,
    settings: Settings,
) -> Row:
    there = [one for one in parts if one is not None and one["value"] is not None]
    told: Row = {"model": model, "average": name, "benchmarks": list(members), "value": None, "low": None, "high": None}
    if len(there) < len(members):
        lacking = [one for one, part in zip(members, parts, strict=True) if part is None or part["value"] is None]
        return told | {"why": f"nothing scored on {', '.join(lacking)}"}
    if len({one["measure"] for one in there}) > 1:
        return told | {"why": "benchmarks of several measures"}
    found = average([Estimate(*(np.array(one[key]) for key in ("value", "low", "high"))) for one in there])
    ends = {key: float(getattr(found, key)) for key in ("value", "low", "high")}
    strata = [item_means(judgements[model][one]) for one in members]
    low, high = bootstrap(strata, settings.confidence, settings.resamples, settings.seed)
    about = {key: there[0][key] for key in ("measure", "purpose")}
    about |= {key: sum(one[key] for one in there) for key in ("n", "total")}
    return told | ends | {"bootstrap": [low, high]} | about | {"coverage": about["n"] / about["total"]}


def item_means(rows: Sequence[Row]) -> list[float]:
    """Of every item with a verdict, the mean over its samples."""
    rows = primary(rows)
    counting = measure_of("judgements", rows)[3]
    return [sum(one) / len(one) for one in by_item(rows, counting).values() if one]


def passes(judgements: Judgements, settings: Settings) -> list[Row]:
    """pass@k of every model on every reasoning benchmark with at least k samples; items with fewer scored are left out."""
    found = []
    for model, benchmarks in judgements.items():
        for name, rows in benchmarks.items():
            rows = primary(rows)
            purpose, _, _, counting = measure_of(f"{model} on {name}", rows)
            if purpose == "reasoning":
                marks = list(by_item(rows, counting).values())
                found += [_passed(model, name, marks, k, settings) for k in settings.pass_at if _enough(marks, k)]
    return found


def _enough(marks: Sequence[Sequence[int]], k: int) -> bool:
    return max(map(len, marks), default=0) >= max(k, 2)


def _passed(model: str, benchmark: str, marks: Sequence[Sequence[int]], k: int, settings: Settings) -> Row:
    used = [one for one in marks if len(one) >= k]
    values = pass_at(np.array([sum(one) for one in used]), np.array([len(one) for one in used]), k)
    found = mean_of_items(values, settings.confidence, answers=sum(map(len, used)))
    ends = {key: float(getattr(found, key)) for key in ("value", "low", "high")}
    told = {"model": model, "benchmark": benchmark, "k": k, **ends, "n": len(used), "total": len(marks)}
    return told | {"coverage": len(used) / len(marks)}


def others(judgements: Judgements, confidence: float) -> list[Row]:
    """The cells by every judge but the primary ones, each with the judge's name."""
    found = []
    for model, benchmarks in judgements.items():
        for name, rows in benchmarks.items():
            second = [row for row in rows if not row.get("primary", True)]
            for judge in dict.fromkeys(row.get("name") or row["judge"] for row in second):
                own = [{**row, "primary": True} for row in second if (row.get("name") or row["judge"]) == judge]
                found.append({"judge": judge, **cell(model, name, own, confidence)})
    return found


def seeds(
    pooled: Judgements, groups: Mapping[str, Sequence[str]], cells: Sequence[Row], confidence: float
) -> list[Row]:
    """The cells of runs over their seeds: the mean, its interval over items, and how far the seeds lie apart."""
    found = []
    for run, benchmarks in pooled.items():
        for name, rows in benchmarks.items():
            values = [one["value"] for one in cells if one["model"] in groups[run] and one["benchmark"] == name]
            known = [value for value in values if value is not None]
            spread = {"lowest": min(known), "highest": max(known)} if known else {}
            spread |= {"standard_deviation": statistics.stdev(known)} if len(known) > 1 else {}
            found.append({**cell(run, name, rows, confidence), "seeds": len(values), "spread": spread})
    return found


def main(judgements: Judgements, groups: Mapping[str, Sequence[str]], near: Row, settings: Settings) -> Row:
    """The main table with everything around it.

    Args:
        judgements: by model.
        groups: the models of a run, one a seed, by its name.
        near: training set -> benchmark -> counts of rows near to it, as `screen` has them.
        settings: how tables are made.
    """
    result = table(judgements, settings.confidence)
    several = {run: models for run, models in groups.items() if sum(model in judgements for model in models) > 1}
    pooled = pool_seeds(judgements, several)
    of_seeds = seeds(pooled, groups, result["cells"], settings.confidence)
    result["averages"] = averages([*result["cells"], *of_seeds], {**judgements, **pooled}, settings)
    result |= {"seeds": of_seeds, "passes": passes(judgements, settings)}
    result["others"] = others(judgements, settings.confidence)
    result["notice"] = notice([*result["cells"], *result["others"]])
    names = dict.fromkeys(one["benchmark"] for one in result["cells"])
    result["contamination"] = contamination(near, [name for name in names if name in _benchmarks(judgements)])
    return result


def _benchmarks(judgements: Judgements) -> set[str]:
    return {name for benchmarks in judgements.values() for name in benchmarks}


def contamination(near: Row, benchmarks: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Of each benchmark, the training sets with rows near to it; a benchmark that was not compared is left out."""
    return {
        name: {training: row[name] for training, row in near.items() if name in row and row[name]["any"]}
        for name in benchmarks
        if any(name in row for row in near.values())
    }
