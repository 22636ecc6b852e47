"""Calls in batches: the same rows as one by one, nothing paid twice, and every fault where the online client has it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1.batch_journal import Journal
from star1.batch_lines import read_line, request_line
from star1.calls import Calls, Outcome
from star1.deliberation import categorize, score
from star1.endpoints import Endpoint, Sampling, read_pool, read_settings
from star1.errors import CallError, InputError, SettingError
from star1.estimate import estimates
from star1.faults import FaultError
from star1.ledger import stores, verify
from star1.params import Params, load
from star1.policies import Pack, load_pack
from star1.records import read_rows, write_rows
from tests.batchserver import Batches, batch_server
from tests.conftest import ROOT
from tests.loopback import Answer, completion, server, write_pack

KEY = "sk-secret-0123456789abcdef"
REPLIES = Path("data/replies/categorize.jsonl")
JOURNAL = Path("data/replies/.categorize.batches.jsonl")
ROWS = [{"id": str(n), "question": f"question {n}.", "source": "s"} for n in range(20)]
GOOD = completion('["Self-Harm"]')


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("star1.llm.BACKOFF_S", 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A small pack."""
    return load_pack(write_pack(tmp_path / "pack"))


def good(_body: dict[str, Any], _place: int) -> Answer:
    """The same reply to everything."""
    return Answer(GOOD)


def by_row(answers: dict[str, list[Answer]]) -> Callable[[dict[str, Any], int], Answer]:
    """Answers to single rows, one after the other, and a good one to all that is left."""

    def respond(body: dict[str, Any], _place: int) -> Answer:
        question = body["messages"][0]["content"]
        left = next((left for row, left in answers.items() if f"question {row}." in question), [])
        return left.pop(0) if left else Answer(GOOD)

    return respond


def remote(url: str, batch: dict[str, Any] | None = None, **changes: Any) -> Endpoint:
    """An endpoint over HTTP; asked in batches, unless `batch` is None."""
    fields = {"provider": "openai", "model": "m", "label": "m", "base_url": url, "key": "TEST_KEY", "retries": 2}
    settings = {"kind": "provider", "poll_s": 0.02, **batch} if batch is not None else None
    return Endpoint(**{**fields, "slots": 4, "timeout_s": 5.0, "batch": settings, **changes})


