"""Several processes: one loss curve however weights are spread, states that go on exactly, and an end of all where one ends."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import psutil
import pytest

from star1 import launching, params, peers, recipe, sharding
from star1.errors import Star1Error
from star1.records import read_json
from star1.workflow.inputs import Inputs
from star1.workflow.lookups import Params
from star1.workflow.needs import Needs
from tests import spread
from tests.conftest import ROOT
from tests.micro import base_and_rows, fresh_accelerate, small_settings
from tests.test_resuming import EVERY

torch = pytest.importorskip("torch")
LIMIT_S = 300  # of a launch; one takes 10 to 40 s
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and rows."""
    return base_and_rows(tmp_path_factory.mktemp("place"))


LAUNCH = """
import sys
from star1 import errors, launching
errors.run(lambda: launching.launch("test", 2, "tests.spread", sys.argv[1:]))
"""


@dataclasses.dataclass
class Ways:
    """What `tests.spread ways` left."""

    root: Path
    told: str
    alone: list[dict[str, Any]]

    def facts(self, way: str) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.root / way / "facts.json")
        return found

    def weights(self, way: str, what: str) -> bytes:
        return (self.root / way / what / "run/model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def ways(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """All ways in two processes, one after the other, and the same run in one."""
    root = tmp_path_factory.mktemp("ways")
    command = [sys.executable, "-c", LAUNCH, str(place), str(root)]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert (root / "offloaded/facts.json").exists(), done.stderr[-3000:]
    assert done.returncode == 1  # by the fault at its end
    alone = spread.tune(place, root / "alone", "none", processes=1)
    return Ways(root, done.stderr, alone["history"])


# ---------------------------------------------------------------- one curve, one checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("way", spread.WAYS)
def test_two_processes_give_the_loss_curve_of_one(ways: Ways, way: str) -> None:
    """Loss and norm of every update within 1e-5 in float32, gradients cut to a norm, packs of no weight among them."""
    found = ways.facts(way)["whole"]
    assert len(found) == len(ways.alone) == 12
    assert ways.facts(way)["settings"]["sharding"] == spread.WAYS[way].get("sharding", "none")
    for key in ("loss", "norm"):
        assert [one[key] for one in found] == pytest.approx([one[key] for one in ways.alone], rel=1e-5)
    assert min(one["norm"] for one in found) > spread.CHANGES["gradient_norm"]  # cutting is at work in all


@pytest.mark.slow
def test_the_ways_are_not_one_and_the_same(ways: Ways) -> None:
    """Accelerate passed over a plugin on the CPU, and data-parallel runs agreed with each other to the last bit."""
    kept = {way: {path.name for path in (ways.root / way).glob("kept/*")} for way in spread.WAYS}
    randoms = {"random-00000.safetensors", "random-00001.safetensors"}
    assert kept["none"] == {"optimizer.safetensors", "state.json", "weights.safetensors", *randoms}
    parts = {f"{name}-0000{rank}.safetensors" for name in ("optimizer", "random", "weights") for rank in (0, 1)}
    assert kept["fsdp"] == {*parts, "state.json"}
    whole = (ways.root / "none/kept/optimizer.safetensors").stat().st_size
    for rank in (0, 1):
        share = (ways.root / f"fsdp/kept/optimizer-0000{rank}.safetensors").stat().st_size / whole
        assert 0.4 < share < 0.65
    states = {way: sorted(path.name for path in (ways.root / way).glob("kept/deepspeed/*")) for way in spread.WAYS}
    moments = [f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)]
    assert [name for name in states["zero2"] if "model" in name] == ["mp_rank_00_model_states.pt"]
    assert len([name for name in states["zero3"] if "model" in name]) == 2
    for way in ("zero2", "zero3", "offloaded"):
        assert [name for name in states[way] if "optim" in name] == moments


@pytest.mark.slow
@pytest.mark.parametrize("way", spread.WAYS)
def test_the_checkpoint_is_whole_tied_once_and_nothing_else(ways: Ways, place: Path, way: str) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    folder = ways.root / way / "whole/run"
    assert {path.name for path in folder.iterdir()} == {path.name for path in (place / "micro").iterdir()} - {
        "manifest.json"
    }
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (place / "micro" / name).read_bytes()
    found, base = load_file(folder / "model.safetensors"), load_file(place / "micro/model.safetensors")
    assert {name: (one.dtype, one.shape) for name, one in found.items()} == {
        name: (one.dtype, one.shape) for name, one in base.items()
    }
    assert "lm_head.weight" not in found
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    alone = load_file(ways.root / "alone/run/model.safetensors")
    for name, tensor in found.items():  # rounded to bfloat16, of which one step is 2 ** -8
        torch.testing.assert_close(tensor.float(), alone[name].float(), rtol=2**-7, atol=1e-4)


# ---------------------------------------------------------------- going on


@pytest.mark.slow
@pytest.mark.parametrize("way", spread.WAYS)
def test_a_signal_to_one_process_stops_all_and_the_run_goes_on_to_the_same_bits(ways: Ways, way: str) -> None:
    """From the state before the newest, since a bit of that one was flipped in what the second process wrote."""
    facts = ways.facts(way)
    assert facts["status"] == 128 + signal.SIGTERM
    assert facts["kept"] == ["update-000001", "update-000002"]
    assert facts["harmed"] != "state.json"
    assert f"update-000002/{facts['harmed']}: torn training state; not used" in ways.told
    assert ways.told.count("update-000001: goes on after update 1\n") == len(spread.WAYS)
    assert facts["resumed"] == facts["whole"]
    assert ways.weights(way, "resumed") == ways.weights(way, "whole")


def flags(place: Path, **changes: Any) -> list[str]:
    settings = dataclasses.asdict(small_settings(**{**spread.CHANGES, "checkpoint_minutes": EVERY, **changes}))
    choices = {"base": "micro", "data": ["rows"], "think": settings.pop("think"), "seed": settings.pop("seed")}
    return [
        *("--run", "run", "--base", str(place / "micro/manifest.json"), "--data", str(place / "rows.jsonl")),
        *("--settings", orjson.dumps(settings).decode(), "--choices", orjson.dumps(choices).decode()),
        *("--output", "models/run/manifest.json", "--metrics", "metrics/run.json", "--threads", "2"),
    ]


def started(place: Path, folder: Path, *launcher: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", *launcher, "scripts.finetune", *flags(place, sharding="zero3")]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def after(folder: Path, update: int, process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Wait until a state is saved; gives the processes that train."""
    end = time.monotonic() + LIMIT_S
    while not any(int(path.name[7:]) >= update for path in folder.glob(".work/finetune-states/run/*/update-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "no state is saved"
        time.sleep(0.002)
    return list(psutil.Process(process.pid).children())


@pytest.mark.slow
def test_sigterm_and_kill_end_all_processes_and_the_run_goes_on_to_the_same_weights(
    ways: Ways, place: Path, tmp_path: Path
) -> None:
    """ZeRO-3 as the rule starts it: SIGTERM to the launcher, then kill -9 of it, whose processes would train on alone.

    The last start is by an outside launcher, as over several machines.
    """
    with started(place, tmp_path) as process:
        trains = after(tmp_path, 1, process)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=LIMIT_S)[1]
    assert len(trains) == 2
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in told.strip().splitlines()[-1]
    assert "Traceback" not in told
    first = max(int(path.name[7:]) for path in tmp_path.glob(".work/finetune-states/run/*/update-*"))
    with started(place, tmp_path) as process:
        trains = after(tmp_path, first + 1, process)
        process.kill()
        process.communicate(timeout=LIMIT_S)
    assert psutil.wait_procs(trains, timeout=10)[1] == []
    assert not (tmp_path / "models/run/manifest.json").exists()
    outside = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--")
    with started(place, tmp_path, *outside) as process:
        out, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, told
    assert out.count("finetune run: 12 rows used") == 1  # each wrote and published, into what the other was moving away
    assert told.count("goes on after update") == 1
    assert read_json(tmp_path / "metrics/run.json")["history"] == ways.facts("zero3")["whole"]
    assert (tmp_path / "models/run/model.safetensors").read_bytes() == ways.weights("zero3", "whole")
    assert not any((tmp_path / ".work/finetune-states").iterdir())


# ---------------------------------------------------------------- one ends, all end


@pytest.mark.slow
def test_all_end_when_one_has_no_memory_left(ways: Ways) -> None:
    """The other waits for it in the middle of an update; each tells a line, and the launcher which was first."""
    lines = ways.told.strip().splitlines()
    assert "Traceback" not in ways.told
    (told,) = [line for line in lines if "out of memory" in line]
    assert told.startswith("error: finetune run: out of memory (CUDA out of memory.")
    assert lines[-1] == (
        "error: test: process 2 of 2 ended with status 1; expected all to finish. Hint: what it told stands above"
    )


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (3, "process 2 of 4 ended with status 3; expected all to finish. Hint: what it told stands above"),
        (-9, "process 2 of 4 was killed by SIGKILL; expected all to finish. Hint: SIGKILL is what a system does"),
    ],
)
def test_what_the_launcher_tells(status: int, told: str) -> None:
    assert f"finetune run: {told}" in str(launching._failed("finetune run", 4, 1, status))


