"""Keep the rows with full marks and balance them to the size of the final data set."""

import argparse
from pathlib import Path

from star1.curation import curate
from star1.errors import run
from star1.policies import load_pack
from star1.records import read_rows, write_rows


def main() -> None:
    """Command line of the stage `curate`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="scored rows")
    parser.add_argument("--policy", type=Path, required=True, help="folder of the policy pack")
    parser.add_argument("--size", type=int, required=True, help="rows of the final data set")
    parser.add_argument("--full-score", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dropped", type=Path, required=True)
    flags = parser.parse_args()
    rows = read_rows(flags.input, ("id", "source", "category", "score"))
    pack = load_pack(flags.policy)
    full, kept, dropped = curate(rows, pack.rubric("score"), pack.other, flags.size)
    write_rows(flags.full_score, full)
    write_rows(flags.dropped, dropped)
    write_rows(flags.output, kept)
    short = f" (fewer than the {flags.size} asked for)" if len(kept) < flags.size else ""
    print(f"curate: {len(rows)} rows in, {len(full)} with full marks, {len(kept)} kept{short}")


if __name__ == "__main__":
    run(main)