def ask(pack: Pack, served: Batches, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> Outcome:
    """The categorize stage in batches."""
    endpoint = remote(served.url, changes.pop("batch", {}), **changes)
    return categorize(rows, pack, Calls(endpoint, Sampling(), REPLIES))


def events() -> list[str]:
    """What the journal tells, in order."""
    return [row["event"] for row in read_rows(JOURNAL)]


def reasons(outcome: Outcome) -> dict[str, str]:
    """Rows in quarantine with their reasons."""
    return {row["id"]: row["reason"] for row in outcome.quarantined}


def test_a_stage_in_batches_gives_the_rows_of_a_stage_that_asks_one_by_one(pack: Pack) -> None:
    """With repair turns, which go into a batch of their own, a row for quarantine, and lines in another order."""
    bad = Answer(completion("neither list nor name"))

    def respond() -> Callable[[dict[str, Any], int], Answer]:
        return by_row({"3": [bad], "5": [bad, bad], "7": [bad] * 3, "9": [Answer(completion('["Other"]'))]})

    with server(respond()) as served:
        online = categorize(ROWS, pack, Calls(remote(served.url), Sampling(), Path("data/replies/online.jsonl")))
    with batch_server(respond()) as batched:
        found = ask(pack, batched, batch={"requests": 8})
        assert (found.kept, found.quarantined) == (online.kept, online.quarantined)
        assert (found.asked, found.readings) == (online.asked, online.readings)
        assert reasons(found) == {"7": "no_json"}
        assert batched.sizes == [8, 8, 4, 3, 2]
        assert batched.keys == {f"Bearer {KEY}"}
        before = list(batched.calls)
        again = ask(pack, batched)
        assert (again.kept, again.asked, batched.calls) == (found.kept, 0, before)
    rows = read_rows(REPLIES)
    assert {row["batch"] for row in rows} == {batch["id"] for batch in batched.batches}
    assert verify("categorize", REPLIES)[1]
    assert sorted(stores(folder=REPLIES.parent)) == ["categorize", "online"]
    assert not any(Path(".work/batches").iterdir())


def test_what_is_sent_is_what_is_sent_online(pack: Pack) -> None:
    """The bodies of the requests are the same, and a key names each line."""
    with server(good) as served:
        categorize(ROWS[:3], pack, Calls(remote(served.url), Sampling(seed=5), Path("online.jsonl")))
    with batch_server(good) as batched:
        categorize(ROWS[:3], pack, Calls(remote(batched.url, {}), Sampling(seed=5), REPLIES))
    lines = [orjson.loads(line) for line in batched.files["file-0"].splitlines()]
    assert sorted((line["body"] for line in lines), key=str) == sorted(served.requests, key=str)
    assert [line["custom_id"] for line in lines] == [row["key"] for row in reversed(read_rows(REPLIES))]
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    assert batched.batches[0]["completion_window"] == "24h"


def test_ids_are_on_disk_before_the_first_look(pack: Pack) -> None:
    """A run that is killed while it waits has written what it waits for."""
    seen: list[bool] = []
    look = {"GET /v1/batches/ID": lambda: seen.append('"batch_id":"batch-0"' in JOURNAL.read_text())}
    with batch_server(good, before=look) as served:
        ask(pack, served)
    assert seen == [True] * 3
    assert events() == ["begin", "file", "batch", "end"]


def test_files_keep_the_limits_of_requests_and_size(pack: Pack) -> None:
    """No file is larger than what the provider takes."""
    with batch_server(good) as served:
        ask(pack, served, batch={"file_mb": 0.002})
        assert sum(served.sizes) == 20
        assert all(len(content) <= 2000 for name, content in served.files.items() if b'"method"' in content)
        assert len(served.sizes) > 3


@contextmanager
def stage(served: Batches, folder: Path, **batch: Any) -> Iterator[subprocess.Popen[str]]:
    """The categorize stage as a process."""
    write_rows(folder / "in.jsonl", ROWS)
    endpoint = remote(served.url, batch).model_dump_json()
    paths = {"input": "in", "output": "out", "quarantine": "set_aside", "replies": str(REPLIES.with_suffix(""))}
    flags = [word for name, file in paths.items() for word in (f"--{name}", f"{file}.jsonl")]
    flags += ["--policy", "pack", "--endpoint", endpoint, "--coverage", "0.9"]
    command = [sys.executable, "-m", "scripts.categorize", *flags]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=env
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(true: Callable[[], bool]) -> None:
    """Wait until something has come to pass."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.01)


MOMENTS = {
    "the file is there, and nobody was told": ("after", "POST /v1/files"),
    "the file is there": ("before", "POST /v1/batches"),
    "the batch is there, and nobody was told": ("after", "POST /v1/batches"),
    "it waits": ("before", "GET /v1/batches/ID"),
    "it collects": ("after", "GET /v1/files/ID/content"),
}


@pytest.mark.parametrize(("when", "call"), MOMENTS.values(), ids=MOMENTS)
def test_a_run_that_is_killed_makes_no_second_batch(when: str, call: str, pack: Pack, tmp_path: Path) -> None:
    """No line is asked twice, whenever the kill comes."""
    with batch_server(good) as served:
        with stage(served, tmp_path) as process:

            def kill() -> None:
                process.kill()
                process.wait()
                if when == "before":
                    raise ConnectionAbortedError

            getattr(served, when)[call] = kill
            until(lambda: process.poll() is not None)
        getattr(served, when).clear()
        outcome = ask(pack, served)
        lost = when == "before" and call == "POST /v1/batches"
        assert (len(outcome.kept), len(served.batches)) == (20, 1)
        assert outcome.asked == (20 if lost or call == "POST /v1/files" else 0)
        assert len(served.asked) == len(set(served.asked)) == 20
    assert len(read_rows(REPLIES)) == 20


def test_a_run_that_is_killed_while_it_collects_keeps_no_reply_twice(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal says that the batch has ended only when all its replies are on disk."""

    def full(*_told: object) -> None:
        raise OSError(28, "No space left on device")

    with batch_server(good) as served:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "end", full)
            with pytest.raises(OSError, match="No space left"):
                ask(pack, served)
        outcome = ask(pack, served)
        assert (len(outcome.kept), outcome.asked, len(served.batches)) == (20, 0, 1)
    assert len(read_rows(REPLIES)) == 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_ends_at_once_and_says_what_goes_on(number: signal.Signals, pack: Pack, tmp_path: Path) -> None:
    """The batch does not need the run: the next one collects it."""
    with batch_server(good, polls=1000) as served:
        with stage(served, tmp_path) as process:
            until(lambda: served.calls.count("GET /v1/batches/batch-0") > 2)
            started = time.monotonic()
            process.send_signal(number)
            _, told = process.communicate(timeout=30)
        assert time.monotonic() - started < 5
        assert process.returncode == 128 + number
        assert told.splitlines()[-1] == (
            f"error: categorize: stopped by {number.name}; expected to go on to the last row."
            " Hint: the batch goes on at the provider (batch-0): start it again to collect the replies"
        )
        served.polls = 0
        assert len(ask(pack, served).kept) == 20
        assert (len(served.batches), len(served.asked)) == (1, 20)