@pytest.mark.parametrize(
    "error", ["Connection closed by peer [127.0.0.1]:4711", "NCCL error: remote process exited or there was an error"]
)
def test_a_lost_process_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    monkeypatch.setattr(peers, "world", lambda: 2)
    with pytest.raises(peers.PeerError, match="process 1 of 2 lost another one"), peers.told("finetune run"):
        raise RuntimeError(error)
    with pytest.raises(RuntimeError, match="shapes"), peers.told("finetune run"):
        raise RuntimeError("shapes do not match")


# ---------------------------------------------------------------- what is started


def test_the_command_is_torchrun_with_the_jobs_own_flags() -> None:
    command = launching.command(3, "scripts.finetune", ["--run", "one", "--threads", "3"])
    assert command[:6] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    assert command[-7:] == ["-m", "--", "scripts.finetune", "--run", "one", "--threads", "3"]
    from torch.distributed import run as torchrun

    parse_args: Any = torchrun.parse_args
    parsed = parse_args(command[3:])
    assert (parsed.nproc_per_node, parsed.module, parsed.training_script) == ("3", True, "scripts.finetune")
    assert parsed.training_script_args == ["--run", "one", "--threads", "3"]
    assert "SIGTERM" not in parsed.signals_to_handle


def test_processes_are_started_where_nobody_else_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert not launching.needed(1, "none")
    assert launching.needed(2, "none")
    assert launching.needed(1, "zero3")
    assert [launching.threads_each(8, processes) for processes in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert not launching.needed(2, "zero3")
    assert launching.threads_each(8, 1) == 1


@pytest.mark.parametrize(("kind", "expected"), [("tiny", (4, 0)), ("hub", (4, 4))])
def test_threads_and_gpus_of_a_job_follow_from_its_processes(kind: str, expected: tuple[int, int]) -> None:
    values = params.read_yaml(ROOT / "params.yaml")
    values["finetune"]["settings"]["processes"] = 4
    values["fetch"]["models"]["tiny"]["kind"] = kind
    inputs, wildcards = Inputs(Params(values)), SimpleNamespace(run="star1")
    needs = Needs(values["resources"], None)("finetune", lambda _: "star1", inputs.processes, inputs.run_on_gpu)
    assert (inputs.processes(wildcards), needs["gpu"](wildcards) or 0) == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"processes": 8},
            "training settings: processes: 8 with a batch_size of 4, 0.5 samples for each in an update; expected at most 4.",
        ),
        ({"sharding": "zero1"}, "training settings: sharding: 'zero1'; expected none or zero2 or zero3 or fsdp."),
        ({"offload": "optimizer"}, "training settings: offload: optimizer with sharding none; expected none, or"),
        (
            {"offload": "all", "sharding": "fsdp"},
            "training settings: offload: all with sharding fsdp; expected none, or",
        ),
        (
            {"offload": "all", "sharding": "zero2"},
            "training settings: offload: all with sharding zero2; expected optim",
        ),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Star1Error) as caught:
        small_settings(**changes)
    assert str(caught.value).startswith(told)


