"""Embeddings of one part of the pooled rows and the benchmarks."""

import argparse
from pathlib import Path

from star1 import dedup, shards
from star1.dedup import CACHE
from star1.embeddings import Encoder
from star1.errors import run


def main() -> None:
    """Command line of the stage `collect_vectors`."""
    parser = argparse.ArgumentParser(description=__doc__)
    dedup.add_flags(parser)
    parser.add_argument("--pool", type=Path, required=True, help="what collect_pool kept")
    parser.add_argument("--part", type=int, required=True, help="number of the part, from 0")
    parser.add_argument("--parts", type=int, required=True, help="how many there are")
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    sets, _ = dedup.read_flags(flags)
    encoded = shards.part_of_vectors(
        sets, shards.read_pool(flags.pool)["kept"], flags.part, flags.parts, Encoder(CACHE).encode
    )
    shards.write_vectors(flags.output, encoded)
    print(f"collect_vectors {flags.part}: {len(encoded)} texts")


if __name__ == "__main__":
    run(main)
