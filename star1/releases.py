"""Data sets as they leave the house: flat rows that say where each comes from, and the published layout."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from star1 import licences
from star1.errors import InputError
from star1.parsing import ReplyError, parse_thinking
from star1.policies import Pack, Rubric
from star1.provenance import STAND_IN, Step
from star1.records import Row, atomic, text_digest
from star1.replies import Reply
from star1.sources import Source

PARQUET = "data/train-00000-of-00001.parquet"
# What a released row of the authors has, in their order.
PUBLISHED = ("id", "question", "response", "category", "source", "score")
# Texts that a licence may forbid to give on: what others wrote, and what was written from it.
WITHHELD = ("question", "original_question", "response")
TEXT, LIST, NUMBER, CLAIM = pl.String(), pl.List(pl.String()), pl.Int64(), pl.Boolean()
# Every column but the marks and those of the roles, with its type and meaning.
COLUMNS: Mapping[str, tuple[pl.DataType, str]] = {
    "id": (TEXT, "names the row; the same in all data sets of one run"),
    "question": (TEXT, "the prompt; null where its text is withheld"),
    "original_question": (TEXT, "the harmful prompt that the question was rewritten from; null where withheld"),
    "response": (TEXT, "`<think>`thinking`</think>` and the answer; null where the question is withheld"),
    "category": (LIST, "categories of the policy pack; of a benign row, those of the prompt it was rewritten from"),
    "source": (TEXT, "prompt set that the prompt comes from"),
    "licence": (TEXT, "licence of the prompt set"),
    "attribution": (TEXT, "who made the prompt set"),
    "source_location": (TEXT, "where the prompt set was fetched from"),
    "source_revision": (TEXT, "commit, branch or tag of the prompt set, where it has one"),
    "withheld": (TEXT, "why texts of the row are not given; null where they are"),
    "question_digest": (TEXT, "first 16 digits of the SHA-256 of the question"),
    "original_digest": (TEXT, "the same of the original question"),
    "response_digest": (TEXT, "the same of the response"),
    "thinking_words": (NUMBER, "length of the thinking [words]"),
    "answer_words": (NUMBER, "length of the answer [words]"),
    "policy_pack": (TEXT, "name of the policy pack"),
    "policy_digest": (TEXT, "digest of the policy pack's files"),
    "selected": (CLAIM, "whether the row is in the final data set"),
    "selection": (TEXT, "why it is, or is not"),
}
# Columns of each role: classifier, teacher, scorer (the judge of the reasoning), rewriter.
ROLE_COLUMNS: Mapping[str, tuple[pl.DataType, str]] = {
    "label": (TEXT, "who answered, as named in params.yaml"),
    "model": (TEXT, "model that was asked for"),
    "served_model": (TEXT, "model that the server says it ran"),
    "sampling": (TEXT, "decoding settings that were sent, JSON"),
    "template": (TEXT, "SHA-256 of the prompt template, and after + of the one that asked again"),
    "prompt_tokens": (NUMBER, "tokens read, all turns together; null where the server did not tell"),
    "reply_tokens": (NUMBER, "tokens written, the same way"),
    "origin": (TEXT, "model, stand-in (rules, no language model), or released row (replayed)"),
    "replies": (LIST, "keys of the replies in the run's store, turn by turn"),
}


@dataclass(frozen=True)
class Terms:
    """Where the rows of one source come from and what may be done with them; `withheld` says why texts are not given."""

    licence: str
    attribution: str
    location: str
    revision: str | None
    withheld: str | None


@dataclass(frozen=True)
class Release:
    """One data set to be released.

    Attributes:
        name: such as star-1; names its folder.
        title: such as STAR-1; names the file in the published layout.
        rows: finished rows.
        selection: why each row is (or is not) in the final data set, by id; the rows that are.
        steps: the stages that asked models for its fields.
        rubric: criteria of its marks.
        trace: columns about those stages, by id.
    """

    name: str
    title: str
    rows: Sequence[Row]
    selection: Mapping[str, str]
    selected: frozenset[str]
    steps: Sequence[Step]
    rubric: Rubric
    trace: Mapping[str, Row]


def terms(sources: Mapping[str, Source], redistribute: Mapping[str, bool]) -> dict[str, Terms]:
    """The terms of each source, from its table entry and what params.yaml says about giving it on."""
    return {
        name: Terms(
            entry.licence,
            entry.attribution,
            f"{entry.kind}: {entry.repository or ' '.join(entry.paths)}",
            entry.revision,
            licences.withheld(entry.licence, redistribute.get(name)),
        )
        for name, entry in sources.items()
    }


def schema(release: Release) -> dict[str, tuple[pl.DataType, str]]:
    """Columns of the flat table in order, with type and meaning."""
    benign = any(step.role == "rewriter" for step in release.steps)
    columns = dict(COLUMNS) if benign else {name: one for name, one in COLUMNS.items() if "original" not in name}
    after_source = list(columns).index("source") + 1
    marks = {f"score_{name}": (NUMBER, " ".join(text.split())) for name, text in release.rubric.criteria.items()}
    roles = {
        f"{step.role}_{name}": (kind, f"{step.role}: {meaning}")
        for step in release.steps
        for name, (kind, meaning) in ROLE_COLUMNS.items()
    }
    before, after = list(columns.items())[:after_source], list(columns.items())[after_source:]
    return {**dict(before), **marks, **dict(after), **roles}


def flat(release: Release, by_source: Mapping[str, Terms], pack: Pack, digest: str) -> pl.DataFrame:
    """The flat table.

    Args:
        release: the data set.
        by_source: terms of each source.
        pack: the policy pack.
        digest: of the pack.

    Raises:
        InputError: a row of a source that params.yaml does not have, or whose marks are not those of the rubric.
    """
    rows = []
    for row in release.rows:
        if (own := by_source.get(row["source"])) is None:
            raise InputError(f"row {row['id']}", f"source {row['source']!r}", "a source of fetch.sources")
        if set(row["score"]) != set(release.rubric.criteria):
            raise InputError(f"row {row['id']}", f"marks on {sorted(row['score'])}", "marks on the rubric's criteria")
        values = {**_texts(row), **_facts(row, own), "policy_pack": pack.name, "policy_digest": digest}
        values |= {"selected": row["id"] in release.selected, "selection": release.selection[row["id"]]}
        if own.withheld is not None:
            values |= dict.fromkeys(WITHHELD)
        rows.append({**values, **release.trace[row["id"]]})
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in schema(release).items()}, strict=True)


def _texts(row: Row) -> Row:
    try:
        thought = parse_thinking(Reply(row["response"], finish_reason="stop")).value
    except ReplyError as error:
        raise InputError(f"row {row['id']}", error.detail, "<think>…</think> and an answer") from None
    original = row.get("original")
    return {
        "question": row["question"],
        "original_question": original,
        "response": row["response"],
        "question_digest": text_digest(row["question"]),
        "original_digest": None if original is None else text_digest(original),
        "response_digest": text_digest(row["response"]),
        "thinking_words": len(thought.thinking.split()),
        "answer_words": len(thought.answer.split()),
    }


def _facts(row: Row, own: Terms) -> Row:
    return {
        "id": row["id"],
        "category": row["category"],
        "source": row["source"],
        **{f"score_{name}": mark for name, mark in row["score"].items()},
        "licence": own.licence,
        "attribution": own.attribution,
        "source_location": own.location,
        "source_revision": own.revision,
        "withheld": own.withheld,
    }


def published_text(rows: Sequence[Row]) -> str:
    """Rows in the layout of the authors' files, byte for byte: a JSON list, four blanks deep, beyond ASCII escaped."""
    return json.dumps([{name: row[name] for name in PUBLISHED} for row in rows], indent=4)


def stand_in(table: pl.DataFrame, steps: Sequence[Step]) -> list[str]:
    """What of a data set no language model made, in words; nothing when one made all of it."""
    roles: dict[int, list[str]] = {}
    for step in steps:
        count = int(table[f"{step.role}_origin"].str.contains(STAND_IN, literal=True).sum())
        roles.setdefault(count, []).append(step.role)
    return [
        f"the stand-in was {' and '.join(names)} of {count:,} of {len(table):,} rows"
        for count, names in roles.items()
        if count
    ]


def origins(table: pl.DataFrame, steps: Sequence[Step]) -> dict[str, dict[str, int]]:
    """How many rows each kind of answerer gave a field to, by role."""
    return {step.role: dict(sorted(Counter(table[f"{step.role}_origin"].to_list()).items())) for step in steps}


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write the flat table, atomically."""
    with atomic(path) as file:
        table.write_parquet(file, compression="zstd")


def write_published(path: Path, rows: Sequence[Row], by_source: Mapping[str, Terms]) -> int:
    """Write the rows whose texts may be given on in the published layout; gives their number."""
    given = [row for row in rows if by_source[row["source"]].withheld is None]
    with atomic(path) as file:
        file.write(published_text(given).encode())
    return len(given)
