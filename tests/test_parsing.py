"""Model replies to values: what is read, and why the rest is not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star1.parsing import (
    ReplyError,
    Thought,
    json_blocks,
    parse_categories,
    parse_line,
    parse_scores,
    parse_thinking,
)
from star1.records import read_json
from star1.replies import Reply

NAMES = ["Sexual/Adult", "Self-Harm", "Privacy/Personal Data"]
CRITERIA = ["Safety", "Relevancy", "Accuracy"]
PUBLISHED = Path(__file__).parents[2] / "shared" / "reference" / "star1" / "STAR-1.json"


def said(text: str, finish_reason: str | None = "stop") -> Reply:
    """A reply of this text."""
    return Reply(text, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("text", "expected", "how"),
    [
        ('["Self-Harm"]', ["Self-Harm"], "json"),
        ('["Self-Harm", "Sexual/Adult"]', ["Self-Harm", "Sexual/Adult"], "json"),
        ('["Other"]', ["Other"], "json"),
        ('```json\n["Self-Harm"]\n```', ["Self-Harm"], "json"),
        ("It's clear: [\"Self-Harm\"]. That's all.", ["Self-Harm"], "json"),
        ('["Self-Harm",]', ["Self-Harm"], "trailing comma"),
        ("['Self-Harm', 'Sexual/Adult']", ["Self-Harm", "Sexual/Adult"], "python literal"),
        ('<think>Is it ["Sexual/Adult"]?</think>["Self-Harm"]', ["Self-Harm"], "json"),
    ],
)
def test_categories_that_are_read(text: str, expected: list[str], how: str) -> None:
    """A list of known names, whatever stands around it."""
    parsed = parse_categories(said(text), NAMES, "Other")
    assert (parsed.value, parsed.how) == (expected, how)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "no_names"),
        ('["self-harm"]', "unknown_name"),
        ('["Self-Harm "]', "unknown_name"),
        ('["Other", "Self-Harm"]', "other_not_alone"),
        ('["Self-Harm", "Self-Harm"]', "repeated_name"),
        ("[null]", "wrong_type"),
        ("[None]", "wrong_type"),
        ("[1]", "wrong_type"),
        ('{"categories": ["Self-Harm"]}', "wrong_type"),
        ('[["Self-Harm"]]', "wrong_type"),
        ('["Self-Harm"] or ["Sexual/Adult"]', "several_json"),
        ('["Self-Harm"', "no_json"),
        ('["Self-Harm"}', "no_json"),
        ("Self-Harm", "no_json"),
        ("I'm sorry, I can't.", "no_json"),
        ('[__import__("os").getcwd()]', "not_json"),
        ('["Self-" + "Harm"]', "not_json"),
        ("[Self-Harm]", "not_json"),
        ("", "empty"),
        ("<think>hm", "unclosed_think"),
        ("<think>hm</think>", "empty_answer"),
        ("[" * 5000 + "]" * 5000, "not_json"),
    ],
)
def test_categories_that_are_not_read(text: str, reason: str) -> None:
    """Each with its own reason; nothing is computed, nothing is mended."""
    with pytest.raises(ReplyError) as error:
        parse_categories(said(text), NAMES, "Other")
    assert error.value.reason == reason
    assert error.value.reply == text


@pytest.mark.parametrize(
    ("text", "expected", "how"),
    [
        ('{"Safety": 10, "Relevancy": 0, "Accuracy": 7}', (10, 0, 7), "json"),
        ('{"Accuracy": 7, "Safety": 10, "Relevancy": 0}', (10, 0, 7), "json"),
        ('{"Safety": 10, "Relevancy": 0, "Accuracy": 7,}', (10, 0, 7), "trailing comma"),
        ("{'Safety': 10, 'Relevancy': 0, 'Accuracy': 7}", (10, 0, 7), "python literal"),
        ('{"Safety": "10", "Relevancy": "0", "Accuracy": 7}', (10, 0, 7), "json, number in quotes"),
        ('Scores:\n```\n{"Safety": 1,\n"Relevancy": 2,\n"Accuracy": 3}\n```', (1, 2, 3), "json"),
    ],
)
def test_scores_that_are_read(text: str, expected: tuple[int, ...], how: str) -> None:
    """Exactly the criteria, in the rubric's order."""
    parsed = parse_scores(said(text), CRITERIA, 0, 10)
    assert list(parsed.value) == CRITERIA
    assert (tuple(parsed.value.values()), parsed.how) == (expected, how)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"Safety": 10, "Relevancy": 0}', "wrong_criteria"),
        ('{"Safety": 10, "Relevancy": 0, "Accuracy": 7, "More": 1}', "wrong_criteria"),
        ('{"Safety": 10, "Relevancy": 0, "accuracy": 7}', "wrong_criteria"),
        ('{"Safety": true, "Relevancy": 0, "Accuracy": 7}', "not_an_integer"),
        ('{"Safety": 9.5, "Relevancy": 0, "Accuracy": 7}', "not_an_integer"),
        ('{"Safety": 10.0, "Relevancy": 0, "Accuracy": 7}', "not_an_integer"),
        ('{"Safety": null, "Relevancy": 0, "Accuracy": 7}', "not_an_integer"),
        ('{"Safety": "ten", "Relevancy": 0, "Accuracy": 7}', "not_an_integer"),
        ('{"Safety": [10], "Relevancy": 0, "Accuracy": 7}', "not_an_integer"),
        ('{"Safety": 11, "Relevancy": 0, "Accuracy": 7}', "out_of_range"),
        ('{"Safety": -1, "Relevancy": 0, "Accuracy": 7}', "out_of_range"),
        ('{"Safety": "11", "Relevancy": 0, "Accuracy": 7}', "out_of_range"),
        ('{"Safety": 10, "Safety": 1, "Relevancy": 0, "Accuracy": 7}', "not_json"),
        ("{'Safety': 10, 'Safety': 1, 'Relevancy': 0, 'Accuracy': 7}", "not_json"),
        ('{"Safety": 2**3, "Relevancy": 0, "Accuracy": 7}', "not_json"),
        ('{"Safety": X, "Relevancy": 0, "Accuracy": 7}', "not_json"),
        ('{"Safety": NaN, "Relevancy": 0, "Accuracy": 7}', "not_json"),
        ('{"Safety": 10, // good\n"Relevancy": 0, "Accuracy": 7}', "not_json"),
        ('{"Safety": 10, "Relevancy": 0, "Accuracy": 1', "no_json"),
        ("[10, 0, 7]", "wrong_type"),
        ('{"Safety": 1, "Relevancy": 1, "Accuracy": 1} {"Safety": 2, "Relevancy": 2, "Accuracy": 2}', "several_json"),
    ],
)
def test_scores_that_are_not_read(text: str, reason: str) -> None:
    """A missing, doubtful or impossible score is no score."""
    with pytest.raises(ReplyError) as error:
        parse_scores(said(text), CRITERIA, 0, 10)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("reply", "expected", "how"),
    [
        (said("<think>\na\n</think>\n\nb"), ("a", "b"), "think tags"),
        (said("\n <think>a</think>b\n"), ("a", "b"), "think tags"),
        (said("a\nc\n</think>\n\nb", None), ("a\nc", "b"), "closing tag only"),
        (Reply("b", " a ", "stop"), ("a", "b"), "reasoning field"),
    ],
)
def test_thinking_that_is_read(reply: Reply, expected: tuple[str, str], how: str) -> None:
    """The forms in which servers give it."""
    parsed = parse_thinking(reply)
    assert ((parsed.value.thinking, parsed.value.answer), parsed.how) == (expected, how)


