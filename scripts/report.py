"""Make the report of a run: one folder with a static page, which opens from disk."""

import argparse
from pathlib import Path

import orjson

from star1.errors import run
from star1.report.build import build


def main() -> None:
    """Command line of the stage `report`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the project, with the artifacts of the run")
    parser.add_argument("--params", required=True, help="JSON object: params.yaml, section by section")
    parser.add_argument("--output", type=Path, required=True, help="folder of the page")
    flags = parser.parse_args()
    print(build(flags.root, orjson.loads(flags.params), flags.output))


if __name__ == "__main__":
    run(main)
