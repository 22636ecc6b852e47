"""Everything that endpoints do wrong, through the real stages: each row ends as the table says, and none is lost."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from star1 import deliberation
from star1.calls import Calls, Outcome
from star1.endpoints import Endpoint, Sampling
from star1.errors import CallError
from star1.policies import Pack, load_pack
from star1.records import Row, read_rows
from tests.faultserver import Running, running
from tests.loopback import write_pack
from tests.misbehaviour import FAULTS, text_fault

KEY = "sk-secret-0123456789abcdefXYZW"
RETRIES = 2
SLOTS = 4
STAGES: Mapping[str, Callable[[Sequence[Row], Pack, Calls], Outcome]] = {
    "categorize": deliberation.categorize,
    "reason": deliberation.reason,
    "score": deliberation.score,
}


@dataclass(frozen=True)
class Ends:
    """How a row ends whose every request meets a fault.

    Attributes:
        how: `kept`; `passes` (tried again, and given up after the retries); `given up` (at the first attempt);
            `set aside` (its reply is kept, and is not asked for again).
        reason: with which it is in quarantine.
        stage: that asks; None where it makes no difference.
        asked: requests, where that is not what `how` says.
    """

    how: str
    reason: str = ""
    stage: str | None = None
    asked: int = 0

    @property
    def requests(self) -> int:
        """How many requests the row takes."""
        return self.asked or (RETRIES + 1 if self.how == "passes" else 1)


KEPT, THINKING = Ends("kept"), Ends("kept", stage="reason")
UNREADABLE, LOST = Ends("passes", "unreadable_body"), Ends("passes", "connection_lost")
IN_TROUBLE = Ends("passes", "server_error")
BROKEN = Ends("passes", "broken_stream", "reason")

TABLE: Mapping[str, Ends] = {
    "http_500": IN_TROUBLE,
    "http_500_html": IN_TROUBLE,
    "http_500_empty": IN_TROUBLE,
    "http_502": IN_TROUBLE,
    "http_503": IN_TROUBLE,
    "http_504": IN_TROUBLE,
    "http_529": IN_TROUBLE,
    "http_408": IN_TROUBLE,
    "context_length_400": Ends("given up", "bad_request"),
    "unprocessable_422": Ends("given up", "bad_request"),
    "too_long_413": Ends("given up", "bad_request"),
    "filter_azure_400": Ends("given up", "content_filter_prompt"),
    "filter_403": Ends("given up", "content_filter_prompt"),
    "redirect_loop_307": Ends("passes", "redirected"),
    "redirect_302": Ends("passes", "redirected"),
    "redirect_nowhere": Ends("passes", "redirected"),
    "reset": LOST,
    "cut": LOST,
    "no_answer": LOST,
    "half_a_head": LOST,
    "not_http": LOST,
    "long_header": LOST,
    "chunked_good": KEPT,
    "chunked_cut": LOST,
    "chunked_bad": LOST,
    "http_1_0": KEPT,
    "http_1_0_cut": UNREADABLE,
    "length_too_long": LOST,
    "length_too_short": LOST,
    "closes_after": KEPT,
    "hang": Ends("passes", "timeout"),
    "trickle": Ends("passes", "timeout"),
    "trickle_blank": Ends("passes", "timeout"),
    "gzip": KEPT,
    "gzip_broken": LOST,
    "gzip_cut": UNREADABLE,
    "gzip_not": LOST,
    "http_204": UNREADABLE,
    "empty_200": UNREADABLE,
    "truncated": UNREADABLE,
    "html": UNREADABLE,
    "json_null": UNREADABLE,
    "json_list": UNREADABLE,
    "json_text": UNREADABLE,
    "json_number": UNREADABLE,
    "json_deep": UNREADABLE,
    "event_stream": Ends("passes", "unreadable_body", "categorize"),
    "not_utf8": UNREADABLE,
    "not_utf8_key": UNREADABLE,
    "utf16": UNREADABLE,
    "nul_raw": UNREADABLE,
    "lone_surrogate": UNREADABLE,
    "huge": Ends("given up", "too_large"),
    "choices_null": UNREADABLE,
    "choices_missing": UNREADABLE,
    "choices_empty": UNREADABLE,
    "choices_text": UNREADABLE,
    "choice_null": UNREADABLE,
    "message_null": UNREADABLE,
    "message_list": UNREADABLE,
    "content_number": UNREADABLE,
    "content_object": UNREADABLE,
    "error_200": IN_TROUBLE,
    "error_200_text": IN_TROUBLE,
    "error_200_list": IN_TROUBLE,
    "error_200_choices": IN_TROUBLE,
    "error_200_context": Ends("given up", "bad_request"),
    "error_200_filter": Ends("given up", "content_filter_prompt"),
    "error_200_vllm": Ends("given up", "bad_request"),
    "error_in_choice": IN_TROUBLE,
    "length": Ends("set aside", "length"),
    "filter_reply": Ends("set aside", "content_filter"),
    "refusal": Ends("set aside", "refusal"),
    "empty": Ends("passes", "empty"),
    "blank": Ends("passes", "empty"),
    "null_content": Ends("passes", "empty"),
    "tool_calls": Ends("set aside", "finish_reason"),
    "aborted": Ends("passes", "aborted"),
    "finish_null": KEPT,
    "finish_unknown": Ends("set aside", "finish_reason"),
    "finish_number": Ends("set aside", "finish_reason"),
    "bom": KEPT,
    "blank_lines": KEPT,
    "nul": THINKING,
    "parts": KEPT,
    "two_choices": KEPT,
    "no_usage": KEPT,
    "odd_usage": KEPT,
    "text_usage": KEPT,
    "odd_model": KEPT,
    "same_id": KEPT,
    "no_think": Ends("set aside", "no_think", "reason"),
    "only_close": THINKING,
    "unclosed": Ends("set aside", "unclosed_think", "reason"),
    "empty_think": Ends("set aside", "empty_think", "reason"),
    "two_thinks": Ends("set aside", "several_think", "reason"),
    "no_answer_text": Ends("set aside", "empty_answer", "reason"),
    "reasoning_content": THINKING,
    "reasoning": THINKING,
    "reasoning_details": THINKING,
    "reasoning_hidden": Ends("set aside", "no_think", "reason"),
    "reasoning_blank": Ends("set aside", "empty_think", "reason"),
    "thinking_parts": THINKING,
    "stream_keep_alive": THINKING,
    "stream_crlf": THINKING,
    "stream_no_done": THINKING,
    "stream_slow": THINKING,
    "stream_reasoning_content": THINKING,
    "stream_reasoning": THINKING,
    "stream_details": THINKING,
    "stream_parts": THINKING,
    "stream_length": Ends("set aside", "length", "reason"),
    "stream_filtered": Ends("set aside", "content_filter", "reason"),
    "stream_empty": Ends("passes", "empty", "reason"),
    "stream_nothing": BROKEN,
    "stream_ended": BROKEN,
    "stream_cut": Ends("passes", "connection_lost", "reason"),
    "stream_reset": Ends("passes", "connection_lost", "reason"),
    "stream_silent": Ends("passes", "timeout", "reason"),
    "stream_only_alive": Ends("passes", "timeout", "reason"),
    "stream_garbage": BROKEN,
    "stream_not_utf8": BROKEN,
    "stream_list": BROKEN,
    "stream_error": Ends("passes", "server_error", "reason"),
}
NO_BODY = ("http_204", "empty_200")
# Refusals of a busy endpoint, which cost no row an attempt.
BUSY: tuple[str, ...] = (
    "rate_limit",
    "rate_limit_wait",
    "rate_limit_wait_ms",
    "rate_limit_date",
    "rate_limit_negative",
)
BUSY = (*BUSY, "rate_limit_garbage", "rate_limit_nan", "rate_limit_alternating", "error_200_rate")
# What no further request can cure, and what the error line must name.
STOPS: Mapping[str, tuple[str, ...]] = {
    "wrong_key_401": ("TEST_KEY", "wrong_key"),
    "wrong_key_401_html": ("TEST_KEY", "wrong_key"),
    "no_access_403": ("TEST_KEY", "no_access"),
    "quota_429": ("TEST_KEY", "no_quota"),
    "quota_billing_429": ("TEST_KEY", "no_quota"),
    "no_balance_402": ("TEST_KEY", "no_quota"),
    "unknown_model_404": ("'m'", "unknown_model", "http://127.0.0.1:"),
    "no_such_path_404": ("'m'", "http://127.0.0.1:"),
    "error_200_key": ("TEST_KEY", "wrong_key"),
    "stream_error_key": ("TEST_KEY", "wrong_key"),
    "error_200_key_word": ("TEST_KEY", "wrong_key"),
    "error_200_quota": ("TEST_KEY", "no_quota"),
    "error_200_model": ("'m'", "unknown_model"),
    "rate_limit_600": ("asks to wait 600 s, until ", "start the stage again after"),
    "rate_limit_days": ("asks to wait", "start the stage again"),
    "rate_limit_inf": ("asks to wait", "start the stage again"),
    "busy_600": ("asks to wait 600 s, until ", "start the stage again after"),
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server") / "asked.log") as found:
        yield found


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return load_pack(write_pack(tmp_path_factory.mktemp("policies") / "pack"))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("star1.llm.BACKOFF_S", 0.004)
    monkeypatch.setenv("TEST_KEY", KEY)


def rows_of(marks: Sequence[str]) -> list[Row]:
    """A row for each mark, as any of the stages reads it."""
    response = "<think>\nThe first rule says so.\n</think>\n\nRather not."
    return [
        {"id": str(n), "question": f"What of it? [[{mark}]]", "category": ["Self-Harm"], "response": response}
        for n, mark in enumerate(marks)
    ]


def go(stage: str, rows: list[Row], pack: Pack, served: Running, folder: Path, **changes: Any) -> Outcome:
    """Run a stage over rows."""
    fields = {"provider": "openai", "model": "m", "label": "m", "base_url": served.url, "key": "TEST_KEY"}
    settings = {"retries": RETRIES, "slots": SLOTS, "timeout_s": 5.0, **changes}
    calls = Calls(Endpoint(**{**fields, **settings}), Sampling(), folder / "replies.jsonl")
    return STAGES[stage](rows, pack, calls)


def asked_since(served: Running, start: int) -> Counter[str]:
    """Requests by item."""
    return Counter(item for _, item, _, _ in served.lines(start))


def assert_no_key(folder: Path, *texts: object) -> None:
    """Neither the key nor the part of it that an endpoint echoes is anywhere."""
    left = [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    for text in (*left, *map(str, texts)):
        assert KEY not in text
        assert KEY[:7] not in text
        assert f"*{KEY[-4:]}" not in text


def stage_of(name: str) -> str:
    """The stage that meets a fault: where it makes no difference, one after the other."""
    return TABLE[name].stage or list(STAGES)[list(TABLE).index(name) % len(STAGES)]


def marks_of(name: str, times: str) -> list[str]:
    """Three rows that meet a fault among three that do not."""
    return [f"{name}-{times}-{n}" + (f" {name} {times}" if n % 2 else "") for n in range(6)]


def time_limit(name: str) -> dict[str, float]:
    """For faults that last."""
    if name == "stream_slow":  # as a whole it takes longer than one wait
        return {"timeout_s": 0.5, "idle_timeout_s": 0.5}
    return {"timeout_s": 0.5, "idle_timeout_s": 0.5} if TABLE[name].reason == "timeout" else {}


@pytest.mark.parametrize("name", TABLE)
def test_a_lasting_fault_ends_as_the_table_says(name: str, endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """Kept and quarantined together are the rows; a second run asks for what got no reply, and for nothing else."""
    ends, rows, start = TABLE[name], rows_of(marks_of(name, "ever")), len(endpoint.lines())
    outcome = go(stage_of(name), rows, pack, endpoint, tmp_path, **time_limit(name))
    bad, good = ["1", "3", "5"], ["0", "2", "4"]
    assert [row["id"] for row in outcome.kept] == (sorted(good + bad) if ends.how == "kept" else good)
    assert [row["id"] for row in outcome.quarantined] == ([] if ends.how == "kept" else bad)
    assert {row["reason"] for row in outcome.quarantined} == ({ends.reason} if ends.reason else set())
    if ends in (UNREADABLE, Ends("set aside", "length")):  # what came stays beside the reason
        assert all(row["reply"] for row in outcome.quarantined) == (name not in NO_BODY)
    asked = asked_since(endpoint, start)
    assert [asked[f"{name}-ever-{n}"] for n in range(6)] == [1, ends.requests] * 3
    start += sum(asked.values())
    again = go(stage_of(name), rows, pack, endpoint, tmp_path, **time_limit(name))
    assert (again.kept, again.quarantined) == (outcome.kept, outcome.quarantined)
    unanswered = 3 if ends.how in ("passes", "given up") else 0
    assert again.asked == len(asked_since(endpoint, start)) == unanswered
    assert f"{6 - unanswered} answered from the store, {unanswered} asked" in again.summary()
    assert_no_key(tmp_path, outcome, again, outcome.summary())


@pytest.mark.parametrize("name", [name for name, ends in TABLE.items() if ends.how == "passes"])
def test_a_passing_fault_costs_an_attempt_and_no_row(name: str, endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """The next attempt is answered; a second run asks for nothing."""
    rows, start = rows_of(marks_of(name, "1")), len(endpoint.lines())
    outcome = go(stage_of(name), rows, pack, endpoint, tmp_path, **time_limit(name))
    assert len(outcome.kept) == 6
    asked = asked_since(endpoint, start)
    assert [asked[f"{name}-1-{n}"] for n in range(6)] == [1, 2] * 3
    assert go(stage_of(name), rows, pack, endpoint, tmp_path).asked == 0
    assert Counter(row["status"] for row in read_rows(tmp_path / "replies.jsonl")) == {"ok": 6, "failed": 3}
    assert_no_key(tmp_path, outcome)


@pytest.mark.parametrize("name", BUSY)
def test_a_busy_endpoint_costs_no_row_an_attempt(name: str, endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """Refused twice, with no retries to spend: every row is answered all the same."""
    times = "ever" if name == "rate_limit_alternating" else "2"
    rows, start = rows_of([f"{name}-{n} {name} {times}" for n in range(6)]), len(endpoint.lines())
    outcome = go("categorize", rows, pack, endpoint, tmp_path, retries=0, max_wait_s=2.0)
    assert len(outcome.kept) == 6
    assert set(asked_since(endpoint, start).values()) == {2 if times == "ever" else 3}
    assert go("categorize", rows, pack, endpoint, tmp_path).asked == 0


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize("first", [0, 10])
def test_what_no_request_can_cure_stops_the_run(
    name: str, first: int, endpoint: Running, pack: Pack, tmp_path: Path
) -> None:
    """At once or after ten replies: within the slots in flight, in one line that says what to do; then it goes on."""
    marks = [f"{name}-{first}-{n}" + (f" {name} 1" if first <= n < first + SLOTS else "") for n in range(20)]
    rows, start = rows_of(marks), len(endpoint.lines())
    asking = "reason" if name.startswith("stream") else "categorize"
    with pytest.raises(CallError) as error:
        go(asking, rows, pack, endpoint, tmp_path)
    assert [word for word in STOPS[name] if word not in str(error.value)] == []
    lines = endpoint.lines(start)
    assert SLOTS + first >= len(lines) > first
    assert "\n" not in str(error.value)
    refused = sum(fault != "good" for _, _, fault, _ in lines)
    kept = [row["status"] for row in read_rows(tmp_path / "replies.jsonl")]
    assert Counter(kept) == Counter({"ok": len(lines) - refused, "failed": refused})
    outcome = _to_the_end(asking, rows, pack, endpoint, tmp_path)
    assert len(outcome.kept) == 20
    asked = asked_since(endpoint, start)
    assert [asked[f"{name}-{first}-{n}"] for n in range(20)] == [1 + (first <= n < first + SLOTS) for n in range(20)]
    assert_no_key(tmp_path, error.value, repr(error.value), error.value.__cause__, error.value.__context__)


def _to_the_end(stage: str, rows: list[Row], pack: Pack, served: Running, folder: Path) -> Outcome:
    """Those that were not refused yet will be: each run gets one step further."""
    for _ in range(SLOTS):
        with contextlib.suppress(CallError):
            return go(stage, rows, pack, served, folder)
    raise AssertionError("the run does not go on")


@pytest.mark.parametrize("name", ["http_500", "no_answer", "html", "unprocessable_422", "empty", "redirect_loop_307"])
def test_one_fault_for_all_rows_stops_the_run(name: str, endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """A server that fails every request in the same way is not asked about every row."""
    start = len(endpoint.lines())
    with pytest.raises(CallError, match="8 requests in a row failed with"):
        go("reason", rows_of([f"all-{name}-{n} {name} ever" for n in range(40)]), pack, endpoint, tmp_path, retries=0)
    assert len(asked_since(endpoint, start)) <= 8 + SLOTS


def test_a_busy_endpoint_that_stays_busy_stops_the_run(endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """After a number of pauses in a row, not of requests."""
    start = len(endpoint.lines())
    with pytest.raises(CallError, match="8 pauses in a row ended in rate_limit"):
        go("reason", rows_of([f"busy-{n} rate_limit ever" for n in range(40)]), pack, endpoint, tmp_path)
    assert sum(asked_since(endpoint, start).values()) <= 4 + 2 + 1 * 6 + SLOTS


REPLIES: Mapping[str, tuple[str, Ends]] = {
    'Here you go: ["Self-Harm"]': ("categorize", KEPT),
    '```json\n["Self-Harm",]\n```': ("categorize", KEPT),
    "['Self-Harm']": ("categorize", KEPT),
    '<think>Hm, [maybe].</think>["Other"]': ("categorize", KEPT),
    '["Self-Harm", "Other"]': ("categorize", Ends("set aside", "other_not_alone", asked=3)),
    "[]": ("categorize", Ends("set aside", "no_names", asked=3)),
    "[null]": ("categorize", Ends("set aside", "wrong_type", asked=3)),
    '["self-harm"]': ("categorize", Ends("set aside", "unknown_name", asked=3)),
    '["Self-Harm"': ("categorize", Ends("set aside", "no_json", asked=3)),
    '["Self-Harm"] ["Other"]': ("categorize", Ends("set aside", "several_json", asked=3)),
    "I'm sorry": ("categorize", Ends("set aside", "no_json", asked=3)),
    '__import__("os").abort()': ("categorize", Ends("set aside", "no_json", asked=3)),
    '[__import__("os").abort()]': ("categorize", Ends("set aside", "not_json", asked=3)),
    "[" * 20_000 + "]" * 20_000: ("categorize", Ends("set aside", "not_json", asked=3)),
    "[" + "9" * 5000 + "]": ("categorize", Ends("set aside", "not_json", asked=3)),
}
SCORES: Mapping[str, Ends] = {
    "10, 10, 10": KEPT,
    '"10", 0, 3': KEPT,
    "10, 10, 11": Ends("set aside", "out_of_range", asked=3),
    "10, 10, -1": Ends("set aside", "out_of_range", asked=3),
    "10, 10, 9.5": Ends("set aside", "not_an_integer", asked=3),
    "10, 10, true": Ends("set aside", "not_an_integer", asked=3),
    "10, 10, null": Ends("set aside", "not_an_integer", asked=3),
    "10, 10, 2**3": Ends("set aside", "not_json", asked=3),
    "10, 10, NaN": Ends("set aside", "not_json", asked=3),
    "10, 10": Ends("set aside", "wrong_criteria", asked=3),
}


def score_text(marks: str) -> str:
    """A scorer's reply with these marks."""
    names = ("Content_Safety_Compliance", "Relevancy_and_No_Redundant_Content", "Accuracy_of_Thinking_Process")
    return "{" + ", ".join(f'"{name}": {mark}' for name, mark in zip(names, marks.split(", "), strict=False)) + "}"


