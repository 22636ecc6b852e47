"""Whether a run of params.yaml fits into memory, before anything is fetched or started."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from star1 import checkpoints, memory, rooms, runs
from star1.errors import InputError
from star1.recipe import Settings, settings_from
from star1.records import read_json
from star1.shapes import Shape, shape_of


def fit(
    values: dict[str, Any],
    run: str,
    gpus: int | None,
    memory_gib: float | None,
    config: Path | None = None,
    nodes: int | None = None,
) -> tuple[list[str], bool]:
    """Lines about the memory of a run, and whether it fits.

    Args:
        values: params.yaml.
        run: a name of finetune.runs, or the model of one of its seeds.
        gpus: how many GPUs over all machines, a process each; None: as the settings say, on what this machine has.
        memory_gib: of one GPU (or of the process, on a CPU) [GiB]; None: what is free here.
        config: config.json of the base model; None: that of the fetched model.
        nodes: how many machines; None: as the settings say, or one if that does not go with `gpus`.

    Raises:
        InputError: there is no such run, or its base model is not there yet.
    """
    table = values["finetune"]["runs"]
    run = runs.by_model(table).get(run, run)
    if run not in table:
        raise InputError(f"run {run!r}", "not in finetune.runs", "one of " + ", ".join(table))
    chosen = table[run]
    shape = _shape(values, runs.models_of(run, chosen)[0], config)
    shared = values["finetune"]["settings"] | (chosen.get("settings") or {})
    names = {field.name for field in dataclasses.fields(Settings)}
    settings: Settings = settings_from({key: value for key, value in shared.items() if key in names})
    kind = "cuda" if gpus or memory_gib or _has_gpu() else "cpu"
    if nodes is None and gpus and gpus % settings.nodes:
        nodes = 1
    adapter = runs.adapter_of(values["finetune"].get("lora"), chosen) or {}
    rank = adapter.get("rank", memory.RANK)
    plan = memory.plan_of(settings, kind, gpus, chosen.get("tier", "full"), nodes=nodes, rank=rank)
    there, host = rooms.room_of(kind) if memory_gib is None and (kind == "cpu" or _has_gpu()) else (None, None)
    room = there if memory_gib is None else memory_gib * rooms.GIB
    lines = memory.table(shape, plan, room, host if kind == "cuda" else None)
    return lines, room is None or memory.fits(shape, plan, room, host if kind == "cuda" else None)


def _shape(values: dict[str, Any], run: str, config: Path | None) -> Shape:
    from star1.workflow.inputs import Inputs
    from star1.workflow.lookups import Params

    manifest = Inputs(Params(values)).base(SimpleNamespace(run=run))
    path = config or checkpoints.folder_of(manifest) / "config.json"
    if not path.is_file():
        hint = "" if config else f"`snakemake {manifest}` fetches it, or name a config.json with --config."
        raise InputError(path, "no such file", "the config of the base model", hint)
    return shape_of(read_json(path))


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
