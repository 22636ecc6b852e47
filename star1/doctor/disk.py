"""Free space, inodes and quota of the file systems that these settings will write to."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from star1.doctor import commands
from star1.doctor.about import About, nearest
from star1.doctor.findings import Outcome, Seen, Unknown, finding
from star1.doctor.ids import Severity
from star1.doctor.sizes import TWICE, Part

GB = 1e9
# Below this factor of what is needed a run is warned of; an estimate can be wrong.
NARROW = 1.5
# What is to be free at any rate: records, logs, what a stage writes before it takes its name.
SPARE_BYTES, SPARE_FILES = 0.3e9, 2000
LINKS = "dvc config --local cache.type hardlink,symlink  # nothing is there twice then"
ELSEWHERE = "git clone . $SCRATCH/star1 && cd $SCRATCH/star1  # a larger file system of yours"


@dataclass(frozen=True)
class Needed:
    """What will be written to one file system; `twice` is what DVC's cache would hold of it again [bytes]."""

    folder: Path
    bytes: float
    files: int
    names: str
    twice: float


def by_file_system(found: list[Part]) -> list[Needed]:
    """The parts put together that come to lie on the same file system."""
    groups: dict[int, list[tuple[Path, Part]]] = {}
    for part in [*found, Part("logs and records", ".", 0.0)]:
        place = nearest(Path(part.folder))
        groups.setdefault(place.stat().st_dev, []).append((place, part))
    needed = []
    for members in groups.values():
        sums = sum(part.bytes for _, part in members), sum(part.files for _, part in members)
        twice = sum(part.bytes for _, part in members if part.name == TWICE)
        folders = sorted({part.folder for _, part in members})
        needed.append(Needed(members[0][0], *sums, ", ".join(folders), twice))
    return needed


def check(about: About) -> Iterator[Outcome]:
    """Space and inodes, file system by file system."""
    for need in by_file_system(about.parts):
        stat = os.statvfs(need.folder)
        yield _space(need, stat.f_bavail * stat.f_frsize)
        if stat.f_files:  # some file systems make inodes as they are needed, and say 0
            yield _inodes(need, stat.f_favail)
        yield from _quota(about, need)


def _space(need: Needed, free: float) -> Outcome:
    told = f"{free / GB:,.1f} GB free on the file system of {need.folder}; about"
    severity = _severity(free, need.bytes + SPARE_BYTES)
    if severity is None:
        return Seen("disk", f"{told} {need.bytes / GB:,.2f} GB will be written")
    fix = LINKS if free >= (need.bytes - need.twice) + SPARE_BYTES else ELSEWHERE
    return finding(
        "disk", need.folder, f"{told} {need.bytes / GB:,.1f} GB will be written to {need.names}", fix, severity
    )


def _inodes(need: Needed, free: int) -> Outcome:
    told = f"{free:,} inodes free on the file system of {need.folder}; about {need.files:,} files will be written"
    severity = _severity(free, need.files + SPARE_FILES)
    if severity is None:
        return Seen("inodes", told)
    return finding("inodes", need.folder, f"{told}, and caches want as many again", ELSEWHERE, severity)


def _severity(free: float, wanted: float) -> Severity | None:
    """Of less room than is wanted, or hardly more; None where there is enough."""
    if free >= wanted * NARROW:
        return None
    return "error" if free < wanted else "warning"


def _quota(about: About, need: Needed) -> Iterator[Outcome]:
    """What a quota leaves, where one of the usual commands tells."""
    user = about.environment.get("USER") or str(os.getuid())
    device, kind = file_system(need.folder)
    if kind == "lustre" and commands.which("lfs"):
        told = commands.ask(["lfs", "quota", "-q", "-u", user, str(need.folder)])
    elif commands.which("quota"):
        told = commands.ask(["quota", "-w", "-p", "-u"])
    else:
        if kind in NETWORK:
            yield Unknown("quota", f"no command `quota` that tells of {need.folder} ({kind}); ask the site")
        return
    left = read_quota(told.out, device)
    if left is None:
        yield Seen("quota", f"none that the system tells of for {need.folder}")
        return
    space, files = left
    for what, free, wanted in (
        ("GB", space / GB, (need.bytes + SPARE_BYTES) / GB),
        ("files", files, need.files + SPARE_FILES),
    ):
        if severity := _severity(free, wanted):
            text = f"your quota on {device} leaves {max(free, 0):,.1f} {what}; about {wanted:,.1f} go to {need.names}"
            yield finding("quota", need.folder, text, ELSEWHERE, severity)
            return
    yield Seen("quota", f"your quota on {device} leaves {space / GB:,.1f} GB")


NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "cifs",
    "smb3",
    "afs",
    "panfs",
    "fuse.glusterfs",
    "orangefs",
)


def file_system(folder: Path) -> tuple[str, str]:
    """Device (or server) and kind of the file system that a folder lies on."""
    found = ("?", "?")
    best = -1
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
        left, _, right = line.partition(" - ")
        place = left.split()[4].replace("\\040", " ")
        inside = place == "/" or str(folder) == place or str(folder).startswith(place + "/")
        if inside and len(place) >= best:  # of mounts on one place the last is seen
            best, (kind, device) = len(place), right.split()[:2]
            found = (device.replace("\\040", " "), kind)
    return found


def read_quota(text: str, device: str) -> tuple[float, float] | None:
    """Space [bytes] and files that a quota leaves, from `quota -w` or `lfs quota -q`; None where there is no limit.

    Both give lines of: file system, KiB used (with a star when over), quota, limit, grace, files, quota, limit, grace.
    """
    for line in text.splitlines():
        fields = line.split()
        numbers = [re.sub(r"\*$", "", one) for one in fields[1:]]
        if (
            len(fields) < 8
            or not numbers[0].isdigit()
            or (device not in (fields[0], "?") and not _same(fields[0], device))
        ):
            continue
        # `-p` gives grace times as numbers, so that no column is ever empty.
        used, soft, hard, _, files, few, most = (float(one) if one.isdigit() else 0.0 for one in numbers[:7])
        space = min((limit for limit in (soft, hard) if limit), default=0.0)
        count = min((limit for limit in (few, most) if limit), default=0.0)
        if space or count:
            return ((space - used) * 1024 if space else float("inf"), count - files if count else float("inf"))
    return None


def _same(place: str, device: str) -> bool:
    """`lfs quota` names the folder in place of the device."""
    return (
        place.startswith("/")
        and not place.startswith("/dev/")
        and not device.startswith("/dev/")
        and Path(place).is_dir()
    )
