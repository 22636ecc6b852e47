"""Results: the tables of the run as they are, and charts of them. No figure is made here but the thinning of loss curves."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from star1.params import as_list
from star1.records import Row
from star1.report import charts
from star1.report.run import Run
from star1.tables import MEASURES, POOLED

PUBLISHED = ("published", "quality", "think")
PURPOSES = {"harmful": "Harmful prompts", "benign": "Benign prompts", "reasoning": "Reasoning"}
# The one measure of which less is better.
LOWER = MEASURES["benign"]["refusal"][0]
# Points of one loss curve that are drawn.
MOST_POINTS = 400


def data(run: Run) -> dict[str, object]:
    """Data files of the section."""
    main = run.json("results/tables/main.json")
    agreement = run.json("results/tables/agreement.json")
    ladder = "results/tables/ladder.json"
    told = {
        "main": main,
        "charts": list(_rates(main)),
        "frontier": list(_frontier(main)),
        "paired": run.json("results/tables/paired.json"),
        "published": [run.json(f"results/tables/{name}.json") for name in PUBLISHED],
        "stability": run.json("results/tables/stability.json"),
        "ladder": _ladder(run.json(ladder)) if ladder in run.artifacts else None,
        "losses": _losses(run, list(dict.fromkeys(one["model"] for one in main["cells"]))),
        "ends": list(ends(run.params)),
        "judges": agreement["judges"],
        "lower_is_better": [LOWER],
    }
    return {"results": told, "results/agreement": agreement}


def ends(params: Any) -> Iterator[Row]:
    """Judges whose model has an announced end: after it their columns cannot be made again."""
    judge = params["judge"]
    for name in dict.fromkeys(name for names in judge["use"].values() for name in names):
        for one in as_list(judge["judges"][name]["endpoint"]):
            endpoint = params["llm"]["endpoints"][one]
            if endpoint.get("retires"):
                used = [purpose for purpose, names in judge["use"].items() if name in names]
                yield {
                    "judge": name,
                    "label": endpoint["label"],
                    "model": endpoint["model"],
                    "retires": str(endpoint["retires"]),
                    "purposes": used,
                }


def _rates(main: Row) -> Iterator[Row]:
    """Charts of the rates, one a measure."""
    cells = [one for one in main["cells"] if one["value"] is not None and one["benchmark"] != POOLED]
    for measure in dict.fromkeys(one["measure"] for one in cells):
        rows = [_point(one) for one in cells if one["measure"] == measure]
        by = {key: list(dict.fromkeys(row[key] for row in rows)) for key in ("benchmark", "model")}
        series, y = (
            ("model", "benchmark")
            if len(by["model"]) <= max(charts.COLOURS, len(by["benchmark"]))
            else ("benchmark", "model")
        )
        said = f"{measure}, {len(by['model'])} models on {', '.join(by['benchmark'])}; the table below has the figures."
        names = list(dict.fromkeys(one[series] for one in main["cells"] if one["benchmark"] != POOLED))
        names = names if series == "model" else by[series]
        title = f"{measure}, benchmark by benchmark"
        yield charts.dots(rows, y=y, order=by[y], series=series, names=names, title=title, said=said) | {
            "measure": measure
        }


def _point(one: Row) -> Row:
    kept = {key: one[key] for key in ("model", "benchmark", "measure", "value", "low", "high")}
    return kept | {"scored": f"{one['n']:,} of {one['total']:,}"}


def best(main: Row, purpose: str) -> dict[str, Row]:
    """What stands for a purpose, model by model: one average for all of them, or else all its benchmarks together.

    Never the two beside each other: on one axis they would be compared.
    """
    found: dict[str, Row] = {}
    own = [one for one in main["cells"] if one["purpose"] == purpose]
    for one in own:
        if one["benchmark"] == POOLED or sum(other["model"] == one["model"] for other in own) == 1:
            found[one["model"]] = one | {"of": f"{one['measure']}, {_where(one, own)}"}
    models = {one["model"] for one in own}  # not what stands for several seeds
    for name in dict.fromkeys(one["average"] for one in main["averages"]):
        means = [one for one in main["averages"] if one["average"] == name and one.get("purpose") == purpose]
        means = [one for one in means if one["value"] is not None and one["model"] in models]
        if means:
            return {one["model"]: one | {"of": f"{one['measure']}, average {name}"} for one in means}
    return {model: one for model, one in found.items() if one["value"] is not None}


def _where(one: Row, own: Sequence[Row]) -> str:
    return "all benchmarks together" if one["benchmark"] == POOLED else one["benchmark"]


def _frontier(main: Row) -> Iterator[Row]:
    """Safety against over-refusal, and against reasoning."""
    safety = best(main, "harmful")
    for purpose, title, better in (
        ("benign", "Safety against over-refusal", "Better is up and to the left."),
        ("reasoning", "Safety against reasoning", "Better is up and to the right."),
    ):
        other = best(main, purpose)
        both = [model for model in safety if model in other]
        if not both:
            continue
        rows = [{"model": model, **_axis("x", other[model]), **_axis("y", safety[model])} for model in both]
        titles = (other[both[0]]["of"], safety[both[0]]["of"])
        names = list(dict.fromkeys(one["model"] for one in main["cells"]))
        left_out = [model for model in names if model not in both]
        note = better + (f" Without a figure for both: {', '.join(left_out)}." if left_out else "")
        said = f"{titles[1]} against {titles[0]}. " + "; ".join(
            f"{row['model']}: {100 * row['y']:.1f} % and {100 * row['x']:.1f} %" for row in rows
        )
        yield charts.frontier(rows, names, titles, said, title, note) | {"rows": rows, "titles": titles}


def _axis(name: str, one: Row) -> Row:
    scored = {f"{name}_n": one["n"], f"{name}_total": one["total"]}
    return {name: one["value"], f"{name}_low": one["low"], f"{name}_high": one["high"], **scored}


def _ladder(ladder: Row) -> Row:
    rungs = ladder["rungs"]
    made = []
    for model in dict.fromkeys(one["model"] for one in rungs):
        own = [one for one in rungs if one["model"] == model and one["value"] is not None]
        rows = [{"step": one["step"], **_point(one)} for one in own]
        steps, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("step", "benchmark"))
        said = f"Rates of {model} on {', '.join(names)} at the steps {', '.join(steps)}."
        made.append(charts.ladder(rows, steps, names, model, said))
    return {**ladder, "charts": made}


def _losses(run: Run, models: Sequence[str]) -> Row | None:
    """Loss curves of all runs, in the colours that the models have elsewhere."""
    curves = {
        Path(name).stem.removeprefix("finetune-"): [(int(one["update"]), float(one["loss"])) for one in run.csv(name)]
        for name in run.names("results/plots/finetune-*.csv")
    }
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return None
    rows = [
        {"run": name, "update": update, "loss": loss} for name, curve in curves.items() for update, loss in thin(curve)
    ]
    ended: list[Row] = [
        {"run": name, "updates": len(curve), "first": curve[0][1], "last": curve[-1][1]}
        for name, curve in curves.items()
    ]
    said = "; ".join(
        f"{one['run']}: from {one['first']:.2f} to {one['last']:.2f} in {one['updates']:,} updates" for one in ended
    )
    thinned = any(len(curve) > MOST_POINTS for curve in curves.values())
    note = f"At most {MOST_POINTS} points of a curve are drawn." if thinned else None
    return charts.losses(rows, list(dict.fromkeys([*models, *curves])), said, note) | {"rows": ended}


def thin(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `MOST_POINTS` points of a curve, evenly spread, the last one among them."""
    if len(curve) <= MOST_POINTS:
        return list(curve)
    last = MOST_POINTS - 1
    return [curve[place * (len(curve) - 1) // last] for place in range(MOST_POINTS)]