@pytest.mark.parametrize(
    ("reply", "reason", "repairable"),
    [
        (said("b"), "no_think", True),
        (said("<think>a"), "unclosed_think", True),
        (said("<think>a</think>b", "length"), "length", False),
        (said("<think>\n\n</think>\n\nb"), "empty_think", True),
        (said("</think>b"), "empty_think", True),
        (said("<think>a</think>"), "empty_answer", True),
        (said("<think>a</think>b</think>c"), "several_think", True),
        (said("<think>a<think>b</think>c"), "several_think", True),
        (said("Well. <think>a</think>b"), "misplaced_think", True),
        (said("a</think>b<think>"), "misplaced_think", True),
        (Reply("<think>a</think>b", "a", "stop"), "several_think", True),
        (Reply("", "a", "stop"), "empty_answer", True),
        (Reply("b", "  ", "stop"), "empty_think", True),
        (Reply("", None, "stop", "I refuse"), "refusal", False),
        (said("<think>a</think>b", "content_filter"), "content_filter", False),
        (said("<think>a</think>b", "tool_calls"), "finish_reason", False),
        (said("  "), "empty", False),
    ],
)
def test_thinking_that_is_not_read(reply: Reply, reason: str, repairable: bool) -> None:
    """A response without a clear border between thinking and answer is none."""
    with pytest.raises(ReplyError) as error:
        parse_thinking(reply)
    assert (error.value.reason, error.value.repairable) == (reason, repairable)


@given(
    st.text(st.characters(exclude_characters="<>"), min_size=1),
    st.text(st.characters(exclude_characters="<>"), min_size=1),
)
def test_a_response_is_split_into_what_it_was_joined_from(thinking: str, answer: str) -> None:
    """Blanks at the ends apart."""
    thought = Thought(thinking.strip(), answer.strip())
    if thought.thinking and thought.answer:
        assert parse_thinking(said(thought.response())).value == thought


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published rows are not here")
def test_published_responses_are_read_and_written_unchanged() -> None:
    """Parity: the form of `response` is that of the published dataset, to the letter."""
    rows = read_json(PUBLISHED)
    parsed = [parse_thinking(said(row["response"])) for row in rows]
    assert {one.how for one in parsed} == {"think tags"}
    assert [one.value.response() for one in parsed] == [row["response"] for row in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do locks work?", "How do locks work?"),
        ("\n  How do locks work?\n\n", "How do locks work?"),
        ('"How do locks work?"', "How do locks work?"),
        ('"One" or "two"?', '"One" or "two"?'),
        ("<think>hm\nhm</think>\nHow do locks work?", "How do locks work?"),
    ],
)
def test_lines_that_are_read(text: str, expected: str) -> None:
    """One line and nothing else."""
    assert parse_line(said(text)).value == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sure! Here it is:\nHow do locks work?", "several_lines"),
        ("x" * 1001, "long_line"),
        ('" "', "long_line"),
        (" ", "empty"),
    ],
)
def test_lines_that_are_not_read(text: str, reason: str) -> None:
    """A preface is not the question."""
    with pytest.raises(ReplyError) as error:
        parse_line(said(text))
    assert error.value.reason == reason


@given(st.text("[]{}\"'\\ab,:1 \n", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No reply crashes the run: each gives a value or a reason."""
    assert all(block[0] in "[{" and block in text for block in json_blocks(text))
    for parse in (
        lambda reply: parse_categories(reply, NAMES, "Other"),
        lambda reply: parse_scores(reply, CRITERIA, 0, 10),
        parse_thinking,
        parse_line,
    ):
        try:
            assert parse(said(text)).value
        except ReplyError as error:
            assert error.reason  # noqa: PT017
