"""What can be counted in responses without a model: their two parts, their length, and a few words in them."""

import re
from collections.abc import Sequence

import numpy as np

from star1.parsing import Thought

RESPONSE = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
# The word itself, or the words by which a policy text is cited without it.
POLICY = re.compile(r"\b(polic(y|ies)|guidelines?|rule \d+)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
APOLOGY = re.compile(r"\b(sorry|apologi[sz]e|apologies)\b")
DECLINES = re.compile(
    r"\b(can't|cannot|can not|won't|will not|unable to|not able to|not comfortable|must decline|have to decline|decline to)\b"
)
OFFERS = re.compile(
    r"\b(instead|if you|happy to|glad to|i can help|i can offer|let me know|here to help|would you like|reach out|encourage|"
    r"recommend|consider|suggest)\b"
)
# How an answer opens, by rules: a word of apology, words of refusal alone, or neither.
STYLES = ("apologises", "declines", "no words of refusal")


def split(response: str) -> Thought | None:
    """Thinking and answer of a response, both with text; None for any other form."""
    found = RESPONSE.fullmatch(response)
    if not found or "<think>" in found[2] or "</think>" in found[2]:
        return None
    thought = Thought(found[1].strip(), found[2].strip())
    return thought if thought.thinking and thought.answer else None


def words(text: str) -> int:
    """Number of words: runs between white space."""
    return len(text.split())


def bare_words(text: str) -> list[str]:
    """The words of a text in small letters, without what stands around them."""
    return re.findall(r"\w+", text.lower())


def cites(text: str) -> bool:
    """Whether a text speaks of a policy, of guidelines, or of a rule by its number."""
    return POLICY.search(text) is not None


def style(answer: str) -> str:
    """How the first sentence refuses, one of `STYLES`. Rules, no judge: an answer may refuse in other words."""
    opening = SENTENCE_END.split(_plain(answer), maxsplit=1)[0]
    if APOLOGY.search(opening):
        return STYLES[0]
    return STYLES[1] if DECLINES.search(opening) else STYLES[2]


def offers(answer: str) -> bool:
    """Whether an answer has words that offer or advise something."""
    return OFFERS.search(_plain(answer)) is not None


def _plain(text: str) -> str:
    return text.lower().replace("’", "'")


def spread(values: Sequence[int]) -> dict[str, float | None]:
    """Median, ninetieth percentile and maximum; the percentile is the smallest of the values above 90 % of them."""
    if not values:
        return {"median": None, "p90": None, "max": None}
    p90 = np.percentile(values, 90, method="higher")
    return {"median": float(np.median(values)), "p90": float(p90), "max": float(max(values))}
