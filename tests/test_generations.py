"""The stage generate: rows in, rows out, and what a kill at any moment leaves to do."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1 import chat, checkpoints, decoding, engines, generations, tasks
from star1.errors import SettingError
from star1.records import Row, read_rows, write_rows
from tests.conftest import ROOT
from tests.loopback import Answer, completion, run_script, server
from tests.micro import checkpoint, counting_loads

QUESTIONS = ["What is tea?", "How do I bake bread at home?", "Tell me about bees and about the moon.", "Why?", "Tea?"]
SAMPLING = {"max_tokens": 12, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("models") / "micro")


def benchmark(path: Path, name: str, questions: Sequence[str]) -> Path:
    rows = [{"id": str(at), "question": text, "benchmark": name} for at, text in enumerate(questions)]
    write_rows(path, rows)
    return path


def flags(engine: str, names: Sequence[str], **settings: Any) -> list[str]:
    """Flags of the script; `settings` are given as JSON."""
    found = [
        "--model",
        "micro",
        "--engine",
        engine,
        "--benchmarks",
        *(f"{name}={name}.jsonl:out/{name}.jsonl" for name in names),
    ]
    for name, value in settings.items():
        found += [f"--{name.replace('_', '-')}", orjson.dumps(value).decode()]
    return found


def test_script_writes_every_benchmark_with_its_sampling_and_forgets_its_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark(tmp_path / "one.jsonl", "one", QUESTIONS[:3])
    benchmark(tmp_path / "two.jsonl", "two", QUESTIONS[2:])
    loads = counting_loads(monkeypatch)
    of = {"two": {"temperature": 1.5, "samples": 2}, "micro": {"max_tokens": 7}}
    chosen = flags("transformers", ["one", "two"], sampling=SAMPLING, sampling_of=of)
    run_script("generate", *chosen, "--checkpoint", str(folder / "manifest.json"))
    rows, drawn = read_rows("out/one.jsonl"), read_rows("out/two.jsonl")
    assert len(loads) == 1
    assert [row["question"] for row in rows] == QUESTIONS[:3]
    assert set(rows[0]) == {
        *("id", "benchmark", "question", "sample", "response", "thinking", "answer", "finish_reason"),
        *("prompt_tokens", "completion_tokens", "prompt_digest", "sampling"),
        *("model", "engine", "template_digest", "tokenizer", "starts"),
    }
    assert {row["starts"] for row in rows} == {1}
    assert {(row["model"], row["engine"], row["benchmark"]) for row in rows} == {("micro", "transformers", "one")}
    assert {row["sample"] for row in rows} == {0}
    assert [(row["id"], row["sample"]) for row in drawn] == [(str(at // 2), at % 2) for at in range(6)]
    assert {(row["sampling"]["temperature"], row["sampling"]["max_tokens"]) for row in rows} == {(0, 7)}
    assert {(row["sampling"]["temperature"], row["sampling"]["samples"]) for row in drawn} == {(1.5, 2)}
    assert max(row["completion_tokens"] for row in [*rows, *drawn]) == 7
    for row in [*rows, *drawn]:
        assert (row["thinking"], row["answer"]) == chat.split_thinking(row["response"], opened=False)
        # The template opened the block: what the limit cut off within it is no answer.
        assert row["answer"] is None or chat.CLOSE in row["response"]
    assert any(row["answer"] is None and row["finish_reason"] == "length" for row in rows)
    assert "generate micro: 9 rows" in capsys.readouterr().out
    assert not list((tmp_path / ".work").rglob("*.jsonl"))


def test_rows_say_what_the_prompt_was_made_with(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = engines.open_model("micro", folder / "manifest.json", "transformers")
    (asked,) = engines.requests_for(model, "transformers", QUESTIONS[0], decoding.Sampling())
    start = model.tokenizer.bos_token_id
    assert asked.ids is not None
    assert start is None or asked.ids.count(start) == 1
    assert asked.digest == hashlib.sha256(orjson.dumps(asked.ids)).hexdigest()
    facts = generations.origin(model, "transformers")
    assert facts["template_digest"] == hashlib.sha256(model.tokenizer.chat_template.encode()).hexdigest()
    assert generations.origin(model, "openai") | {"engine": "transformers"} == facts | {
        "template_digest": None,
        "tokenizer": None,
    }
    manifest = checkpoints.read_manifest(folder)
    changed = {**manifest["files"], "tokenizer.json": {"sha256": "other", "bytes": 1}}
    monkeypatch.setattr(checkpoints, "read_manifest", lambda _: {"files": changed})
    assert generations.origin(model, "vllm")["tokenizer"] != facts["tokenizer"]
    changed = {**manifest["files"], "model.safetensors": {"sha256": "other", "bytes": 1}}
    assert generations.origin(model, "vllm")["tokenizer"] == facts["tokenizer"]
    (served,) = engines.requests_for(model, "openai", "Tea?", decoding.Sampling())
    assert (served.ids, served.digest) == (None, hashlib.sha256(b"Tea?").hexdigest())


def test_a_doubled_start_is_another_prompt_and_its_rows_say_so(folder: Path, tmp_path: Path) -> None:
    """Engines get the ids as they are; what was generated for the right prompt is not taken for it."""
    from tokenizers.processors import TemplateProcessing

    model = engines.open_model("micro", folder / "manifest.json", "transformers")
    name, start = model.tokenizer.bos_token, model.tokenizer.bos_token_id
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{name} $A", special_tokens=[(name, start)]
    )
    source = benchmark(tmp_path / "one.jsonl", "one", QUESTIONS[:2])
    chosen = [generations.Benchmark("one", str(source), str(tmp_path / "out.jsonl"))]

    def made(bos: decoding.Bos) -> list[Row]:
        options: dict[str, Any] = {}
        how: Any = (SAMPLING, {}, options, tmp_path / "work", None, bos)
        return generations.generate_benchmarks(model, "transformers", chosen, *how)

    one, doubled = made("one"), made("doubled")
    assert [row["starts"] for row in [*one, *doubled]] == [1, 1, 2, 2]
    assert [row["prompt_tokens"] for row in doubled] == [row["prompt_tokens"] + 1 for row in one]
    assert not {row["prompt_digest"] for row in one} & {row["prompt_digest"] for row in doubled}
    keys = [
        engines.key_of(model, "transformers", asked, {})
        for bos in ("one", "doubled")
        for asked in engines.requests_for(model, "transformers", QUESTIONS[0], decoding.Sampling(), bos)
    ]
    assert keys[0] != keys[1]
    with pytest.raises(SettingError, match=r"generate\.bos: doubled with engine openai; expected one"):
        generations.generate_benchmarks(model, "openai", chosen, {}, {}, {}, tmp_path / "work", None, "doubled")


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("<think>\nI should", "length", ("I should", None)),  # the template or the model had opened the block
        ("<think>\nI should", "stop", ("I should", None)),
        ("Well. <think>\nI should", "length", ("Well. <think>\nI should", None)),
        ("<think>\nt\n</think>\n\nI ans", "length", ("t", "I ans")),  # the judge's setting says what becomes of it
        ("<think>\nt\n</think>", "length", ("t", "")),
        ("<think>\n\n</think>\n\na", "stop", ("", "a")),  # a distilled model trained without thinking
        ("a", "stop", (None, "a")),  # an instruct model trained without thinking
    ],
)
def test_thinking_that_does_not_end_is_no_answer(
    text: str, reason: str, expected: tuple[str | None, str | None]
) -> None:
    row = {"id": "1", "benchmark": "b", "question": "q"}
    asked = decoding.Request("q", [1], decoding.Sampling())
    made = generations.answered(row, asked, decoding.Output(text, reason, 1, 1))
    assert (made["thinking"], made["answer"]) == expected
    assert (made["response"], made["finish_reason"]) == (text, reason)


def test_a_model_is_asked_what_the_task_says_and_the_row_keeps_its_question(tmp_path: Path) -> None:
    row = {"id": "1", "question": "1 + 1?", "benchmark": "one", "grader": "math", "answer": "2"}
    write_rows(tmp_path / "one.jsonl", [row])
    chosen = [generations.Benchmark("one", str(tmp_path / "one.jsonl"), str(tmp_path / "out.jsonl"))]
    model = engines.open_model("served", None, "openai")
    with server(lambda *_: Answer(completion("2"))) as served:
        options = {"base_url": served.url, "retries": 0}
        (made,) = generations.generate_benchmarks(model, "openai", chosen, {}, {}, options, tmp_path / "work")
    assert served.requests[0]["messages"] == [{"role": "user", "content": tasks.prompt_of(row)}]
    assert tasks.prompt_of(row) != row["question"] == made["question"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a=x.jsonl:y.jsonl", ("a", "x.jsonl", "y.jsonl")), ("a=x=1.jsonl:y.jsonl", ("a", "x=1.jsonl", "y.jsonl"))],
)
def test_parse_benchmark(text: str, expected: tuple[str, str, str]) -> None:
    assert generations.parse_benchmark(text) == expected


@pytest.mark.parametrize("text", ["", "a", "a=x", "a=:y", "=x:y"])
def test_parse_benchmark_refuses(text: str) -> None:
    with pytest.raises(SettingError, match="NAME=INPUT:OUTPUT"):
        generations.parse_benchmark(text)


# ---------------------------------------------------------------- kills

WORK = Path(".work/generate/micro/rows.jsonl")


def finished(folder: Path) -> list[Row]:
    """Rows of the work file whose line a kill left whole."""
    found = []
    for line in (folder / WORK).read_bytes().split(b"\n") if (folder / WORK).exists() else []:
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue
    return found


def start_and_kill(folder: Path, chosen: Sequence[str], kept: int, rng: random.Random) -> bool:
    """Start the script in `folder`, kill it some time after `kept` rows are there; gives whether it was killed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "scripts.generate", *chosen]
    job = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while job.poll() is None and len(finished(folder)) < kept:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.05))
    job.send_signal(signal.SIGKILL)
    _, said = job.communicate()
    assert job.returncode in (0, -signal.SIGKILL), said.decode()[-2000:]
    return job.returncode != 0


