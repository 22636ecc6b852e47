"""Model replies to values, strictly: a reply that cannot be read says why, and nothing is guessed."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from star1.replies import Reply

T = TypeVar("T")

OPEN, CLOSE = "<think>", "</think>"
REFUSAL_VERDICTS = ("full_compliance", "partial_refusal", "full_refusal")
GUARD_VERDICTS = ("safe", "unsafe")
EQUALITY_VERDICTS = ("equal", "different")
LONGEST_LINE = 1000
SHOWN = 200
# Faults of form can be put right by asking again; a reply that was cut off or filtered cannot.
NOT_REPAIRABLE = frozenset({"length", "content_filter", "refusal", "empty", "too_large"})


class ReplyError(Exception):
    """A row's reply is missing or cannot be read; the row goes to quarantine.

    Attributes:
        reason: one word that is counted.
        detail: what was found, in a sentence.
        reply: the raw reply.
    """

    def __init__(self, reason: str, detail: str, reply: str = "", repairable: bool | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.reply = reason, detail, reply
        self.repairable = reason not in NOT_REPAIRABLE if repairable is None else repairable


class NoReplyError(ReplyError):
    """No reply came, and there is nothing to read; the next run asks again."""


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """A value, and how it was read out of the reply."""

    value: T
    how: str


@dataclass(frozen=True)
class Thought:
    """A response in its two parts."""

    thinking: str
    answer: str

    def response(self) -> str:
        """The form of the published rows: `<think>`, the thinking, `</think>`, an empty line, the answer."""
        return f"{OPEN}\n{self.thinking}\n{CLOSE}\n\n{self.answer}"


def finished(reply: Reply) -> str:
    """The text of a reply that the model brought to its end.

    Raises:
        ReplyError: cut off, filtered, refused or without text.
    """
    if reply.finish_reason == "length":
        raise ReplyError("length", "the reply was cut off at the token limit", reply.content)
    if reply.finish_reason == "content_filter":
        raise ReplyError("content_filter", "the provider's filter stopped the reply", reply.content)
    if reply.refusal:
        raise ReplyError("refusal", "the model refused: " + reply.refusal[:SHOWN], reply.content)
    if reply.finish_reason not in ("stop", None):
        raise ReplyError("finish_reason", f"the reply ended with {reply.finish_reason!r}", reply.content, False)
    if not reply.content.strip() and not reply.reasoning_content:
        raise ReplyError("empty", "the reply has no text", reply.content)
    return reply.content


def final_text(reply: Reply) -> str:
    """What stands outside the thinking, for roles whose thinking is of no interest.

    Raises:
        ReplyError: unfinished, or nothing outside the thinking.
    """
    text = finished(reply)
    if OPEN in text and CLOSE not in text:
        raise ReplyError("unclosed_think", f"{OPEN} without {CLOSE}", reply.content)
    text = text.rpartition(CLOSE)[2].strip()
    if not text:
        raise ReplyError("empty_answer", "no text outside the thinking", reply.content)
    return text


def parse_thinking(reply: Reply) -> Parsed[Thought]:
    """Thinking and answer, from tags in the text, from the closing tag alone, or from the reasoning field.

    Raises:
        ReplyError: `no_think`, `empty_think`, `unclosed_think`, `several_think`, `misplaced_think`, `empty_answer`,
            or an unfinished reply.
    """
    text = finished(reply)
    opened, closed = _tags(text)
    if reply.reasoning_content is not None:
        if opened or closed:
            raise ReplyError("several_think", "thinking both in its own field and in the text", text)
        return Parsed(_thought(reply.reasoning_content, text, text), "reasoning field")
    if opened > 1 or closed > 1:
        raise ReplyError("several_think", f"{opened} times {OPEN} and {closed} times {CLOSE}", text)
    if not closed:
        raise ReplyError("unclosed_think" if opened else "no_think", f"no {CLOSE} in the reply", text)
    head, _, answer = text.partition(CLOSE)
    before, tag, thinking = head.partition(OPEN) if opened else ("", "", head)
    if before.strip() or OPEN in answer:
        raise ReplyError("misplaced_think", f"text before {OPEN}, or {OPEN} after {CLOSE}", text)
    # Some chat templates put the opening tag into the prompt: the reply then starts within the thinking.
    return Parsed(_thought(thinking, answer, text), "think tags" if tag else "closing tag only")


def _tags(text: str) -> tuple[int, int]:
    """How often thinking is opened and closed."""
    if text.count("think>") == 2 and text.startswith(OPEN) and CLOSE in text:  # nearly always, and found in one look
        return 1, 1
    return text.count(OPEN), text.count(CLOSE)


def _thought(thinking: str, answer: str, raw: str) -> Thought:
    thought = Thought(thinking.strip(), answer.strip())
    if not thought.thinking:
        raise ReplyError("empty_think", "nothing within the thinking", raw)
    if not thought.answer:
        raise ReplyError("empty_answer", "nothing after the thinking", raw)
    return thought


def parse_categories(reply: Reply, names: Sequence[str], other: str) -> Parsed[list[str]]:
    """A list of category names.

    Raises:
        ReplyError: `no_json`, `several_json`, `not_json`, `wrong_type`, `no_names`, `unknown_name`, `repeated_name`,
            `other_not_alone`, or an unfinished reply.
    """
    value, how = _one_value(final_text(reply), reply.content)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ReplyError("wrong_type", "expected a JSON list of category names", reply.content)
    if not value:
        raise ReplyError(
            "no_names", f"the list is empty; expected at least one name, or {other!r} alone", reply.content
        )
    if unknown := [name for name in value if name not in (*names, other)]:
        detail = f"{unknown[0][:SHOWN]!r} is not a category; the names are {', '.join((*names, other))}"
        raise ReplyError("unknown_name", detail, reply.content)
    if len(set(value)) < len(value):
        raise ReplyError("repeated_name", "a category is named twice", reply.content)
    if other in value and len(value) > 1:
        raise ReplyError("other_not_alone", f"{other!r} stands beside other categories", reply.content)
    return Parsed(value, how)


def parse_scores(reply: Reply, criteria: Sequence[str], minimum: int, maximum: int) -> Parsed[dict[str, int]]:
    """One integer per criterion, in the order of `criteria`.

    A number in quotes is read as the number it is; a decimal number, true or false is not.

    Raises:
        ReplyError: `no_json`, `several_json`, `not_json`, `wrong_type`, `wrong_criteria`, `not_an_integer`,
            `out_of_range`, or an unfinished reply.
    """
    value, how = _one_value(final_text(reply), reply.content)
    if not isinstance(value, dict):
        raise ReplyError("wrong_type", "expected a JSON object of criteria and integers", reply.content)
    if set(value) != set(criteria):
        raise ReplyError("wrong_criteria", f"expected exactly the criteria {', '.join(criteria)}", reply.content)
    scores = {}
    for name in criteria:
        score = value[name]
        if isinstance(score, str) and re.fullmatch(r"[0-9]{1,3}", score.strip()):
            score, how = int(score), f"{how.removesuffix(', number in quotes')}, number in quotes"
        if isinstance(score, bool) or not isinstance(score, int):
            raise ReplyError("not_an_integer", f"{name} is {str(score)[:SHOWN]!r}, not an integer", reply.content)
        if not minimum <= score <= maximum:
            raise ReplyError("out_of_range", f"{name} is {score}, not from {minimum} to {maximum}", reply.content)
        scores[name] = score
    return Parsed(scores, how)


def parse_line(reply: Reply) -> Parsed[str]:
    """A reply of one line, such as a rewritten question; a pair of double quotes around it is taken off.

    Raises:
        ReplyError: `several_lines`, `long_line`, or an unfinished reply.
    """
    text = final_text(reply)
    if len(lines := [line.strip() for line in text.splitlines() if line.strip()]) > 1:
        raise ReplyError("several_lines", f"{len(lines)} lines; expected one line and nothing else", reply.content)
    line, how = lines[0], "line"
    if len(line) > 2 and line[0] == line[-1] == '"' and '"' not in line[1:-1]:
        line, how = line[1:-1].strip(), "line in quotes"
    if not line or len(line) > LONGEST_LINE:
        raise ReplyError("long_line", f"{len(line)} characters; expected 1 to {LONGEST_LINE}", reply.content)
    return Parsed(line, how)


def _one_value(text: str, raw: str) -> tuple[Any, str]:
    """The value of the one JSON block in `text`, and how it was read."""
    blocks = json_blocks(text)
    if not blocks:
        raise ReplyError("no_json", "no complete JSON list or object in the reply", raw)
    if len(blocks) > 1:
        raise ReplyError("several_json", f"{len(blocks)} JSON blocks; expected exactly one", raw)
    block = blocks[0]
    for how, candidate in (("json", block), ("trailing comma", re.sub(r",(\s*[\]}])", r"\1", block))):
        try:
            return json.loads(candidate, object_pairs_hook=_unique, parse_constant=_no_constant), how
        except (ValueError, RecursionError):
            continue
    try:
        return _literal(block), "python literal"
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ReplyError("not_json", "the block in the reply is not JSON", raw) from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _literal(block: str) -> Any:
    """A Python literal with plain values (lists, dicts, texts in single quotes, numbers); nothing is computed."""
    tree = ast.parse(block, mode="eval")
    plain = (ast.Expression, ast.List, ast.Dict, ast.Constant, ast.Load)
    if not all(isinstance(node, plain) for node in ast.walk(tree)):
        raise ValueError("more than a literal")
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _unique([(ast.dump(key), None) if key else ("", None) for key in node.keys])
    return ast.literal_eval(tree)


def json_blocks(text: str) -> list[str]:
    """Top-level spans of balanced brackets or braces, quoted text respected within them."""
    blocks: list[str] = []
    stack: list[str] = []
    start, quote, skip = 0, "", -1
    for token in re.finditer(r"""[\[\]{}"'\\]""", text):
        mark, place = token.group(), token.start()
        if place == skip or (mark in "\"'\\" and not stack):
            continue  # an escaped character, or an apostrophe in the prose around the block
        if mark == "\\":
            skip = place + 1
        elif mark in "\"'":
            quote = mark if not quote else "" if mark == quote else quote
        elif quote:
            continue
        elif mark in "[{":
            start = start if stack else place
            stack.append("]" if mark == "[" else "}")
        elif stack:
            if stack.pop() != mark:
                return []
            if not stack:
                blocks.append(text[start : place + 1])
    return [] if stack else blocks
