"""`vllm run-batch` on files, with a command of that name in place of vLLM: here, elsewhere, and cut off on the way."""

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1 import doctor
from star1.calls import Calls, Outcome
from star1.deliberation import categorize
from star1.endpoints import Endpoint, Sampling
from star1.errors import CallError
from star1.params import load
from star1.policies import Pack, load_pack
from star1.records import read_rows
from star1.replies import Store
from tests.conftest import ROOT
from tests.loopback import completion, server, write_pack
from tests.test_batches import GOOD, JOURNAL, REPLIES, ROWS, by_row, reasons, remote

# What `vllm run-batch` does, as far as files go. PLAN says what becomes of it: status, and lines before it ends.
FAKE = """#!{python} -S
import json, os, sys
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert sys.argv[1] == "run-batch" and words["--model"] == "m", sys.argv
plans = {folder!r} + "/plans"
runs = {folder!r} + "/runs"
open(runs, "a").write(json.dumps(sys.argv[1:]) + "\\n")
plan = json.load(open(plans)) if os.path.exists(plans) else []
status, lines = plan.pop(0) if plan else (0, None)
json.dump(plan, open(plans, "w"))
replies = json.load(open({folder!r} + "/replies"))
done = open(words["-i"]).read().splitlines()[:lines]
with open(words["-o"], "w") as out:
    for line in map(json.loads, done):
        question = line["body"]["messages"][0]["content"]
        asked = [one for row, one in replies.items() if "question " + row + "." in question]
        left = asked[0] if asked and len(line["body"]["messages"]) == 1 else []
        code, body, error = left or [200, replies["good"], None]
        response = dict(status_code=code, request_id="r", body=body)
        out.write(json.dumps(dict(id="v", custom_id=line["custom_id"], response=response, error=error)) + "\\n")
print("an engine was here")
print("it ran out of memory" if status else "done", file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEST_KEY", "sk-secret-0123456789abcdef")
    monkeypatch.setattr("star1.batches.BatchClient.poll_s", 0.02)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A small pack."""
    return load_pack(write_pack(tmp_path / "pack"))


def command(replies: dict[str, Any] | None = None, plans: list[tuple[int, int]] | None = None) -> Path:
    """Put the command on the path; `replies` of rows, and (status, lines) of its runs, the good ones left out."""
    Path("replies").write_text(json.dumps({"good": GOOD, **(replies or {})}))
    Path("plans").write_text(json.dumps(plans or []))
    path = Path("bin/vllm")
    path.write_text(FAKE.format(python=sys.executable, folder=str(Path.cwd())))
    path.chmod(0o755)
    return path


def ask(pack: Pack, **batch: Any) -> Outcome:
    """The categorize stage by files for vLLM."""
    endpoint = Endpoint(provider="openai", model="m", label="m", batch={"kind": "vllm", **batch}, retries=1)
    return categorize(ROWS, pack, Calls(endpoint, Sampling(), REPLIES))


def runs() -> int:
    """How often the command ran."""
    return len(read_rows_of("runs"))


