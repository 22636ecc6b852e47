"""A stage's rows asked for in parts, side by side: nothing twice, one limit of spending, and the bytes of an unsplit run."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from star1 import fills, params, parts
from star1.batch_journal import Journal
from star1.calls import Calls
from star1.deliberation import categorize
from star1.endpoints import Sampling
from star1.errors import InputError, SettingError
from star1.judges import Benchmark, shown
from star1.ledger import verify
from star1.policies import load_pack
from star1.records import read_rows, write_rows
from star1.replies import Reply, Store
from tests.conftest import ROOT
from tests.loopback import Answer, Served, completion, run_script, server, stand_in

ROWS = 60
KEY = "0" * 64
PRICE = {"input": 0.001, "output": 1000.0}


def answer(body: dict[str, Any], _: int) -> Answer:
    """A category, a little later."""
    return Answer(completion('["Self-Harm"]'), wait_s=0.01)


def project(folder: Path, url: str, **changes: Any) -> Path:
    """A project whose classifier is asked at `url`, with rows of which some ask the same."""
    for name in ("policies", "bundled", "presets", "Snakefile"):
        (folder / name).symlink_to(ROOT / name)
    values = params.read_yaml(ROOT / "params.yaml")
    values["llm"]["endpoints"]["stand-in"] = {
        "provider": "openai",
        "model": "m",
        "label": "m",
        "base_url": url,
        "slots": 4,
        **changes,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    rows = [{"id": str(n), "question": f"question {n % 50}", "source": "s"} for n in range(ROWS)]
    write_rows(folder / "data/collection.jsonl", rows)
    return folder


def fill(folder: Path, part: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "star1.cli", "calls", "fill", "categorize", "--part", part]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Run the stage's own script; gives what it wrote."""
    monkeypatch.chdir(folder)
    values = params.read_yaml(folder / "params.yaml")
    endpoint = {"stand-in": values["llm"]["endpoints"]["stand-in"]}
    flags = {"input": "data/collection.jsonl", "output": "out.jsonl", "quarantine": "quarantine.jsonl"}
    flags |= {"replies": "data/replies/categorize.jsonl", "policy": f"policies/{values['policy']['pack']}"}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    words += ["--endpoint", orjson.dumps(endpoint).decode(), "--coverage", "1"]
    run_script("categorize", *words, "--sampling", orjson.dumps(values["categorize"]["sampling"]).decode())
    return [(folder / name).read_bytes() for name in ("out.jsonl", "quarantine.jsonl")]


def questions(served: Served) -> Counter[str]:
    return Counter(body["messages"][-1]["content"] for body in served.requests)


