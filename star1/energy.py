"""Energy that a GPU or the machine's processors took: counters of the driver (NVML, RAPL), or power by nvidia-smi."""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RAPL = Path("/sys/class/powercap")
LOOK_S = 5.0  # between two readings: power changes little in an update, and RAPL's counters run over within the hour
TOOL_S = 10.0
GPU_ALONE = "the GPU alone, not its host"


class Gauge:
    """Adds up joules in a thread of its own until it is stopped.

    Args:
        source: what is read, in words.
        spent: joules since it was called before; None where nothing is told.
    """

    def __init__(self, source: str, spent: Callable[[], float | None]) -> None:
        self.source, self.spent = source, spent
        self.joules, self.silent = 0.0, spent() is None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self.silent and not self._ended.wait(LOOK_S):
            self._add()

    def _add(self) -> None:
        spent = self.spent()
        if spent is None:
            self.silent = True
        else:
            self.joules += spent

    def stop(self) -> dict[str, Any]:
        """All joules, and what told them, or why none are known."""
        self._ended.set()
        self._thread.join()
        if not self.silent:
            self._add()
        if self.silent:
            return {"joules": None, "source": f"{self.source} did not tell"}
        return {"joules": self.joules, "source": self.source}


class Nothing(Gauge):
    """Nothing tells: says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def stop(self) -> dict[str, Any]:
        """No joules, and the reason."""
        return {"joules": None, "source": self.reason}


def gauge(uuid: str | None) -> Gauge:
    """What can be read here: of the GPU with this identity, or without one of the machine's processors."""
    if uuid is None:
        domains = [*packages(RAPL)]
        if not domains:
            return Nothing(f"no readable counter of the processors in {RAPL}")
        return Gauge("RAPL, all processors of the machine, whoever used them", Counters(domains).spent)
    if counter := _nvml(uuid):
        return Gauge(f"NVML, {GPU_ALONE}", counter)
    if shutil.which("nvidia-smi"):
        return Gauge(f"nvidia-smi, power every {LOOK_S:g} s, {GPU_ALONE}", Power(lambda: power(uuid)).spent)
    return Nothing("neither pynvml nor nvidia-smi is there")


# ---------------------------------------------------------------- processors


def packages(root: Path) -> Iterator[Path]:
    """Folders of the counters of whole processors; those of their parts are in these already."""
    for folder in sorted(root.glob("intel-rapl:*")):
        with contextlib.suppress(OSError):
            if (folder / "name").read_text().startswith("package-"):
                (folder / "energy_uj").read_text()
                yield folder


class Counters:
    """Counters of microjoules that begin anew at a highest value."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.before = [self._read(folder, "energy_uj") for folder in folders]

    def spent(self) -> float | None:
        """Joules since the last call."""
        total = 0
        for at, folder in enumerate(self.folders):
            now, before = self._read(folder, "energy_uj"), self.before[at]
            total += now - before if now >= before else now - before + self._read(folder, "max_energy_range_uj")
            self.before[at] = now
        return total / 1e6

    def _read(self, folder: Path, name: str) -> int:
        return int((folder / name).read_text())


# ---------------------------------------------------------------- a GPU


def _nvml(uuid: str) -> Callable[[], float | None] | None:
    """The driver's own counter, where pynvml is installed and the device has one."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None

    def spent() -> float | None:
        nonlocal before
        now = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        before, joules = now, (now - before) / 1e3
        return float(joules)

    return spent


class Power:
    """Energy from power, which is taken to have been the same since the last call."""

    def __init__(self, watts: Callable[[], float | None]) -> None:
        self.watts, self.at = watts, time.monotonic()

    def spent(self) -> float | None:
        """Joules since the last call."""
        watts, now = self.watts(), time.monotonic()
        passed, self.at = now - self.at, now
        return None if watts is None else watts * passed


def power(uuid: str) -> float | None:
    """What nvidia-smi tells [W]."""
    ask = ["nvidia-smi", f"--id={uuid}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=TOOL_S, check=False)
        return float(done.stdout.strip())
    except (OSError, subprocess.TimeoutExpired, ValueError):  # "[N/A]" where the device does not tell
        return None
