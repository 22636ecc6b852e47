r"""The grader of mathematics: math-verify on the final answer, in a process of its own, and a strict rule beside it.

math-verify bounds its own time by signals, which work on a program's main thread only and cannot stop a computation inside
the C library; here its limits are off, and the kernel ends the process when it takes too long. The final answer is the content
of the last `\boxed{…}` and nothing else of the text; without a box, the one value that the text states.
"""

import atexit
import contextlib
import importlib.metadata
import json
import re
import selectors
import subprocess
import sys
import threading
import time
from fractions import Fraction
from typing import Literal
from unicodedata import normalize

from star1.errors import Star1Error
from star1.graders import math_worker
from star1.graders.statements import (
    MOST,
    bare,
    denies,
    in_words,
    maybe_factorial,
    names,
    only_joins,
    plain,
    qualifies,
    several,
    statement,
    values,
)

SPACING = re.compile(r"\\left|\\right|\\[,;:! ]|\\displaystyle|\\?\$|\s+")
# Signs such as ½, and a mixed number: with nothing but a blank before its fraction.
VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
GAP = r"(?:\s|~|\\[,;:! ])"
FRACTION = r"\\[dt]?frac\s*(?:\{\s*(\d{1,9})\s*\}\s*\{\s*(\d{1,9})\s*\}|(\d)\s*(\d))"
AND = r"(?:\band\b|\\(?:text|mathrm|mbox)\s*\{\s*and\s*\})"
MIXED = re.compile(rf"(-?)\s*(\d{{1,9}})(?:{GAP}+|{GAP}*(?=\\))(?:(\d{{1,9}})\s*/\s*(\d{{1,9}})|{FRACTION})")
# The same as it is said, which may as well be two values.
SPOKEN = re.compile(rf"(-?)\s*(\d{{1,9}})[\s$]*{GAP}*{AND}{GAP}*[\s$]*(?:(\d{{1,9}})\s*/\s*(\d{{1,9}})|{FRACTION})")
# A mixed number in one line, wherever it stands in a box.
INLINE = re.compile(r"(?<![\d.,/])(\d{1,9})(?:\s|~|\\[,;:! ])+(\d{1,9})\s*/\s*(\d{1,9})(?![\d/])")
# What makes a bound of a number.
RELATION = re.compile(r"\\(?:neq?|geq?|leq?|lt|gt|not)\b|[≠<>≤≥]")
# A blank that parts a number from a fraction: "2 3/2" is not 23/2.
APART = re.compile(r"(?<=\d)\s+(?=\d+\s*/\s*\d)")
# Time on the clock after which a process that neither answers nor ends is given up, and for the library to load [s].
WAIT_S, LOADING_S = 120.0, 120.0
# The longest content of a box that is read [characters].
LONGEST = 1000
# Of the way in which an answer is found; raised when verdicts change.
RULE = 4

# Why there is no verdict.
SEVERAL = "no box, and several values or a denial stated"
AMONG = "no box, and the answer among others"

Found = Literal["equal", "unequal", "unread", "timeout"]


