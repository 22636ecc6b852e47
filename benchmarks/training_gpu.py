"""Full fine-tuning on one GPU at a real size: ours, the published loop's way, TRL; benchmarks/README.md says more.

python -m benchmarks.training_gpu [--rows FILE] [--updates N] [--quick]

Without a GPU, `--quick` shows on a tiny model that it runs.
"""

import argparse
import gc
import importlib.util
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.dedup import table
from benchmarks.training import padded, read
from star1 import flops, memory, rooms
from star1.errors import SettingError
from star1.shapes import Shape, shape_of

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
BASES = {
    "1.5B": (1536, 8960, 28, 12, 2, 151936),
    "7B": (3584, 18944, 28, 28, 4, 152064),
    "tiny": (64, 96, 2, 2, 1, 512),
}
WORDS = 1.4  # tokens of a word, about, where rows are not tokenised with the model's own tokenizer


def config_of(name: str) -> dict[str, Any]:
    """The config of a base with random weights; the tied 1.5B shape, as published."""
    sizes = dict(zip(SIZES, BASES[name], strict=True))
    return {"model_type": "qwen2", **sizes, "tie_word_embeddings": name != "7B", "max_position_embeddings": 8192}


def examples_of(rows: Sequence[dict[str, str]], vocabulary: int) -> list[Any]:
    """Rows as made-up tokens: what counts here is how many are read and how many are learnt."""
    from star1.sft import IGNORED, Example

    draw, made = random.Random(7), []
    for row in rows:
        asked, learnt = (max(2, round(WORDS * len(row[part].split()))) for part in ("question", "response"))
        ids = [draw.randrange(vocabulary) for _ in range(asked + learnt)]
        made.append(Example(ids, [IGNORED] * asked + ids[asked:]))
    return made


def build(name: str, device: Any) -> Any:
    """A model of this shape with random float32 weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(7)
    with torch.device(device):
        model: Any = Qwen2ForCausalLM(Qwen2Config(**config_of(name)))
    return model


def ours(model: Any, settings: Any) -> Callable[[list[list[Any]]], None]:
    """The pipeline's own loop."""
    from star1 import sft

    def train(updates: list[list[Any]]) -> None:
        sft.train(model, updates, settings, "benchmark")

    return train


def published(model: Any, settings: Any) -> Callable[[list[list[Any]]], None]:
    """The published loop's way: a row a micro-batch, activations recomputed."""
    step = padded(model, settings, 1, True, 0)

    def train(updates: list[list[Any]]) -> None:
        for update in updates:
            step(update)

    return train


def trl(model: Any, settings: Any) -> Callable[[list[list[Any]]], None]:
    """TRL's trainer with its defaults besides the recipe's batch and rate."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def train(updates: list[list[Any]]) -> None:
        rows = [{"input_ids": one.ids, "labels": one.labels} for update in updates for one in update]
        with tempfile.TemporaryDirectory() as folder:
            given = {"output_dir": folder, "num_train_epochs": 1, "report_to": [], "save_strategy": "no"}
            each = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": max(1, len(updates[0]) // 8)}
            chosen = SFTConfig(**given, **each, learning_rate=settings.learning_rate, bf16=True)
            SFTTrainer(model, args=chosen, train_dataset=Dataset.from_list(rows)).train()

    return train


WAYS = {"ours": ours, "published way": published, "TRL's defaults": trl}


def run(name: str, way: str, updates: list[list[Any]], settings: Any, device: Any) -> list[str]:
    """A line of the table: one way on a model of its own, the first update not counted."""
    import torch

    on_gpu, shape = device.type == "cuda", shape_of(config_of(name))
    train = WAYS[way](build(name, device), settings)
    train(updates[:1])
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    train(updates[1:])
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else "-"
    del train
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    made = [one for update in updates[1:] for one in update]
    tokens, share = sum(len(one.ids) for one in made), _share(shape, made, seconds, device, settings.precision)
    return [way, f"{tokens / seconds:,.0f}", f"{share:.1%}" if share is not None else "not known", peak]


def _share(shape: Shape, made: Sequence[Any], seconds: float, device: Any, precision: str) -> float | None:
    import torch

    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    targets = sum(label >= 0 for one in made for label in one.labels)
    return flops.used_share(
        flops.model_flops(shape, [len(one.ids) for one in made], targets), seconds, [name], precision
    )


def fit_of_7b(device: Any, settings: Any, longest: int) -> list[str]:
    """Whether a full run of 7B would fit here, as the preflight says, and what would make it fit."""
    shape = shape_of(config_of("7B"))
    room, host = rooms.room_of(device.type)
    return memory.table(shape, memory.plan_of(settings, device.type, 1, longest=longest), room, host)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a model of the 1.5B shape by all ways that are there, one after the other, and print a table.

    Raises:
        SettingError: there is no GPU, and it is not only to be shown that this runs.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, help="rows as JSON or JSON Lines; else made-up rows of STAR-1's lengths")
    parser.add_argument("--updates", type=int, default=3, help="of 128 rows, measured by each way; default 3")
    parser.add_argument("--quick", action="store_true", help="a tiny model and a few rows: measures nothing")
    flags = parser.parse_args(arguments)
    import torch

    from star1 import sft

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not flags.quick:
        raise SettingError("benchmarks.training_gpu", "no CUDA GPU", "one", "--quick shows on a CPU that it runs.")
    name, batch = ("tiny", 4) if flags.quick else ("1.5B", 128)
    settings = sft.Settings(gradient_checkpointing=True, pack_tokens=512 if flags.quick else 8192)
    examples = examples_of(read(flags.rows), BASES[name][-1])
    count = 2 if flags.quick else flags.updates + 1
    updates = [[examples[(at * batch + one) % len(examples)] for one in range(batch)] for at in range(count)]
    there = [way for way in WAYS if way != "TRL's defaults" or importlib.util.find_spec("trl")]
    table(
        f"full fine-tuning, {name} shape, {settings.precision}, on {_called(device)}",
        ("", "tokens/s", "MFU", "peak memory"),
        [run(name, way, updates, settings, device) for way in there],
    )
    if len(there) < len(WAYS):
        print("\nTRL is not installed: left out")
    print("\n7B, full fine-tuning, as the preflight estimates:\n")
    for line in fit_of_7b(device, settings, max(len(one.ids) for one in examples)):
        print(line)


def _called(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU (measures nothing)"


if __name__ == "__main__":
    main()
