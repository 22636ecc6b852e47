"""Put the judgements of a protocol ladder together: each step's rates, and their differences to the step before."""

import argparse
from pathlib import Path

import orjson

from star1 import tables_ladder
from star1.errors import run
from star1.records import write_json, write_text
from star1.summaries import settings_from


def main() -> None:
    """Command line of the stage `ladder`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judgements", type=Path, required=True, help="folder of {model}--{step}/{benchmark}.jsonl")
    parser.add_argument("--ladder", required=True, help="JSON object: models, benchmarks and steps, as in params.yaml")
    parser.add_argument("--settings", required=True, help="JSON object: how tables are made, as in params.yaml")
    for name in ("--json", "--markdown", "--latex"):
        parser.add_argument(name, type=Path, required=True)
    flags = parser.parse_args()
    chosen = orjson.loads(flags.ladder)
    steps = [step["name"] for step in chosen["steps"]]
    judgements = tables_ladder.read(flags.judgements, chosen["models"], chosen["benchmarks"], steps)
    result = tables_ladder.table(judgements, settings_from(flags.settings))
    page = tables_ladder.page(result)
    write_json(flags.json, result)
    write_text(flags.markdown, page.markdown())
    write_text(flags.latex, page.latex())
    print(f"ladder: {len(chosen['models'])} models on {len(chosen['benchmarks'])} benchmarks, {len(steps)} steps")


if __name__ == "__main__":
    run(main)
