"""Fetch one test set and write its rows, and what became of all rows of the raw file."""

import argparse
from pathlib import Path

from star1.errors import run
from star1.fetching import fetch_files, mirror_folder
from star1.manifests import manifest
from star1.reading import read_benchmark, summary
from star1.records import write_json, write_rows
from star1.sources import Benchmark, read_entry


def main() -> None:
    """Command line of the stage `fetch`, for a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmark", required=True, help="name of the test set")
    parser.add_argument("--entry", required=True, help="its table entry, as JSON")
    parser.add_argument("--mirror", type=mirror_folder, help="folder for entries of kind mirror, or null")
    parser.add_argument("--cache", type=Path, default=Path(".cache/downloads"), help="folder that keeps downloads")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--counts", type=Path, required=True, help="what became of all rows")
    parser.add_argument("--manifest", type=Path, required=True, help="which rows they are, and their digest")
    flags = parser.parse_args()
    entry = read_entry(Benchmark, flags.benchmark, flags.entry)
    rows, counts = read_benchmark(flags.benchmark, entry, fetch_files(entry, flags.mirror, flags.cache))
    frozen = manifest(flags.benchmark, entry, rows)
    write_rows(flags.output, rows)
    write_json(flags.counts, counts)
    write_json(flags.manifest, frozen)
    print(f"{summary(flags.benchmark, counts)}; manifest {frozen['sha256']}")


if __name__ == "__main__":
    run(main)
