"""Supervised fine-tuning: rows rendered with the model's own template, packed, trained through accelerate.

One loop for every size: `train` takes updates, each a list of examples, and knows nothing of where they come from.
"""

import contextlib
import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional

from star1 import chat, checkpoints
from star1.errors import InputError, SettingError, Star1Error
from star1.progress import Progress
from star1.records import Row, file_digest, read_rows

IGNORED = -100  # label of a token that is read but not learnt
PACKED = "star1_packed"  # name of our attention function in transformers' table


class TrainingError(Star1Error):
    """Training that cannot go on."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One sequence: token ids and labels of equal length; a label is the token's own id, or `IGNORED`."""

    ids: list[int]
    labels: list[int]


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
    """

    epochs: int = 5
    batch_size: int = 128
    drop_last: bool = True
    max_tokens: int = 8192
    think: bool = True
    seed: int = 2002


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
    for name in ("epochs", "batch_size", "max_tokens", "pack_tokens", "learning_rate"):
        if getattr(made, name, 1) <= 0:
            raise SettingError(f"training settings: {name}", str(getattr(made, name)), "a number above 0")
    for name, allowed in (("precision", ("bf16", "float32")), ("schedule", ("cosine", "constant"))):
        if getattr(made, name) not in allowed:
            raise SettingError(f"training settings: {name}", repr(getattr(made, name)), " or ".join(allowed))
    return made


# ---------------------------------------------------------------- rows to examples


def target_text(response: str, think: bool, opened: bool, thinks: bool) -> str | None:
    """What the model shall write after the prompt, or None when `response` has no complete think block or no answer.

    Args:
        response: `<think>...</think>` and the answer.
        think: keep the thinking.
        opened: the prompt already ends with the opening tag.
        thinks: the model was made to think, so that without thinking it still gets an empty block.
    """
    thinking, answer = chat.split_thinking(response, opened=False)
    if not answer or (think and not thinking):
        return None
    if not think and not thinks:
        return answer
    block = f"{chat.OPEN}\n{thinking if think else ''}\n{chat.CLOSE}\n\n"
    return (block.removeprefix(f"{chat.OPEN}\n") if opened else block) + answer


def render(tokenizer: Any, row: Row, settings: Settings) -> Example | str:
    """One row as an example with the prompt masked and the end of sequence learnt, or the reason why it is dropped."""
    text = target_text(row["response"], settings.think, chat.opens_thinking(tokenizer), chat.knows_thinking(tokenizer))
    if text is None:
        return "no complete think block and answer"
    prompt = chat.prompt_ids(tokenizer, row["question"])
    # Prompt and response are tokenised apart, as generation sees them: no merge can cross the border.
    target = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if len(prompt) + len(target) > settings.max_tokens:
        return f"longer than {settings.max_tokens} tokens"
    return Example(prompt + target, [IGNORED] * len(prompt) + target)


def render_all(tokenizer: Any, rows: Sequence[Row], settings: Settings) -> tuple[list[Example], Counter[str]]:
    """Examples of all rows that can be used, and how many were dropped for which reason.

    Raises:
        InputError: no row is left.
    """
    rendered = [render(tokenizer, row, settings) for row in rows]
    dropped = Counter(item for item in rendered if isinstance(item, str))
    examples = [item for item in rendered if isinstance(item, Example)]
    if not examples:
        raise InputError("training rows", f"{len(rows)} rows, none usable ({dict(dropped)})", "at least one row")
    return examples, dropped


def plan(count: int, settings: Settings) -> list[list[int]]:
    """Row numbers of each update: every epoch in an order drawn from (seed, epoch) alone, epochs joined, then cut.

    Raises:
        SettingError: the last incomplete batch is dropped and there is no other.
    """
    order: list[int] = []
    for epoch in range(settings.epochs):
        numbers = list(range(count))
        random.Random(f"{settings.seed}-{epoch}").shuffle(numbers)
        order += numbers
    size = settings.batch_size
    updates = [order[start : start + size] for start in range(0, len(order), size)]
    if settings.drop_last and len(updates[-1]) < size:
        updates.pop()
    if not updates:
        raise SettingError(
            "training settings: batch_size",
            f"{size} samples per update, {len(order)} samples in all",
            "at least one full batch",
            "lower batch_size or set drop_last to false",
        )
    return updates


# ---------------------------------------------------------------- packing


def pack(examples: Sequence[Example], capacity: int) -> list[list[Example]]:
    """Distribute sequences over packs of at most `capacity` tokens, longest first, each into the first pack with room.

    A sequence longer than the capacity gets a pack of its own.
    """
    packs: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda example: -len(example.ids)):
        for number, left in enumerate(room):
            if left >= len(example.ids):
                packs[number].append(example)
                room[number] -= len(example.ids)
                break
        else:
            packs.append([example])
            room.append(capacity - len(example.ids))
    return packs


def packed_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a pack: no token sees another sequence, and no L x L mask is made.

    Args:
        module: the attention layer that calls.
        query: [1, heads, tokens, d].
        key: [1, kv_heads, tokens, d].
        value: as `key`.
        attention_mask: must be None.
        kwargs: `cu_seq_lens_q` [sequences + 1] holds where sequences start and end; `scaling` the scale of the scores.

    Returns:
        [1, tokens, heads, d] and None.
    """
    ends = kwargs["cu_seq_lens_q"].tolist()
    grouped = query.shape[1] != key.shape[1]
    parts = [
        functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            dropout_p=kwargs.get("dropout", 0.0),
            is_causal=True,
            scale=kwargs.get("scaling"),
            enable_gqa=grouped,
        )
        for start, end in itertools.pairwise(ends)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def use_packed_attention(model: Any) -> None:
    """Switch `model` to `packed_attention`; one with sliding windows keeps its own (exact in packs too, but slower)."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if getattr(model.config, "sliding_window", None):
        return
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)
    model.set_attn_implementation(PACKED)


def loss_sum(model: Any, examples: Sequence[Example], device: Any = "cpu") -> torch.Tensor:
    """Cross-entropy summed over the target tokens of one pack [nats].

    Positions restart with every sequence, there is no padding and no attention mask: either attention function then
    keeps sequences apart. (An all-ones mask would silently let them see each other.)
    """
    ids = torch.tensor([[token for example in examples for token in example.ids]], device=device)
    positions = torch.cat([torch.arange(len(example.ids)) for example in examples])[None].to(device)
    # The token at p is predicted at p - 1. The first token of a sequence has nothing before it and is no target.
    labels = torch.tensor([label for example in examples for label in (IGNORED, *example.labels[1:])], device=device)
    targets = (labels != IGNORED).nonzero().squeeze(1)
    lengths = [0, *(len(example.ids) for example in examples)]
    ends = torch.tensor(lengths).cumsum(0).to(torch.int32)
    output = model(
        input_ids=ids,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=targets - 1,
        cu_seq_lens_q=ends,
        cu_seq_lens_k=ends,
        max_length_q=max(lengths),
        max_length_k=max(lengths),
    )
    return functional.cross_entropy(output.logits[0].float(), labels[targets], reduction="sum")


def target_count(examples: Sequence[Example]) -> int:
    """Number of target tokens."""
    return sum(label != IGNORED for example in examples for label in example.labels[1:])


# ---------------------------------------------------------------- the loop


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


def make_optimizer(model: torch.nn.Module, settings: Optimisation) -> torch.optim.Optimizer:
    """AdamW without weight decay on biases and norms."""
    named = [(name.lower(), parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    plain = [parameter for name, parameter in named if name.endswith("bias") or "norm" in name]
    decayed = [parameter for name, parameter in named if not (name.endswith("bias") or "norm" in name)]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def shares(packs: list[list[Example]], rank: int, world: int) -> Iterator[tuple[list[Example], float]]:
    """Packs of one process with their weight; all processes get the same number, the missing ones at weight 0."""
    for start in range(0, len(packs), world):
        number = start + rank
        yield (packs[number], 1.0) if number < len(packs) else (packs[0], 0.0)


def train(
    model: Any, updates: Sequence[list[Example]], settings: Optimisation, stage: str
) -> tuple[tuple[Any, Any], list[Row]]:
    """Train `model` (float32 weights) and give accelerate's wrapper of it with one record per update.

    The loss of an update is the sum over its target tokens divided by their number, over all packs and processes:
    every token weighs the same, however the samples were packed.

    Raises:
        TrainingError: the loss of an update or the norm of its gradients is not a finite number.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="bf16" if settings.precision == "bf16" else "no")
    use_packed_attention(model)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    model, optimizer = accelerator.prepare(model, make_optimizer(model, settings))
    progress = Progress(stage, sum(len(example.ids) for update in updates for example in update), "tokens")
    history = []
    for number, examples in enumerate(updates):
        rate = rate_at(number, len(updates), settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, norm = _update(accelerator, model, optimizer, examples, settings)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"{stage}, update {number + 1} of {len(updates)}",
                f"loss {loss}, norm of the gradients {norm}",
                "a finite loss and norm",
                "lower learning_rate, or set gradient_norm",
            )
        history.append({"update": number + 1, "loss": loss, "rate": rate, "target_tokens": target_count(examples)})
        progress.add(sum(len(example.ids) for example in examples))
    progress.close()
    return (accelerator, model), history


