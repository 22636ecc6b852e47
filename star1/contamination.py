"""Which rows of training sets are in benchmarks, or near to a row of one: every training set against every benchmark.

Four measures, from the narrowest to the widest: `exact` (the same text but for case and white space), `ngram` (a run of
words in common), `tfidf` and `embedding` (cosine at and above the thresholds of `collect`). TF-IDF weights are fitted on
the training set and all benchmarks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from star1 import ngrams, tfidf, vectors
from star1.dedup import Settings, Vectors
from star1.matches import Pairs
from star1.records import Row, text_digest

MEASURES = ("exact", "ngram", "tfidf", "embedding")
Named = tuple[str, Sequence[Row]]


@dataclass(frozen=True)
class Report:
    """What `screen` gives.

    Attributes:
        counts: by training set and benchmark: rows, and for each measure the training rows that meet a benchmark row.
        pairs: each such pair with its measures.
    """

    counts: dict[str, dict[str, dict[str, int]]]
    pairs: list[Row]


def screen(
    training: Sequence[Named],
    benchmarks: Sequence[Named],
    settings: Settings,
    encode: Callable[[Sequence[str]], Vectors],
) -> Report:
    """Compare every training set with every benchmark.

    Args:
        training: name and rows of each training set.
        benchmarks: name and rows of each benchmark.
        settings: n-gram length and thresholds, as in `collect`.
        encode: gives the embeddings `[n, d]` of texts.
    """
    tests = [(name, row) for name, rows in benchmarks for row in rows]
    exams = [row["question"] for _, row in tests]
    encoded = encode(exams)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    pairs: list[Row] = []
    for name, rows in training:
        texts = [row["question"] for row in rows]
        found: dict[tuple[int, int], Row] = {}
        _note(found, "exact", ((row, test, True) for row, test in _equal(texts, exams)))
        _note(found, "ngram", _ngrams(texts, exams, [exam for exam, _ in tests], settings.pool_ngram))
        _note(found, "tfidf", _cosines(tfidf.pairs_against(texts, exams, settings.tfidf_threshold)))
        near = vectors.pairs_against(encode(texts), range(len(texts)), encoded, settings.embedding_threshold)
        _note(found, "embedding", _cosines(near))
        counts[name] = {exam: _count(found, tests, exam, len(rows)) for exam, _ in benchmarks}
        pairs += [_pair(name, place, rows[place], *tests[test], found[place, test]) for place, test in sorted(found)]
    return Report(counts, pairs)


def _note(found: dict[tuple[int, int], Row], measure: str, hits: Any) -> None:
    for row, test, value in hits:
        found.setdefault((row, test), {})[measure] = value


def _equal(texts: Sequence[str], exams: Sequence[str]) -> list[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for test, text in enumerate(exams):
        places.setdefault(" ".join(text.lower().split()), []).append(test)
    return [(row, test) for row, text in enumerate(texts) for test in places.get(" ".join(text.lower().split()), ())]


def _ngrams(texts: Sequence[str], exams: Sequence[str], names: Sequence[str], n: int) -> list[tuple[int, int, str]]:
    """The first n-gram that each row shares with each benchmark, and the first row there that holds it."""
    words, hits = ngrams.split([*exams, *texts]), []
    for name in dict.fromkeys(names):
        table = ngrams.Table(words, n)
        table.add([test for test, other in enumerate(names) if other == name])
        drops = table.match(range(len(exams), len(exams) + len(texts)))
        hits += [(drop.index, drop.matched, drop.ngram or "") for drop in drops]
    return hits


def _cosines(pairs: Pairs) -> list[tuple[int, int, float]]:
    columns = (pairs.left.tolist(), pairs.right.tolist(), pairs.similarity.tolist())
    return [(left, right, round(value, 4)) for left, right, value in zip(*columns, strict=True)]


def _count(found: dict[tuple[int, int], Row], tests: Sequence[tuple[str, Row]], exam: str, rows: int) -> dict[str, int]:
    """How many training rows meet the benchmark, by measure and by any, and how many of its rows are met."""
    met = {pair: measures for pair, measures in found.items() if tests[pair[1]][0] == exam}
    counts = {name: len({row for (row, _), measures in met.items() if name in measures}) for name in MEASURES}
    return {
        "rows": rows,
        **counts,
        "any": len({row for row, _ in met}),
        "benchmark_rows": len({test for _, test in met}),
    }


def _pair(training: str, place: int, row: Row, benchmark: str, test: Row, measures: Row) -> Row:
    """A pair as the report lists it: without the texts."""
    return {
        "training": training,
        "row": row.get("id", place),
        "source": row.get("source"),
        "question_digest": text_digest(row["question"]),
        "benchmark": benchmark,
        "benchmark_row": test["id"],
        "benchmark_digest": text_digest(test["question"]),
        **measures,
    }


def summary(report: Report) -> str:
    """The pairs of sets that meet, in one line."""
    met = [
        f"{training} x {benchmark} {counts['any']} of {counts['rows']} (exact {counts['exact']})"
        for training, row in report.counts.items()
        for benchmark, counts in row.items()
        if counts["any"]
    ]
    return f"screen: {len(report.pairs)} pairs; rows near a benchmark: " + ("; ".join(met) or "none")
