"""Deduplicate the prompt sets and take out what is near the benchmarks."""

import argparse

from star1 import dedup
from star1.embeddings import Encoder
from star1.errors import run


def main() -> None:
    """Command line of the stage `collect`."""
    parser = argparse.ArgumentParser(description=__doc__)
    dedup.add_flags(parser)
    dedup.add_outputs(parser)
    flags = parser.parse_args()
    (sources, benchmarks), settings = dedup.read_flags(flags)
    encoder = Encoder(dedup.CACHE)
    dedup.write(dedup.collect(sources, benchmarks, settings, encoder.encode), flags)
    print(f"collect: {encoder.embedded} texts embedded, {encoder.cached} found in the cache")


if __name__ == "__main__":
    run(main)
