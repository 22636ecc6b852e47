"""Curves for experiment trackers, sent where losses are gathered anyway: TensorBoard, Weights & Biases, Trackio.

All of them write below `.work/trackers/`, without a key, unless their own environment variables say otherwise.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from star1.errors import SettingError, tell
from star1.records import Row

# Setting -> module that is imported, and what to install.
MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}
PROJECT = "star1"
# What keeps a tracker on this machine; set only where it is not set already, and before its package reads it.
LOCAL = {"wandb": ("WANDB_MODE", "offline"), "trackio": ("TRACKIO_DIR", "{}/trackio")}
SENT = ("loss", "rate", "norm", "target_tokens")


class Tracker(Protocol):
    """Where curves go."""

    def log(self, entry: Mapping[str, float], update: int) -> None:
        """Take the figures of one update."""

    def close(self) -> None:
        """Write what is not written yet."""


def folder_for(run: str) -> Path:
    """Where trackers write."""
    return Path(".work/trackers") / run


def check(names: Sequence[str], run: str) -> None:
    """See that the trackers of `run` are installed, and keep them on this machine.

    Raises:
        SettingError: one is not, or is not known.
    """
    for name in names:
        if name not in MODULES:
            raise SettingError("finetune.trackers", repr(name), "some of " + ", ".join(MODULES))
        if name in LOCAL:
            variable, value = LOCAL[name]
            os.environ.setdefault(variable, value.format(folder_for(run).resolve()))
        try:
            importlib.import_module(MODULES[name])
        except ImportError as error:
            hint = f"pip install {name}, or leave it out of finetune.trackers"
            raise SettingError(
                "finetune.trackers", f"{name} cannot be imported ({error})", "an installed package", hint
            ) from None


def start(name: str, run: str, settings: Mapping[str, Any], done: int) -> Tracker:
    """A tracker for `run`, from the update after `done` on."""
    folder = folder_for(run)
    folder.mkdir(parents=True, exist_ok=True)
    made: Tracker = KINDS[name](folder, run, settings, done)
    return made


class TensorBoard:
    """Event files."""

    def __init__(self, folder: Path, _run: str, _settings: Mapping[str, Any], done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Updates that were told after the state from which a run goes on are told again.
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def log(self, entry: Mapping[str, float], update: int) -> None:
        """Take the figures of one update."""
        for name, value in entry.items():
            self.writer.add_scalar(f"train/{name}", value, update)

    def close(self) -> None:
        """Write what is not written yet."""
        self.writer.close()


class WeightsAndBiases:
    """Runs of Weights & Biases, offline unless WANDB_MODE is set; `wandb sync` uploads them."""

    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any], _done: int) -> None:
        wandb: Any = importlib.import_module("wandb")
        # The name as identity: a run that goes on is the same run there. `+` may not stand in it.
        given = {"project": PROJECT, "name": run, "id": run.replace("+", "-"), "resume": "allow"}
        self.run = wandb.init(**given, dir=str(folder), config=dict(settings))

    def log(self, entry: Mapping[str, float], update: int) -> None:
        """Take the figures of one update."""
        self.run.log({f"train/{name}": value for name, value in entry.items()}, step=update)

    def close(self) -> None:
        """Write what is not written yet."""
        self.run.finish()


class Trackio:
    """A local database of Trackio; `trackio show` draws it."""

    def __init__(self, _folder: Path, run: str, settings: Mapping[str, Any], _done: int) -> None:
        self.trackio: Any = importlib.import_module("trackio")
        self.trackio.init(project=PROJECT, name=run, config=dict(settings), resume="allow")

    def log(self, entry: Mapping[str, float], update: int) -> None:
        """Take the figures of one update."""
        self.trackio.log({f"train/{name}": value for name, value in entry.items()}, step=update)

    def close(self) -> None:
        """Write what is not written yet."""
        self.trackio.finish()


KINDS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}


class Watch:
    """Sends what is new in a run's history to all trackers; one that fails is told of and left out, the run goes on.

    Args:
        names: of the trackers.
        run: name of the run.
        settings: shown beside the curves.
    """

    def __init__(self, names: Sequence[str], run: str, settings: Mapping[str, Any]) -> None:
        self.names, self.run, self.settings = names, run, settings
        if os.environ.get("RANK", "0") != "0":
            self.names = ()  # the main process alone sends
        self.sent = -1  # updates; before the first look nothing is open
        self.open: dict[str, Tracker] = {}

    def look(self, history: Sequence[Row]) -> None:
        """What was restored is known to the trackers already; later entries are sent."""
        if self.sent < 0:
            self.sent = len(history)
            for name in self.names:
                self.open[name] = start(name, self.run, self.settings, self.sent)
        for entry in history[self.sent :]:
            for name in list(self.open):
                self._send(name, entry)
        self.sent = len(history)

    def _send(self, name: str, entry: Row) -> None:
        try:
            self.open[name].log({key: entry[key] for key in SENT}, entry["update"])
        except Exception as error:  # noqa: BLE001  # of another's package, with errors of its own, and the run is worth more
            tell(f"finetune {self.run}: {name} takes no more figures ({error}); results/metrics/ has all of them")
            del self.open[name]

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        for name, tracker in self.open.items():
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001  # as above: the checkpoint is not published yet
                tell(f"finetune {self.run}: {name} could not be closed ({error}); results/metrics/ has all figures")
