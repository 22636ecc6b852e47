"""The engine that asks a server: what is asked, and that thinking which was cut off is never an answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from star1 import chat, decoding, engines
from star1.errors import CallError
from tests.loopback import Answer, completion, server
from tests.micro import checkpoint
from tests.test_engines import QUESTIONS


def ask(
    url: str, work: Path, questions: Sequence[str] = QUESTIONS, model: decoding.Model | None = None, **options: Any
) -> list[decoding.Output]:
    model = model or engines.open_model("served", None, "openai")
    sampling = decoding.sampling_from({"max_tokens": 9, "repetition_penalty": 1.2})
    asked = [one for question in questions for one in engines.requests_for(model, "openai", question, sampling)]
    return engines.generate(model, "openai", asked, {"base_url": url, "retries": 0} | options, work)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> decoding.Model:
    folder = checkpoint(tmp_path_factory.mktemp("models") / "micro")
    return engines.open_model("micro", folder / "manifest.json", "openai")


def test_openai_asks_with_our_sampling_and_keeps_the_order(tmp_path: Path) -> None:
    def respond(body: dict[str, Any], _: int) -> Answer:
        question = body["messages"][0]["content"]
        return Answer(completion(f"<think>\nt\n</think>\n\nre: {question}"), wait_s=0.05 if "tea" in question else 0)

    with server(respond) as served:
        outputs = ask(served.url, tmp_path / "w", served_model="their-name", concurrency=2)
        again = ask(served.url, tmp_path / "w", served_model="their-name", concurrency=2)
    assert [output.text.rsplit("re: ")[1] for output in outputs] == QUESTIONS
    assert again == outputs
    assert len(served.requests) == len(QUESTIONS)
    assert served.most_at_once == 2
    body = served.requests[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["repetition_penalty"]) == (
        *("their-name", 0.0, 9, 1.2),
    )
    assert len({request["seed"] for request in served.requests}) == len(QUESTIONS)
    assert all(0 <= request["seed"] < 2**31 for request in served.requests)
    assert (outputs[0].prompt_tokens, outputs[0].completion_tokens) == (1, 1)


def test_openai_puts_a_split_off_thinking_back(tmp_path: Path) -> None:
    replies = {
        "closed": completion("a", reasoning_content="t"),
        "cut": completion(None, "length", reasoning_content="t"),
        "plain": completion("a"),
        "filtered": completion(None, "content_filter"),
        "thinking filtered": completion(None, "content_filter", reasoning_content="t"),
        "other field": completion(" \n", "length", reasoning="t"),
        "answer cut": completion("a", "length", reasoning="t"),
    }
    with server(lambda body, _: Answer(replies[body["messages"][0]["content"]])) as served:
        found = ask(served.url, tmp_path / "w", list(replies))
    split = {name: chat.split_thinking(output.text, False) for name, output in zip(replies, found, strict=True)}
    assert split == {"closed": ("t", "a"), "cut": ("t", None), "plain": (None, "a"), "filtered": (None, "")} | {
        "thinking filtered": ("t", None),
        "other field": ("t", None),
        "answer cut": ("t", "a"),
    }
    assert [output.finish_reason for output in found[:4]] == ["stop", "length", "stop", "content_filter"]


def test_openai_thinking_without_its_opening_tag_is_no_answer(model: decoding.Model, tmp_path: Path) -> None:
    """The template writes the tag into the prompt. A server that splits nothing off leaves it out of its reply, and
    thinking that was cut off was handed on as an answer."""
    replies = {
        "cut": completion("I should", "length"),
        "whole": completion("t\n</think>\n\na"),
        "tagged": completion("<think>\nt\n</think>\n\na"),
        "split": completion("a", reasoning_content=""),
        "no end found": completion("I should", "length", reasoning_content=""),
    }
    with server(lambda body, _: Answer(replies[body["messages"][0]["content"]])) as served:
        found = ask(served.url, tmp_path / "w", list(replies), model)
        told = ask(served.url, tmp_path / "t", list(replies), thinks=True)
        (unknown,) = ask(served.url, tmp_path / "u", ["whole"])
    assert told == found
    split = {name: chat.split_thinking(output.text, False) for name, output in zip(replies, found, strict=True)}
    assert split == {"cut": ("I should", None), "whole": ("t", "a"), "tagged": ("t", "a")} | {
        "split": (None, "a"),
        "no end found": ("I should", None),
    }
    assert found[1].text == found[2].text == unknown.text  # also where no template is at hand to tell


def test_openai_reply_without_choices_is_one_line(tmp_path: Path) -> None:
    """Some servers answer 200 with an error inside; it ended in a traceback."""
    refused = Answer({"error": {"message": "overloaded"}})
    with server(lambda *_: refused) as served, pytest.raises(CallError, match="served: a reply without choices"):
        ask(served.url, tmp_path / "w", QUESTIONS[:2])


def test_openai_failure_is_one_line_without_the_key_and_keeps_finished_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")

    def respond(_: dict[str, Any], place: int) -> Answer:
        refusal = {"error": {"message": "no such key", "code": "invalid_api_key"}}
        return Answer(completion("a")) if place < 2 else Answer(refusal, status=401)

    with server(respond) as served, pytest.raises(CallError, match="status 401: no such key") as caught:
        ask(served.url, tmp_path / "w", key_variable="SECRET_KEY", concurrency=1)
    assert "Hint: set SECRET_KEY" in str(caught.value)
    assert "very-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert served.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert len(engines.remembered(tmp_path / "w")) == 2


def test_no_server_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="Connection error"):
        ask("http://127.0.0.1:9/v1", tmp_path / "w", QUESTIONS[:1])
