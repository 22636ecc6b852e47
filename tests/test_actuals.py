"""What a stage cost is what the requests of its present rows cost, whichever run made them."""

from pathlib import Path
from typing import Any

import pytest

from star1 import ledger, llm
from star1.actuals import Actuals
from star1.calls import Calls, ask_rows
from star1.endpoints import Endpoint, Sampling
from star1.llm import Client, user_request
from star1.parsing import Parsed
from star1.prices import Price
from star1.records import Row, read_json
from star1.replies import Store
from tests.loopback import Answer, completion, server

PRICE = {"input": 1000.0, "output": 2000.0}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "BACKOFF_S", 0.01)


def run(url: str, folder: Path, *items: str, **changes: Any) -> dict[str, Any]:
    """Ask about some items, one after the other; gives what the stage's costs file says."""
    fields = {"provider": "openai", "model": "m", "label": "l", "base_url": url, "slots": 1, "price": PRICE, **changes}

    async def handle(client: Client, row: Row) -> Row:
        request = user_request(row["id"], "reason", row["id"].partition("/")[0], "t")
        return {"id": row["id"], "text": await client.read(request, lambda reply: Parsed(reply.content, "whole"))}

    calls = Calls(Endpoint(**fields), Sampling(), folder / "reason.jsonl", costs=folder / "costs.json")
    ask_rows("reason", [{"id": item} for item in items], handle, calls)
    costs: dict[str, Any] = read_json(folder / "costs.json")
    return costs


def answer(body: dict[str, Any], _: int) -> Answer:
    """A reply, which for "bad" never comes."""
    if body["messages"][0]["content"] == "bad":
        return Answer({"error": {"message": "no"}}, 500)
    return Answer(completion("yes"))


def test_figures_are_those_of_the_present_rows(tmp_path: Path) -> None:
    """Failed attempts of theirs by reason; equal requests once; rows that are gone not at all, though in the ledger."""
    with server(answer) as served:
        costs = run(served.url, tmp_path, "a", "b", "c", "c/again", "bad", retries=2)
        assert {**costs, "mean_seconds": None} == {
            "model": "m",
            "label": "l",
            "rows": 5,
            "quarantined": 1,
            "replies": 3,
            "prompt_tokens": 3,
            "reply_tokens": 3,
            "replies_without_count": 0,
            "usd": 0.009,
            "mean_seconds": None,
            "failed_attempts": 3,
            "failed_by_reason": {"server_error": 3},
        }
        assert 0 < costs["mean_seconds"] < 1
        costs = run(served.url, tmp_path, "a", "d")
        assert (costs["replies"], costs["usd"], costs["failed_attempts"]) == (2, 0.006, 0)
    assert ledger.uses("reason", tmp_path / "reason.jsonl")[0].answered == 4


def test_a_run_that_asks_nothing_writes_the_very_same_bytes(tmp_path: Path) -> None:
    """Without a connection, from lines or from zipped ones."""
    with server(answer) as served:
        run(served.url, tmp_path, "a", "b", "c")
    first = (tmp_path / "costs.json").read_bytes()
    for _ in range(2):
        run("http://127.0.0.1:9/v1", tmp_path, "a", "b", "c")
        assert (tmp_path / "costs.json").read_bytes() == first
        with Store(tmp_path / "reason.jsonl") as store:
            store.compact()


def test_a_run_in_parts_comes_to_the_figures_of_one_in_whole(tmp_path: Path) -> None:
    """All but the time that replies took."""
    items = [str(number) for number in range(8)]
    with server(answer) as served:
        run(served.url, tmp_path / "parts", *items[:3])
        run(served.url, tmp_path / "parts", *items[:5])
        parts = run(served.url, tmp_path / "parts", *items)
        assert {**parts, "mean_seconds": 0} == {**run(served.url, tmp_path / "whole", *items), "mean_seconds": 0}


def test_a_reply_that_was_taken_back_counts_no_more_and_the_new_one_does(tmp_path: Path) -> None:
    """The present rows use one reply each; that two were paid for is in the ledger."""
    with server(answer) as served:
        run(served.url, tmp_path, "a", "b")
        record = next(ledger.records(tmp_path / "reason.jsonl"))
        with Store(tmp_path / "reason.jsonl") as store:
            store.reopen(record["key"], {"item": "a", "reason": "length"})
            assert store.get(record["key"]) is None
        costs = run(served.url, tmp_path, "a", "b")
        assert (costs["replies"], costs["usd"], len(served.requests)) == (2, 0.006, 3)


def test_without_a_price_or_a_reply_there_is_no_figure() -> None:
    """None, not a nought that would pass for one."""
    actuals = Actuals()
    assert (actuals.figures(None)["usd"], actuals.figures(None)["mean_seconds"]) == (None, None)
    assert actuals.figures(Price(input=1, output=1))["usd"] == 0
    actuals.answer("k", None, None)
    assert (actuals.figures(None)["replies"], actuals.figures(None)["replies_without_count"]) == (1, 1)