def read_rows_of(path: str) -> list[Any]:
    """JSON Lines of any kind."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []


def test_files_for_vllm_give_the_rows_of_a_stage_that_asks_one_by_one(pack: Pack) -> None:
    """Repair turns in a run of their own; errors in vLLM's form; the command's words in a log; nothing twice."""
    bad = completion("neither")
    error = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
    command({"3": [200, bad, None], "5": [400, None, error], "6": [400, None, "an engine's words"]})
    outcome = ask(pack, arguments=["--max-model-len", "4096"])
    assert reasons(outcome) == {"5": "bad_request", "6": "bad_request"}
    assert {row["detail"] for row in outcome.quarantined} == {"status 400: too long", "status 400: an engine's words"}
    with server(by_row({"3": []})) as served:
        online = categorize(ROWS, pack, Calls(remote(served.url), Sampling(), Path("online.jsonl")))
    assert outcome.kept == [row for row in online.kept if row["id"] not in ("5", "6")]
    assert [words[-2:] for words in read_rows_of("runs")] == [["--max-model-len", "4096"]] * 2
    assert all("an engine was here" in path.read_text() for path in Path("logs/batches").iterdir())
    names = [row["name"] for row in read_rows(JOURNAL) if row["event"] == "end"]
    assert {row.get("batch") for row in read_rows(REPLIES) if row["status"] == "ok"} == set(names)
    command()
    again = ask(pack)
    assert (again.asked, again.quarantined, runs()) == (0, outcome.quarantined, 2)
    with Store(REPLIES) as store:
        for row in read_rows(REPLIES):
            if row["status"] == "given up":
                store.reopen(row["key"], {"item": row["item"]})
    assert (len(ask(pack).kept), runs()) == (20, 3)
    assert (ask(pack).asked, runs()) == (0, 3)


def test_without_vllm_the_error_names_the_command_and_its_output_is_collected(pack: Pack) -> None:
    """The file is written, the command runs elsewhere, and the next start collects what it wrote; without vLLM here."""
    with pytest.raises(CallError, match="no command vllm on this machine; 20 requests are in") as error:
        ask(pack)
    told = re.search("run `(.+)` where vLLM is", str(error.value))
    assert told is not None
    with pytest.raises(CallError) as again:
        ask(pack)
    assert str(again.value) == str(error.value)
    elsewhere = command()
    words = shlex.split(told[1])
    subprocess.run([elsewhere, *words[1:]], check=True)
    elsewhere.unlink()
    outcome = ask(pack)
    assert (len(outcome.kept), outcome.asked, runs()) == (20, 0, 1)


def test_output_that_is_not_whole_is_kept_and_the_rest_goes_into_a_new_file(pack: Pack) -> None:
    """Cut off elsewhere: its lines count; once the file of requests is gone, the others are written to a new one."""
    with pytest.raises(CallError, match="no command vllm"):
        ask(pack)
    (file,) = Path(".work/batches").glob("*.jsonl")
    elsewhere = command(plans=[(1, 12)])
    output = file.with_suffix(".out.jsonl")
    subprocess.run([elsewhere, "run-batch", "-i", file, "-o", output, "--model", "m"], check=False)
    with open(output, "ab") as out:
        out.write(b'{"id": "v", "custom_id": "' + b"a" * 30)
    elsewhere.unlink()
    for _ in range(2):
        with pytest.raises(CallError, match=r"has 12 of 20 replies, which are kept; .*remove .*: the others"):
            ask(pack)
        assert len(read_rows(REPLIES)) == 12
    file.unlink()
    with pytest.raises(CallError, match="no command vllm on this machine; 8 requests are in"):
        ask(pack)
    command()
    assert (len(ask(pack).kept), len(read_rows(REPLIES))) == (20, 20)


def test_a_vllm_that_ends_badly_is_told_with_its_last_words(pack: Pack) -> None:
    """What it wrote is kept, and the next start asks it the rest."""
    command(plans=[(3, 12)])
    with pytest.raises(CallError, match=r"ended with status 3: .*Hint: look into logs/batches/categorize-\w+\.log"):
        ask(pack)
    assert len(read_rows(REPLIES)) == 12
    assert len(ask(pack).kept) == 20
    counts = [len(Path(words[2]).read_bytes().splitlines()) for words in read_rows_of("runs")]
    assert counts == [20, 8]


def test_the_doctor_asks_nobody_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no server: what matters is whether the command is here."""
    monkeypatch.setattr("star1.doctor.endpoints.connect", None)
    values = load(ROOT / "params.yaml", ROOT)
    values["llm"]["endpoints"]["files"] = {"provider": "openai", "model": "m", "label": "m", "batch": {"kind": "vllm"}}

    def told() -> str:
        (seen,) = doctor.examine(doctor.About(values, names=["files"])).checked
        return seen.found.removeprefix("endpoint files (no role): ")

    assert told() == "files for vllm run-batch, model 'm'; no command vllm here: its files are for another machine"
    command()
    assert told() == "files for vllm run-batch, model 'm'; the command is here"


def test_lines_that_vllm_leaves_out_are_asked_again(pack: Pack) -> None:
    """It ended well and said nothing of some: a further attempt, and then quarantine."""
    command(plans=[(0, 15), (0, 3), (0, 0)])
    outcome = ask(pack)
    assert set(reasons(outcome).values()) == {"missing"}
    assert (len(outcome.kept), runs()) == (18, 2)


def test_a_vllm_that_still_works_for_a_run_that_was_killed_is_waited_for(pack: Pack) -> None:
    """Two on one GPU would both fail; the lock that it holds tells."""
    with pytest.raises(CallError, match="no command vllm"):
        ask(pack)
    (file,) = Path(".work/batches").glob("*.jsonl")
    elsewhere = command()
    lock = os.open(
        next(Path(".work/batches").glob(".*.lock"), file.with_name(f".{file.stem}.lock")), os.O_RDWR | os.O_CREAT
    )
    fcntl.flock(lock, fcntl.LOCK_EX)

    def work() -> None:
        time.sleep(0.5)
        output = file.with_suffix(".out.jsonl")
        subprocess.run([elsewhere, "run-batch", "-i", file, "-o", output, "--model", "m"], check=True)
        os.close(lock)

    working = threading.Thread(target=work)
    working.start()
    outcome = ask(pack)
    working.join()
    assert (len(outcome.kept), runs()) == (20, 1)


def test_a_stopped_run_stops_vllm(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep the GPU; what it wrote counts at the next start."""
    path = command()
    path.write_text(f"#!/bin/sh\necho $$ > pid\nexec {sys.executable} -S -c 'import time; time.sleep(60)'\n")

    def broken(_self: object, _sent: object) -> None:
        if Path("pid").exists() and Path("pid").read_text():
            raise CallError("here", "enough", "nothing")

    monkeypatch.setattr("star1.batch_vllm.VllmClient._tell", broken)
    started = time.monotonic()
    with pytest.raises(CallError, match="enough"):
        ask(pack)
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)
    assert orjson.loads(JOURNAL.read_bytes().splitlines()[-1])["event"] == "begin"
