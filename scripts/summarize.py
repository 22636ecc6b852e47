"""Put the judgements together into tables with intervals and coverage."""

import argparse
from pathlib import Path

import orjson

from star1 import tables
from star1.errors import run
from star1.records import primary, read_rows, write_json, write_text

FIELDS = ["id", "benchmark", "purpose", "kind", "verdict", "unscored", "judge"]


def main() -> None:
    """Command line of the stage `summarize`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judgements", type=Path, required=True, help="folder of {model}/{benchmark}.jsonl")
    parser.add_argument("--models", required=True, help="JSON list, in the order of the table")
    parser.add_argument("--benchmarks", required=True, help="JSON list, in the order of the table")
    parser.add_argument("--confidence", type=float, required=True, help="of the intervals, in (0, 1)")
    for name in ("--json", "--markdown", "--latex", "--metrics"):
        parser.add_argument(name, type=Path, required=True)
    flags = parser.parse_args()
    names = orjson.loads(flags.benchmarks)
    judgements = {
        model: {name: primary(read_rows(flags.judgements / model / f"{name}.jsonl", FIELDS)) for name in names}
        for model in orjson.loads(flags.models)
    }
    result = tables.table(judgements, flags.confidence)
    write_json(flags.json, result)
    write_text(flags.markdown, tables.markdown(result))
    write_text(flags.latex, tables.latex(result))
    write_json(flags.metrics, tables.metrics(result))
    print(f"summarize: {tables.summary(result)}")


if __name__ == "__main__":
    run(main)
