"""All tables of a run: judgements read, tables made and written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from star1 import runs, tables_main, tables_pairs, tables_published
from star1.records import Row, read_json, read_rows, write_json, write_text
from star1.tables import metrics
from star1.tables_means import Settings, main, pool_seeds
from star1.tables_pages import Page
from star1.tables_published import read_paper

__all__ = ["Facts", "read", "read_paper", "settings_from", "write"]

FIELDS = ["id", "benchmark", "purpose", "kind", "verdict", "unscored", "judge"]


@dataclass(frozen=True)
class Facts:
    """What tables are made of.

    Attributes:
        judgements: model -> benchmark -> rows.
        benchmarks: entries of fetch.benchmarks.
        bases: base model of each run.
        seeds: models of each run that was trained with several seeds.
        near: training set -> benchmark -> counts of rows near to it.
        settings: how tables are made.
    """

    judgements: Mapping[str, Mapping[str, list[Row]]]
    benchmarks: Mapping[str, Mapping[str, Any]]
    bases: Mapping[str, str]
    seeds: Mapping[str, list[str]]
    near: Row
    settings: Settings


def settings_from(text: str) -> Settings:
    """The settings of tables, as they stand in params.yaml, from JSON."""
    values = orjson.loads(text)
    return Settings(**{**values.pop("bootstrap"), **values})


def read(folder: Path, given: Mapping[str, Any], contamination: Path, settings: Settings) -> Facts:
    """Read the judgements of all models on all benchmarks.

    Args:
        folder: of {model}/{benchmark}.jsonl.
        given: models, benchmarks, entries (of fetch.benchmarks) and runs (finetune.runs).
        contamination: what `screen` counted.
        settings: how tables are made.
    """
    table = given["runs"]
    bases = {one: run["base"] for name, run in table.items() for one in (name, *runs.models_of(name, run))}
    seeds = runs.seeds_of(table, given["models"])
    judgements = {
        model: {name: read_rows(folder / model / f"{name}.jsonl", FIELDS) for name in given["benchmarks"]}
        for model in given["models"]
    }
    return Facts(judgements, given["entries"], bases, seeds, read_json(contamination), settings)


def write(facts: Facts, paper: tables_published.Paper, folder: Path, metrics_folder: Path) -> str:
    """Make and write all tables; gives a line about them."""
    result = main(facts.judgements, facts.seeds, facts.near, facts.settings)
    write_json(folder / "main.json", result)
    write_text(folder / "main.md", tables_main.markdown(result))
    write_text(folder / "main.tex", tables_main.latex(result))
    write_json(metrics_folder / "main.json", metrics(result))
    for name in paper.tables:
        compared = tables_published.compare(name, result, paper, facts.benchmarks)
        _write(folder / name, compared, tables_published.page(compared))
    refusals = tables_published.over_refusal(result)
    _write(folder / "over-refusal", refusals, tables_published.over_refusal_page(refusals))
    pooled = pool_seeds(facts.judgements, facts.seeds)
    paired = tables_pairs.compare({**facts.judgements, **pooled}, facts.bases, facts.seeds, facts.settings)
    _write(folder / "paired", paired, tables_pairs.page(paired))
    write_json(metrics_folder / "paired.json", tables_pairs.metrics(paired))
    return tables_main.summary(result, paired["comparisons"])


def _write(path: Path, value: Row, page: Page) -> None:
    write_json(path.with_name(f"{path.name}.json"), value)
    write_text(path.with_name(f"{path.name}.md"), page.markdown())
    write_text(path.with_name(f"{path.name}.tex"), page.latex())
