"""What a training run takes: time, tokens per second, memory, energy, and on what.

It is never the same twice, so none of it stands in a checkpoint's manifest.
Clocks are read where losses are gathered anyway: nothing waits for a device on account of it.
"""

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from star1.energy import Gauge, gauge
from star1.errors import InputError
from star1.flops import model_flops, used_share
from star1.records import Row, write_json, write_text
from star1.shapes import read_shape

# Those of the second line are told where a run has loaded them.
PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "tokenizers")
OPTIONAL = ("deepspeed", "peft", "bitsandbytes", "trackio", "wandb", "tensorboard")


ANOTHER = "told by another process of the machine"


class Meter:
    """Measures one process; starts with its making."""

    def __init__(self) -> None:
        self.started, self.cpu = time.perf_counter(), time.process_time()
        self.marks: list[tuple[int, float]] = []  # updates done, and when
        self.energy: Gauge | None = gauge(_device_uuid()) if _counts_energy() else None
        _reset_peak()

    def mark(self, history: Sequence[Row]) -> None:
        """So many updates are done, and the device has done its part of them."""
        self.marks.append((len(history), time.perf_counter()))

    def facts(
        self, base: str | Path, updates: Sequence[Sequence[Any]], precision: str, trained: int | None = None
    ) -> Row:
        """All of it, over all processes; each of them has to call this.

        Args:
            base: folder of the base model.
            updates: the examples of each update.
            precision: as in the settings.
            trained: weights that were trained, where it is not all.
        """
        seconds = time.perf_counter() - self.started
        energy = self.energy.stop() if self.energy else {"joules": None, "source": ANOTHER}
        mine = {"cpu_seconds": time.process_time() - self.cpu, "device": _device(), "energy": energy, **_peaks()}
        found: list[Row] = _of_all(mine)
        devices = [str(one["device"]) for one in found]
        gpus = sum(device != "cpu" for device in devices)
        return {
            "seconds": round(seconds, 3),
            "cpu_hours": round(sum(one["cpu_seconds"] for one in found) / 3600, 6),
            "gpu_hours": round(gpus * seconds / 3600, 6) if gpus else None,
            "processes": len(found),
            **self.speed(updates, base, devices, precision, trained),
            "peak_memory": _highest(found),
            "energy": _joules(found),
            "devices": devices,
            "versions": versions(),
        }

    def speed(
        self,
        updates: Sequence[Sequence[Any]],
        base: str | Path,
        devices: Sequence[str],
        precision: str,
        trained: int | None = None,
    ) -> Row:
        """Tokens per second and MFU between the first and the last look at the loss."""
        (first, begun), (last, ended) = (self.marks[0], self.marks[-1]) if self.marks else ((0, 0.0), (0, 0.0))
        made, seconds = [example for update in updates[first:last] for example in update], ended - begun
        lengths = [len(example.ids) for example in made]
        rate = round(sum(lengths) / seconds, 1) if seconds else None
        told: Row = {"updates_measured": last - first, "training_seconds": round(seconds, 3), "tokens_per_second": rate}
        try:
            shape = read_shape(base)
        except InputError as error:
            return told | {"model_flops": None, "mfu": None, "mfu_reason": error.found}
        flops = model_flops(shape, lengths, sum(_targets(example) for example in made), trained)
        share = used_share(flops, seconds, devices, precision)
        reason = None if share is not None else f"no peak known of {devices[0]} in {precision}"
        return told | {"model_flops": flops, "mfu": share and round(share, 4), "mfu_reason": reason}


def _targets(example: Any) -> int:
    return sum(label >= 0 for label in example.labels[1:])


def versions() -> dict[str, str | None]:
    """Versions of whatever a run has used, down to the driver."""
    import torch

    used = [name for name in PACKAGES if name in sys.modules] + [name for name in OPTIONAL if name in sys.modules]
    found: dict[str, str | None] = {"python": platform.python_version(), "system": platform.platform()}
    for name in used:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found | {"cuda": torch.version.cuda, "driver": _driver()}


def _driver() -> str | None:
    path = Path("/sys/module/nvidia/version")
    return path.read_text("ascii").strip() if path.is_file() else None


# ---------------------------------------------------------------- one process


def _cuda() -> Any:
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def _device() -> str:
    cuda = _cuda()
    return str(cuda.get_device_name()) if cuda else "cpu"


def _device_uuid() -> str | None:
    cuda = _cuda()
    return f"GPU-{cuda.get_device_properties(cuda.current_device()).uuid}" if cuda else None


def _counts_energy() -> bool:
    """A GPU is one process's own; a machine's processors are all processes', so that the first one of a machine counts."""
    return _cuda() is not None or os.environ.get("LOCAL_RANK", "0") == "0"


def _reset_peak() -> None:
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()


def _peaks() -> Row:
    """Highest memory since the start: of the process in the machine's memory [bytes], and on its GPU [bytes]."""
    cuda = _cuda()
    return {
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "allocated": int(cuda.max_memory_allocated()) if cuda else None,
        "reserved": int(cuda.max_memory_reserved()) if cuda else None,
    }


# ---------------------------------------------------------------- all processes


def _of_all(mine: Row) -> list[Row]:
    import torch.distributed as distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return [mine]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, mine)
    return found


def _highest(found: Sequence[Row]) -> Row:
    """Of the process that had the most [MiB]."""
    names = {"resident": "resident_mib", "allocated": "gpu_allocated_mib", "reserved": "gpu_reserved_mib"}
    return {
        told: max(one[name] for one in found) // 2**20 if found[0][name] is not None else None
        for name, told in names.items()
    }


def _joules(found: Sequence[Row]) -> Row:
    """Energy of all devices; None where one of them cannot be read."""
    gauged = [one["energy"] for one in found if one["energy"]["joules"] is not None]
    silent = [one for one in found if one["energy"]["joules"] is None and one["energy"]["source"] != ANOTHER]
    if silent or not gauged:
        return {"joules": None, "kwh": None, "source": None, "reason": (silent or list(found))[0]["energy"]["source"]}
    joules = sum(one["joules"] for one in gauged)
    return {"joules": round(joules), "kwh": round(joules / 3.6e6, 6), "source": gauged[0]["source"], "reason": None}


# ---------------------------------------------------------------- what is written


def write(costs: str | Path | None, facts: Row, plot: str | Path | None, history: Sequence[Row]) -> None:
    """Write what a run took, and its curve as a table for a plot: the same for equal runs."""
    if costs:
        write_json(costs, facts)
    if plot:
        names = ("update", "loss", "rate", "norm")
        lines = [",".join(f"{entry[name]:.6g}" for name in names) for entry in history]
        write_text(plot, "\n".join([",".join(names), *lines, ""]))
