"""Memory that is free: on the GPU, of the machine, or of the control group that a job runs in."""

import contextlib
import os
from collections.abc import Iterator
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
    for folder in _groups(proc, groups):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if (folder / limit).is_file() and (text := (folder / limit).read_text("ascii").strip()) != "max":
                taken = int((folder / used).read_text("ascii")) - _cached(folder / "memory.stat")
                free = min(free, float(text) - taken)
    return free


def _groups(proc: Path, groups: Path) -> Iterator[Path]:
    """Folders of this process's control group and of all above it, in both versions; a scheduler's limit is on some of them."""
    yield from (groups, groups / "memory")
    file = proc / "self" / "cgroup"
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            for one in (Path(path), *Path(path).parents):
                yield (groups / kinds).joinpath(*one.parts[1:])


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
