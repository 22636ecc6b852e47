"""Judged answers in other tools' formats, read back as these tools read them."""

import builtins
import importlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from star1 import exports
from star1.errors import InputError, SettingError
from star1.exports_every import every_eval_ever
from star1.exports_inspect import inspect_log
from star1.records import Row, file_digest, write_rows

jsonschema: Any = importlib.import_module("jsonschema")  # it has no types
VALUES: Row = {
    "summarize": {"confidence": 0.95},
    "fetch": {"benchmarks": {"math": {"kind": "hub", "repository": "a/b", "licence": "MIT"}}, "models": {}},
}
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.0, "max_tokens": 64, "seed": 46}
# Of each answer: text, finish reason, verdict.
MATH = {
    "0": [("9", "stop", "correct"), ("8", "stop", "incorrect")],
    "1/x": [("7", "stop", "correct"), (None, "length", None)],
    "2": [(None, "length", None), (None, "length", None)],
}
BENIGN = {"a": [("Sure.", "stop", "full_compliance")], "b": [("No.", "stop", "full_refusal")]}


def make(root: Path, benchmark: str, purpose: str, kind: str, answers: Any) -> None:
    tests, generations, judgements = [], [], []
    for name, samples in answers.items():
        test: Row = {
            "id": name,
            "question": f"Question {name}?",
            "benchmark": benchmark,
            "purpose": purpose,
            "category": "c",
        }
        tests.append(test | ({"answer": "9"} if kind == "grader" else {}))
        for sample, (text, reason, verdict) in enumerate(samples):
            place = {"id": name, "sample": sample}
            written = {"response": f"<think>hm</think>{text or ''}", "thinking": "hm", "answer": text}
            counts = {"prompt_tokens": 5, "completion_tokens": 7, "engine": "vllm", "sampling": SAMPLING}
            generations.append({**test, **place, **written, "finish_reason": reason, **counts})
            said = {"verdict": verdict, "unscored": None if verdict else "unfinished thinking", "judge": "rules"}
            judgements.append({**place, "benchmark": benchmark, "purpose": purpose, "kind": kind, **said})
            judgements.append(
                {
                    **place,
                    "purpose": purpose,
                    "kind": "guard",
                    "verdict": "safe",
                    "unscored": None,
                    "judge": "x",
                    "primary": False,
                }
            )
    write_rows(root / f"data/benchmarks/{benchmark}.jsonl", tests)
    write_rows(root / f"results/generations/m/{benchmark}.jsonl", generations)
    write_rows(root / f"results/judgements/m/{benchmark}.jsonl", judgements)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, exports.Answers]:
    root = tmp_path_factory.mktemp("project")
    make(root, "math", "reasoning", "grader", MATH)
    make(root, "benign", "benign", "refusal", BENIGN)
    make(root, "silent", "reasoning", "grader", {"0": [(None, "length", None)]})
    for path in (root / "results/judgements/m").glob("*.jsonl"):
        os.utime(path, (1_800_000_000, 1_800_000_000))
    return {one.benchmark: one for one in exports.collect(root, "m", VALUES)}


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lm_eval_samples(found: dict[str, exports.Answers], tmp_path: Path) -> None:
    samples, results = exports.lm_eval(found["math"], tmp_path)
    assert re.fullmatch(r"samples_math_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.jsonl", samples.name)
    rows = lines(samples)
    assert [row["doc_id"] for row in rows] == [0, 1, 2]
    assert [row.get("exact_match") for row in rows] == [0.5, 1.0, None]
    assert rows[0]["resps"] == [["<think>hm</think>9", "<think>hm</think>8"]]
    assert rows[0]["arguments"]["gen_args_0"]["arg_0"] == "Question 0?"
    assert (rows[0]["target"], rows[1]["unscored"]) == ("9", [None, "unfinished thinking"])
    expected = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
    assert expected | {"doc_hash", "prompt_hash", "target_hash"} <= set(rows[0])
    told = json.loads(results.read_text())["results"]["math"]
    assert (told["exact_match,none"], told["coverage,none"]) == (0.75, 0.5)
    benign = json.loads(exports.lm_eval(found["benign"], tmp_path)[1].read_text())
    assert benign["higher_is_better"] == {"benign": {"refused": False}}


