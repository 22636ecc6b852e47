r"""What a solution without a box states as its answer: the text that holds it, and the values in it that could be meant.

Source: math-verify takes the value behind the first marker it knows, or else the last value of the text. Differs: all values
of the statement are given, so that "5, not 6" is neither taken for 5 nor for 6.
"""

import re

# What is read of a text, from its end, and of a statement [characters]; how many of its values are looked at, from its end.
TAIL, LONGEST, MOST = 2000, 1000, 20
# "is" ends there, so that "isn't" is no marker.
MARKER = re.compile(
    r"\banswers?\b[\s*_]*(?:(?:is|are|would\s+be|must\s+be|equals)\b(?!['’])|[:=])[\s*_:]*", re.IGNORECASE
)
UNCLOSED = re.compile(r"\\f?boxed\s*\{")
END = re.compile(r"\n|(?<=[^\s\\])[.!?](?=[\s*_]|$)")
IN_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s?\{[^{}]*\}")
# What is written around words, and the braces of both.
COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\b|[{}$*_]|\\[,;:! ]")
# A run of letters that is no command and no single variable.
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?:['’][A-Za-z]+)?")
DENIAL = re.compile(r"\b(?:not|cannot|never|neither|nor|instead|rather|wrong|incorrect)\b|n['’]t\b", re.IGNORECASE)
# Words that make a list of the values between them, and nothing else.
JOINING = {"and", "or", "both", "either"}
# What stands for a word that was taken out; a bracket with such words in it is a remark; LaTeX's own brackets are none.
GAP = "\0"
REMARK = re.compile(rf"(?:\\left\s*)?[(\[]([^()\[\]]*{GAP}[^()\[\]]*?)(?:\\right\s*)?[)\]]")
DISPLAY = re.compile(r"(?<!\\)\\[()\[\]]")
OPENING, CLOSING = "([{", ")]}"
EDGES = " \t*_`$.,;:!?\"'“”"


def statement(text: str) -> str:
    """The part of a text that states the answer.

    What follows a box that does not close; else what follows the last marker, up to the sentence's end; else the last line
    with a number or a command, or the last one.
    """
    text = text[-TAIL:]
    if boxes := list(UNCLOSED.finditer(text)):
        return text[boxes[-1].end() :].strip()[:LONGEST]
    if found := list(MARKER.finditer(text)):
        rest = text[found[-1].end() :].lstrip()
        return END.split(rest, maxsplit=1)[0].strip()[:LONGEST]
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"\d|\\[A-Za-z]", line)] or lines
    return telling[-1].strip()[-LONGEST:] if telling else ""


def in_words(stated: str) -> bool:
    """Whether there are words in a statement, so that it is no formula."""
    return bool(WORD.search(IN_WORDS.sub(" ", stated)))


def only_joins(stated: str) -> bool:
    r"""Whether the words of a statement, those within `\text{…}` too, do no more than join its values."""
    return all(word.lower() in JOINING for word in WORD.findall(stated))


def bare(text: str) -> str:
    """A text without dollars, quotes, emphasis and stops around it; the point of `.5` is none."""
    text = DISPLAY.sub("$", text)
    left = text.lstrip(EDGES)
    point = re.search(r"(?<!\.)\.$", text[: len(text) - len(left)]) and left[:1].isdigit()
    return (f".{left}" if point else left).rstrip(EDGES)


def names(stated: str, answer: str) -> bool:
    """Whether an answer in words stands somewhere in a statement."""
    told, meant = (" ".join(COMMAND.sub(" ", one).split()).casefold() for one in (stated, answer))
    worded = WORD.search(meant) or IN_WORDS.search(answer)
    return bool(worded and re.search(rf"(?<!\w){re.escape(meant)}(?!\w)", told))


def denies(stated: str) -> bool:
    """Whether a statement says what the answer is not."""
    return bool(DENIAL.search(stated))


def values(stated: str) -> list[str]:
    """The formulas between the words, commas and full stops of a statement, in order.

    Those with a number or a command in them, where there are any.
    """
    plain = WORD.sub(GAP, IN_WORDS.sub(GAP, DISPLAY.sub("$", stated)))
    found = [part for piece in _pieces(REMARK.sub(rf"{GAP}\1{GAP}", plain)) if (part := bare(piece))]
    telling = [part for part in found if re.search(r"\d|\\[A-Za-z]", part)]
    return list(dict.fromkeys(telling or found))[-MOST:]


def _pieces(text: str) -> list[str]:
    """A text cut at gaps and `;`, and at commas and stops before a blank, but not within brackets."""
    depth, begin, found = 0, 0, []
    for place, sign in enumerate(text):
        depth = max(0, depth + (sign in OPENING) - (sign in CLOSING))
        ends = sign in (GAP, ";") or (sign in ",.:!?" and (place + 1 == len(text) or text[place + 1] in " \t\n$*_"))
        if depth == 0 and ends and text[place - 1 : place] != "\\":
            found.append(text[begin:place])
            begin = place + 1
    return [*found, text[begin:]]