def test_two_parts_at_once_leave_nothing_to_ask_and_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some rows ask the same question: they are of one part, and it is asked once."""
    for name in ("whole", "split"):
        (tmp_path / name).mkdir()
    with server(answer) as served:
        whole = stage(project(tmp_path / "whole", served.url), monkeypatch)
        unsplit = questions(served)
        served.requests.clear()
        split = project(tmp_path / "split", served.url)
        running = [fill(split, part) for part in ("1/2", "2/2")]
        told = [one.communicate(timeout=60) for one in running]
        assert [one.returncode for one in running] == [0, 0], told
        assert questions(served) == unsplit
        assert max(unsplit.values()) == 1
        asked = [int(out.split(" asked")[0].split()[-1]) for out, _ in told]
        assert sum(asked) == len(unsplit) == 50
        assert min(asked) > 10
        served.requests.clear()
        assert stage(split, monkeypatch) == whole
        assert served.requests == []
    replies = split / "data/replies"
    assert [path.name for path in sorted(replies.iterdir())] == ["categorize.jsonl"]
    assert verify("categorize", replies / "categorize.jsonl")[1]


def test_another_split_and_the_stage_before_it_ask_nothing_again(tmp_path: Path) -> None:
    """Parts that are there are found, whatever they are parts of, and so is what the stage itself had asked."""
    with server(answer) as served:
        folder = project(tmp_path, served.url)
        found = params.Params.model_validate(params.load(folder / "params.yaml", folder))
        pack, rows = load_pack(ROOT / "policies/star1"), read_rows(folder / "data/collection.jsonl")
        calls = fills._calls(
            found, "categorize", ["stand-in"], Sampling.model_validate(found.categorize.sampling), (1, 1), folder
        )
        categorize(rows[:10], pack, Calls(calls.endpoint, calls.sampling, calls.whole))
        before = len(served.requests)
        for part in ((1, 2), (2, 3), (1, 1)):
            fills.fill(found, "categorize", part, folder)
        assert before == 10
        assert len(served.requests) == 50
        assert max(questions(served).values()) == 1


def test_the_limit_of_spending_holds_over_all_parts(tmp_path: Path) -> None:
    """One token a reply at 1,000 USD a million, for 50 rows: what one part spent, the next has not."""
    with server(answer) as served:
        folder = project(tmp_path, served.url, price=PRICE, max_usd=0.035, slots=1)
        (first, second) = [fill(folder, part).communicate(timeout=60)[1] for part in ("1/2", "2/2")]
        asked = len(served.requests)
    assert first.count("error:") == 0
    assert "USD are spent, and the next request would pass the limit" in second
    assert 25 <= asked <= 35


def test_a_part_that_is_being_filled_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "reason.jsonl"
    with Store(parts.part_file(path, 1, 2)), pytest.raises(InputError, match="another process is writing"):
        Calls(stand_in(), Sampling(), path).store()
    Calls(stand_in(), Sampling(), path).store().close()
    assert [one.name for one in tmp_path.iterdir()] == ["reason.jsonl"]


def test_a_part_that_was_half_taken_over_is_taken_once(tmp_path: Path) -> None:
    """Killed between the copy and the end of the part: what was paid would count twice."""
    path, keys = tmp_path / "reason.jsonl", [f"{number:064x}" for number in range(3)]
    with Store(parts.part_file(path, 1, 2)) as part:
        for key in keys:
            part.keep({"key": key}, Reply("text"))
    with Store(path) as store:
        for line in parts.part_file(path, 1, 2).read_bytes().splitlines(keepends=True)[:2]:
            store.take(line)
        assert parts.absorb(store) == 1
        assert [store.get(key) for key in keys] == [Reply("text")] * 3
    assert len(path.read_bytes().splitlines()) == 3
    assert parts.parts_of(path) == []


def test_no_part_is_filled_while_batches_of_the_stage_are_on_their_way(tmp_path: Path) -> None:
    """Rows in a batch that the stage sent have no reply yet: a part asked for them, and they were paid for twice."""
    with server(answer) as served:
        folder = project(tmp_path, served.url)
        found = params.Params.model_validate(params.load(folder / "params.yaml", folder))
        store = folder / "data/replies/categorize.jsonl"
        Store(store).close()
        journal = Journal.beside(store)
        sent = journal.begin("one", {KEY: ("1", "categorize", 0)})
        with pytest.raises(
            InputError, match=r"categorize\.jsonl: batches of it are on their way.*running the stage collects"
        ):
            fills.fill(found, "categorize", (1, 2), folder)
        assert served.requests == []
        journal.end(sent, "completed")
        journal.close()
        fills.fill(found, "categorize", (1, 2), folder)
        assert served.requests
    assert parts.part_file(store, 1, 2).exists()


def test_a_part_whose_batches_are_on_their_way_is_not_taken(tmp_path: Path) -> None:
    """Only its journal knows them: taken without it, their replies would be paid for and asked for again."""
    path = tmp_path / "reason.jsonl"
    part = parts.part_file(path, 1, 2)
    with Store(part) as store:
        store.keep({"key": KEY}, Reply("text"))
    journal = Journal.beside(part)
    sent = journal.begin("one", {KEY: ("1", "reason", 0)})
    with pytest.raises(InputError, match=r"part-1-of-2.*batches of it are on their way.*`star1 calls fill`"):
        Calls(stand_in(), Sampling(), path).store()
    assert part.exists()
    assert path.read_bytes() == b""
    journal.end(sent, "completed")
    journal.close()
    with Calls(stand_in(), Sampling(), path).store() as store:
        assert store.get(KEY) == Reply("text")
    assert [one.name for one in tmp_path.iterdir()] == ["reason.jsonl"]


def test_a_part_and_a_writer_to_the_whole_store_refuse_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is refused before it zips what the part reads; two parts are not."""
    monkeypatch.setattr("star1.replies.SEGMENT_BYTES", 1)
    path = tmp_path / "reason.jsonl"
    first, second = (parts.part_file(path, part, 2) for part in (1, 2))
    with Store(path) as store:
        store.give_up({"key": KEY}, "no reply", "cut off", "")
        with pytest.raises(InputError, match=r"another process is writing .*process [0-9]+ on "):
            parts.PartStore(first, store=path)
    assert not first.exists()
    with parts.PartStore(first, store=path) as part, parts.PartStore(second, store=path):
        with pytest.raises(InputError, match="another process is writing"):
            Store(path)
        assert part.given_up(KEY) == ("no reply", "cut off", "")
    Store(path).close()
    assert (tmp_path / "reason.jsonl.001.gz").exists()