def test_an_expired_batch_is_collected_and_the_rest_is_asked_again(pack: Pack) -> None:
    """Half of its lines were answered: a second batch has the others alone."""
    with batch_server(good, ending={0: "expired"}, done={0: 0.5}) as served:
        outcome = ask(pack, served)
        assert served.sizes == [20, 10]
        assert len(set(served.asked)) == 20
    assert len(outcome.kept) == 20
    failed = [row for row in read_rows(REPLIES) if row["status"] == "failed"]
    assert [row["reason"] for row in failed] == ["expired"] * 10
    assert [row["attempt"] for row in read_rows(REPLIES) if row["status"] == "ok"] == [1] * 10 + [2] * 10


def test_a_batch_that_expires_again_and_again_is_given_up(pack: Pack) -> None:
    """Each time is an attempt; in the end the run stops, for nothing comes back."""
    with batch_server(good, ending=dict.fromkeys(range(9), "expired"), done=dict.fromkeys(range(9), 0.0)) as served:
        with pytest.raises(
            CallError, match=r"8 requests in a row failed with expired .*Hint: start the stage again, or"
        ):
            ask(pack, served)
        assert served.sizes == [20] * 3


def test_failed_lines_end_as_they_do_online(pack: Pack) -> None:
    """What passes goes into further batches, as often as `retries` says; the rest is set aside with its reason."""
    answers = {
        "2": [Answer({"error": {"message": "slow down"}}, 429)],
        "4": [Answer({"error": {"message": "oops"}}, 500)] * 2,
        "6": [Answer({"error": {"message": "oops"}}, 500)] * 3,
        "8": [Answer({"error": {"message": "too long"}}, 400)],
        "10": [Answer({"error": {"code": "content_filter", "message": "no"}}, 400)],
        "12": [Answer(completion(""))],
        "14": [Answer({"error": {"message": "slow down"}}, 429)] * 3,
    }
    with batch_server(by_row(answers)) as served:
        outcome = ask(pack, served)
        assert served.sizes == [20, 5, 3]
    assert reasons(outcome) == {"6": "server_error", "8": "bad_request", "10": "content_filter_prompt", "14": "busy"}
    assert len(outcome.kept) == 16
    assert {row["detail"] for row in outcome.quarantined} >= {"status 400: too long"}


