"""The kinds of judges: what each is asked, and how its reply is read.

Texts that are judged come between delimiters that they cannot know, or, for models with a chat template of their own, as the
turns of a conversation; in both, control tokens in them are made inert.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from star1.errors import InputError
from star1.inert import inert
from star1.judge_settings import PROMPTED, THRESHOLD, Judge
from star1.llm import Request
from star1.packs import read_text
from star1.parsing import Parsed
from star1.policies import Pack, delimited
from star1.records import file_digest
from star1.replies import Reply
from star1.verdicts import (
    Verdict,
    parse_equality,
    parse_guard,
    parse_llama_guard,
    parse_policy,
    parse_qwen3guard,
    parse_refusal,
    parse_rubric,
    parse_rubric_lines,
    parse_wildguard,
)

# In place of the digest of a prompt's file.
SERVED = "the server's chat template"
SLOT = re.compile(r"\{\{\s*(question|response)\s*\}\}")

Parse = Callable[[Reply], Parsed[Verdict]]
Repair = Callable[[str], tuple[str, str]]
PARSERS: Mapping[str, Parse] = {
    "refusal": parse_refusal,
    "guard": parse_guard,
    "llama_guard": parse_llama_guard,
    "wildguard": parse_wildguard,
    "qwen3guard": parse_qwen3guard,
    "equality": parse_equality,
}


def prompt_name(how: Judge) -> str | None:
    """The policy pack's prompt that a judge is asked with; None for a model with a prompt of its own."""
    return f"judge_{how.kind}" if how.kind in PROMPTED and how.template is None else None


def parser(how: Judge, pack: Pack) -> Parse:
    """What reads the replies of a judge."""
    if how.kind == "policy":
        return partial(parse_policy, names=pack.names)
    if how.kind == "rubric":
        read = parse_rubric if how.template is None else parse_rubric_lines
        return partial(read, threshold=how.threshold or THRESHOLD)
    return PARSERS[how.kind]


def repair(how: Judge, pack: Pack) -> Repair | None:
    """What asks for a reply again; None where the model would take it for more of the conversation that it judges."""
    name = prompt_name(how)
    return None if name is None else lambda problem: pack.repair(name, problem)


def request(item: str, how: Judge, pack: Pack, question: str, shown: str) -> Request:
    """What a judge is asked about an answer.

    Args:
        item: id of the row.
        how: the judge.
        pack: the policy pack.
        question: what the model was asked; for `equality` the expected answer.
        shown: the judge's view of the response; for `equality` the answer that it gives.

    Raises:
        InputError: the judge's template cannot be used.
    """
    question, shown = inert(question), inert(shown)
    name, role = prompt_name(how), f"judge_{how.kind}"
    if name is not None:
        return Request(item, role, _prompted(name, how, pack, question, shown), pack.prompts[name].digest)
    if how.template is not None:
        text, digest = read_template(how.template)
        values = {"question": question, "response": shown}
        filled = SLOT.sub(lambda match: values[match[1]], text)
        return Request(item, role, ({"role": "user", "content": filled},), digest)
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": shown})
    return Request(item, role, turns, f"{how.kind}: {SERVED}")


def _prompted(name: str, how: Judge, pack: Pack, question: str, shown: str) -> tuple[Mapping[str, str], ...]:
    """The messages of a judge with a prompt of the policy pack; the policy itself is the system's part."""
    if how.kind == "policy":
        system = pack.render(name, policies=pack.policy_texts(pack.names))
        user = delimited({"question": question, "response": shown})
        return {"role": "system", "content": system}, {"role": "user", "content": user}
    values = {"question": question, "response": shown}
    if how.kind == "equality":
        values = {"expected": question, "given": shown}
    if how.kind == "guard":
        values["definitions"] = pack.definitions()
    return ({"role": "user", "content": pack.render(name, **values)},)


@cache
def read_template(path: str) -> tuple[str, str]:
    """A model's own prompt with places for question and response, and the digest of its file.

    Raises:
        InputError: no such file, or it has not both places.
    """
    text = read_text(Path(path))
    if {match[1] for match in SLOT.finditer(text)} != {"question", "response"}:
        raise InputError(path, "a template without both places", "{{question}} and {{response}} in it")
    return text, file_digest(path)
