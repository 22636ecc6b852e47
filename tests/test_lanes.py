"""Streamed replies, Azure's addresses, and several endpoints of one model, against servers on the loopback address."""

import asyncio
import contextlib
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from star1.endpoints import Endpoint, Sampling, read_pool
from star1.errors import CallError, SettingError
from star1.faults import FaultError
from star1.llm import Client, Request, user_request
from star1.parsing import NoReplyError, ReplyError
from star1.records import read_rows
from star1.replies import Reply, Store
from star1.streams import assemble
from tests.loopback import Answer, Served, completion, events, server

KEY = "sk-secret-0123456789abcdef"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("star1.llm.BACKOFF_S", 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", "sk-other-9876543210fedcba")


def remote(served: Served | str, **changes: Any) -> Endpoint:
    """An endpoint over HTTP."""
    url = served if isinstance(served, str) else served.url
    fields = {"provider": "openai", "model": "m", "label": "m", "base_url": url, "key": "TEST_KEY", "retries": 2}
    return Endpoint(**{**fields, "slots": 4, "timeout_s": 5.0, **changes})


def asked(item: str, role: str = "reason") -> Request:
    """A request of its own for each item."""
    return user_request(item, role, f"question {item}", "digest")


def ask_all(
    path: Path, items: list[str], endpoint: Endpoint, *others: Endpoint, role: str = "reason"
) -> tuple[list[Any], Client]:
    """Ask one question per item; a failure stands in place of its reply."""

    async def go(store: Store) -> tuple[list[Any], Client]:
        client = Client(endpoint, Sampling(), store, others)
        found = await asyncio.gather(*(client.ask(asked(item, role)) for item in items), return_exceptions=True)
        await client.close()
        return found, client

    with Store(path, endpoint.secret(), *(one.secret() for one in others)) as store:
        return asyncio.run(go(store))


THOUGHT = events(
    {"role": "assistant", "content": ""}, {"reasoning_content": "h"}, {"reasoning_content": "m"}, {"content": "yes"}
)


def test_reasoning_is_streamed_and_put_together(tmp_path: Path) -> None:
    """Thinking, answer, model and tokens come out as they would of a reply that came whole."""
    with server(lambda _body, _place: Answer(None, pieces=[b": keep-alive\n\n", *THOUGHT])) as served:
        found, _ = ask_all(tmp_path / "r.jsonl", ["a"], remote(served))
        assert found[0] == Reply("yes", "hm", "stop", None, "endpoint")
        assert (served.requests[0]["stream"], served.requests[0]["stream_options"]) == (True, {"include_usage": True})
    row = read_rows(tmp_path / "r.jsonl")[0]
    assert (row["served_model"], row["usage"]["completion_tokens"], row["endpoint"]) == ("served-model", 5, served.url)


@pytest.mark.parametrize(
    ("role", "stream", "streamed"), [("score", None, False), ("score", True, True), ("reason", False, False)]
)
def test_what_is_streamed_can_be_chosen(role: str, stream: bool | None, streamed: bool, tmp_path: Path) -> None:
    """Only reasoning is streamed by default."""
    with server(lambda body, _place: Answer(completion("x"), pieces=THOUGHT if "stream" in body else ())) as served:
        found, _ = ask_all(tmp_path / "r.jsonl", ["a"], remote(served, stream=stream), role=role)
        assert ("stream" in served.requests[0]) == streamed
        assert found[0].content == ("yes" if streamed else "x")


def test_a_stream_has_the_key_of_the_whole(tmp_path: Path) -> None:
    """A reply that was streamed is found when it is asked for whole."""
    with server(lambda _body, _place: Answer(None, pieces=THOUGHT)) as served:
        ask_all(tmp_path / "r.jsonl", ["a"], remote(served))
        found, client = ask_all(tmp_path / "r.jsonl", ["a"], remote(served, stream=False))
        assert (found[0].content, client.asked, len(served.requests)) == ("yes", 0, 1)


def test_a_server_that_does_not_stream_is_read_all_the_same(tmp_path: Path) -> None:
    """Some send the whole reply whatever is asked."""
    with server(lambda _body, _place: Answer(completion("<think>hm</think>yes"))) as served:
        found, _ = ask_all(tmp_path / "r.jsonl", ["a"], remote(served))
        assert found[0].content == "<think>hm</think>yes"


@pytest.mark.parametrize("refused", ["stream_options", "stream"])
def test_a_server_that_refuses_streams_is_asked_without(refused: str, tmp_path: Path) -> None:
    """It costs one request, and no row an attempt."""

    def respond(body: dict[str, Any], _place: int) -> Answer:
        if refused in body:
            return Answer({"error": {"message": f"Unknown field: {refused}"}}, 400)
        return Answer(completion("whole"), pieces=THOUGHT if "stream" in body else ())

    with server(respond) as served:
        found, _ = ask_all(tmp_path / "r.jsonl", ["a", "b"], remote(served, slots=1, retries=0))
        assert [one.content for one in found] == ["yes" if refused == "stream_options" else "whole"] * 2
        assert len(served.requests) == 3


BROKEN = {
    "cut within": (Answer(None, pieces=THOUGHT[:2], cut=True), "connection_lost"),
    "ended within": (Answer(None, pieces=THOUGHT[:2]), "broken_stream"),
    "half an event": (Answer(None, pieces=[*THOUGHT[:2], b'data: {"choices": [{"del']), "broken_stream"),
    "silent": (Answer(None, pieces=THOUGHT[:3], piece_wait_s=0.5), "timeout"),
    "an error within": (
        Answer(None, pieces=[*THOUGHT[:2], b'data: {"error": {"code": 503, "message": "busy"}}\n\n']),
        "server_error",
    ),
    "another form": (Answer(None, pieces=[b"data: [1]\n\n", *THOUGHT[2:]]), "broken_stream"),
    "text in parts": (Answer(None, pieces=events({"content": ["a"]})), "broken_stream"),
    "nothing": (Answer(None, pieces=[b"\n"]), "broken_stream"),
    "no text": (Answer(None, pieces=events({"content": ""})), "empty"),
}


@pytest.mark.parametrize(("fault", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_is_tried_again_and_never_taken_for_a_reply(fault: Answer, reason: str, tmp_path: Path) -> None:
    """The fault is on record with its reason, and the second attempt answers."""
    answers = [fault, Answer(None, pieces=THOUGHT)]
    with server(lambda _body, place: answers[min(place, 1)]) as served:
        found, _ = ask_all(tmp_path / "r.jsonl", ["a"], remote(served, idle_timeout_s=0.2))
        assert found[0].content == "yes"
    assert [row.get("reason") for row in read_rows(tmp_path / "r.jsonl")] == [reason, None]


def test_a_slow_stream_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    """The time-out of a whole reply does not hold for one that comes in pieces."""
    with server(lambda _body, _place: Answer(None, pieces=THOUGHT, piece_wait_s=0.1)) as served:
        found, _ = ask_all(tmp_path / "r.jsonl", ["a"], remote(served, timeout_s=0.3, idle_timeout_s=0.3, retries=0))
        assert found[0].content == "yes"


def test_a_reply_in_drops_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """A whole reply has one time-out, however often a byte comes."""
    drops = [b"\n"] * 20 + [b"{}"]
    with server(lambda _body, _place: Answer(None, pieces=drops, piece_wait_s=0.1)) as served:
        started = time.monotonic()
        found, _ = ask_all(tmp_path / "r.jsonl", ["a"], remote(served, timeout_s=0.3, retries=0, stream=False))
        assert (found[0].reason, time.monotonic() - started < 1.5) == ("timeout", True)


def test_a_stream_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to its end."""
    monkeypatch.setattr("star1.streams.BODY_LIMIT", 100)
    read = 0

    async def chunks() -> Any:
        nonlocal read
        for _ in range(10):
            read += 1
            yield b": " + b"x" * 60 + b"\n"

    with pytest.raises(FaultError, match="too_large"):
        asyncio.run(assemble(chunks()))
    assert read == 2


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_events_are_found_wherever_they_are_split(size: int) -> None:
    """Also within a character of several bytes, and with the line ends of other systems."""
    whole = b"".join(events({"content": "caf\u00e9 "}, {"content": "\U0001f9ed\u2028ok"})).replace(b"\n", b"\r\n")

    async def chunks() -> Any:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    found = asyncio.run(assemble(chunks()))
    assert found["choices"][0]["message"]["content"] == "caf\u00e9 \U0001f9ed\u2028ok"


def test_azure_has_its_own_addresses_and_header(tmp_path: Path) -> None:
    """The deployment's name stands in the path, the model's own in the store."""
    with server(lambda _body, _place: Answer(completion("x"))) as served:
        base = served.url.removesuffix("/v1")
        endpoint = remote(base, api_version="2024-10-21", served_as="my-deployment", stream=False)
        found, _ = ask_all(tmp_path / "r.jsonl", ["a"], endpoint)
        assert found[0].content == "x"
        assert served.paths == ["/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"]
        assert served.headers[0]["api-key"] == KEY
    assert read_rows(tmp_path / "r.jsonl")[0]["model"] == "m"


def test_further_fields_of_an_endpoint_are_sent_and_decide_the_key(tmp_path: Path) -> None:
    """What changes the reply is part of its key; the name that is sent in place of the model's is not."""
    with server(lambda _body, _place: Answer(completion("x"))) as served:
        for changes in ({}, {"served_as": "elsewhere"}, {"extra_body": {"top_k": 5}}):
            ask_all(tmp_path / "r.jsonl", ["a"], remote(served, **changes), role="score")
        assert [(body["model"], body.get("top_k")) for body in served.requests] == [("m", None), ("m", 5)]
    with pytest.raises(ValueError, match="must not hold temperature"):
        remote(served, extra_body={"temperature": 1})


def test_a_pool_shares_the_work_and_the_store(tmp_path: Path) -> None:
    """Both are asked, at the same time; what one answered is found for the other."""
    slow = Answer(completion("x"), wait_s=0.02)
    with server(lambda _body, _place: slow) as one, server(lambda _body, _place: slow) as two:
        items = [str(number) for number in range(40)]
        found, client = ask_all(tmp_path / "r.jsonl", items, remote(one), remote(two, key="OTHER_KEY"), role="score")
        assert {reply.content for reply in found} == {"x"}
        assert client.slots == 8
        assert min(len(one.requests), len(two.requests)) >= 12
        assert two.headers[0]["authorization"].endswith("fedcba")
        _, client = ask_all(tmp_path / "r.jsonl", items, remote(two), role="score")
        assert client.asked == 0


STOPPING = {
    "wrong key": Answer({"error": {"message": f"no such key {KEY}"}}, 401),
    "no quota": Answer({"error": {"message": "Insufficient Balance"}}, 402),
    "a long wait": Answer({"error": {"message": "come back"}}, 429, {"retry-after": "4000"}),
}


@pytest.mark.parametrize("fault", STOPPING.values(), ids=STOPPING)
def test_one_of_a_pool_that_cannot_go_on_is_left_out(
    fault: Answer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other answers every row, and who was left out is told once, without its key."""
    with server(lambda _body, _place: fault) as bad, server(lambda _body, _place: Answer(completion("x"))) as good:
        items = [str(number) for number in range(30)]
        found, _ = ask_all(tmp_path / "r.jsonl", items, remote(bad), remote(good), role="score")
        assert [reply.content for reply in found] == ["x"] * 30
        assert len(bad.requests) <= 4
        assert len(good.requests) == 30
    told = capsys.readouterr().err
    assert told.count("left out, while 1 endpoint goes on") == 1
    assert bad.url in told
    assert KEY not in told + (tmp_path / "r.jsonl").read_text()


def test_a_pool_ends_when_its_last_endpoint_does(tmp_path: Path) -> None:
    """No row is left hanging, and none is quarantined for it."""
    wrong = Answer({"error": {"message": "no"}}, 401)
    with server(lambda _body, _place: wrong) as one, server(lambda _body, _place: wrong) as two:
        items = [str(number) for number in range(20)]
        found, _ = ask_all(tmp_path / "r.jsonl", items, remote(one), remote(two), role="score")
        assert {type(error) for error in found} == {CallError}
        assert len(one.requests) + len(two.requests) <= 8


def test_a_row_that_fails_at_one_endpoint_is_tried_at_another(tmp_path: Path) -> None:
    """A retry goes elsewhere first."""
    broken, good = Answer({"error": {"message": "oops"}}, 500), Answer(completion("x"))
    with server(lambda _body, _place: broken) as one, server(lambda _body, _place: good) as two:
        found, _ = ask_all(
            tmp_path / "r.jsonl", ["a", "b", "c"], remote(one, retries=1), remote(two, retries=1), role="score"
        )
        assert [reply.content for reply in found] == ["x"] * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "other"}, "'a' and 'b' differ in model"),
        ({"label": "other"}, "'a' and 'b' differ in label"),
        ({"extra_body": {"top_k": 1}}, "differ in extra_body"),
        ({"provider": "stand-in", "model": "m", "label": "stand-in"}, "differ in label"),
    ],
)
def test_a_pool_of_different_models_is_refused(change: dict[str, Any], words: str) -> None:
    """Their replies would stand for each other's."""
    import json

    base = {"provider": "openai", "model": "m", "label": "m"}
    with pytest.raises(SettingError, match=words):
        read_pool("--endpoint", json.dumps({"a": base, "b": {**base, **change}}))
    assert len(read_pool("--endpoint", json.dumps({"a": base, "b": {**base, "slots": 2}}))) == 2
    assert len(read_pool("--endpoint", json.dumps(base))) == 1


PRICE = {"input": 0.0, "output": 1_000_000.0}  # a dollar a token: each reply of the server costs one


def test_what_other_stages_spend_meanwhile_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit holds for all stages together, also for those that run at the same time."""
    monkeypatch.setattr("star1.spending.LOOK_EVERY_S", 0.0)
    counts: Counter[str] = Counter()
    with server(lambda _body, _place: Answer(completion("x"))) as served:
        endpoint = remote(served, price=PRICE, max_usd=10.0, slots=1)

        async def go() -> None:
            with Store(tmp_path / "a.jsonl") as first, Store(tmp_path / "b.jsonl") as second:
                clients = {name: Client(endpoint, Sampling(), store) for name, store in (("a", first), ("b", second))}
                with contextlib.suppress(CallError):
                    for number in range(20):
                        for name, client in clients.items():
                            await client.ask(asked(f"{name}{number}", "score"))
                            counts[name] += 1
                for client in clients.values():
                    await client.close()

        asyncio.run(go())
        assert (counts.total(), len(served.requests)) == (10, 10)
        found, _ = ask_all(tmp_path / "c.jsonl", ["new"], endpoint, role="score")
        assert isinstance(found[0], CallError)
        assert "10.00 USD are spent" in str(found[0])


def test_a_dear_endpoint_of_a_pool_ends_before_the_others(tmp_path: Path) -> None:
    """What one may spend is spent there alone."""
    with (
        server(lambda _body, _place: Answer(completion("x"))) as dear,
        server(lambda _body, _place: Answer(completion("x"))) as cheap,
    ):
        pool = (remote(dear, price=PRICE, max_usd=3.0, slots=1), remote(cheap, slots=1))
        found, _ = ask_all(tmp_path / "r.jsonl", [str(number) for number in range(20)], *pool, role="score")
        assert not [one for one in found if isinstance(one, ReplyError | NoReplyError | CallError)]
        assert len(dear.requests) == 3