def _update(
    accelerator: Any, model: Any, optimizer: Any, examples: list[Example], settings: Optimisation
) -> tuple[float, float]:
    """One update; gives its loss [nats per target token] and the norm of its gradients before they are scaled.

    Weights change only where both are finite: the loss alone would let the gradients of the last update spoil them.
    """
    total, world = target_count(examples), accelerator.num_processes
    mine = list(shares(pack(examples, settings.pack_tokens), accelerator.process_index, world))
    loss = torch.zeros((), device=accelerator.device)
    for number, (group, weight) in enumerate(mine):
        last = number == len(mine) - 1
        with _together(accelerator, model, last):
            # Gradients are averaged over processes: times their number makes that a sum.
            part = loss_sum(model, group, accelerator.device) * (weight * world / total)
            accelerator.backward(part)
        loss += part.detach() / world
    total_loss = float(accelerator.reduce(loss, "sum").item())
    norm = float(accelerator.clip_grad_norm_(model.parameters(), settings.gradient_norm or math.inf))
    if math.isfinite(total_loss) and math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad()
    return total_loss, norm


def _together(accelerator: Any, model: Any, last: bool) -> Any:
    """Exchange gradients between processes with the last pack of an update alone."""
    return contextlib.nullcontext() if last else accelerator.no_sync(model)


