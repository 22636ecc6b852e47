"""Fine-tune a base model on rows of question and response: `models/{run}/`, with its manifest last."""

import argparse
import sys

import orjson

from star1 import launching, recipe, runs, threads


def main() -> None:
    """Parse flags, train, publish the checkpoint and say what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--base", required=True, help="manifest of the base model")
    parser.add_argument("--data", required=True, nargs="+", help="rows, JSON Lines")
    parser.add_argument("--settings", required=True, type=orjson.loads, help="fields of star1.sft.Settings, as JSON")
    parser.add_argument("--choices", default={}, type=orjson.loads, help="the run's entry, with one seed, as JSON")
    parser.add_argument("--lora", type=orjson.loads, help="settings of adapters, for a tier that has some, as JSON")
    parser.add_argument("--output", required=True, help="manifest of the checkpoint")
    parser.add_argument("--metrics", required=True, help="loss of each update")
    parser.add_argument("--plot", help="loss, rate and norm of each update as a table for a plot")
    parser.add_argument("--costs", help="time, memory, energy, and on what; never the same twice")
    parser.add_argument("--trackers", default=[], type=orjson.loads, help="experiment trackers, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    settings = recipe.settings_from(runs.settings_of(args.settings, args.choices))
    clock = threads.use(launching.threads_each(args.threads, settings.processes))
    if launching.needed(settings.processes, settings.sharding, settings.nodes):
        return launching.launch(f"finetune {args.run}", settings.processes, __spec__.name, sys.argv[1:], settings.nodes)
    from star1 import adapters, finetuning  # torch reads the number of threads when it is loaded

    adapter = adapters.settings_from(runs.adapter_of(args.lora, args.choices))
    outputs = finetuning.Outputs(args.output, args.metrics, args.plot, args.costs)
    if told := finetuning.run(args.run, args.base, args.data, settings, adapter, args.trackers, outputs):
        print(f"finetune {args.run}: {told}, {clock()}")


if __name__ == "__main__":
    launching.run(main)
