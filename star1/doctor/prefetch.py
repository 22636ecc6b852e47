"""What is fetched over the network, and whether it lies here already: fetched, or prefetched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from star1 import prefetched, prefetching
from star1.doctor.about import About
from star1.doctor.findings import Finding, Outcome, Seen, Unknown, finding
from star1.params import HubModel
from star1.records import file_digest, read_json
from star1.sources import Located

# What is read again unless `--full` says all [bytes].
READ_AT_MOST = 300 * 10**6
SHOWN = 6
# Where the stages put what they fetched, by the section of params.yaml.
MADE = {
    "sources": "data/sources/{}.jsonl",
    "benchmarks": "data/benchmarks/{}.jsonl",
    "published": "data/published/{}.jsonl",
    "models": "models/base/{}/manifest.json",
}


def manifest() -> dict[str, list[dict[str, Any]]]:
    """Files of each prefetched entry, by its key; none where there is no manifest that can be read."""
    path = prefetched.folder() / "manifest.json"
    found = read_json(path) if path.is_file() else {}
    entries = found.get("entries") if isinstance(found, dict) else None
    return {key: one["files"] for key, one in entries.items()} if isinstance(entries, dict) else {}


def object_of(key: str, name: str) -> Path | None:
    """A file of a prefetched entry."""
    for one in manifest().get(key, []):
        path = prefetched.folder() / prefetched.place(one["sha256"], one["name"])
        if one["name"] == name and path.is_file():
            return path
    return None


def to_fetch(about: About) -> Iterator[tuple[str, str, Located | HubModel]]:
    """What the stages would still bring over the network, whether it was prefetched or not: name, key and entry."""
    for name, key, entry in prefetching.wanted(about.params):
        _, section, short = name.split(".", 2)
        if not Path(MADE[section].format(short)).is_file():
            yield name, key, entry


def from_network(about: About) -> list[tuple[str, str, Located | HubModel]]:
    """What would really be asked for over the network: neither fetched nor prefetched."""
    found = list(to_fetch(about))
    return [one for one in found if not (getattr(one[2], "pinned", True) and prefetched.has(one[1]))]


def check(about: About) -> Iterator[Outcome]:
    """Offline: everything was prefetched, and is whole."""
    wanted = list(to_fetch(about))
    if not about.hub_offline:
        return
    entries = manifest()
    missing = [name for name, key, _ in wanted if key not in entries]
    if missing:
        told = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
        what = f"{len(missing)} of {len(wanted)} entries are not in {prefetched.folder()}: {told}"
        fix = "env -u HF_HUB_OFFLINE star1 prefetch  # with a connection" + (
            ", and the preset written" if about.preset else ""
        )
        yield finding("prefetch-missing", prefetched.folder(), what, fix)
    else:
        yield Seen("prefetch-missing", f"all {len(wanted)} entries to be fetched are in {prefetched.folder()}")
    yield from _damaged({key: entries[key] for _, key, _ in wanted if key in entries}, about.full)


def _damaged(entries: dict[str, list[dict[str, Any]]], full: bool) -> Iterator[Outcome]:
    """Files of another size, and those of another content as far as they are read."""
    unread, faults, count = 0, list[Finding](), 0
    for key, files in entries.items():
        for one in files:
            count += 1
            path = prefetched.folder() / prefetched.place(one["sha256"], one["name"])
            if (what := _fault(path, one, full)) is not None:
                faults.append(finding("prefetch-damaged", path, f"{what} ({key})", f"rm -f {path} && star1 prefetch"))
            elif not full and one["bytes"] > READ_AT_MOST:
                unread += 1
    yield from faults
    if unread:
        yield Unknown("prefetch-damaged", f"{unread} large files were not read again; `star1 doctor --full` does")
    if count and not faults:
        yield Seen("prefetch-damaged", f"{count} prefetched files are there, in their sizes")


def _fault(path: Path, one: dict[str, Any], full: bool) -> str | None:
    if not path.is_file():
        return "no such file"
    if path.stat().st_size != one["bytes"]:
        return f"{path.stat().st_size:,} bytes; expected {one['bytes']:,}"
    if (full or one["bytes"] <= READ_AT_MOST) and file_digest(path) != one["sha256"]:
        return "another content than when it was fetched"
    return None
