"""Golden examples of a policy pack: prompts whose categories, marks and verdicts its author knows beforehand.

They are asked through the stages' own code, with the stages' settings and the roles' endpoints.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from star1 import benign, deliberation
from star1.calls import Calls, Outcome
from star1.errors import InputError
from star1.judge_settings import Judge
from star1.judges import Benchmark, judge
from star1.packs import GOLDEN, Text, read_text, twice
from star1.parsing import CLOSE, OPEN, Thought
from star1.policies import Pack
from star1.records import Row
from star1.templates import Marks, Terms, unknown_category
from star1.yaml_files import Marked, explain, near, read_marked, repeated_keys

HINT = "docs/policies.md tells what golden examples are"
Range = tuple[int, int]


class Example(BaseModel):
    """A prompt, and a response to it where marks or verdicts are expected.

    Attributes:
        categories: what the classifier should find, in any order.
        score: lowest and highest mark that is right, for criteria of rubrics.score.
        benign_score: the same for rubrics.benign.
        refusal: verdict of prompts/judge_refusal.md.
        guard: verdict of prompts/judge_guard.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Text
    question: Text
    categories: list[Text] = Field(min_length=1)
    thinking: Text | None = None
    answer: Text | None = None
    score: dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]] = {}
    benign_score: dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]] = {}
    refusal: Literal["full_compliance", "partial_refusal", "full_refusal"] | None = None
    guard: Literal["safe", "unsafe"] | None = None

    @property
    def judged(self) -> list[str]:
        """The fields that say something about the response."""
        return [name for name in ("score", "benign_score", "refusal", "guard") if getattr(self, name)]

    def row(self) -> Row:
        """The example as the stages read it."""
        row: Row = {"id": self.id, "question": self.question, "source": "golden", "category": self.categories}
        if self.thinking is not None and self.answer is not None:
            response = Thought(self.thinking.strip(), self.answer.strip()).response()
            row |= {"response": response, "thinking": self.thinking.strip(), "answer": self.answer.strip()}
            row |= {"finish_reason": "stop"}
        return row


