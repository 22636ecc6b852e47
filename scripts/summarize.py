"""Put the judgements together into tables: rates, averages, paired comparisons, and ours beside the published figures."""

import argparse
from pathlib import Path

import orjson

from star1 import summaries
from star1.errors import run


def main() -> None:
    """Command line of the stage `summarize`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judgements", type=Path, required=True, help="folder of {model}/{benchmark}.jsonl")
    parser.add_argument("--models", required=True, help="JSON list, in the order of the table")
    parser.add_argument("--benchmarks", required=True, help="JSON list, in the order of the table")
    parser.add_argument("--entries", required=True, help="JSON object: their entries in fetch.benchmarks")
    parser.add_argument("--runs", required=True, help="JSON object: finetune.runs, for bases and seeds")
    parser.add_argument("--settings", required=True, help="JSON object: how tables are made, as in params.yaml")
    parser.add_argument("--contamination", type=Path, required=True, help="counts of rows near to each benchmark")
    parser.add_argument("--published", type=Path, required=True, help="figures of the paper, CSV")
    parser.add_argument("--published-rows", type=Path, required=True, help="what these are about, YAML")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--metrics", type=Path, required=True, help="folder of the DVC metrics")
    flags = parser.parse_args()
    given = {name: orjson.loads(getattr(flags, name)) for name in ("models", "benchmarks", "entries", "runs")}
    facts = summaries.read(flags.judgements, given, flags.contamination, summaries.settings_from(flags.settings))
    print(
        summaries.write(facts, summaries.read_paper(flags.published, flags.published_rows), flags.tables, flags.metrics)
    )


if __name__ == "__main__":
    run(main)
