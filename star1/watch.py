"""`star1 watch`: a run on a terminal, drawn anew in place; or once, or as JSON, for what is no terminal."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from types import FrameType
from typing import NoReturn

import orjson

from star1.errors import SettingError
from star1.records import Row
from star1.watching import snapshot

# Another screen, which is left as it was found; home, and what is left of a line or of the screen is wiped.
ENTER, LEAVE, HOME, LINE_END, BELOW = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J"
GAP, INDENT = "  ", "    "
# Jobs that are over are shown for so long [s].
SHOWN_S = 3600.0
BIG = ((1e9, "G"), (1e6, "M"), (1e4, "K"))


def watch(every_s: float, once: bool, as_json: bool) -> None:
    """Tell what a run is doing until Ctrl-C, or once.

    Raises:
        SettingError: an interval that is none.
    """
    if not every_s >= 0.1:
        raise SettingError("--every", f"{every_s:g}", "at least 0.1 seconds")
    signal.signal(signal.SIGTERM, _end)  # as Ctrl-C: the terminal is put back
    on_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json and not once
    try:
        _write(ENTER if on_terminal else "")
        while True:
            _show(snapshot(), on_terminal, as_json)
            if once:
                return
            time.sleep(every_s)
    except KeyboardInterrupt:
        pass
    finally:
        _write(LEAVE if on_terminal else "")
    if on_terminal:
        _show(snapshot(), on_terminal=False, as_json=False)


def _end(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _show(found: Row, on_terminal: bool, as_json: bool) -> None:
    if as_json:
        return _write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE).decode())
    width, height = shutil.get_terminal_size()
    told = lines(found, width if sys.stdout.isatty() else 120)
    if not on_terminal:
        return _write("\n".join([*told, "", ""]))
    if len(told) > height:
        told = [*told[: height - 1], f"... and {len(told) - height + 1} lines more, for a higher terminal"[:width]]
    _write(HOME + "\n".join(line + LINE_END for line in told) + BELOW)


# ---------------------------------------------------------------- as text


def lines(found: Row, width: int) -> list[str]:
    """A snapshot as lines of at most `width` characters."""
    clock = datetime.fromtimestamp(found["time"]).astimezone().strftime("%H:%M:%S")
    told = [*flow([f"star1 watch {clock}", *_run(found["run"])], width)]
    shown = [
        one for one in found["jobs"] if one["state"] in ("running", "silent") or found["time"] - _over(one) < SHOWN_S
    ]
    for one in shown:
        told += flow(_job(one), width)
    if not shown:
        told += flow(["no job tells what it is doing"], width)
    told += flow(["spent:", *_spent(found["spent"])], width)
    told += flow(["GPUs here:", *(_gpus(found["gpus"]) or ["none"])], width)
    return told


def flow(words: Sequence[str], width: int) -> list[str]:
    """Words in lines of at most `width` characters, the later ones set in; a word that is longer is cut."""
    told = [""]
    for word in filter(None, words):
        line = f"{told[-1]}{GAP}{word}" if told[-1].strip() else f"{told[-1]}{word}"
        if len(line) > width and told[-1].strip():
            told.append(INDENT[: width // 4])
            line = told[-1] + word
        told[-1] = line if len(line) <= width else line[: max(width - 1, 0)] + "…"[:width]
    return told


def _over(one: Row) -> float:
    """When a job was last heard of."""
    return float(one["ended"] or one["time_heard"])


def _run(run: Row | None) -> list[str]:
    if run is None:
        return ["no run of Snakemake yet"]
    quiet = "a quiet run, whose log tells no jobs"
    words = [quiet if run["total"] is None else f"{run['done']} of {run['total']} jobs done"]
    words += [f"{run['active']} started or queued"] if run["active"] else []
    words += ["running: " + ", ".join(run["running"])] if run["running"] else []
    words += (
        ["failed: " + ", ".join(f"{name} {count}" for name, count in run["failed"].items())] if run["failed"] else []
    )
    words += [f"run {run['state']}, its log silent for {_time(run['silent_s'])}"]
    stages = [f"{name} {one['done']}/{one['total']}" for name, one in run["rules"].items() if name != "all"]
    return [*words, *stages]


def _job(one: Row) -> list[str]:
    return [
        f"{one['job']}:",
        _state(one),
        *_progress(one),
        *_training(one),
        *_calls(one),
        *_gpus(one.get("gpus", ())),
        _fault(one),
    ]


def _fault(one: Row) -> str:
    return f"it cannot count any more ({one['fault']}): its last numbers are shown" if "fault" in one else ""


def _state(one: Row) -> str:
    where = f"process {one['pid']} on {one['host']}" + (f", Slurm job {one['slurm_job']}" if "slurm_job" in one else "")
    silent = _time(one["silent_s"])
    return {
        "running": f"running ({where})",
        "silent": f"process {one['pid']} is not seen here; silent for {silent}",
        "dead": f"DEAD: {where} was last heard of {silent} ago; if it is gone, start the run again",
        "stopped": f"stopped before its end, {silent} ago",
        "done": f"done {silent} ago",
    }[str(one["state"])]


def _progress(one: Row) -> list[str]:
    share = f" of {one['total']:,} ({100 * one['done'] / one['total']:.0f} %)" if one["total"] else ""
    words = [f"{one['done']:,}{share} {one['unit']}"]
    if one["state"] == "running" and one.get("rate") is not None:
        words += [f"{one['rate']:,.1f}/s", "" if one["left_s"] is None else f"{_time(one['left_s'])} left"]
    return words


def _training(one: Row) -> list[str]:
    if not (told := one.get("training")):
        return []
    loss = "" if told["loss"] is None else f"loss {told['loss']:.4g}"
    return [f"update {told['update']:,} of {told['updates']:,}", loss]


def _calls(one: Row) -> list[str]:
    if not (told := one.get("calls")):
        return []
    waiting = f", {told['waiting']:,} waiting" if told["waiting"] else ""
    words = [f"{told['in_flight']:,} calls in flight{waiting}"] if one["state"] == "running" else []
    words += [f"{told['asked']:,} asked, {told['answered']:,} from the store", *_spent(told)]
    words += [f"{one['quarantined']:,} quarantined"] if one.get("quarantined") else []
    failed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(told["failed_attempts"].items()))
    return [*words, f"failed attempts: {failed}" if failed else ""]


def _spent(told: Row) -> list[str]:
    tokens = f"{_big(told['prompt_tokens'])} + {_big(told['reply_tokens'])} tokens"
    return [tokens, "no price set" if told["usd"] is None else f"{told['usd']:,.4g} USD"]


def _gpus(found: Sequence[Row]) -> list[str]:
    return list(_gpu(found))


def _gpu(found: Sequence[Row]) -> Iterator[str]:
    for one in found:
        busy = "?" if one["busy_percent"] is None else f"{one['busy_percent']} %"
        memory = [None if one[name] is None else f"{one[name] / 1024:.1f}" for name in ("used_mib", "total_mib")]
        yield f"GPU {one['index']} {one['name']} {busy} busy, {memory[0] or '?'} of {memory[1] or '?'} GiB"


def _big(number: float) -> str:
    for size, letter in BIG:
        if number >= size:
            return f"{number / (1e3 if letter == 'K' else size):,.1f}{letter}"
    return f"{number:,.0f}"


def _time(seconds: float) -> str:
    """Minutes and seconds, or hours before them, or days."""
    whole = timedelta(seconds=round(seconds))
    hours, rest = divmod(whole.seconds, 3600)
    clock = f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours or whole.days else f"{rest // 60}:{rest % 60:02}"
    return f"{whole.days} d {clock}" if whole.days else clock
