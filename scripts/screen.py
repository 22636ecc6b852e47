"""Compare every training set with every benchmark, and list what meets."""

import argparse
from pathlib import Path

from star1 import contamination
from star1.dedup import CACHE, Settings, read_named
from star1.embeddings import Encoder
from star1.errors import run
from star1.records import write_json, write_rows


def main() -> None:
    """Command line of the stage `screen`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--benchmarks", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--ngram", type=int, required=True, help="length of the runs of words")
    parser.add_argument("--tfidf-threshold", type=float, required=True)
    parser.add_argument("--embedding-threshold", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True, help="the pairs")
    parser.add_argument("--metrics", type=Path, required=True, help="their counts")
    flags = parser.parse_args()
    training = read_named(flags.training, ("question",))
    benchmarks = read_named(flags.benchmarks, ("id", "question"))
    settings = Settings(flags.tfidf_threshold, flags.embedding_threshold, flags.ngram)
    report = contamination.screen(training, benchmarks, settings, Encoder(CACHE).encode)
    write_rows(flags.output, report.pairs)
    write_json(flags.metrics, report.counts)
    print(contamination.summary(report))


if __name__ == "__main__":
    run(main)