def test_params_are_checked_by_the_same_rule(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("    processes: 1\n", "    processes: 9\n"))
    with pytest.raises(params.ParamsError) as caught:
        params.load(tmp_path / "params.yaml", ROOT)
    assert str(caught.value) == (
        f"{tmp_path}/params.yaml: finetune.settings.processes: 9 with a batch_size of 8, 0.89 samples for each in an update;"
        " expected at most 8."
    )


@pytest.fixture
def of_eight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eight processes, as an outside launcher would have started them."""
    fresh_accelerate()
    monkeypatch.setattr(peers, "world", lambda: 8)
    monkeypatch.setattr(peers, "wait", lambda: None)
    monkeypatch.setattr(sharding, "accelerator_for", lambda *_: None)
    yield
    fresh_accelerate()


@pytest.mark.usefixtures("of_eight")
def test_more_processes_than_samples_are_refused_whoever_started_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        spread.tune(place, tmp_path, "none")
    assert ended.value.code == 1
    told = "error: finetune run: processes: 8 for updates of 5 samples, 0.62 each; expected at most 5."
    assert capsys.readouterr().err == f"{told} Hint: lower processes, or raise batch_size\n"


def test_an_update_of_other_samples_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a process sees other rows: what it should have taken is nowhere."""
    from star1 import training

    monkeypatch.setattr(training, "shares", lambda packs, *_: [(packs[0], 1.0)])
    with pytest.raises(Star1Error, match=r"update 1 of 12: \d samples over 1 processes; expected 5, each once"):
        spread.tune(place, tmp_path, "none", processes=1)


def test_deepspeed_is_told_all_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    config = sharding.deepspeed_config(3, "all", 1.0)
    assert config["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert (config["gradient_accumulation_steps"], config["gradient_clipping"]) == (1, 1.0)
    assert not {"fp16", "bf16", "optimizer", "scheduler"} & {*config}
    assert "offload_param" not in sharding.deepspeed_config(2, "optimizer", 1.0)["zero_optimization"]
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(Star1Error, match=r"zero2, and deepspeed cannot be imported.* Hint: pip install"):
        sharding._deepspeed(2, "none", 1.0)


def test_defaults_are_one_process_and_nothing_spread() -> None:
    settings = recipe.Settings()
    assert (settings.processes, settings.sharding, settings.offload) == (1, "none", "none")
