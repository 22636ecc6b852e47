"""The key is sent, and is nowhere else: an endpoint echoes it in errors and replies, and all that a run leaves is searched."""

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from star1 import calls
from star1.records import write_rows
from tests.conftest import ROOT
from tests.faultserver import Running, running
from tests.loopback import write_pack
from tests.misbehaviour import text_fault

KEY = 'sk-proj-Zq7/9f\\"x+T0pS3cr3t-wXyZ4242'
ECHOES = (
    "http_500",
    "not_utf8_key",
    "error_200_choices",
    text_fault("Your key is {key}, is it not?"),
    text_fault('["{key}"]'),
    text_fault("<think>{key}</think>"),
)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server") / "asked.log", "--wait", "0.02", "0.06") as found:
        yield found


def stage(served: Running, folder: Path, marks: Sequence[str], sampling: str = "{}") -> tuple[int, str]:
    """The categorize stage as users start it; its status and all it says. Its command line is looked at on the way."""
    folder.mkdir(exist_ok=True)
    if not (folder / "pack").exists():
        write_pack(folder / "pack")
    write_rows(folder / "in.jsonl", ({"id": str(n), "question": f"What? [[{m}]]"} for n, m in enumerate(marks)))
    endpoint = {"provider": "openai", "model": "m", "label": "m", "base_url": served.url, "key": "SOME_KEY"}
    endpoint |= {"slots": "4", "retries": "0", "max_wait_s": "1"}
    flags = ["--input", "in.jsonl", "--output", "out.jsonl", "--quarantine", "set_aside.jsonl", "--policy", "pack"]
    flags += ["--replies", "replies.jsonl", "--endpoint", json.dumps(endpoint), "--coverage", "0.9"]
    command = [sys.executable, "-X", "dev", "-m", "scripts.categorize", *flags, "--sampling", sampling]
    variables = {**os.environ, "SOME_KEY": KEY, "PYTHONPATH": str(ROOT), "OPENAI_LOG": "debug"}
    # With the client's own log at its most talkative, and asyncio's.
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        seen = Path(f"/proc/{process.pid}/cmdline")
        time.sleep(0.3)
        told = seen.read_bytes().decode() if seen.exists() else ""
        told += process.stdout.read()
    return process.returncode, told


def assert_clean(folder: Path, told: str) -> None:
    """No file and no line holds the key, whole or in the part that providers show, in any spelling of JSON."""
    texts = [told, *(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())]
    spellings = {KEY, json.dumps(KEY)[1:-1], KEY.replace("/", "\\/"), repr(KEY)[1:-1], KEY[:7], f"***{KEY[-4:]}"}
    for text in texts:
        assert not [one for one in spellings if one in text]


def test_asyncio_tells_nothing_of_slow_steps() -> None:
    """On a busy machine its debug mode told which tasks were slow, with their errors: an endpoint's words, and the key."""

    async def limit() -> float:
        with calls._signals(lambda _: None):
            return asyncio.get_running_loop().slow_callback_duration

    assert asyncio.run(limit(), debug=True) == math.inf


def test_no_key_is_left_where_an_endpoint_echoes_it(endpoint: Running, tmp_path: Path) -> None:
    """In errors, broken bodies and replies that cannot be read; the run fails for its coverage."""
    marks = [f"echo-{n} {name} ever" for n, name in enumerate(ECHOES)]
    status, told = stage(endpoint, tmp_path, ["fine-1", *marks, "fine-2"])
    assert status == 1
    assert "2 of 8 rows have a readable reply" in told
    assert "your key" not in told.lower()
    replies = (tmp_path / "replies.jsonl").read_text()
    assert "oops [key]" in replies
    assert "Your key is [key], is it not?" in replies
    assert len((tmp_path / "set_aside.jsonl").read_text().splitlines()) == len(ECHOES)
    assert list((tmp_path / ".work/quarantine").iterdir())
    assert_clean(tmp_path, told)


@pytest.mark.parametrize(
    "name", ["wrong_key_401", "no_access_403", "quota_429", "no_balance_402", "unknown_model_404", "error_200_key"]
)
def test_no_key_is_left_where_it_is_refused(name: str, endpoint: Running, tmp_path: Path) -> None:
    """One error line, no traceback: also of requests that nobody waits for any more."""
    marks = [f"refused-{name}-{n} {name} ever" for n in range(8)]
    status, told = stage(endpoint, tmp_path, marks)
    assert status == 1
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in told
    assert "never retrieved" not in told
    assert ("SOME_KEY" in lines[0]) == (name != "unknown_model_404")
    assert_clean(tmp_path, told)


def test_no_key_is_left_by_a_key_that_cannot_be_sent(tmp_path: Path) -> None:
    """Pasted with a line end within."""
    write_pack(tmp_path / "pack")
    write_rows(tmp_path / "in.jsonl", [{"id": "0", "question": "What?"}])
    endpoint = {
        "provider": "openai",
        "model": "m",
        "label": "m",
        "base_url": "http://127.0.0.1:9/v1",
        "key": "SOME_KEY",
    }
    flags = ["--input", "in.jsonl", "--output", "out.jsonl", "--quarantine", "set_aside.jsonl", "--policy", "pack"]
    flags += ["--replies", "replies.jsonl", "--endpoint", json.dumps(endpoint), "--coverage", "0.9"]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.categorize", *flags],
        cwd=tmp_path,
        env={**os.environ, "SOME_KEY": f"{KEY}\n{KEY}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "SOME_KEY" in done.stderr
    assert_clean(tmp_path, done.stdout + done.stderr)
