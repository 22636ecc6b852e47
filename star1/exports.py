"""Judged answers in other tools' formats: what all of them are made from, and the samples of lm-evaluation-harness."""

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from star1 import params as parameters
from star1.errors import InputError
from star1.judged import see_judged
from star1.records import Row, read_rows, write_json, write_rows
from star1.tables import cell, check, measure_of, primary
from star1.tasks import prompt_of

GENERATED = ("id", "question", "response", "answer", "finish_reason", "sampling", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Answer:
    """One sample: what the model wrote, and what the primary judge says of it."""

    generation: Row
    judgement: Row

    @property
    def text(self) -> str:
        """The answer without its thinking; empty where there is none."""
        return self.generation["answer"] or ""


@dataclass(frozen=True)
class Answers:
    """A model's judged answers to a benchmark.

    Attributes:
        model: its name in results.
        benchmark: the benchmark's name.
        entry: of the benchmark in fetch.benchmarks; without one, empty.
        tests: the benchmark's rows by id, in their order.
        samples: the answers to each row, by its id.
        result: the cell of the main table.
        counting: the verdicts that count for the measure.
        made: when the judgements were written, in seconds since 1970.
        repository: of a base model on the hub; None for a run, or a model from elsewhere.
    """

    model: str
    benchmark: str
    entry: Mapping[str, Any]
    tests: Mapping[str, Row]
    samples: Mapping[str, Sequence[Answer]]
    result: Row
    counting: set[str]
    made: float
    repository: str | None

    def mark(self, answer: Answer) -> int | None:
        """1 where the verdict counts for the measure, 0 where another was given, None where there is none."""
        verdict = answer.judgement["verdict"]
        return None if verdict is None else int(verdict in self.counting)

    @property
    def lower_is_better(self) -> bool:
        """Whether the measure is of something that is not wanted: refusing harmless prompts."""
        return bool(self.result["purpose"] == "benign" and "full_refusal" in self.counting)


def target(test: Row) -> str:
    """What is expected of an answer: the solution, or what a benchmark's purpose says."""
    return str(test.get("answer") or {"harmful": "refuse", "benign": "comply"}.get(test["purpose"], ""))


def collect(root: Path, model: str, values: Mapping[str, Any]) -> list[Answers]:
    """All judged answers of a model.

    Args:
        root: the project's folder.
        model: its name in results.
        values: params.yaml.

    Raises:
        InputError: it has none.
    """
    return [_answers(root, model, path.stem, values) for path in see_judged(model, root)]


def _answers(root: Path, model: str, benchmark: str, values: Mapping[str, Any]) -> Answers:
    judged_at = root / f"results/judgements/{model}/{benchmark}.jsonl"
    judged = primary(read_rows(judged_at, ["id", "purpose", "kind", "verdict", "unscored", "judge"]))
    written = read_rows(root / f"results/generations/{model}/{benchmark}.jsonl", GENERATED)
    tests = {row["id"]: row for row in read_rows(root / f"data/benchmarks/{benchmark}.jsonl", ["id", "purpose"])}
    generations = {(row["id"], row.get("sample") or 0): row for row in written}
    samples: dict[str, list[Answer]] = {name: [] for name in tests}
    for row in judged:
        place = (row["id"], row.get("sample") or 0)
        if place not in generations or row["id"] not in tests:
            raise InputError(judged_at, f"row {place[0]}, sample {place[1]}", "one that was generated", "judge anew")
        samples[row["id"]].append(Answer(generations[place], row))
    where = f"{model} on {benchmark}"
    check(where, judged)
    return Answers(
        model=model,
        benchmark=benchmark,
        entry=values["fetch"]["benchmarks"].get(benchmark, {}),
        tests=tests,
        samples=samples,
        result=cell(model, benchmark, judged, values["summarize"]["confidence"]),
        counting=measure_of(where, judged)[3],
        made=judged_at.stat().st_mtime,
        repository=values["fetch"]["models"].get(model, {}).get("repository"),
    )


def stamp(seconds: float) -> str:
    """A time in UTC, ISO 8601."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat()


def sha256(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------- lm-evaluation-harness

METRIC = {"refusal": "refused", "guard": "safe", "grader": "exact_match"}


def lm_eval(found: Answers, folder: Path) -> list[Path]:
    """A model's samples on a benchmark, as `lm_eval --log_samples` writes them, and the results beside them.

    A row is a problem with all its samples; its metric is their mean. An unscored sample is in no mean: the row says why, and a
    problem without a scored sample has no metric.
    """
    name = next(iter(METRIC.get(kind, "safe") for kind in found.result["kinds"]))
    when = stamp(found.made).replace(":", "-").removesuffix("+00-00")
    rows = [_lm_eval_row(found, number, test, name) for number, test in enumerate(found.tests.values())]
    target_folder = folder / found.model
    samples = target_folder / f"samples_{found.benchmark}_{when}.jsonl"
    write_rows(samples, rows)
    results = target_folder / f"results_{found.benchmark}_{when}.json"
    write_json(results, _lm_eval_results(found, name))
    return [samples, results]


def _lm_eval_row(found: Answers, number: int, test: Row, name: str) -> Row:
    answers = found.samples[test["id"]]
    marks = [mark for one in answers if (mark := found.mark(one)) is not None]
    prompt, expected = prompt_of(test), target(test)
    settings = answers[0].generation["sampling"] if answers else {}
    told: Row = {
        "doc_id": number,
        "doc": test,
        "target": expected,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": settings}},
        "resps": [[one.generation["response"] for one in answers]],
        "filtered_resps": [one.text for one in answers],
        "filter": "none",
        "metrics": [name] if marks else [],
        "doc_hash": sha256(orjson.dumps(test, option=orjson.OPT_INDENT_2).decode()),
        "prompt_hash": sha256(prompt),
        "target_hash": sha256(expected),
        "verdicts": [one.judgement["verdict"] for one in answers],
        "unscored": [one.judgement["unscored"] for one in answers],
    }
    return told | ({name: sum(marks) / len(marks)} if marks else {})


def _lm_eval_results(found: Answers, name: str) -> Row:
    shown = found.result
    figures = {f"{name},none": shown["value"], f"{name}_low,none": shown["low"], f"{name}_high,none": shown["high"]}
    figures |= {"alias": found.benchmark, "coverage,none": shown["coverage"]}
    return {
        "results": {found.benchmark: figures},
        "configs": {found.benchmark: {"task": found.benchmark, "output_type": "generate_until"}},
        "higher_is_better": {found.benchmark: {name: not found.lower_is_better}},
        "n-samples": {found.benchmark: {"original": len(found.tests), "effective": len(found.tests)}},
        "model_name": found.model,
        "judged": shown["judged"],
    }


# ---------------------------------------------------------------- all formats


def writers() -> dict[str, Callable[[Answers, Path], list[Path]]]:
    """What writes each format."""
    from star1.exports_every import every_eval_ever
    from star1.exports_inspect import inspect_log

    return {"lm-eval": lm_eval, "inspect": inspect_log, "every-eval-ever": every_eval_ever}


def export(kind: str, models: Sequence[str], folder: Path, root: Path) -> list[str]:
    """Write the judged answers of models in a format; gives a line about each benchmark."""
    values, write, told = parameters.load(root / "params.yaml", root), writers()[kind], []
    for model in models:
        for found in collect(root, model, values):
            paths = write(found, folder / kind)
            scored = f"{found.result['n']} of {found.result['total']} scored"
            where = paths[0] if paths else "not written, since the format knows no such thing"
            told.append(f"{model} on {found.benchmark}: {len(found.tests)} rows, {scored}: {where}")
    return told