def run_to_the_end(folder: Path, chosen: Sequence[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "scripts.generate", *chosen]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_job_killed_at_any_moment_goes_on_to_the_same_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws too: a row's do not hang on what was done before the kill."""
    rng = random.Random(7)
    names = ["one", "two"]
    for place in (tmp_path / "killed", tmp_path / "whole"):
        place.mkdir()
        benchmark(place / "one.jsonl", "one", [f"{text} {at}" for at in range(3) for text in QUESTIONS])
        benchmark(place / "two.jsonl", "two", QUESTIONS)
    sampling = {"max_tokens": 100, "batch_size": 2}
    of = {"one": {"temperature": 1.5, "samples": 2}}
    chosen = flags("transformers", names, sampling=sampling, sampling_of=of, options={"precision": "float32"})
    chosen += ["--checkpoint", str(folder / "manifest.json")]
    assert start_and_kill(tmp_path / "killed", chosen, rng.randint(5, 15), rng)
    before = finished(tmp_path / "killed")
    assert 5 <= len(before) < 35
    # The last start keeps its work file, to be counted.
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path / "killed")
    run_script("generate", *chosen)
    after = finished(tmp_path / "killed")
    assert after[: len(before)] == before
    assert set(Counter(row["key"] for row in after).values()) == {1}
    assert len(after) == 35
    monkeypatch.chdir(tmp_path / "whole")
    run_script("generate", *chosen)
    for name in names:
        assert (tmp_path / "killed/out" / f"{name}.jsonl").read_bytes() == (
            tmp_path / "whole/out" / f"{name}.jsonl"
        ).read_bytes()


@pytest.mark.slow
def test_a_killed_job_asks_a_server_for_no_row_that_it_has(tmp_path: Path) -> None:
    rng = random.Random(11)
    questions = [f"Question {at}?" for at in range(60)]
    benchmark(tmp_path / "one.jsonl", "one", questions)
    with server(lambda *_: Answer(completion("<think>\nt\n</think>\n\na"), wait_s=0.03)) as served:
        options = {"base_url": served.url, "concurrency": 3}
        chosen = flags("openai", ["one"], sampling={"max_tokens": 9}, options=options)
        in_flight = 0
        for kept in (rng.randint(3, 20), rng.randint(25, 45)):
            assert start_and_kill(tmp_path, chosen, kept, rng)
            held, asked = len(finished(tmp_path)), len(served.requests)
            assert asked - held <= in_flight + 3  # what was asked for when the kill came, at most `concurrency`
            in_flight = asked - held
        run_to_the_end(tmp_path, chosen)
    assert len(served.requests) == 60 + in_flight
    assert [row["question"] for row in read_rows(tmp_path / "out/one.jsonl")] == questions
    assert not (tmp_path / WORK).exists()
