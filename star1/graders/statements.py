r"""What a solution without a box states as its answer: the text that holds it, and the values in it that could be meant.

Source: math-verify takes the value behind the first marker it knows, or else the last value of the text. Differs: all values
of the statement are given, so that "5, not 6" is neither taken for 5 nor for 6.
"""

import re

# What is read of a text, from its end, and of a statement [characters]; how many of its values are looked at, from its end.
TAIL, LONGEST, MOST = 2000, 1000, 20
# "is" ends there, so that "isn't" is told apart.
MARKER = re.compile(
    r"\banswers?\b[\s*_]*(?:(?:is|are|would\s+be|must\s+be|equals)\b(?!['’])|(?P<denied>"
    r"(?:is|are|was|were|ca|could|would)n['’]t(?:\s+be)?\b|can\s?not(?:\s+be)?\b)|[:=])[\s*_:]*",
    re.IGNORECASE,
)
UNCLOSED = re.compile(r"\\f?boxed\s*\{")
LETTER = r"(?<![A-Za-z])[A-Za-z]"  # one that stands alone
# Where a statement ends; an exclamation mark behind a digit or a letter alone stays, for it may be a factorial.
END = re.compile(
    rf"\n|(?<=[^\s\\])[.?](?=[\s*_]|$)|(?<=[^\s\\\d])(?<!{LETTER})!(?=[\s*_]|$)|(?:(?<=\d!)|(?<={LETTER}!))(?=[\s*_]|$)"
)
SENTENCE = re.compile(r"\n|(?<=[^\s\\])[.?!](?=[\s*_]|$)")
# A factorial for certain: in a formula, or with more of one behind it, or a stop.
FORMULA = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL)
OF_FORMULA = re.compile(r"(?<=[\w)}!])!")
FOLLOWED = re.compile(
    rf"(?:(?<=[\d)])|(?<={LETTER}))!(?=\s*(?:[+/=^.}}]|\*\s*[\w(\\]|-\s*[\d(\\]|\\(?:times|cdot|div)\b))"
)
MAYBE_FACTORIAL = re.compile(rf"(?:\d|{LETTER})!(?=\W*$|\s*[,;:)\]])")
# What stands for it, so that it ends no sentence.
BANG = "\1"
# What makes the sentence with the marker a denial: before it, and first behind it without a "but".
GOVERNS = re.compile(
    r"(?:(?:\b(?:not|never|cannot|hardly)\b|n['’]t)\s+(?:(?:be|true|correct|right|the\s+case|think|believe|say|claim|mean|that)\s+)+"
    r"|\b(?:doubt|deny|denies|wrong|incorrect|false|mistaken?)\s+(?:to\s+(?:say|think|claim|believe|conclude)\s+)?(?:that\s+)?)"
    r"(?:(?:the|my|our|its)\s+)?(?:(?:final|correct|right)\s+)?$",
    re.IGNORECASE,
)
BEGINS = re.compile(r"(?:(?:definitely|certainly|clearly|surely)\s+)?(?:not|never|neither)\b", re.IGNORECASE)
OTHERWISE = re.compile(r"\b(?:but|instead|rather)\b|[,;]\s*(?:it|the)\b", re.IGNORECASE)
# What says, behind a denial, what the answer is then; it counts if nothing but values follow.
CORRECTS = re.compile(
    r"(?:(?:it|the\s+(?:correct|right|real|true|actual|final)(?:\s+(?:answer|one|value|result))?)(?:\s+(?:is|equals)|['’]s)|rather|instead)\b[\s,:*_]*",
    re.IGNORECASE,
)
# What takes a statement back that was made before.
RETRACTS = re.compile(
    r"(?:^|[.!?\n])\s*(?:(?:oh|hm+|but|so|and|ah|well)\b[,.…\s]*|[-*“\"(]\s*)*"
    r"(?:no\b|wait\b|actually\b|hold\s+on\b|scratch\b|correction\b|oops\b|sorry\b|on\s+second\s+thought|my\s+mistake|however\b"
    r"|(?:let\s+me\s+)?re-?check)"
    r"|\bI\s+(?:made|was)\s+(?:an?\s+)?(?:mistake|error|wrong)"
    r"|\b(?:that|this|it)(?:\s+(?:is|was)|['’]s)\s+(?:wrong|incorrect|false|not\s+(?:right|true|correct)|a\s+mistake)"
    r"|\b(?:that|this|it)\s+(?:is|was|ca)n['’]t\s+(?:be\s+)?(?:right|true|correct)",
    re.IGNORECASE,
)
# What makes another value of the one behind it, or a bound.
QUALIFIES = re.compile(
    r"\b(?:negative|minus|less|fewer|more|greater|larger|smaller|least|most|twice|thrice|half|double|triple|squared|cubed|(?:square|cube)(?:\s+root)?\s+of|factorial"
    r"|hundred|thousand|million|billion|anything|no\s+means)\b|\\(?:neq?|geq?|leq?|lt|gt|not)\b|[≠<>≤≥]",
    re.IGNORECASE,
)
IN_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s?\{[^{}]*\}")
# What is written around words, and the braces of both.
COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\b|[{}$*_]|\\[,;:! ]")
# A run of letters that is no command and no single variable.
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?:['’][A-Za-z]+)?")
DENIAL = re.compile(
    r"\b(?:not|cannot|never|neither|nor|instead|rather|wrong|incorrect|false|doubt|deny)\b|n['’]t\b", re.IGNORECASE
)
# Words that make a list of the values between them, and nothing else.
JOINING = {"and", "or", "both", "either"}
# What stands for a word that was taken out; a bracket with such words in it is a remark; LaTeX's own brackets are none.
GAP = "\0"
REMARK = re.compile(rf"(?:\\left\s*)?[(\[]([^()\[\]]*{GAP}[^()\[\]]*?)(?:\\right\s*)?[)\]]")
DISPLAY = re.compile(r"(?<!\\)\\[()\[\]]")
TELLING = re.compile(r"\d|\\[A-Za-z]")
OPENING, CLOSING = "([{", ")]}"
EDGES = " \t*_`$.,;:!?\"'“”"


def statement(text: str) -> str:
    """The part of a text that states the answer; `plain` has it as it stands there.

    What follows a box that does not close; else what follows the last marker that is not denied, up to the sentence's end, or to
    that of the text, where it is taken back; else the last line with a number or a command, or the last one.
    """
    text = _protected(text[-TAIL:])
    if boxes := list(UNCLOSED.finditer(text)):
        return text[boxes[-1].end() :].strip()[:LONGEST]
    if (told := _marked(text)) is not None:
        return told
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if TELLING.search(line)] or lines
    return telling[-1].strip()[-LONGEST:] if telling else ""


