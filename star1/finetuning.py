"""One job of the stage finetune: trained, measured and published."""

import dataclasses
import os
from collections.abc import Sequence

import torch

from star1 import adapters, checkpoints, metering, sft, trackers


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where a job writes: the checkpoint's manifest, the history, the same as a table for a plot, and what it took."""

    checkpoint: str
    metrics: str
    plot: str | None = None
    costs: str | None = None


def run(
    name: str,
    base: str,
    data: Sequence[str],
    settings: sft.Settings,
    adapter: adapters.Settings | None,
    watching: Sequence[str],
    outputs: Outputs,
) -> str | None:
    """Train, write, and give a line about it; None in all processes but the main one.

    Args:
        name: of the run's model.
        base: manifest of the base model.
        data: files of rows.
        settings: how to train.
        adapter: settings of adapters; None: all weights are trained.
        watching: names of trackers.
        outputs: where to write.
    """
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:  # else all processes would measure the first GPU
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    staging, states = checkpoints.staging("finetune", name), checkpoints.staging("finetune-states", name)
    trackers.check(watching, name)
    folder, meter = checkpoints.folder_of(base), metering.Meter()
    with trackers.Watch(watching, name, dataclasses.asdict(settings)) as watch:
        made = sft.finetune(folder, data, settings, staging, states, adapter, (meter.mark, watch.look))
    costs = meter.facts(folder, made["updates"], settings.precision, made["trained"] if adapter else None)
    if made["main"]:
        metering.write(outputs.costs, costs, outputs.plot, made["history"])
    sft.publish(made, staging, outputs.checkpoint, outputs.metrics, states)
    return sft.summary(made["record"]) if made["main"] else None
