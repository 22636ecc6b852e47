"""For tests: a copy of the project to run Snakemake in."""

import shutil
from pathlib import Path

from tests.conftest import ROOT

PARTS = (
    "Snakefile",
    "params.yaml",
    "presets",
    "profiles",
    "rules",
    "scripts",
    "star1",
    "bundled",
    "policies",
    "published",
)


def copy_parts(folder: Path) -> Path:
    """What the workflow reads, without artifacts, git and DVC."""
    folder.mkdir(exist_ok=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder
