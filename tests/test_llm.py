"""The client against a server on the loopback address that fails in the ways real ones do."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from star1.endpoints import Endpoint, Sampling, connect, read_settings, redact
from star1.errors import CallError, SettingError
from star1.faults import retry_after
from star1.llm import Client, Request, user_request
from star1.parsing import Parsed, ReplyError, final_text, parse_thinking
from star1.records import read_rows
from star1.replies import Reply, Store
from tests.loopback import Answer, Served, completion, server, stand_in

KEY = "sk-secret-0123456789abcdef"
GOOD = completion("<think>\nhm\n</think>\n\nyes")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("star1.llm.BACKOFF_S", 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)


def remote(served: Served, **changes: Any) -> Endpoint:
    """An endpoint over HTTP."""
    fields = {"provider": "openai", "model": "m", "label": "m", "base_url": served.url, "key": "TEST_KEY", "retries": 2}
    return Endpoint(**{**fields, "slots": 4, "timeout_s": 5.0, **changes})


def asked(item: str) -> Request:
    """A request of its own for each item."""
    return user_request(item, "reason", f"question {item}", "digest")


def ask_all(
    endpoint: Endpoint, path: Path, items: list[str], sampling: Sampling | None = None
) -> tuple[list[Any], Client]:
    """Ask one question per item; a row's failure stands in place of its reply."""

    async def go(store: Store) -> tuple[list[Any], Client]:
        client = Client(endpoint, sampling or Sampling(), store)
        found = await asyncio.gather(*(client.ask(asked(item)) for item in items), return_exceptions=True)
        await client.close()
        return found, client

    with Store(path, endpoint.secret()) as store:
        return asyncio.run(go(store))


def in_turn(*answers: Answer) -> Callable[[dict[str, Any], int], Answer]:
    """The answers one after the other, the last one for ever."""
    return lambda _body, place: answers[min(place, len(answers) - 1)]


PASSING = {
    "429": Answer({"error": {"message": "slow down"}}, 429),
    "429 with a wait": Answer({"error": {"message": "slow down"}}, 429, {"retry-after": "0.05"}),
    "500": Answer({"error": {"message": "oops"}}, 500),
    "503 with HTML": Answer(b"<html>busy</html>", 503),
    "HTML with 200": Answer(b"<html>hello</html>", 200, {"content-type": "text/html"}),
    "truncated JSON": Answer(b'{"choices": [{"mess'),
    "closed half-way": Answer(GOOD, cut=True),
    "choices null": Answer({"choices": None}),
    "choices empty": Answer({"choices": []}),
    "message null": Answer({"choices": [{"message": None, "finish_reason": "stop"}]}),
    "no choices": Answer({"id": "x"}),
    "error object with 200": Answer({"error": {"code": 502, "message": "upstream"}}),
    "not UTF-8": Answer(b'{"choices": "\xff\xfe"}'),
    "lone surrogate": Answer(b'{"choices": [{"message": {"content": "\\ud83d"}, "finish_reason": "stop"}]}'),
    "empty text": Answer(completion("")),
    "null text": Answer(completion(None)),
    "a list": Answer([1]),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_passing_fault_is_tried_again(fault: Answer, tmp_path: Path) -> None:
    """The second attempt answers; the first one is on record, and the reply is that of the second."""
    with server(in_turn(fault, Answer(GOOD))) as served:
        found, client = ask_all(remote(served), tmp_path / "r.jsonl", ["a"])
        assert found[0].content == "<think>\nhm\n</think>\n\nyes"
        assert (client.asked, len(served.requests)) == (1, 2)
    statuses = [row["status"] for row in read_rows(tmp_path / "r.jsonl")]
    assert statuses == ["failed", "ok"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer({"error": {"message": "oops"}}, 500), "server_error"),
        (Answer(b"<html>", 200), "unreadable_body"),
        (Answer(completion("")), "empty"),
        (Answer({"error": {"message": "busy"}}, 503), "server_error"),
    ],
)
def test_a_lasting_fault_ends_in_quarantine_and_is_not_served_later(fault: Answer, reason: str, tmp_path: Path) -> None:
    """Retries are counted out, the row fails with its reason, and the next run asks again."""
    with server(in_turn(fault)) as served:
        found, _ = ask_all(remote(served), tmp_path / "r.jsonl", ["a"])
        assert isinstance(found[0], ReplyError)
        assert found[0].reason == reason
        assert len(served.requests) == 3
    with server(in_turn(Answer(GOOD))) as served:
        found, client = ask_all(remote(served), tmp_path / "r.jsonl", ["a"])
        assert isinstance(found[0], Reply)
        assert client.asked == 1


STOPPING = {
    "401": (Answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401), "TEST_KEY"),
    "401 echo in part": (Answer({"error": {"message": "Incorrect API key: sk-s*****cdef"}}, 401), "TEST_KEY"),
    "402": (Answer({"error": {"message": "Insufficient Balance"}}, 402), "TEST_KEY"),
    "403": (Answer({"error": {"message": "forbidden"}}, 403), "TEST_KEY"),
    "404": (Answer({"error": {"message": "no model m"}}, 404), "'m'"),
    "quota": (Answer({"error": {"code": "insufficient_quota", "message": f"quota of {KEY}"}}, 429), "no_quota"),
    "error object with 200": (Answer({"error": {"code": 401, "message": KEY}}), "TEST_KEY"),
}


@pytest.mark.parametrize(("fault", "named"), STOPPING.values(), ids=STOPPING)
def test_what_no_retry_can_cure_stops_at_once(fault: Answer, named: str, tmp_path: Path) -> None:
    """One request, one line that names what to change, and no key in line or store."""
    with server(in_turn(fault)) as served:
        found, _ = ask_all(remote(served, slots=1), tmp_path / "r.jsonl", ["a"])
        assert isinstance(found[0], CallError)
        assert len(served.requests) == 1
        assert named in str(found[0])
        assert served.url in str(found[0])
    assert "Incorrect" not in str(found[0])
    told = str(found[0]) + (tmp_path / "r.jsonl").read_text()
    assert KEY not in told
    assert "sk-s" not in told
    assert "cdef" not in told


def test_the_key_is_sent_and_never_kept(tmp_path: Path) -> None:
    """Even a reply that repeats the key is stored without it."""
    with server(in_turn(Answer(completion(f"<think>a</think>your key is {KEY}")))) as served:
        ask_all(remote(served), tmp_path / "r.jsonl", ["a"])
        assert served.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in (tmp_path / "r.jsonl").read_text()
    assert "your key is [key]" in (tmp_path / "r.jsonl").read_text()


def test_a_content_filter_gives_the_row_up(tmp_path: Path) -> None:
    """A filtered prompt is no fault of the endpoint: one attempt, its own reason, and many do not stop a run."""
    filtered = Answer({"error": {"code": "content_filter", "message": "filtered"}}, 400)
    with server(in_turn(filtered)) as served:
        found, _ = ask_all(remote(served), tmp_path / "r.jsonl", [str(n) for n in range(12)])
        assert {error.reason for error in found} == {"content_filter_prompt"}
        assert len(served.requests) == 12


def test_the_same_fault_over_and_over_stops_the_run(tmp_path: Path) -> None:
    """A server that refuses every request in the same way is not asked about every row."""
    with server(in_turn(Answer({"error": {"message": "bad field"}}, 400))) as served:
        found, _ = ask_all(remote(served, slots=1), tmp_path / "r.jsonl", [str(n) for n in range(9)])
        assert any(isinstance(error, CallError) for error in found)
        assert "bad_request" in str(next(error for error in found if isinstance(error, CallError)))


def test_a_long_wait_stops_the_run(tmp_path: Path) -> None:
    """Nobody waits ten minutes inside a job without being told."""
    busy = Answer({"error": {"message": "later"}}, 429, {"retry-after": "600"})
    with server(in_turn(busy)) as served:
        found, _ = ask_all(remote(served), tmp_path / "r.jsonl", ["a"])
        assert isinstance(found[0], CallError)
        assert "asks to wait 600 s, until " in str(found[0])
        assert "Hint: start the stage again after " in str(found[0])
        found, _ = ask_all(remote(served, max_wait_s=599), tmp_path / "r.jsonl", ["a"])
        assert "at most 599 s" in str(found[0])


