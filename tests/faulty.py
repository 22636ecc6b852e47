"""For tests: a copy of the project in which faults can be planted, for `star1 doctor` to find."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from star1 import doctor, params, sandbox
from star1.doctor.checks import CHECKS, OF_ENDPOINTS
from tests.conftest import ROOT

# What a copy does not need to be looked at.
LEFT_OUT = ("docs", "tests", "dvc-store", "benchmarks", "results", "data")
KEYS = (
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "SNAKEMAKE_PROFILE",
    "SNAKEMAKE_WORKFLOW_PROFILE",
    "STAR1_PREFETCHED",
)


@dataclass
class Place:
    """A copy of the project, which is the working directory, with programs of its own first on the PATH.

    Attributes:
        root: its folder.
        patch: for variables and attributes.
        values: of its params.yaml, to be changed.
        asked: what the doctor is told besides (profile, offline, full).
    """

    root: Path
    patch: pytest.MonkeyPatch
    values: dict[str, Any]
    asked: dict[str, Any] = field(default_factory=dict)
    mounts: list[Path] = field(default_factory=list)

    def program(self, name: str, script: str) -> None:
        """A program that does as the lines of a shell script say."""
        file = self.root.parent / "bin" / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def without(self, *names: str) -> None:
        """Have none of these programs on the PATH: it holds links to all the others that are looked for."""
        here = self.root.parent / "links"
        here.mkdir(exist_ok=True)
        for name in (
            "sh",
            "git",
            "make",
            "dvc",
            "snakemake",
            "python",
            "bwrap",
            "sinfo",
            "squeue",
            "sbatch",
            "unshare",
            "sleep",
            "cat",
        ):
            found = shutil.which(name)
            if name not in names and found and not (here / name).exists():
                (here / name).symlink_to(found)
        self.patch.setenv("PATH", f"{self.root.parent / 'bin'}{os.pathsep}{here}")

    def profile(self, text: str, name: str = "mine") -> None:
        """Have the doctor look with a profile of these lines."""
        folder = self.root / "profiles" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(text)
        self.asked["profile"] = f"profiles/{name}"

    def preset(self, name: str) -> None:
        """Put a preset into the values."""
        from star1 import presets

        self.values = presets.planned([name], [])

    def mounted(self, folder: str | Path, options: str) -> Path:
        """A small file system of its own in a folder; only root can make one."""
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here ({done.stderr.strip()})")
        self.mounts.append(place)
        return place

    def edit(self, file: str, change: Callable[[str], str]) -> None:
        """Change a file of the copy."""
        path = self.root / file
        path.write_text(change(path.read_text("utf-8")), "utf-8")

    def about(self) -> doctor.About:
        """What the doctor is asked."""
        return doctor.About(self.values, **self.asked)

    def examine(self, *ids: str) -> doctor.Report:
        """The report of the checks that can find these kinds; all, where none is named."""
        chosen = [one for one in (OF_ENDPOINTS, *CHECKS) if not ids or set(ids) & set(one.ids)]
        return doctor.examine(self.about(), chosen)

    def command(self, *flags: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """The command, as a person would start it."""
        variables = {**os.environ, "SLURM_CONF": "/nonexistent", **environment}
        command = [sys.executable, "-m", "star1.cli", "doctor", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def forget_sandbox() -> None:
    """What a process has found out about its sandbox, it remembers."""
    sandbox.check.cache_clear()
    sandbox._bwrap.cache_clear()


def copy(folder: Path) -> None:
    """The project's own files as they are now; its artifacts are not among them."""
    told = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in told.stdout.splitlines():
        source, target = ROOT / name, folder / name
        if name.split("/")[0] not in LEFT_OUT and source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (folder / "dvc-store").mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)


@contextmanager
def place(base: Path, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place to plant a fault in; what was mounted is taken off at the end."""
    root = folder / "project"
    shutil.copytree(base, root)
    (folder / "bin").mkdir()
    patch.chdir(root)
    patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("SLURM_CONF", "/nonexistent")
    for name in KEYS:
        patch.delenv(name, raising=False)
    made = Place(root, patch, params.load(root / "params.yaml", root))
    try:
        yield made
    finally:
        forget_sandbox()
        for mounted in reversed(made.mounts):
            subprocess.run(["umount", "-l", mounted], check=True)


def sinfo(*lines: str) -> str:
    """A script that tells of partitions as sinfo does."""
    return "cat <<'END'\n" + "\n".join(lines) + "\nEND"


def smi(*gpus: str) -> str:
    """A script that tells of GPUs as nvidia-smi does."""
    return sinfo(*gpus)


Plant = Callable[[Place], None]
