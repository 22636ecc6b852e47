"""Verdicts of reasoning benchmarks: one way in, to the grader that the benchmark's row names; no model is asked.

What each grader takes for an answer, and what it does not defend against, stands in docs/graders.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Literal

from star1.errors import InputError
from star1.graders import letters, mathematics, programs
from star1.records import Row
from star1.sandbox import NoSandboxError, Sandbox, check

# Names with versions, raised when a grader's verdicts change.
LETTERS, PROGRAMS = "letters 1", "programs 1"
NO_SANDBOX = "no sandbox for programs"


@dataclass(frozen=True)
class Graded:
    """What a grader says about an answer.

    Attributes:
        verdict: correct, incorrect, or None where the answer could not be put to the test through no fault of its own.
        reason: how the verdict was found, or why there is none.
        detail: what was taken for the answer, as far as there is something to tell.
    """

    verdict: Literal["correct", "incorrect"] | None
    reason: str
    detail: Row = field(default_factory=dict)


def grader_of(row: Row) -> str:
    """The kind of a row's grader: math, choice or code."""
    return str(row.get("grader", "math"))


def label(row: Row) -> str:
    """Name and version of a row's grader."""
    return {"math": mathematics.version(), "choice": LETTERS, "code": PROGRAMS}.get(grader_of(row), grader_of(row))


def check_sandbox(rows: Iterable[Row], sandbox: Sandbox) -> None:
    """See that programs can be run, where there will be some and the stage is to fail without: before anybody is asked.

    Raises:
        NoSandboxError: they cannot.
    """
    strict = sandbox.if_missing == "fail" and sandbox.unsandboxed_code is None
    if strict and any(grader_of(row) == "code" for row in rows if row.get("purpose") == "reasoning"):
        check()


def grade(row: Row, text: str, sandbox: Sandbox | None = None) -> Graded:
    """Grade the answer to a benchmark's row.

    Args:
        row: the row, with `answer` and, by its `grader`, `choices`, or `tests` and `entry_point`.
        text: the answer without its thinking.
        sandbox: how programs are run; by default confined, and where they cannot be the stage fails.

    Raises:
        InputError: the row lacks what its grader needs.
        NoSandboxError: a program has to be run, there is no sandbox, and nobody said what then.
    """
    graders: dict[str, Callable[[], Graded]] = {
        "math": lambda: _mathematics(row, text),
        "choice": lambda: _letter(row, text),
        "code": lambda: _program(row, text, sandbox or Sandbox()),
    }
    if (kind := grader_of(row)) not in graders:
        raise InputError(_place(row), f"grader {kind!r}", ", ".join(graders))
    return graders[kind]()


def _place(row: Row) -> str:
    return f"benchmark {row.get('benchmark')}, row {row.get('id')}"


def _text(row: Row, name: str) -> str:
    if not isinstance(found := row.get(name), str) or not found.strip():
        raise InputError(_place(row), f"no {name}", f"{name} for every problem")
    return found


def _word(right: bool) -> Literal["correct", "incorrect"]:
    return "correct" if right else "incorrect"


def _mathematics(row: Row, text: str) -> Graded:
    right, how, given = mathematics.grade(text, _text(row, "answer"))
    return Graded(None if right is None else _word(right), how, {"given": given})


def compared(row: Row, text: str) -> tuple[str, str] | None:
    """What a model is asked to compare in place of the grader: the expected answer and the given one.

    None where the row is not of mathematics, or the text gives nothing.

    Raises:
        InputError: the row lacks its answer.
    """
    if grader_of(row) != "math" or not (given := mathematics.given_in(text)):
        return None
    return _text(row, "answer"), given


def _letter(row: Row, text: str) -> Graded:
    choices, answer = row.get("choices"), _text(row, "answer")
    if not isinstance(choices, list) or answer not in list(ascii_uppercase[: len(choices)]):
        raise InputError(_place(row), f"answer {answer!r} to {choices!r}"[:200], "choices, and the letter of one")
    given, how = letters.extract(text, len(choices))
    if given is None and (given := letters.by_text(text, choices)):
        how = "boxed text of a choice"
    return Graded(_word(given == answer), how, {"given": given})


def _program(row: Row, text: str, sandbox: Sandbox) -> Graded:
    program = programs.program_of(text, _text(row, "question"), _text(row, "entry_point"))
    _text(row, "tests")
    try:
        if sandbox.unsandboxed_code is None:
            check()  # first: were answers without a program wrong, and the others unscored, what is left would be all wrong
        if program is None:
            return Graded("incorrect", "no program in the answer")
        right, how = programs.passes(row, program, sandbox)
    except NoSandboxError:
        if sandbox.if_missing == "fail":
            raise
        return Graded(None, NO_SANDBOX)
    return Graded(_word(right), "all tests passed" if right else how)
