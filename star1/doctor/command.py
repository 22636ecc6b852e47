"""What the command `star1 doctor` does, from its flags to its lines and exit status."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from star1 import params, presets
from star1.doctor.about import About, profile_file
from star1.doctor.checks import Report, examine
from star1.doctor.findings import Finding, Unknown, finding
from star1.doctor.ids import IDS
from star1.doctor.told import lines
from star1.errors import SettingError


def run(args: argparse.Namespace) -> tuple[list[str], int]:
    """The lines to print and the exit status.

    Raises:
        SettingError: no such preset or profile, or no endpoint of such a name.
    """
    _see_profile(args.profile)
    report = _examined(args)
    if args.json:
        return [orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2).decode()], report.status
    return list(lines(report, args.quiet)), report.status


def _see_profile(folder: str | None) -> None:
    """Snakemake itself says nothing of a profile that is not there, and runs without."""
    if folder is not None and profile_file(folder) is None:
        known = sorted(path.parent.as_posix() for path in Path("profiles").glob("*/config.yaml"))
        raise SettingError("--profile", f"no {folder}/config.yaml", f"a profile's folder, such as {', '.join(known)}")


def _examined(args: argparse.Namespace) -> Report:
    began = time.monotonic()
    changed = bool(args.preset or args.set)
    try:
        values = presets.planned(args.preset, args.set) if changed else params.load()
    except params.ParamsError as error:
        return _mistaken(args, list(_mistakes(error.lines)), began)
    preset = " ".join([*args.preset, *args.set]) if changed else None
    return examine(_about(args, values, preset))


def _about(args: argparse.Namespace, values: dict[str, Any], preset: str | None) -> About:
    return About(values, preset, args.profile, tuple(args.endpoints), args.all, offline=args.offline, full=args.full)


def _mistakes(told: list[str]) -> Iterator[Finding]:
    """Each mistake in params.yaml; without its values nothing else can be looked at."""
    for line in told:
        what, _, hint = line.partition(" Hint: ")
        where, _, found = what.partition(": ")
        yield finding("params", where, found, f"$EDITOR params.yaml && star1 check-params{hint and '  # ' + hint}")


def _mistaken(args: argparse.Namespace, found: list[Finding], began: float) -> Report:
    unknown = [Unknown(name, "params.yaml has mistakes") for name in IDS if name != "params"]
    profiles = [args.profile] if args.profile else []
    return Report(" ".join(args.preset) or None, profiles, found, [], unknown, [], time.monotonic() - began)
