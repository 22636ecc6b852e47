"""The `star1` command."""

import argparse
import os
import sys
from pathlib import Path

import orjson

from star1.errors import InputError, run

PLACES = [
    ("tables", "results/tables/main.{md,json,tex}"),
    ("metrics (dvc metrics show)", "results/metrics/"),
    ("generations, judgements", "results/generations/, results/judgements/"),
    ("final data set", "data/star1.jsonl; benign: data/benign/benign.jsonl"),
    ("dropped rows, with reasons", "data/dropped.jsonl, data/curate_dropped.jsonl, data/quarantine/"),
    ("every model reply", "data/replies/"),
    ("checkpoints", "models/"),
    ("logs", "logs/"),
]

LEDGER = {
    "status": "replies, failures by reason, tokens and bytes of each stage",
    "verify": "read every line; exit status 1 when one is damaged",
    "export": "the replies that runs find, sorted by key, into one file",
    "compact": "zip what is there; runs read it as before",
}


def dvc_yaml(args: argparse.Namespace) -> None:
    """Generate dvc.yaml from the rules, or check that it is in step."""
    from star1.workflow import dvcfile

    if args.check:
        dvcfile.check()
    else:
        say("dvc.yaml: written" if dvcfile.write() else "dvc.yaml: in step")


def plan(args: argparse.Namespace) -> None:
    """Print what each engine would run; fails when they differ."""
    from star1.workflow import dvcfile, sync

    snakemake, dvc = sync.snakemake_plan(), sync.dvc_plan()[0] - {dvcfile.IN_STEP}
    if args.json:
        say(orjson.dumps({"snakemake": sorted(snakemake), "dvc": sorted(dvc)}).decode())
    else:
        for name in sorted({*snakemake, *dvc}):
            engines = [engine for engine, names in (("snakemake", snakemake), ("dvc", dvc)) if name in names]
            say(f"{name}: {' and '.join(engines)}{' (' + snakemake[name] + ')' if name in snakemake else ''}")
        say(f"{len(snakemake)} stages for snakemake, {len(dvc)} for dvc")
    if set(snakemake) != dvc:
        sys.exit(1)


def sync_engines(args: argparse.Namespace) -> None:
    """Record in dvc.lock what Snakemake made, and in Snakemake's records what DVC holds to be up to date."""
    from star1.workflow import sync

    replies = sync.track_replies()
    recorded = sync.to_dvc(args.fresh)
    told = sync.to_snakemake() if args.both else []
    sync.remember()
    parts = [f"{len(recorded)} stages recorded in dvc.lock", f"{len(told)} told to snakemake"]
    say("sync: " + ", ".join(parts + (["model replies tracked"] if replies else [])))


def preset(args: argparse.Namespace) -> None:
    """Write a preset, or single values, into params.yaml, and bring dvc.yaml in step."""
    from star1 import presets
    from star1.workflow import dvcfile

    changed = presets.apply(args.name, args.set)
    if changed:
        dvcfile.write()
    say(
        f"params.yaml: {len(changed)} values changed"
        + (f" ({', '.join(changed[:12])}{', ...' if len(changed) > 12 else ''})" if changed else "")
    )


def check_params(_: argparse.Namespace) -> None:
    """Check params.yaml."""
    from star1 import params

    values = params.load()
    say(f"params.yaml: {len(values)} sections, no mistakes")


def import_published(args: argparse.Namespace) -> None:
    """Import the data sets that the authors released."""
    from star1 import published

    for line in published.import_published(args.names):
        say(line)


def pin(args: argparse.Namespace) -> None:
    """Tell, or write, what pins entries of the tables: commits and digests."""
    from star1 import pins
    from star1.workflow import dvcfile

    lines = pins.pin(args.names, args.write)
    for line in lines:
        say(line)
    if args.write and lines:
        dvcfile.write()
    say(f"pin: {len(lines)} entries {'written to params.yaml' if args.write else 'looked at; --write records them'}")


def ledger(args: argparse.Namespace) -> None:
    """Look after the stores of model replies."""
    from star1 import ledger as stored
    from star1 import params
    from star1.workflow import sync

    chosen = stored.stores(args.stages)
    if args.what == "status":
        endpoints = params.Params.model_validate(params.load()).llm.endpoints.values()
        told = stored.status(chosen, {(one.label, one.model): one.price for one in endpoints if one.price})
    elif args.what == "verify":
        found = [stored.verify(stage, path) for stage, path in chosen.items()]
        told = [line for lines, _ in found for line in lines]
    elif args.what == "export":
        told = [f"{args.file}: {stored.export(chosen, args.file):,} replies"]
    else:
        told = [stored.compact(stage, path) for stage, path in chosen.items()]
        told += ["data/replies.dvc: written"] if sync.track_replies() else []
    for line in told:
        say(line)
    if args.what == "verify" and not all(whole for _, whole in found):
        sys.exit(1)


