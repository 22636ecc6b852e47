"""A run that is killed, stopped or starved: it goes on to the very same weights, or ends with a line that says what to do."""

import dataclasses
import errno
import itertools
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from star1 import checkpoints, resuming, sft, sharding, training
from star1.errors import Star1Error, StoppedError
from star1.losses import Scored
from star1.records import read_json, write_json, write_rows
from star1.workflow.lookups import code
from tests.conftest import ROOT
from tests.loopback import run_script
from tests.micro import ROWS, base_and_rows, fresh_accelerate, small_settings, weights_digest

torch = pytest.importorskip("torch")
SAMPLES = 4  # of an update of small_settings
EVERY = 1e-9  # minutes: a state after each update
LONG = {"epochs": 25, "checkpoint_minutes": EVERY}  # 75 updates, each of them saved


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and rows."""
    return base_and_rows(tmp_path_factory.mktemp("place"))


def flags(place: Path, run: str, **changes: Any) -> list[str]:
    settings = dataclasses.asdict(small_settings(**changes))
    choices = {"base": "micro", "data": ["rows"], "think": True, "seed": settings.pop("seed")}
    del settings["think"]
    return [
        *("--run", run, "--base", str(place / "micro/manifest.json"), "--data", str(place / "rows.jsonl")),
        *("--settings", orjson.dumps(settings).decode(), "--choices", orjson.dumps(choices).decode()),
        *("--output", f"models/{run}/manifest.json", "--metrics", f"metrics/{run}.json"),
    ]


def finetune(place: Path, run: str, **changes: Any) -> None:
    """Run the script in this process, in the working directory."""
    fresh_accelerate()
    run_script("finetune", *flags(place, run, **changes))


def states(folder: Path, run: str) -> list[Path]:
    return sorted(folder.glob(f".work/finetune-states/{run}/*/update-*"))


@pytest.fixture(scope="module")
def undisturbed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finetune(place, "run", **LONG)
    return folder


def disturbed(place: Path, folder: Path, number: signal.Signals, update: int) -> tuple[int, str]:
    """Run in a process of its own and send it a signal once `update` is saved; gives exit status and standard error."""
    command = [sys.executable, "-m", "scripts.finetune", *flags(place, "run", **LONG)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while not any(int(path.name[7:]) >= update for path in states(folder, "run")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "no state is saved"
            time.sleep(0.001)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    return process.returncode, told


def same(one: Path, other: Path) -> None:
    """Weights, manifests and loss curves are equal to the last bit."""
    assert weights_digest(one / "models/run") == weights_digest(other / "models/run")
    for name in ("models/run/manifest.json", "metrics/run.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


# ---------------------------------------------------------------- going on


def test_a_killed_run_goes_on_to_the_same_weights(
    place: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 at a random update, in float32 on the CPU."""
    status, _ = disturbed(place, tmp_path, signal.SIGKILL, random.randint(1, 40))
    assert status == -signal.SIGKILL
    assert not (tmp_path / "models/run/manifest.json").exists()
    assert 1 <= len(states(tmp_path, "run")) <= resuming.KEPT
    monkeypatch.chdir(tmp_path)
    finetune(place, "run", **LONG)
    assert "goes on after update" in capsys.readouterr().err
    same(tmp_path, undisturbed)
    assert not any((tmp_path / ".work/finetune-states").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_says_how_to_go_on_and_goes_on(
    place: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    status, told = disturbed(place, tmp_path, number, 3)
    assert status == 128 + number
    notice, line = told.strip().splitlines()[-2:]
    assert notice.startswith(f"finetune run: {number.name}: finishes the update and saves")
    done = int(states(tmp_path, "run")[-1].name[7:])
    assert line == (
        f"error: finetune run, after update {done} of 75: stopped by {number.name}; expected to go on to the last row."
        " Hint: start it again: it goes on after this update"
    )
    monkeypatch.chdir(tmp_path)
    finetune(place, "run", **LONG)
    same(tmp_path, undisturbed)


def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a scheduler, which sends it to all processes, and from the process that started this one."""
    ended: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    try:
        with resuming.signals("test") as heard:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (heard, ended) == ([signal.SIGTERM], [])
        monkeypatch.setattr(resuming, "TOGETHER_S", 0.01)
        with resuming.signals("test") as heard:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (heard, ended) == ([signal.SIGTERM], [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)


class Stopping(resuming.States):
    """States that stop the run as a signal would, after so many updates, without a process of its own."""

    after = 2
    asked = 0

    def due(self) -> bool:
        self.asked += 1
        if self.asked == self.after:
            os.kill(os.getpid(), signal.SIGTERM)
        return False


def stopped(place: Path, folder: Path, kind: type[resuming.States] = Stopping, **changes: Any) -> Path:
    """Fine-tune until the second update is saved; gives the folder of states."""
    fresh_accelerate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "States", kind)
        with pytest.raises(StoppedError):
            tune(place, folder, **changes)
    return folder / "states"


def tune(place: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    fresh_accelerate()
    data = [str(place / "rows.jsonl")]
    return sft.finetune(place / "micro", data, small_settings(**changes), folder / "run", folder / "states")


def test_only_watching_settings_may_change_before_a_run_goes_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(place, tmp_path)
    capsys.readouterr()
    tune(place, tmp_path, checkpoint_minutes=7.0, gather_every=1, diverged_factor=50.0, diverged_updates=2)
    assert "goes on after update 2" in capsys.readouterr().err
    tune(place, tmp_path, learning_rate=0.011)
    told = capsys.readouterr().err
    assert "goes on" not in told
    assert "training state of other data, base, settings, code or machine" in told


def test_another_row_is_another_run(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped(place, tmp_path)
    write_rows(tmp_path / "rows.jsonl", [*ROWS[:-1], ROWS[0]])
    fresh_accelerate()
    capsys.readouterr()
    data = [str(tmp_path / "rows.jsonl")]
    sft.finetune(place / "micro", data, small_settings(), tmp_path / "run", tmp_path / "states")
    assert "goes on" not in capsys.readouterr().err


def test_a_state_under_a_foreign_key_is_told_and_not_used(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that somebody renamed or copied."""
    (state,) = stopped(place, tmp_path).glob("*/update-*")
    values = read_json(state / "state.json")
    (state / "state.json").write_bytes(orjson.dumps({**values, "key": "0" * 16}))
    tune(place, tmp_path)
    assert "training state of another run; not used" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "optimizer.safetensors", "random.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_a_torn_state_is_told_and_the_one_before_is_used(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm: str
) -> None:
    class Two(Stopping):
        def due(self) -> bool:
            super().due()
            return True

    newest = sorted(stopped(place, tmp_path, Two).glob("*/update-*"))[-1]
    content = bytearray((newest / name).read_bytes())
    if harm == "cut":
        (newest / name).write_bytes(content[: len(content) // 2])
    elif harm == "gone":
        (newest / name).unlink()
    else:
        content[0 if name == "state.json" else -1] ^= 1
        (newest / name).write_bytes(content)
    capsys.readouterr()
    made = tune(place, tmp_path)
    told = capsys.readouterr().err
    assert f"{newest / name}: " in told
    assert "; not used" in told
    assert "update-000001: goes on after update 1" in told
    assert made["history"] == tune(place, tmp_path / "anew")["history"]


def test_what_a_kill_left_half_written_is_cleared(place: Path, tmp_path: Path) -> None:
    folder = next(stopped(place, tmp_path).iterdir())
    (folder / ".update-000003.part").mkdir()
    tune(place, tmp_path, checkpoint_minutes=EVERY)
    assert sorted(path.name for path in folder.iterdir()) == ["update-000004", "update-000005"]


def test_the_code_of_a_state_is_all_that_training_imports() -> None:
    """A module that is missing in the list could change and an old state would be used all the same."""
    harmless = {"boards", "errors", "launching", "nodes", "peers", "progress", "records", "resuming", "threads"}
    harmless |= {"runs"}  # what it gives are settings, which are in the key themselves
    harmless |= {"heap"}  # where memory comes from
    harmless |= {
        "energy",
        "flops",
        "memory",
        "finetuning",
        "metering",
        "rooms",
        "shapes",
        "trackers",
        "gpus",
        "status",
        "boards",
        "nodes",
    }
    found = {Path(path).stem for path in code("finetune", ROOT) if path.startswith("star1/")}
    assert set(resuming.CODE) == found - harmless


def test_tied_weights_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    from accelerate import Accelerator

    from tests.micro import tokenizer_and_model

    fresh_accelerate()
    model = tokenizer_and_model()[1]
    whole = sharding.Whole(Accelerator(), Scored(model), None)
    whole.optimizer = training.make_optimizer(model, sft.Optimisation())
    kept = resuming.States(tmp_path, "key", 0.0)
    kept.save(whole, [{"update": 1}])
    before = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert kept.restore(whole) == [{"update": 1}]
    assert torch.equal(model.lm_head.weight, before)
    assert model.lm_head.weight is model.model.embed_tokens.weight


# ---------------------------------------------------------------- ends with a line


def refusal(place: Path, folder: Path, **changes: Any) -> str:
    with pytest.raises(Star1Error) as caught:
        tune(place, folder, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_a_state_is_saved(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state before it is still whole, and the run goes on from there when there is room."""
    calls = itertools.count()
    monkeypatch.setattr(resuming, "write_json", lambda *args: full() if next(calls) == 2 else write_json(*args))
    told = refusal(place, tmp_path, checkpoint_minutes=EVERY)
    assert "disk full" in told
    assert "Hint: free space, then start again: it goes on from the state before" in told
    monkeypatch.setattr(resuming, "write_json", write_json)
    again = tune(place, tmp_path)
    assert again["history"] == tune(place, tmp_path / "anew")["history"]


def test_a_full_disk_as_safetensors_tells_it(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors
    import safetensors.torch

    def starved(*_: Any, **__: Any) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", starved)
    assert "disk full" in refusal(place, tmp_path, checkpoint_minutes=EVERY)


def test_a_full_disk_at_the_end(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "carry_over", full)
    assert "disk full" in refusal(place, tmp_path)


def test_too_small_a_disk_is_told_before_the_first_update(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    told = refusal(place, tmp_path)
    assert re.search(r"states/[0-9a-f]{16}: 0\.1 MB free; expected [0-9.]+ MB for 2 training states and the", told)
    assert "links to a larger disk" in told


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore text"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 999 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_names_the_setting(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def starved(*_: Any) -> None:
        raise error

    monkeypatch.setattr(training, "collate", starved)
    told = refusal(place, tmp_path)
    assert "out of memory" in told
    assert "set gradient_checkpointing to true, or lower pack_tokens (now 256)" in told
    assert "set gradient_checkpointing" not in refusal(place, tmp_path, gradient_checkpointing=True)
    # It advised to lower what the longest row does not let down: a pack is never shorter than a row.
    told = refusal(place, tmp_path, pack_tokens=64)
    assert "pack_tokens" not in told
    assert "lower max_tokens below the longest row's 144" in told


def test_torch_runs_out_of_memory_as_expected() -> None:
    with pytest.raises(resuming.TrainingError, match="out of memory"), resuming.memory_told("test", 1, True):
        torch.empty(2**60)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), resuming.memory_told("test", 1, True):
        raise RuntimeError("shapes do not match")


def losses(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> None:
    """Put these in place of the losses of updates."""
    monkeypatch.setattr(training._Loop, "update", lambda _self, number: torch.tensor([values[number], 1.0, SAMPLES]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_saves_nothing_after_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    losses(monkeypatch, [2.0, 2.0, bad, 2.0, 2.0, 2.0])
    told = refusal(place, tmp_path, checkpoint_minutes=EVERY)
    assert f"update 3 of 6: loss {bad}" in told
    assert "lower learning_rate" in told
    assert [path.name for path in sorted((tmp_path / "states").glob("*/*"))] == ["update-000001", "update-000002"]


def test_a_diverged_loss_ends_the_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses(monkeypatch, [2.0, 2.0, 3.0, 5.0, 8.0, 1.0])
    told = refusal(place, tmp_path, diverged_updates=2, diverged_factor=3.0)
    assert "update 5 of 6: diverged: a mean loss of 6.5 over 2 updates, 2 at first; expected at most 3 times" in told
    losses(monkeypatch, [2.0, 2.0, 3.0, 5.0, 8.0, 1.0])
    assert len(tune(place, tmp_path, diverged_updates=2, diverged_factor=0.0)["history"]) == 6
    assert len(tune(place, tmp_path, diverged_updates=2, diverged_factor=3.5)["history"]) == 6
