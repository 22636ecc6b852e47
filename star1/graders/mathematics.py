r"""The grader of mathematics: math-verify on the final answer, in a process of its own, and a strict rule beside it.

math-verify bounds its own time by signals, which work on a program's main thread only and cannot stop a computation inside
the C library; here its limits are off, and the kernel ends the process when it takes too long. The final answer is the content
of the last `\boxed{…}` and nothing else of the text; without a box, what math-verify finds in the text.
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

from star1.errors import Star1Error
from star1.graders import math_worker

NUMBER = re.compile(r"-?\d+(?:,\d{3})+(?:\.\d+)?|-?\d*\.\d+|-?\d+(?:\s*/\s*\d+)?")
SPACING = re.compile(r"\\left|\\right|\\[,;:! ]|\\displaystyle|\\?\$|\s+")
# Time on the clock after which a process that neither answers nor ends is given up, and for the library to load [s].
WAIT_S, LOADING_S = 120.0, 120.0
# What is read of a text without a box, from its end, and of the content of a box [characters].
TAIL, LONGEST = 2000, 1000

Found = Literal["equal", "unequal", "unread", "timeout"]


def version() -> str:
    """The library that decides, with its version."""
    return f"math-verify {importlib.metadata.version('math-verify')}"


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


def final_answer(text: str) -> str | None:
    r"""What a solution gives as its answer by the strict rule: the last `\boxed{…}`, else the last number, else None."""
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
    except (ZeroDivisionError, ValueError):  # also numbers of more digits than Python reads
        return None


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


def grade(text: str, answer: str, worker: Worker = WORKER) -> tuple[bool, str, str]:
    r"""Whether a solution ends in `answer`, how that was found, and what it gives.

    In this order: a box whose content is the answer by the strict rule; math-verify; the strict rule on the box or the last
    number, where math-verify cannot read the text or takes too long.
    """
    boxed = last_boxed(text)
    given = boxed if boxed is not None else final_answer(text)
    shown = (given or "").strip()[:LONGEST]
    if boxed is not None and same(boxed, answer):
        return True, "the same by the strict rule", shown
    if boxed is not None and not boxed.strip():
        return False, "an empty box", shown
    if boxed is not None and len(boxed) > LONGEST:
        return False, f"a box of more than {LONGEST} characters", shown
    found = worker.ask(f"\\boxed{{{boxed}}}" if boxed is not None else text[-TAIL:], answer)
    if found in ("equal", "unequal"):
        return found == "equal", f"{found} by math-verify", shown
    if given is None:
        return False, "no answer in the text", shown
    why = (
        "not read by math-verify"
        if found == "unread"
        else f"more than {math_worker.QUESTION_S} s or too much memory for math-verify"
    )
    return same(given, answer), f"{why}; by the strict rule", shown
