"""Release the data sets of a run: flat Parquet, the published layout, card, terms and Croissant metadata."""

import argparse
from pathlib import Path

import orjson

from star1.errors import run
from star1.provenance import read_roles
from star1.publications import Artifacts, release_data
from star1.sources import Source, read_entries


def main() -> None:
    """Command line of the stage `release`."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, what in (("data", "rows"), ("metrics", "funnel and contamination"), ("replies", "stored model replies")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"folder of the {what}")
    parser.add_argument("--policy", type=Path, required=True, help="folder of the policy pack")
    for name in ("endpoints", "roles", "sampling", "sources", "redistribute"):
        parser.add_argument(f"--{name}", required=True, help="as in params.yaml, JSON by name")
    parser.add_argument("--licence", required=True, help="of what the pipeline adds to the prompts")
    parser.add_argument("--confidence", type=float, required=True, help="of the intervals, in (0, 1)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the released data sets")
    flags = parser.parse_args()
    artifacts = Artifacts(
        data=flags.data,
        metrics=flags.metrics,
        policy=flags.policy,
        roles=read_roles(flags.endpoints, flags.roles, flags.sampling, flags.replies),
        sources=read_entries(Source, flags.sources),
        redistribute=orjson.loads(flags.redistribute),
        licence=flags.licence,
        confidence=flags.confidence,
    )
    print(f"release: {'; '.join(release_data(artifacts, flags.output))}")


if __name__ == "__main__":
    run(main)