def test_a_wait_holds_for_all_requests(tmp_path: Path) -> None:
    """After `Retry-After: 0.3` no request leaves before the time is over."""
    times: list[float] = []

    def respond(_body: dict[str, Any], place: int) -> Answer:
        times.append(time.monotonic())
        return Answer({"error": {"message": "slow"}}, 429, {"retry-after": "0.3"}) if place == 0 else Answer(GOOD)

    with server(respond) as served:
        found, _ = ask_all(remote(served, slots=1), tmp_path / "r.jsonl", ["a", "b", "c"])
        assert all(isinstance(reply, Reply) for reply in found)
    assert times[1] - times[0] >= 0.3


def test_a_rate_limit_costs_no_row_its_attempts(tmp_path: Path) -> None:
    """Six refusals of rows that have one attempt: each pause is one for all, and every row is answered."""
    times: list[float] = []

    def respond(_body: dict[str, Any], place: int) -> Answer:
        times.append(time.monotonic())
        busy = place < 4 or 8 <= place < 10
        wait = {"retry-after": "0.2"} if busy else {}
        return Answer({"error": {"message": "slow"}}, 429, wait) if busy else Answer(GOOD, wait_s=0.02)

    with server(respond) as served:
        items = [str(n) for n in range(12)]
        found, client = ask_all(remote(served, retries=0), tmp_path / "r.jsonl", items)
        assert all(isinstance(reply, Reply) for reply in found)
        assert (client.asked, len(served.requests)) == (12, 18)
    assert times[4] - times[3] >= 0.2


def test_requests_a_minute_are_kept_and_slots_shrink_on_503(tmp_path: Path) -> None:
    """1200 a minute are 20 a second; a busy server is then asked less at a time."""
    times: list[float] = []

    def respond(_body: dict[str, Any], place: int) -> Answer:
        times.append(time.monotonic())
        return Answer({"error": {"message": "busy"}}, 503) if place == 0 else Answer(GOOD)

    with server(respond) as served:
        found, _ = ask_all(remote(served, requests_per_minute=1200), tmp_path / "r.jsonl", [str(n) for n in range(8)])
        assert all(isinstance(reply, Reply) for reply in found)
        assert len(times) == 9
    assert times[-1] - times[0] >= 0.8 * 8 * 60 / 1200
    found, client = ask_all(remote(served, requests_per_minute=1), tmp_path / "r.jsonl", [str(n) for n in range(8)])
    assert client.asked == 0


def test_a_time_out_and_a_broken_connection_are_tried_again(tmp_path: Path) -> None:
    """Both may have cost a reply and say nothing about the next attempt; they are told apart."""
    for answer, reason in (
        (Answer(GOOD, wait_s=1.0), "timeout"),
        (Answer(GOOD, cut=True), "connection_lost"),
    ):
        with server(in_turn(answer)) as served:
            found, _ = ask_all(remote(served, timeout_s=0.1, retries=1), tmp_path / f"{reason}.jsonl", ["a"])
            assert found[0].reason == reason
            assert len(served.requests) == 2


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://127.0.0.1:9/v1", "connection refused"), ("http://no-such-host.invalid/v1", "no-such-host")],
)
def test_where_nobody_listens_the_run_ends_after_a_few_attempts(url: str, words: str, tmp_path: Path) -> None:
    """It was told as a time-out, after all retries of each row: half a minute for nothing."""
    endpoint = Endpoint(provider="openai", model="m", label="m", base_url=url, retries=5)
    found, _ = ask_all(endpoint, tmp_path / "r.jsonl", ["a"])
    assert isinstance(found[0], CallError)
    assert words in str(found[0])
    assert "imed out" not in str(found[0])
    assert "Hint: start the server, or correct the endpoint's base_url" in str(found[0])
    assert len(read_rows(tmp_path / "r.jsonl")) == 3


