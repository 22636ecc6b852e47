"""What a run is doing, read off files alone: jobs' own states (`star1.status`), Snakemake's log, and what was spent.

So it works on any machine that sees the folder, also for jobs on other nodes.
"""

import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from star1 import gpus, status
from star1.records import Row

LOGS, LOCKS, COSTS = Path(".snakemake/log"), Path(".snakemake/locks"), Path("results/costs")
# Of a job on this machine whose process is gone; and of one on another machine. A living one touches its file every 3 s, and
# shared folders may show that late.
GONE_HERE_S, GONE_ELSEWHERE_S = 6.0, 45.0
# Logs looked at for the latest run: checks and plans write some too, which start nothing.
LOOKED_AT = 20
# What every job tells.
KEYS = frozenset(("job", "stage", "unit", "total", "done", "host", "pid", "started", "ended"))
JOBS = re.compile(r"^Job stats:\n(?:.*\n){2}((?:\S+ +\d+\n)+)", re.MULTILINE)
BEGUN = re.compile(r"^(?:local)?rule (\S+):\n((?: {4}.*\n)+)", re.MULTILINE)
ENDED = re.compile(r"^(?:Finished jobid: (\d+) |Error in rule \S+:\n(?: {4}.*\n)*? {4}jobid: (\d+)$)", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: \d+ \(Rule: (\S+)\)", re.MULTILINE)
STARTED = re.compile(r"^Execute (\d+) jobs?\.\.\.", re.MULTILINE)
FAILED = re.compile(r"^Error in rule (\S+?):", re.MULTILINE)
OVER = re.compile(r"^(Complete log\(s\):|Exiting because a job execution failed|Nothing to be done)", re.MULTILINE)


def snapshot(root: Path = Path(), now: float | None = None) -> Row:
    """Everything at this moment: {time, run, jobs, spent, gpus}.

    Args:
        root: the project's folder.
        now: the time; by default this machine's clock.
    """
    now = time.time() if now is None else now
    found = sorted(jobs(root, now), key=lambda one: one["started"])
    return {"time": now, "run": run(root, now), "jobs": found, "spent": spent(root, found), "gpus": gpus.use()}


# ---------------------------------------------------------------- jobs


def jobs(root: Path, now: float) -> Iterator[Row]:
    """What jobs say of themselves, with `state`, `silent_s`, `time_heard` and `left_s`."""
    for path in (root / status.FOLDER).glob("*.json"):
        try:
            one, touched = orjson.loads(path.read_bytes()), _touched(path)
        except (OSError, orjson.JSONDecodeError):  # removed or replaced in between, or a shared folder that lags
            continue
        if not isinstance(one, dict) or not one.keys() >= KEYS:  # somebody else's
            continue
        silent = max(0.0, now - touched)
        yield one | {
            "time_heard": touched,
            "state": _state(one, silent),
            "silent_s": round(silent, 1),
            "left_s": _left(one),
        }


def _touched(path: Path) -> float:
    with open(path, "rb") as file:  # opened, since shared folders may keep a file's times for a while otherwise
        return os.fstat(file.fileno()).st_mtime


def _state(one: Mapping[str, Any], silent_s: float) -> str:
    if one["ended"] is not None:
        return "done" if one["total"] is None or one["done"] >= one["total"] else "stopped"
    if one["host"] == socket.gethostname() and not _lives(one["pid"]):
        return "dead" if silent_s > GONE_HERE_S else "silent"
    return "dead" if silent_s > GONE_ELSEWHERE_S else "running"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _left(one: Mapping[str, Any]) -> float | None:
    if one["ended"] is not None or not one["total"] or not one.get("rate"):
        return None
    return float(round((one["total"] - one["done"]) / one["rate"], 1))


def spent(root: Path, found: Sequence[Row]) -> Row:
    """Tokens and money of all stages: of running ones by themselves, of others by their costs; None without a price."""
    live = {one["job"]: one["calls"] for one in found if "calls" in one and one["state"] in ("running", "silent")}
    every = list(live.values())
    for path in sorted((root / COSTS).glob("*.json")):
        if path.stem not in live:
            every += _costs(path)
    told = [one["usd"] for one in every if one.get("usd") is not None]
    tokens = {name: sum(one.get(name) or 0 for one in every) for name in ("prompt_tokens", "reply_tokens")}
    return {**tokens, "usd": round(sum(told), 6) if told else None}


def _costs(path: Path) -> list[Row]:
    """What a stage cost; of a judged model, judge by judge."""
    try:
        told = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return []
    if not isinstance(told, dict):
        return []
    parts = [told] if "prompt_tokens" in told else list(told.values())
    return [one for one in parts if isinstance(one, dict) and "prompt_tokens" in one]


# ---------------------------------------------------------------- the run


def run(root: Path, now: float) -> Row | None:
    """The latest run of Snakemake: {log, silent_s, state, done, total, active, running, rules, failed}; None without one."""
    for path in sorted((root / LOGS).glob("*.snakemake.log"), reverse=True)[:LOOKED_AT]:
        try:
            text, touched = path.read_text("utf-8", "replace"), _touched(path)
        except OSError:  # removed in between
            continue
        if STARTED.search(text):
            listed = JOBS.search(text)
            told = _run(text, _counts(listed[1]) if listed else None, locked=any((root / LOCKS).glob("*")))
            return {"log": str(path), "silent_s": round(max(0.0, now - touched), 1), **told}
    return None


def _counts(table: str) -> dict[str, int]:
    rows = [line.rsplit(maxsplit=1) for line in table.splitlines()]
    return {name.strip(): int(count) for name, count in rows}


def _run(text: str, rules: dict[str, int] | None, locked: bool) -> Row:
    done, failed = Counter(FINISHED.findall(text)), Counter(FAILED.findall(text))
    total = rules.pop("total", 0) if rules else None  # a quiet run lists neither its jobs nor those that are done
    over = bool(OVER.search(text))
    active = sum(map(int, STARTED.findall(text))) - done.total() - failed.total()
    return {
        "state": "over" if over else "going" if locked else "not running",
        "done": done.total(),
        "total": total,
        "active": None if total is None else 0 if over else max(0, active),
        "running": [] if over else list(_running(text)),
        "rules": {name: {"done": done[name], "total": count} for name, count in (rules or {}).items()},
        "failed": dict(failed),
    }


def _running(text: str) -> Iterator[str]:
    """Jobs that began and did not end yet, as far as the log tells: `judge (model=tiny)`."""
    ended = {number: match.end() for match in ENDED.finditer(text) for number in match.groups() if number}
    begun = {}
    for match in BEGUN.finditer(text):
        fields = dict(line.strip().partition(": ")[::2] for line in match[2].splitlines())
        wildcards = f" ({fields['wildcards']})" if "wildcards" in fields else ""
        begun[fields.get("jobid", "")] = match.start(), match[1] + wildcards
    for number, (start, name) in begun.items():
        if ended.get(number, -1) < start:
            yield name
