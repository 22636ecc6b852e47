"""The training loop, one for every size: it takes updates, each a list of examples, and knows not where they come from."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from star1 import heap, peers, sharding
from star1.errors import SettingError, Star1Error, StoppedError, tell
from star1.layers import use_feeding_norms, use_gated_products, use_wide_outputs
from star1.losses import Scored
from star1.packing import collate, deal, shares, use_packed_attention
from star1.progress import Progress
from star1.recipe import Optimisation, rate_at
from star1.records import Row
from star1.rendering import Example, target_count
from star1.resuming import States, TrainingError, memory_told, room_told, signals

GO_ON = "start it again: it goes on after this update"


def make_optimizer(model: torch.nn.Module, settings: Optimisation) -> torch.optim.Optimizer:
    """AdamW without weight decay on biases and norms, which go by their name or their layer's kind."""
    norms = [one for one in model.modules() if "norm" in type(one).__name__.lower()]
    spared = {id(parameter) for one in norms for parameter in one.parameters(recurse=False)}
    spared |= {
        id(one) for name, one in model.named_parameters() if name.lower().endswith("bias") or "norm" in name.lower()
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    plain = [parameter for parameter in trained if id(parameter) in spared]
    decayed = [parameter for parameter in trained if id(parameter) not in spared]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def train(
    model: Any,
    updates: Sequence[list[Example]],
    settings: Optimisation,
    stage: str,
    states: States | None = None,
    spread: tuple[str, str] = ("none", "none"),
    watchers: Sequence[Callable[[list[Row]], None]] = (),
) -> tuple[sharding.Whole, list[Row]]:
    """Train `model` (float32 weights) and give it as it lies in the processes, with one record per update.

    The loss of an update is the sum over its target tokens divided by their number, over all packs and processes:
    every token weighs the same, however the samples were packed.

    Args:
        model: a causal language model.
        updates: the examples of each update.
        settings: how to train.
        stage: whose name stands in messages.
        states: where the run is saved by time and at a signal, and goes on from.
        spread: `sharding` and `offload` of `recipe.Settings`.
        watchers: called with the history at the start and whenever losses have been gathered, when nothing has to be waited for.

    Raises:
        TrainingError: the loss of an update or the norm of its gradients is not a finite number, the loss has diverged,
            or memory or disk is full.
        StoppedError: a signal came; the state is saved.
        PeerError: another process has ended.
        SystemExit: with several processes, in place of the first two where all found the same; it is told then.
    """
    if not torch.cuda.is_available():
        heap.keep()
    if not (apart := use_packed_attention(model)):
        settings = dataclasses.replace(settings, pack_tokens=1)
    use_feeding_norms(model)
    use_wide_outputs(model)
    use_gated_products(model)
    if settings.gradient_checkpointing:
        _recompute(model)
    model.train()
    longest = max((len(example.ids) for examples in updates for example in examples), default=0)
    with peers.told(stage), memory_told(stage, settings.pack_tokens, settings.gradient_checkpointing, longest):
        accelerator = sharding.accelerator_for(*spread, settings.gradient_norm)
        _check_processes(updates, stage)
        if not apart:
            family = model.config.model_type
            peers.tell_once(f"{stage}: {family} does not keep sequences of a pack apart: each is taken alone")
        scored = Scored(model, settings.precision)
        prepared = sharding.prepare(accelerator, spread[0], scored, lambda one: make_optimizer(one, settings))
        loop = _Loop(prepared, updates, settings, stage, states)
        loop.watchers = watchers
        loop.run()
    return prepared, loop.history


def _recompute(model: Any) -> None:
    """Have activations computed again in the backward pass; the library has called that by two names."""
    way = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=way)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=way)


def _check_processes(updates: Sequence[list[Example]], stage: str) -> None:
    """See that every process can have a sample of an update: one without would compute what counts for nothing."""
    most, world = max(map(len, updates), default=0), peers.world()
    if most < world:
        found = f"{world} for updates of {most} samples, {most / world:.2g} each"
        _end(
            SettingError(f"{stage}: processes", found, f"at most {most}", "lower processes, or raise batch_size"),
            status=1,
        )