def test_a_rate_limit_that_stays_is_told_with_what_to_change(tmp_path: Path) -> None:
    """Not that the server may be down: it answers."""
    with server(in_turn(Answer({"error": {"message": "slow down"}}, 429))) as served:
        found, _ = ask_all(remote(served, retries=0), tmp_path / "r.jsonl", ["a"])
    assert isinstance(found[0], CallError)
    assert "8 pauses in a row ended in rate_limit" in str(found[0])
    assert "Hint: lower the endpoint's slots, or start the stage again later" in str(found[0])


def test_rows_that_fail_of_themselves_do_not_stop_a_run_again(tmp_path: Path) -> None:
    """Nine prompts too long among good ones pass a run; in the next one, which asks them alone, they pass as well."""
    items = ["good", *(f"long {n}" for n in range(9))]

    def respond(body: dict[str, Any], _place: int) -> Answer:
        long = "long" in body["messages"][0]["content"]
        return Answer({"error": {"message": "too long"}}, 400) if long else Answer(GOOD)

    with server(respond) as served:
        for _ in range(2):
            found, _ = ask_all(remote(served, slots=1), tmp_path / "r.jsonl", items)
            assert isinstance(found[0], Reply)
            assert {one.reason for one in found[1:]} == {"bad_request"}


def test_another_model_under_the_same_label_is_asked_anew(tmp_path: Path) -> None:
    """Its replies were taken for those of the model before it; those stay, and come back with it."""
    path = tmp_path / "r.jsonl"
    with server(lambda body, _place: Answer(completion(body["model"]))) as served:
        for model, asked_now in (("one", 1), ("two", 1), ("one", 0)):
            found, client = ask_all(remote(served, model=model, label="same"), path, ["a"])
            assert (found[0].content, client.asked) == (model, asked_now)


def test_what_is_on_its_way_is_kept_when_the_run_stops(tmp_path: Path) -> None:
    """A reply that will be paid for is not thrown away because another request was refused."""

    def respond(body: dict[str, Any], _place: int) -> Answer:
        late = "late" in body["messages"][0]["content"]
        return Answer(GOOD, wait_s=0.4) if late else Answer({"error": {"message": "no"}}, 401, wait_s=0.1)

    async def go(store: Store) -> None:
        client = Client(endpoint, Sampling(), store)
        try:
            async with asyncio.TaskGroup() as group:
                for item in ("late", "refused"):
                    group.create_task(client.ask(asked(item)))
        finally:
            await client.close()

    with server(respond) as served:
        endpoint = remote(served)
        with Store(tmp_path / "r.jsonl") as store, pytest.raises(ExceptionGroup):
            asyncio.run(go(store))
        found, client = ask_all(endpoint, tmp_path / "r.jsonl", ["late"])
    assert isinstance(found[0], Reply)
    assert client.asked == 0


def test_a_reply_that_echoes_the_key_is_used_as_it_is_kept(tmp_path: Path) -> None:
    """The first run gave the key on to rows and quarantine, the next one did not."""
    with server(in_turn(Answer(completion(f"your key is {KEY}")))) as served:
        for _ in range(2):
            found, _ = ask_all(remote(served), tmp_path / "r.jsonl", ["a"])
            assert found[0].content == "your key is [key]"


