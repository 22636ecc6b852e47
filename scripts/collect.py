"""Deduplicate the prompt sets and take out what is near the benchmarks."""

import argparse
from pathlib import Path

from star1.dedup import Settings, collect, read_named, read_numbers
from star1.errors import run
from star1.records import write_json, write_rows


def main() -> None:
    """Command line of the stage `collect`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", required=True, metavar="NAME=PATH", help="in order, small sets first")
    parser.add_argument("--ngrams", required=True, help='n-gram length of each source, as JSON: {"name": n}')
    parser.add_argument("--benchmarks", nargs="*", default=[], metavar="NAME=PATH", help="test sets to keep out")
    parser.add_argument("--tfidf-threshold", type=float, required=True)
    parser.add_argument("--embedding-threshold", type=float, required=True)
    parser.add_argument("--pool-ngram", type=int, required=True, help="n-gram length against the pool [words]")
    parser.add_argument("--ngram-survivor", choices=("first", "as_published"), required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dropped", type=Path, required=True)
    parser.add_argument("--funnel", type=Path, required=True)
    flags = parser.parse_args()
    benchmarks = read_named(flags.benchmarks, ("id", "question"))
    sources = read_named(flags.sources, ("question",))
    lengths = read_numbers(flags.ngrams, [name for name, _ in sources])
    settings = Settings(flags.tfidf_threshold, flags.embedding_threshold, flags.pool_ngram, flags.ngram_survivor)
    result = collect([(name, lengths[name], rows) for name, rows in sources], benchmarks, settings)
    write_rows(flags.dropped, result.dropped)
    write_json(flags.funnel, result.funnel)
    write_rows(flags.output, result.rows)
    steps = ", ".join(f"{step} {sum(reasons.values())}" for step, reasons in result.funnel["reasons"].items())
    print(f"collect: {result.funnel['total']['rows']} rows in, {len(result.rows)} kept; dropped: {steps}")


if __name__ == "__main__":
    run(main)
