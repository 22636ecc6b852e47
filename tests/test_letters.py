r"""The grader of choices: letters as they are expected, one by one."""

import re
import time

import pytest

from star1.graders.letters import by_text, extract
from star1.grading import grade
from star1.records import Row

# (answer of the model, number of choices, letter; None where it gives none, or more than one)
CASES: list[tuple[str, int, str | None]] = [
    # as it was asked for
    ("Answer: B", 4, "B"),
    ("Because of this.\n\nAnswer: C", 4, "C"),
    ("answer: D", 4, "D"),
    ("**Answer: C**", 4, "C"),
    ("**Answer:** C", 4, "C"),
    ("Answer: **C**", 4, "C"),
    ("### Answer: (C)", 4, "C"),
    ("Answer:\n\nD", 4, "D"),
    ("Answer: D) 40 m", 4, "D"),
    ("Answer: J", 10, "J"),
    ("Answer: I", 10, "I"),
    ("Answer: A\nAnswer: B", 4, "B"),
    ("Final Answer: (A)", 4, "A"),
    ("Answer: B\nExplanation: A is wrong. D too", 4, "B"),
    ("Answer = D", 4, "D"),
    # in a box
    ("\\boxed{C}", 4, "C"),
    ("\\boxed{c}", 4, "C"),
    ("\\boxed{(C)}", 4, "C"),
    ("\\boxed{\\text{C}}", 4, "C"),
    ("\\boxed{\\text{(C)}}", 4, "C"),
    ("\\boxed{\\textbf{D}}", 4, "D"),
    ("\\boxed{\\mathrm{D}}", 4, "D"),
    ("\\boxed{C. 12}", 4, "C"),
    ("\\boxed{C) 12}", 4, "C"),
    ("\\boxed{(B) 12 m/s}", 4, "B"),
    ("\\boxed{Answer: B}", 4, "B"),
    ("$\\boxed{A}$ is the answer, and not B.", 4, "A"),
    ("\\boxed{B}, no: \\boxed{C}", 4, "C"),
    ("\\boxed{12}", 4, None),
    ("\\boxed{}", 4, None),
    ("\\boxed{A or B}", 4, None),
    ("\\boxed{A, B}", 4, None),
    ("\\boxed{E}", 4, None),
    ("\\boxed{Boron}", 4, None),
    # "answer is"
    ("The answer is (B).", 4, "B"),
    ("the answer is B because A is wrong", 4, "B"),
    ("The correct answer is: **D) 5**", 4, "D"),
    ("the answer is \\(B\\)", 4, "B"),
    ("the answer is \\text{B}", 4, "B"),
    ("the answer is $B$", 4, "B"),
    ("the answer is option C", 4, "C"),
    ("The best choice is D", 4, "D"),
    ("The answer would be A", 4, "A"),
    ("The answer must be (A)", 4, "A"),
    ("The answer is I", 10, "I"),
    ("The answer is A and nothing else", 4, "A"),
    ("The answer is **A**, since B fails", 4, "A"),
    ("The answer is A. No wait, the answer is C.", 4, "C"),
    ("The answer is not A. The answer is B", 4, "B"),
    ("THE ANSWER IS C", 4, "C"),
    ("The answer is A or B.", 4, None),
    ("The answer is (A), (B)", 4, None),
    ("answer: A/B", 4, None),
    ("Answer: A, B", 4, None),
    ("Answer: A and C", 4, None),
    ("The answer is E", 4, None),
    ("The answer is Boron", 4, None),
    ("The answer is B12", 4, None),
    # the last letter that stands alone
    ("option C is correct", 4, "C"),
    ("So it is B.", 4, "B"),
    ("(D)", 4, "D"),
    ("D", 4, "D"),
    ("C) 40 m", 4, "C"),
    ("First A, then B, in the end C", 4, "C"),
    ("A triangle has three sides", 4, None),
    ("I think it is hard", 10, None),
    ("I'm not sure", 10, None),
    ("Vitamin C is meant", 4, "C"),  # the price of the last way out, as published
    ("twelve", 4, None),
    ("", 4, None),
    ("the answer is b", 4, None),
    ("Ａnswer: Ｂ", 4, None),
]


@pytest.mark.parametrize(("text", "options", "letter"), CASES)
def test_letters_as_expected(text: str, options: int, letter: str | None) -> None:
    assert extract(text, options)[0] == letter, extract(text, options)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60


def published(text: str) -> str | None:
    """The three patterns as MMLU-Pro's authors describe them: first mentions, and then the last letter."""
    for pattern in (r"answer is \(?([A-J])\)?", r"[aA]nswer:\s*([A-J])", r"\b([A-J])\b(?!.*\b[A-J]\b)"):
        if found := re.search(pattern, text, re.DOTALL):
            return found[1]
    return None


def test_where_the_published_patterns_agree_and_where_not() -> None:
    """What is different is on purpose: boxes, later mentions, several letters, and words that are no letters."""
    differing = [text for text, options, letter in CASES if options == 10 and published(text) != letter]
    assert differing == ["I think it is hard", "I'm not sure"]
    same = sum(published(text) == letter for text, _, letter in CASES)
    assert same >= 40


def test_a_box_may_hold_the_text_of_one_choice() -> None:
    choices = ["5 m", "10 m", "20 m", "$40$ m"]
    assert by_text("\\boxed{20\\,m}", choices) == "C"
    assert by_text("\\boxed{40 m}", choices) == "D"
    assert by_text("\\boxed{m}", choices) is None
    assert by_text("\\boxed{}", ["", "x"]) is None
    assert by_text("\\boxed{x}", ["x", "x"]) is None


ROW: Row = {"id": "1", "benchmark": "x", "grader": "choice", "question": "?", "choices": ["5 m", "20 m"], "answer": "B"}


def test_a_verdict_says_what_was_read() -> None:
    assert (grade(ROW, "Answer: B").verdict, grade(ROW, "Answer: A").verdict) == ("correct", "incorrect")
    assert grade(ROW, "Answer: A").detail == {"given": "A"}
    assert grade(ROW, "\\boxed{20 m}").reason == "boxed text of a choice"
    assert grade(ROW, "C") == grade(ROW, "none of them")
    assert grade(ROW, "A or B").reason in ("several letters", "last letter")


def test_it_is_quick() -> None:
    """No pattern runs away on a long text without an answer."""
    started = time.process_time()
    for text in (
        "the answer is " * 2000 + "**(" * 2000,
        "answer: " + " " * 20_000,
        "answer: *" * 5000,
        "option " * 5000,
    ):
        assert extract(text, 10)[0] is None
    assert time.process_time() - started < 2