@pytest.mark.parametrize("key", ["sk-abc\u2026def", "sk-abc def"])
def test_a_key_that_no_header_can_hold_is_named(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pasted ellipsis ended in a traceback of the HTTP library."""
    monkeypatch.setenv("TEST_KEY", key)
    with pytest.raises(SettingError, match="TEST_KEY holds blanks or characters beyond ASCII") as error:
        Endpoint(provider="openai", model="m", label="m", key="TEST_KEY").secret()
    assert key not in str(error.value)


@pytest.mark.parametrize("field", ["model", "messages", "stream", "n", "temperature", "samples"])
def test_extra_fields_do_not_change_the_request_behind_its_back(field: str) -> None:
    """A stream cannot be read, and of several replies all but one would be paid for in vain."""
    with pytest.raises(SettingError, match=f"must not hold {field}"):
        read_settings("--sampling", json.dumps({"extra_body": {field: 1}}), Sampling)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"error": {"message": "Prompt 'my insufficient balance' is too long"}}, 400, "bad_request"),
        ({"error": {"message": "m requires moderation. Your input was flagged"}}, 403, "content_filter_prompt"),
        ({"error": {"code": "content_filter", "message": "no"}}, 200, "content_filter_prompt"),
        (
            {"choices": [{"error": {"code": 502}, "message": {"content": "ha"}, "finish_reason": "error"}]},
            200,
            "server_error",
        ),
        (completion("half", "abort"), 200, "aborted"),
    ],
)
def test_faults_of_routers_and_filters_are_those_of_a_row(
    body: dict[str, Any], status: int, reason: str, tmp_path: Path
) -> None:
    """None of them stops the run, and no half reply is kept as a whole one."""
    with server(in_turn(Answer(body, status))) as served:
        found, _ = ask_all(remote(served, retries=0), tmp_path / "r.jsonl", ["a"])
    assert isinstance(found[0], ReplyError)
    assert found[0].reason == reason


def test_no_more_in_flight_than_slots_and_equal_requests_are_asked_once(tmp_path: Path) -> None:
    """Nine rows of three questions: three requests, two at a time; the second run asks none."""
    with server(lambda _body, _place: Answer(GOOD, wait_s=0.05)) as served:
        endpoint = remote(served, slots=2)
        _, client = ask_all(endpoint, tmp_path / "r.jsonl", ["a", "b", "c"] * 3)
        assert (client.asked, client.answered, len(served.requests)) == (3, 6, 3)
        assert served.most_at_once == 2
        _, client = ask_all(endpoint, tmp_path / "r.jsonl", ["a", "b", "c"])
        assert (client.asked, client.answered, len(served.requests)) == (0, 3, 3)


def test_only_set_sampling_fields_are_sent_and_they_decide_the_key(tmp_path: Path) -> None:
    """Another temperature is another request; another address or key is not."""
    with server(in_turn(Answer(GOOD))) as served:
        ask_all(remote(served), tmp_path / "r.jsonl", ["a"], Sampling(temperature=0.6, extra_body={"top_k": 5}))
        assert served.requests[0]["temperature"] == 0.6
        assert served.requests[0]["top_k"] == 5
        assert "top_p" not in served.requests[0]
        _, client = ask_all(remote(served), tmp_path / "r.jsonl", ["a"], Sampling(temperature=0.7))
        assert client.asked == 1
    with server(in_turn(Answer(GOOD))) as elsewhere:
        endpoint = remote(elsewhere, key=None, timeout_s=9.0, slots=1)
        _, client = ask_all(endpoint, tmp_path / "r.jsonl", ["a"], Sampling(temperature=0.7))
        assert client.asked == 0


def test_unreadable_replies_are_asked_again_twice_then_given_up(tmp_path: Path) -> None:
    """The repair turn holds the bad reply and what was wrong with it; its own reply has its own key."""

    def parse(reply: Reply) -> Parsed[str]:
        if final_text(reply) != "right":
            raise ReplyError("wrong", "it is not right", reply.content)
        return Parsed("right", "word")

    async def go(endpoint: Endpoint, item: str) -> tuple[str, Client]:
        with Store(tmp_path / "r.jsonl") as store:
            client = Client(endpoint, Sampling(), store)
            try:
                value = await client.read(asked(item), parse, lambda problem: (f"again: {problem}", "repair-digest"))
            finally:
                await client.close()
            return value, client

    with server(in_turn(Answer(completion("no")), Answer(completion("right")), Answer(completion("no")))) as served:
        value, client = asyncio.run(go(remote(served), "a"))
        assert value == "right"
        assert client.readings == {"word, after repair": 1}
        assert [turn["content"] for turn in served.requests[1]["messages"]][1:] == ["no", "again: it is not right"]
        with pytest.raises(ReplyError) as error:
            asyncio.run(go(remote(served), "b"))
        assert (error.value.reason, error.value.reply) == ("wrong", "no")
        assert len(served.requests) == 2 + 3
        assert asyncio.run(go(remote(served), "a"))[1].asked == 0


@pytest.mark.parametrize(
    ("message", "finish_reason", "expected"),
    [
        (completion("<think>half"), "length", "length"),
        (completion("a\n</think>\nb"), "stop", ("a", "b")),
        (completion("<think>never closed"), "stop", "unclosed_think"),
        (completion("just text"), "stop", "no_think"),
        (completion("b", reasoning_content="a"), "stop", ("a", "b")),
        (completion("b", reasoning="a"), "stop", ("a", "b")),
        (completion(None, reasoning_content="a"), "stop", "empty_answer"),
        (completion("", refusal="no"), "stop", "refusal"),
        (completion(""), "content_filter", "content_filter"),
    ],
)
def test_forms_of_thinking_over_the_wire(
    message: dict[str, Any], finish_reason: str, expected: str | tuple[str, str], tmp_path: Path
) -> None:
    """What servers do with the thinking ends as its two parts or as a reason, the same when read from the store."""
    message["choices"][0]["finish_reason"] = finish_reason

    def outcome() -> str | tuple[str, str]:
        found, _ = ask_all(endpoint, tmp_path / "r.jsonl", ["a"])
        try:
            thought = parse_thinking(found[0]).value
        except ReplyError as error:
            return error.reason
        return thought.thinking, thought.answer

    with server(in_turn(Answer(message))) as served:
        endpoint = remote(served)
        assert outcome() == expected
        assert outcome() == expected
        assert len(served.requests) == 1


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before any request."""
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(SettingError, match="TEST_KEY"):
        connect(Endpoint(provider="openai", model="m", label="m", key="TEST_KEY"))


@pytest.mark.parametrize(
    "change",
    [
        {"key": "sk-real-key-pasted-by-mistake"},
        {"base_url": "http://me:secret@host/v1"},
        {"base_url": "http://host/v1?api-key=secret"},
        {"label": "gpt"},
        {"rows": "rows.json"},
        {"provider": "replay", "label": "replay"},
        {"slots": 0},
        {"requests_per_minute": 0},
        {"max_usd": 1},
        {"price": {"input": 1}},
        {"unknown": 1},
    ],
)
def test_unusable_endpoints_are_refused_without_repeating_the_value(change: dict[str, Any]) -> None:
    """A key in the wrong place must not get into the message."""
    import json

    fields = {"provider": "stand-in", "model": "m", "label": "stand-in", **change}
    with pytest.raises(SettingError) as error:
        read_settings("--endpoint", json.dumps(fields), Endpoint)
    assert "secret" not in str(error.value)
    assert "pasted" not in str(error.value)
    assert "--endpoint" in str(error.value)


def test_the_label_of_an_in_process_endpoint_is_kept_with_its_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Replies made by other rules or wording are not taken for these."""
    from star1 import standin_wording

    before = stand_in().identity()
    assert before.startswith("stand-in (no language model) [stand-in-rules-v1 ")
    changed = tmp_path / "wording.py"
    changed.write_text(Path(standin_wording.__file__).read_text() + "# another wording\n")
    monkeypatch.setattr(standin_wording, "__file__", str(changed))
    assert stand_in().identity() != before


def test_redact_strikes_the_key_and_its_ends() -> None:
    """Providers echo keys as sk-s****cdef."""
    text = redact(f"key {KEY}, sk-s***cdef and *****cdef; other words stay", KEY)
    assert text == "key [key], [key] and [key]; other words stay"
    assert redact("short abcdefgh", "abcdefgh") == "short [key]"
    assert redact("nothing to hide", None) == "nothing to hide"


def test_retry_after_in_its_forms() -> None:
    """Seconds, milliseconds, a date, and nonsense."""
    assert retry_after({"retry-after": "2"}) == 2.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None
