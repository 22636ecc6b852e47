"""Fetch a released data set, check its rows and write them."""

import argparse
from pathlib import Path

from star1.errors import run
from star1.fetching import fetch_files, mirror_folder
from star1.reading import read_published
from star1.records import write_rows
from star1.sources import Published, read_entry


def main() -> None:
    """Command line of the stage `fetch`, for a released data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the data set")
    parser.add_argument("--entry", required=True, help="its table entry, as JSON")
    parser.add_argument("--mirror", type=mirror_folder, help="folder for entries of kind mirror, or null")
    parser.add_argument("--cache", type=Path, default=Path(".cache/downloads"), help="folder that keeps downloads")
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    entry = read_entry(Published, flags.name, flags.entry)
    rows = read_published(flags.name, entry, fetch_files(entry, flags.mirror, flags.cache))
    print(f"fetch: {flags.name}: {write_rows(flags.output, rows)} rows")


if __name__ == "__main__":
    run(main)
