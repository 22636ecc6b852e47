"""Our cells beside the paper's: the difference, and whether the published value lies in our interval.

A cell is compared only where both are about the same: the benchmark is the real one with as many rows as published, it is
judged by the same kind of judge, and our model is one that the paper has. Otherwise it says why it is not.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from star1 import tables
from star1.errors import InputError
from star1.records import Row
from star1.tables_pages import Block, Page

NOT_RUN = "not run"
# Published values are percentages with one decimal.
ROUNDED = 0.0005
FIELDS = ["table", "base", "model", "benchmark", "percent"]
ABOUT = (
    "Percent, ours with its {level} interval / as published (difference of ours; * where the published value lies outside our "
    "interval). In place of ours, why there is nothing to compare; - where we did not run it."
)


@dataclass(frozen=True)
class Paper:
    """The published figures.

    Attributes:
        rows: {table, base, model, benchmark, percent} of each.
        benchmarks: rows and judge of each benchmark.
        averages: benchmarks of each published average.
        tables: title and name of each table of ours.
        models: our name of a published `base / model`.
    """

    rows: Sequence[Row]
    benchmarks: Mapping[str, Mapping[str, Any]]
    averages: Mapping[str, Sequence[str]]
    tables: Mapping[str, Mapping[str, str]]
    models: Mapping[str, str]


def read_paper(figures: Path, about: Path) -> Paper:
    """Read the published figures and what they are about.

    Raises:
        InputError: a file, a column or a benchmark is missing, or a figure is no percentage.
    """
    if missing := [path for path in (figures, about) if not path.is_file()]:
        raise InputError(missing[0], "no such file", "the published figures")
    reader = csv.DictReader(io.StringIO(figures.read_text("utf-8")))
    if reader.fieldnames != FIELDS:
        raise InputError(figures, f"the columns {reader.fieldnames}", ", ".join(FIELDS))
    said = yaml.safe_load(about.read_text("utf-8"))
    rows = [_figure(figures, number, row) for number, row in enumerate(reader, start=2)]
    paper = Paper(rows, *(said[name] for name in ("benchmarks", "averages", "tables", "models")))
    known = {*paper.benchmarks, *paper.averages}
    if strange := [row["benchmark"] for row in rows if row["benchmark"] not in known]:
        raise InputError(figures, f"benchmark {strange[0]!r}", f"one that {about} has")
    return paper


def _figure(path: Path, number: int, row: Mapping[str, str]) -> Row:
    try:
        value = float(row["percent"])
    except ValueError:
        value = -1
    if not 0 <= value <= 100:
        raise InputError(f"{path}:{number}", f"percent {row['percent']!r}", "a number from 0 to 100")
    return {**row, "percent": value}


def unlike(shown: Row, published: Mapping[str, Any], entry: Mapping[str, Any]) -> str | None:
    """Why one of our cells is not about what the published one is about; None where it is.

    Args:
        shown: our cell.
        published: rows and judge of the published benchmark.
        entry: of the benchmark in fetch.benchmarks.
    """
    if entry.get("kind") == "bundled":
        return "not comparable: bundled rows, not the benchmark"
    if not published.get("public", True) and entry.get("kind") != "mirror":
        return "not comparable: other rows, since the published ones are not public"
    if shown["items"] != published["rows"]:
        return f"not comparable: {shown['items']:,} rows, published {published['rows']:,}"
    # The published grading of mathematics asked a model; ours does so where it is told to.
    kinds = {"grader" if kind == "equality" else kind for kind in shown["kinds"]}
    if kinds != {published["judged"]}:  # the very kind: another judge of safety is another measure
        return f"not comparable: judged by {', '.join(shown['kinds'])}, published by a {published['judged']}"
    if any(tables.STAND_IN in label for label in shown["judges"]):
        return "not comparable: judged by a stand-in"
    return None if shown["value"] is not None else "nothing scored"


def compare(name: str, result: Row, paper: Paper, entries: Mapping[str, Mapping[str, Any]]) -> Row:
    """A table of ours beside the published one.

    Args:
        name: of the table.
        result: the main table, with its averages.
        paper: the published figures.
        entries: fetch.benchmarks.
    """
    ours = {(one["model"], one["benchmark"]): one for one in [*result["cells"], *result["seeds"]]}
    means = {(one["model"], tuple(sorted(one["benchmarks"]))): one for one in result["averages"]}
    about, found = paper.tables[name], []
    for row in paper.rows:
        if row["table"] == about["table"]:
            model = paper.models.get(f"{row['base']} / {row['model']}")
            found.append(_beside(row, model, ours, means, paper, entries))
    told = {"title": about["title"], "notice": result["notice"], "confidence": result["confidence"]}
    return {**told, "comparisons": found}


def _beside(
    row: Row,
    model: str | None,
    ours: Mapping[tuple[str, str], Row],
    means: Mapping[tuple[str, tuple[str, ...]], Row],
    paper: Paper,
    entries: Mapping[str, Mapping[str, Any]],
) -> Row:
    members = paper.averages.get(row["benchmark"], [row["benchmark"]])
    parts = [ours.get((model or "", name)) for name in members]
    there = [(name, one) for name, one in zip(members, parts, strict=True) if one is not None]
    told = {"base": row["base"], "model": row["model"], "benchmark": row["benchmark"], "ours": model}
    told |= {"published": row["percent"] / 100}
    if len(there) < len(members):
        return told | {"why": NOT_RUN}
    reasons = [unlike(one, paper.benchmarks[name], entries.get(name, {})) for name, one in there]
    if why := next(filter(None, reasons), None):
        return told | {"why": why}
    is_mean = row["benchmark"] in paper.averages
    shown = means.get((model or "", tuple(sorted(members)))) if is_mean else there[0][1]
    if shown is None or shown["value"] is None:
        return told | {"why": NOT_RUN if shown is None else shown["why"]}
    return told | _against(shown, row["percent"] / 100)


def _against(shown: Row, published: float) -> Row:
    inside = shown["low"] - ROUNDED <= published <= shown["high"] + ROUNDED
    told = {key: shown[key] for key in ("value", "low", "high", "n", "total", "coverage")}
    return told | {"difference": shown["value"] - published, "inside": inside}


def over_refusal(result: Row) -> Row:
    """Our cells on benign prompts; the published figures of this table are not among those that this project holds."""
    chosen = [one for one in [*result["cells"], *result["seeds"]] if one["purpose"] == "benign"]
    told = {"title": "Over-refusal", "notice": result["notice"], "confidence": result["confidence"]}
    keys = ("model", "benchmark", "measure", "value", "low", "high", "n", "total", "coverage", "verdicts", "judged")
    return told | {"comparisons": [{key: one[key] for key in keys} | {"published": None} for one in chosen]}


def over_refusal_page(result: Mapping[str, Any]) -> Page:
    """The table of over-refusal as a page."""
    about = f"Percent with {100 * result['confidence']:g} % interval. The published figures are not held here, and stand as -."
    made = Page(result["title"], result["notice"], about)
    head = ["model", "benchmark", "measure", "ours", "published", "scored", "verdicts"]
    lines = [
        [
            one["model"],
            one["benchmark"],
            one["measure"],
            tables.interval(one),
            "-",
            _scored(one),
            _counts(one["verdicts"]),
        ]
        for one in result["comparisons"]
    ]
    judged = sorted({label for one in result["comparisons"] for label in one["judged"]})
    if lines:
        made.blocks.append(Block(head, lines, f"Judged by {'; '.join(judged)}."))
    else:
        made.footnotes.append("No benchmark of benign prompts was run.")
    return made


def _scored(one: Row) -> str:
    return f"{one['n']}/{one['total']} ({tables.whole_coverage(one)}%)"


def _counts(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in verdicts.items())


def page(result: Mapping[str, Any]) -> Page:
    """A table beside the published one, as a page."""
    made = Page(result["title"], result["notice"], ABOUT.format(level=f"{100 * result['confidence']:g} %"))
    rows = result["comparisons"]
    names = list(dict.fromkeys(one["benchmark"] for one in rows))
    cells = {(one["base"], one["model"], one["benchmark"]): one for one in rows}
    reasons: list[str] = []
    lines = []
    for base, model in dict.fromkeys((one["base"], one["model"]) for one in rows):
        line = [cells.get((base, model, name)) for name in names]
        lines.append([f"{base} {model}", *("-" if one is None else _cell(one, reasons) for one in line)])
    made.blocks.append(Block(["published row", *names], lines))
    made.footnotes += [f"[{number}] {why}." for number, why in enumerate(reasons, start=1)]
    compared = [one for one in rows if "value" in one]
    inside = sum(one["inside"] for one in compared)
    told = f"{len(compared)} of {len(rows)} published figures are compared; {inside} of these lie in our interval."
    made.footnotes.append(
        told if compared else f"None of the {len(rows)} published figures is compared with one of ours."
    )
    return made


def _cell(one: Row, reasons: list[str]) -> str:
    """A cell's text; `reasons` collects why others are not compared, as footnotes."""
    published = tables.percent(one["published"])
    if "value" in one:
        mark = "" if one["inside"] else "*"
        return f"{tables.interval(one)}, {one['n']}/{one['total']} / {published} ({100 * one['difference']:+.1f}{mark})"
    if one["why"] == NOT_RUN:
        return f"- / {published}"
    if one["why"] not in reasons:
        reasons.append(one["why"])
    return f"[{reasons.index(one['why']) + 1}] / {published}"
