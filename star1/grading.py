"""The grader of reasoning benchmarks: simple and strict, by rule, no model asked."""

import re
from fractions import Fraction

NUMBER = re.compile(r"-?\d+(?:,\d{3})+(?:\.\d+)?|-?\d*\.\d+|-?\d+(?:\s*/\s*\d+)?")
SPACING = re.compile(r"\\left|\\right|\\[,;:! ]|\\displaystyle|\\?\$|\s+")


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}`, nested braces respected; None where there is none that closes."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed")
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin + 1 : place]
    return None


def final_answer(text: str) -> str | None:
    r"""What a solution gives as its answer: the last `\boxed{…}`, else the last number, else None."""
    if (boxed := last_boxed(text)) is not None:
        return boxed
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else None


def normalise(text: str) -> str:
    r"""A mathematical text without what does not change its meaning: spacing, `$`, `\text{…}`, a final full stop."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}", r"\1", text.strip())
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\%", "").replace("^\\circ", "")
    return SPACING.sub("", text).rstrip(".").casefold()


def as_number(text: str) -> Fraction | None:
    r"""The exact value of an integer, decimal, `a/b` or `\frac{a}{b}`; None for anything else."""
    text = normalise(text)
    text = re.sub(r"^(-?)\\frac\{(-?\d+)\}\{(\d+)\}$", r"\1\2/\3", text)
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    try:
        return Fraction(text) if re.fullmatch(r"-?(\d+(/\d+)?|\d*\.\d+)", text) else None
    except ZeroDivisionError:
        return None


def grade(text: str, answer: str) -> bool:
    """Whether a solution ends in `answer`.

    The two are equal as numbers, or letter by letter once spacing and text commands are taken out. Two ways to write
    the same formula (`x+1` and `1+x`) are not recognised as equal, so the share of correct answers is a lower bound.
    """
    if (given := final_answer(text)) is None:
        return False
    value, expected = as_number(given), as_number(answer)
    if value is not None and expected is not None:
        return value == expected
    return normalise(given) == normalise(answer)