STOPPING = {
    "401": (Answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401), "TEST_KEY"),
    "quota": (Answer({"error": {"code": "insufficient_quota", "message": f"quota of {KEY}"}}, 429), "no_quota"),
    "404": (Answer({"error": {"message": "no model m"}}, 404), "unknown_model"),
}


@pytest.mark.parametrize(("fault", "named"), STOPPING.values(), ids=STOPPING)
def test_a_line_that_no_retry_can_cure_ends_the_run(fault: Answer, named: str, pack: Pack) -> None:
    """What was answered beside it is kept, and not asked again."""
    with batch_server(by_row({"4": [fault], "6": [Answer({"error": {"message": "oops"}}, 500)]})) as served:
        with pytest.raises(CallError, match=named) as error:
            ask(pack, served)
        assert KEY not in str(error.value)
        outcome = ask(pack, served)
        assert (len(outcome.kept), served.sizes) == (20, [20, 2])


def test_a_refused_batch_is_told_with_the_providers_reasons(pack: Pack) -> None:
    """Nothing was answered; the next start sends it anew."""
    lines = [{"code": "model_not_found", "message": f"no model for {KEY}", "line": n} for n in range(1, 6)]
    with batch_server(good, ending={0: "failed"}, errors={0: lines}) as served:
        with pytest.raises(CallError) as error:
            ask(pack, served)
        assert "batch batch-0 at" in str(error.value)
        assert "refused it: model_not_found: no model for [key] (line 1); " in str(error.value)
        assert "; and 2 more; expected a batch that the provider takes. Hint: " in str(error.value)
        assert len(ask(pack, served).kept) == 20
        assert served.sizes == [20, 20]
    assert KEY not in JOURNAL.read_text()


def test_a_provider_without_room_gets_one_batch_after_the_other(pack: Pack) -> None:
    """What may be queued is limited: the others wait until one has ended, and cost no row an attempt."""
    full = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}]
    behaviour: dict[str, Any] = {"ending": {1: "failed", 2: "failed"}, "errors": {1: full, 2: full}}
    with batch_server(good, **behaviour) as served:
        outcome = ask(pack, served, batch={"requests": 7}, retries=0)
        assert len(outcome.kept) == 20
        assert served.sizes == [7, 7, 6, 7, 6]
    with (
        batch_server(good, ending={0: "failed"}, errors={0: full}) as served,
        pytest.raises(CallError, match=r"Enqueued token limit reached.* Hint: lower the endpoint's batch\.requests"),
    ):
        categorize(ROWS, pack, Calls(remote(served.url, {}), Sampling(temperature=1), REPLIES))


def test_a_cancelled_batch_ends_the_run_and_keeps_its_replies(pack: Pack) -> None:
    """Somebody wanted it to end; the next start asks the rest."""
    with batch_server(good, ending={0: "cancelled"}, done={0: 0.25}) as served:
        with pytest.raises(CallError, match="cancelled at the provider"):
            ask(pack, served)
        outcome = ask(pack, served)
        assert (len(outcome.kept), served.sizes) == (20, [20, 15])


