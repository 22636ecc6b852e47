"""`star1 watch`: what it says is what the server counted, a dead job is called dead, and nothing of it spoils a terminal."""

import dataclasses
import errno
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks import stages
from star1 import gpus, progress, status, watch, watching
from star1.prices import Price
from star1.records import Row, read_json, write_json, write_rows
from tests import loopback
from tests.conftest import ROOT

SLOTS = 6


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, as far as a job's state goes."""
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(status, "FOLDER", Path(".work/status"))
    return tmp_path


def until(found: Callable[[], Any], seconds: float = 40.0) -> Any:
    """What a function gives, as soon as that is something."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "nothing within the time"
        time.sleep(0.1)
    return value


def job(name: str, now: float | None = None) -> Row:
    told = watching.snapshot(Path(), now)
    return next(one for one in told["jobs"] if one["job"] == name)


@pytest.fixture
def stuck(project: Path) -> Iterator[tuple[subprocess.Popen[str], loopback.Served]]:
    """The stage categorize at a server that refuses 3 requests, answers 40, and then none within an hour."""

    def respond(_: dict[str, Any], place: int) -> loopback.Answer:
        if place < 3:
            return loopback.Answer({"error": {"message": "try again"}}, 500)
        return loopback.Answer(loopback.completion('["Other"]'), wait_s=0 if place < 43 else 3600)

    write_rows("collection.jsonl", stages.rows(200, "watch"))
    with loopback.server(respond) as served:
        asked = stages.endpoint(served.url, SLOTS).model_copy(
            update={"price": Price(input=1_000_000, output=2_000_000)}
        )
        process = stages.start("categorize", project, asked)
        try:
            until(lambda: len(served.requests) == 43 + SLOTS)
            time.sleep(2.5)  # a beat, and what a busy machine adds
            yield process, served
        finally:
            process.kill()
            process.communicate()


def test_numbers_are_those_that_the_server_counted(stuck: tuple[subprocess.Popen[str], loopback.Served]) -> None:
    """40 answers of 1 + 1 tokens at 1 + 2 USD, 3 refusals, and as many calls in flight as there are slots."""
    _, served = stuck
    one = job("categorize")
    assert (one["state"], one["done"], one["total"], one["unit"]) == ("running", 40, 200, "rows")
    calls = one["calls"]
    assert calls["failed_attempts"] == {"server_error": 3}
    assert calls["asked"] + 3 == len(served.requests)
    assert calls["in_flight"] == len(served.requests) - 43 == served.most_at_once == SLOTS
    assert (calls["replies"], calls["prompt_tokens"], calls["reply_tokens"], calls["usd"]) == (40, 40, 40, 120.0)
    assert watching.snapshot()["spent"] == {"prompt_tokens": 40, "reply_tokens": 40, "usd": 120.0}
    told = "\n".join(watch.lines(watching.snapshot(), 100))
    for words in (
        "40 of 200 (20 %) rows",
        "6 calls in flight",
        "40 + 40 tokens",
        "120 USD",
        "failed attempts: server_error 3",
    ):
        assert words in told
    content = Path(".work/status/categorize.json").read_bytes()
    assert len(content) < 1000  # counts, and no texts
    assert b"watch-" not in content
    assert served.url.encode() not in content


def test_a_killed_job_is_called_dead(stuck: tuple[subprocess.Popen[str], loopback.Served]) -> None:
    process, _ = stuck
    process.kill()
    process.wait()
    at = time.time()
    assert job("categorize", at)["state"] in ("silent", "dead")
    one = job("categorize", at + watching.GONE_HERE_S + 1)
    assert (one["state"], one["done"]) == ("dead", 40)
    told = "\n".join(watch.lines(watching.snapshot(Path(), at + 60), 100))
    assert f"DEAD: process {process.pid} on {socket.gethostname()} was last heard of" in told
    assert "calls in flight" not in told


def test_a_job_that_was_told_to_stop_says_so(stuck: tuple[subprocess.Popen[str], loopback.Served]) -> None:
    process, _ = stuck
    for _ in range(2):  # the second signal gives up the calls on their way
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
    process.communicate(timeout=30)
    one = job("categorize")
    assert (one["state"], one["done"]) == ("stopped", 40)
    assert "stopped before its end" in "\n".join(watch.lines(watching.snapshot(), 100))


# ---------------------------------------------------------------- states


def test_a_job_on_another_machine_is_known_by_its_silence(project: Path) -> None:
    """There is no process to look for: a file that is not touched tells."""
    told = progress.Progress("far", 10)
    told.close()
    path = project / ".work/status/far.json"
    path.write_bytes(
        orjson.dumps(orjson.loads(path.read_bytes()) | {"ended": None, "host": "node7", "slurm_job": "123"})
    )
    now = path.stat().st_mtime
    assert job("far", now + watching.GONE_ELSEWHERE_S - 1)["state"] == "running"
    assert job("far", now + watching.GONE_ELSEWHERE_S + 1)["state"] == "dead"
    assert "on node7, Slurm job 123 was last heard of" in "\n".join(
        watch.lines(watching.snapshot(project, now + 100), 120)
    )


def test_a_stopped_process_is_not_said_to_be_gone(project: Path) -> None:
    """After Ctrl-Z it is silent as a dead one, and started beside it the run would be there twice."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        process.send_signal(signal.SIGSTOP)
        progress.Progress("held", 10).close()
        path = project / ".work/status/held.json"
        path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"ended": None, "pid": process.pid}))
        at = path.stat().st_mtime + watching.GONE_ELSEWHERE_S + 1
        assert job("held", at)["state"] == "dead"
        told = "\n".join(watch.lines(watching.snapshot(project, at), 200))
        assert (
            f"process {process.pid} on {socket.gethostname()} was last heard of 0:46 ago; if it is gone, start" in told
        )
    finally:
        process.kill()
        process.wait()