def inspect(args: argparse.Namespace) -> None:
    """Print what a run reads and what it learns."""
    from star1 import inspecting, params

    for line in inspecting.inspect(params.load(), args.run, args.row, args.id):
        say(line)


def estimate(args: argparse.Namespace) -> None:
    """Print what the stages with model calls will still cost."""
    from star1 import estimate as costs
    from star1 import params

    values = params.Params.model_validate(params.load())
    for line in costs.table(costs.estimates(values, args.stages)):
        say(line)


def show(_: argparse.Namespace) -> None:
    """Print the tables and say where everything lies."""
    table = Path("results/tables/main.md")
    if not table.exists():
        raise InputError(table, "no such file", "the tables of a finished run", "run `snakemake` or `make run`.")
    say(table.read_text("utf-8"))
    for what, where in PLACES:
        say(f"{what:<28} {where}")


def say(line: str) -> None:
    """Print one line on stdout."""
    sys.stdout.write(line + "\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(
        prog="star1", description="The STAR-1 pipeline: checks and book-keeping around the workflow."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("dvc-yaml", help="generate dvc.yaml from the rules")
    command.add_argument("--check", action="store_true", help="only compare; exit status 1 when out of step")
    command.set_defaults(do=dvc_yaml)
    command = commands.add_parser("plan", help="what snakemake and dvc would run; exit status 1 when they differ")
    command.add_argument("--json", action="store_true", help="as one JSON object")
    command.set_defaults(do=plan)
    command = commands.add_parser(
        "sync", help="keep dvc.lock and Snakemake's records equal (runs by itself after a run)"
    )
    command.add_argument("--both", action="store_true", help="also tell Snakemake what DVC holds to be up to date")
    command.add_argument(
        "--fresh",
        nargs="*",
        metavar="STAGE",
        help="only these stages (a run knows which are up to date); by default they are planned anew",
    )
    command.set_defaults(do=sync_engines)
    command = commands.add_parser("preset", help="write a preset or single values into params.yaml")
    command.add_argument("name", nargs="?", help="a file of presets/, without .yaml")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a single value, for example curate.size=500; may be given often",
    )
    command.set_defaults(do=preset)
    command = commands.add_parser("check-params", help="check params.yaml")
    command.set_defaults(do=check_params)
    command = commands.add_parser("pin", help="commit and digests of prompt sets that are not pinned (docs/data.md)")
    command.add_argument("names", nargs="*", help="entries such as AttaQ or sources.AttaQ; none means all not pinned")
    command.add_argument("--write", action="store_true", help="record them in params.yaml")
    command.set_defaults(do=pin)
    command = commands.add_parser("import-published", help="fetch the released data sets and check their digests")
    command.add_argument("names", nargs="*", help="STAR-1, STAR-41K, STAR-benign-915; none means all")
    command.set_defaults(do=import_published)
    command = commands.add_parser("estimate", help="calls, tokens, money and hours that model calls will still take")
    command.add_argument("stages", nargs="*", help="such as reason or judge-tiny; none means all")
    command.set_defaults(do=estimate)
    command = commands.add_parser("ledger", help="the stored model replies: what is there, whether it can be read")
    command.set_defaults(do=ledger)
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    for what, told in LEDGER.items():
        kind = kinds.add_parser(what, help=told)
        if what == "export":
            kind.add_argument("file", type=Path, help="where to write them, JSON Lines")
        kind.add_argument("stages", nargs="*", help="stores such as reason or judge-tiny; none means all")
    command = commands.add_parser("train", help="look into fine-tuning runs")
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    kind = kinds.add_parser("inspect", help="which tokens of a run's rows are read, which are learnt, what is dropped")
    kind.add_argument("run", help="a name of finetune.runs")
    place = kind.add_mutually_exclusive_group()
    place.add_argument("--row", type=int, help="show this row, counted from 0; by default the first that is used")
    place.add_argument("--id", help="show the row with this id")
    kind.set_defaults(do=inspect)
    command = commands.add_parser("show", help="print the tables of the last run and where everything lies")
    command.set_defaults(do=show)
    return root


def main() -> None:
    """Run the `star1` command."""
    args = parser().parse_args()
    run(lambda: in_project(args))


def in_project(args: argparse.Namespace) -> None:
    """Do what was asked for, in the project's folder.

    Raises:
        InputError: the working directory is another.
    """
    if not Path("Snakefile").is_file():
        raise InputError(Path.cwd(), "no Snakefile", "the project's folder", "cd to where params.yaml lies.")
    try:
        args.do(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this (head, less) has seen enough; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
