"""Count what data sets are made of: categories and sources, marks, lengths, wording."""

import argparse
from pathlib import Path

from star1 import quality
from star1.errors import run
from star1.records import read_rows, write_json, write_text

FIELDS = ("question", "response", "category", "source")


def main() -> None:
    """Command line of the stage `describe`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=PATH", help="data sets, JSON Lines")
    parser.add_argument("--confidence", type=float, required=True, help="of the intervals around rates")
    parser.add_argument("--json", type=Path, required=True, help="all figures")
    for name in ("categories", "marks", "lengths", "wording"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="CSV for `dvc plots`")
    flags = parser.parse_args()
    sets = {name: read_rows(path, FIELDS) for name, _, path in (one.partition("=") for one in flags.sets)}
    figures = {name: quality.describe(rows, flags.confidence) for name, rows in sets.items()}
    write_json(flags.json, figures)
    write_text(flags.categories, quality.csv_text(quality.category_lines(sets)))
    write_text(flags.marks, quality.csv_text(quality.mark_lines(sets)))
    write_text(flags.lengths, quality.csv_text(quality.length_lines(sets)))
    write_text(flags.wording, quality.csv_text(quality.wording_lines(figures)))
    print(f"describe: {quality.summary(figures)}")


if __name__ == "__main__":
    run(main)
