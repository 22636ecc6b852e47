"""The training loop, one for every size: it takes updates, each a list of examples, and knows not where they come from."""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from star1.errors import StoppedError, tell
from star1.losses import Scored
from star1.packing import collate, pack, shares, use_packed_attention
from star1.progress import Progress
from star1.recipe import Optimisation, rate_at
from star1.records import Row
from star1.rendering import Example, target_count
from star1.resuming import States, TrainingError, memory_told, room_told, signals

GO_ON = "start it again: it goes on after this update"


def make_optimizer(model: torch.nn.Module, settings: Optimisation) -> torch.optim.Optimizer:
    """AdamW without weight decay on biases and norms."""
    named = [(name.lower(), parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    plain = [parameter for name, parameter in named if name.endswith("bias") or "norm" in name]
    decayed = [parameter for name, parameter in named if not (name.endswith("bias") or "norm" in name)]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def train(
    model: Any,
    updates: Sequence[list[Example]],
    settings: Optimisation,
    stage: str,
    states: States | None = None,
    watchers: Sequence[Callable[[list[Row]], None]] = (),
) -> tuple[tuple[Any, Any], list[Row]]:
    """Train `model` (float32 weights) and give accelerate's wrapper of it with one record per update.

    The loss of an update is the sum over its target tokens divided by their number, over all packs and processes:
    every token weighs the same, however the samples were packed.

    Args:
        model: a causal language model.
        updates: the examples of each update.
        settings: how to train.
        stage: whose name stands in messages.
        states: where the run is saved by time and at a signal, and goes on from.
        watchers: called with the history at the start and whenever losses have been gathered, when nothing has to be waited for.

    Raises:
        TrainingError: the loss of an update or the norm of its gradients is not a finite number, the loss has diverged,
            or memory or disk is full.
        StoppedError: a signal came; the state is saved.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="bf16" if settings.precision == "bf16" else "no")
    use_packed_attention(model)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    with memory_told(stage, settings.pack_tokens, settings.gradient_checkpointing):
        prepared, optimizer = accelerator.prepare(Scored(model), make_optimizer(model, settings))
        loop = _Loop(accelerator, prepared, optimizer, updates, settings, stage, _usable(states, accelerator, stage))
        loop.watchers = watchers
        loop.run()
    return (accelerator, prepared), loop.history


def _usable(states: States | None, accelerator: Any, stage: str) -> States | None:
    if states and accelerator.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        tell(
            f"{stage}: no training state is saved, since weights are spread over processes; a run that stops starts anew"
        )
        return None
    return states


class _Loop:
    """A run on its way: what it has, what it did, and what it has not looked at yet."""

    def __init__(
        self,
        accelerator: Any,
        model: Any,
        optimizer: Any,
        updates: Sequence[list[Example]],
        settings: Optimisation,
        stage: str,
        states: States | None,
    ) -> None:
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.updates, self.settings, self.stage, self.states = updates, settings, stage, states
        self.history: list[Row] = []
        self.watchers: Sequence[Callable[[list[Row]], None]] = ()
        self.pending: list[torch.Tensor] = []  # loss share and norm of each update since the last look

    def run(self) -> None:
        """All updates that a saved state does not hold already."""
        if self.states:
            self.history = self.states.restore(self.accelerator.unwrap_model(self.model).causal, self.optimizer)
        sizes = [sum(len(example.ids) for example in examples) for examples in self.updates]
        done = len(self.history)
        progress = Progress(self.stage, sum(sizes), "tokens", sum(sizes[:done]))
        self.tell_watchers()
        with contextlib.ExitStack() as stack:
            heard = stack.enter_context(signals(self.stage)) if self.states else []
            for number in range(done, len(self.updates)):
                self.pending.append(self.update(number))
                self.look(heard, last=number == len(self.updates) - 1)
                progress.add(sizes[number])
        progress.close()

    def update(self, number: int) -> torch.Tensor:
        """One update; gives this process's share of its loss and the norm of its gradients [2], not waited for."""
        accelerator, settings, examples = self.accelerator, self.settings, self.updates[number]
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(number, len(self.updates), settings)
        total, world = target_count(examples), accelerator.num_processes
        mine = list(shares(pack(examples, settings.pack_tokens), accelerator.process_index, world))
        loss = torch.zeros((), device=accelerator.device)
        for at, (group, weight) in enumerate(mine):
            # Gradients are exchanged between processes with the last pack of an update alone.
            with contextlib.nullcontext() if at == len(mine) - 1 else accelerator.no_sync(self.model):
                # They are averaged over processes: times their number makes that a sum.
                part = self.model(collate(group, accelerator.device)) * (weight * world / total)
                accelerator.backward(part)
            loss += part.detach() / world
        norm = accelerator.clip_grad_norm_(self.model.parameters(), settings.gradient_norm or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack([loss, norm.detach().to(loss)])

    def look(self, heard: list[int], last: bool) -> None:
        """Every few updates: gather losses, end what cannot go on, save what is due.

        One process alone sees a signal at once; several agree on it when they gather.
        """
        alone = self.accelerator.num_processes == 1
        due = self.states is not None and self.states.due()
        if not (last or len(self.pending) >= self.settings.gather_every or (alone and (heard or due))):
            return
        signal, due = self.gather(heard[0] if heard else 0, due)
        self.check()
        self.tell_watchers()
        if self.states and not last and (signal or due):
            if self.accelerator.is_main_process:
                self.states.save(self.accelerator.unwrap_model(self.model).causal, self.optimizer, self.history)
            self.accelerator.wait_for_everyone()
        if signal and not last:  # after the last update there is little left to do but to write
            where = f"{self.stage}, after update {len(self.history)} of {len(self.updates)}"
            raise StoppedError(where, signal, GO_ON)

    def tell_watchers(self) -> None:
        """Let others look at the history."""
        for watcher in self.watchers:
            watcher(self.history)

    def gather(self, signal: int, due: bool) -> tuple[int, bool]:
        """Move what is pending to the history; gives the signal that came to any process, and what is due at the main one."""
        device, main = self.accelerator.device, self.accelerator.is_main_process
        told = [torch.tensor([float(signal == number) for number in (2, 15)], device=device)]
        told.append(torch.tensor([float(due and main), 0.0], device=device))
        first = len(self.history)
        *values, signals_told, due_told = self.accelerator.reduce(torch.stack([*self.pending, *told]), "sum").tolist()
        for number, (loss, norm) in enumerate(values, first):
            rate, targets = rate_at(number, len(self.updates), self.settings), target_count(self.updates[number])
            # The norm is of all processes already.
            norm /= self.accelerator.num_processes
            self.history.append(
                {"update": number + 1, "loss": loss, "rate": rate, "norm": norm, "target_tokens": targets}
            )
        self.pending = []
        return next((number for number, count in zip((2, 15), signals_told, strict=True) if count), 0), due_told[0] > 0

    def check(self) -> None:
        """See that losses are finite and do not run away.

        Raises:
            TrainingError: they are not, or do.
        """
        for entry in self.history:
            if not math.isfinite(entry["loss"]) or not math.isfinite(entry["norm"]):
                raise TrainingError(
                    f"{self.stage}, update {entry['update']} of {len(self.updates)}",
                    f"loss {entry['loss']}, norm of the gradients {entry['norm']}",
                    "a finite loss and norm",
                    "lower learning_rate, or set gradient_norm",
                )
        count, factor = self.settings.diverged_updates, self.settings.diverged_factor
        losses = [entry["loss"] for entry in self.history]
        for end in range(count, len(losses) + 1) if factor else ():
            mean, first = sum(losses[end - count : end]) / count, sum(losses[:count]) / count
            if mean > factor * first:
                raise TrainingError(
                    f"{self.stage}, update {end} of {len(self.updates)}",
                    f"diverged: a mean loss of {mean:.4g} over {count} updates, {first:.4g} at first",
                    f"at most {factor:g} times the first (diverged_factor)",
                    "lower learning_rate, or raise warmup",
                )


# ---------------------------------------------------------------- the weights


def save(accelerator: Any, model: Any, folder: str | Path) -> None:
    """Write config and bfloat16 weights to `folder` (main process alone).

    Raises:
        TrainingError: the disk is full.
    """
    state = accelerator.get_state_dict(model)
    inner = accelerator.unwrap_model(model).causal
    if accelerator.is_main_process:
        with room_told(folder, "start it again"):
            own = {name.removeprefix("causal."): tensor for name, tensor in state.items()}
            inner.save_pretrained(folder, state_dict=_halved(own))
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
