"""For tests: a real Slurm on this machine (tests/slurm.sh), brought up and taken down for one module at a time."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("slurm.sh")
DAEMONS = ("slurmctld", "slurmd", "sbatch", "munged")


def _script(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), *words], capture_output=True, text=True, check=False)


@contextmanager
def slurm(nodes: int = 2) -> Iterator[None]:
    """A Slurm of one's own: whoever else asks for it waits. One that was up before stays up."""
    with open(Path(tempfile.gettempdir()) / "star1-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        was_up = _script("status").returncode == 0
        missing = [name for name in DAEMONS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
        if not was_up and (missing or os.getuid()):
            why = f"no {', '.join(missing)}" if missing else "not root"
            pytest.skip(f"no Slurm here ({why}); `tests/slurm.sh up` as root brings one up")
        resume()
        done = _script("up", "--nodes", str(nodes))
        if "is not of this script" in done.stderr:
            pytest.skip("a Slurm that is not of these tests is set up here")
        assert done.returncode == 0, done.stderr
        try:
            yield
        finally:
            resume() if was_up else _script("down")


def resume(*nodes: str) -> None:
    """Take nodes into service again, all unless told; one that was down may have come back by itself, and then says no."""
    if shutil.which("scontrol"):
        for line in _command("sinfo", "--noheader", "--Node", "--format", "%N %T").splitlines():
            name, state = line.split()
            if state.startswith(("drain", "down")) and (not nodes or name in nodes):
                _command("scontrol", "update", f"nodename={name}", "state=resume")


def _command(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def ask(*command: str) -> str:
    """What a command of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def jobs(folder: Path, states: str = "all") -> dict[str, dict[str, str]]:
    """A folder's jobs by id, each with state, node, comment, memory and time limit, the first first."""
    lines = ask("squeue", "--noheader", "--states", states, "--format", "%i|%Z|%T|%N|%k|%m|%l").splitlines()
    fields = [line.split("|") for line in lines]
    names = ("state", "node", "comment", "memory", "limit")
    found = {one[0]: dict(zip(names, one[2:], strict=True)) for one in fields if one[1] == str(folder)}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def wait_until(true: Callable[[], object], what: str, timeout_s: float = 600) -> None:
    """Until something holds.

    Raises:
        AssertionError: it did not within the time.
    """
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.2)
