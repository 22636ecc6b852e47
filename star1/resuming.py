"""Training states: what a run needs to go on after a signal, a crash or a power cut as if nothing had been.

`{root}/{key}/update-000012/` holds weights and optimizer as safetensors and the rest in state.json, which also has the
digests of both. The key is a digest of everything that decides the result, so that a state of another run is never used.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import torch

from star1.errors import Star1Error, tell
from star1.records import Row, file_digest, read_json, write_json

STATE, WEIGHTS, OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"
KEPT = 2
# Modules that decide what training gives; a test holds them against what star1.sft imports.
CODE = ("adapters", "chat", "checkpoints", "losses", "packing", "recipe", "rendering", "sft", "training")
BYTES_PER_WEIGHT = 12  # float32 weights and the two moments of AdamW


class TrainingError(Star1Error):
    """Training that cannot go on."""


def key_of(facts: Mapping[str, Any]) -> str:
    """Digest of what decides a run's result: `facts`, and the code."""
    folder = Path(__file__).parent
    code = {name: file_digest(folder / f"{name}.py") for name in CODE}
    return hashlib.sha256(orjson.dumps([dict(facts), code], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


class States:
    """The saved states of one run.

    Args:
        root: folder for the states of the run, whatever its settings.
        key: from `key_of`.
        minutes: time between two saved states; 0: they are never due.
    """

    def __init__(self, root: Path, key: str, minutes: float) -> None:
        self.folder, self.key, self.minutes = root / key, key, minutes
        self.saved = time.monotonic()
        if others := sorted(path.name for path in root.glob("*") if path.is_dir() and path.name != key):
            told = f"{root}: training state of other data, base, settings, code or machine ({', '.join(others)})"
            tell(f"{told}; not used, and kept until the run is finished")

    def due(self) -> bool:
        """Whether it is time to save a state."""
        return self.minutes > 0 and time.monotonic() - self.saved >= 60 * self.minutes

    def preflight(self, model: Any, stage: str) -> None:
        """See that states and the checkpoint find room.

        Raises:
            TrainingError: they do not.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
        needed = trained * KEPT * BYTES_PER_WEIGHT + sum(one.numel() for one in model.parameters()) * 2
        there = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(self.folder).free + there
        if free < needed:
            raise TrainingError(
                f"{stage}: {self.folder}",
                f"{_size(free)} free",
                f"{_size(needed)} for {KEPT} training states and the checkpoint",
                "free space there, or make .work/ and models/ links to a larger disk",
            )

    def save(self, model: Any, optimizer: Any, history: list[Row]) -> None:
        """Save the state after the last update of `history`; it has its name only when it is whole and on disk.

        Raises:
            TrainingError: the disk is full.
        """
        target, part = self.folder / _name(len(history)), self.folder / f".{_name(len(history))}.part"
        # The oldest goes first, so that there are never more than `KEPT` on disk; one whole state always is.
        for path in [*self._found()[KEPT - 1 :], target, *self.folder.glob(".*.part")]:
            shutil.rmtree(path, ignore_errors=True)
        with room_told(self.folder, "start again: it goes on from the state before"):
            part.mkdir(parents=True)
            _write(part, model, optimizer, self.key, history)
            part.rename(target)
            _sync(self.folder)
        self.saved = time.monotonic()

    def restore(self, model: Any, optimizer: Any) -> list[Row]:
        """Put the newest whole state into model and optimizer; gives the history up to it, empty where there is none."""
        for path in self._found():
            try:
                state = _check(path, self.key)
            except Star1Error as error:
                tell(f"{error.where}: {error.found}; not used")
                continue
            _load(path, state, model, optimizer)
            tell(f"{path}: goes on after update {len(state['history'])}")
            return list(state["history"])
        return []

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("update-*"), reverse=True)


def _name(update: int) -> str:
    return f"update-{update:06d}"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


# ---------------------------------------------------------------- one state


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """All weights by name, of weights that are tied one; where some are frozen, those that are trained."""
    whole = model.state_dict(keep_vars=True)
    if not all(one.requires_grad for one in model.parameters()):
        whole = {name: tensor for name, tensor in whole.items() if tensor.requires_grad}
    found = {id(tensor): (name, tensor) for name, tensor in reversed(whole.items())}
    return {name: tensor.detach() for name, tensor in sorted(found.values())}


def _write(folder: Path, model: Any, optimizer: Any, key: str, history: list[Row]) -> None:
    from safetensors.torch import save_file

    moments = optimizer.state_dict()["state"]
    flat = {f"{number}.{name}": value for number, values in moments.items() for name, value in values.items()}
    numbers = {name: value for name, value in flat.items() if not isinstance(value, torch.Tensor)}
    kept = {name: value.contiguous() for name, value in flat.items() if isinstance(value, torch.Tensor)}
    kept["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        kept["random.cuda"] = torch.cuda.get_rng_state()
    save_file({name: tensor.contiguous() for name, tensor in _tensors(model).items()}, folder / WEIGHTS)
    save_file(kept, folder / OPTIMIZER)
    files = {}
    for name in (WEIGHTS, OPTIMIZER):
        _sync(folder / name)
        files[name] = {"sha256": file_digest(folder / name), "bytes": (folder / name).stat().st_size}
    write_json(folder / STATE, {"key": key, "files": files, "numbers": numbers, "history": history})
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check(folder: Path, key: str) -> dict[str, Any]:
    """The state in `folder`.

    Raises:
        Star1Error: a file is missing, torn, or belongs to another run.
    """
    state = read_json(folder / STATE)
    if not isinstance(state, dict) or state.get("key") != key:
        raise TrainingError(folder, "training state of another run", f"one with the key {key}")
    for name, expected in state["files"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != expected["sha256"]:
            raise TrainingError(folder / name, "torn training state", "the file as it was saved")
    return state


def _load(folder: Path, state: dict[str, Any], model: Any, optimizer: Any) -> None:
    from safetensors.torch import load_file

    weights, kept = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            tensor.copy_(weights[name])
    torch.set_rng_state(kept.pop("random"))
    if (cuda := kept.pop("random.cuda", None)) is not None:
        torch.cuda.set_rng_state(cuda)
    moments: dict[int, dict[str, Any]] = {}
    for name, value in {**kept, **state["numbers"]}.items():
        number, _, what = name.partition(".")
        moments.setdefault(int(number), {})[what] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


# ---------------------------------------------------------------- what ends a run


@contextlib.contextmanager
def room_told(where: str | Path, hint: str) -> Iterator[None]:
    """Tell of a full disk in one line, whoever found it.

    Raises:
        TrainingError: no space was left.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # safetensors has an error of its own, with the system's number in its text.
        full = number in (errno.ENOSPC, errno.EDQUOT) or any(
            f"(os error {code})" in str(error) for code in (errno.ENOSPC, errno.EDQUOT)
        )
        if not full:
            raise
        free = _size(shutil.disk_usage(where).free) if Path(where).exists() else "nothing"
        raise TrainingError(
            where, f"disk full ({free} free)", "room for weights and optimizer", f"free space, then {hint}"
        ) from None


@contextlib.contextmanager
def memory_told(stage: str, pack_tokens: int, checkpointing: bool) -> Iterator[None]:
    """Tell which setting to lower when memory does not suffice.

    Raises:
        TrainingError: no memory was left.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        hints = f"lower pack_tokens (now {pack_tokens}), which changes speed alone"
        hints = hints if checkpointing else f"set gradient_checkpointing to true, or {hints}"
        reason = (text.strip().splitlines() or ["no more is told"])[0][:200]
        raise TrainingError(stage, f"out of memory ({reason})", "room for the activations of a pack", hints) from None


@contextlib.contextmanager
def signals(stage: str) -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C in a list instead of dying of them; a second one is not collected."""
    heard: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        heard.append(number)
        tell(f"{stage}: {signal.Signals(number).name}: finishes the update and saves; a second signal ends it at once")
        give_back()

    def give_back() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield heard
    finally:
        give_back()
