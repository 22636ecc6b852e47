"""The `star1` command."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from star1.auditing import command as audit_command
from star1.errors import InputError, run

PLACES = [
    ("tables", "results/tables/main.{md,json,tex}"),
    ("runs against their base", "results/tables/paired.md"),
    ("beside the paper's figures", "results/tables/{published,quality,think,over-refusal}.md"),
    ("metrics (dvc metrics show)", "results/metrics/"),
    ("generations, judgements", "results/generations/, results/judgements/"),
    ("final data set", "data/star1.jsonl; benign: data/benign/benign.jsonl"),
    ("other selections", "data/selections/"),
    ("agreement of judges", "results/tables/agreement.md, results/disagreements.jsonl"),
    ("stability, quality figures", "results/tables/stability.md, results/metrics/quality.json"),
    ("dropped rows, with reasons", "data/dropped.jsonl, data/curate_dropped.jsonl, data/quarantine/"),
    ("every model reply", "data/replies/"),
    ("checkpoints", "models/"),
    ("released data sets, models", "release/ (docs/release.md)"),
    ("logs", "logs/"),
]

ADDRESSES = """\
  17, row:17                        a row of data/collection.jsonl, and what became of it
  school-12, fetched:school-12      a fetched prompt by set and row number, as data/dropped.jsonl names it
  benign:17                         the benign look-alike of a row
  published:STAR_1/17               a row of a released data set
  xstest/b1, test:xstest/b1         a row of a benchmark
  star1/xstest/b1, answer:...       a model's judged answer to it; b1@2 is its sample 2
  star1/xstest, main:star1/xstest   a cell of results/tables/main.json
  main:star1/all harmful            a cell over all benchmarks of a purpose
  model:star1                       a checkpoint"""

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
    from star1.workflow import dvcfile, reasons, sync

    snakemake, dvc = sync.snakemake_plan(), sync.dvc_plan()[0] - {dvcfile.IN_STEP}
    if args.json:
        say(orjson.dumps({"snakemake": sorted(snakemake), "dvc": sorted(dvc)}).decode())
    else:
        for name in sorted({*snakemake, *dvc}):
            engines = [engine for engine, names in (("snakemake", snakemake), ("dvc", dvc)) if name in names]
            why = f" ({reasons.shortened(snakemake[name])})" if name in snakemake else ""
            say(f"{name}: {' and '.join(engines)}{why}")
        say(f"{len(snakemake)} stages for snakemake, {len(dvc)} for dvc")
    if set(snakemake) != dvc:
        sys.exit(1)


def sync_engines(args: argparse.Namespace) -> None:
    """Record in dvc.lock what Snakemake made, and in Snakemake's records what DVC holds to be up to date."""
    from star1.workflow import dvcfile, sync

    replies = sync.track_replies()
    fresh = (
        None if args.fresh is None else {name: digest for name, _, digest in (one.partition("=") for one in args.fresh)}
    )
    recorded = sync.to_dvc(fresh)
    told = sync.to_snakemake() if args.both else []
    sync.remember()
    made = [name for name in recorded if name != dvcfile.IN_STEP]  # the book-keeping's own
    parts = [f"{len(made)} stages recorded in dvc.lock", f"{len(told)} told to snakemake"]
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


def check_published(args: argparse.Namespace) -> None:
    """Hold the released data sets against what is published about them; fails when a figure differs."""
    from star1 import audit, facts, released
    from star1.records import write_json

    given = dict(zip(facts.NAMES, (args.star_1, args.star_41k, args.benign), strict=True))
    found = {name: path for name in facts.NAMES if (path := released.find(name, given[name]))}
    if not found:
        hint = "`star1 import-published` fetches them, or give --star-1, --star-41k, --benign."
        raise InputError("check-published", "none of the released data sets", "at least one", hint)
    sets = {name: released.read(name, path) for name, path in found.items()}
    checks, overlaps = audit.audit(sets)
    for line in audit.report(checks, overlaps, sets):
        say(line)
    if args.json:
        write_json(args.json, audit.as_json(checks, overlaps))
    if any(one.verdict == audit.DIFFERS for one in checks):
        sys.exit(1)


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


