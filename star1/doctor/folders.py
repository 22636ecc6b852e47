"""Folders that stages write to: rights, what the file system can do, and caches that would land in a small home."""

import contextlib
import errno
import fcntl
import functools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from star1.doctor.about import About, nearest
from star1.doctor.disk import NETWORK, file_system
from star1.doctor.findings import Finding, Outcome, Seen, Unknown, finding
from star1.doctor.sizes import HUB, Part, cache_folder

GB = 1e9
FOLDERS = (
    "data",
    "data/replies",
    "models",
    "models/base",
    "results",
    "release",
    "logs",
    "containers",
    ".snakemake",
    ".work",
    ".cache",
)
SCRATCH = Path(".work/doctor")
FICLONE = 0x40049409
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
SKEW_S = 2.0
# A home of less than this is small, whatever is free in it now.
SMALL_HOME, SMALL_TMP = 60 * GB, 1 * GB


def rights(_: About) -> Iterator[Outcome]:
    """Every folder that stages write to, or the one that it would be made in."""
    places = {name: nearest(Path(name)) for name in FOLDERS}
    closed = [name for name, place in places.items() if not os.access(place, os.W_OK | os.X_OK)]
    for name in closed:
        what = f"{places[name]} cannot be written" + (" (mounted read-only)" if _read_only(places[name]) else "")
        fix = (
            f"sudo mount -o remount,rw {places[name]}"
            if _read_only(places[name])
            else f"sudo chown -R $USER {places[name]}"
        )
        yield finding("folder-closed", name, what, fix)
    if not closed:
        yield Seen("folder-closed", f"{len(FOLDERS)} folders can be written")


def _read_only(place: Path) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this process to try things in, on the file system that the project lies on."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as made:
        yield Path(made)


def traits(_: About) -> Iterator[Outcome]:
    """What the file system can do, tried with small files."""
    kind = file_system(Path.cwd())[1]
    if kind in NETWORK:
        yield finding(
            "file-network", Path.cwd(), f"a file system of kind {kind}", "export TMPDIR=/tmp  # and one writer a store"
        )
    try:
        with scratch() as folder:
            yield from (_locks(folder / "lock"), _rename(folder), _clock(folder / "now"))
    except OSError as error:
        for name in ("file-locks", "file-rename", "file-clock"):
            yield Unknown(name, f"nothing can be written to {SCRATCH} ({error.strerror or error})")


def _locks(path: Path) -> Outcome:
    """Two openings of a file: the second must not get the lock that the first holds."""
    with path.open("w") as one, path.open("w") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            mild = error.errno in NO_LOCKS
            what = f"flock: {error.strerror or error}" + (
                "; stores go by their owner files alone, and are not zipped" if mild else ""
            )
            return finding("file-locks", path.parent.parent, what, FLOCK, "warning" if mild else "error")
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return Seen("file-locks", "file locks work")
        return finding("file-locks", path.parent.parent, "flock locks a file twice", FLOCK)


FLOCK = "findmnt -T . -o TARGET,FSTYPE,OPTIONS  # of Lustre: mount with -o flock"


def _rename(folder: Path) -> Outcome:
    one, other = folder / "one", folder / "other"
    try:
        one.write_text("new")
        other.write_text("old")
        one.replace(other)
        good = other.read_text() == "new" and not one.exists()
    except OSError as error:
        return finding(
            "file-rename", SCRATCH, f"rename: {error.strerror or error}", "findmnt -T . -o TARGET,FSTYPE,OPTIONS"
        )
    if good:
        return Seen("file-rename", "a file takes another's place at once")
    return finding("file-rename", SCRATCH, "rename left the old file", "findmnt -T . -o TARGET,FSTYPE,OPTIONS")


def _clock(path: Path) -> Outcome:
    """The time that the file system gives a new file, against this machine's."""
    before = time.time()
    path.write_text("now")
    after, written = time.time(), path.stat().st_mtime
    skew = written - before if written < before else max(0.0, written - after)
    if abs(skew) <= SKEW_S:
        return Seen("file-clock", "files get this machine's time")
    what = f"a new file is {abs(skew):,.0f} s {'behind' if skew < 0 else 'ahead of'} this machine"
    return finding("file-clock", path.parent.parent, what, "sudo chronyc makestep || sudo ntpdate -u pool.ntp.org")


