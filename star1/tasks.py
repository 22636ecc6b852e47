r"""What a model is asked: the question alone, or for a reasoning set the question and how the answer is to be given.

The wording is ours, and one for each grader, so that a set is asked in the way in which it is read. The question of a row
stays as it is in the row: that is what contamination is measured on.
"""

from collections.abc import Callable
from string import ascii_uppercase

from star1.errors import InputError
from star1.records import Row

# Raised when the wording changes, since answers to another wording are other answers.
VERSION = 1

MATHEMATICS = "Work the problem out step by step. Then give the final answer, and nothing else, in \\boxed{{}}."
CHOICE = (
    "Choose from these answers:\n\n{choices}\n\n"
    "Think it through first. Then end with one line that gives the letter of your choice alone, in this form: Answer: X"
)
CODE = (
    "Complete this Python function so that it does what its description says.\n\n```python\n{question}\n```\n\n"
    "Give the whole function with the imports it needs, and nothing else, in one block that begins with ```python and ends "
    "with ```."
)


def _mathematics(row: Row) -> str:
    return f"{row['question']}\n\n{MATHEMATICS.format()}"


def _choice(row: Row) -> str:
    lettered = zip(ascii_uppercase, row["choices"], strict=False)
    return (
        f"{row['question']}\n\n{CHOICE.format(choices=chr(10).join(f'{letter}) {text}' for letter, text in lettered))}"
    )


def _code(row: Row) -> str:
    return CODE.format(question=row["question"].rstrip())


PROMPTS: dict[str, Callable[[Row], str]] = {"math": _mathematics, "choice": _choice, "code": _code}


def prompt_of(row: Row) -> str:
    """What a model is asked for a benchmark's row; of a row without a grader, the question to the letter.

    Raises:
        InputError: a grader that is not known, or a row without its choices.
    """
    grader = row.get("grader")
    if grader is None:
        return str(row["question"])
    if grader not in PROMPTS:
        where = f"benchmark {row.get('benchmark')}, row {row.get('id')}"
        raise InputError(where, f"grader {grader!r}", ", ".join(PROMPTS), "a set without grader is not answered")
    try:
        return PROMPTS[grader](row)
    except KeyError as error:
        raise InputError(f"benchmark {row.get('benchmark')}, row {row.get('id')}", f"no {error}", "it") from None