def prefetch(args: argparse.Namespace) -> None:
    """Fetch everything that lies on the network into one folder, or read again what is there."""
    from star1 import params, prefetched, prefetching

    if args.verify:
        told, whole = prefetched.verify()
        for line in told:
            say(line)
        if not whole:
            sys.exit(1)
        return
    prefetching.prefetch(params.Params.model_validate(params.load()), args.names, say)


def ledger(args: argparse.Namespace) -> None:
    """Look after the stores of model replies."""
    from star1 import ledger as stored
    from star1 import params
    from star1.workflow import sync

    chosen = stored.stores(args.stages)
    if not chosen and args.what in ("verify", "compact"):
        return say("no replies")
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


def calls(args: argparse.Namespace) -> None:
    """Re-open quarantined rows for some reasons; without a reason, tell which there are."""
    from star1 import retry
    from star1.workflow import sync

    found = retry.select(retry.quarantines(), args.stage, args.reason)
    told = retry.reopen(found, args.reason, dry=args.dry_run) if args.reason else retry.table(found)
    for line in told:
        say(line)
    if args.reason and not args.dry_run:
        retry.put_aside(found)
        sync.track_replies()
        say("now run `snakemake`, or `dvc repro`: it asks about these rows anew, and about no others")


def fill_part(args: argparse.Namespace) -> None:
    """Ask for a part of a stage's rows."""
    from star1 import fills, params

    values = params.Params.model_validate(params.load())
    for line in fills.fill(values, args.stage, fills.read_part(args.part)):
        say(line)


def inspect(args: argparse.Namespace) -> None:
    """Print what a run reads and what it learns."""
    from star1 import inspecting, params

    for line in inspecting.inspect(params.load(), args.run, args.row, args.id):
        say(line)


def _count(text: str) -> int:
    """A number of machines or GPUs on the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from 1 on")
    return int(text)


def fit(args: argparse.Namespace) -> None:
    """Print how much memory a run needs; exit status 1 when it does not fit."""
    from star1 import fitting, params

    lines, fits = fitting.fit(params.load(), args.run, args.gpus, args.memory_gib, args.config, args.nodes)
    for line in lines:
        say(line)
    if not fits:
        sys.exit(1)


def estimate(args: argparse.Namespace) -> None:
    """Print what the stages with model calls will still cost."""
    from star1 import estimate as costs
    from star1 import params

    values = params.Params.model_validate(params.load())
    found = costs.estimates(values, args.stages)
    for line in costs.table(found) + costs.beyond(values, found):
        say(line)


def push(args: argparse.Namespace) -> None:
    """Tell what a release would upload to the hub, or upload it."""
    from star1 import uploads

    found = uploads.find(args.names, args.to)
    given = {name: getattr(args, name) for name in ("yes", "public", "update", "stand_in_too")}
    uploads.push(found, **given, say=say)


def export(args: argparse.Namespace) -> None:
    """Write judged answers in another tool's format."""
    from star1 import exports

    for line in exports.export(args.format, args.models, args.to, Path()):
        say(line)


def passport(args: argparse.Namespace) -> None:
    """Print where a row or a figure comes from; exit status 1 when something on the way does not agree."""
    from star1.passport import text
    from star1.passport.issue import issue

    address = " ".join(args.address) + (f"@{args.sample}" if args.sample is not None else "")
    told = issue(address, replies=args.replies, everything=args.all)
    if args.json:
        say(orjson.dumps(told).decode())
    else:
        for line in text.lines(told, args.all):
            say(line)
    if told["problems"]:
        sys.exit(1)


def doctor(args: argparse.Namespace) -> None:
    """Check what a run would stumble over; exit status 2 with an error, 1 with a warning, else 0."""
    from star1.doctor import command

    told, status = command.run(args)
    for line in told:
        say(line)
    if status:
        sys.stdout.flush()
        sys.exit(status)


