"""What a run takes: figures from the history, energy where it can be read, and nothing of it in what equal runs have equal."""

import csv
import os
import shutil
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1 import energy, metering
from star1.errors import SettingError
from star1.records import read_json
from star1.trackers import Watch, check
from tests.loopback import run_script
from tests.micro import base_and_rows, fresh_accelerate

torch = pytest.importorskip("torch")
HISTORY: list[dict[str, Any]] = [
    {"update": number, "loss": 5.0 / number, "rate": 1e-3, "norm": 1.0, "target_tokens": 10} for number in (1, 2, 3)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_and_rows(tmp_path_factory.mktemp("place"))


def finetune(place: Path, name: str, trackers: list[str] | None = None, **changes: Any) -> None:
    fresh_accelerate()
    settings = {"epochs": 2, "batch_size": 4, "pack_tokens": 256, "max_tokens": 256, "precision": "float32"} | changes
    run_script(
        "finetune",
        *("--run", "run", "--base", str(place / "micro/manifest.json"), "--data", str(place / "rows.jsonl")),
        *("--settings", orjson.dumps(settings).decode(), "--output", f"{name}/manifest.json"),
        *("--metrics", f"{name}.json", "--plot", f"{name}.csv", "--costs", f"{name}.costs.json"),
        *("--trackers", orjson.dumps(trackers or []).decode()),
    )


def test_a_run_tells_what_it_took_and_equal_runs_stay_equal(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finetune(place, "one")
    finetune(place, "two")
    for name in ("manifest.json", "model.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    for suffix in (".json", ".csv"):
        assert Path(f"one{suffix}").read_bytes() == Path(f"two{suffix}").read_bytes()
    costs = read_json(Path("one.costs.json"))
    assert costs["updates_measured"] == 6
    assert costs["tokens_per_second"] > 0
    assert costs["seconds"] >= costs["training_seconds"] > 0
    assert costs["model_flops"] > 0
    assert costs["peak_memory"]["resident_mib"] > 100
    assert costs["versions"]["torch"] == torch.__version__
    assert costs["versions"]["python"].count(".") == 2
    if not torch.cuda.is_available():
        # Nothing is invented: no peak is known of a CPU, and there are no GPU-hours.
        assert costs["mfu"] is None
        assert "no peak known of cpu" in costs["mfu_reason"]
        assert costs["gpu_hours"] is None
        assert costs["devices"] == ["cpu"]


def test_the_curve_is_a_table_of_the_history(tmp_path: Path) -> None:
    metering.write(None, {}, tmp_path / "plot.csv", HISTORY)
    rows = list(csv.DictReader((tmp_path / "plot.csv").open()))
    assert [float(row["loss"]) for row in rows] == pytest.approx([5.0, 2.5, 5 / 3], rel=1e-5)
    assert [row["update"] for row in rows] == ["1", "2", "3"]


def test_speed_counts_what_this_start_has_computed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on after a state has not computed the updates before it."""
    meter = metering.Meter()
    meter.marks = [(2, 100.0), (3, 104.0)]
    example = types.SimpleNamespace(ids=[1] * 50, labels=[-100] * 10 + [1] * 40)
    told = meter.speed([[example]] * 3, place / "micro", ["NVIDIA A100-SXM4-80GB"], "bf16")
    assert told["tokens_per_second"] == 50 / 4
    assert told["mfu"] == round(told["model_flops"] / 4 / 312e12, 4)
    meter.marks = []
    assert meter.speed([], place / "micro", ["cpu"], "bf16")["tokens_per_second"] is None


def test_several_processes_are_added_up() -> None:
    one = {"resident": 3 * 2**20, "allocated": 5 * 2**20, "reserved": 8 * 2**20}
    gauge = {"joules": 1.8e6, "source": "NVML"}
    assert metering._highest([one, one | {"allocated": 7 * 2**20}])["gpu_allocated_mib"] == 7
    both = metering._joules([{"energy": gauge}, {"energy": gauge}])
    assert (both["joules"], both["kwh"]) == (3_600_000, 1.0)
    silent = {"energy": {"joules": None, "source": "did not tell"}}
    assert metering._joules([{"energy": gauge}, silent]) == {
        "joules": None,
        "kwh": None,
        "source": None,
        "reason": "did not tell",
    }
    other = {"energy": {"joules": None, "source": metering.ANOTHER}}
    assert metering._joules([{"energy": gauge}, other])["joules"] == 1_800_000


# ---------------------------------------------------------------- energy


def domain(root: Path, name: str, label: str, count: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for file, text in (("name", label), ("energy_uj", str(count)), ("max_energy_range_uj", "10000000")):
        (folder / file).write_text(text + "\n")
    return folder


def test_counters_of_processors_run_over_and_parts_do_not_count_twice(tmp_path: Path) -> None:
    whole = domain(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 5)
    assert list(energy.packages(tmp_path)) == [whole]
    counters = energy.Counters([whole])
    (whole / "energy_uj").write_text("9500000\n")
    assert counters.spent() == pytest.approx(0.5)
    (whole / "energy_uj").write_text("1500000\n")
    assert counters.spent() == pytest.approx(2.0)


def test_where_nothing_can_be_read_the_reason_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    told = energy.gauge(None).stop()
    assert told["joules"] is None
    assert "no readable counter" in told["source"]
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert energy.gauge("GPU-1").stop()["source"] == "neither pynvml nor nvidia-smi is there"


def test_power_times_time_is_energy_and_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    power = energy.Power(lambda: 300.0)
    assert [power.spent(), power.spent()] == [600.0, 900.0]
    silent = energy.Gauge("a device", lambda: None).stop()
    assert silent == {"joules": None, "source": "a device did not tell"}


def test_the_drivers_counter_goes_before_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([1000, 1500, 4000])
    pynvml = types.SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings),
    )
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    told = energy.gauge("GPU-1").stop()
    assert told["joules"] == pytest.approx(2.5)  # from the second reading on, in which it is seen to tell
    assert told["source"].startswith("NVML")
    assert threading.active_count() < 50


# ---------------------------------------------------------------- trackers


class Calls:
    """A package that notes what it is asked to do."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def init(self, **given: Any) -> "Calls":
        self.made.append(("init", given))
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self.made.append(("log", step, figures))

    def finish(self) -> None:
        self.made.append(("finish",))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "TRACKIO_DIR", "RANK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nowhere")
def test_a_tracker_that_is_not_installed_ends_the_run_before_it_starts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit):
        finetune(place, "one", ["wandb"])
    assert not Path("one").exists()
    with pytest.raises(SettingError, match=r"wandb cannot be imported.*Hint: pip install wandb"):
        check(["wandb"], "run")
    with pytest.raises(SettingError, match="'mlflow'; expected some of tensorboard"):
        check(["mlflow"], "run")


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("name", "variable", "value"), [("wandb", "WANDB_MODE", "offline"), ("trackio", "TRACKIO_DIR", "trackio")]
)
def test_figures_go_to_a_tracker_that_stays_on_this_machine(
    name: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    monkeypatch.setitem(sys.modules, name, calls)
    check([name], "a+b")
    assert os.environ[variable].endswith(value)
    with Watch([name], "a+b", {"epochs": 5}) as watch:
        watch.look(HISTORY[:1])  # what a saved state has was sent before
        watch.look(HISTORY[:1])
        watch.look(HISTORY)
    (first, given), *logs, last = calls.made
    assert (first, last) == ("init", ("finish",))
    assert given["config"] == {"epochs": 5}
    assert given["name"] == "a+b"
    assert [entry[1] for entry in logs] == [2, 3]
    assert logs[0][2]["train/loss"] == 2.5


@pytest.mark.usefixtures("nowhere")
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Calls())
    monkeypatch.setenv("WANDB_MODE", "online")
    check(["wandb"], "run")
    assert os.environ["WANDB_MODE"] == "online"


