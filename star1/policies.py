"""Policy packs: categories, policy texts, rubrics and prompts. Text is data: nothing of it stands in the code."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from star1.errors import InputError
from star1.parsing import GUARD_VERDICTS, REFUSAL_VERDICTS
from star1.records import file_digest

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
    "repair": frozenset({"problem", "reply_format"}),
}
# Which rubric the scorers' prompts show.
RUBRICS: Mapping[str, str] = {"score": "score", "benign_score": "benign"}
WRAPPED = frozenset({"question", "thinking", "answer", "response"})
# The one prompt that is the question itself: a model that answers it must see what its users write, and no more.
BARE = "benign_reason"
PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
POLICY_HEADING = "# Policy: "


class Category(BaseModel):
    """One category of harm; its policy text stands in `policies/<slug>.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, pattern=r'^[^"\n]+$')
    slug: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    definition: str = Field(min_length=1)


class Rubric(BaseModel):
    """Criteria that a response is scored on, and the range of the scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: int
    maximum: int
    criteria: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Rubric":
        if self.minimum >= self.maximum:
            raise ValueError("minimum must be below maximum")
        return self

    def text(self) -> str:
        """The criteria as the scorer reads them."""
        lines = (f"- {name}: {' '.join(meaning.split())}" for name, meaning in self.criteria.items())
        return "\n".join(lines)

    def reply_format(self) -> str:
        """The form of the scorer's reply."""
        marks = ", ".join(f'"{name}": <integer from {self.minimum} to {self.maximum}>' for name in self.criteria)
        return "{" + marks + "}"


class PackFile(BaseModel):
    """What `policy.yaml` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    categories: list[Category] = Field(min_length=1)
    other: str = Field(min_length=1)
    rubrics: dict[str, Rubric]

    @model_validator(mode="after")
    def _consistent(self) -> "PackFile":
        names = [category.name for category in self.categories]
        slugs = [category.slug for category in self.categories]
        if len(set(names)) < len(names) or len(set(slugs)) < len(slugs):
            raise ValueError("two categories share a name or a slug")
        if self.other in names:
            raise ValueError("other must not be the name of a category")
        if set(self.rubrics) != set(RUBRICS.values()):
            raise ValueError("rubrics must be exactly score and benign")
        return self


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
        }[prompt]

    def render(self, prompt: str, **values: str) -> str:
        """Fill a prompt in one pass: what is put in is never scanned for placeholders again.

        Texts of users and models stand between `[BEGIN question 0f…]` and `[END question 0f…]`. The digits are a
        digest of all such texts of the prompt, so that no text can hold its own closing line.

        Raises:
            KeyError: a placeholder of the prompt has no value.
        """
        joined = "\0".join(f"{name}\0{values[name]}" for name in sorted(values) if name in WRAPPED)
        mark = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]

        def fill(match: re.Match[str]) -> str:
            name = match[1].partition(":")[0]
            if prompt == BARE or name not in WRAPPED:
                return values[name]
            return f"[BEGIN {name} {mark}]\n{values[name]}\n[END {name} {mark}]"

        return PLACEHOLDER.sub(fill, self.prompts[prompt].text)

    def repair(self, prompt: str, problem: str) -> tuple[str, str]:
        """What is said about a reply to `prompt` that could not be read, and the digest of its template."""
        message = self.render("repair", problem=problem, reply_format=self.reply_format(prompt))
        return message, self.prompts["repair"].digest


def load_pack(folder: str | Path) -> Pack:
    """Read and check a policy pack.

    Raises:
        InputError: a file is missing or empty, a field is wrong, or a prompt has unknown or missing placeholders;
            names the file and, where there is one, the line.
    """
    folder = Path(folder)
    file = _read_pack_file(folder / "policy.yaml")
    return Pack(
        name=file.name,
        categories={category.name: category for category in file.categories},
        other=file.other,
        rubrics=file.rubrics,
        policies={one.name: _text(folder / "policies" / f"{one.slug}.md") for one in file.categories},
        prompts={name: _prompt(folder / "prompts" / f"{name}.md") for name in PLACEHOLDERS},
    )


def pack_mistakes(folder: Path) -> Iterator[str]:
    """What is wrong with a policy pack, for each of its files; where policy.yaml is, its policy texts are not known."""
    try:
        slugs = [category.slug for category in _read_pack_file(folder / "policy.yaml").categories]
    except InputError as error:
        yield str(error)
        slugs = []
    for path, read in (
        *((folder / "policies" / f"{slug}.md", _text) for slug in slugs),
        *((folder / "prompts" / f"{name}.md", _prompt) for name in PLACEHOLDERS),
    ):
        try:
            read(path)
        except InputError as error:
            yield str(error)


def _read_pack_file(path: Path) -> PackFile:
    text = _text(path)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        return PackFile.model_validate(yaml.safe_load(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}", f"not YAML ({error.problem})", "a policy pack's policy.yaml") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "policy.yaml"
        where = f"{path}:{_line(node, first['loc'])}"
        raise InputError(where, f"{place}: {first['msg']}", "the fields of a policy pack") from None


def _line(node: Any, loc: Sequence[int | str]) -> int:
    """Line of the deepest node on the way `loc` that the document has."""
    line = 1
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if step not in pairs:
                break
            key, node = pairs[step]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").rstrip()
    except FileNotFoundError:
        raise InputError(path, "no such file", "a file of the policy pack") from None
    except UnicodeDecodeError as error:
        raise InputError(path, f"not UTF-8 ({error.reason} at byte {error.start})", "text in UTF-8") from None
    if not text:
        raise InputError(path, "an empty file", "text")
    return text


def _prompt(path: Path) -> Prompt:
    """Read the prompt that the file is named after."""
    text, name = _text(path), path.stem
    expected = PLACEHOLDERS[name]
    found = set()
    for match in PLACEHOLDER.finditer(text):
        word, _, option = match[1].partition(":")
        where = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        if word not in expected:
            raise InputError(where, f"placeholder {match[0]}", "one of " + ", ".join(sorted(expected)))
        if option not in ("", "raw") or (option and name != BARE):
            # A judged text without delimiters could give orders to its judge.
            raise InputError(where, f"placeholder {match[0]}", f"{{{{{word}}}}}", f"only {BARE} takes :raw")
        found.add(word)
    if missing := sorted(expected - found):
        raise InputError(path, f"no placeholder {{{{{missing[0]}}}}}", "each of " + ", ".join(sorted(expected)))
    return Prompt(name, text, file_digest(path))
