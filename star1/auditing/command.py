"""`star1 audit`: draw a sample for people, and take in what they say."""

import argparse
import sys
from pathlib import Path
from typing import Any

TABLES = Path("results/tables")


def add(commands: Any) -> None:
    """The command on the command line."""
    command = commands.add_parser("audit", help="people label a blind sample of judged answers (docs/audit.md)")
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    kind = kinds.add_parser("sample", help="draw answers, and write sheets for people")
    kind.add_argument("--share", type=float, default=0.1, help="of the answers on which judges agree (0.1)")
    kind.add_argument(
        "--least", type=int, default=30, metavar="N", help="answers of each stratum, where there are (30)"
    )
    kind.add_argument("--most", type=int, metavar="N", help="disagreements, drawn at random; by default all")
    kind.add_argument("--seed", type=int, default=2002, help="of the draw (2002)")
    kind.add_argument("--models", nargs="+", default=[], metavar="MODEL", help="by default all that were judged")
    kind.add_argument("--benchmarks", nargs="+", default=[], metavar="NAME", help="by default all")
    kind.add_argument(
        "--purposes",
        nargs="+",
        default=["harmful", "benign"],
        choices=("harmful", "benign", "reasoning"),
        help="of the benchmarks (harmful benign); reasoning audits the graders",
    )
    kind.set_defaults(do=sample)
    other = kinds.add_parser("import", help="check filled sheets, and write results/tables/audit.*")
    other.add_argument(
        "sheets",
        nargs="*",
        type=Path,
        metavar="SHEET",
        help="CSV, or what Label Studio or Argilla export; none: count anew",
    )
    other.add_argument("--partial", action="store_true", help="items without a label may be missing")
    other.add_argument(
        "--to", type=Path, default=TABLES, metavar="FOLDER", help=f"for audit.json and audit.md ({TABLES})"
    )
    other.set_defaults(do=take_in)
    for one in (kind, other):
        one.add_argument("--name", default="main", help="of the sample (main)")


def sample(args: argparse.Namespace) -> None:
    """Draw a sample, and write its sheets and its key."""
    from star1 import params, runs
    from star1.auditing import drawing
    from star1.auditing.design import How

    values = params.Params.model_validate(params.load())
    models = args.models or runs.expand(values.generate.models, values.finetune.table())
    found = drawing.answers(models, args.benchmarks or values.generate.benchmarks)
    how = How(args.name, args.share, args.least, args.most, args.seed)
    for line in drawing.sample(found, args.purposes, how):
        _say(line)


def take_in(args: argparse.Namespace) -> None:
    """Check sheets, keep their labels, and write what they say."""
    from star1 import params
    from star1.agreement import Options
    from star1.auditing import design, drawing, labels, markdown, table
    from star1.records import write_json, write_text

    sample = design.read(args.name)
    kept, missing = labels.kept(sample), 0
    if args.sheets:
        given = [one for sheet in args.sheets for one in labels.read(sheet)]
        checked = labels.check(sample, given, kept, args.partial)
        kept, missing = checked.labels, len(checked.missing)
    how = params.Params.model_validate(params.load()).agree
    answers = drawing.answers(sample.design["models"], sample.design["benchmarks"])
    result = table.table(sample, kept, answers, Options(how.confidence, how.resamples, how.seed))
    if args.sheets:  # only what could be counted is kept
        _say(f"{labels.keep(sample, kept)}: {sum(map(len, kept.values())):,} labelled rows, for git")
    write_json(args.to / "audit.json", result)
    text = markdown.markdown(result)
    write_text(args.to / "audit.md", text)
    _say(text)
    _say(
        f"{args.to}/audit.json, {args.to}/audit.md: written"
        + (f"; {missing:,} items without a label" if missing else "")
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
