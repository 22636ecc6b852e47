"""The table of a protocol ladder: every step's rates, and their differences to the step before on the same items."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from star1 import tables
from star1.ladder import variant
from star1.records import Row, read_rows
from star1.tables_means import Settings
from star1.tables_pages import Block, Page
from star1.tables_pairs import difference

FIELDS = ["id", "benchmark", "purpose", "kind", "verdict", "unscored", "judge"]
ABOUT = (
    "Rate at each step, percent with {level} interval, and below it the difference to the step before on the same items, "
    "percentage points with its interval and p (McNemar, mid-p; paired t where there are several samples)."
)


def read(folder: Path, models: Sequence[str], benchmarks: Sequence[str], steps: Sequence[str]) -> dict[str, Any]:
    """The judgements of all variants: model -> benchmark -> step -> rows."""
    return {
        model: {
            name: {step: read_rows(folder / variant(model, step) / f"{name}.jsonl", FIELDS) for step in steps}
            for name in benchmarks
        }
        for model in models
    }


def table(judgements: Mapping[str, Any], settings: Settings) -> Row:
    """The ladder: every step's rate, and its difference to the step before.

    Args:
        judgements: model -> benchmark -> step -> rows.
        settings: how tables are made.
    """
    rungs = [
        _rung(model, name, step, before, by_step, settings)
        for model, benchmarks in judgements.items()
        for name, by_step in benchmarks.items()
        for step, before in zip(by_step, [None, *by_step], strict=False)
    ]
    told = {"title": "Protocol ladder", "notice": tables.notice(rungs), "confidence": settings.confidence}
    return told | {"rungs": rungs}


def _rung(
    model: str, name: str, step: str, before: str | None, by_step: Mapping[str, list[Row]], settings: Settings
) -> Row:
    own = tables.cell(model, name, by_step[step], settings.confidence)
    told: Row = {"step": step, **own, "before": before, "difference": None}
    if before is None:
        return told
    measures = [tables.measure_of(model, tables.primary(by_step[one])) for one in (before, step)]
    if measures[0] != measures[1]:
        return told | {"why": "another measure than the step before"}
    found = difference(model, model, name, by_step[step], by_step[before], settings)
    if not found["n"]:
        return told | {"why": "no item with a verdict at both steps"}
    kept = ("value", "low", "high", "p", "test", "gained", "lost", "n", "total", "coverage", "left_out")
    return told | {"difference": {key: found[key] for key in kept}}


def page(result: Mapping[str, Any]) -> Page:
    """The ladder as a page, a block a model."""
    made = Page(result["title"], result["notice"], ABOUT.format(level=f"{100 * result['confidence']:g} %"))
    rungs = result["rungs"]
    for model in dict.fromkeys(one["model"] for one in rungs):
        own = [one for one in rungs if one["model"] == model]
        names, steps = (list(dict.fromkeys(one[key] for one in own)) for key in ("benchmark", "step"))
        by_place = {(one["step"], one["benchmark"]): one for one in own}
        lines = []
        for step in steps:
            cells = [by_place[step, name] for name in names]
            judged = "; ".join(sorted({label for one in cells for label in one["judged"]}))
            lines.append([step, *(f"{tables.interval(one)}, {one['n']}/{one['total']}" for one in cells), judged])
            if any(one["before"] for one in cells):
                lines.append(["", *map(_difference, cells), ""])
        made.blocks.append(Block([model, *names, "judged by"], lines))
    return made


def _difference(one: Row) -> str:
    if (found := one["difference"]) is None:
        return str(one["why"])
    low, high = (f"{100 * found[end]:+.1f}" for end in ("low", "high"))
    p = "< 0.0001" if found["p"] < 0.0001 else f"{found['p']:.4f}"
    return f"{100 * found['value']:+.1f} [{low}, {high}], p {p}, {found['n']}/{found['total']} pairs"