def images(args: argparse.Namespace) -> None:
    """Tell of the container images, build those that are missing, or write the conda environments of the same packages."""
    from star1 import conda, image_build, params
    from star1 import images as known

    if args.what == "conda":
        return conda.check() if args.check else conda.write()
    which = args.variant or known.variant(params.load())
    wanted = [known.Image(kind, which) for kind in known.chosen(args.kinds)]
    if args.what == "build":
        return image_build.build_all(wanted, args.offline, say)
    for image in wanted:
        about = known.read_record(image.path) if image.path.is_file() else None
        say(f"{image.file}: {about['sha256'] if about else 'there' if image.path.is_file() else 'not there'}")


def watch(args: argparse.Namespace) -> None:
    """Tell what a run is doing, until Ctrl-C or once."""
    from star1 import watch as watched

    watched.watch(args.every, args.once, args.json)


def _add_watch(commands: Any) -> None:
    command = commands.add_parser("watch", help="what a run is doing: rows, rates, calls, money, GPUs (docs/watch.md)")
    command.add_argument("--once", action="store_true", help="tell it once")
    command.add_argument("--json", action="store_true", help="as JSON, one object a line")
    command.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between two looks (2)")
    command.set_defaults(do=watch)


def _add_images(commands: Any) -> None:
    from star1.images import KINDS

    command = commands.add_parser(
        "images", help="container images: which there are, build what is missing (docs/hpc.md)"
    )
    command.set_defaults(do=images)
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    for what, told in (("list", "the file of each kind of work"), ("build", "build those that are missing")):
        kind = kinds.add_parser(what, help=told)
        kind.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; none means all")
        kind.add_argument("--variant", choices=("cpu", "cuda"), help="by default images.variant of params.yaml")
    kind.add_argument("--offline", action="store_true", help="from Debian's packages, where no hub can be reached")
    kind = kinds.add_parser("conda", help="write envs/*.yaml from the locks")
    kind.add_argument("--check", action="store_true", help="only compare; exit status 1 when out of step")


def policy_check(args: argparse.Namespace) -> None:
    """Check a policy pack: its files, then its golden examples."""
    from star1 import params, policy_check
    from star1.packs import find_pack

    folder = find_pack(Path(), args.pack or str((params.read_yaml("params.yaml").get("policy") or {}).get("pack", "")))
    told, examples = policy_check.check_files(folder, golden=not args.schema_only)
    say(told)
    if args.schema_only:
        return
    values = params.Params.model_validate(params.load())
    answers = policy_check.check_golden(folder, examples, values, args.endpoint)
    for line in policy_check.report(answers, values, args.endpoint):
        say(line)
    if not args.report and not all(one.agrees for one in answers):
        sys.exit(1)


