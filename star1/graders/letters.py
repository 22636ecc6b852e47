r"""The grader of multiple choice: which letter an answer gives, by patterns tried one after the other.

Source: the patterns that MMLU-Pro's authors publish ("answer is (X)", "Answer: X", the last letter that stands alone) are
those of steps 2 to 4. Differs: a box comes first; the last mention counts and not the first; a letter must be one of the row's;
two letters in one statement are no answer; "A" and "I" as words of a sentence are no letters; nothing is drawn at random.
"""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from star1.graders.mathematics import last_boxed, normalise

# Stars, brackets, dollars and text commands around a letter.
OPENING = r"(?:[*_`$([{\"'“]|\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{|\\\(|\\\[){0,6}\s{0,6}"
ENDING = r"(?![A-Za-z0-9'’])"
CLOSING = r"[*_`$)\]}\"'”.\\]{0,8}"
# What is read of an answer without a box, from its end [characters].
TAIL = 4000
JOINT = r"(?:,?\s*(?:or|and)\b|[,/&+]|\\text\s*\{\s*(?:or|and)\s*\})"


def extract(text: str, options: int) -> tuple[str | None, str]:
    """The letter that an answer gives and where it was found; or None, and why.

    Args:
        text: the answer, without thinking.
        options: how many choices the row has, called A, B and so on.
    """
    letters = ascii_uppercase[:options]
    if (boxed := last_boxed(text)) is not None:
        return _boxed(boxed, letters)
    for name, pattern in _patterns(letters):
        if found := list(pattern.finditer(text[-TAIL:])):
            if found[-1]["further"]:
                return None, "several letters"
            return found[-1]["letter"].upper(), name
    return None, "no letter"


def _boxed(content: str, letters: str) -> tuple[str | None, str]:
    r"""The letter in a box, alone or before its choice, as in `B`, `(B)`, `B. 12` and `\text{B}`."""
    plain = re.sub(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox)\s*|[{}$*\\,;!]", " ", content).strip()
    found = re.match(
        rf"(?:(?:option|choice|answer)[\s:]+)?\(?\s*([{letters}{letters.lower()}])\s*(?:[).:]|$)\s*(.*)$",
        plain,
        re.I | re.S,
    )
    if found is None:
        return None, "no letter in the box"
    if re.search(rf"(?:^|\bor\b|\band\b|[,/&(])\s*\(?[{letters}]\)?\s*$", found[2]):
        return None, "several letters"
    return found[1].upper(), "boxed"


def _patterns(letters: str) -> list[tuple[str, re.Pattern[str]]]:
    """What is tried in turn, by name; `further` is a second letter in the same statement ("A or B", "(A), (B)", "A/B")."""
    word = r"(?:option|choice|letter)?\s*"
    further = rf"(?P<further>{CLOSING}\s*{JOINT}\s*{word}{OPENING}[{letters}]{ENDING})?"
    stated = rf"{OPENING}{word}{OPENING}(?P<letter>[{letters}]){ENDING}{further}"
    verb = r"(?:\s+(?:here|then))?\s+(?:is|would\s+be|must\s+be)\s*:?"
    # "A" before a word is an article, and "I" a pronoun.
    alone = rf"(?<![A-Za-z0-9'’\\])(?P<letter>[{letters}])(?P<further>(?!))?{ENDING}(?:(?<![AI])|(?![ \t]+\w))"
    return [
        ("answer is", re.compile(rf"(?i:\b(?:answer|choice|option){verb})\s*{stated}")),
        ("answer:", re.compile(rf"(?i:\banswer)\s*[*_]*\s*[:=]\s*[*_]*\s*{stated}")),
        ("last letter", re.compile(alone)),
    ]


def by_text(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the one choice whose text stands in the last box; None where none or several do."""
    if (boxed := last_boxed(text)) is None or not normalise(boxed):
        return None
    found = [
        letter
        for letter, choice in zip(ascii_uppercase, choices, strict=False)
        if normalise(choice) == normalise(boxed)
    ]
    return found[0] if len(found) == 1 else None
