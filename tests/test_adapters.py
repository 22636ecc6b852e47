"""Adapters: they alone are trained, what they make of the base is an ordinary checkpoint, and a run goes on exactly."""

import copy
import dataclasses
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1 import adapters, chat, checkpoints, engines, resuming, sft, sharding
from star1.errors import InputError, SettingError, StoppedError
from star1.records import read_json, write_json
from tests.conftest import ROOT
from tests.loopback import run_script
from tests.micro import ROWS, base_and_rows, fresh_accelerate, small_settings, weights_digest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
LORA = adapters.Settings(rank=4, alpha=8)
STEEP: dict[str, Any] = {"learning_rate": 0.03, "epochs": 12}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and rows."""
    # Adapters leave the output matrix as it is: with the small one that it comes with, no loss could fall far.
    return base_and_rows(tmp_path_factory.mktemp("place"), loudness=20)


def tune(place: Path, folder: Path, adapter: adapters.Settings | None = LORA, **changes: Any) -> dict[str, Any]:
    fresh_accelerate()
    data = [str(place / "rows.jsonl")]
    return sft.finetune(place / "micro", data, small_settings(**changes), folder / "run", folder / "states", adapter)


@pytest.fixture(scope="module")
def trained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder and record of a run with adapters, not published."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, tune(place, folder, **STEEP)


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(4, 60)[None]).logits


def test_adapters_alone_are_trained(place: Path) -> None:
    """No other weight gets a gradient or moves, and the optimizer holds no other."""
    fresh_accelerate()
    wrapped = adapters.wrap(place / "micro", LORA, small_settings())
    model = wrapped.get_base_model()
    own = {name for name, one in model.named_parameters() if one.requires_grad}
    assert own
    assert all(".lora_A." in name or ".lora_B." in name for name in own)
    layers = {name.split(".")[-4] for name in own}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = sft.make_optimizer(model, small_settings()).param_groups
    assert sum(len(group["params"]) for group in groups) == len(own)
    tokenizer = chat.load_tokenizer(str(place / "micro"))
    examples, _ = sft.render_all(tokenizer, ROWS, small_settings())
    sft.train(model, [examples] * 2, small_settings(), "test")
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == own
    assert all(one.grad is None for one in model.parameters() if not one.requires_grad)


def test_untrained_adapters_change_nothing_and_the_loss_is_the_chunked_one(place: Path) -> None:
    """`Scored` takes hidden states and output matrix of the model with adapters, as of any other."""
    from star1.losses import Scored

    wrapped = adapters.wrap(place / "micro", LORA, small_settings())
    plain = checkpoints.load_model(place / "micro", torch.float32)
    assert torch.equal(logits(wrapped.get_base_model()), logits(plain))
    assert Scored(wrapped.get_base_model()).chunked


def test_packed_and_checkpointed_losses_are_those_of_one_row_at_a_time(place: Path) -> None:
    """With adapters that do something: packed attention, chunked loss and recomputation against the plain forward pass."""
    tokenizer = chat.load_tokenizer(str(place / "micro"))
    examples, _ = sft.render_all(tokenizer, ROWS, small_settings())
    wrapped = adapters.wrap(place / "micro", LORA, small_settings())
    with torch.no_grad():
        for name, one in wrapped.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.05)
    curves, ends = [], []
    for changes in ({"pack_tokens": 1}, {"pack_tokens": 4096}, {"pack_tokens": 4096, "gradient_checkpointing": True}):
        fresh_accelerate()
        model = copy.deepcopy(wrapped).get_base_model()
        _, history = sft.train(model, [examples] * 3, small_settings(**changes), "test")
        curves.append([entry["loss"] for entry in history])
        ends.append(torch.cat([one.detach().flatten() for one in model.parameters() if one.requires_grad]))
    model = wrapped.get_base_model()
    with torch.no_grad():
        plain = 0.0
        for one in examples:
            scores = model(input_ids=torch.tensor([one.ids])).logits[0, :-1]
            labels = torch.tensor(one.labels[1:])
            plain += torch.nn.functional.cross_entropy(scores, labels, ignore_index=-100, reduction="sum").item()
    assert curves[0][0] == pytest.approx(plain / sft.target_count(examples), rel=1e-5)
    for curve, end in zip(curves[1:], ends[1:], strict=True):
        assert curve == pytest.approx(curves[0], rel=1e-4)
        torch.testing.assert_close(end, ends[0], rtol=1e-2, atol=1e-3)


def test_the_loss_falls(trained: tuple[Path, dict[str, Any]]) -> None:
    losses = [entry["loss"] for entry in trained[1]["history"]]
    assert losses[-1] < 0.8 * losses[0]


def test_merged_weights_do_what_the_adapters_do(place: Path, trained: tuple[Path, dict[str, Any]]) -> None:
    """To 1e-5 of the largest logit in float32; the checkpoint is those weights, rounded once."""
    from peft import PeftModel

    folder = trained[0] / "run"
    base = checkpoints.load_model(place / "micro", torch.float32)
    plain, names = logits(base), set(base.state_dict())
    beside = logits(PeftModel.from_pretrained(base, str(folder / "adapter")))
    whole = adapters.merged(place / "micro", folder / "adapter", torch.float32)
    found = logits(whole)
    assert (beside - plain).abs().max() > 0.1 * plain.abs().max()  # so the adapters do something
    assert (found - beside).abs().max() <= 1e-5 * beside.abs().max()
    exported = checkpoints.load_model(folder, "auto").state_dict()
    assert set(exported) == names == set(whole.state_dict())
    for name, tensor in whole.state_dict().items():
        assert exported[name].dtype == torch.bfloat16
        assert torch.equal(exported[name], tensor.to(torch.bfloat16)), name


def test_the_checkpoint_is_an_ordinary_one(place: Path, trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Published with its adapter beside it, verified, and read by what generates, which does not see the adapter."""
    staging = tmp_path / "run"
    shutil.copytree(trained[0] / "run", staging)
    sft.publish(trained[1], staging, tmp_path / "models/run/manifest.json", tmp_path / "m.json", tmp_path / "states")
    manifest = checkpoints.verify(tmp_path / "models/run")
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model.safetensors"} <= set(
        manifest["files"]
    )
    assert manifest["record"]["adapter"] == dataclasses.asdict(LORA)
    assert set(manifest["record"]["versions"]) == {"torch", "transformers", "accelerate", "peft"}
    model = engines.open_model("run", str(tmp_path / "models/run/manifest.json"), "transformers")
    assert model is not None
    assert read_json(tmp_path / "models/run/config.json") | {"transformers_version": None} == read_json(
        place / "micro/config.json"
    ) | {"transformers_version": None}


