"""The memory preflight: what adds up, what a change brings, what is refused, and that a run's real peak is near."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from star1 import cli, fitting, launching, memory, rooms
from star1.errors import InputError, SettingError
from star1.memory import Plan
from star1.recipe import Settings
from star1.records import write_json
from star1.rooms import GIB
from star1.shapes import shape_of
from tests.conftest import ROOT
from tests.micro import SETTINGS, checkpoint
from tests.test_shapes import BASES

SMALL, SEVEN = shape_of(BASES["R1-Distill-Qwen-1.5B"][0]), shape_of(BASES["R1-Distill-Qwen-7B"][0])
LARGE = shape_of(BASES["R1-Distill-Qwen-32B"][0])


def total(shape: Any, **changes: Any) -> float:
    return sum(memory.estimate(shape, Plan(**changes)).values())


def test_weights_gradients_and_moments_of_a_full_run() -> None:
    found = memory.estimate(SMALL, Plan(precision="float32"))
    assert found["weights"] == found["gradients"] == 4 * SMALL.weights
    assert found["optimizer"] == 8 * SMALL.weights
    narrow = memory.estimate(SMALL, Plan())["weights"] - found["weights"]
    assert narrow == 2 * SMALL.layers * SMALL.linear


def test_each_change_brings_what_it_is_for() -> None:
    assert total(SMALL, checkpointing=True) < 0.7 * total(SMALL)
    assert total(SMALL, pack_tokens=2048, longest=2048) < total(SMALL)
    eight: dict[str, Any] = {"processes": 8, "checkpointing": True}
    sizes = [total(LARGE, **eight, sharding=kind) for kind in ("none", "zero2", "zero3")]
    assert sizes == sorted(sizes, reverse=True)
    assert total(LARGE, **eight, sharding="fsdp") < sizes[1]
    for kind in ("zero2", "zero3"):
        assert total(LARGE, **eight, sharding=kind, offload="optimizer") < total(LARGE, **eight, sharding=kind)
    assert total(LARGE, **eight, sharding="zero3", offload="all") < total(
        LARGE, **eight, sharding="zero3", offload="optimizer"
    )
    assert total(SEVEN, tier="qlora") < total(SEVEN, tier="lora") < total(SEVEN)
    # Without sharding, more processes do not make one of them smaller: torch has the gradients in buckets besides.
    lone, many = (memory.estimate(SEVEN, Plan(processes=count)) for count in (1, 8))
    assert many["gradients"] == 2 * lone["gradients"]
    assert {**many, "gradients": 0, "process": 0} == {**lone, "gradients": 0, "process": 0}


def test_adapters_are_spread_and_the_base_is_where_weights_are() -> None:
    """32B weights with adapters: in bfloat16, whole with none and zero2, and in parts with zero3 and fsdp."""
    base = 2 * LARGE.weights
    four: dict[str, Any] = {"tier": "lora", "processes": 4, "checkpointing": True}
    found = {kind: memory.estimate(LARGE, Plan(**four, sharding=kind)) for kind in ("none", "zero2", "zero3", "fsdp")}
    trained = found["none"]["optimizer"] / 8
    assert trained == 64 * 16 * (2 * (5120 + 5120) + 2 * (5120 + 1024) + 3 * (5120 + 27648))
    assert found["none"]["gradients"] == 8 * trained  # and as many in torch's buckets
    beside = 6 * trained  # float32, and narrow for the products
    assert found["none"]["weights"] == found["zero2"]["weights"] == base + beside
    together = 2 * (memory.LIVE + memory.PREFETCHED)  # in bfloat16, too
    assert found["zero3"]["weights"] == base / 4 + beside + together
    assert found["fsdp"]["weights"] == base / 4 + 3 * trained + 2 * (2 * LARGE.layer + 2 * LARGE.head)
    assert found["fsdp"]["optimizer"] == 2 * trained
    assert found["zero2"]["optimizer"] == found["zero3"]["optimizer"] == 3 * trained  # and DeepSpeed's own copy
    many = Plan(**four, rank=64)
    assert memory.estimate(LARGE, many)["optimizer"] == 4 * found["none"]["optimizer"]
    assert memory.offloaded(LARGE, Plan(**four, sharding="zero3", offload="all")) == base + 16 * trained


def test_the_published_layout_fits_and_a_lone_gpu_does_not() -> None:
    """32B weights over eight GPUs of 80 GB, with ZeRO-3 and offloading as published; not on one."""
    room = 80e9
    published = Plan(processes=8, sharding="zero3", offload="optimizer", checkpointing=True)
    assert memory.fits(LARGE, published, room)
    assert not memory.fits(LARGE, Plan(checkpointing=True), room)
    assert not memory.fits(LARGE, published, room, host=64 * GIB)  # what is offloaded has to lie somewhere


def test_memory_is_counted_by_machine() -> None:
    """What is offloaded was compared, for all processes together, with the memory of one machine."""
    one = Plan(processes=16, sharding="zero3", offload="optimizer", checkpointing=True)
    two = dataclasses.replace(one, nodes=2)
    assert (one.local, two.local) == (16, 8)
    assert memory.offloaded(SEVEN, two) == memory.offloaded(SEVEN, one) / 2
    assert memory.of_machine(SEVEN, two) == memory.of_machine(SEVEN, one) / 2
    assert memory.estimate(SEVEN, two) == memory.estimate(SEVEN, one)  # on a GPU it is the same
    room, host = 80 * GIB, memory.of_machine(SEVEN, two) + GIB
    assert memory.fits(SEVEN, two, room, host)
    assert not memory.fits(SEVEN, one, room, host)
    assert memory.would_fit(SEVEN, one, room, host) == "nodes: 2, processes: 8, sharding: zero3"


def test_every_process_of_a_machine_reads_the_whole_base() -> None:
    """Nobody counted that: 32B weights in eight processes are a thousand GB before the first is spread."""
    plan = Plan(processes=8, sharding="zero3", checkpointing=True)
    assert memory.offloaded(LARGE, plan) == 0
    whole = 8 * (4 * LARGE.weights + memory.BEFORE["cpu"])
    assert memory.of_machine(LARGE, plan) == whole
    assert memory.fits(LARGE, plan, 140 * GIB, whole)
    assert not memory.fits(LARGE, plan, 140 * GIB, whole - 1)
    assert memory.of_machine(LARGE, dataclasses.replace(plan, tier="lora")) < 0.52 * whole  # in bfloat16
    # On a CPU the same memory is the process's own: what is spread was whole before.
    on_cpu = Plan(kind="cpu", sharding="fsdp", processes=64, precision="float32", longest=64, pack_tokens=64)
    assert sum(memory.estimate(SMALL, on_cpu).values()) < memory.needed(SMALL, on_cpu) == memory.loading(SMALL, on_cpu)


def test_a_machine_without_the_memory_to_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "config.json", BASES["R1-Distill-Qwen-7B"][0])
    monkeypatch.setattr(memory, "room_of", lambda kind: (80.0 * GIB, 200.0 * GIB))
    plan = Plan(processes=8, sharding="zero3", checkpointing=True, longest=2048, pack_tokens=2048)
    with pytest.raises(SettingError) as caught:
        memory.check("finetune run", tmp_path, plan)
    assert str(caught.value) == (
        "finetune run: memory: 200.0 GiB free in this machine; expected 234.2 GiB for 8 processes that each read the base"
        " model, as `star1 train fit` estimates. Hint: it would fit with nodes: 2, processes: 4, sharding: zero3"
    )
    memory.check("finetune run", tmp_path, dataclasses.replace(plan, nodes=2))


@pytest.mark.parametrize(
    ("shape", "plan", "gib", "hint"),
    [
        (SMALL, Plan(), 64, None),
        (SMALL, Plan(), 50, "gradient_checkpointing: true"),
        (SMALL, Plan(longest=1500, checkpointing=True), 36, "pack_tokens: 1500"),
        (SEVEN, Plan(longest=1500, processes=8, checkpointing=True), 80, "pack_tokens: 1500, sharding: zero2"),
        (SEVEN, Plan(longest=1500, processes=8, checkpointing=True), 60, "pack_tokens: 1500, sharding: zero3"),
        (SEVEN, Plan(checkpointing=True), 45, "tier: lora with gradient_checkpointing: true"),
        (
            LARGE,
            Plan(longest=1500, pack_tokens=1500, processes=4, checkpointing=True, tier="lora"),
            60,
            "sharding: zero3",
        ),
        (
            LARGE,
            Plan(longest=1500, pack_tokens=1500, processes=4, checkpointing=True, tier="qlora"),
            10,
            "",
        ),  # not spread
        (SMALL, Plan(), 1, ""),
    ],
)
def test_the_first_change_that_fits_is_named(shape: Any, plan: Plan, gib: float, hint: str | None) -> None:
    assert memory.would_fit(shape, plan, gib * GIB) == hint


def test_every_hint_is_a_plan_that_fits_and_an_earlier_one_is_not() -> None:
    plan = Plan(longest=1500, processes=2)
    for gib in (20, 30, 40, 60, 80, 100, 140):
        hint = memory.would_fit(SEVEN, plan, gib * GIB)
        tried = list(memory.changes(plan))
        fitting_ones = [words for words, changed in tried if memory.fits(SEVEN, changed, gib * GIB)]
        assert hint == (None if memory.fits(SEVEN, plan, gib * GIB) else fitting_ones[0] if fitting_ones else "")


def test_more_gpus_come_with_their_number() -> None:
    lora = Plan(tier="lora", checkpointing=True, offload="optimizer", sharding="zero3")
    hint = memory.would_fit(LARGE, lora, 40 * GIB)
    assert hint is not None
    assert "processes (GPUs) with sharding: zero3" in hint


def test_a_run_that_cannot_fit_is_refused_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "config.json", BASES["R1-Distill-Qwen-7B"][0])
    monkeypatch.setattr(memory, "room_of", lambda kind: (24.0 * GIB, 64.0 * GIB))
    with pytest.raises(SettingError, match=r"finetune run: memory: 24.0 GiB free .*expected .* GiB.*Hint: .*lora"):
        memory.check("finetune run", tmp_path, Plan(kind="cuda", longest=2048, pack_tokens=2048))
    memory.check("finetune run", tmp_path, Plan(tier="qlora", checkpointing=True, longest=2048, pack_tokens=2048))


def test_an_unknown_family_is_told_and_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "config.json", {"model_type": "mamba"})
    memory.check("finetune run", tmp_path, Plan())
    assert "memory not estimated: mamba" in capsys.readouterr().err


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    assert rooms.machine_room(tmp_path, tmp_path) == 32_000_000 * 1024
    (tmp_path / "memory.max").write_text("4000000000\n")
    (tmp_path / "memory.current").write_text("3000000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1500000000\nactive_file 0\n")
    assert rooms.machine_room(tmp_path, tmp_path) == 2_500_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert rooms.machine_room(tmp_path, tmp_path) == 32_000_000 * 1024


def test_the_limit_of_a_job_is_that_of_its_own_group_or_one_above(tmp_path: Path) -> None:
    """A scheduler's limit is not at the root: the group that this process is in, or any above it, may have it."""
    (tmp_path / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    step = tmp_path / "groups" / "slurm" / "job_7" / "step_0"
    step.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/slurm/job_7/step_0\n")
    (step / "memory.max").write_text("max\n")
    (step.parent / "memory.max").write_text("8000000000\n")
    (step.parent / "memory.current").write_text("1000000000\n")
    assert rooms.machine_room(tmp_path, tmp_path / "groups") == 7_000_000_000
    older = tmp_path / "groups" / "memory" / "slurm"
    older.mkdir(parents=True)
    (tmp_path / "self" / "cgroup").write_text("9:cpu:/other\n7:memory:/slurm\n")
    (older / "memory.limit_in_bytes").write_text("5000000000\n")
    (older / "memory.usage_in_bytes").write_text("2000000000\n")
    assert rooms.machine_room(tmp_path, tmp_path / "groups") == 3_000_000_000


TOGETHER = """
import os, sys, time
from star1 import rooms
if sys.argv[1] == "all":
    import subprocess
    command = [sys.executable, "-c", sys.orig_argv[2], "one"]
    with subprocess.Popen([*command[:-1], "another"]) as other:
        ones = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in "ab"]
        print(sorted(one.pid for one in ones), *(one.communicate()[0].strip() for one in ones), sep="\\n")
        other.kill()
    sys.exit()
end = time.monotonic() + 20
while len(found := rooms.together()) < 2 and sys.argv[1] == "one" and time.monotonic() < end:
    time.sleep(0.05)
print(sorted(found), flush=True)
time.sleep(2)
"""


def test_memory_of_the_runs_other_processes_is_not_taken_for_someone_elses() -> None:
    """Each of two that had read the base saw the other's copy as memory that was not to be had."""
    environment = {**os.environ, "LOCAL_WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TOGETHER, "all"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    pids, *found = done.stdout.splitlines()[-3:]
    assert found == [pids, pids]
    assert rooms.together() == [os.getpid()]
    assert rooms.resident(os.getpid()) == pytest.approx(rooms.resident(), rel=0.05)
    assert rooms.resident(2**22 + 1) == 0


def peak() -> float:
    """The most that this process had [bytes]; getrusage tells what the process had that started it, where that was more."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("VmHWM"))


PROGRAM = """
import json, sys
from star1 import threads; threads.use(1)
from star1 import memory, rooms, sft, shapes, tiny, training
from tests.test_memory import peak
hidden, layers, pack = json.loads(sys.argv[1])
shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "layers": layers, "heads": hidden // 64}
size = tiny.Settings(**shape, kv_heads=1, context=4096)
tokenizer = tiny.make_tokenizer(["one two three"], size)
before = rooms.resident()
model = tiny.make_model(tokenizer, size)
ids = [number % len(tokenizer) for number in range(512)]
examples = [sft.Example(ids, ids)] * (pack // 512)
settings = sft.Settings(pack_tokens=pack, precision="float32")
plan = memory.plan_of(settings, "cpu", longest=512)
training.train(model, [examples] * 2, settings, "test")
estimated = sum(memory.estimate(shapes.shape_of(model.config.to_dict()), plan).values())
print((estimated - memory.BEFORE["cpu"]) / (peak() - before))
"""


@pytest.mark.parametrize("sizes", ["[256, 6, 4096]", "[512, 8, 4096]"])
def test_the_estimate_is_near_the_real_peak(sizes: str) -> None:
    """In a process of its own, since a peak never goes down; above what libraries take, which is another on each machine."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, sizes], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1.0, abs=0.35)


SPREAD = """
import os, sys
from star1 import threads; threads.use(1)
import deepspeed, peft
from star1 import adapters, memory, rooms, sft, shapes, training
from tests.test_memory import peak
base, sharding = sys.argv[1:]
before = rooms.resident()
settings = sft.Settings(pack_tokens=2048, precision="bf16", sharding=sharding)
model = adapters.wrap(base, adapters.Settings(), settings).get_base_model()
ids = [number % 500 for number in range(512)]
training.train(model, [[sft.Example(ids, ids)] * 8] * 2, settings, "test", None, (sharding, "none"))
plan = memory.plan_of(settings, "cpu", 2, "lora", 512)
estimated = sum(memory.estimate(shapes.read_shape(base), plan).values())
if os.environ["RANK"] == "0":
    print("found", (estimated - memory.BEFORE["cpu"]) / (peak() - before), flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["zero3", "fsdp"])
def test_the_estimate_is_near_the_real_peak_of_spread_adapters(tmp_path: Path, sharding: str) -> None:
    """It was a third under with zero3, which keeps what goes into each adapter in float32; with fsdp a twentieth."""
    pytest.importorskip("deepspeed")
    pytest.importorskip("peft")
    sizes = {"hidden_size": 256, "intermediate_size": 768, "layers": 6, "heads": 4, "context": 2048}
    checkpoint(tmp_path / "base", dataclasses.replace(SETTINGS, **sizes))  # type: ignore[arg-type]
    (tmp_path / "program.py").write_text(SPREAD)
    command = [*launching.command(2, "", [])[:-3], str(tmp_path / "program.py"), str(tmp_path / "base"), sharding]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("found ")]
    assert float(line.split()[1]) == pytest.approx(1.0, abs=0.2)


# ---------------------------------------------------------------- star1 train fit


def values(**changes: Any) -> dict[str, Any]:
    settings = {"epochs": 1, "pack_tokens": 8192, "max_tokens": 8192, "gradient_checkpointing": True} | changes
    runs = {"run": {"base": "base", "data": ["star1"], "think": True, "seed": 1}}
    return {
        "policy": {"pack": "star1"},
        "fetch": {"published": {}, "models": {"base": {}}},
        "finetune": {"runs": runs, "settings": settings},
    }


def test_train_fit_prints_the_parts_and_the_verdict(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", BASES["R1-Distill-Qwen-7B"][0])
    lines, fits = fitting.fit(values(), "run", 1, 80.0, tmp_path / "config.json")
    text = "\n".join(lines)
    assert not fits
    for part in (*memory.PARTS, "total"):
        assert f"\n{part} " in text
    assert "7,615,616,512 weights, tier full, bf16, one process, cuda" in text
    assert "does not fit: 80.0 GiB there\nit would fit with " in text
    assert fitting.fit(values(), "run", 1, 200.0, tmp_path / "config.json")[1]


def test_train_fit_of_an_unknown_run_or_base_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"not in finetune\.runs; expected one of run"):
        fitting.fit(values(), "other", 1, 80.0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"models/base/base/config.json: no such file.*--config"):
        fitting.fit(values(), "run", 1, 80.0)


def test_settings_that_are_not_there_yet_have_defaults() -> None:
    plan = memory.plan_of(Settings(), "cuda")
    assert (plan.sharding, plan.offload, plan.processes, plan.tier) == ("none", "none", 1, "full")
    assert dataclasses.replace(plan, pack_tokens=10, longest=20).tokens == 20


def test_train_fit_counts_the_rank_of_the_runs_adapters(tmp_path: Path) -> None:
    """It took every adapter for one of rank 16."""
    write_json(tmp_path / "config.json", BASES["R1-Distill-Qwen-7B"][0])

    def total_of(**changes: Any) -> str:
        all_values = values()
        all_values["finetune"]["lora"] = {"rank": 16, "alpha": 32}
        all_values["finetune"]["runs"]["run"] |= {"tier": "lora", **changes}
        (line,) = [
            one for one in fitting.fit(all_values, "run", 1, 80.0, tmp_path / "config.json")[0] if "optimizer" in one
        ]
        return line.split()[1]

    assert (total_of(), total_of(lora={"rank": 64})) == ("0.3", "1.2")


def test_parts_of_a_tiny_model_are_told_in_mib_and_counts_are_positive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts of the default run's model were 0.0 GiB, and -2 GPUs needed less than no memory."""
    config = BASES["R1-Distill-Qwen-7B"][0] | {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 2048,
        "num_attention_heads": 2, "num_key_value_heads": 1
    }  # fmt: skip
    write_json(tmp_path / "config.json", config)
    lines, _ = fitting.fit(values(), "run", 1, 80.0, tmp_path / "config.json")
    assert not any(" 0.0 GiB" in line for line in lines[3:9])
    assert any(" MiB" in line for line in lines)
    for given in ("0", "-2", "two"):
        monkeypatch.setattr(sys, "argv", ["star1", "train", "fit", "run", f"--gpus={given}"])
        with pytest.raises(SystemExit):
            cli.main()
        assert "expected a whole number from 1 on" in capsys.readouterr().err