def test_output_that_cannot_be_read_is_asked_again(pack: Pack) -> None:
    """A broken line, one without a name, a stranger's, one twice and one that is missing: only their rows are asked again."""

    def rewrite(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        if len(lines) < 20:
            return content
        stranger = lines[5].replace(orjson.loads(lines[5])["custom_id"].encode(), b"f" * 64)
        named = orjson.loads(lines[1])["custom_id"]
        return b"".join(
            [
                lines[0][:-40] + b"\n",
                lines[1].replace(named.encode(), b"?"),
                stranger,
                lines[3],
                *lines[3:],
                b"\n\xff\n[]",
            ]
        )

    with batch_server(good, rewrite=rewrite) as served:
        outcome = ask(pack, served)
        assert (len(outcome.kept), served.sizes) == (20, [20, 3])
    failed = [row for row in read_rows(REPLIES) if row["status"] == "failed"]
    assert sorted(row["reason"] for row in failed) == ["missing", "missing", "unreadable_body"]
    assert len(read_rows(REPLIES)) == 23


PASSING = {
    "500": Answer({"error": {"message": "oops"}}, 500),
    "429": Answer({"error": {"message": "slow down"}}, 429, {"retry-after": "0.01"}),
    "HTML": Answer(b"<html>hello</html>", 200, {"content-type": "text/html"}),
    "broken": Answer(b'{"id": "x', cut=True),
    "no JSON": Answer(b"{", 200),
}
CALLS = ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/ID", "GET /v1/files/ID/content"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", PASSING)
def test_faults_of_the_interface_pass(call: str, fault: str, pack: Pack) -> None:
    """Each call is tried again, and one batch is made, whose replies come back in the end."""
    with batch_server(good, faults={call: [PASSING[fault]] * 2}) as served:
        assert len(ask(pack, served).kept) == 20
        assert served.sizes == [20]


def test_a_batch_whose_id_got_lost_is_found(pack: Pack) -> None:
    """The provider made it and answered with an error: its list is searched before another one is made."""
    with batch_server(good, lost=1) as served:
        assert len(ask(pack, served, ROWS[:4]).kept) == 4
        assert len(ask(pack, served, ROWS[4:8]).kept) == 4
        assert served.sizes == [4, 4]
        assert "GET /v1/batches" in served.calls


LASTING = {
    "401": (Answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401), "TEST_KEY"),
    "404": (Answer({"error": {"message": "no such path"}}, 404), "take `batch` out of the endpoint's settings"),
    "500": (Answer({"error": {"message": f"oops {KEY}"}}, 500), "look into the server's log"),
    "400": (Answer({"error": {"message": "file is too large"}}, 400), "file is too large"),
}


@pytest.mark.parametrize(("fault", "named"), LASTING.values(), ids=LASTING)
def test_an_interface_that_cannot_be_used_ends_the_run(fault: Answer, named: str, pack: Pack) -> None:
    """One line that says what to change; the next start begins anew."""
    with batch_server(good, faults={"POST /v1/files": [fault] * 3}) as served:
        with pytest.raises(CallError) as error:
            ask(pack, served)
        assert named in str(error.value)
        assert KEY not in str(error.value)
        served.faults.clear()
        assert len(ask(pack, served).kept) == 20
        assert served.sizes == [20]


def test_a_batch_that_the_provider_does_not_know_is_not_paid_for_again(pack: Pack) -> None:
    """Another key, or another address: the error says so, and how to give the batch up."""
    with batch_server(
        good, faults={"GET /v1/batches/ID": [Answer({"error": {"message": "no such batch"}}, 404)]}
    ) as served:
        with pytest.raises(
            CallError, match=r"batch batch-0 was sent with; to give its replies up.* remove data/replies/\."
        ):
            ask(pack, served)
        assert len(ask(pack, served).kept) == 20
        assert served.sizes == [20]


def test_nothing_that_a_run_leaves_behind_holds_the_key(pack: Pack, capfd: pytest.CaptureFixture[str]) -> None:
    """A provider that repeats it wherever it can."""
    echo = {"error": {"message": f"the key {KEY} is slow"}}
    answers = {"1": [Answer(completion(KEY))] * 3, "2": [Answer(echo, 500)] * 3, "3": [Answer(echo, 400)]}
    broken = KEY.encode() + b'{"custom_id": "' + b"0" * 64 + b'"\n'
    with batch_server(
        by_row(answers), rewrite=lambda text: broken + text, faults={"POST /v1/files": [Answer(echo, 500)]}
    ) as served:
        served.faults["GET /v1/batches/ID"] = [Answer(echo, 500)]
        outcome = ask(pack, served)
    assert reasons(outcome) == {"1": "not_json", "2": "server_error", "3": "bad_request"}
    left = [path.read_bytes() for path in Path().rglob("*") if path.is_file()]
    told = "".join(capfd.readouterr())
    assert len(left) > 3
    assert not any(KEY.encode() in content for content in [*left, told.encode(), str(outcome).encode()])
    assert b"the key [key] is slow" in b"".join(left)


