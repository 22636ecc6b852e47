"""vLLM itself, in its own environment: it writes what transformers writes. Without that environment, what is told."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from star1 import decoding, engine_vllm, engines, generations, sft
from star1.errors import SettingError
from star1.records import Row, read_rows, write_json, write_rows
from tests.conftest import ROOT
from tests.micro import ROWS, SETTINGS, checkpoint, small_settings

PROMPTS = 40
HOME = ROOT / engine_vllm.PYTHON.parent.parent
SAMPLING = {"max_tokens": 48, "batch_size": 8}
SAMPLING_OF = {
    "penalised": {"repetition_penalty": 1.2},
    "drawn": {"temperature": 0.8, "top_p": 0.9, "samples": 2},
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the stage finetune exports it."""
    folder = tmp_path_factory.mktemp("models")
    # vLLM's build for CPUs has no attention for heads narrower than 32.
    base = checkpoint(folder / "base", dataclasses.replace(SETTINGS, hidden_size=64, heads=2))
    write_rows(folder / "rows.jsonl", ROWS)
    settings = small_settings(epochs=1, learning_rate=1e-3)
    made = sft.finetune(base, [str(folder / "rows.jsonl")], settings, folder / "staging")
    sft.publish(
        made, folder / "staging", folder / "tuned" / "manifest.json", folder / "history.json", folder / "states"
    )
    return folder / "tuned"


def benchmarks(folder: Path) -> list[str]:
    """Three benchmarks, decoded greedily, greedily with a penalty, and drawn; flags for the script."""
    from star1.dialogues import dialogues

    questions = [row["question"] for row in dialogues(PROMPTS, 9)]
    for name, count in (("greedy", PROMPTS), ("penalised", PROMPTS), ("drawn", 6)):
        rows = [{"id": str(at), "benchmark": name, "question": one} for at, one in enumerate(questions[:count])]
        write_rows(folder / f"{name}.jsonl", rows)
    return [f"{name}={folder / name}.jsonl:{{}}/{name}.jsonl" for name in ("greedy", "penalised", "drawn")]


def by_transformers(tuned: Path, flags: list[str], folder: Path) -> dict[str, list[Row]]:
    model = engines.open_model("tuned", tuned / "manifest.json", "transformers")
    chosen = [generations.parse_benchmark(flag.format(folder)) for flag in flags]
    options = {"precision": "float32"}
    generations.generate_benchmarks(model, "transformers", chosen, SAMPLING, SAMPLING_OF, options, folder / "work")
    return {one.name: read_rows(one.target) for one in chosen}