def test_a_job_that_waits_lives(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing moves, but the file is touched; a job that ended stays as it was."""
    monkeypatch.setattr(status, "BEAT_S", 0.05)
    monkeypatch.setattr(status, "TOUCH_S", 0.1)
    told = progress.Progress("waits", 10)
    path = project / ".work/status/waits.json"
    first = path.stat().st_mtime_ns
    until(lambda: path.stat().st_mtime_ns > first, 5)
    told.add(10)
    told.close()
    ended = path.read_bytes()
    assert orjson.loads(ended)["done"] == 10
    time.sleep(0.3)
    assert path.read_bytes() == ended
    assert job("waits")["state"] == "done"


def test_states_are_never_half_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BEAT_S", 0.001)
    told, end, seen = progress.Progress("fast", 10**9), time.monotonic() + 1, 0

    def add() -> None:
        for _ in range(200_000):
            told.add()

    adding = threading.Thread(target=add)
    adding.start()
    while time.monotonic() < end:
        seen += orjson.loads((project / ".work/status/fast.json").read_bytes())["total"] == 10**9
    adding.join()
    told.close()
    assert seen > 20
    assert [one.name for one in (project / ".work/status").iterdir()] == ["fast.json"]


def test_two_processes_of_one_name_have_a_file_each(project: Path) -> None:
    told = progress.Progress("twin", 5)
    code = "from star1.progress import Progress; p = Progress('twin', 7); p.close()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    told.close()
    assert sorted(one["total"] for one in watching.jobs(project, time.time())) == [5, 7]


def test_a_full_disk_ends_no_job(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(status, "_write", full)
    told = progress.Progress("full", 10)
    told.add(10)
    told.close()
    assert not (project / ".work/status").exists()


@pytest.mark.parametrize(
    "wrong", [KeyError("sk-secret"), RuntimeError("changed size during iteration"), {"done": {1, 2}}]
)
def test_a_job_whose_counting_fails_goes_on_and_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, wrong: Exception | Row
) -> None:
    monkeypatch.setattr(status, "BEAT_S", 0.05)
    facts = {"stage": "s", "unit": "rows", "total": 9, "first": 0}
    faults = [wrong]

    def look() -> Row:
        if not isinstance(fault := faults[0], Exception):
            return dict(fault)
        raise fault

    made = status.Status("s", look, facts)
    assert (job("s")["done"], job("s")["state"]) == (0, "running")
    faults[0] = {"done": 4}
    until(lambda: job("s")["done"] == 4 and "fault" not in job("s"))
    faults[0] = wrong
    until(lambda: "fault" in job("s"))
    kind = type(wrong).__name__ if isinstance(wrong, Exception) else "TypeError"
    assert (job("s")["done"], job("s")["fault"]) == (4, kind)  # the last that was known
    text = "\n".join(watch.lines(watching.snapshot(), 200))
    assert f"it cannot count any more ({kind})" in text
    assert "secret" not in text + made.path.read_text()
    made.close()
    assert job("s")["state"] == "stopped"


def test_a_job_starts_where_no_thread_can(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    made = status.Status("s", lambda: {"done": 1}, {"stage": "s", "unit": "rows", "total": 1})
    made.close()
    assert job("s")["state"] == "done"


def test_files_of_others_among_the_states_are_passed_over(project: Path) -> None:
    status.FOLDER.mkdir(parents=True)
    for name, content in {
        "list": "[]",
        "number": "3",
        "other": '{"a": 1}',
        "half": '{"job"',
        "s": '{"ended": null}',
    }.items():
        (status.FOLDER / f"{name}.json").write_text(content)
    (status.FOLDER / "folder.json").mkdir()
    made = status.Status("s", lambda: {"done": 1}, {"stage": "s", "unit": "rows", "total": 2})
    assert [one["job"] for one in watching.snapshot()["jobs"]] == ["s"]
    made.close()


def test_nothing_is_written_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    progress.Progress("nowhere", 1).close()
    assert not list(tmp_path.iterdir())


def test_rates_are_of_late(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done before the start, or more than a minute ago, says nothing about now."""
    done, clock = {"done": 1000}, [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    one = status.Status("rate", lambda: done, {"total": 2000, "stage": "rate", "unit": "rows", "first": 1000})
    for _ in range(200):
        clock[0], done["done"] = clock[0] + 1, done["done"] + (1 if clock[0] > 1120 else 3)
        one._beat()
    one.close()
    assert orjson.loads((project / ".work/status/rate.json").read_bytes())["rate"] == pytest.approx(1.0, abs=0.1)


def test_training_tells_its_updates(project: Path) -> None:
    """A micro model is fine-tuned by the stage's own script: what is told at the end is what its metrics have."""
    pytest.importorskip("torch")
    from tests.micro import ROWS, checkpoint, small_settings

    checkpoint(project / "micro")
    write_rows("rows.jsonl", ROWS)
    settings = dataclasses.asdict(small_settings())
    choices = {"base": "micro", "data": ["rows"], "think": settings.pop("think"), "seed": settings.pop("seed")}
    flags = ["--run", "run", "--base", "micro/manifest.json", "--data", "rows.jsonl"]
    flags += ["--settings", orjson.dumps(settings).decode(), "--choices", orjson.dumps(choices).decode()]
    flags += ["--output", "models/run/manifest.json", "--metrics", "metrics/run.json"]
    command = [sys.executable, "-m", "scripts.finetune", *flags]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    one, history = job("finetune run"), read_json("metrics/run.json")["history"]
    assert (one["state"], one["unit"], one["gpus"]) == ("done", "tokens", gpus.use())
    assert one["training"] == {"update": len(history), "updates": len(history), "loss": history[-1]["loss"]}


# ---------------------------------------------------------------- the run

BEGUN = """[Sat Nov 21 14:24:26 2026]
rule judge:
    input: x
    jobid: {number}
    wildcards: model={model}
"""
LOG = """Building DAG of jobs...
Job stats:
job           count
----------  -------
categorize        1
judge             3
all               1
total             5

Select jobs to execute...
Execute 2 jobs...
[Sat Nov 21 14:24:27 2026]
Finished jobid: 12 (Rule: categorize)
1 of 5 steps (20%) done
Error in rule judge:
    jobid: 3
"""


def test_the_run_is_read_off_snakemakes_log(project: Path) -> None:
    """The latest log with a plan: checks write some without."""
    logs = project / ".snakemake/log"
    logs.mkdir(parents=True)
    (project / ".snakemake/locks").mkdir()
    (logs / "2026-11-21T142423.1.snakemake.log").write_text(LOG)
    (logs / "2026-11-21T152423.1.snakemake.log").write_text("Building DAG of jobs...\nCongratulations\n")
    found = watching.snapshot()["run"]
    assert (found["done"], found["total"], found["active"], found["failed"]) == (1, 5, 0, {"judge": 1})
    assert found["rules"]["judge"] == {"done": 0, "total": 3}
    assert found["state"] == "not running"
    (project / ".snakemake/locks/0.input.lock").touch()
    assert watching.snapshot()["run"]["state"] == "going"
    (logs / "2026-11-21T142423.1.snakemake.log").write_text(LOG + "Complete log(s): x\n")
    assert watching.snapshot()["run"]["state"] == "over"
    (logs / "2026-11-21T162423.1.snakemake.log").write_text("Select jobs to execute...\nExecute 1 jobs...\n")
    assert "a quiet run" in "\n".join(watch.lines(watching.snapshot(), 100))


def test_running_jobs_are_those_that_began_and_did_not_end(project: Path) -> None:
    """The third is tried again after it failed."""
    begun = {number: BEGUN.format(number=number, model=f"m{number}") for number in (1, 2, 3)}
    text = LOG.replace("Execute 2 jobs...\n", "Execute 3 jobs...\n" + "".join(begun.values()), 1)
    logs = project / ".snakemake/log"
    logs.mkdir(parents=True)
    path = logs / "2026-11-21T142423.1.snakemake.log"
    path.write_text(text + "Finished jobid: 1 (Rule: judge)\n")
    assert watching.snapshot()["run"]["running"] == ["judge (model=m2)"]
    path.write_text(text + begun[3])
    assert watching.snapshot()["run"]["running"] == [f"judge (model=m{number})" for number in (1, 2, 3)]


def test_a_real_log_of_snakemake_is_understood(project: Path) -> None:
    """Two rules, run by Snakemake itself: its log has the form that is read."""
    (project / "Snakefile").write_text(
        "rule all:\n    input: 'b'\nrule a:\n    output: 'a'\n    shell: 'touch a'\n"
        "rule b:\n    input: 'a'\n    output: 'b'\n    shell: 'touch b'\n"
    )
    subprocess.run([sys.executable, "-m", "snakemake", "-c1"], check=True, capture_output=True)
    found = watching.snapshot()["run"]
    assert (found["done"], found["total"], found["state"]) == (3, 3, "over")
    assert found["rules"] == {name: {"done": 1, "total": 1} for name in ("a", "b", "all")}
    (project / "b").unlink()
    (project / "Snakefile").write_text((project / "Snakefile").read_text().replace("touch b", "false"))
    subprocess.run([sys.executable, "-m", "snakemake", "-c1"], check=False, capture_output=True)
    found = watching.snapshot()["run"]
    assert (found["failed"], found["state"]) == ({"b": 1}, "over")


def test_money_is_that_of_the_costs(project: Path) -> None:
    one = {"prompt_tokens": 10, "reply_tokens": 2, "usd": 0.5}
    write_json(project / "results/costs/reason.json", one)
    write_json(project / "results/costs/judge-tiny.json", {"a": one, "b": {**one, "usd": None}})
    write_json(project / "results/costs/finetune-star1.json", {"seconds": 1.0, "energy": {"joules": None}})
    assert watching.snapshot()["spent"] == {"prompt_tokens": 30, "reply_tokens": 6, "usd": 1.0}


# ---------------------------------------------------------------- GPUs


def test_gpus_are_those_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_nvml", lambda: None)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, NVIDIA H200, 97, 80000, 143771'\necho '1, NVIDIA H200, [N/A], 5, 143771'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert [one["busy_percent"] for one in gpus.use()] == [97, None]
    assert watch._gpus(gpus.use())[0] == "GPU 0 NVIDIA H200 97 % busy, 78.1 of 140.4 GiB"
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\n")
    assert gpus.use() == []


# ---------------------------------------------------------------- the terminal


def busy(project: Path) -> None:
    """States as they are at worst: long names, all fields."""
    calls: Row = {"asked": 41_000, "answered": 12, "replies": 5, "in_flight": 64, "waiting": 12, "prompt_tokens": 2e9}
    calls |= {
        "reply_tokens": 1e6,
        "usd": 1234.5,
        "failed_attempts": {"rate_limit": 3000, "timeout": 12, "truncated": 1},
    }
    one = {
        "job": "judge-" + "long-name-" * 12,
        "stage": "x",
        "unit": "rows",
        "total": 41_000,
        "first": 0,
        "done": 12_345,
    }
    one |= {"rate": 52.3, "calls": calls, "quarantined": 7, "host": socket.gethostname(), "pid": os.getpid()}
    one |= {"started": time.time(), "ended": None, "training": {"update": 1, "updates": 2, "loss": None}}
    write_json(project / ".work/status/long.json", one)


@pytest.mark.parametrize("width", [1, 10, 20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(project: Path, width: int) -> None:
    busy(project)
    told = watch.lines(watching.snapshot(), width)
    assert max(map(len, told)) <= width
    assert width < 20 or "41,000" in "\n".join(told)


def test_on_a_terminal_it_draws_in_place_and_leaves_it_as_it_was(project: Path) -> None:
    busy(project)
    leader, follower = pty.openpty()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "60", "LINES": "24"}
    command = [sys.executable, "-m", "star1.cli", "watch", "--every", "0.2"]
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=variables, start_new_session=True
    )
    os.close(follower)
    told = b""
    end = time.monotonic() + 30
    while told.count(b"\x1b[H") < 3 and time.monotonic() < end:
        if select.select([leader], [], [], 0.2)[0]:
            told += os.read(leader, 65536)
    process.send_signal(signal.SIGINT)
    while select.select([leader], [], [], 2)[0]:
        try:
            told += os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
    assert process.wait(timeout=20) == 0
    os.close(leader)
    assert told.count(b"\x1b[H") >= 3
    assert told.count(b"\x1b[?1049h") == told.count(b"\x1b[?1049l") == 1
    assert told.index(b"\x1b[?1049l") > told.rindex(b"\x1b[H")
    assert b"Traceback" not in told
    assert b"41,000" in told[told.index(b"\x1b[?1049l") :]  # the last state stays


def test_without_a_terminal_it_is_plain_text_or_json(project: Path) -> None:
    busy(project)
    command, variables = [sys.executable, "-m", "star1.cli", "watch"], {**os.environ, "PYTHONPATH": str(ROOT)}
    once = subprocess.run([*command, "--once"], capture_output=True, text=True, check=True, env=variables)
    assert "\x1b" not in once.stdout
    assert "12,345 of 41,000 (30 %) rows" in once.stdout
    told = subprocess.run([*command, "--once", "--json"], capture_output=True, text=True, check=True, env=variables)
    assert json.loads(told.stdout)["jobs"][0]["calls"]["failed_attempts"]["timeout"] == 12
    process = subprocess.Popen([*command, "--json", "--every", "0.1"], stdout=subprocess.PIPE, text=True, env=variables)
    assert process.stdout is not None
    assert [json.loads(process.stdout.readline())["run"] for _ in range(3)] == [None] * 3
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_an_interval_that_is_none_is_refused(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "star1.cli", "watch", "--every", "0"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "at least 0.1 seconds" in done.stderr