def test_money_is_looked_at_before_a_batch_is_sent(pack: Pack) -> None:
    """By estimate, replies of the usual length: what can be paid for goes out, and with a higher limit the rest."""
    price = {"input": 0.0, "output": 1000.0}
    usual = 15 * 1000 / 1e6
    reply = {**GOOD, "usage": {"prompt_tokens": 1, "completion_tokens": 15}}
    with batch_server(lambda _body, _place: Answer(reply)) as served:
        with pytest.raises(CallError, match=r"0.27 USD are spent, .*max_usd"):
            ask(pack, served, price=price, max_usd=usual * 18.5)
        assert served.sizes == [18]
        assert len(ask(pack, served, price=price, max_usd=usual * 20.5).kept) == 20
        assert served.sizes == [18, 2]


def test_what_was_paid_for_is_collected_before_money_is_looked_at(pack: Pack) -> None:
    """A batch of an earlier run that is beyond the limit by now."""
    price = {"input": 0.0, "output": 1000.0}
    with batch_server(good, faults={"GET /v1/batches/ID": [Answer({"error": {}}, 401)]}) as served:
        with pytest.raises(CallError, match="TEST_KEY"):
            ask(pack, served)
        assert len(ask(pack, served, price=price, max_usd=0.1).kept) == 20
        assert served.sizes == [20]


def test_a_score_is_repaired_in_batches_too(pack: Pack) -> None:
    """Another stage, another prompt: its journal is its own."""
    marks = dict.fromkeys(pack.rubric("score").criteria, 10)
    rows = [{**row, "category": ["Self-Harm"], "response": "<think>\na\n</think>\n\nb"} for row in ROWS[:3]]
    with batch_server(by_row({"1": [Answer(completion("ten"))]})) as served:
        served.respond = by_row({"1": [Answer(completion("ten")), Answer(completion(json.dumps(marks)))]})
        inner = served.respond
        served.respond = lambda body, place: (
            answer if (answer := inner(body, place)).body != GOOD else Answer(completion(json.dumps(marks)))
        )
        calls = Calls(remote(served.url, {}), Sampling(), Path("data/replies/score.jsonl"))
        outcome = score(rows, pack, calls)
        assert [row["score"] for row in outcome.kept] == [marks] * 3
        assert served.sizes == [3, 1]
    assert Path("data/replies/.score.batches.jsonl").exists()


def test_a_dry_count_sends_nothing_and_knows_no_hours(tmp_path: Path) -> None:
    """`star1 estimate` for an endpoint that is asked in batches: the calls, and not how long others take for them."""
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    write_rows("data/collection.jsonl", ROWS)
    values = load(ROOT / "params.yaml", ROOT)
    values["llm"]["endpoints"]["stand-in"] = remote(
        "http://127.0.0.1:9/v1", {}, requests_per_minute=60, price={"input": 1, "output": 1}
    ).model_dump()
    found = estimates(Params.model_validate(values), ["categorize"], tmp_path)[0]
    assert (found.calls, found.hours) == (20, None)
    assert found.usd
    assert not Path(".work").exists()