def _protected(text: str) -> str:
    """A text whose sure factorials are told apart from exclamations."""
    return FOLLOWED.sub(BANG, FORMULA.sub(lambda found: OF_FORMULA.sub(BANG, found[0]), text))


def plain(stated: str) -> str:
    """A statement as it stands in the text."""
    return stated.replace(BANG, "!")


def _marked(text: str) -> str | None:
    """What stands behind the last marker, or where that is denied what is said instead; None without a marker."""
    if not (found := list(MARKER.finditer(text))):
        return None
    last = found[-1]
    begin = max((one.end() for one in SENTENCE.finditer(text, 0, last.start())), default=0)
    rest = text[last.end() :].lstrip()
    stated = END.split(rest, maxsplit=1)[0]
    after, stated = rest[len(stated) :].lstrip(" \n.!?*_"), stated.strip()
    if not _denied(text[begin : last.start()], last, stated):
        taken_back = RETRACTS.search(after) and f"{stated}. {after}"
        return (taken_back or stated)[:LONGEST]
    if corrected := _corrected(after):
        return corrected
    denied, earlier = f"{text[begin : last.end()]}{stated}", _marked(text[:begin])
    if earlier is not None and not TELLING.search(after) and not _shared(earlier, denied):
        return earlier
    # What was said before, what is denied and what follows: nothing in it is right for certain.
    return ". ".join(one for one in (earlier, denied, after) if one).strip()[:LONGEST]


def _corrected(after: str) -> str | None:
    """What a sentence behind a denial gives as the answer instead, with all that follows if that takes it back."""
    if not (found := CORRECTS.match(after)):
        return None
    stated = END.split(after[found.end() :], maxsplit=1)[0].strip()
    rest = after[found.end() + len(stated) :].lstrip(" \n.!?*_")
    if not TELLING.search(stated) or not only_joins(stated) or RETRACTS.search(rest):
        return None
    return stated


def _shared(one: str, other: str) -> bool:
    """Whether two statements have a number or a value in common."""
    numbers = [{*re.findall(r"\d+(?:\.\d+)?", text), *values(text)} for text in (one, other)]
    return bool(numbers[0] & numbers[1])


def _denied(before: str, marker: re.Match[str], stated: str) -> bool:
    """Whether the sentence of a marker says what the answer is not, and no more."""
    says_not = marker["denied"] or GOVERNS.search(before) or BEGINS.match(stated)
    return bool(says_not) and not OTHERWISE.search(stated)


def several(text: str) -> bool:
    """Whether a text announces answers, and not one."""
    found = list(MARKER.finditer(text[-TAIL:]))
    return bool(found) and found[-1][0].lower().startswith("answers")


def maybe_factorial(stated: str) -> str | None:
    """A statement that ends in a number with an exclamation mark, with that as a factorial; None for any other."""
    if not (found := MAYBE_FACTORIAL.search(stated)):
        return None
    before, after = stated[: found.start() + 1], stated[found.start() + 2 :]
    return f"{before}{BANG}{after if '(' in before else after.lstrip(')')}"  # a bracket that opens before the statement


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
    return plain((f".{left}" if point else left).rstrip(EDGES))


def names(stated: str, answer: str) -> bool:
    """Whether an answer in words stands somewhere in a statement."""
    told, meant = (" ".join(COMMAND.sub(" ", one).split()).casefold() for one in (stated, answer))
    worded = WORD.search(meant) or IN_WORDS.search(answer)
    return bool(worded and re.search(rf"(?<!\w){re.escape(meant)}(?!\w)", told))


def denies(stated: str) -> bool:
    """Whether a statement says what the answer is not."""
    return bool(DENIAL.search(stated))


def qualifies(stated: str) -> bool:
    """Whether a statement gives something else than the value that stands in it: "at least 5", "twice 5"."""
    return bool(QUALIFIES.search(stated))


def values(stated: str) -> list[str]:
    """The formulas between the words, commas and full stops of a statement, in order.

    Those with a number or a command in them, where there are any.
    """
    plain = WORD.sub(GAP, IN_WORDS.sub(GAP, DISPLAY.sub("$", stated)))
    found = [part for piece in _pieces(REMARK.sub(rf"{GAP}\1{GAP}", plain)) if (part := bare(piece))]
    telling = [part for part in found if TELLING.search(part)]
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
