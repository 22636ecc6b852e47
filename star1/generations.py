"""Benchmarks answered by a model: rows in, rows with response, thinking and answer out."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from star1 import chat, checkpoints, engines
from star1.decoding import Bos, Model, Output, Request, Sampling, sampling_for
from star1.errors import SettingError
from star1.records import Row, read_rows, write_rows
from star1.tasks import prompt_of

# Files of a checkpoint that decide how text becomes token ids.
TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "special_tokens_map", "added_tokens", "chat_template")


class Benchmark(NamedTuple):
    """A benchmark's name, its file of rows, and the file for what the model answers."""

    name: str
    source: str
    target: str


def parse_benchmark(text: str) -> Benchmark:
    """The benchmark of `NAME=INPUT:OUTPUT`.

    Raises:
        SettingError: the text is not of that form.
    """
    name, _, paths = text.partition("=")
    source, _, target = paths.rpartition(":")
    if not (name and source and target):
        raise SettingError("--benchmarks", repr(text), "NAME=INPUT:OUTPUT")
    return Benchmark(name, source, target)


def generate_benchmarks(
    model: Model,
    engine: str,
    benchmarks: Sequence[Benchmark],
    sampling: Mapping[str, Any],
    sampling_of: Mapping[str, Mapping[str, Any]],
    options: dict[str, Any],
    work: Path,
    decoded_as: str | None = None,
    bos: Bos = "one",
) -> list[Row]:
    """Generate for every benchmark with one load of the model; removes `work` when all are written.

    Args:
        model: what answers.
        engine: its name in `star1.engines.ENGINES`.
        benchmarks: what is answered.
        sampling: fields of `star1.decoding.Sampling`.
        sampling_of: what differs, as in `star1.decoding.sampling_for`.
        options: what only this engine knows.
        work: file for finished outputs.
        decoded_as: the model whose values of `sampling_of` hold; None: its own.
        bos: as in `star1.chat.prompt_ids`.

    Raises:
        SettingError: prompts cannot be made in this way by this engine.
    """
    if bos != "one" and engine == "openai":
        raise SettingError("generate.bos", f"{bos} with engine openai", "one", "a server renders the prompt itself")
    chosen = [sampling_for(decoded_as or model.name, one.name, sampling, sampling_of) for one in benchmarks]
    inputs = [read_rows(one.source, ["id", "question", "benchmark"]) for one in benchmarks]
    asked = [_requests(model, engine, rows, how, bos) for rows, how in zip(inputs, chosen, strict=True)]
    outputs = iter(engines.generate(model, engine, [one for part in asked for _, one in part], options, work))
    facts, made = origin(model, engine), []
    for benchmark, part in zip(benchmarks, asked, strict=True):
        rows = [answered(row, one, next(outputs)) | facts | {"starts": starts_of(model, one)} for row, one in part]
        write_rows(benchmark.target, rows)
        made += rows
    work.unlink(missing_ok=True)
    return made


def _requests(
    model: Model, engine: str, rows: Sequence[Row], sampling: Sampling, bos: Bos
) -> list[tuple[Row, Request]]:
    """Rows with what is asked for them, by row and then by sample."""
    return [(row, one) for row in rows for one in engines.requests_for(model, engine, prompt_of(row), sampling, bos)]


def starts_of(model: Model, request: Request) -> int | None:
    """How many start tokens a prompt begins with; None where a server renders it."""
    return None if request.ids is None else chat.starts(model.tokenizer, request.ids)


def answered(row: Row, request: Request, output: Output) -> Row:
    """A row of a benchmark with what the model wrote, taken apart into thinking and answer."""
    thinking, answer = chat.split_thinking(output.text, opened=False)
    return (
        {"id": row["id"], "benchmark": row["benchmark"], "question": row["question"], "sample": request.sample}
        | {"response": output.text, "thinking": thinking, "answer": answer, "finish_reason": output.finish_reason}
        | {"prompt_tokens": output.prompt_tokens, "completion_tokens": output.completion_tokens}
        | {"prompt_digest": request.digest, "sampling": dataclasses.asdict(request.sampling)}
    )


def origin(model: Model, engine: str) -> Row:
    """What rendered the prompts of all rows; None where a server did, with files that are its own."""
    facts: Row = {"model": model.name, "engine": engine, "template_digest": None, "tokenizer": None}
    if model.folder is not None and engine != "openai":
        facts["template_digest"] = hashlib.sha256(str(model.tokenizer.chat_template).encode()).hexdigest()
        files = checkpoints.read_manifest(model.folder)["files"]
        named = {name: one["sha256"] for name, one in files.items() if Path(name).name.startswith(TOKENIZER_FILES)}
        facts["tokenizer"] = hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return facts


def summary(rows: Sequence[Row]) -> str:
    """Rows, how many the limit cut off, and in how many the thinking did not end."""
    cut = sum(row["finish_reason"] == "length" for row in rows)
    unfinished = sum(row["answer"] is None for row in rows)
    return f"{len(rows)} rows, {cut} cut off at max_tokens, {unfinished} unfinished (no answer)"
