"""Training states: what a run needs to go on after a signal, a crash or a power cut as if nothing had been.

`{root}/{key}/update-000012/` holds what each process has of weights, moments and random state (`sharding.Whole.write`) and
the rest in state.json, which also has the digests of all files. The key is a digest of everything that decides the
result, so that a state of another run is never used. With several processes all see the same folder.
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

from star1 import peers
from star1.errors import Star1Error, tell
from star1.records import Row, file_digest, read_json, write_json
from star1.sharding import Whole

STATE = "state.json"
KEPT = 2
# Modules that decide what training gives; a test holds them against what star1.sft imports.
CODE = (
    "adapters",
    "chat",
    "checkpoints",
    "decoding",
    "layers",
    "losses",
    "packing",
    "recipe",
    "rendering",
    "sft",
    "sharding",
    "training",
)
TOGETHER_S = 3.0  # signals within this time are one
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
        self.root, self.folder, self.key, self.minutes = root, root / key, key, minutes
        self.saved = time.monotonic()

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

    def save(self, model: Whole, history: list[Row]) -> None:
        """Save the state after the last update of `history`; it has its name only when it is whole and on disk.

        All processes call it, each for its part.

        Raises:
            TrainingError: the disk is full.
        """
        target, part = self.folder / _name(len(history)), self.folder / f".{_name(len(history))}.part"
        with room_told(self.folder, "start again: it goes on from the state before"):
            if peers.main():
                # The oldest goes first, so that there are never more than `KEPT` on disk; one whole state always is.
                for path in [*self._found()[KEPT - 1 :], target, *self.folder.glob(".*.part")]:
                    shutil.rmtree(path, ignore_errors=True)
                part.mkdir(parents=True)
            peers.wait()
            model.write(part)
            peers.wait()
            files = peers.merged(_facts(part, peers.rank(), peers.world()))
            if peers.main():
                write_json(part / STATE, {"key": self.key, "files": files, "history": history})
                _sync(part)
                part.rename(target)
                _sync(self.folder)
            peers.wait()
        self.saved = time.monotonic()

    def restore(self, model: Whole) -> list[Row]:
        """Put the newest whole state into the model; gives the history up to it, empty where there is none.

        All processes call it and take the state that the main one found to be whole.
        """
        if others := sorted(path.name for path in self.root.glob("*") if path.is_dir() and path.name != self.key):
            told = f"{self.root}: training state of other data, base, settings, code or machine ({', '.join(others)})"
            peers.tell_once(f"{told}; not used, and kept until the run is finished")
        name, history = peers.agreed(self._newest() if peers.main() else None)
        if name is not None:
            model.load(self.folder / name)
            peers.tell_once(f"{self.folder / name}: goes on after update {len(history)}")
        return list(history)

    def _newest(self) -> tuple[str | None, list[Row]]:
        for path in self._found():
            try:
                return path.name, _check(path, self.key)["history"]
            except Star1Error as error:
                tell(f"{error.where}: {error.found}; not used")
        return None, []

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("update-*"), reverse=True)


def _name(update: int) -> str:
    return f"update-{update:06d}"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


# ---------------------------------------------------------------- one state


def _facts(folder: Path, rank: int, world: int) -> dict[str, dict[str, Any]]:
    """Digest and size [bytes] of the files that this process looks at, on disk before it returns: each takes its share."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = {}
    for name in names[rank::world]:
        _sync(folder / name)
        found[name] = {"sha256": file_digest(folder / name), "bytes": (folder / name).stat().st_size}
    return found


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
        # safetensors has an error of its own, with the system's number in its text; torch's writer, which DeepSpeed uses, one
        # without it, and it has no other reason to fail half-way.
        signs = [f"(os error {code})" for code in (errno.ENOSPC, errno.EDQUOT)] + ["inline_container.cc"]
        if number not in (errno.ENOSPC, errno.EDQUOT) and not any(sign in str(error) for sign in signs):
            raise
        free = _size(shutil.disk_usage(where).free) if Path(where).exists() else "nothing"
        raise TrainingError(
            where, f"disk full ({free} free)", "room for weights and optimizer", f"free space, then {hint}"
        ) from None


@contextlib.contextmanager
def memory_told(stage: str, pack_tokens: int, checkpointing: bool, longest: int = 0) -> Iterator[None]:
    """Tell which setting to lower when memory does not suffice.

    Args:
        stage: whose name stands in messages.
        pack_tokens: as in the settings.
        checkpointing: whether activations are recomputed already.
        longest: tokens of the longest sequence; no pack is shorter than that.

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
        if pack_tokens <= longest:
            hints = f"lower max_tokens below the longest row's {longest}, which drops such rows"
        hints = hints if checkpointing else f"set gradient_checkpointing to true, or {hints}"
        reason = (text.strip().splitlines() or ["no more is told"])[0][:200]
        raise TrainingError(stage, f"out of memory ({reason})", "room for the activations of a pack", hints) from None


@contextlib.contextmanager
def signals(stage: str) -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C in a list instead of dying of them; a second one, later, is not collected.

    A terminal and a scheduler send theirs to every process, and each launcher passes its own on: what comes together is one.
    """
    heard: list[int] = []
    before: dict[int, Any] = {}
    first = 0.0

    def note(number: int, _frame: Any) -> None:
        nonlocal first
        if heard:
            if time.monotonic() - first > TOGETHER_S:
                give_back()
                os.kill(os.getpid(), number)
            return
        first = time.monotonic()
        heard.append(number)
        peers.tell_once(
            f"{stage}: {signal.Signals(number).name}: finishes the update and saves; a second signal ends it at once"
        )

    def give_back() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield heard
    finally:
        give_back()