def test_inspect_reads_its_log(found: dict[str, exports.Answers], tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    (path,) = inspect_log(found["math"], tmp_path)
    log = read_eval_log(str(path))
    assert (log.status, log.eval.task, log.eval.model, log.eval.config.epochs) == ("success", "math", "star1/m", 2)
    samples = {(one.id, one.epoch): one for one in log.samples or []}
    assert set(samples) == {(name, epoch) for name in MATH for epoch in (1, 2)}
    scores = {place: (one.scores or {})["grader"] for place, one in samples.items()}
    assert [scores["0", 1].value, scores["0", 2].value, scores["1/x", 1].value] == [1, 0, 1]
    unscored = scores["1/x", 2]
    assert math.isnan(unscored.as_float())
    assert unscored.reason == "unfinished thinking"
    assert samples["0", 1].output.completion == "9"
    assert samples["0", 1].target == "9"
    assert log.results is not None
    (score,) = log.results.scores
    assert (score.scored_samples, score.unscored_samples, score.metrics["value"].value) == (3, 3, 0.75)
    header = read_eval_log(str(path), header_only=True)
    assert header.eval.model_generate_config.temperature == 0.6


def test_inspect_is_asked_for_where_it_is_not_installed(
    found: dict[str, exports.Answers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name.split(".")[0] == "inspect_ai":
            raise ImportError(name)
        return load(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingError, match=r"no inspect_ai.*star1\[inspect\]"):
        inspect_log(found["math"], tmp_path)


TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def needs(*names: str, **known: Any) -> Row:
    """An object with these fields, and no others where `only` is given."""
    only = known.pop("only", None)
    told: Row = {"type": "object", "required": list(names), "properties": known}
    return told | ({"propertyNames": {"enum": [*names, *only]}} if only is not None else {})


DEPLOYED = {
    "deployment_type": {"enum": ["self_deployed", "externally_managed", "unknown"]},
    "model_availability": {"enum": ["open_weights", "closed_weights", "unknown"]},
}
MODEL = needs("name", "id", "additional_details", additional_details=needs(*DEPLOYED, **DEPLOYED))
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
ARGUMENTS = {"enum": ["temperature", "top_p", "top_k", "max_tokens"]}
RESULT = needs(
    "evaluation_name",
    "source_data",
    "metric_config",
    "score_details",
    source_data=needs(
        "dataset_name", "source_type", source_type={"enum": ["url", "hf_dataset", "other"]}, additional_details=TEXTS
    ),
    metric_config=needs(
        "lower_is_better",
        "score_type",
        "min_score",
        "max_score",
        lower_is_better={"type": "boolean"},
        llm_scoring=needs(
            "judges",
            "input_prompt",
            judges={"type": "array", "minItems": 1, "items": needs("model_info", model_info=MODEL)},
        ),
    ),
    score_details=needs("score", score={"type": "number"}, details=TEXTS),
    generation_config=needs("generation_args", generation_args={"propertyNames": ARGUMENTS}, additional_details=TEXTS),
)
# What the schemas of Every Eval Ever 0.3.0 ask for, of the fields that we write. The whole schemas are in its package.
RECORD = needs(
    "schema_version",
    "evaluation_id",
    "retrieved_timestamp",
    "source_metadata",
    "model_info",
    "eval_library",
    "evaluation_results",
    only=["evaluation_timestamp", "detailed_evaluation_results"],
    schema_version={"const": "0.3.0"},
    retrieved_timestamp={"type": "string", "pattern": r"^\d+$"},
    source_metadata=needs(
        "source_type",
        "source_organization_name",
        "evaluator_relationship",
        source_type={"const": "evaluation_run"},
        evaluator_relationship={"enum": ["first_party", "third_party", "collaborative", "other"]},
    ),
    eval_library=needs("name", "version"),
    model_info=MODEL,
    evaluation_results={"type": "array", "minItems": 1, "items": RESULT},
    detailed_evaluation_results=needs(
        "format",
        "file_path",
        file_path={"type": "string", "pattern": rf"^data/[^/]+/[^/]+/[^/]+/{UUID4}_samples\.jsonl$"},
    ),
)
ATTRIBUTION = needs("turn_idx", "source", "extracted_value", "extraction_method", "is_terminal")
INSTANCE = needs(
    "schema_version",
    "evaluation_id",
    "model_id",
    "evaluation_name",
    "sample_id",
    "interaction_type",
    "input",
    "answer_attribution",
    "evaluation",
    "output",
    only=["sample_hash", "messages", "token_usage", "metadata"],
    schema_version={"const": "0.3.0"},
    interaction_type={"const": "single_turn"},
    messages={"type": "null"},
    input=needs("raw", "reference", raw=TEXT, reference={"type": "array", "items": TEXT}),
    output=needs("raw", raw={"type": "array", "items": TEXT}),
    answer_attribution={"type": "array", "items": ATTRIBUTION},
    evaluation=needs("score", "is_correct", score={"type": "number"}, is_correct={"type": "boolean"}),
    metadata=TEXTS,
)


@pytest.mark.parametrize("name", ["math", "benign"])
def test_every_eval_ever_is_of_its_schemas(found: dict[str, exports.Answers], tmp_path: Path, name: str) -> None:
    record_at, samples = every_eval_ever(found[name], tmp_path)
    record, rows = json.loads(record_at.read_text()), lines(samples)
    jsonschema.validate(record, RECORD)
    for row in rows:
        jsonschema.validate(row, INSTANCE)
        assert row["evaluation_id"] == record["evaluation_id"]
    about = record["detailed_evaluation_results"]
    assert tmp_path / about["file_path"] == samples
    assert (about["checksum"], about["total_rows"]) == (file_digest(samples), len(rows))
    assert every_eval_ever(found[name], tmp_path) == [record_at, samples]


def test_every_eval_ever_counts_what_it_cannot_hold(found: dict[str, exports.Answers], tmp_path: Path) -> None:
    record_at, samples = every_eval_ever(found["math"], tmp_path)
    details = json.loads(record_at.read_text())["evaluation_results"][0]["score_details"]
    assert details["details"]["unscored, unfinished thinking"] == "3"
    assert (details["score"], len(lines(samples))) == (0.75, 3)
    assert details["uncertainty"]["num_samples"] == 2  # items that have a verdict, as the interval counts them
    assert every_eval_ever(found["silent"], tmp_path) == []


def test_refusing_a_harmless_prompt_is_not_correct(found: dict[str, exports.Answers], tmp_path: Path) -> None:
    rows = {row["sample_id"]: row["evaluation"] for row in lines(every_eval_ever(found["benign"], tmp_path)[1])}
    assert rows == {"a": {"score": 0.0, "is_correct": True}, "b": {"score": 1.0, "is_correct": False}}


def test_a_model_without_judgements_is_told(tmp_path: Path) -> None:
    make(tmp_path, "math", "reasoning", "grader", MATH)
    with pytest.raises(InputError, match="no judgements; expected one of m"):
        exports.collect(tmp_path, "n", VALUES)


def test_judgements_of_other_generations_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "math", "reasoning", "grader", MATH)
    path = tmp_path / "results/generations/m/math.jsonl"
    write_rows(path, lines(path)[1:])
    with pytest.raises(InputError, match="row 0, sample 0"):
        exports.collect(tmp_path, "m", VALUES)
