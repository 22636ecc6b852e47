"""Fine-tune a base model on rows of question and response: `models/{run}/`, with its manifest last."""

import argparse

import orjson

from star1 import checkpoints, threads
from star1.errors import run


def main() -> None:
    """Parse flags, train, publish the checkpoint and say what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--base", required=True, help="manifest of the base model")
    parser.add_argument("--data", required=True, nargs="+", help="rows, JSON Lines")
    parser.add_argument("--settings", required=True, type=orjson.loads, help="fields of star1.sft.Settings, as JSON")
    parser.add_argument(
        "--choices", default={}, type=orjson.loads, help="what this run alone sets (think, seed), as JSON"
    )
    parser.add_argument("--output", required=True, help="manifest of the checkpoint")
    parser.add_argument("--metrics", required=True, help="loss of each update")
    parser.add_argument("--plot", help="loss, rate and norm of each update as a table for a plot")
    parser.add_argument("--costs", help="time, memory, energy, and on what; never the same twice")
    parser.add_argument("--trackers", default=[], type=orjson.loads, help="experiment trackers, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    clock = threads.use(args.threads)
    from star1 import metering, sft, trackers  # torch reads the number of threads when it is loaded

    staging, states = checkpoints.staging("finetune", args.run), checkpoints.staging("finetune-states", args.run)
    settings = sft.settings_from(
        args.settings | {key: args.choices[key] for key in {"think", "seed"} & {*args.choices}}
    )
    trackers.check(args.trackers, args.run)
    base, meter = checkpoints.folder_of(args.base), metering.Meter()
    with trackers.Watch(args.trackers, args.run, args.settings | args.choices) as watch:
        made = sft.finetune(base, args.data, settings, staging, states, (meter.mark, watch.look))
    costs = meter.facts(base, made["updates"], settings.precision, made["trained"])
    if made["main"]:
        metering.write(args.costs, costs, args.plot, made["history"])
    sft.publish(made, staging, args.output, args.metrics, states)
    if made["main"]:
        print(f"finetune {args.run}: {sft.summary(made['record'])}, {clock()}")


if __name__ == "__main__":
    run(main)
