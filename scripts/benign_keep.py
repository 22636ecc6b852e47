"""Keep the benign rows with full marks on every criterion of the benign rubric."""

import argparse
from pathlib import Path

from star1.benign import keep
from star1.errors import run
from star1.policies import load_pack
from star1.records import read_rows, write_rows


def main() -> None:
    """Read flags and rows, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="scored rows, JSON Lines")
    parser.add_argument("--output", type=Path, required=True, help="the rows that are kept")
    parser.add_argument("--policy", type=Path, required=True, help="folder of the policy pack")
    flags = parser.parse_args()
    rows = read_rows(flags.input, ["id", "score"])
    kept = keep(rows, load_pack(flags.policy))
    write_rows(flags.output, kept)
    print(f"benign keep: {len(rows)} rows in, {len(kept)} kept, {len(rows) - len(kept)} below full marks")


if __name__ == "__main__":
    run(main)
