"""Supervised fine-tuning of a base model: rows rendered, packed, trained on, and the checkpoint published."""

import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from star1 import adapters, chat, checkpoints, memory, peers
from star1.errors import InputError
from star1.losses import loss_sum
from star1.packing import PACKED, pack, packed_attention, shares, use_packed_attention
from star1.recipe import WATCHING, Optimisation, Settings, rate_at, settings_from
from star1.records import Row, file_digest, write_json
from star1.rendering import IGNORED, Example, plan, render, render_all, target_count, target_text, training_rows
from star1.resuming import States, TrainingError, key_of, room_told
from star1.sharding import Whole
from star1.training import make_optimizer, save, train

__all__ = [
    "IGNORED",
    "PACKED",
    "Example",
    "Optimisation",
    "Settings",
    "TrainingError",
    "finetune",
    "loss_sum",
    "make_optimizer",
    "pack",
    "packed_attention",
    "plan",
    "publish",
    "rate_at",
    "read_data",
    "render",
    "render_all",
    "save",
    "settings_from",
    "shares",
    "summary",
    "target_count",
    "target_text",
    "train",
    "use_packed_attention",
]
VERSIONS = ("torch", "transformers", "accelerate")


def read_data(paths: Sequence[str]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows of all files in order, and name, digest and size of each file."""
    files = [(path, training_rows(path)) for path in paths]
    facts = [{"file": Path(path).name, "sha256": file_digest(path), "rows": len(rows)} for path, rows in files]
    return [row for _, rows in files for row in rows], facts


def finetune(
    base: str | Path,
    data: Sequence[str],
    settings: Settings,
    staging: str | Path,
    states: Path | None = None,
    adapter: adapters.Settings | None = None,
    watchers: Sequence[Callable[[list[Row]], None]] = (),
) -> dict[str, Any]:
    """Fine-tune the checkpoint in folder `base` on the rows of `data`; leaves a complete checkpoint in `staging`.

    Args:
        base: the base model.
        data: files of rows.
        settings: how to train.
        staging: folder for the checkpoint; its name is the run's.
        states: folder for training states; None: a run that is stopped starts anew.
        adapter: settings of adapters that are trained in place of all weights; None: there are none.
        watchers: as in `training.train`.

    Returns:
        main: whether this process is the one that publishes.
        record: facts of the run for the manifest, equal for equal runs.
        history: one entry per update.
        updates: the examples of each.
        trained: how many weights were trained.
    """
    stage = f"finetune {Path(staging).name}"
    if adapter:
        adapters.preflight(adapter, settings, stage)
    manifest = checkpoints.verify(base)
    rows, facts = read_data(data)
    tokenizer = chat.load_tokenizer(str(base))
    examples, dropped = render_all(tokenizer, rows, settings)
    updates = [[examples[number] for number in numbers] for numbers in plan(len(examples), settings)]
    torch.manual_seed(settings.seed)
    _check_memory(base, examples, settings, stage, adapter)
    wrapped = adapters.wrap(base, adapter, settings) if adapter else None
    model = wrapped.get_base_model() if wrapped else checkpoints.load_model(base, torch.float32)
    _check_room(model, examples)
    digest = file_digest(Path(base) / checkpoints.MANIFEST)
    versions = checkpoints.versions(versions_of(settings)) | (adapters.versions(adapter) if adapter else {})
    trained_weights = sum(one.numel() for one in model.parameters() if one.requires_grad)
    kept = None
    if states is not None:
        deciding_facts = deciding(digest, facts, settings, versions, adapter)
        kept = States(states, key_of(deciding_facts), settings.checkpoint_minutes)
        kept.preflight(model, stage)
    spread = (settings.sharding, settings.offload)
    trained, history = train(model, updates, settings, stage, kept, spread, watchers)
    if peers.main():
        with room_told(staging, "start it again"):
            checkpoints.empty(staging)
            checkpoints.carry_over(base, staging)
    if wrapped:
        _save_merged(wrapped, trained, base, staging)
    else:
        save(trained, staging)
    record = {
        "base": {"kind": manifest["kind"], "manifest_sha256": digest},
        "data": facts,
        "rows": {"used": len(examples), "dropped": dict(sorted(dropped.items()))},
        "settings": dataclasses.asdict(settings),
        **({"adapter": dataclasses.asdict(adapter)} if adapter else {}),
        **({"remote_code": checkpoints.TRUSTED} if checkpoints.trusts_code(base) else {}),
        "updates": len(updates),
        "target_tokens": sum(entry["target_tokens"] for entry in history),
        "loss": {"first": round(history[0]["loss"], 4), "last": round(history[-1]["loss"], 4)},
        "versions": versions,
    }
    found = {"history": history, "updates": updates, "trained": trained_weights}
    return {"main": peers.main(), "record": record, **found}


def _save_merged(wrapped: Any, trained: Whole, base: str | Path, staging: str | Path) -> None:
    """Write the trained adapters, and the checkpoint that they make of the base (main process alone)."""
    with peers.told("the checkpoint"):
        weights = trained.trained()
        if peers.main():
            with room_told(staging, "start it again"):
                adapters.save(wrapped, weights, Path(staging) / adapters.FOLDER, Path(base).name)
                adapters.export(base, staging)
        peers.wait()


def versions_of(settings: Settings) -> list[str]:
    """The packages that decide what the weights are."""
    return [*VERSIONS, *(["deepspeed"] if settings.sharding.startswith("zero") else [])]


def deciding(
    base: str,
    data: Sequence[dict[str, Any]],
    settings: Settings,
    versions: dict[str, str],
    adapter: adapters.Settings | None = None,
) -> dict[str, Any]:
    """Everything besides the code that decides to the last bit what a run gives."""
    return {
        "base": base,
        "data": [one["sha256"] for one in data],
        "settings": {key: value for key, value in dataclasses.asdict(settings).items() if key not in WATCHING},
        "versions": versions,
        "adapter": dataclasses.asdict(adapter) if adapter else None,
        # Sums are made in an order that hangs on these.
        "processes": os.environ.get("WORLD_SIZE", "1"),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def publish(made: dict[str, Any], staging: Path, output: str | Path, metrics: str | Path, states: Path) -> None:
    """Publish what `finetune` left in `staging`, manifest last; then the training states go. Main process alone."""
    if not made["main"]:
        return
    with room_told(Path(output).parent.parent, "start it again"):
        checkpoints.publish(staging, checkpoints.folder_of(output), "sft", made["record"])
        write_json(metrics, {"history": made["history"]})
    shutil.rmtree(states, ignore_errors=True)


def _check_memory(
    base: str | Path, examples: Sequence[Example], settings: Settings, stage: str, adapter: adapters.Settings | None
) -> None:
    kind, world = "cuda" if torch.cuda.is_available() else "cpu", int(os.environ.get("WORLD_SIZE", "1"))
    longest = max(len(one.ids) for one in examples)
    nodes = -(-world // int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    own = (adapter.tier, adapter.rank) if adapter else ("full", memory.RANK)
    plan = memory.plan_of(settings, kind, world, own[0], longest, nodes, own[1])
    memory.check(stage, base, plan)


def _check_room(model: Any, examples: Sequence[Example]) -> None:
    room, longest = getattr(model.config, "max_position_embeddings", math.inf), max(len(one.ids) for one in examples)
    if longest > room:
        raise InputError(
            "training rows", f"one of {longest} tokens", f"at most {room}, the model's context", "lower max_tokens"
        )


def summary(record: dict[str, Any]) -> str:
    """The run in one line."""
    dropped = sum(record["rows"]["dropped"].values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in record["rows"]["dropped"].items())
    left_out = f", {dropped} dropped ({reasons})" if dropped else ""
    loss = f"loss {record['loss']['first']} -> {record['loss']['last']}"
    return f"{record['rows']['used']} rows used{left_out}, {record['updates']} updates, {loss}"