def policy_new(args: argparse.Namespace) -> None:
    """Copy a policy pack under a new name."""
    from star1.packs import new_pack

    folder = new_pack(Path(), args.name, args.source)
    say(f"{folder}: a copy of {args.source}. Edit it, then: star1 policy check {args.name}")


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
        metavar="STAGE[=DIGEST]",
        help="only these stages (a run knows which are up to date); by default they are planned anew",
    )
    command.set_defaults(do=sync_engines)
    command = commands.add_parser("preset", help="write a preset or single values into params.yaml")
    command.add_argument("name", nargs="?", help="a file of presets/, without .yaml")
    _add_set(command, "a single value, for example curate.size=500; may be given often")
    command.set_defaults(do=preset)
    command = commands.add_parser("check-params", help="check params.yaml")
    command.set_defaults(do=check_params)
    command = commands.add_parser("pin", help="commit and digests of entries that are not pinned (docs/data.md)")
    command.add_argument("names", nargs="*", help="entries such as AttaQ or sources.AttaQ; none means all not pinned")
    command.add_argument("--write", action="store_true", help="record them in params.yaml")
    command.set_defaults(do=pin)
    command = commands.add_parser(
        "prefetch",
        help="fetch all that lies on the network into .cache/prefetched, for machines without one (docs/hpc.md)",
    )
    command.add_argument(
        "names", nargs="*", help="entries such as fetch.sources.HarmBench, or HarmBench; none means all"
    )
    command.add_argument("--verify", action="store_true", help="read what is there again; exit status 1 when damaged")
    command.set_defaults(do=prefetch)
    command = commands.add_parser("import-published", help="fetch the released data sets and check their digests")
    command.add_argument("names", nargs="*", help="STAR-1, STAR-41K, STAR-benign-915; none means all")
    command.set_defaults(do=import_published)
    command = commands.add_parser(
        "check-published", help="released data sets against the published figures; no model calls"
    )
    for flag, name in (("--star-1", "STAR-1"), ("--star-41k", "STAR-41K"), ("--benign", "STAR-benign-915")):
        command.add_argument(flag, type=Path, metavar="FILE", help=f"the released {name}, JSON or JSON Lines")
    command.add_argument("--json", type=Path, metavar="FILE", help="write figures, and the overlap id by id")
    command.set_defaults(do=check_published)
    command = commands.add_parser("estimate", help="calls, tokens, money and hours that model calls will still take")
    command.add_argument("stages", nargs="*", help="such as reason or judge-tiny; none means all")
    command.set_defaults(do=estimate)
    _add_doctor(commands)
    command = commands.add_parser("ledger", help="the stored model replies: what is there, whether it can be read")
    command.set_defaults(do=ledger)
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    for what, told in LEDGER.items():
        kind = kinds.add_parser(what, help=told)
        if what == "export":
            kind.add_argument("file", type=Path, help="where to write them, JSON Lines")
        kind.add_argument("stages", nargs="*", help="stores such as reason or judge-tiny; none means all")
    _add_push(commands)
    command = commands.add_parser("export", help="judged answers in another tool's format (docs/statistics.md)")
    command.add_argument("models", nargs="+", metavar="MODEL", help="names of generate.models")
    command.add_argument("--format", required=True, choices=("lm-eval", "inspect", "every-eval-ever"))
    command.add_argument("--to", type=Path, default=Path("results/exports"), metavar="FOLDER", help="(results/exports)")
    command.set_defaults(do=export)
    command = commands.add_parser(
        "passport",
        help="where a row, an answer or a cell of a table comes from (docs/passport.md)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"addresses:\n{ADDRESSES}",
    )
    command.add_argument("address", nargs="+", help="such as 17, school-12, star1/xstest/b1 or main:star1/xstest")
    command.add_argument("--sample", type=int, metavar="K", help="of an answer that was drawn several times, from 0")
    command.add_argument("--json", action="store_true", help="as one JSON object, whose links can be asked for again")
    command.add_argument("--replies", action="store_true", help="with the stored replies in full")
    command.add_argument("--all", action="store_true", help="with long lists in full")
    command.set_defaults(do=passport)
    command = commands.add_parser(
        "calls", help="model calls: ask anew about quarantined rows, or for a part of a stage"
    )
    command.set_defaults(do=calls)
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    kind = kinds.add_parser(
        "fill", help="ask for a part of a stage's rows, beside other machines, before the stage runs"
    )
    kind.add_argument("stage", metavar="STAGE", help="such as reason or judge-tiny")
    kind.add_argument("--part", default="1/1", metavar="N/COUNT", help="which of how many; the first is 1")
    kind.set_defaults(do=fill_part)
    kind = kinds.add_parser(
        "retry", help="re-open quarantined rows for some reasons; without one, tell which there are"
    )
    kind.add_argument("--reason", nargs="+", default=[], metavar="REASON", help="such as length or empty")
    kind.add_argument(
        "--stage", nargs="+", default=[], metavar="STAGE", help="such as reason or judge-tiny; none means all"
    )
    kind.add_argument("--dry-run", action="store_true", help="only tell what would be re-opened")
    command = commands.add_parser("policy", help="policy packs: make one, check one (docs/policies.md)")
    add_policy(command.add_subparsers(dest="what", required=True, metavar="WHAT"))
    command = commands.add_parser("train", help="look into fine-tuning runs")
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    kind = kinds.add_parser("inspect", help="which tokens of a run's rows are read, which are learnt, what is dropped")
    kind.add_argument("run", help="a name of finetune.runs")
    place = kind.add_mutually_exclusive_group()
    place.add_argument("--row", type=int, help="show this row, counted from 0; by default the first that is used")
    place.add_argument("--id", help="show the row with this id")
    kind.set_defaults(do=inspect)
    kind = kinds.add_parser(
        "fit", help="how much memory a run needs, and what would make it fit; exit status 1 when not"
    )
    kind.add_argument("run", help="a name of finetune.runs")
    kind.add_argument(
        "--gpus", type=_count, metavar="N", help="so many, a process each; by default as params.yaml and machine say"
    )
    kind.add_argument("--nodes", type=_count, metavar="N", help="over so many machines; by default as params.yaml says")
    kind.add_argument("--memory-gib", type=float, metavar="G", help="of one GPU; by default what is free here")
    kind.add_argument(
        "--config", type=Path, metavar="FILE", help="config.json of the base model, where it is not fetched yet"
    )
    kind.set_defaults(do=fit)
    _add_images(commands)
    audit_command.add(commands)
    _add_watch(commands)
    command = commands.add_parser("show", help="print the tables of the last run and where everything lies")
    command.set_defaults(do=show)
    return root


