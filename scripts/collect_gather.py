"""Last steps of a collection in parts: decide from the pairs of all parts."""

import argparse
from pathlib import Path

from star1 import dedup, shards
from star1.errors import run


def main() -> None:
    """Command line of the stage `collect` where it is done in parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    dedup.add_flags(parser)
    dedup.add_outputs(parser)
    parser.add_argument("--pool", type=Path, required=True, help="what collect_pool kept")
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help="the pairs, part by part")
    flags = parser.parse_args()
    sets, settings = dedup.read_flags(flags)
    pairs = shards.read_pairs(flags.pairs)
    dedup.write(shards.gather(sets, settings, shards.read_pool(flags.pool), pairs), flags)


if __name__ == "__main__":
    run(main)
