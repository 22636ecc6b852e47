"""Deduplication and decontamination of the collected prompts, in the published six steps.

For each source in turn: `self_ngram`, `pool_ngram`, `pool_tfidf`, and what is left joins the pool (the benchmarks and
the kept rows of earlier sources). Then over all kept rows: `self_tfidf`, `self_embedding`, `test_embedding`.

Source: UCSC-VLAA/STAR-1 @ b493335, data_making/data_collection.
Differs: no dense N x N matrix is built; every dropped row says why; the survivor of `self_ngram` can be the first row.
"""

import argparse
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from star1 import ngrams, tfidf, vectors
from star1.embeddings import encode as encode_texts
from star1.errors import InputError, SettingError
from star1.matches import Drop
from star1.ngrams import Survivor
from star1.records import Row, read_json, read_rows, text_digest, write_json, write_rows, write_text

Vectors: TypeAlias = NDArray[np.float32]
Source: TypeAlias = tuple[str, int, Sequence[Row]]
# Name, n-gram length and rows of each source; name and rows of each benchmark.
Sets: TypeAlias = tuple[Sequence[Source], Sequence[tuple[str, Sequence[Row]]]]

# Embeddings of texts seen before, whatever the run: outside the outputs of any rule.
CACHE = Path(".cache/embeddings")
STEPS = ("self_ngram", "pool_ngram", "pool_tfidf", "self_tfidf", "self_embedding", "test_embedding")


@dataclass(frozen=True)
class Settings:
    """The values of the section `collect`.

    Attributes:
        tfidf_threshold: cosine of TF-IDF vectors from which two rows are alike.
        embedding_threshold: cosine of sentence embeddings from which two rows are alike.
        pool_ngram: length of the n-grams [words] compared with the pool.
        ngram_survivor: which row survives `self_ngram`, see there.
    """

    tfidf_threshold: float = 0.6
    embedding_threshold: float = 0.7
    pool_ngram: int = 8
    ngram_survivor: Survivor = "first"


# --- input -----------------------------------------------------------------------------------------------------------


def read_named(pairs: Sequence[str], required: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """Read files of rows given as `NAME=PATH`, in order.

    Raises:
        SettingError: a pair has no name, or a name comes twice.
        InputError: a file is not as it should be.
    """
    return [(name, read_rows(path, required)) for name, path in named_paths(pairs)]


def named_paths(pairs: Sequence[str]) -> list[tuple[str, str]]:
    """Names and paths given as `NAME=PATH`, in order.

    Raises:
        SettingError: a pair has no name, or a name comes twice.
    """
    named: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path) or name in named:
            raise SettingError(pair, "no name, or a name given before", "NAME=PATH with another name each")
        named[name] = path
    return list(named.items())


