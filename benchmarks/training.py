"""Tokens per second of fine-tuning beside the published loop's way, on one thread of a CPU; benchmarks/README.md says more.

python -m benchmarks.training [--data FILE] [--updates N] [--pack-tokens N] [--quick]
"""

import argparse
import json
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.dedup import table
from star1 import threads

TARGET = 3.0
# Words of question, thinking and answer in the released STAR-1: median, and the spread that gives its 90th percentile.
LENGTHS = {"question": (15, 0.4), "thinking": (209, 0.25), "answer": (50, 0.98)}


@dataclass
class Way:
    """A way to train: what it took, and what it computed.

    Attributes:
        step: makes one update of some examples; gives the number of positions computed, padding included, and CPU seconds.
    """

    name: str
    step: Callable[[Sequence[Any]], tuple[int, float]]
    seconds: float = 0.0
    tokens: int = 0
    computed: int = 0

    def run(self, examples: Sequence[Any]) -> None:
        """Make one update and add its cost."""
        computed, seconds = self.step(examples)
        self.seconds += seconds
        self.tokens += sum(len(example.ids) for example in examples)
        self.computed += computed

    def rate(self) -> float:
        """Tokens of the rows per CPU-second; padding does not count."""
        return self.tokens / self.seconds

    def line(self, ours: "Way", target: str = "") -> list[str]:
        """A line of the table."""
        padding = 1 - self.tokens / self.computed
        return [self.name, f"{self.rate():,.0f}", f"{padding:.1%}", f"{ours.rate() / self.rate():.2f}", target]


def synthetic_rows(count: int, seed: int = 7) -> list[dict[str, str]]:
    """Rows of made-up words with STAR-1's lengths."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 9))) for _ in range(4000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]

    def text(part: str) -> str:
        median, spread = LENGTHS[part]
        return " ".join(draw.choices(words, weights, k=max(3, round(median * draw.lognormvariate(0, spread)))))

    return [
        {"question": text("question"), "response": f"<think>\n{text('thinking')}\n</think>\n\n{text('answer')}"}
        for _ in range(count)
    ]


def ours(model: Any, settings: Any) -> Callable[[Sequence[Any]], int]:
    """The pipeline's own loop, with all that it does around an update."""
    from star1 import packing, sft

    def step(examples: Sequence[Any]) -> int:
        sft.train(model, [list(examples)], settings, "benchmark")
        packs = sft.pack(examples, settings.pack_tokens)
        return sum(packing.filled(sum(len(example.ids) for example in group)) for group in packs)

    return step


def padded(model: Any, settings: Any, rows: int, checkpointing: bool, pad: int) -> Callable[[Sequence[Any]], int]:
    """The published loop's way: micro-batches padded to their longest row, mean loss each, metrics read at every one.

    Source: UCSC-VLAA/STAR-1 @ b493335, as its recipe says; written out from that description.
    """
    import torch

    from star1 import sft

    optimizer, device = sft.make_optimizer(model, settings), next(model.parameters()).device
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def step(examples: Sequence[Any]) -> int:
        computed, right, total, losses = 0, 0, 0, 0.0
        groups = [examples[start : start + rows] for start in range(0, len(examples), rows)]
        for group in groups:
            size = max(len(example.ids) for example in group)
            ids = torch.tensor([example.ids + [pad] * (size - len(example.ids)) for example in group], device=device)
            padded_labels = [example.labels + [sft.IGNORED] * (size - len(example.labels)) for example in group]
            labels = torch.tensor(padded_labels, device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                output = model(input_ids=ids, labels=labels, use_cache=False)
            with torch.no_grad():
                hits = output.logits[:, :-1].argmax(-1) == labels[:, 1:]
                right += int((hits & (labels[:, 1:] != sft.IGNORED)).sum().item())
                total += int((labels[:, 1:] != sft.IGNORED).sum().item())
                losses += output.loss.item()
            (output.loss / len(groups)).backward()
            computed += ids.numel()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        return computed

    return step


# Rows a micro-batch and whether activations are recomputed; None is ours.
WAYS = {
    "ours": None,
    "published way: 1 row a micro-batch, activations recomputed": (1, True),
    "the same without recomputing": (1, False),
    "8 rows a micro-batch, padded, without recomputing": (8, False),
}


class Process:
    """A way in a process of its own, as a training has one: what another way leaves in memory costs it nothing."""

    def __init__(self, name: str, how: tuple[int, bool] | None, model: Any, settings: Any, pad: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, how, model, settings, pad))
        self.process.start()
        theirs.close()

    def update(self, examples: Sequence[Any]) -> tuple[int, float]:
        """Positions computed, and CPU seconds."""
        self.pipe.send(examples)
        found: tuple[int, float] = self.pipe.recv()
        return found

    def end(self) -> None:
        """Let the process end."""
        self.pipe.close()
        self.process.join()


