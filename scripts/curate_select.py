"""Choose rows of the scored ones as a named selection says."""

import argparse
from pathlib import Path

from star1.datasets import read_selection
from star1.errors import run
from star1.policies import load_pack
from star1.records import read_rows, write_rows
from star1.selections import select, summary


def main() -> None:
    """Command line of the stage `curate`, for one selection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="scored rows")
    parser.add_argument("--policy", type=Path, required=True, help="folder of the policy pack")
    parser.add_argument("--name", required=True, help="name of the selection")
    parser.add_argument("--selection", required=True, help="its kind, size and the like, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    selection = read_selection(flags.name, flags.selection)
    rows = read_rows(flags.input, ("id", "source", "category", "score"))
    pack = load_pack(flags.policy)
    kept = select(flags.name, rows, pack.rubric("score"), pack.other, selection)
    write_rows(flags.output, kept)
    print(summary(flags.name, rows, kept, selection))


if __name__ == "__main__":
    run(main)
