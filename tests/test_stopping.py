"""A stage as its own process that is told to stop: nothing that was asked is lost, and one line says so."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from star1.records import read_rows, write_rows
from tests.loopback import Answer, Served, completion, server, write_pack

ROWS = 40
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@contextmanager
def stage(served: Served, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The categorize stage, four requests at a time."""
    if not (folder / "pack").exists():
        write_pack(folder / "pack")
        write_rows(folder / "in.jsonl", ({"id": str(n), "question": f"question {n}"} for n in range(ROWS)))
    endpoint = {"provider": "openai", "model": "m", "label": "m", "base_url": served.url, "slots": 4, "timeout_s": 60}
    paths = {"input": "in", "output": "out", "quarantine": "set_aside", "replies": "replies"}
    flags = [word for name, file in paths.items() for word in (f"--{name}", str(folder / f"{file}.jsonl"))]
    flags += ["--policy", str(folder / "pack"), "--endpoint", json.dumps(endpoint), "--coverage", "0.9"]
    command = [sys.executable, "-m", "scripts.categorize", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(served: Served, requests: int) -> None:
    """Until so many requests have come."""
    end = time.monotonic() + 60
    while len(served.requests) < requests:
        assert time.monotonic() < end, "the stage sends nothing"
        time.sleep(0.01)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopped_stage_keeps_what_is_on_its_way_and_goes_on_later(number: signal.Signals, tmp_path: Path) -> None:
    """Each request that was sent is in the store, the output is not there, and the next run asks only the others."""
    with server(lambda _body, _place: Answer(completion('["Self-Harm"]'), wait_s=0.3)) as served:
        with stage(served, tmp_path) as process:
            wait_for(served, 9)
            process.send_signal(number)
            _, told = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert told.splitlines() == [
            f"error: categorize: stopped by {number.name}; expected to go on to the last row."
            " Hint: start it again: what was answered is in the store, and is not asked again"
        ]
        sent = len(served.requests)
        assert sent <= 16
        assert [row["status"] for row in read_rows(tmp_path / "replies.jsonl")] == ["ok"] * sent
        assert not (tmp_path / "out.jsonl").exists()
        with stage(served, tmp_path) as process:
            assert process.wait(timeout=60) == 0
        assert len(served.requests) == ROWS
    assert len(read_rows(tmp_path / "out.jsonl")) == ROWS


def test_a_second_signal_gives_up_what_is_on_its_way(tmp_path: Path) -> None:
    """Replies that take a minute are not waited for by someone who is in a hurry."""
    with server(lambda _body, _place: Answer(completion('["Self-Harm"]'), wait_s=55)) as served:
        with stage(served, tmp_path) as process:
            wait_for(served, 4)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            assert process.stderr.readline().startswith("waiting for 4 replies on their way, to keep them")
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=30)
        assert time.monotonic() - started < 20
    assert process.returncode == 128 + signal.SIGTERM
    assert told.startswith("error: categorize: stopped by SIGTERM")
    assert "Traceback" not in told
    assert read_rows(tmp_path / "replies.jsonl") == []


def test_a_stage_whose_log_is_gone_still_keeps_what_is_on_its_way(tmp_path: Path) -> None:
    """Ctrl-C on a terminal ends `tee` as well: telling about the wait must not end it."""
    with server(lambda _body, _place: Answer(completion('["Self-Harm"]'), wait_s=4)) as served:
        with stage(served, tmp_path) as process:
            wait_for(served, 4)
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            process.stderr.close()
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(timeout=30) != 0
        assert len(served.requests) == 4
    assert [row["status"] for row in read_rows(tmp_path / "replies.jsonl")] == ["ok"] * 4