def remember(tuned: Path, question: str, work: Path, options: dict[str, Any]) -> None:
    """A row that an earlier start has finished."""
    model = engines.open_model("tuned", tuned / "manifest.json", "vllm")
    (asked,) = engines.requests_for(model, "vllm", question, decoding.sampling_from(SAMPLING))
    work.parent.mkdir(parents=True)
    known = {"text": "from memory", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    work.write_bytes(orjson.dumps({"key": engines.key_of(model, "vllm", asked, options), **known}) + b"\n")


def share_equal(one: list[Row], other: list[Row]) -> float:
    equal = [a["response"] == b["response"] for a, b in zip(one, other, strict=True)]
    return float(sum(equal) / len(equal))


@pytest.mark.slow
def test_vllm_writes_what_transformers_writes(tuned: Path, tmp_path: Path) -> None:
    """In float32: in bfloat16 the order of sums decides between close tokens, and either is right."""
    if not (ROOT / engine_vllm.PYTHON).exists():
        pytest.skip(f"no {HOME.name}: `make engines` makes it, on x86-64 Linux")
    flags, options = benchmarks(tmp_path), {"llm": {"dtype": "float32"}}
    expected = by_transformers(tuned, flags, tmp_path / "transformers")
    remember(tuned, expected["greedy"][3]["question"], tmp_path / ".work/generate/tuned/rows.jsonl", options)
    (tmp_path / HOME.name).symlink_to(HOME)  # where the script looks for it
    command = [sys.executable, "-m", "scripts.generate", "--model", "tuned", "--engine", "vllm"]
    command += ["--checkpoint", str(tuned / "manifest.json"), "--sampling", orjson.dumps(SAMPLING).decode()]
    command += ["--sampling-of", orjson.dumps(SAMPLING_OF).decode(), "--options", orjson.dumps(options).decode()]
    command += ["--benchmarks", *(flag.format("out") for flag in flags)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on in .venv-vllm" in done.stderr
    found = {name: read_rows(tmp_path / "out" / f"{name}.jsonl") for name in expected}
    assert found["greedy"][3]["response"] == "from memory"
    del found["greedy"][3], expected["greedy"][3]
    assert len({row["response"] for row in found["greedy"]}) > PROMPTS / 2  # else any two would agree
    assert {row["finish_reason"] for row in found["greedy"]} == {row["finish_reason"] for row in expected["greedy"]}
    assert share_equal(found["greedy"], expected["greedy"]) >= 0.95
    assert share_equal(found["penalised"], expected["penalised"]) >= 0.95
    assert share_equal(found["greedy"], found["penalised"][:3] + found["penalised"][4:]) < 0.5
    for field in ("prompt_digest", "prompt_tokens", "template_digest", "tokenizer"):
        assert [row[field] for row in found["penalised"]] == [row[field] for row in expected["penalised"]]
    assert [(row["id"], row["sample"]) for row in found["drawn"]] == [(str(at // 2), at % 2) for at in range(12)]
    assert len({row["response"] for row in found["drawn"]}) == 12


def test_the_lock_has_our_torch_and_nothing_that_breaks_it() -> None:
    """Weights of one torch in another; and builds for GPUs that fail as soon as transformers imports them."""
    lock = (ROOT / "envs" / "vllm.lock").read_text()
    pinned = [line.removesuffix("\\").strip() for line in lock.splitlines() if "==" in line and line[0] not in " #"]
    versions = dict(line.split("==") for line in pinned)
    local = (ROOT / "envs" / "local.lock").read_text().splitlines()
    assert f"torch=={versions['torch'].partition('+')[0]}" in local  # its build for CPUs
    assert "://" not in lock
    assert not {"torchvision", "torchaudio", "torchcodec", "triton"} & set(versions)


def test_missing_vllm_is_told(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    model = engines.open_model("tuned", tuned / "manifest.json", "vllm")
    asked = engines.requests_for(model, "vllm", "Tea?", decoding.sampling_from(SAMPLING))
    with pytest.raises(SettingError, match=r"engine vllm.*an environment with vLLM.*make engines"):
        engines.generate(model, "vllm", asked, {}, tmp_path / "w")


def test_arguments_that_vllm_does_not_take_are_told_in_one_line(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: Any) -> None:
        assert arguments["max_model_len"] == -1  # what params.yaml says comes before what is found here
        raise TypeError("unexpected\nargument 'chunk'")

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=refuse))
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    model = engines.open_model("tuned", tuned / "manifest.json", "vllm")
    asked = engines.requests_for(model, "vllm", "Tea?", decoding.sampling_from(SAMPLING))
    options = {"llm": {"max_model_len": -1, "chunk": 2}}
    with pytest.raises(SettingError, match=r"engine vllm: unexpected argument 'chunk'; .*generate.options.llm"):
        engines.generate(model, "vllm", asked, options, tmp_path / "w")


def test_a_script_goes_where_vllm_is_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["generate", "--model", "m"])
    for name in engine_vllm.QUIET:
        monkeypatch.setenv(name, "kept")
    engine_vllm.go_where_vllm_is("scripts.generate")
    assert not started  # there is no such environment
    engine_vllm.PYTHON.parent.mkdir(parents=True)
    engine_vllm.PYTHON.touch()
    engine_vllm.go_where_vllm_is("scripts.generate")
    assert started == [[".venv-vllm/bin/python", "-m", "scripts.generate", "--model", "m"]]
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv-vllm"))  # it is running there, and vLLM is not in it
    engine_vllm.go_where_vllm_is("scripts.generate")
    assert len(started) == 1
    assert {os.environ[name] for name in engine_vllm.QUIET} == {"kept"}


@pytest.mark.parametrize(
    ("heads", "width", "gpus", "expected"),
    [
        (12, 8960, 8, 4),  # Qwen2.5 1.5B
        (28, 18944, 8, 4),  # Qwen2.5 7B
        (40, 13824, 8, 8),  # Qwen2.5 14B
        (32, 14336, 6, 4),  # Llama 3.1 8B
        (32, 14336, 0, 1),
        (7, 64, 8, 1),
    ],
)
def test_a_model_is_spread_over_gpus_that_divide_it(
    tmp_path: Path, heads: int, width: int, gpus: int, expected: int
) -> None:
    write_json(tmp_path / "config.json", {"num_attention_heads": heads, "intermediate_size": width})
    assert engine_vllm.parallel_size(tmp_path, gpus) == expected


def test_arguments_fit_the_machine_and_the_longest_request(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    model = engines.open_model("tuned", tuned / "manifest.json", "vllm")
    asked = [decoding.Request("", [1] * 5, decoding.Sampling(max_tokens=one)) for one in (7, 30)]
    with_gpus = engine_vllm._arguments(model, asked, 2)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ
    assert with_gpus == {
        **{"model": str(tuned), "dtype": "bfloat16", "seed": 46},
        **{"max_model_len": 35, "tensor_parallel_size": 2, "trust_remote_code": False},
    }
    without = engine_vllm._arguments(model, asked, 0)
    assert os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
    assert (without["enforce_eager"], without["distributed_executor_backend"]) == (True, "uni")


def test_an_aborted_output_is_told_as_such(tuned: Path) -> None:
    """It was told as "stop", as if the answer were complete."""
    model = engines.open_model("tuned", tuned / "manifest.json", "vllm")
    written = SimpleNamespace(token_ids=[7, model.tokenizer.eos_token_id], finish_reason="abort")
    output = engine_vllm._output(model, SimpleNamespace(outputs=[written], prompt_token_ids=[1, 2]))
    assert output == decoding.Output("<think>\n" + model.tokenizer.decode([7]), "abort", 2, 2)
