"""Judged answers as records of Every Eval Ever: one of the whole, and one of each scored answer.

Source: github.com/evaleval/every_eval_ever, the two schemas that its package holds, version 0.3.0.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import star1
from star1.exports import Answer, Answers, sha256, stamp, target
from star1.records import Row, file_digest, write_json, write_rows
from star1.tasks import prompt_of

SCHEMA = "0.3.0"
METHOD = "Wilson score interval; over items where there are several samples of each"


def every_eval_ever(found: Answers, folder: Path) -> list[Path]:
    """The record of a model on a benchmark, and beside it a line for each scored answer; nothing where none is scored.

    What has no verdict has no line there, for the format knows no such thing: the record counts it by reason.
    """
    if found.result["value"] is None:
        return []
    model = found.repository or f"star1/{found.model}"
    # A name of the form that the schema asks for, the same whenever the same judgements are exported.
    name = uuid.UUID(sha256(f"{found.model}/{found.benchmark}/{int(found.made)}")[:32], version=4)
    identifier = f"{found.benchmark}/{model.replace('/', '_')}/{int(found.made)}"
    place = Path("data") / found.benchmark / model
    samples = place / f"{name}_samples.jsonl"
    lines = [
        _instance(found, model, identifier, test, one)
        for test, answers in found.samples.items()
        for one in answers
        if found.mark(one) is not None
    ]
    write_rows(folder / samples, lines)
    record = _record(found, model, identifier)
    about = {"format": "jsonl", "file_path": samples.as_posix(), "hash_algorithm": "sha256"}
    about |= {"checksum": file_digest(folder / samples)}
    record["detailed_evaluation_results"] = about | {"total_rows": len(lines)}
    write_json(folder / place / f"{name}.json", record)
    return [folder / place / f"{name}.json", folder / samples]


def _record(found: Answers, model: str, identifier: str) -> Row:
    when = str(int(found.made))
    relation = "third_party" if found.repository else "first_party"
    source = {"source_name": "star1 pipeline", "source_type": "evaluation_run", "evaluator_relationship": relation}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": identifier,
        "evaluation_timestamp": stamp(found.made),
        "retrieved_timestamp": when,
        "source_metadata": source | {"source_organization_name": "not stated"},
        "eval_library": {"name": "star1", "version": star1.__version__},
        "model_info": _model(found, model),
        "evaluation_results": [_result(found)],
    }


def _model(found: Answers, model: str) -> Row:
    engine = str(_first(found).get("engine", "unknown"))
    own = {"deployment_type": "unknown" if engine in ("openai", "unknown") else "self_deployed"}
    own |= {"model_availability": "open_weights" if found.repository else "unknown"}
    told = {"name": found.model, "id": model, "developer": model.split("/")[0], "additional_details": own}
    return told | {"inference_engine": {"name": engine}}


def _first(found: Answers) -> Mapping[str, Any]:
    """One of the generations, for the settings that all share."""
    return next((one.generation for answers in found.samples.values() for one in answers), {})


def _result(found: Answers) -> Row:
    shown = found.result
    scored = sum(any(found.mark(one) is not None for one in answers) for answers in found.samples.values())
    ends = {"lower": shown["low"], "upper": shown["high"], "method": METHOD}
    return {
        "evaluation_name": found.benchmark,
        "source_data": _source(found),
        "metric_config": _metric(found),
        "score_details": {
            "score": shown["value"],
            "details": _details(found),
            "uncertainty": {"confidence_interval": ends, "num_samples": scored},
        },
        "generation_config": _decoding(found),
    }


def _source(found: Answers) -> Row:
    entry = found.entry
    told: Row = {"dataset_name": found.benchmark, "additional_details": {"rows": str(len(found.tests))}}
    told["additional_details"] |= {
        key: str(entry[key]) for key in ("kind", "revision", "licence", "attribution") if entry.get(key)
    }
    if entry.get("kind") == "hub":
        return told | {"source_type": "hf_dataset", "hf_repo": entry["repository"], "samples_number": len(found.tests)}
    if entry.get("kind") == "github":
        return told | {"source_type": "url", "url": [f"https://github.com/{entry['repository']}"]}
    return told | {"source_type": "other"}


def _metric(found: Answers) -> Row:
    shown = found.result
    told: Row = {"evaluation_description": shown["measure"], "lower_is_better": found.lower_is_better}
    told |= {"score_type": "continuous", "min_score": 0.0, "max_score": 1.0}
    if shown["kinds"] == ["grader"]:
        return told | {"additional_details": {"graded_by": "; ".join(shown["judges"])}}
    unknown = {"deployment_type": "unknown", "model_availability": "unknown"}
    named = [{"name": name, "id": name, "additional_details": unknown} for name in shown["judges"]]
    judges = [{"model_info": one} for one in named]
    prompt = f"star1 judge of kind {', '.join(shown['kinds'])}; {'; '.join(shown['judged'])}"
    return told | {"llm_scoring": {"judges": judges, "input_prompt": prompt}}


def _details(found: Answers) -> dict[str, str]:
    shown = found.result
    told = {"scored": str(shown["n"]), "answers": str(shown["total"]), "coverage": f"{shown['coverage']:.6f}"}
    told |= {f"verdict {name}": str(count) for name, count in shown["verdicts"].items()}
    return told | {f"unscored, {why}": str(count) for why, count in shown["unscored"].items()}


def _decoding(found: Answers) -> Row:
    sampling = dict(_first(found).get("sampling") or {})
    known = {name: sampling.pop(name) for name in ("temperature", "top_p", "max_tokens") if name in sampling}
    return {"generation_args": known, "additional_details": {name: str(value) for name, value in sampling.items()}}


def _instance(found: Answers, model: str, identifier: str, test_id: str, one: Answer) -> Row:
    test, written, mark = found.tests[test_id], one.generation, found.mark(one)
    wanted = bool(mark) is not found.lower_is_better
    tokens = (written["prompt_tokens"], written["completion_tokens"])
    raw, expected = prompt_of(test), target(test)
    value = {"extracted_value": one.text, "extraction_method": "answer after the closing think tag"}
    more = {"verdict": str(one.judgement["verdict"]), "judge": one.judgement["judge"]}
    more |= {"sample": str(one.judgement.get("sample") or 0)}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": identifier,
        "model_id": model,
        "evaluation_name": found.benchmark,
        "sample_id": test_id,
        "sample_hash": sha256(raw + expected),
        "interaction_type": "single_turn",
        "input": {"raw": raw, "reference": [expected], "choices": test.get("choices")},
        "output": {"raw": [written["response"]], "reasoning_trace": _trace(written)},
        "messages": None,
        "answer_attribution": [{"turn_idx": 0, "source": "output.raw", **value, "is_terminal": True}],
        "evaluation": {"score": float(mark or 0), "is_correct": wanted},
        "token_usage": {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)},
        "metadata": more | ({"category": str(test["category"])} if test.get("category") else {}),
    }


def _trace(written: Row) -> list[str] | None:
    return [written["thinking"]] if written.get("thinking") else None