def version() -> str:
    """The library that decides, with its version."""
    return f"math-verify {importlib.metadata.version('math-verify')}, rule {RULE}"


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}`, nested braces respected; None where there is none, or the last does not close."""
    found = list(re.finditer(r"\\f?boxed\s*\{", text))
    if not found:
        return None
    depth, begin = 0, found[-1].end() - 1
    for place in range(begin, len(text)):
        if text[place - 1] == "\\" and text[place - 2 : place] != "\\\\":
            continue  # an escaped brace is part of the content
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin + 1 : place]
    return None


def normalise(text: str) -> str:
    r"""A mathematical text without what does not change its meaning: spacing, `$`, `\text{…}`, a final full stop."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}", r"\1", text.strip())
    text = APART.sub("&", text)
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\%", "").replace("^\\circ", "")
    return SPACING.sub("", text).rstrip(".").casefold()


def spelled(text: str) -> str:
    r"""A text with signs such as `½` as `\frac{1}{2}`."""
    return VULGAR.sub(lambda found: "\\frac{{{}}}{{{}}}".format(*normalize("NFKC", found[0]).split("⁄")), text)


def mixed(text: str) -> Fraction | None:
    r"""The value of a mixed number (`1 1/2`, `1\frac12`, `1½`), in one formula or partly in one; else None."""
    if text.count("$") > 2 or (found := MIXED.fullmatch(spelled(text).replace("$", " ").strip())) is None:
        return None
    return _value(found)


def _value(found: re.Match[str]) -> Fraction | None:
    """What a match of sign, whole and fraction is worth; None where that is no proper fraction."""
    sign, whole, *parts = found.groups()
    above, below = (int(one) for one in parts if one is not None)
    return (-1 if sign else 1) * (int(whole) + Fraction(above, below)) if above < below else None


def _in_latex(found: re.Match[str]) -> str:
    whole, above, below = found.groups()
    return f"{whole}\\frac{{{above}}}{{{below}}}" if int(above) < int(below) else found[0]


def as_number(text: str) -> Fraction | None:
    r"""The exact value of an integer, decimal, `a/b`, `\frac{a}{b}` or mixed number; None for anything else."""
    if (value := mixed(text)) is not None:
        return value
    text = normalise(spelled(text))
    text = re.sub(r"^(-?)\\frac(?:\{(-?\d+)\}\{(\d+)\}|(?P<a>\d)(?P<b>\d))$", _slashed, text)
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    try:
        return Fraction(text) if re.fullmatch(r"-?(\d+(/\d+)?|\d*\.\d+)", text) else None
    except (ZeroDivisionError, ValueError):  # also numbers of more digits than Python reads
        return None


def _slashed(found: re.Match[str]) -> str:
    sign, above, below, *digits = found.groups()
    return f"{sign}{above or digits[0]}/{below or digits[1]}"


def same(given: str, answer: str) -> bool:
    """The strict rule: equal as exact numbers, or letter by letter once spacing and text commands are taken out."""
    if not normalise(given):
        return False
    value, expected = as_number(given), as_number(answer)
    if value is not None and expected is not None:
        return value == expected
    return normalise(given) == normalise(answer)


class Worker:
    """A process that holds math-verify, started when first asked, and anew after it had to be ended; one question at a time."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def ask(self, given: str, answer: str, seconds: float = WAIT_S) -> Found:
        """Whether `given`, a text with an answer in it, gives `answer`."""
        with self.lock:
            process = self.process if self.process and self.process.poll() is None else self._start()
            question = json.dumps({"given": given, "answer": answer}).encode()
            try:
                found = _exchange(process, question, seconds)
            except BrokenPipeError:
                found = None
            if found is None:
                self.close()
                return "timeout"
            return found

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", math_worker.__name__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if _exchange(self.process, None, LOADING_S) is None:
            self.close()
            raise Star1Error("math-verify", "its process did not start", "the library of the lock file", "make setup")
        return self.process

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(OSError):  # what was not written yet has no reader any more
                self.process.communicate()
            self.process = None


def _exchange(process: "subprocess.Popen[bytes]", question: bytes | None, seconds: float) -> Found | None:
    """Send a line and read one; None where none comes in time, or the process ends."""
    if process.stdin is None or process.stdout is None:
        raise TypeError("a process without pipes")
    if question is not None:
        process.stdin.write(question + b"\n")
        process.stdin.flush()
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        if not waiting.select(max(0.0, end - time.monotonic())):
            return None
    # The answer is one short word, written at once.
    line = process.stdout.readline().decode().strip()
    return line if line in ("equal", "unequal", "unread", "timeout") else None  # type: ignore[return-value]


WORKER = Worker()
atexit.register(WORKER.close)


def given_in(text: str) -> str:
    """What a solution gives as its answer, as it stands there: the content of its last box, or what it states; may be empty."""
    boxed = last_boxed(text)
    return (plain(statement(text)) if boxed is None else boxed).strip()[:LONGEST]


def grade(text: str, answer: str, worker: Worker = WORKER) -> tuple[bool | None, str, str]:
    r"""Whether a solution ends in `answer`, how that was found, and what it gives.

    Without a verdict (None): no box, and of several values that are stated one is right and another is not, or the right one
    is denied; a right list or text stands among other words; or an exclamation mark could make a factorial of it.
    """
    if (boxed := last_boxed(text)) is not None:
        if as_number(answer) is not None and RELATION.search(boxed):
            return False, "a bound where a number is expected", boxed.strip()[:LONGEST]
        return *_boxed(boxed, answer, worker), boxed.strip()[:LONGEST]
    stated, listed = statement(text), several(text)
    right, how = _stated(stated, answer, worker, listed)
    if (other := maybe_factorial(stated)) and _stated(other, answer, worker, listed)[0] is not right:
        right, how = None, SEVERAL
    return right, how, given_in(text)


def _boxed(boxed: str, answer: str, worker: Worker) -> tuple[bool, str]:
    """Of the content of a box: the strict rule, math-verify, and the strict rule again where that cannot read it."""
    if same(boxed, answer):
        return True, "the same by the strict rule"
    if not boxed.strip():
        return False, "an empty box"
    if len(boxed) > LONGEST:
        return False, f"a box of more than {LONGEST} characters"
    found = worker.ask(f"\\boxed{{{INLINE.sub(_in_latex, spelled(boxed))}}}", answer)
    if found in ("equal", "unequal"):
        return found == "equal", f"{found} by math-verify"
    why = {"unread": "not read by math-verify"}.get(
        found, f"more than {math_worker.QUESTION_S} s or too much memory for math-verify"
    )
    return same(boxed, answer), f"{why}; by the strict rule"


def _stated(stated: str, answer: str, worker: Worker, listed: bool) -> tuple[bool | None, str]:
    """Of a statement without a box: each value in it is compared as if it were boxed.

    Args:
        stated: as `statement` has it.
        answer: the expected one.
        worker: who compares.
        listed: answers are announced, so that "1 and 1/2" is two for certain.
    """
    whole = bare(stated)
    if same(whole, answer):
        return True, "stated without a box; the same by the strict rule"
    if mixed(whole) is not None and _boxed(whole, answer, worker)[0]:
        return True, "stated without a box; equal as a mixed number"
    found = values(stated)
    verdicts = {one: _boxed(one, answer, worker) for one in found}
    if len(found) > 1 and not in_words(stated) and _boxed(plain(stated), answer, worker)[0]:
        return True, "stated without a box; equal as a whole"
    right = [one for one, (equal, _) in verdicts.items() if equal]
    if right and (len(right) < len(found) or denies(stated) or qualifies(stated)):
        return None, SEVERAL
    if not right and _as_list(found, answer, worker):
        alone = only_joins(stated) and normalise(answer)[:1] not in ("(", "[")
        return (True, "stated without a box; equal as a list") if alone else (None, SEVERAL)
    if not right and not listed and _among(stated, answer):
        return None, SEVERAL
    if not right and (names(stated, answer) or (not only_joins(stated) and _holds(found, answer, worker))):
        return None, AMONG
    return bool(right), f"stated without a box; {verdicts[found[-1]][1]}" if found else "no answer in the text"


def _among(stated: str, answer: str) -> bool:
    """Whether the answer is one of the mixed numbers that can be read in a statement."""
    expected, found = as_number(answer), [*MIXED.finditer(stated), *SPOKEN.finditer(stated)]
    return expected is not None and expected in map(_value, found)


def _as_list(found: list[str], answer: str, worker: Worker) -> bool:
    """Whether several values are together an answer of several; not "1 and 200" for 1,200."""
    joined = ", ".join(found)
    return 1 < len(found) < MOST and as_number(joined) is None and _boxed(joined, answer, worker)[0]


def _holds(found: list[str], answer: str, worker: Worker) -> bool:
    """Whether each part of an answer of several is one of the values, whatever is said of the others: "2 and 3, not 4"."""
    parts = values(answer.replace(",", ", "))
    return len(parts) > 1 and all(any(_boxed(one, part, worker)[0] for one in found) for part in parts)