def read_numbers(text: str, names: Sequence[str]) -> dict[str, int]:
    """Read a JSON object that gives each of `names` a number of at least 1.

    Raises:
        SettingError: it is not such an object, or the names are others.
    """
    try:
        numbers = TypeAdapter(dict[str, Annotated[int, Field(strict=True, ge=1)]]).validate_json(text)
    except ValidationError as error:
        raise SettingError("ngrams", error.errors()[0]["msg"], 'n-gram lengths, {"name": n}') from None
    if other := sorted(set(numbers) ^ set(names)):
        raise SettingError("ngrams", f"{other[0]!r} without its counterpart", "a length for each source and no other")
    return numbers


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of everything that reads the sets and settings of `collect`."""
    parser.add_argument("--sources", nargs="+", required=True, metavar="NAME=PATH", help="in order, small sets first")
    parser.add_argument("--ngrams", required=True, help='n-gram length of each source, as JSON: {"name": n}')
    parser.add_argument("--benchmarks", nargs="*", default=[], metavar="NAME=PATH", help="test sets to keep out")
    parser.add_argument("--tfidf-threshold", type=float, required=True)
    parser.add_argument("--embedding-threshold", type=float, required=True)
    parser.add_argument("--pool-ngram", type=int, required=True, help="n-gram length against the pool [words]")
    parser.add_argument("--ngram-survivor", choices=("first", "as_published"), required=True)


def read_flags(flags: argparse.Namespace) -> tuple[Sets, Settings]:
    """What the flags say, with the rows that they name.

    Raises:
        SettingError: a flag cannot be used.
        InputError: a file is not as it should be.
    """
    benchmarks = read_named(flags.benchmarks, ("id", "question"))
    sources = read_named(flags.sources, ("question",))
    lengths = read_numbers(flags.ngrams, [name for name, _ in sources])
    settings = Settings(flags.tfidf_threshold, flags.embedding_threshold, flags.pool_ngram, flags.ngram_survivor)
    return ([(name, lengths[name], rows) for name, rows in sources], benchmarks), settings


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """The flags of what `collect` writes."""
    parser.add_argument("--counts", nargs="+", required=True, metavar="NAME=PATH", help="what fetch counted, by source")
    parser.add_argument("--output", type=Path, required=True, help="kept rows")
    parser.add_argument("--dropped", type=Path, required=True, help="the others, with reasons")
    parser.add_argument("--funnel", type=Path, required=True, help="rows after each step, and reasons")
    parser.add_argument("--plot", type=Path, required=True, help="the same rows as CSV: after, source, rows")
    parser.add_argument("--costs", type=Path, required=True, help="time and peak memory of each step")


def write(result: "Collection", flags: argparse.Namespace) -> None:
    """Write what `collect` gives, and say it in one line."""
    # Counts alone: row numbers stay with the sources.
    fetched = {
        name: {reason: count for reason, count in read_json(path).items() if isinstance(count, int)}
        for name, path in named_paths(flags.counts)
    }
    funnel = {"fetched": fetched, **result.funnel}
    lines = [
        f"{number} {step},{name},{counts[step]}"
        for number, step in enumerate(("rows", *STEPS))
        for name, counts in funnel["sources"].items()
    ]
    write_text(flags.plot, "\n".join(["after,source,rows", *lines, ""]))
    write_rows(flags.dropped, result.dropped)
    write_json(flags.funnel, funnel)
    write_json(flags.costs, result.costs)
    write_rows(flags.output, result.rows)
    steps = ", ".join(f"{step} {sum(reasons.values())}" for step, reasons in funnel["reasons"].items())
    seconds = sum(cost["cpu_seconds"] for cost in result.costs.values())
    told = (
        f"collect: {funnel['total']['rows']} rows in, {len(result.rows)} kept; dropped: {steps}; {seconds:,.0f} CPU-s"
    )
    print(told)  # noqa: T201


# --- collection -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt on its way through the steps: a row of a source or, if `id` is set, of a benchmark."""

    text: str
    name: str
    row: int
    id: str | None = None

    def label(self) -> str:
        """Where it is from, in words."""
        return f"{'source' if self.id is None else 'benchmark'} {self.name}"

    def reference(self) -> Row:
        """The prompt as a dropped row points to it: without its text."""
        kind = "source" if self.id is None else "benchmark"
        place = {kind: self.name, "id": f"{self.name}-{self.row}" if self.id is None else self.id, "row": self.row}
        return place | {"question_digest": text_digest(self.text)}


@dataclass
class Collection:
    """What `collect` gives.

    Attributes:
        rows: kept rows `{"id", "question", "source"}`.
        dropped: the others, each with its step, reason and match.
        funnel: rows of each source after each step, and how often each reason was given.
        costs: seconds, CPU-seconds and peak memory [MB] of each step.
    """

    rows: list[Row]
    dropped: list[Row] = field(default_factory=list)
    funnel: Row = field(default_factory=dict)
    costs: Row = field(default_factory=dict)


