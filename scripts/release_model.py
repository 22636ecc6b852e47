"""Release a fine-tuned model: its card, and the digests of its files."""

import argparse
from pathlib import Path

import orjson

from star1.errors import run
from star1.modelreleases import release_model


def main() -> None:
    """Command line of the stage `release`, for a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--checkpoint", type=Path, required=True, help="manifest of the run's checkpoint")
    parser.add_argument("--base", type=Path, required=True, help="manifest of its base model")
    parser.add_argument("--choices", type=orjson.loads, required=True, help="the run's entry, JSON")
    parser.add_argument(
        "--released", type=Path, nargs="*", default=[], help="release.json of its data sets, if its own"
    )
    parser.add_argument("--table", type=Path, required=True, help="the main table, JSON")
    parser.add_argument("--licence", required=True, help="of the weights, where the base model sets no terms")
    parser.add_argument("--output", type=Path, required=True, help="folder of the released model")
    flags = parser.parse_args()
    told = release_model(
        flags.run,
        flags.choices["data"],
        (flags.checkpoint, flags.base, flags.table),
        flags.released,
        flags.licence,
        flags.output,
    )
    print(f"release {told}")


if __name__ == "__main__":
    run(main)