class _Loop:
    """A run on its way: what it has, what it did, and what it has not looked at yet."""

    def __init__(
        self,
        model: sharding.Whole,
        updates: Sequence[list[Example]],
        settings: Optimisation,
        stage: str,
        states: States | None,
    ) -> None:
        self.model = model
        self.updates, self.settings, self.stage, self.states = updates, settings, stage, states
        self.history: list[Row] = []
        self.watchers: Sequence[Callable[[list[Row]], None]] = ()
        self.pending: list[torch.Tensor] = []  # loss share, norm and samples of each update since the last look

    def run(self) -> None:
        """All updates that a saved state does not hold already."""
        if self.states:
            self.history = self.states.restore(self.model)
        sizes = [sum(len(example.ids) for example in examples) for examples in self.updates]
        done = len(self.history)
        before = sum(sizes[:done])
        progress = (
            Progress(self.stage, sum(sizes), "tokens", before, more=self.told, watches_gpus=True)
            if peers.main()
            else None
        )
        self.tell_watchers()
        with contextlib.ExitStack() as stack:
            heard = stack.enter_context(signals(self.stage)) if self.states else []
            for number in range(done, len(self.updates)):
                self.pending.append(self.update(number))
                self.look(heard, last=number == len(self.updates) - 1)
                if progress:
                    progress.add(sizes[number])
        if progress:
            progress.close()

    def told(self) -> Row:
        """Updates so far, for whoever watches, and the last loss that was looked at."""
        done, loss = len(self.history) + len(self.pending), self.history[-1]["loss"] if self.history else None
        return {"training": {"update": done, "updates": len(self.updates), "loss": loss}}

    def update(self, number: int) -> torch.Tensor:
        """One update, not waited for; gives [3] this process's share of its loss, its gradients' norm, samples here."""
        model, settings, examples = self.model, self.settings, self.updates[number]
        model.set_rate(rate_at(number, len(self.updates), settings))
        total, world = target_count(examples), peers.world()
        # Every process has the same number of packs, since each is a call of all; those that are missing weigh nothing.
        mine = list(shares(deal(examples, settings.pack_tokens, world), peers.rank(), world))
        loss, samples = torch.zeros((), device=model.device), 0
        for at, (group, weight) in enumerate(mine):
            # Gradients are averaged over processes: times their number makes that a sum.
            batch, factor = collate(group, model.device), weight * world / total
            loss += model.add(batch, factor, last=at == len(mine) - 1) / world
            samples += len(group) if weight else 0
        norm = model.step(settings.gradient_norm)
        return torch.stack([loss, norm.detach().to(loss), torch.full_like(loss, samples)])

    def look(self, heard: list[int], last: bool) -> None:
        """Every few updates: gather losses, end what cannot go on, save what is due.

        One process alone sees a signal at once; several agree on it when they gather.
        """
        alone = peers.world() == 1
        due = self.states is not None and self.states.due()
        if not (last or len(self.pending) >= self.settings.gather_every or (alone and (heard or due))):
            return
        try:
            signal, due = self.gather(heard[0] if heard else 0, due)
            self.check()
        except TrainingError as error:
            _end(error, 1)
        self.tell_watchers()
        if self.states and not last and (signal or due):
            self.states.save(self.model, self.history)
        if signal and not last:  # after the last update there is little left to do but to write
            where = f"{self.stage}, after update {len(self.history)} of {len(self.updates)}"
            _end(StoppedError(where, signal, GO_ON), 128 + signal)

    def tell_watchers(self) -> None:
        """Let others look at the history."""
        for watcher in self.watchers:
            watcher(self.history)

    def gather(self, signal: int, due: bool) -> tuple[int, bool]:
        """Move what is pending to the history; gives the signal that came to any process, and what is due at the main one."""
        told = [float(signal == 2), float(signal == 15), float(due and peers.main())]
        table = torch.stack([*self.pending, torch.tensor(told, device=self.model.device)])
        first = len(self.history)
        *values, ends = self.model.accelerator.reduce(table, "sum").tolist()
        for number, (loss, norm, samples) in enumerate(values, first):
            self.held(number, samples)
            rate, targets = rate_at(number, len(self.updates), self.settings), target_count(self.updates[number])
            norm /= peers.world()  # it is of all processes already
            self.history.append(
                {"update": number + 1, "loss": loss, "rate": rate, "norm": norm, "target_tokens": targets}
            )
        self.pending = []
        return next((number for number, count in zip((2, 15), ends, strict=False) if count), 0), ends[2] > 0

    def held(self, number: int, samples: float) -> None:
        """See that an update was made of the samples that it is to be made of, over all processes.

        Raises:
            TrainingError: it was not.
        """
        if samples != len(self.updates[number]):
            raise TrainingError(
                f"{self.stage}, update {number + 1} of {len(self.updates)}",
                f"{samples:g} samples over {peers.world()} processes",
                f"{len(self.updates[number])}, each once",
                "the processes do not see the same rows: are data, base and params.yaml the same for all?",
            )

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
                    "lower learning_rate" + ("" if self.settings.gradient_norm else ", or set gradient_norm"),
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


def _end(error: Star1Error, status: int) -> NoReturn:
    """End a run for a reason that all processes know: with several, the main one tells it before any ends.

    Raises:
        Star1Error: there is one process.
        SystemExit: there are several.
    """
    if peers.world() == 1:
        raise error
    if peers.main():
        tell(f"error: {error}")
    peers.wait()
    sys.exit(status)


# ---------------------------------------------------------------- the weights


def save(trained: sharding.Whole, folder: str | Path) -> None:
    """Write config and bfloat16 weights to `folder`, whole and tied ones once (main process alone).

    Raises:
        TrainingError: the disk is full.
    """
    with peers.told("the checkpoint"):
        state = trained.weights()
        if peers.main():
            with room_told(folder, "start it again"):
                trained.causal.save_pretrained(folder, state_dict=state)
                # Saving a model writes into its config the type that it has in memory; what lies in the file is another.
                trained.causal.config.dtype = torch.bfloat16
                trained.causal.config.save_pretrained(folder)
        peers.wait()
