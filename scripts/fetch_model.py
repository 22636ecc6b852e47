"""Make or fetch a base model: `models/base/{name}/`, with its manifest last."""

import argparse

import orjson

from star1 import bases, checkpoints, threads
from star1.errors import run
from star1.records import write_json


def main() -> None:
    """Parse flags, make or fetch the model, publish it and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the base model")
    parser.add_argument("--entry", required=True, type=orjson.loads, help="its entry in params.yaml, as JSON")
    parser.add_argument("--mirror", help="folder that entries of kind mirror are relative to")
    parser.add_argument("--output", required=True, help="manifest of the checkpoint")
    parser.add_argument("--metrics", required=True, help="loss of each update")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    clock = threads.use(args.threads)
    mirror = None if args.mirror in (None, "", "null") else args.mirror
    staging = checkpoints.staging("fetch_model", args.model)
    made = bases.obtain(args.entry, mirror, staging)
    manifest = checkpoints.publish(staging, checkpoints.folder_of(args.output), args.entry["kind"], made["record"])
    write_json(args.metrics, {"history": made.get("history", [])})
    size = sum(file["bytes"] for file in manifest["files"].values()) / 1e6
    print(f"fetch model {args.model}: {args.entry['kind']}, {len(manifest['files'])} files, {size:,.1f} MB, {clock()}")


if __name__ == "__main__":
    run(main)
