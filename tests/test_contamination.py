"""Training sets against benchmarks: each measure on planted rows, and against the measures written out."""

import json
from collections.abc import Sequence

import numpy as np

from star1.contamination import MEASURES, screen, summary
from star1.dedup import Settings, Vectors
from star1.records import Row

EXAM = [
    {"id": "e1", "question": "Please tell me which river runs through the old town of Basel"},
    {"id": "e2", "question": "How tall is a giraffe"},
]
OTHER = [{"id": "o1", "question": "a recipe for plum cake"}]
TRAINING = [
    {"id": "7", "source": "one", "question": "  how TALL is\ta giraffe "},
    {"id": "8", "source": "one", "question": "now then, tell me which river runs through the old town, quickly"},
    {"id": "9", "source": "two", "question": "giraffe: how tall"},
    {"id": "10", "source": "two", "question": "something else entirely"},
]


def unlike(texts: Sequence[str]) -> Vectors:
    """Vectors that are alike for nothing but giraffes."""
    places = [0 if "giraffe" in text.lower() else 1 + place for place, text in enumerate(texts)]
    signs = np.random.default_rng(len(texts)).choice([-1, 1], (len(texts), 1))
    return (np.eye(64, dtype=np.float32)[places] * np.where(np.array(places)[:, None] == 0, 1, signs)).astype(
        np.float32
    )


def test_each_measure_finds_what_it_is_for() -> None:
    report = screen([("set", TRAINING)], [("exam", EXAM), ("other", OTHER)], Settings(tfidf_threshold=0.7), unlike)
    found = {(pair["row"], pair["benchmark_row"]): {m: pair[m] for m in MEASURES if m in pair} for pair in report.pairs}
    giraffe = found["7", "e2"]
    assert giraffe["exact"] is True
    assert (giraffe["tfidf"], giraffe["embedding"]) == (1.0, 1.0)
    assert "ngram" not in giraffe  # the benchmark row has fewer than eight words
    assert found["8", "e1"]["ngram"] == "tell me which river runs through the old"
    assert set(found["9", "e2"]) == {"tfidf", "embedding"}
    assert {row for row, _ in found} >= {"7", "8", "9"}


def test_counts_are_those_of_the_pairs() -> None:
    report = screen(
        [("set", TRAINING), ("again", TRAINING[:1])], [("exam", EXAM), ("other", OTHER)], Settings(), unlike
    )
    for training, benchmarks in report.counts.items():
        for benchmark, counts in benchmarks.items():
            pairs = [pair for pair in report.pairs if (pair["training"], pair["benchmark"]) == (training, benchmark)]
            assert counts["any"] == len({pair["row"] for pair in pairs})
            assert counts["benchmark_rows"] == len({pair["benchmark_row"] for pair in pairs})
            for measure in MEASURES:
                assert counts[measure] == len({pair["row"] for pair in pairs if measure in pair})
    assert report.counts["again"]["exam"]["rows"] == 1
    assert report.counts["set"]["exam"]["exact"] == 1
    assert report.counts["set"]["other"]["exact"] == 0
    assert "set x exam" in summary(report)


def test_a_report_quotes_no_question() -> None:
    report = screen([("set", TRAINING)], [("exam", EXAM)], Settings(), unlike)
    told = json.dumps([{key: value for key, value in pair.items() if key != "ngram"} for pair in report.pairs])
    assert "giraffe" not in told.lower()
    assert report.pairs


def test_sets_that_have_nothing() -> None:
    empty: list[Row] = []
    report = screen([("set", empty)], [("exam", EXAM)], Settings(), lambda texts: np.zeros((len(texts), 4), np.float32))
    assert report.pairs == []
    assert summary(report).endswith("none")
