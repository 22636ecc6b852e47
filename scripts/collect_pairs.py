"""The pairs of near-duplicates of one block of the pooled rows."""

import argparse
from pathlib import Path

from star1 import dedup, shards
from star1.errors import run


def main() -> None:
    """Command line of the stage `collect_pairs`."""
    parser = argparse.ArgumentParser(description=__doc__)
    dedup.add_flags(parser)
    parser.add_argument("--pool", type=Path, required=True, help="what collect_pool kept")
    parser.add_argument("--vectors", type=Path, nargs="+", required=True, help="the embeddings, part by part")
    parser.add_argument("--part", type=int, required=True, help="number of the part, from 0")
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    sets, settings = dedup.read_flags(flags)
    kept, encoded = shards.read_pool(flags.pool)["kept"], shards.read_vectors(flags.vectors)
    columns = shards.part_of_pairs(sets, settings, kept, encoded, flags.part, len(flags.vectors))
    shards.write_pairs(flags.output, columns)
    counts = ", ".join(f"{join} {len(columns[f'{join}_left'])}" for join in shards.JOINS)
    print(f"collect_pairs {flags.part}: {counts}")


if __name__ == "__main__":
    run(main)