@pytest.mark.usefixtures("nowhere")
def test_tensorboard_gets_scalars_and_purges_what_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            seen.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def close(self) -> None:
            seen.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    check(["tensorboard"], "run")
    with Watch(["tensorboard"], "run", {}) as watch:
        watch.look(HISTORY[:2])
        watch.look(HISTORY)
    assert seen[0] == (".work/trackers/run/tensorboard", 3)
    assert ("train/loss", 5 / 3, 3) in seen
    assert seen[-1] == "closed"


@pytest.mark.usefixtures("nowhere")
def test_a_tracker_that_cannot_be_closed_does_not_lose_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is closed before the checkpoint is published."""

    class Broken:
        def close(self) -> None:
            raise OSError("no space left")

    watch = Watch([], "run", {})
    with watch:
        watch.open["wandb"] = Broken()  # type: ignore[assignment]
    assert "wandb could not be closed (no space left)" in capsys.readouterr().err


@pytest.mark.usefixtures("nowhere")
def test_a_tracker_that_fails_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = Calls()

    class OtherError(Exception):
        """Of a package of its own, as sqlite3's are."""

    def fail(*_: Any, **__: Any) -> None:
        raise OtherError("disk full")

    monkeypatch.setattr(calls, "log", fail)
    monkeypatch.setitem(sys.modules, "wandb", calls)
    with Watch(["wandb"], "run", {}) as watch:
        watch.look([])
        watch.look(HISTORY)
    assert capsys.readouterr().err.count("wandb takes no more figures (disk full)") == 1


@pytest.mark.usefixtures("nowhere")
def test_a_run_sends_its_history(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setitem(sys.modules, "wandb", calls)
    finetune(place, "one", ["wandb"], gather_every=2)
    history = read_json(Path("one.json"))["history"]
    logs = [entry for entry in calls.made if entry[0] == "log"]
    assert [entry[2]["train/loss"] for entry in logs] == [entry["loss"] for entry in history]
