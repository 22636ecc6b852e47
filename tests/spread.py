"""Run by tests in two processes: fine-tunes with weights spread in each way, stopped, harmed and resumed, and ends by a fault."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from star1 import launching, packing, peers, resuming, sft, training
from star1.records import write_json
from tests.micro import fresh_accelerate, small_settings

WAYS: dict[str, dict[str, str]] = {
    "none": {},
    "fsdp": {"sharding": "fsdp"},
    "zero2": {"sharding": "zero2"},
    "zero3": {"sharding": "zero3"},
    "offloaded": {"sharding": "zero3", "offload": "all"},
}
# Packs of a few samples each, so that an update has three and one process a pack that weighs nothing.
CHANGES: dict[str, Any] = {
    "batch_size": 6,
    "pack_tokens": 160,
    "gather_every": 1,
    "processes": 2,
    "gradient_norm": 0.25,
    "epochs": 6,
}


class Stopping(resuming.States):
    """A state after each update; after the second, a signal comes to the second process alone."""

    asked = 0

    def due(self) -> bool:
        self.asked += 1
        if self.asked == 2 and peers.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return True


def tune(place: Path, folder: Path, way: str, states: type[resuming.States] = resuming.States, **changes: Any) -> Any:
    """Fine-tune in `folder`; every process."""
    fresh_accelerate()
    vars(sft)["States"] = states
    settings = small_settings(**{**CHANGES, **WAYS[way], **changes})
    return sft.finetune(place / "micro", [str(place / "rows.jsonl")], settings, folder / "run", folder / "states")


def stopped(place: Path, folder: Path, way: str) -> int:
    """Fine-tune until the second update is saved; gives the status that the process would end with."""
    try:
        tune(place, folder, way, Stopping)
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def harm(folder: Path) -> str:
    """Flip a bit in the last part of the newest state; gives the file's name."""
    newest = max(folder.glob("states/*/update-*"))
    # Of DeepSpeed's its weights and moments, and not the scripts that it puts beside them.
    file = max(
        path for path in newest.rglob("*") if path.suffix in (".pt", ".safetensors") and "random" not in path.name
    )
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return file.relative_to(newest).as_posix()


def ways(place: Path, root: Path) -> None:
    """Each way: undisturbed, and stopped, then resumed from the state before the one that was harmed."""
    for way in WAYS:
        one, other = root / way / "whole", root / way / "resumed"
        made = tune(place, one, way)
        status = stopped(place, other, way)
        kept = sorted(path.name for path in other.glob("states/*/*"))
        peers.wait()
        if peers.main():
            shutil.copytree(max(other.glob("states/*/update-*")), root / way / "kept")
        harmed = harm(other) if peers.main() else ""
        peers.wait()
        again = tune(place, other, way)
        facts = {"whole": made["history"], "resumed": again["history"], "status": status, "kept": kept}
        if peers.main():
            write_json(root / way / "facts.json", {**facts, "harmed": harmed, "settings": made["record"]["settings"]})


def starve(*_: Any) -> Any:
    """As if the second process had no memory left."""
    if peers.rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return packing.collate(*_)


def main() -> None:
    """All ways, and then one that ends with a fault."""
    place, root = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    ways(place, root)
    vars(training)["collate"] = starve
    tune(place, root / "starved", "zero3")


if __name__ == "__main__":
    launching.run(main)