def survivors(n: int, drops: Sequence[Drop], survivor: Survivor) -> list[int]:
    """Indices of the rows that stay, in the order in which they go on.

    As published, that is the order of a Python set, which is not ascending where most rows go.
    """
    removed = {drop.index for drop in drops}
    if survivor == "as_published":
        return list(set(range(n)) - removed)
    return [index for index in range(n) if index not in removed]


class Costs:
    """What each step took. Its peak memory is that of the process since its start: it shows the step that raised it."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._since = time.perf_counter(), time.process_time()

    def note(self, step: str) -> None:
        """Charge what was spent since the last note to a step."""
        now = time.perf_counter(), time.process_time()
        cost = self.steps.setdefault(step, {"seconds": 0.0, "cpu_seconds": 0.0})
        for name, spent, before in zip(("seconds", "cpu_seconds"), now, self._since, strict=True):
            cost[name] = round(cost[name] + spent - before, 3)
        cost["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        self._since = now


class Ledger:
    """Carries out the drops of each step and keeps account of them; prompts go by their numbers."""

    def __init__(self, settings: Settings, prompts: Sequence[Prompt]) -> None:
        self.settings, self.prompts = settings, prompts
        self.dropped: list[Row] = []
        self.costs = Costs()

    def apply(self, step: str, rows: Sequence[int], others: Sequence[int], drops: Sequence[Drop]) -> list[int]:
        """Take the dropped ones out of `rows`; `others` are what they are matched with."""
        for drop in drops:
            matched = self.prompts[others[drop.matched]]
            row: Row = self.prompts[rows[drop.index]].reference()
            row |= {"step": step, "reason": self.reason(step, drop, matched), "matched": matched.reference()}
            if drop.similarity is not None:
                # Further digits differ between machines.
                row["similarity"] = round(drop.similarity, 4)
            if drop.ngram is not None:
                row["ngram"] = drop.ngram
            self.dropped.append(row)
        self.costs.note(step)
        return [rows[index] for index in survivors(len(rows), drops, self.settings.ngram_survivor)]

    def reason(self, step: str, drop: Drop, matched: Prompt) -> str:
        """Why a row goes, in words that many rows share."""
        if drop.ngram is not None:
            return f"word {len(drop.ngram.split())}-gram in common with {matched.label()}"
        lexical = step.endswith("_tfidf")
        threshold = self.settings.tfidf_threshold if lexical else self.settings.embedding_threshold
        return f"{'TF-IDF' if lexical else 'embedding'} cosine >= {threshold:g} with {matched.label()}"

    def texts(self, rows: Sequence[int]) -> list[str]:
        """The texts of prompts."""
        return [self.prompts[row].text for row in rows]


def all_prompts(sources: Sequence[Source], benchmarks: Sequence[tuple[str, Sequence[Row]]]) -> tuple[list[Prompt], int]:
    """The prompts of all benchmarks and then of all sources, and how many are of benchmarks."""
    tests = [
        Prompt(row["question"], name, row.get("row", position), row["id"])
        for name, rows in benchmarks
        for position, row in enumerate(rows)
    ]
    training = [
        Prompt(row["question"], name, row.get("row", position))
        for name, _, rows in sources
        for position, row in enumerate(rows)
    ]
    return tests + training, len(tests)


def per_source(ledger: Ledger, sources: Sequence[Source], tests: int) -> tuple[list[int], tfidf.Terms, Row]:
    """Steps one to three.

    Returns:
        The kept rows of all sources, by number; the words of all prompts; how the survivors of `self_ngram` differ.
    """
    settings, texts = ledger.settings, [prompt.text for prompt in ledger.prompts]
    words, terms = ngrams.split(texts), tfidf.Vocabulary().terms(texts)
    table = ngrams.Table(words, settings.pool_ngram)
    table.add(range(tests))
    everything, pool, start, differences = range(len(texts)), list(range(tests)), tests, {}
    ledger.costs.note("words")
    for name, n, rows in sources:
        own = range(start, start + len(rows))
        start = own.stop
        drops = ngrams.self_ngram(words, own, n, settings.ngram_survivor)
        kept = ledger.apply("self_ngram", own, own, drops)
        kept = ledger.apply("pool_ngram", kept, everything, table.match(kept))
        drops = tfidf.against(terms.take(pool), terms.take(kept), settings.tfidf_threshold)
        kept = ledger.apply("pool_tfidf", kept, pool, drops)
        table.add(kept)
        pool += kept
        differences[name] = ngrams.differences(words, own, n)
        ledger.costs.note("ngram_survivors")
    return pool[tests:], terms, differences


def collect(
    sources: Sequence[Source],
    benchmarks: Sequence[tuple[str, Sequence[Row]]],
    settings: Settings,
    encode: Callable[[Sequence[str]], Vectors] = encode_texts,
) -> Collection:
    """Run the six steps.

    Args:
        sources: name, n-gram length and rows of each source; earlier sources win over later ones.
        benchmarks: name and rows of each test set to keep out.
        settings: thresholds and rules.
        encode: gives the embeddings `[n, d]` of texts, float32, of length 1.

    Raises:
        InputError: no row is left.
    """
    prompts, tests = all_prompts(sources, benchmarks)
    ledger = Ledger(settings, prompts)
    kept, terms, differences = per_source(ledger, sources, tests)
    drops = tfidf.greedy(terms.take(kept), settings.tfidf_threshold)
    kept = ledger.apply("self_tfidf", kept, kept, drops)
    encoded = encode(ledger.texts([*kept, *range(tests)]))
    ledger.costs.note("encode")
    own, others = encoded[: len(kept)], encoded[len(kept) :]
    drops = vectors.greedy(own, settings.embedding_threshold)
    own = own[survivors(len(kept), drops, settings.ngram_survivor)]
    kept = ledger.apply("self_embedding", kept, kept, drops)
    drops = vectors.against(own, others, settings.embedding_threshold)
    kept = ledger.apply("test_embedding", kept, range(tests), drops)
    return finish(ledger, kept, sources, benchmarks, differences)


def finish(
    ledger: Ledger,
    kept: Sequence[int],
    sources: Sequence[Source],
    benchmarks: Sequence[tuple[str, Sequence[Row]]],
    differences: Row,
) -> Collection:
    """The collection of the kept rows.

    Raises:
        InputError: there is none.
    """
    if not kept:
        raise InputError("collect", "no row is left", "at least one", "look at the reasons of the dropped rows")
    prompts = [ledger.prompts[number] for number in kept]
    rows = [{"id": str(index), "question": prompt.text, "source": prompt.name} for index, prompt in enumerate(prompts)]
    sizes = {name: len(rows) for name, _, rows in sources}
    funnel = _funnel(sizes, {name: len(rows) for name, rows in benchmarks}, ledger.dropped)
    return Collection(rows, ledger.dropped, funnel | {"ngram_survivors": differences}, ledger.costs.steps)


def _funnel(sources: dict[str, int], benchmarks: dict[str, int], dropped: Sequence[Row]) -> Row:
    """Rows left after each step, for each source and in all, and how often each reason was given."""
    lost = Counter((row["source"], row["step"]) for row in dropped)
    table = {}
    for name, rows in sources.items():
        table[name] = {"rows": rows}
        for step in STEPS:
            rows -= lost[name, step]
            table[name][step] = rows
    total = {key: sum(line[key] for line in table.values()) for key in ("rows", *STEPS)}
    reasons: dict[str, Row] = {step: {} for step in STEPS}
    for (step, reason), count in sorted(Counter((row["step"], row["reason"]) for row in dropped).items()):
        reasons[step][reason] = count
    return {"sources": table, "total": total, "benchmarks": benchmarks, "reasons": reasons}
