"""Every row that left the funnel, by step and reason, with examples that can be paged through."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from star1.records import Row, text_digest
from star1.report.run import Run

# Examples of one reason at most, spread evenly over all of them; rows of one data file; characters of one text.
MOST, PAGE_ROWS, LONGEST = 200, 25, 4000
# Stages with model calls, their short and long names, and the rows that got through.
CALLED = {
    "categorize": ("Categorized", "Got a category", "data/categorized.jsonl"),
    "reason": ("Reasoned", "Got reasoning and an answer", "data/cot.jsonl"),
    "score": ("Scored", "Got marks", "data/scored.jsonl"),
}
# Short and long names of the steps of the collection.
NAMES = {
    "self_ngram": ("Own set, n-grams", "Shares no words in a row with another row of its set"),
    "pool_ngram": ("Pool, n-grams", "Shares none with benchmarks or what earlier sets left"),
    "pool_tfidf": ("Pool, TF-IDF", "No near-duplicate of these by TF-IDF"),
    "self_tfidf": ("All sets, TF-IDF", "No near-duplicate by TF-IDF among all that is left"),
    "self_embedding": ("All sets, embedding", "No near-duplicate by embedding among all that is left"),
    "test_embedding": ("Benchmarks, embedding", "Not near to a benchmark's row by embedding"),
}
# Its rows are those that look-alikes are made from.
REWRITE = "benign_rewrite"
# The position within the balancing says nothing that rows could be grouped by.
POSITION = re.compile(r"balanced out at step (\d+) \((.*)\)")


@dataclass
class Group:
    """Rows that left at one step for one reason.

    Attributes:
        step: where.
        reason: why, in words.
        rows: those that left; question and matched question are looked up for the examples alone.
        sources: how many of each prompt set.
    """

    step: str
    reason: str
    rows: list[Row] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)

    @property
    def harmful(self) -> bool:
        """Whether the texts are to be blurred: all but the harmless look-alikes."""
        return self.step != "benign" or self.reason.startswith(f"{REWRITE}: ")

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        self.sources[row["source"]] = self.sources.get(row["source"], 0) + 1

    def examples(self) -> list[Row]:
        """Some of the rows, spread evenly."""
        return spread(self.rows, MOST)


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` of the rows, evenly spread, in order."""
    if len(rows) <= most:
        return list(rows)
    return [rows[place * len(rows) // most] for place in range(most)]


def groups(run: Run) -> list[Group]:
    """All groups, in the order of the steps, the largest first within a step."""
    found: dict[tuple[str, str], Group] = {}
    for step, reason, row in _left(run):
        found.setdefault((step, reason), Group(step, reason)).add(row)
    order = [*NAMES, *CALLED, "full marks", "balanced", "benign"]
    return sorted(found.values(), key=lambda one: (order.index(one.step), -len(one.rows), one.reason))


def _left(run: Run) -> Iterator[tuple[str, str, Row]]:
    """Step, reason and row of everything that left, in the order in which it did."""
    for row in run.rows("data/dropped.jsonl"):
        kept = ("source", "row", "question_digest", "matched", "ngram", "similarity")
        yield row["step"], row["reason"], {key: row[key] for key in kept if key in row}
    sources = {row["id"]: row["source"] for row in run.rows("data/collection.jsonl")}
    for stage in CALLED:
        for row in run.rows(f"data/quarantine/{stage}.jsonl"):
            yield stage, row["reason"], {"id": row["id"], "source": sources[row["id"]], "detail": row["detail"]}
    for row in run.rows("data/curate_dropped.jsonl"):
        told = {key: row[key] for key in ("id", "source", "category", "score")}
        if match := POSITION.fullmatch(row["reason"]):
            yield "balanced", f"balanced out ({match[2]})", told | {"detail": f"as number {match[1]}"}
        else:
            yield "full marks", row["reason"], told
    yield from _benign(run)


def _benign(run: Run) -> Iterator[tuple[str, str, Row]]:
    """Harmless look-alikes that are not in the benign set."""
    rewritten = {row["id"]: row["question"] for row in run.rows("data/benign/rewritten.jsonl")}
    for stage in (REWRITE, "benign_reason", "benign_score"):
        for row in run.rows(f"data/quarantine/{stage}.jsonl"):
            told = {"id": row["id"], "source": "-", "detail": row["detail"]}
            if stage != REWRITE:  # what went is the look-alike, and has the id of the row that it was made from
                told["question"] = rewritten.get(row["id"])
            yield "benign", f"{stage}: {row['reason']}", told
    kept = {row["id"] for row in run.rows("data/benign/benign.jsonl")}
    for row in run.rows("data/benign/scored.jsonl"):
        if row["id"] not in kept:
            low = min(row["score"], key=lambda name: row["score"][name])
            told = {key: row[key] for key in ("id", "source", "question", "score")}
            yield "benign", f"score {row['score'][low]} on {low}", told


def texts(run: Run, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Questions by file and digest; each file is read once, and one at a time, since some are large."""
    by_file: dict[str, set[str]] = {}
    for path, digest in wanted:
        by_file.setdefault(path, set()).add(digest)
    found = {}
    for path, digests in by_file.items():
        for row in run.rows(path, ["question"]):
            if (digest := text_digest(row["question"])) in digests:
                found[path, digest] = clipped(row["question"])
    return found


def clipped(text: str) -> str:
    """A text of at most `LONGEST` characters; says how many more there are."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"


def with_texts(run: Run, chosen: Iterable[Row]) -> None:
    """Put the question of each row into it, and that of the row it matched, in place."""
    rows = list(chosen)
    places = [(row, "question", row) for row in rows if "row" in row]
    places += [(row, "matched_question", row["matched"]) for row in rows if "matched" in row]
    known = texts(run, ((_file(at), at["question_digest"]) for _, _, at in places))
    for row, name, at in places:
        row[name] = known.get((_file(at), at["question_digest"]))
    questions = {row["id"]: row["question"] for row in run.rows("data/collection.jsonl")}
    for row in rows:
        if "row" not in row:
            row["question"] = clipped(row.get("question") or questions[row["id"]])


def _file(at: Mapping[str, Any]) -> str:
    """The file that a row lies in."""
    return f"data/benchmarks/{at['benchmark']}.jsonl" if "benchmark" in at else f"data/sources/{at['source']}.jsonl"


def pages(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows, a data file's worth each."""
    return [list(rows[start : start + PAGE_ROWS]) for start in range(0, len(rows), PAGE_ROWS)]