def serve(pipe: Any, how: tuple[int, bool] | None, model: Any, settings: Any, pad: int) -> None:
    """Make the updates that are asked for, one by one."""
    threads.use(1)
    step = padded(model, settings, *how, pad) if how else ours(model, settings)
    while True:
        try:
            examples = pipe.recv()
        except EOFError:
            return
        started = time.process_time()
        computed = step(examples)
        pipe.send((computed, time.process_time() - started))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the tiny model all ways in turn, update by update, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="rows as JSON or JSON Lines; else made-up rows of STAR-1's lengths")
    parser.add_argument("--updates", type=int, default=2, help="of 128 rows, by each way; default 2")
    parser.add_argument("--pack-tokens", type=int, default=4096, help="of ours; default 4096")
    parser.add_argument("--quick", action="store_true", help="a few rows: shows that it runs, measures nothing")
    flags = parser.parse_args(arguments)
    threads.use(1)
    batch, updates = (8, 1) if flags.quick else (128, flags.updates)
    for line in measure(flags.data, batch, updates, flags.quick, flags.pack_tokens):
        print(line)


def read(path: Path | None) -> list[dict[str, str]]:
    """The rows of a file, or made-up ones."""
    if path is None:
        return synthetic_rows(1000)
    text = path.read_text(encoding="utf-8")
    found: list[dict[str, str]] = (
        json.loads(text) if text.lstrip().startswith("[") else [*map(json.loads, text.splitlines())]
    )
    return found


def measure(data: Path | None, batch: int, updates: int, quick: bool, pack_tokens: int) -> list[str]:
    """Print the table; gives lines about it."""
    from star1 import sft, tiny

    rows = read(data)
    # Room for the longest row: the tiny model's own context is shorter.
    size = tiny.Settings(context=8192)
    tokenizer = tiny.make_tokenizer([f"{row['question']}\n{row['response']}" for row in rows], size)
    settings = sft.Settings(max_tokens=8192, pack_tokens=pack_tokens, learning_rate=1e-3)
    examples, _ = sft.render_all(tokenizer, rows, settings)
    groups = [[examples[at] for at in numbers[:batch]] for numbers in sft.plan(len(examples), settings)]
    model = tiny.make_model(tokenizer, size)
    ways = [Process(name, how, model, settings, tokenizer.eos_token_id) for name, how in WAYS.items()]
    for one in ways:
        one.update(groups[-1])  # loads what is loaded once, and asks the system for memory that is kept
    found = [Way(one.name, one.update) for one in ways]
    for group in groups[:updates]:
        for way in found:
            way.run(group)
    for one in ways:
        one.end()
    mine, published, *_ = found
    met = "" if quick else f">= {TARGET:g}: {'met' if mine.rate() >= TARGET * published.rate() else 'MISSED'}"
    table(
        f"fine-tuning: {updates} updates of {batch} rows, {mine.tokens:,} tokens, one thread",
        ("", "tokens per CPU-s", "padding", "ours is", "target"),
        [one.line(mine, met if one is published else "") for one in found],
    )
    lengths = sorted(len(example.ids) for example in examples)
    return [
        "",
        f"{len(examples):,} rows, {sum(lengths) / len(lengths):.0f} tokens on average, {lengths[-1]:,} at most;"
        f" {settings.precision}, {sum(one.numel() for one in model.parameters()):,} weights",
    ]


if __name__ == "__main__":
    main()
