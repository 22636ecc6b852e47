r"""The grader of multiple choice: which letter an answer gives, by patterns tried one after the other.

Source: the patterns that MMLU-Pro's authors publish ("answer is (X)", "Answer: X", the last letter that stands alone) are
those of steps 2 to 4. Differs: a box comes first; the last mention counts and not the first; a letter must be one of the row's;
two letters in one statement are no answer; "A" and "I" as words of a sentence are no letters; nothing is drawn at random.
"""

import re
from collections.abc import Sequence

from star1.graders.mathematics import last_boxed, normalise

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Stars, brackets, dollars and text commands around a letter.
OPENING = r"(?:[*_`$([{\"'“]|\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{|\\\(|\\\[)*\s*"
ENDING = r"(?![A-Za-z0-9'’])"
# A further letter in the same statement: "A or B", "(A), (B)", "A/B".
FURTHER = rf"(?:[*_`$)\]}}\"'”.\\]*\s*(?:,?\s*(?:or|and)\b|[,/&+]|\\text\{{\s*(?:or|and)\s*\}})\s*(?:option|choice)?\s*{OPENING}[{{letters}}]{ENDING})"


def extract(text: str, options: int) -> tuple[str | None, str]:
    """The letter that an answer gives and where it was found; or None, and why.

    Args:
        text: the answer, without thinking.
        options: how many choices the row has, called A, B and so on.
    """
    letters = ALPHABET[:options]
    if (boxed := last_boxed(text)) is not None:
        return _boxed(boxed, letters)
    for name, pattern in _patterns(letters):
        if found := list(pattern.finditer(text)):
            if found[-1]["further"]:
                return None, "several letters"
            return found[-1]["letter"].upper(), name
    return None, "no letter"


def _boxed(content: str, letters: str) -> tuple[str | None, str]:
    """The letter in a box, alone or before its choice, as in `B`, `(B)`, `B. 12` and `\\text{B}`."""
    plain = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*|[{}$*\\,;!]", " ", content).strip()
    found = re.match(
        rf"(?:(?:option|choice|answer)\s+)?\(?\s*([{letters}{letters.lower()}])\s*(?:[).:]|$)\s*(.*)$",
        plain,
        re.I | re.S,
    )
    if found is None:
        return None, "no letter in the box"
    if re.search(rf"(?:^|\bor\b|\band\b|[,/&(])\s*\(?[{letters}]\)?\s*$", found[2]):
        return None, "several letters"
    return found[1].upper(), "boxed"


def _patterns(letters: str) -> list[tuple[str, re.Pattern[str]]]:
    further = FURTHER.replace("{letters}", letters)
    word = r"(?:option|choice|letter)?\s*"
    stated = rf"{OPENING}{word}{OPENING}(?P<letter>[{letters}]){ENDING}(?P<further>{further})?"
    alone = rf"(?<![A-Za-z0-9'’\\])(?P<letter>[{letters}]){ENDING}(?P<further>(?!))?"
    # "A" before a word is an article, and "I" a pronoun; what follows a letter that is meant is punctuation or the end.
    article = r"(?![ \t]+[a-z’'])" if letters else ""
    return [
        (
            "answer is",
            re.compile(
                rf"(?i:\b(?:answer|choice|option)(?:\s+(?:here|then))?\s+(?:is|would\s+be|must\s+be)\s*:?)\s*{stated}{article}"
            ),
        ),
        ("answer:", re.compile(rf"(?i:\banswer)\s*[*_]*\s*[:=]\s*[*_]*\s*{stated}{article}")),
        ("last letter", re.compile(rf"{alone}{article}")),
    ]


def by_text(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the one choice whose text stands in the last box; None where none or several do."""
    if (boxed := last_boxed(text)) is None or not normalise(boxed):
        return None
    found = [letter for letter, choice in zip(ALPHABET, choices, strict=False) if normalise(choice) == normalise(boxed)]
    return found[0] if len(found) == 1 else None