def test_equal_runs_write_equal_files(place: Path, tmp_path: Path) -> None:
    """The library keeps names of layers in a set, and its model card names this machine's paths."""
    found = []
    for name in ("one", "two"):
        tune(place, tmp_path / name)
        found.append(checkpoints.describe(tmp_path / name / "run"))
    assert found[0] == found[1]
    assert str(place) not in (tmp_path / "one/run/adapter/adapter_config.json").read_text()
    targets = read_json(tmp_path / "one/run/adapter/adapter_config.json")["target_modules"]
    assert targets == sorted(targets)
    assert not list((tmp_path / "one").rglob("README*"))


def test_the_seed_decides_what_is_drawn(place: Path, tmp_path: Path) -> None:
    first = [tune(place, tmp_path / str(seed), seed=seed)["history"][0]["loss"] for seed in (1, 2)]
    assert first[0] != first[1]
    tensors = [adapters.wrap(place / "micro", LORA, small_settings(seed=seed)).state_dict() for seed in (1, 2, 1)]
    drawn = [name for name in tensors[0] if "lora_A" in name]
    assert all(torch.equal(tensors[0][name], tensors[2][name]) for name in drawn)
    assert not any(torch.equal(tensors[0][name], tensors[1][name]) for name in drawn)


# ---------------------------------------------------------------- going on


