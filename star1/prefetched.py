"""What comes over the network, fetched beforehand into one folder, for machines without a network (`star1 prefetch`).

    FOLDER/manifest.json             the entries of params.yaml, each with the names, sizes and SHA-256 of its files
    FOLDER/objects/ab/{sha256}/NAME  the files, one for each content and name

The folder is .cache/prefetched, or what STAR1_PREFETCHED names. A pinned entry is taken from there whenever it is there, one
that is not pinned only where there is no network (HF_HUB_OFFLINE=1): elsewhere it is asked for anew.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from star1.errors import InputError
from star1.records import file_digest, read_json, write_json
from star1.sources import REMOTE, Located

VARIABLE = "STAR1_PREFETCHED"
FOLDER = ".cache/prefetched"
HINT = "run `star1 prefetch` on a machine with a connection"


@dataclass(frozen=True)
class Stored:
    """Files of one entry: their paths below the folder of objects, sizes, digests, and what else is known (a model's commit)."""

    files: list[dict[str, Any]]
    record: dict[str, Any]


def folder() -> Path:
    """Where prefetched files lie."""
    return Path(os.environ.get(VARIABLE) or FOLDER)


def offline() -> bool:
    """Whether nothing is to be asked over the network (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def key_of(entry: Located) -> str:
    """What names the content of an entry: its place, not how its rows are read."""
    repository = f"{entry.repository}@{entry.revision} " if entry.repository else ""
    return f"{entry.kind} {repository}{' '.join(entry.paths)}"


def model_key(repository: str, revision: str) -> str:
    """The same for a base model on the hub."""
    return f"model {repository}@{revision}"


def find(entry: Located) -> list[Path] | None:
    """The files of an entry, in their order, if they were prefetched and may be used.

    Raises:
        InputError: one of them is not what it was, or is gone.
    """
    if entry.kind not in REMOTE or not (entry.pinned or offline()):
        return None
    stored = _entries(folder()).get(key_of(entry))
    return None if stored is None else [_object(one, contents=True) for one in stored.files]


def find_model(repository: str, revision: str, target: Path) -> dict[str, Any] | None:
    """Put the files of a prefetched base model into `target`; gives what is known of it, or None if it is not there.

    Weights are hard links where that can be, so that they take their room once.

    Raises:
        InputError: a file is gone, or of another size.
    """
    stored = _entries(folder()).get(model_key(repository, revision))
    if stored is None:
        return None
    for one in stored.files:
        link(_object(one, contents=False), target / one["name"])
    return stored.record


def _entries(root: Path) -> dict[str, Stored]:
    manifest = root / "manifest.json"
    if not manifest.is_file():
        return {}
    found = read_json(manifest)
    if not isinstance(found, dict) or not isinstance(entries := found.get("entries"), dict):
        raise InputError(manifest, "not a manifest of prefetched files", "an object with entries", HINT)
    return {key: Stored(one["files"], one["record"]) for key, one in entries.items()}


def place(sha256: str, name: str) -> Path:
    """Where an object lies, below the folder."""
    return Path("objects") / sha256[:2] / sha256 / Path(name).name


def _object(one: Mapping[str, Any], contents: bool) -> Path:
    path = folder() / place(one["sha256"], one["name"])
    if not path.is_file():
        raise InputError(path, "no such file", f"the prefetched {one['name']}", HINT)
    if path.stat().st_size != one["bytes"]:
        raise InputError(path, f"{path.stat().st_size} bytes", f"{one['bytes']} bytes", f"remove it and {HINT}")
    if contents and (digest := file_digest(path)) != one["sha256"]:
        raise InputError(path, f"sha256 {digest}", f"sha256 {one['sha256']}", f"remove it and {HINT}")
    return path


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the two lie on different file systems; `target` appears only whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), part)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)


def store(
    key: str, what: str, files: Sequence[tuple[str, Path]], record: Mapping[str, Any] | None = None
) -> tuple[int, int]:
    """Take files into the folder under the key of an entry; gives their number and size [bytes].

    Args:
        key: of the entry.
        what: its name in params.yaml.
        files: (name, file), in the order in which `find` gives them.
        record: what else is known.
    """
    root = folder()
    told: list[dict[str, Any]] = []
    for name, path in files:
        digest, size = file_digest(path), path.stat().st_size
        if not (target := root / place(digest, name)).is_file() or target.stat().st_size != size:
            link(path, target)
        told.append({"name": name, "sha256": digest, "bytes": size})
    with _alone(root):
        manifest = root / "manifest.json"
        entries = read_json(manifest)["entries"] if manifest.is_file() else {}
        entries[key] = {"what": what, "files": told, "record": dict(record or {})}
        write_json(manifest, {"entries": dict(sorted(entries.items()))})
    return len(told), sum(one["bytes"] for one in told)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    import fcntl

    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        with contextlib.suppress(OSError):  # some network file systems know no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def verify() -> tuple[list[str], bool]:
    """Read every prefetched file again; gives a line for each that is not what it was, and one about all."""
    problems, count, size = [], 0, 0
    for key, stored in _entries(folder()).items():
        for one in stored.files:
            count, size = count + 1, size + one["bytes"]
            try:
                _object(one, contents=True)
            except InputError as error:
                problems.append(f"{key}: {error}")
    told = f"{folder()}: {count} files, {size / 1e9:,.2f} GB, {len(problems)} damaged or missing"
    return [*problems, told], not problems


def has(key: str) -> bool:
    """Whether all files under a key are there, in their sizes."""
    stored = _entries(folder()).get(key)
    if stored is None:
        return False
    paths = [(folder() / place(one["sha256"], one["name"]), one["bytes"]) for one in stored.files]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)
