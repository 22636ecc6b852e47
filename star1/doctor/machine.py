"""GPUs and memory of this machine against what jobs would ask for."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from star1 import checkpoints, prefetched, rooms
from star1.doctor import commands
from star1.doctor.about import About
from star1.doctor.asked import asked
from star1.doctor.findings import Outcome, Seen, Unknown, finding
from star1.doctor.prefetch import object_of
from star1.doctor.sizes import billions
from star1.errors import Star1Error
from star1.params import Run
from star1.records import read_json

DEVICES = ("/dev/nvidiactl", "/dev/dxg")
# A model of fewer weights [billions] may be trained and asked on a CPU by somebody with patience.
FOR_CPU = 1.0
MIB = 2**20


@functools.cache
def nvidia() -> commands.Answer | None:
    """What nvidia-smi tells: a line a GPU, with name and memory [MiB]; None where there is no such program."""
    if commands.which("nvidia-smi") is None:
        return None
    return commands.ask(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"])


def gpus() -> list[tuple[str, float]]:
    """Name and memory [bytes] of each GPU."""
    told = nvidia()
    lines = told.out.splitlines() if told and told.status == 0 else []
    found = [line.rpartition(",") for line in lines if line.strip()]
    return [(name.strip(), float(memory) * MIB) for name, _, memory in found if memory.strip().isdigit()]


def wanted_gpus(about: About) -> int:
    """GPUs that the largest job asks for; models of this project's own, made on the spot, ask for none."""
    return max(one.gpu for one in asked(about))


def graphics(about: About) -> Iterator[Outcome]:
    """GPUs: what their driver tells, and whether they are enough for the largest job that runs on this machine."""
    told, wanted = nvidia(), wanted_gpus(about)
    if any(Path(device).exists() for device in DEVICES) and (told is None or told.status != 0):
        found = "no nvidia-smi" if told is None else f"nvidia-smi: {told.last}"
        yield finding("gpu-driver", "nvidia-smi", found, "nvidia-smi; sudo modprobe nvidia || sudo reboot")
    yield from _unasked(about)
    if about.slurm:
        return
    there = gpus()
    if len(there) >= wanted:
        found = ", ".join(name for name, _ in there) or "none, and none is asked for"
        yield Seen("gpu-count", f"GPUs: {found}")
        return
    largest = max([billions(one.repository) or FOR_CPU for one in about.hub_models.values()], default=0.0)
    what = f"the largest job asks for {wanted} GPUs; nvidia-smi tells of {len(there)}"
    fix = "snakemake --workflow-profile profiles/slurm"
    if there:
        fix = f"star1 preset --set finetune.settings.processes={len(there)}"
    yield finding("gpu-count", "this machine", what, fix, "error" if largest >= FOR_CPU or wanted > 1 else "warning")


def _unasked(about: About) -> Iterator[Outcome]:
    """Rules with large models that ask for no GPU, whatever there is."""
    large = {
        "finetune": [model for model in about.trained if about.inputs.model_on_gpu(model)],
        "generate": [model for model in about.answering if about.inputs.model_on_gpu(model)],
    }
    for one in asked(about):
        if large.get(one.rule) and one.gpu == 0:
            what = f"{len(large[one.rule])} models of the hub, and gpu is 0 in resources.jobs"
            told = about.values["resources"]["jobs"].get(one.rule, {}) | {"gpu": 1}
            value = ", ".join(f"{key}: {amount}" for key, amount in told.items() if amount is not None)
            fix = f"star1 preset --set 'resources.jobs.{one.rule}={{{value}}}'"
            yield finding("gpu-unasked", f"rule {one.rule}", what, fix)


def training_memory(about: About) -> Iterator[Outcome]:
    """Whether each run fits into a GPU's memory, where the shape of its base model is known here."""
    if not about.hub_models or about.slurm:
        return
    if not (there := gpus()):
        yield Unknown(
            "gpu-memory", "no GPU here; `star1 train fit RUN --gpus N --memory-gib G` computes it for another machine"
        )
        return
    from star1 import memory, shapes  # they bring torch

    room, host = min(size for _, size in there), rooms.machine_room()
    unknown, fitting = [], 0
    for name, run in about.params.finetune.runs.items():
        if run.base not in about.hub_models:
            continue
        if (config := _config(about, run.base)) is None:
            unknown.append(run.base)
            continue
        try:
            shape = shapes.shape_of(config)
        except Star1Error:
            unknown.append(run.base)
            continue
        plan = memory.plan_of(_settings(about, run), "cuda", None, run.tier)
        if (hint := memory.would_fit(shape, plan, room, host)) is None:
            fitting += 1
            continue
        needed = sum(memory.estimate(shape, plan).values()) / rooms.GIB
        what = f"needs {needed:,.0f} GiB on each GPU of {room / rooms.GIB:,.0f} GiB" + (
            f"; it would fit with {hint}" if hint else ""
        )
        yield finding("gpu-memory", f"finetune.runs.{name}", what, f"star1 train fit {name}")
    if fitting:
        yield Seen("gpu-memory", f"{fitting} runs fit into {room / rooms.GIB:,.0f} GiB")
    if unknown:
        yield Unknown("gpu-memory", f"config.json of {', '.join(sorted(set(unknown)))} is not here yet")


def _settings(about: About, run: Run) -> Any:
    own = run.settings.model_dump(exclude_unset=True) if run.settings else {}
    return about.params.finetune.settings.model_copy(update=own)


def _config(about: About, base: str) -> Any:
    """The config.json of a base model that was fetched or prefetched."""
    manifest = Path(about.inputs.checkpoint(base))
    path = checkpoints.folder_of(manifest) / "config.json"
    if path.is_file():
        return read_json(path)
    model = about.hub_models[base]
    found = object_of(
        prefetched.model_key(model.repository, model.revision, model.remote_code == "trusted"), "config.json"
    )
    return read_json(found) if found else None


def memory_of_machine(about: About) -> Iterator[Outcome]:
    """Memory of this machine, or of the control group that this runs in, against the largest rule."""
    if about.slurm:
        return
    largest = max(asked(about), key=lambda one: one.mem_mb)
    there = machine_memory() / 1e6
    if there < largest.mem_mb:
        what = f"{there:,.0f} MB; rule {largest.rule} asks for {largest.mem_mb:,}"
        yield finding(
            "memory", "this machine", what, f"snakemake --set-resources {largest.rule}:mem_mb={there * 0.9:.0f}"
        )
    else:
        yield Seen(
            "memory", f"{there / 1e3:,.1f} GB of memory; rule {largest.rule} asks for {largest.mem_mb / 1e3:,.1f}"
        )


def machine_memory(groups: Path = Path("/sys/fs/cgroup")) -> float:
    """All memory that jobs here can have together [bytes]."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        if (groups / limit).is_file() and (text := (groups / limit).read_text("ascii").strip()).isdigit():
            total = min(total, float(text))
    return total
