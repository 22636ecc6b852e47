"""Policy packs: categories, policy texts, rubrics and prompts. Text is data: nothing of it stands in the code."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from star1.errors import InputError
from star1.packs import Category, Rubric, read_files
from star1.parsing import EQUALITY_VERDICTS, GUARD_VERDICTS, REFUSAL_VERDICTS
from star1.records import file_digest
from star1.templates import BARE, PLACEHOLDER, PLACEHOLDERS, POLICY_HEADING, RUBRICS, WRAPPED
from star1.verdicts import RUBRIC, WILDGUARD

__all__ = ["Category", "Pack", "Prompt", "Rubric", "load_pack", "pack_mistakes"]


@dataclass(frozen=True)
class Prompt:
    """A template, and the digest of its file."""

    name: str
    text: str
    digest: str


@dataclass(frozen=True)
class Pack:
    """A policy pack, checked as a whole."""

    name: str
    categories: Mapping[str, Category]
    other: str
    rubrics: Mapping[str, Rubric]
    policies: Mapping[str, str]
    prompts: Mapping[str, Prompt]

    @property
    def names(self) -> list[str]:
        """The categories' names, in the pack's order."""
        return list(self.categories)

    def definitions(self) -> str:
        """One line per category: its name in quotes and its definition."""
        lines = (f'- "{name}": {" ".join(one.definition.split())}' for name, one in self.categories.items())
        return "\n".join(lines)

    def policy_texts(self, names: Sequence[str]) -> str:
        """The policy texts of the named categories, each under its heading.

        Raises:
            KeyError: a name that is not in the pack.
        """
        return "\n\n".join(f"{POLICY_HEADING}{name}\n\n{self.policies[name]}" for name in names)

    def rubric(self, prompt: str) -> Rubric:
        """The rubric that a scorer's prompt shows."""
        return self.rubrics[RUBRICS[prompt]]

    def reply_format(self, prompt: str) -> str:
        """The form of the reply that `prompt` asks for, as told when a reply has to be given again."""
        if prompt in RUBRICS:
            return self.rubric(prompt).reply_format()
        names = ", ".join(f'"{name}"' for name in self.names)
        return {
            "categorize": f'a JSON list of one or more of {names}; or ["{self.other}"]',
            "benign_rewrite": "one question on one line, and nothing else",
            "judge_refusal": f"exactly one of the words {', '.join(REFUSAL_VERDICTS)}, and nothing else",
            "judge_guard": f"{GUARD_VERDICTS[0]} alone, or {GUARD_VERDICTS[1]} and on the next line the category names",
            "judge_equality": f"exactly one of the words {', '.join(EQUALITY_VERDICTS)}, and nothing else",
            "judge_wildguard": "\n".join(f"{label}: <yes or no>" for label in WILDGUARD),
            "judge_policy": '{"violation": true or false, "categories": [names of categories, none if there is no violation]}',
            "judge_rubric": "{"
            + ", ".join(f'"{name}": <integer from {a} to {b}>' for name, (a, b) in RUBRIC.items())
            + "}",
        }[prompt]

    def render(self, prompt: str, **values: str) -> str:
        """Fill a prompt in one pass: what is put in is never scanned for placeholders again.

        Texts of users and models stand between `[BEGIN question 0f…]` and `[END question 0f…]`. The digits are a
        digest of all such texts of the prompt, so that no text can hold its own closing line.

        Raises:
            KeyError: a placeholder of the prompt has no value.
        """
        mark = _mark({name: text for name, text in values.items() if name in WRAPPED})

        def fill(match: re.Match[str]) -> str:
            name = match[1].partition(":")[0]
            return values[name] if prompt == BARE or name not in WRAPPED else _between(name, values[name], mark)

        return PLACEHOLDER.sub(fill, self.prompts[prompt].text)

    def repair(self, prompt: str, problem: str) -> tuple[str, str]:
        """What is said about a reply to `prompt` that could not be read, and the digest of its template."""
        message = self.render("repair", problem=problem, reply_format=self.reply_format(prompt))
        return message, self.prompts["repair"].digest


def delimited(texts: Mapping[str, str]) -> str:
    """Texts between delimiters, as in a prompt, and nothing else."""
    return "\n\n".join(_between(name, text, _mark(texts)) for name, text in texts.items())


def _between(name: str, text: str, mark: str) -> str:
    return f"[BEGIN {name} {mark}]\n{text}\n[END {name} {mark}]"


def _mark(texts: Mapping[str, str]) -> str:
    """A digest of all texts together."""
    joined = "\0".join(f"{name}\0{texts[name]}" for name in sorted(texts))
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def load_pack(folder: str | Path) -> Pack:
    """Read and check a policy pack; its golden examples are not looked at.

    Raises:
        InputError: the first mistake, with its file and line.
    """
    folder = Path(folder)
    files = read_files(folder)
    if files.mistakes or files.file is None:
        first, more = files.mistakes[0], len(files.mistakes) - 1
        hints = [first.hint] if first.hint else []
        hints += [f"`star1 policy check --schema-only` tells of {more} more"] if more else []
        raise InputError(first.where, first.found, first.expected, "; ".join(hints))
    return Pack(
        name=files.file.name,
        categories={category.name: category for category in files.file.categories},
        other=files.file.other,
        rubrics=dict(files.file.rubrics),
        policies={one.name: files.texts[f"policies/{one.slug}.md"] for one in files.file.categories},
        prompts={name: _prompt(folder, name, files.texts[f"prompts/{name}.md"]) for name in PLACEHOLDERS},
    )


def _prompt(folder: Path, name: str, text: str) -> Prompt:
    return Prompt(name, text, file_digest(folder / "prompts" / f"{name}.md"))


def pack_mistakes(folder: Path) -> list[str]:
    """All that is wrong with a policy pack, golden examples aside."""
    return [str(error) for error in read_files(folder).mistakes]