@pytest.mark.parametrize(
    ("text", "stage", "ends"),
    [
        *((text, stage, ends) for text, (stage, ends) in REPLIES.items()),
        *((score_text(marks), "score", ends) for marks, ends in SCORES.items()),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_reply_is_read_strictly_or_set_aside(
    text: str, stage: str, ends: Ends, endpoint: Running, pack: Pack, tmp_path: Path
) -> None:
    """What cannot be read after two more turns is in quarantine with its reply, and is not asked for again."""
    rows, start = rows_of([f"read-{hash(text)} {text_fault(text)} ever"]), len(endpoint.lines())
    outcome = go(stage, rows, pack, endpoint, tmp_path)
    assert len(outcome.kept) == (ends.how == "kept")
    assert [row["reason"] for row in outcome.quarantined] == ([ends.reason] if ends.reason else [])
    assert [row["reply"] for row in outcome.quarantined] == ([text] if ends.reason else [])
    assert len(endpoint.lines(start)) == ends.requests
    assert go(stage, rows, pack, endpoint, tmp_path).asked == 0


def test_every_fault_is_in_a_table() -> None:
    """One that is added without saying how it ends would be tested by nobody."""
    assert {*TABLE, *BUSY, *STOPS} == {*FAULTS}


def test_details_of_a_filter_are_kept(endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """Which category of the provider's filter was hit, and how hard."""
    outcome = go("reason", rows_of(["fine", "filtered filter_azure_400 ever"]), pack, endpoint, tmp_path)
    assert "violence medium" in outcome.quarantined[0]["detail"]


def test_bytes_that_are_no_text_are_kept_as_they_came(endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """In base64, and without the key."""
    import base64

    outcome = go("reason", rows_of(["fine-2", "bytes not_utf8_key ever"]), pack, endpoint, tmp_path)
    kept = outcome.quarantined[0]["reply"]
    assert kept.startswith("base64:")
    assert base64.b64decode(kept.removeprefix("base64:")) == b'{"choices": "\xff\xfe [key]"}'


def test_thinking_comes_out_the_same_in_all_its_forms(endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """Wherever a server puts it."""
    forms = ["good", "only_close", "reasoning_content", "reasoning", "reasoning_details", "thinking_parts", "parts"]
    forms += [name for name, ends in TABLE.items() if name.startswith("stream") and ends is THINKING]
    marks = [f"form-{n}" + (f" {form} ever" if form != "good" else "") for n, form in enumerate(forms)]
    outcome = go("reason", rows_of(marks), pack, endpoint, tmp_path)
    texts = {row["response"].replace(f"form-{n}", "form") for n, row in enumerate(outcome.kept)}
    assert len(outcome.kept) == len(forms)
    assert len(texts) == 1


def test_an_endpoint_that_alternates_gets_all_rows_done(endpoint: Running, pack: Pack, tmp_path: Path) -> None:
    """A long run against a server that refuses every row once, in every way there is."""
    passing = [name for name, ends in TABLE.items() if ends.how == "passes" and ends.reason != "timeout"]
    rows = rows_of([f"mixed-{n} {passing[n % len(passing)]} 1" for n in range(2 * len(passing))])
    outcome = go("score", rows, pack, endpoint, tmp_path)
    assert len(outcome.kept) == len(rows)