def test_a_part_locks_the_file_that_a_writer_to_the_whole_store_would(tmp_path: Path) -> None:
    """A link into DVC's cache becomes a file of its own first, once for all parts."""
    path = tmp_path / "reason.jsonl"
    (tmp_path / "cached").write_bytes(b"")
    os.link(tmp_path / "cached", path)
    with parts.PartStore(parts.part_file(path, 1, 2), store=path):
        inode = path.stat().st_ino
        with parts.PartStore(parts.part_file(path, 2, 2), store=path):
            assert path.stat().st_ino == inode
        with pytest.raises(InputError, match="another process is writing"):
            Store(path)


def test_where_there_are_no_locks_a_part_sees_the_owner_of_the_whole_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = tmp_path / "reason.jsonl"
    owner = {"host": socket.gethostname(), "pid": os.getppid()}
    (tmp_path / ".reason.jsonl.owner").write_text(json.dumps(owner))
    with pytest.raises(InputError, match=f"process {os.getppid()}"):
        parts.PartStore(parts.part_file(path, 1, 2), store=path)
    (tmp_path / ".reason.jsonl.owner").unlink()
    parts.PartStore(parts.part_file(path, 1, 2), store=path).close()


def test_a_part_that_is_refused_or_closed_keeps_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "reason.jsonl"
    with Store(parts.part_file(path, 1, 2)), pytest.raises(InputError, match="another process"):
        parts.PartStore(parts.part_file(path, 1, 2), store=path)
    Store(path).close()
    parts.PartStore(parts.part_file(path, 1, 2), store=path).close()
    Store(path).close()


def test_the_torn_lines_of_a_part_go_to_the_stores_own(tmp_path: Path) -> None:
    """A killed part's half-written line would lie beside the store for ever."""
    path = tmp_path / "reason.jsonl"
    part, torn = parts.part_file(path, 1, 2), tmp_path / "reason.jsonl.torn"
    torn.write_bytes(b"older\n")
    Path(f"{part}.torn").write_bytes(b"first\n")
    part.write_bytes(b'{"half":')
    Calls(stand_in(), Sampling(), path).store().close()
    assert torn.read_bytes() == b'older\nfirst\n{"half":\n'
    assert sorted(one.name for one in tmp_path.iterdir()) == ["reason.jsonl", "reason.jsonl.torn"]


def test_equality_is_split_by_the_expected_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompt holds no question: equal ones about other questions would be asked in several parts."""
    problems = [
        {"id": str(n), "question": f"What is {n} - {n} + {n % 3}?", "answer": str(n % 3), "grader": "math"}
        for n in range(24)
    ]
    said = [{**row, "answer": rf"\boxed{{{int(row['answer']) + 5}}}", "finish_reason": "stop"} for row in problems]
    one = Benchmark("math", "reasoning", {row["id"]: row for row in problems}, said)
    values = params.load(project(tmp_path, "http://127.0.0.1:9") / "params.yaml", tmp_path)
    values["judge"]["use"]["reasoning"] = ["equality"]
    found, parted = params.Params.model_validate(values), []
    monkeypatch.setattr("star1.estimate.judged_rows", lambda *_: ([one], ""))
    monkeypatch.setattr(fills, "judge", lambda _name, how, mine, *_: parted.append((how, mine)))
    for part in range(1, 9):
        fills._judging(found, "judge-tiny", (part, 8), tmp_path)
    prompts = [{shown(how, one, row) for b in mine for row in b.generations} for how, mine in parted]
    assert sum(len(b.generations) for _, mine in parted for b in mine) == len(said)
    assert sum(map(len, prompts)) == len(set().union(*prompts)) == 3


@pytest.mark.parametrize(
    ("stage", "part", "told"),
    [
        ("categorize", "0/2", r"--part: '0/2'; expected such as 2/8"),
        ("categorize", "3/2", r"--part: '3/2'"),
        ("resaon", "1/2", r"'resaon'; expected one of categorize, reason, score, .*judge-tiny"),
        ("reason", "1/2", r"data/categorized.jsonl: not made yet; .* Hint: `snakemake .*data/categorized.jsonl`"),
        ("judge-tiny", "1/2", r"results/generations/tiny: not made yet.* Hint: `snakemake --until generate`"),
    ],
)
def test_what_cannot_be_filled_is_told(stage: str, part: str, told: str, tmp_path: Path) -> None:
    folder = project(tmp_path, "http://127.0.0.1:9")
    found = params.Params.model_validate(params.load(folder / "params.yaml", folder))
    with pytest.raises((SettingError, InputError), match=told):
        fills.fill(found, stage, fills.read_part(part), folder)