@pytest.mark.parametrize(
    "batch",
    [
        {"kind": "provider", "requests": 50_001},
        {"kind": "provider", "file_mb": 201},
        {"kind": "provider", "poll_s": 0},
        {"kind": "provider", "completion_window": "soon"},
        {"kind": "provider", "arguments": []},
        {"kind": "vllm", "poll_s": 1},
        {"kind": "other"},
        {"requests": 1},
    ],
)
def test_unusable_settings_are_refused(batch: dict[str, Any]) -> None:
    fields = {"provider": "openai", "model": "m", "label": "m", "batch": batch}
    with pytest.raises(SettingError, match=r"--endpoint\.batch"):
        read_settings("--endpoint", json.dumps(fields), Endpoint)


def test_only_endpoints_over_the_network_are_asked_in_batches() -> None:
    fields = {"provider": "stand-in", "model": "m", "label": "stand-in", "batch": {"kind": "provider"}}
    with pytest.raises(SettingError, match="batch goes with provider 'openai'"):
        read_settings("--endpoint", json.dumps(fields), Endpoint)


def test_a_batch_endpoint_has_no_others_beside_it() -> None:
    """Rows could not be shared out between what answers at once and what answers tomorrow."""
    fields = {"provider": "openai", "model": "m", "label": "m"}
    pool = {"a": fields, "b": {**fields, "batch": {"kind": "provider"}}}
    with pytest.raises(SettingError, match="asked in batches stands beside others"):
        read_pool("--endpoint", json.dumps(pool))


def test_a_half_written_line_of_the_journal_is_cut_off(pack: Pack) -> None:
    """As a kill leaves it; a line in the middle that cannot be read is an error, for it may stand for a paid batch."""
    with batch_server(good) as served:
        ask(pack, served, ROWS[:5])
        with open(JOURNAL, "ab") as file:
            file.write(b'{"event":"begin","name":"x","requ')
        ask(pack, served, ROWS[5:10])
        assert events() == ["begin", "file", "batch", "end"] * 2
        JOURNAL.write_bytes(b"{\n" + JOURNAL.read_bytes())
        with pytest.raises(InputError, match=r"\.categorize\.batches\.jsonl:1: a line that cannot be read"):
            ask(pack, served)


def test_a_journal_in_dvcs_cache_is_left_as_it_is(pack: Pack) -> None:
    """DVC carries it with the replies, as a link to what nobody may change."""
    with batch_server(good) as served:
        ask(pack, served, ROWS[:5])
        os.link(JOURNAL, "cached")
        Path("cached").chmod(0o444)
        before = Path("cached").read_bytes()
        ask(pack, served, ROWS[5:10])
    assert Path("cached").read_bytes() == before
    assert events() == ["begin", "file", "batch", "end"] * 2


def test_lines_of_every_form() -> None:
    """The forms of providers and of vLLM."""
    key, reply = "a" * 64, {"status_code": 200, "body": GOOD}

    def read(**told: Any) -> str:
        found = read_line(orjson.dumps({"custom_id": key, **told}))
        assert found is not None
        return found[1].reason if isinstance(found[1], FaultError) else found[1].reply.content

    assert read(response=reply, error=None) == '["Self-Harm"]'
    assert read(response=reply) == '["Self-Harm"]'
    assert read(response={"status_code": 400}, error="a prompt too long") == "bad_request"
    vllm = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
    assert read(response={"status_code": 400, "body": None}, error=vllm) == "bad_request"
    assert read(response=None, error={"code": "batch_expired", "message": "late"}) == "expired"
    assert read(response=None, error={"code": "batch_cancelled", "message": "stop"}) == "cancelled"
    assert read(response=None, error={"code": "500", "message": "oops"}) == "server_error"
    assert read(response=None, error=None) == "unreadable_body"
    assert read(response={"status_code": 200, "body": None}, error=None) == "unreadable_body"
    assert read(response={"status_code": 200, "body": {"error": {"code": 429}}}) == "busy"
    assert read_line(b"") is None
    assert read_line(b"[]") is None
    assert b"\\ud83d" in request_line(key, "/v1/chat/completions", {"messages": [{"content": "\ud83d"}]})
