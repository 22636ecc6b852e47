"""Prompt templates of a policy pack: what is put into each, and what can be wrong with one."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from star1.errors import InputError
from star1.yaml_files import closest, near

# What is put into each prompt. Texts that a user or a model wrote are wrapped between delimiters that they cannot know.
PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "categorize": frozenset({"definitions", "question"}),
    "reason": frozenset({"policies", "question"}),
    "score": frozenset({"policies", "rubric", "question", "thinking", "answer", "reply_format"}),
    "benign_rewrite": frozenset({"question"}),
    "benign_reason": frozenset({"question"}),
    "benign_score": frozenset({"rubric", "question", "thinking", "answer", "reply_format"}),
    "judge_refusal": frozenset({"question", "response"}),
    "judge_guard": frozenset({"definitions", "question", "response"}),
    "judge_wildguard": frozenset({"question", "response"}),
    "judge_policy": frozenset({"policies"}),
    "judge_rubric": frozenset({"question", "response"}),
    "judge_equality": frozenset({"expected", "given"}),
    "repair": frozenset({"problem", "reply_format"}),
}
# Which rubric the scorers' prompts show.
RUBRICS: Mapping[str, str] = {"score": "score", "benign_score": "benign"}
WRAPPED = frozenset({"question", "thinking", "answer", "response", "expected", "given"})
# The one prompt that is the question itself: a model that answers it must see what its users write, and no more.
BARE = "benign_reason"
PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
POLICY_HEADING = "# Policy: "

# What begins a line of its own once it is put in: delimiters, definitions and headings are told by it.
_BLOCKS = WRAPPED | {"definitions", "policies"}
_WORDS = "|".join(sorted({word for words in PLACEHOLDERS.values() for word in words}))
_BROKEN = re.compile(rf"\{{+\s*(?:{_WORDS})\b[^{{}}\n]*\}}*|\{{\{{")
_HEADING = re.compile(rf"^{POLICY_HEADING}.*$", re.MULTILINE)
_LIST = re.compile(r"\[[^\[\]{}]*\"[^\[\]{}]*\]")
_OBJECT = re.compile(r"\{[^{}]*\"[^{}]*\}")
_QUOTED = re.compile(r'"([^"\n]{3,80})"')
# Prompts in which a name in quotes is meant to be a category.
_NAMING = ("categorize", "reason", "score", "judge_guard")


@dataclass(frozen=True)
class Marks:
    """Criteria of a rubric and the range of their marks."""

    criteria: Sequence[str]
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Terms:
    """The words of a pack that its prompts and examples use; what could not be read is None or left out."""

    names: Sequence[str]
    other: str | None
    marks: Mapping[str, Marks]


def line_of(path: Path, text: str, place: int) -> str:
    """File and line of a place in its text."""
    return f"{path}:{text.count(chr(10), 0, place) + 1}"


def template_mistakes(path: Path, text: str, terms: Terms) -> Iterator[InputError]:
    """What is wrong with the prompt that a file is named after."""
    yield from _placeholder_mistakes(path, text)
    yield from heading_mistakes(path, text)
    if path.stem in _NAMING and terms.names and terms.other:
        yield from _name_mistakes(path, text, [*terms.names, terms.other])
    if path.stem == "categorize" and terms.other and f'["{terms.other}"]' not in text:
        expected = f'an example of the reply where no category applies: ["{terms.other}"]'
        yield InputError(path, f'no ["{terms.other}"]', expected)
    if (marks := terms.marks.get(RUBRICS.get(path.stem, ""))) is not None:
        for match in _OBJECT.finditer(PLACEHOLDER.sub(_blank, text)):
            yield from _example_mistakes(line_of(path, text, match.start()), match[0], marks)


def heading_mistakes(path: Path, text: str) -> Iterator[InputError]:
    """Lines that would pass for the heading of another category's policy."""
    for match in _HEADING.finditer(text):
        where = line_of(path, text, match.start())
        yield InputError(where, f"the line {match[0]!r}", "another heading: this one is set above each policy text")


