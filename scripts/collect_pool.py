"""First steps of a collection in parts: within each prompt set, and against the sets before it."""

import argparse
from pathlib import Path

from star1 import dedup, shards
from star1.errors import run
from star1.records import write_json


def main() -> None:
    """Command line of the stage `collect_pool`."""
    parser = argparse.ArgumentParser(description=__doc__)
    dedup.add_flags(parser)
    parser.add_argument("--output", type=Path, required=True, help="numbers of the kept rows, and the dropped ones")
    flags = parser.parse_args()
    pooled = shards.pool(*dedup.read_flags(flags))
    write_json(flags.output, pooled)
    print(f"collect_pool: {len(pooled['kept'])} rows kept, {len(pooled['dropped'])} dropped")


if __name__ == "__main__":
    run(main)
