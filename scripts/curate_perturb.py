"""Select anew under noise, other thresholds and orders, and tell how much of the final data set stays."""

import argparse
from pathlib import Path

from star1 import stability
from star1.datasets import Noise
from star1.errors import run
from star1.policies import load_pack
from star1.records import read_rows, write_json, write_text


def main() -> None:
    """Command line of the stage `curate`, for its stability."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="scored rows")
    parser.add_argument("--policy", type=Path, required=True, help="folder of the policy pack")
    parser.add_argument("--size", type=int, required=True, help="rows of the final data set")
    parser.add_argument("--noise", type=Noise.model_validate_json, required=True, help="fields of star1.datasets.Noise")
    parser.add_argument("--confidence", type=float, required=True, help="share of the trials in an interval")
    for name in ("--json", "--markdown", "--metrics"):
        parser.add_argument(name, type=Path, required=True)
    flags = parser.parse_args()
    rows = read_rows(flags.input, ("id", "source", "category", "score"))
    pack = load_pack(flags.policy)
    result = stability.perturb(rows, pack.rubric("score"), pack.other, flags.size, flags.noise, flags.confidence)
    write_json(flags.json, result)
    write_text(flags.markdown, stability.markdown(result))
    write_json(flags.metrics, stability.metrics(result))
    print(f"curate_perturb: {stability.summary(result)}")


if __name__ == "__main__":
    run(main)
