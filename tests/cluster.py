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
        done = _script("up", "--nodes", str(nodes))
        if done.returncode:
            pytest.skip(f"no Slurm here: {done.stderr.strip().splitlines()[-1]}")
        try:
            yield
        finally:
            if not was_up:
                _script("down")


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


def wait_until(true: Callable[[], object], what: str, timeout_s: float = 240) -> None:
    """Until something holds.

    Raises:
        AssertionError: it did not within the time.
    """
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.2)