def _add_set(command: argparse.ArgumentParser, told: str) -> None:
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=told)


def _add_push(commands: Any) -> None:
    command = commands.add_parser(
        "push", help="upload releases to the Hugging Face hub; without --yes, tell what would be"
    )
    command.add_argument("names", nargs="*", help="such as star-1 or a run; none means all of release/")
    command.add_argument("--to", required=True, metavar="OWNER", help="account or organisation on the hub")
    command.add_argument("--yes", action="store_true", help="really upload; HF_TOKEN holds the token")
    command.add_argument("--public", action="store_true", help="make new repositories public")
    command.add_argument("--update", action="store_true", help="add a commit to repositories that are there already")
    command.add_argument("--stand-in-too", action="store_true", help="upload what no language model made, too")
    command.set_defaults(do=push)


def _add_doctor(commands: Any) -> None:
    command = commands.add_parser(
        "doctor",
        help="what a run would stumble over, before anything is paid or queued; exit status 2 with an error, 1 with a warning",
    )
    command.add_argument("endpoints", nargs="*", help="names in params.yaml, looked at alone; none means all checks")
    command.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME",
        help="as if this preset had been put into params.yaml, which is not written; may be given often",
    )
    _add_set(command, "a single value, in the same way; may be given often")
    command.add_argument("--profile", metavar="FOLDER", help="as if run with this profile (profiles/slurm)")
    command.add_argument("--all", action="store_true", help="also endpoints without a role")
    command.add_argument("--offline", action="store_true", help="ask nobody over the network")
    command.add_argument("--full", action="store_true", help="read images and prefetched files whole, however large")
    command.add_argument("--quiet", action="store_true", help="findings alone")
    command.add_argument("--json", action="store_true", help="as one JSON object (docs/doctor.md)")
    command.set_defaults(do=doctor)


def add_policy(kinds: Any) -> None:
    """The commands on policy packs."""
    kind = kinds.add_parser(
        "check", help="the files of a pack, then its golden examples; exit status 1 when one is not as expected"
    )
    kind.add_argument("pack", nargs="?", help="a folder of policies/; by default policy.pack of params.yaml")
    kind.add_argument("--schema-only", action="store_true", help="only the files; no model is asked")
    kind.add_argument("--endpoint", metavar="NAME", help="ask this one of llm.endpoints in place of the roles' own")
    kind.add_argument("--report", action="store_true", help="exit status 0 even when models answer otherwise")
    kind.set_defaults(do=policy_check)
    kind = kinds.add_parser("new", help="copy a pack under a new name")
    kind.add_argument("name", help="what the new pack is called")
    kind.add_argument("--from", dest="source", default="star1", metavar="PACK", help="the pack to copy (star1)")
    kind.set_defaults(do=policy_new)


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
