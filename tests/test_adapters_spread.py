"""Adapters while weights are spread: the curve of one process, states of adapters alone that go on exactly, the same export."""

import dataclasses
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1 import adapters, checkpoints
from star1.records import read_json, write_rows
from tests import spread
from tests.conftest import ROOT
from tests.micro import ROWS, checkpoint
from tests.test_sharding import ENVIRONMENT, LAUNCH, LIMIT_S, Ways, after, flags

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and rows."""
    folder = tmp_path_factory.mktemp("place")
    checkpoint(folder / "micro", loudness=20)  # as in test_adapters
    write_rows(folder / "rows.jsonl", ROWS)
    return folder


@pytest.fixture(scope="module")
def ways(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """All ways in two processes, one after the other, and the same run in one."""
    root = tmp_path_factory.mktemp("ways")
    command = [sys.executable, "-c", LAUNCH, str(place), str(root), "adapters"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alone = spread.tune(place, root / "alone", "none", processes=1, adapter=spread.LORA, **spread.STEEP)
    return Ways(root, done.stderr, alone["history"])


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(folder / "adapter" / adapters.WEIGHTS)
    return found


@pytest.mark.parametrize("way", spread.WAYS)
def test_two_processes_give_the_loss_curve_of_one(ways: Ways, way: str) -> None:
    """Loss and norm of every update within 1e-5 in float32, gradients cut to a norm; the adapters that come of it, too."""
    found = ways.facts(way)["whole"]
    assert len(found) == len(ways.alone) == 7
    assert ways.facts(way)["settings"]["sharding"] == spread.WAYS[way].get("sharding", "none")
    for key in ("loss", "norm"):
        assert [one[key] for one in found] == pytest.approx([one[key] for one in ways.alone], rel=1e-5)
    assert found[-1]["loss"] < 0.9 * found[0]["loss"]
    one, other = (weights(ways.root / name / "run") for name in ("alone", f"{way}/whole"))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert other[name].dtype == torch.float32
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("way", spread.ADAPTED)
def test_a_stopped_run_goes_on_to_the_same_bits(ways: Ways, way: str) -> None:
    """Also where each process draws: without sharding all took up what the main one had drawn.

    As for all weights, from the state before the newest, since a bit of that one was flipped.
    """
    facts = ways.facts(way)
    assert facts["status"] == 143
    assert facts["kept"] == ["update-000001", "update-000002"]
    assert f"update-000002/{facts['harmed']}: torn training state; not used" in ways.told
    assert facts["resumed"] == facts["whole"]
    one, other = (checkpoints.describe(ways.root / way / name / "run") for name in ("whole", "resumed"))
    assert one == other
    assert {"adapter/adapter_model.safetensors", "model.safetensors"} <= one.keys()


@pytest.mark.parametrize("way", spread.WAYS)
def test_a_state_holds_nothing_of_the_base(ways: Ways, way: str) -> None:
    """Not the output matrix either, which DeepSpeed kept, since it is tied and has a second name."""
    from safetensors import safe_open

    kept, names = ways.root / way / "kept", set()
    for path in kept.glob("weights*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= {*file.keys()}
    for path in kept.glob("deepspeed/*model_states.pt"):
        state = torch.load(path, weights_only=False)
        assert not state["frozen_param_fragments"]
        names |= {*state["module"]}
    assert names
    assert all("lora_" in name for name in names), names
    trained = sum(one.numel() for one in weights(ways.root / "alone/run").values())
    moments = sum(path.stat().st_size for path in kept.rglob("*optim*"))
    assert 2 * 4 * trained < moments < 3 * 4 * trained + 60_000  # two or three numbers a weight, and names


@pytest.mark.parametrize("way", spread.WAYS)
def test_the_base_stays_in_bfloat16_as_it_was_read_and_adapters_are_float32(ways: Ways, way: str) -> None:
    """With precision bf16; DeepSpeed and FSDP2 spread the base as well, though it is not trained."""
    both = read_json(ways.root / way / "lying.json")
    assert len(both) == 2
    for facts in both:
        assert facts["unchanged"]
        assert facts["base"] == ["torch.bfloat16"]
        assert facts["adapter"] == ["torch.float32"]
    shares = [facts["base_share"] for facts in both]
    if way in ("none", "zero2"):
        assert shares == [1, 1]
    else:
        assert 1 <= sum(shares) < 1.05  # what cannot be halved is padded
    if way == "fsdp":
        assert [facts["adapter_share"] for facts in both] == [0.5, 0.5]


@pytest.mark.parametrize("way", spread.WAYS)
def test_the_export_is_that_of_one_process(ways: Ways, place: Path, way: str) -> None:
    """Base and adapter by transformers and peft, adapter merged in float32, and the checkpoint, which is that rounded once."""
    from peft import PeftModel

    def logits(model: Any) -> Any:
        with torch.no_grad():
            return model.eval()(input_ids=torch.arange(4, 60)[None]).logits

    folder = ways.root / way / "whole/run"
    base = checkpoints.load_model(place / "micro", torch.float32)
    plain = logits(base)
    beside = logits(PeftModel.from_pretrained(base, str(folder / "adapter")))
    largest = beside.abs().max()
    assert (beside - plain).abs().max() > 0.1 * largest  # so the adapters do something
    whole = adapters.merged(place / "micro", folder / "adapter", torch.float32)
    assert (logits(whole) - beside).abs().max() <= 1e-5 * largest
    exported = checkpoints.load_model(folder, torch.float32)
    assert {
        name: one.to(torch.bfloat16).float().equal(exported.state_dict()[name])
        for name, one in whole.state_dict().items()
    } == dict.fromkeys(exported.state_dict(), True)
    assert (logits(exported) - beside).abs().max() <= 2**-5 * largest
    one, other = (
        read_json(ways.root / name / "adapter/adapter_config.json") for name in ("alone/run", f"{way}/whole/run")
    )
    assert one == other


def test_a_process_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_weights(
    ways: Ways, place: Path, tmp_path: Path
) -> None:
    """kill -9 of one of two at a random update, FSDP2, started as the rule starts it."""
    choices = {"base": "micro", "data": ["rows"], "think": True, "seed": 2002, "tier": "lora"}
    lora = {key: value for key, value in dataclasses.asdict(spread.LORA).items() if key != "tier"}
    command = [sys.executable, "-m", "scripts.finetune", *flags(place, sharding="fsdp", **spread.STEEP)]
    command += ["--choices", orjson.dumps(choices).decode(), "--lora", orjson.dumps(lora).decode()]

    def started() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    with started() as process:
        trains = after(tmp_path, random.randint(1, 4), process)
        trains[1].kill()
        told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 1
    assert "was killed by SIGKILL" in told
    assert not (tmp_path / "models/run/manifest.json").exists()
    with started() as process:
        told = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, told
    assert told.count("goes on after update") == 1
    assert read_json(tmp_path / "metrics/run.json")["history"] == ways.facts("fsdp")["whole"]
    manifest = checkpoints.verify(tmp_path / "models/run")
    assert manifest["files"] == checkpoints.describe(ways.root / "fsdp/whole/run")
