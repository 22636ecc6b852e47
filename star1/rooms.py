"""Memory that is free: on the GPU, of the machine, or of the control group that a job runs in."""

import contextlib
import os
from pathlib import Path

GIB = 2**30


def room_of(kind: str) -> tuple[float, float]:
    """Memory for this process where it computes, and of the machine for all processes of its run [bytes]."""
    # What these have already is in the estimates too, and how far another one has got is no matter.
    host = machine_room() + sum(resident(pid) for pid in together())
    if kind == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0]), host
    return host / int(os.environ.get("LOCAL_WORLD_SIZE", "1")), host


def together() -> list[int]:
    """The processes of this run on this machine: one launcher starts them all with the same words."""
    import psutil

    me = psutil.Process()
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1 or (parent := me.parent()) is None:
        return [me.pid]
    words, found = me.cmdline(), [me.pid]
    for child in parent.children():
        with contextlib.suppress(psutil.Error):
            found += [child.pid] if child.pid != me.pid and child.cmdline() == words else []
    return found


def machine_room(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that can still be had: of the machine, or of the control group, whichever is less [bytes]."""
    lines = (proc / "meminfo").read_text("ascii").splitlines()
    free = next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable"))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        if (groups / limit).is_file() and (text := (groups / limit).read_text("ascii").strip()) != "max":
            taken = int((groups / used).read_text("ascii")) - _cached(groups / Path(limit).parent / "memory.stat")
            free = min(free, float(text) - taken)
    return free


def _cached(stat: Path) -> int:
    """Pages of files, which are given up when memory is wanted [bytes]."""
    if not stat.is_file():
        return 0
    found = dict(line.split() for line in stat.read_text("ascii").splitlines())
    return int(found.get("inactive_file", 0)) + int(found.get("active_file", 0))


def resident(pid: int | None = None) -> float:
    """What a process has now [bytes]; without a number, this one."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text("ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0.0
    return pages * float(os.sysconf("SC_PAGE_SIZE"))
