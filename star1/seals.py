"""The last file of a release: its facts, and the digest of each of its files."""

import importlib.metadata
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from star1.records import file_digest, write_json

RELEASE = "release.json"


def version() -> str:
    """The version of this project, which releases carry."""
    try:
        return importlib.metadata.version("star1")
    except (
        importlib.metadata.PackageNotFoundError
    ):  # in a container image the code is the checkout's, and not installed
        project = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text("utf-8"))["project"]["version"])


def describe(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Digest and size [bytes] of files of a release, by name."""
    return {
        name: {"sha256": file_digest(folder / name), "bytes": (folder / name).stat().st_size} for name in sorted(names)
    }


def seal(folder: Path, facts: Mapping[str, Any], names: Sequence[str]) -> None:
    """Write `release.json`: the facts of a release, and the digest of each of its files."""
    write_json(folder / RELEASE, {**facts, "files": describe(folder, names)})
