"""The card of a data set: what is in it, how it was made, by whom, on what terms, and what it does not say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from star1.cards import ABOUT, TAGS, Stage, banner, citation, grid, header, licence_fields, limits, percent
from star1.records import Row
from star1.releases import PARQUET, Release, Terms, origins, schema

# The hub's classes of size, by the number of rows from which each begins.
SIZES = ((0, "n<1K"), (1_000, "1K<n<10K"), (10_000, "10K<n<100K"), (100_000, "100K<n<1M"), (1_000_000, "1M<n<10M"))
STEPS = {
    "rows": "fetched",
    "self_ngram": "n-grams, within a source",
    "pool_ngram": "n-grams, earlier sources and test sets",
    "pool_tfidf": "TF-IDF, earlier sources and test sets",
    "self_tfidf": "TF-IDF, among all",
    "self_embedding": "embeddings, among all",
    "test_embedding": "embeddings, test sets",
}


@dataclass(frozen=True)
class DataFacts:
    """What a data card tells beside its rows.

    Attributes:
        terms: of each source.
        own: licence of what the pipeline added.
        stages: how the rows came to be as few.
        collected: rows after each step of the collection, or nothing.
        near: of the data set, by benchmark: rows near it by any measure; nothing where it was not screened.
        confidence: of the intervals.
        stand_in: what no language model made, in words.
        given: rows in the published layout.
    """

    terms: Mapping[str, Terms]
    own: str
    stages: Sequence[Stage]
    collected: Mapping[str, int]
    near: Mapping[str, Row]
    confidence: float
    stand_in: Sequence[str]
    given: int


def data_card(release: Release, table: pl.DataFrame, facts: DataFacts) -> str:
    """The card of a data set."""
    parts = [
        header(_data_header(release, table, facts)),
        f"# {release.title}",
        *banner(facts.stand_in),
        f"{ABOUT[release.name]} {len(table):,} rows.",
        _files(release, table, facts),
        _contents(table),
        _funnel(release, facts),
        _roles(release, table),
        _marks(release, table),
        *_nearness(facts),
        _licences(table, facts),
        _columns(release),
        limits("data"),
        citation(),
    ]
    return "\n\n".join(parts) + "\n"


def _data_header(release: Release, table: pl.DataFrame, facts: DataFacts) -> dict[str, Any]:
    used = [facts.own, *sorted(set(table["licence"]))]
    size = [word for start, word in SIZES if len(table) >= start][-1]
    return {
        **licence_fields(used),
        "pretty_name": release.title + (" (stand-in demonstration)" if facts.stand_in else ""),
        "language": ["en"],
        "annotations_creators": ["machine-generated"],
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": [*TAGS, "not-for-all-audiences", *(["stand-in"] if facts.stand_in else [])],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    }


def _files(release: Release, table: pl.DataFrame, facts: DataFacts) -> str:
    held = len(table) - facts.given
    left = f"; the {held:,} rows whose texts are withheld are not in it" if held else ""
    return (
        f"- `{PARQUET}`: all rows, flat, with where each came from; `datasets.load_dataset` and `polars.read_parquet` read it\n"
        f"- `{release.title}.json`: {facts.given:,} rows in the layout of the published STAR-1{left}\n"
        "- `croissant.json`: this description for programs (Croissant 1.1)\n"
        "- `LICENSE.md`: terms of each part; `release.json`: digest of every file"
    )


def _contents(table: pl.DataFrame) -> str:
    sources = sorted(table["source"].value_counts().rows(), key=_most_first)
    labels = sorted(table["category"].explode().value_counts().rows(), key=_most_first)
    lengths = [
        (name, *(round(table[column].quantile(share, "nearest") or 0) for share in (0.5, 0.9, 1.0)))
        for name, column in (("thinking", "thinking_words"), ("answer", "answer_words"))
    ]
    return "\n\n".join(
        [
            "## What is in it",
            grid(["source", "rows"], sources),
            grid(["category (a row may have several)", "rows"], labels),
            grid(["length [words]", "median", "90 %", "longest"], lengths),
        ]
    )


def _most_first(one: tuple[Any, ...]) -> tuple[int, str]:
    return -one[1], one[0]


def _funnel(release: Release, facts: DataFacts) -> str:
    collected = [[f"collect: {STEPS.get(name, name)}", count, "", ""] for name, count in facts.collected.items()]
    stages = [
        [
            one.name,
            one.stayed,
            percent(one.stayed, one.came, facts.confidence),
            ", ".join(f"{why} {count:,}" for why, count in one.reasons.items()),
        ]
        for one in facts.stages
    ]
    interval = f"percent of the rows before [{100 * facts.confidence:g} % interval]"
    return "## How it was made\n\n" + grid(["step", "rows after", interval, "left out because"], [*collected, *stages])


def _roles(release: Release, table: pl.DataFrame) -> str:
    if table.is_empty():
        return "## Who answered\n\nThere are no rows."
    rows, found, first = [], origins(table, release.steps), table.row(0, named=True)
    for step in release.steps:
        name = step.role
        tokens = [table[f"{name}_{kind}"] for kind in ("prompt_tokens", "reply_tokens")]
        told = ["not told" if one.null_count() else f"{one.sum():,}" for one in tokens]
        rows.append(
            [
                f"{name} ({step.stage})",
                first[f"{name}_label"],
                first[f"{name}_model"],
                ", ".join(sorted(set(table[f"{name}_served_model"]))),
                f"`{first[f'{name}_sampling']}`",
                f"`{first[f'{name}_template'].split('+')[0][:12]}`",
                " / ".join(told),
                ", ".join(f"{what} {count:,}" for what, count in found[name].items()),
            ]
        )
    pack = f"Policy pack `{table['policy_pack'][0]}`, digest `{table['policy_digest'][0]}`."
    head = ["role", "label", "model", "served", "sampling", "template", "tokens in / out", "answered by"]
    return f"## Who answered\n\n{pack} Every reply is kept by the run; its keys stand in each row.\n\n" + grid(
        head, rows
    )


def _marks(release: Release, table: pl.DataFrame) -> str:
    rubric = release.rubric
    counts = {name: dict(table[f"score_{name}"].value_counts().iter_rows()) for name in rubric.criteria}
    marks = range(rubric.maximum, rubric.minimum - 1, -1)
    seen = [mark for mark in marks if any(mark in one for one in counts.values())]
    rows = [[name, *(one.get(mark, 0) for mark in seen)] for name, one in counts.items()]
    told = f"Rows by mark; marks go from {rubric.minimum} to {rubric.maximum}."
    return f"## Marks\n\n{told}\n\n" + grid(["criterion", *map(str, seen)], rows)


def _nearness(facts: DataFacts) -> list[str]:
    rows = [
        [name, one["any"], one["exact"], one["ngram"], one["tfidf"], one["embedding"]]
        for name, one in facts.near.items()
    ]
    head = ["benchmark", "rows near it", "the same", "by n-gram", "by TF-IDF", "by embedding"]
    return ["## Near test sets\n\n" + grid(head, rows)] if rows else []


def _licences(table: pl.DataFrame, facts: DataFacts) -> str:
    counts = dict(table["source"].value_counts().iter_rows())
    rows = [
        [
            name,
            own.licence,
            own.attribution,
            counts[name],
            "given" if own.withheld is None else f"withheld: {own.withheld}",
        ]
        for name, own in facts.terms.items()
        if name in counts
    ]
    held = int(table["withheld"].is_not_null().sum())
    told = f"Labels, reasoning and marks: {facts.own}. Prompts keep the terms of their sets."
    if held:
        told += (
            f" {held:,} rows are ids only: they keep id, source, categories, marks and digests, and no text; "
            "`question_digest` finds the question in the source's own files."
        )
    return f"## Licences\n\n{told}\n\n" + grid(["source", "licence", "by", "rows", "text"], rows)


def _columns(release: Release) -> str:
    rows = [[f"`{name}`", kind, meaning] for name, (kind, meaning) in schema(release).items()]
    return "## Columns\n\n" + grid(["column", "type", "meaning"], rows)
