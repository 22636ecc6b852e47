"""Compare the judges: how far each two agree, and on which answers they do not."""

import argparse
from pathlib import Path

import orjson

from star1 import agreement, agreement_table
from star1.errors import run
from star1.records import write_json, write_rows, write_text


def main() -> None:
    """Command line of the stage `agree`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judgements", type=Path, required=True, help="folder of {model}/{benchmark}.jsonl")
    parser.add_argument("--rows", type=Path, required=True, help="folder of the benchmarks' {benchmark}.jsonl")
    parser.add_argument("--models", required=True, help="JSON list")
    parser.add_argument("--benchmarks", required=True, help="JSON list")
    parser.add_argument("--confidence", type=float, required=True, help="of the intervals, in (0, 1)")
    parser.add_argument("--resamples", type=int, required=True, help="draws of each interval")
    parser.add_argument("--seed", type=int, required=True, help="of the draws")
    for name in ("--json", "--markdown", "--disagreements"):
        parser.add_argument(name, type=Path, required=True)
    flags = parser.parse_args()
    names = orjson.loads(flags.models), orjson.loads(flags.benchmarks)
    found = agreement.read_answers(flags.judgements, flags.rows, *names)
    options = agreement.Options(flags.confidence, flags.resamples, flags.seed)
    result, differing = agreement_table.table(found, options), agreement.disagreements(found)
    write_json(flags.json, result)
    write_text(flags.markdown, agreement_table.markdown(result, len(differing)))
    write_rows(flags.disagreements, differing)
    print(f"agree: {len(result['judges'])} judges, {len(found):,} answers, judges disagree on {len(differing):,}")


if __name__ == "__main__":
    run(main)
