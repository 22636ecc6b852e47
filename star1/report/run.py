"""The run that a report is about: where its artifacts lie, the values it was made with, and at which commit."""

import csv
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from star1.errors import InputError
from star1.records import Row, read_json, read_rows

# What decides a result; other files may differ from the commit as they like.
DECIDING = ("Snakefile", "rules", "scripts", "star1", "policies", "bundled", "presets", "params.yaml", "envs")


@dataclass(frozen=True)
class Run:
    """Artifacts of a run.

    Attributes:
        root: folder of the project.
        params: params.yaml, section by section.
        artifacts: the files that may be read, below the root: the stage's inputs. What else lies there may be of another run.
    """

    root: Path
    params: Mapping[str, Any]
    artifacts: frozenset[str]

    def path(self, name: str) -> Path:
        """Where an artifact lies.

        Raises:
            InputError: it is not among the stage's inputs.
        """
        if name not in self.artifacts:
            raise InputError(
                name, "not among the artifacts", "an input of the rule report", "name it in rules/report.smk"
            )
        return self.root / name

    def rows(self, name: str, required: Sequence[str] = ()) -> list[Row]:
        """Rows of an artifact."""
        return read_rows(self.path(name), required)

    def json(self, name: str) -> Any:
        """A document."""
        return read_json(self.path(name))

    def csv(self, name: str) -> list[dict[str, str]]:
        """Lines of a table in `results/plots`, by column."""
        with open(self.path(name), encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def names(self, pattern: str) -> list[str]:
        """Artifacts whose path fits a pattern in which a star stands for anything within a folder, sorted."""
        return sorted(name for name in self.artifacts if PurePosixPath("/", name).match(f"/{pattern}"))


def commit(root: Path) -> Row:
    """The commit that is checked out, and whether what decides a result differs from it (None: git is not here to tell).

    Images have no git, so the commit is read from the repository's files where that is so.
    """
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *DECIDING)
    return {"commit": head.strip() if head else _head(root), "changed": None if changed is None else bool(changed)}


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def _head(root: Path) -> str | None:
    folder = root / ".git"
    try:
        if folder.is_file():  # a worktree
            folder = root / folder.read_text("utf-8").removeprefix("gitdir:").strip()
        head = (folder / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        shared = folder / "commondir"
        whole = folder / shared.read_text("utf-8").strip() if shared.is_file() else folder
        if (whole / name).is_file():
            return (whole / name).read_text("utf-8").strip()
        lines = (line.split() for line in (whole / "packed-refs").read_text("utf-8").splitlines())
        return next((line[0] for line in lines if line[1:] == [name]), None)
    except OSError:
        return None