@functools.cache
def working_links() -> str:
    """How DVC would put artifacts of its cache into the project, of the ways that it is set to: the first that works, or ""."""
    from star1.doctor.project import dvc_settings

    wanted = dvc_settings().get(("cache", "type"), "reflink,copy").strip("\"'").split(",")
    cache = nearest(cache_folder())
    try:
        with tempfile.TemporaryDirectory(dir=cache) as there, scratch() as here:
            source = Path(there) / "one"
            source.write_bytes(b"x" * 4096)
            return next((kind.strip() for kind in wanted if _link(kind.strip(), source, here / kind.strip())), "")
    except OSError:
        return ""


def _link(kind: str, source: Path, target: Path) -> bool:
    try:
        if kind == "hardlink":
            os.link(source, target)
        elif kind == "symlink":
            target.symlink_to(source.absolute())
        elif kind == "reflink":
            with source.open("rb") as read, target.open("wb") as write:
                fcntl.ioctl(write.fileno(), FICLONE, read.fileno())
    except OSError:
        return False
    return True


def linking(_: About) -> Iterator[Outcome]:
    """Whether DVC can link in the ways that it is set to."""
    from star1.doctor.project import dvc_settings

    wanted = dvc_settings().get(("cache", "type"), "")
    found = working_links()
    first = wanted.strip("\"'").partition(",")[0].strip()
    if found == first or not wanted:
        yield Seen("file-links", f"DVC's cache and the project: {found or 'copies'}")
        return
    what = f"cache.type is {wanted}; from {cache_folder()} to here works {found or 'none of them'}"
    yield finding(
        "file-links",
        cache_folder(),
        what,
        "dvc cache dir .dvc/cache  # on the project's file system; or: dvc config cache.type copy",
    )


def caches(about: About) -> Iterator[Outcome]:
    """Caches that these settings would fill, where they lie in a home folder that is small."""
    if not (wanted := _cached(about, about.parts)):
        yield Seen("cache-home", "nothing that these settings cache goes to the home folder")
    for variable, (need, place) in wanted.items():
        yield _cache(about, variable, place, need)


def _cache(about: About, variable: str, place: Path, need: float) -> Finding | Seen:
    home, there = nearest(about.home), nearest(place)
    stat = os.statvfs(there)
    total, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    in_home = there.stat().st_dev == home.stat().st_dev and nearest(Path()).stat().st_dev != home.stat().st_dev
    if (in_home and total < SMALL_HOME) or free < need:
        what = f"{place}: {free / GB:,.1f} of {total / GB:,.1f} GB free; about {need / GB:,.1f} GB go there"
        return finding(
            "cache-home", variable, what, f"export {variable}={Path.cwd()}/.cache/{variable.partition('_')[0].lower()}"
        )
    return Seen("cache-home", f"{variable}: {place}, {free / GB:,.1f} GB free")


def _cached(about: About, found: list[Part]) -> dict[str, tuple[float, Path]]:
    """What goes to each cache [bytes], and where that is."""
    set_to, home = about.environment.get, about.home
    hub = sum(part.bytes for part in found if part.name == HUB)
    base = 0.3 * GB * any(part.name == "images" for part in found)  # from the hub of images
    kernels = 0.5 * GB * (about.params.generate.engine == "vllm" and not about.containers)
    needs = {
        "HF_HOME": (hub, about.hub_cache),
        "APPTAINER_CACHEDIR": (base, Path(set_to("APPTAINER_CACHEDIR") or home / ".apptainer/cache")),
        "XDG_CACHE_HOME": (kernels, Path(set_to("XDG_CACHE_HOME") or home / ".cache")),
    }
    return {name: one for name, one in needs.items() if one[0]}


def temporary(about: About) -> Iterator[Outcome]:
    """Room for temporary files."""
    place = nearest(Path(about.environment.get("TMPDIR") or "/tmp"))  # noqa: S108
    free = free_space(place)
    if free < SMALL_TMP or not os.access(place, os.W_OK):
        what = f"{place}: {free / GB:,.2f} GB free" + ("" if os.access(place, os.W_OK) else ", and closed")
        yield finding(
            "tmp-small", "TMPDIR", what, f"mkdir -p {Path.cwd()}/.cache/tmp && export TMPDIR={Path.cwd()}/.cache/tmp"
        )
    else:
        yield Seen("tmp-small", f"{place}: {free / GB:,.1f} GB free for temporary files")


def free_space(place: Path) -> float:
    """Free space [bytes]."""
    stat = os.statvfs(place)
    return float(stat.f_bavail * stat.f_frsize)
