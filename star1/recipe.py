"""How a model is trained: the settings of an optimisation and of a fine-tuning run, and the learning rate over its updates."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from star1.errors import SettingError


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """How updates change weights.

    Attributes:
        learning_rate: peak rate of AdamW.
        betas: AdamW's two decay rates.
        weight_decay: on matrices; biases and norms get none.
        warmup: fraction of all updates in which the rate rises linearly from 0.
        schedule: "cosine" (to 0) or "constant", after the warm-up.
        gradient_norm: gradients are scaled down to this norm; 0: never.
        precision: "bf16" computes under autocast over float32 weights, "float32" does not.
        pack_tokens: sequences are packed up to this many tokens per forward pass; a matter of speed and memory alone.
        gradient_checkpointing: recompute activations in the backward pass.
        gather_every: updates between two looks at the loss; in between, nothing waits for the device.
        diverged_factor: a mean loss that is so many times the first one ends the run; 0: never.
        diverged_updates: updates that such a mean is over.
    """

    learning_rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    warmup: float = 0.05
    schedule: str = "cosine"
    gradient_norm: float = 1.0
    precision: str = "bf16"
    pack_tokens: int = 8192
    gradient_checkpointing: bool = False
    gather_every: int = 10
    diverged_factor: float = 3.0
    diverged_updates: int = 5


@dataclasses.dataclass(frozen=True)
class Settings(Optimisation):
    """Settings of one fine-tuning run.

    Attributes:
        epochs: passes over the rows.
        batch_size: samples per update, over all processes.
        drop_last: leave out the last incomplete batch of the whole run (batches straddle epochs, as published).
        max_tokens: a longer row is dropped and counted, never cut.
        think: train on the thinking; False trains on an empty think block (or none, for models without) and the answer.
        seed: order of the rows.
        checkpoint_minutes: time between two saved training states; 0: only one, when a signal ends the run.
        nodes: machines of a job.
        processes: how many processes a job starts on each machine; an outside launcher's number goes before it.
        sharding: "none", or what spreads over the processes: "zero2" (gradients and moments), "zero3" (weights too), both
            by DeepSpeed, or "fsdp" (as zero3, by torch).
        offload: what DeepSpeed keeps in the machine's memory: "none", "optimizer", or "all" (weights too; zero3 alone).
    """

    epochs: int = 5
    batch_size: int = 128
    drop_last: bool = True
    max_tokens: int = 8192
    think: bool = True
    seed: int = 2002
    checkpoint_minutes: float = 30.0
    nodes: int = 1
    processes: int = 1
    sharding: str = "none"
    offload: str = "none"


CHOICES = {
    "precision": ("bf16", "float32"),
    "schedule": ("cosine", "constant"),
    "sharding": ("none", "zero2", "zero3", "fsdp"),
    "offload": ("none", "optimizer", "all"),
}
# Settings that watch over a run and change nothing of what it gives: a saved training state outlives their change.
WATCHING = frozenset({"gather_every", "diverged_factor", "diverged_updates", "checkpoint_minutes"})


def settings_from(values: dict[str, Any], kind: Callable[..., Any] = Settings) -> Any:
    """Make settings of `kind` (a dataclass) from a JSON object.

    Raises:
        SettingError: a name that is not a setting, or a value that cannot be meant.
    """
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - names):
        raise SettingError("training settings", f"unknown name {unknown[0]!r}", "one of " + ", ".join(sorted(names)))
    if "betas" in values:
        values = values | {"betas": tuple(values["betas"])}
    made = kind(**values)
    for name in (
        "epochs",
        "batch_size",
        "max_tokens",
        "pack_tokens",
        "learning_rate",
        "gather_every",
        "diverged_updates",
        "nodes",
        "processes",
    ):
        if getattr(made, name, 1) <= 0:
            raise SettingError(f"training settings: {name}", str(getattr(made, name)), "a number above 0")
    for name, allowed in CHOICES.items():
        if getattr(made, name, allowed[0]) not in allowed:
            raise SettingError(f"training settings: {name}", repr(getattr(made, name)), " or ".join(allowed))
    if isinstance(made, Settings) and (mistake := spread_mistake(made)):
        raise SettingError(f"training settings: {mistake[0]}", *mistake[1:])
    return made


def spread_mistake(settings: Any) -> tuple[str, str, str] | None:
    """What cannot be of the settings of processes and batch: the setting, what was found, what is expected."""
    count, samples = settings.nodes * settings.processes, settings.batch_size
    if count > samples:
        many = f"{settings.processes} on each of {settings.nodes} machines" if settings.nodes > 1 else str(count)
        found = f"{many} with a batch_size of {samples}, {samples / count:.2g} samples for each in an update"
        return "processes", found, f"at most {samples}" + (" in all" if settings.nodes > 1 else "")
    if settings.offload != "none" and not settings.sharding.startswith("zero"):
        found = f"{settings.offload} with sharding {settings.sharding}"
        return "offload", found, "none, or sharding zero2 or zero3: it is DeepSpeed that offloads"
    if settings.offload == "all" and settings.sharding != "zero3":
        return "offload", "all with sharding zero2", "optimizer, or sharding zero3, which alone spreads the weights"
    return None


def four_bits_mistake(tier: str, sharding: str) -> tuple[str, str, str] | None:
    """What cannot be of a tier and the way its weights lie: what was found, what is expected, what to do."""
    if tier != "qlora" or sharding == "none":
        return None
    hint = "sharding: none and offload: none train it in as many processes, each with the whole base in four bits; tier: lora"
    expected = "sharding none: weights of four bits are not spread here"
    return f"qlora with sharding {sharding}", expected, f"{hint} is spread in every way"


def rate_at(update: int, updates: int, settings: Optimisation) -> float:
    """Learning rate of update number `update` (from 0) of `updates`.

    Source: UCSC-VLAA/STAR-1 @ b493335, the cosine schedule of transformers.
    Differs: the warm-up counts from 1, since an update at rate 0 would be a batch for nothing; 0 lies before the first.
    """
    warm = int(settings.warmup * updates)
    if update < warm:
        return settings.learning_rate * (update + 1) / (warm + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (update - warm) / max(1, updates - warm)))