def _blank(match: re.Match[str]) -> str:
    """As many characters that mean nothing, so that places stay."""
    return re.sub(r"[^\n]", " ", match[0])


def _placeholder_mistakes(path: Path, text: str) -> Iterator[InputError]:
    expected = sorted(PLACEHOLDERS[path.stem])
    found, lines = set(), text.split("\n")
    for match in PLACEHOLDER.finditer(text):
        word, _, option = match[1].partition(":")
        where = line_of(path, text, match.start())
        if word not in expected:
            yield InputError(where, f"placeholder {match[0]}", _one_of(expected), near(word, expected))
            found.update(closest(word, expected))  # one mistake, told once
        elif option not in ("", "raw") or (option and path.stem != BARE):
            # A judged text without delimiters could give orders to its judge.
            yield InputError(where, f"placeholder {match[0]}", f"{{{{{word}}}}}", f"only {BARE} takes :raw")
        elif word in _BLOCKS and path.stem != BARE and lines[int(where.rpartition(":")[2]) - 1].rstrip() != match[0]:
            yield InputError(where, f"placeholder {match[0]} within a line", "it alone on its line, from its beginning")
        found.add(word)
    for match in _BROKEN.finditer(PLACEHOLDER.sub(_blank, text)):
        where = line_of(path, text, match.start())
        yield InputError(where, f"half a placeholder, {match[0]!r}", _one_of(expected) + " between {{ and }}")
        found.update(re.findall(r"\w+", match[0]))
    if missing := [word for word in expected if word not in found]:
        told = ", ".join(f"{{{{{word}}}}}" for word in missing)
        yield InputError(path, f"no placeholder {told}", "each of " + ", ".join(expected))


def _one_of(words: Sequence[str]) -> str:
    return "one of " + ", ".join(words)


def _name_mistakes(path: Path, text: str, names: Sequence[str]) -> Iterator[InputError]:
    """Names in examples of a reply that are no category, and names in quotes that nearly are one."""
    known = {_fold(name): name for name in names}
    for match in _LIST.finditer(text):
        where = line_of(path, text, match.start())
        try:
            listed = json.loads(match[0])
        except ValueError:
            yield InputError(where, f"an example that is no JSON list, {match[0]}", 'a list such as ["A", "B"]')
            continue
        for name in (one for one in listed if one not in names):
            yield unknown_category(where, name, names)
    for match in _QUOTED.finditer(_LIST.sub(_blank, text)):
        if match[1] not in names and _fold(match[1]) in known:
            yield unknown_category(line_of(path, text, match.start()), match[1], names)


def _fold(name: str) -> str:
    return re.sub(r"[^\w/]+", "", name).casefold()


def unknown_category(where: str, name: Any, names: Sequence[str]) -> InputError:
    """A name that no category of the pack has."""
    listed = ", ".join(f'"{one}"' for one in names)
    return InputError(where, f"unknown category {name!r}", f"one of {listed}", near(str(name), names))


def _example_mistakes(where: str, text: str, marks: Marks) -> Iterator[InputError]:
    """What is wrong with an example of a scorer's reply."""
    try:
        example = json.loads(text)
    except ValueError:
        yield InputError(where, f"an example that is no JSON object, {text!r}", "one such as the reply should be")
        return
    for name in (one for one in example if one not in marks.criteria):
        found = f"criterion {name!r} in the example"
        yield InputError(where, found, f"the rubric's: {', '.join(marks.criteria)}", near(name, marks.criteria))
    if missing := [name for name in marks.criteria if name not in example]:
        yield InputError(where, f"an example without {', '.join(missing)}", "each criterion of the rubric")
    for name, mark in example.items():
        whole = isinstance(mark, int) and not isinstance(mark, bool)
        if name in marks.criteria and not (whole and marks.minimum <= mark <= marks.maximum):
            expected = f"an integer from {marks.minimum} to {marks.maximum}"
            yield InputError(where, f"{name}: {mark!r} in the example", expected)
