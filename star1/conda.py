"""Conda environments for people without containers: the same locked packages, on conda's Python.

They are generated (`make lock`): a lock file is the one place where versions stand.
"""

from pathlib import Path

from star1.errors import Star1Error
from star1.images import GPU_KINDS, KINDS
from star1.records import write_text

PYTHON = "3.11"


def labels(root: Path = Path()) -> list[str]:
    """Kinds of work, and their variants, that have a lock."""
    wanted = [*KINDS, *(f"{kind}-cuda" for kind in GPU_KINDS)]
    return [label for label in wanted if (root / f"envs/{label}.lock").is_file()]


def environment(label: str) -> str:
    """The environment of a kind of work as conda reads it; pip then checks the hashes, since the lock has them."""
    return f"""\
# Generated from envs/{label}.lock by `make lock`; do not edit. Use: PIP_NO_DEPS=1 conda env create -f envs/{label}.yaml
# (The lock leaves out what some packages name and nothing here needs; without PIP_NO_DEPS pip would look for it.)
name: star1-{label}
channels: [conda-forge]
dependencies:
  - python={PYTHON}
  - pip
  - pip:
      - -r {label}.lock
"""


def write(root: Path = Path()) -> None:
    """Write all environments."""
    for label in labels(root):
        write_text(root / f"envs/{label}.yaml", environment(label))


def check(root: Path = Path()) -> None:
    """Compare them with what the locks call for.

    Raises:
        Star1Error: one is out of step.
    """
    for label in labels(root):
        path = root / f"envs/{label}.yaml"
        if not path.is_file() or path.read_text("utf-8") != environment(label):
            raise Star1Error(
                path, "out of step", f"what is generated for envs/{label}.lock", "`star1 images conda` writes it"
            )