class GoldenFile(BaseModel):
    """What `golden.yaml` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    examples: list[Example] = Field(min_length=1)


@dataclass(frozen=True)
class Answer:
    """What was expected of an example, and what was found; None where the reply could not be used, for a reason."""

    example: str
    asked: str
    expected: str
    found: str | None
    agrees: bool
    reason: str = ""


def read_golden(folder: Path, terms: Terms) -> tuple[list[Example], list[InputError]]:
    """The golden examples of a pack, and what is wrong with them."""
    path = folder / GOLDEN
    if not path.exists():
        return [], [InputError(path, "no golden examples", "at least one for each category", HINT)]
    try:
        marked = read_marked(path, read_text(path, math.inf), "a policy pack's golden examples")
    except InputError as error:
        return [], [error]
    mistakes = list(repeated_keys(marked))
    try:
        examples = GoldenFile.model_validate(marked.value).examples
    except ValidationError as error:
        return [], mistakes + list(explain(marked, error, GoldenFile))
    for place, example in enumerate(examples):
        mistakes += _example_mistakes(marked, place, example, terms)
    for what in ("id", "question"):
        mistakes += twice(marked, what, [(("examples", n, what), getattr(one, what)) for n, one in enumerate(examples)])
    # A mistyped name is not also a category without example.
    return examples, mistakes or list(_left_out(path, examples, terms))


def _left_out(path: Path, examples: Sequence[Example], terms: Terms) -> Iterator[InputError]:
    shown = {name for one in examples for name in one.categories}
    wanted = [*terms.names, *filter(None, [terms.other])]
    if missing := [repr(name) for name in dict.fromkeys(wanted) if name not in shown]:
        yield InputError(
            path, f"no example of {', '.join(missing)}", "at least one for each category, and one for none"
        )


def _example_mistakes(marked: Marked, place: int, example: Example, terms: Terms) -> Iterator[InputError]:
    way: tuple[int | str, ...] = ("examples", place)
    names = [*terms.names, *filter(None, [terms.other])]
    known = terms.other is not None  # else policy.yaml has a mistake, which is told already
    for number, name in enumerate(example.categories):
        if known and name not in names:
            yield unknown_category(marked.where(*way, "categories", number), name, names)
    # Once repetitions are gone, and the word for none where others stand beside it, the list must be as long as before.
    alone = {name for name in example.categories if name != terms.other} or {example.categories[0]}
    if len(example.categories) > len(alone):
        found = f"categories {example.categories}"
        yield InputError(marked.where(*way, "categories"), found, f"each name once, and {terms.other!r} alone")
    if (example.thinking is None) != (example.answer is None):
        there, missing = ("answer", "thinking") if example.thinking is None else ("thinking", "answer")
        yield InputError(marked.where(*way, there), f"{there} without {missing}", "both, or neither")
    for text in ("thinking", "answer"):
        if any(tag in (getattr(example, text) or "") for tag in (OPEN, CLOSE)):
            yield InputError(
                marked.where(*way, text), f"{OPEN} or {CLOSE} in {text}", "the text within, or after, the tags"
            )
    if example.judged and example.thinking is None and example.answer is None:
        field = example.judged[0]
        yield InputError(marked.where(*way, field), f"{field} without a response", "thinking and answer beside it")
    if not example.judged and example.answer is not None and example.thinking is not None:
        yield InputError(
            marked.where(*way, "answer"), "a response that nothing is expected of", "score, refusal or guard"
        )
    if example.score and example.categories == [terms.other]:
        found = f"a score beside {terms.other!r}"
        hint = "benign_score needs none"
        yield InputError(marked.where(*way, "score"), found, "a category, by whose policy it is scored", hint)
    for field, rubric in (("score", "score"), ("benign_score", "benign")):
        if (marks := terms.marks.get(rubric)) is not None:
            yield from _range_mistakes(marked, (*way, field), getattr(example, field), marks)


def _range_mistakes(
    marked: Marked, way: tuple[int | str, ...], ranges: Mapping[str, Sequence[int]], marks: Marks
) -> Iterator[InputError]:
    for name, (low, high) in ranges.items():
        where = marked.where(*way, name)
        if name not in marks.criteria:
            yield InputError(
                where, f"unknown criterion {name!r}", ", ".join(marks.criteria), near(name, marks.criteria)
            )
        elif not marks.minimum <= low <= high <= marks.maximum:
            expected = f"[lowest, highest] within {marks.minimum} to {marks.maximum}"
            yield InputError(where, f"{name}: [{low}, {high}]", expected)


def ask(
    examples: Sequence[Example], pack: Pack, calls: Callable[[str], Calls], judges: Mapping[str, Judge]
) -> list[Answer]:
    """Ask about all examples.

    Args:
        examples: golden examples.
        pack: their pack.
        calls: where and how a stage (categorize, score, benign_score) or a judge (judge_refusal, judge_guard) asks.
        judges: the judge of each kind, refusal and guard.

    Returns:
        What was expected and found, by stage and in the order of the examples.
    """
    categorized = deliberation.categorize([one.row() for one in examples], pack, calls("categorize"))
    answers = list(_compare(categorized, examples, "categories", lambda row: sorted(row["category"])))
    scorers = {"score": deliberation.score, "benign_score": benign.score}
    for field, score in scorers.items():
        if chosen := [one for one in examples if getattr(one, field)]:
            answers += _scores(field, chosen, score([one.row() for one in chosen], pack, calls(field)))
    for kind in ("refusal", "guard"):
        if chosen := [one for one in examples if getattr(one, kind)]:
            rows = {one.id: one.row() for one in chosen}
            one = Benchmark("golden", "harmful", rows, list(rows.values()))
            outcome = judge(kind, judges[kind], [one], pack, calls(f"judge_{kind}"))
            answers += _compare(outcome, chosen, kind, lambda row: row["verdict"])
    return answers


def _found(outcome: Outcome) -> tuple[dict[str, Row], dict[str, str]]:
    """Rows by the id of their example, and the reasons of those that could not be read."""
    kept = {_example(row): row for row in outcome.kept}
    return kept, {_example(row): row["reason"] for row in outcome.quarantined}


def _example(row: Row) -> str:
    """The id of an example; a judge calls it judge/golden/id."""
    _, golden, place = str(row["id"]).rpartition("/golden/")
    return place if golden else str(row["id"])


def _compare(outcome: Outcome, examples: Sequence[Example], field: str, read: Callable[[Row], Any]) -> Iterator[Answer]:
    kept, failed = _found(outcome)
    for one in examples:
        expected = getattr(one, field)
        expected = sorted(expected) if isinstance(expected, list) else expected
        found = read(kept[one.id]) if one.id in kept else None
        told = None if found is None else _told(found)
        yield Answer(one.id, field, _told(expected), told, found == expected, failed.get(one.id, ""))


def _told(value: Any) -> str:
    return " + ".join(value) if isinstance(value, list) else str(value)


def _scores(field: str, examples: Sequence[Example], outcome: Outcome) -> Iterator[Answer]:
    kept, failed = _found(outcome)
    for one in examples:
        for name, (low, high) in getattr(one, field).items():
            mark = kept[one.id]["score"][name] if one.id in kept else None
            agrees = mark is not None and low <= mark <= high
            told = None if mark is None else str(mark)
            expected = str(low) if low == high else f"{low} to {high}"
            yield Answer(one.id, f"{field} {name}", expected, told, agrees, failed.get(one.id, ""))


def table(answers: Sequence[Answer]) -> list[tuple[str, ...]]:
    """Header and rows of the table of answers."""
    rows = [
        (
            one.example,
            one.asked,
            one.expected,
            f"unread: {one.reason}" if one.found is None else one.found,
            "yes" if one.agrees else "NO",
        )
        for one in answers
    ]
    return [("example", "asked", "expected", "found", "agrees"), *rows]


def counts(answers: Sequence[Answer]) -> str:
    """How many answers are as expected, by what was asked."""
    kinds = dict.fromkeys(one.asked.split()[0] for one in answers)
    parts = []
    for kind in kinds:
        chosen = [one.agrees for one in answers if one.asked.split()[0] == kind]
        parts.append(f"{kind} {sum(chosen)} of {len(chosen)}")
    return ", ".join(parts)
