"""Run by tests in two processes: fine-tunes with weights spread in each way, stopped, harmed and resumed, and ends by a fault."""

import dataclasses
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from star1 import adapters, chat, checkpoints, launching, packing, peers, resuming, sft, sharding, training
from star1.records import write_json
from tests.micro import ROWS, fresh_accelerate, small_settings

WAYS: dict[str, dict[str, str]] = {
    "none": {},
    "fsdp": {"sharding": "fsdp"},
    "zero2": {"sharding": "zero2"},
    "zero3": {"sharding": "zero3"},
    "offloaded": {"sharding": "zero3", "offload": "all"},
}
# Packs of one sample or two, five or fewer an update: where it is five, one process has a pack that weighs nothing.
CHANGES: dict[str, Any] = {
    "batch_size": 5,
    "pack_tokens": 160,
    "gather_every": 1,
    "processes": 2,
    "gradient_norm": 0.25,
    "epochs": 5,
}


LORA = adapters.Settings(rank=4, alpha=8)
# The same with adapters; one way more, in which each process draws.
ADAPTED: dict[str, tuple[str, adapters.Settings]] = {
    **{way: (way, LORA) for way in WAYS},
    "drawing": ("none", dataclasses.replace(LORA, dropout=0.1)),
}
STEEP: dict[str, Any] = {"learning_rate": 0.03, "epochs": 3}


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
    adapter = changes.pop("adapter", None)
    settings = small_settings(**{**CHANGES, **WAYS[way], **changes})
    rows = [str(place / "rows.jsonl")]
    return sft.finetune(place / "micro", rows, settings, folder / "run", folder / "states", adapter)


def stopped(place: Path, folder: Path, way: str, **changes: Any) -> int:
    """Fine-tune until the second update is saved; gives the status that the process would end with."""
    try:
        tune(place, folder, way, Stopping, **changes)
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
    """Each way with all weights trained."""
    for way in WAYS:
        disturbed(place, root, way, way)


def disturbed(place: Path, root: Path, name: str, way: str, **changes: Any) -> None:
    """One way: undisturbed, and stopped, then resumed from the state before the one that was harmed."""
    one, other = root / name / "whole", root / name / "resumed"
    made = tune(place, one, way, **changes)
    status = stopped(place, other, way, **changes)
    kept = sorted(path.name for path in other.glob("states/*/*"))
    peers.wait()
    if peers.main():
        shutil.copytree(max(other.glob("states/*/update-*")), root / name / "kept")
    harmed = harm(other) if peers.main() else ""
    peers.wait()
    again = tune(place, other, way, **changes)
    facts = {"whole": made["history"], "resumed": again["history"], "status": status, "kept": kept}
    if peers.main():
        write_json(root / name / "facts.json", {**facts, "harmed": harmed, "settings": made["record"]["settings"]})


def adapted(place: Path, root: Path) -> None:
    """Each way with adapters; and, with products in bfloat16, how the weights then lie."""
    for name, (way, adapter) in ADAPTED.items():
        disturbed(place, root, name, way, adapter=adapter, **STEEP)
    for way in WAYS:
        found = peers.merged({str(peers.rank()): lying(place, way)})
        if peers.main():
            write_json(root / way / "lying.json", list(found.values()))


def lying(place: Path, way: str) -> dict[str, Any]:
    """Types of base and adapters after two updates, this process's share of each, and whether the base is as it was read."""
    fresh_accelerate()
    settings = small_settings(**{**CHANGES, **WAYS[way], "precision": "bf16", "learning_rate": 0.03})
    examples, _ = sft.render_all(chat.load_tokenizer(str(place / "micro")), ROWS, settings)
    model = adapters.wrap(place / "micro", LORA, settings).get_base_model()
    spread = (settings.sharding, settings.offload)
    trained, _ = training.train(model, [examples[:6]] * 2, settings, "test", None, spread)
    whole = {name: one for name, one in trained.causal.state_dict(keep_vars=True).items() if "lm_head" not in name}
    read = checkpoints.load_model(place / "micro", torch.bfloat16).state_dict()
    facts: dict[str, Any] = {"unchanged": True}
    for part, names in (("base", sharding.frozen(trained.causal)), ("adapter", sharding.distinct(trained.causal))):
        tensors = {name: whole[name] for name in names if name in whole}
        full = {name: trained.full(one) for name, one in tensors.items()}
        facts[part] = sorted({str(one.dtype) for one in [*tensors.values(), *full.values()]})
        here = sum(_here(one).numel() for one in tensors.values())
        facts[f"{part}_share"] = here / sum(one.numel() for one in full.values())
        if part == "base":
            same = [torch.equal(one, read[name.replace(".base_layer", "")]) for name, one in full.items()]
            facts["unchanged"] = all(same) and len(same) == len(read) - 1
    return facts


def _here(tensor: Any) -> Any:
    """What this process has of a weight, whoever spreads it."""
    return tensor.ds_tensor if hasattr(tensor, "ds_tensor") else getattr(tensor, "_local_tensor", tensor)


def starve(*_: Any) -> Any:
    """As if the second process had no memory left."""
    if peers.rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return packing.collate(*_)


def main() -> None:
    """All ways, and then one that ends with a fault; or all with adapters."""
    place, root = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    if sys.argv[3:] == ["adapters"]:
        return adapted(place, root)
    ways(place, root)
    vars(training)["collate"] = starve
    tune(place, root / "starved", "zero3")


if __name__ == "__main__":
    launching.run(main)
