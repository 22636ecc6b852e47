"""Make the report of a run: one folder with a static page, which opens from disk."""

import argparse
from pathlib import Path

from star1.errors import run
from star1.params import read_yaml
from star1.report.build import build
from star1.report.run import Run


def main() -> None:
    """Command line of the stage `report`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the project")
    parser.add_argument("--settings", type=Path, required=True, help="params.yaml")
    parser.add_argument("--artifacts", nargs="+", required=True, help="files that the report may read, below the root")
    parser.add_argument("--output", type=Path, required=True, help="folder of the page; what was in it goes")
    flags = parser.parse_args()
    print(build(Run(flags.root, read_yaml(flags.settings), frozenset(flags.artifacts)), flags.output))


if __name__ == "__main__":
    run(main)
