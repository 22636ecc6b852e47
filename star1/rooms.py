"""Memory that is free: on the GPU, of the machine, or of the control group that a job runs in."""

import os
from pathlib import Path

GIB = 2**30


def room_of(kind: str) -> tuple[float, float]:
    """Free memory for this process where it computes, and of the whole machine [bytes]."""
    host = machine_room()
    if kind == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0]), host
    # What this process has already is in the estimate too.
    return (host + resident()) / int(os.environ.get("LOCAL_WORLD_SIZE", "1")), host


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


def resident() -> float:
    """What this process has now [bytes]."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