def save(accelerator: Any, model: Any, folder: str | Path) -> None:
    """Write config and bfloat16 weights to `folder` (main process alone)."""
    state = accelerator.get_state_dict(model)
    inner = accelerator.unwrap_model(model)
    if accelerator.is_main_process:
        inner.save_pretrained(folder, state_dict=_halved(state))
        # Saving a model writes into its config the type that it has in memory; what lies in the file is another.
        inner.config.dtype = torch.bfloat16
        inner.config.save_pretrained(folder)
    accelerator.wait_for_everyone()


def _halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floating-point tensors in bfloat16; tensors that share their memory still share it, so tied weights stay tied."""
    halves: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    for tensor in state.values():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        halves.setdefault(key, tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor)
    return {name: halves[tensor.data_ptr(), tuple(tensor.shape)] for name, tensor in state.items()}


# ---------------------------------------------------------------- the stage


def read_data(paths: Sequence[str]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows of all files in order, and name, digest and size of each file."""
    files = [(path, read_rows(path, ["question", "response"])) for path in paths]
    facts = [{"file": Path(path).name, "sha256": file_digest(path), "rows": len(rows)} for path, rows in files]
    return [row for _, rows in files for row in rows], facts


def finetune(base: str | Path, data: Sequence[str], settings: Settings, staging: str | Path) -> dict[str, Any]:
    """Fine-tune the checkpoint in folder `base` on the rows of `data`; leaves a complete checkpoint in `staging`.

    Returns:
        record: facts of the run for the manifest, equal for equal runs.
        history: one entry per update.
    """
    manifest = checkpoints.verify(base)
    rows, facts = read_data(data)
    tokenizer = chat.load_tokenizer(str(base))
    examples, dropped = render_all(tokenizer, rows, settings)
    updates = [[examples[number] for number in numbers] for numbers in plan(len(examples), settings)]
    torch.manual_seed(settings.seed)
    model = checkpoints.load_model(base, torch.float32)
    _check_room(model, examples)
    trained, history = train(model, updates, settings, f"finetune {Path(staging).name}")
    checkpoints.empty(staging)
    checkpoints.carry_over(base, staging)
    save(*trained, staging)
    record = {
        "base": {"kind": manifest["kind"], "manifest_sha256": file_digest(Path(base) / checkpoints.MANIFEST)},
        "data": facts,
        "rows": {"used": len(examples), "dropped": dict(sorted(dropped.items()))},
        "settings": dataclasses.asdict(settings),
        "updates": len(updates),
        "target_tokens": sum(entry["target_tokens"] for entry in history),
        "loss": {"first": round(history[0]["loss"], 4), "last": round(history[-1]["loss"], 4)},
        "versions": checkpoints.versions(("torch", "transformers", "accelerate")),
    }
    return {"record": record, "history": history}


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
