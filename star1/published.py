"""The data sets that the authors of STAR-1 released, imported by DVC and held to their recorded digests."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from star1.errors import InputError
from star1.records import write_text

FOLDER = Path("published")


def names(folder: Path = FOLDER) -> list[str]:
    """The data sets that can be imported, sorted."""
    return sorted(path.name.removesuffix(".json.dvc") for path in folder.glob("*.json.dvc"))


def import_published(chosen: Sequence[str] = (), folder: Path = FOLDER) -> list[str]:
    """Fetch released data sets by their .dvc files; gives a line about each.

    Args:
        chosen: names; none means all.
        folder: the DVC project that holds the .dvc files.

    Raises:
        InputError: an unknown name, an address that cannot be reached, or a file that is not the recorded one.
    """
    known = names(folder)
    for name in chosen:
        if name not in known:
            raise InputError(name, "no such data set", f"one of {', '.join(known)}")
    return [_import(name, folder) for name in chosen or known]


def _import(name: str, folder: Path) -> str:
    """One data set. `dvc update` records whatever digest it gets, so the recorded one is put back unless it is the same."""
    path, target = folder / f"{name}.json.dvc", folder / f"{name}.json"
    before = path.read_text("utf-8")
    entry = yaml.safe_load(before)
    address, recorded = entry["deps"][0]["path"], entry["outs"][0].get("md5")
    done = subprocess.run(["dvc", "update", "-q", path.name], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        write_text(path, before)
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(address, f"cannot be fetched ({said})", "the released file", "is there a network here?")
    found = yaml.safe_load(path.read_text("utf-8"))["outs"][0]
    if recorded is not None and found["md5"] != recorded:
        write_text(path, before)
        target.unlink(missing_ok=True)
        raise InputError(address, f"MD5 {found['md5']}", f"{recorded}, as recorded in {path}")
    if recorded is not None:
        write_text(path, before)
    return f"{name}: {target}, {found['size']:,} bytes, MD5 {found['md5']} ({'as recorded' if recorded else 'recorded now'})"