class Stopping(resuming.States):
    """States that stop the run as a signal would, after so many updates."""

    asked = 0

    def due(self) -> bool:
        self.asked += 1
        if self.asked == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return False


def stopped(place: Path, folder: Path, adapter: adapters.Settings = LORA) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "States", Stopping)
        with pytest.raises(StoppedError):
            tune(place, folder, adapter)
    (state,) = folder.glob("states/*/update-*")
    return state


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_stopped_run_goes_on_to_the_same_weights(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dropout: float
) -> None:
    """Also where something is drawn on the way; a state holds the adapters and nothing of the base."""
    from safetensors import safe_open

    adapter = dataclasses.replace(LORA, dropout=dropout)
    state = stopped(place, tmp_path / "stopped", adapter)
    with safe_open(state / "weights.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118
    capsys.readouterr()
    again = tune(place, tmp_path / "stopped", adapter)
    assert "goes on after update 2" in capsys.readouterr().err
    whole = tune(place, tmp_path / "whole", adapter)
    assert again["history"] == whole["history"]
    one, other = (checkpoints.describe(tmp_path / name / "run") for name in ("stopped", "whole"))
    assert one == other


def flags(place: Path, **changes: Any) -> list[str]:
    """Of the script, as the rule gives them."""
    settings = dataclasses.asdict(small_settings(**changes))
    choices = {"base": "micro", "data": ["rows"], "tier": "lora", "think": settings.pop("think"), "run": "r"}
    choices |= {"seed": settings.pop("seed"), "settings": {"learning_rate": 0.02}, "lora": {"rank": 3}}
    lora = {"rank": 16, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}
    given = {"settings": settings, "choices": choices, "lora": lora}
    return [
        *("--run", "r-seed1", "--base", str(place / "micro/manifest.json"), "--data", str(place / "rows.jsonl")),
        *(word for name, value in given.items() for word in (f"--{name}", orjson.dumps(value).decode())),
        *("--output", "models/r-seed1/manifest.json", "--metrics", "metrics.json"),
    ]


def started(place: Path, folder: Path, **changes: Any) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "scripts.finetune", *flags(place, **changes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_to_the_same_bits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 at a random update, through the script; the run's own settings and rank are those that count."""
    long = {"epochs": 10, "checkpoint_minutes": 1e-9}
    update, end = random.randint(1, 15), time.monotonic() + 120
    with started(place, tmp_path / "killed", **long) as process:
        while not any(
            int(path.name[7:]) >= update for path in tmp_path.glob("killed/.work/*-states/r-seed1/*/update-*")
        ):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "no state is saved"
            time.sleep(0.001)
        process.kill()
    assert not (tmp_path / "killed/models/r-seed1/manifest.json").exists()
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        fresh_accelerate()
        run_script("finetune", *flags(place, **long))
        assert ("goes on after update" in capsys.readouterr().err) == (name == "killed")
    one, other = (checkpoints.verify(tmp_path / name / "models/r-seed1") for name in ("killed", "whole"))
    assert one == other
    assert one["record"]["settings"]["learning_rate"] == 0.02
    assert one["record"]["adapter"] == {**dataclasses.asdict(LORA), "rank": 3}


def test_a_state_of_other_adapters_is_not_used(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped(place, tmp_path)
    for other in (None, dataclasses.replace(LORA, alpha=9)):
        capsys.readouterr()
        tune(place, tmp_path, other)
        assert "goes on" not in capsys.readouterr().err


def test_states_of_adapters_need_little_room(place: Path) -> None:
    """Twelve bytes for each weight that is trained, not for each there is."""
    wrapped = adapters.wrap(place / "micro", LORA, small_settings())
    tensors = sharding.distinct(wrapped.get_base_model())
    assert sum(one.numel() for one in tensors.values()) == sum(
        one.numel() for one in wrapped.parameters() if one.requires_grad
    )


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", ["zero2", "zero3", "fsdp"])
def test_four_bits_are_not_spread(place: Path, tmp_path: Path, kind: str) -> None:
    """It is said what would work in its place, before anything is read and whatever the machine has."""
    told = f"tier: qlora with sharding {kind}; expected sharding none.* Hint: sharding: none .* tier: lora is spread"
    with pytest.raises(SettingError, match=told):
        tune(place, tmp_path, dataclasses.replace(LORA, tier="qlora"), sharding=kind)
    assert not (tmp_path / "run").exists()


def test_qlora_is_refused_where_it_cannot_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order: no GPU, no library, a precision that four bits are not computed in."""
    adapter = dataclasses.replace(LORA, tier="qlora")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=r"finetune run: tier qlora: no CUDA device; .* Hint: set tier: lora"):
        tune(place, tmp_path, adapter)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingError, match="the library bitsandbytes is not there"):
        adapters.preflight(adapter, small_settings(), "finetune run")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(SettingError, match="precision float32; expected bf16"):
        adapters.preflight(adapter, small_settings(), "finetune run")
    adapters.preflight(adapter, small_settings(precision="bf16"), "finetune run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rnak": 3}, "unknown name 'rnak'"),
        ({"tier": "full"}, "tier: 'full'; expected lora or qlora"),
        ({"rank": 0}, "rank: 0; expected a number above 0"),
    ],
)
def test_settings_that_cannot_be_meant(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        adapters.settings_from(values)
    assert adapters.settings_from(None) is None
    assert adapters.settings_from({"tier": "lora", "targets": ["q_proj"]}) == adapters.Settings(targets=("q_proj",))


def test_targets_that_no_layer_is_called(place: Path) -> None:
    with pytest.raises(SettingError, match=r"adapter settings: targets: .*not found in the base model"):
        adapters.wrap(place / "micro", dataclasses.replace(LORA, targets=("nothing",)), small_settings())


# ---------------------------------------------------------------- code that comes with a model


def test_code_of_a_model_is_run_only_where_its_record_says_so(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left open, transformers asks on the terminal whether it may; and what is trained from such a base inherits the word."""
    import transformers

    folder = tmp_path / "coded"
    shutil.copytree(place / "micro", folder)
    config = read_json(folder / "config.json")
    config |= {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.M"},
    }
    write_json(folder / "config.json", config)
    (folder / "strange.py").write_text("raise SystemExit('this code was run')\n")
    with pytest.raises(InputError, match="model not readable"):
        checkpoints.load_model(folder, torch.float32)
    told: list[Any] = []

    def load(*_: Any, **options: Any) -> None:
        told.append(options["trust_remote_code"])
        raise OSError("seen enough")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", load)
    for record in ({}, {"remote_code": "trusted"}):
        write_json(folder / "manifest.json", {"kind": "hub", "files": {}, "record": record})
        with pytest.raises(InputError):
            checkpoints.load_model(folder, torch.float32)
        with pytest.raises(InputError):
            chat.load_tokenizer(str(folder))
    assert told == [False, False, True, True]


def test_what_is_trained_from_trusted_code_is_trusted(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "micro", tmp_path / "micro")
    shutil.copy(place / "rows.jsonl", tmp_path)
    manifest = read_json(tmp_path / "micro/manifest.json")
    write_json(tmp_path / "micro/manifest.json", manifest | {"record": {"remote_code": "trusted"}})
    assert tune(tmp_path, tmp_path, None, epochs=1)["record"]["remote_code"] == "trusted"
    assert "remote_code" not in tune(place, tmp_path, None, epochs=1)["record"]
    assert weights_digest(place / "micro")
