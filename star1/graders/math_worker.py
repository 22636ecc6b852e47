r"""The process that holds math-verify: questions `{"given", "answer"}` a line on stdin, one word a line on stdout.

It bounds its own memory, and the processor time of each question: the kernel ends it, in the middle of whatever it computes.
Not the time on the clock, which would make verdicts depend on what else the machine does.
"""

import json
import logging
import os
import resource
import sys
from typing import Any

MEMORY_BYTES = 4 << 30
# Processor time of one question [s].
QUESTION_S = 5


def read(text: str) -> list[Any]:
    """The mathematics in a text, by math-verify, box first."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    found: list[Any] = parse(
        text, [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()], parsing_timeout=None
    )
    return found


def compare(given: str, answer: str) -> str:
    """Whether what a text gives is the answer: equal, unequal, or unread where one of the two cannot be read."""
    from math_verify import verify

    try:
        expected, found = read(f"\\boxed{{{answer}}}"), read(given)
        if not expected or not found:
            return "unread"
        return "equal" if verify(expected, found, timeout_seconds=None) else "unequal"
    except (ArithmeticError, ValueError, TypeError, RecursionError, MemoryError, AttributeError, NotImplementedError):
        return "unread"  # sympy raises all of these on mathematics that it cannot do


def main() -> None:
    """Answer until nobody asks."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    out.write(compare("\\boxed{1}", "1") + "\n")
    out.flush()
    for line in sys.stdin:
        question = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + QUESTION_S, resource.RLIM_INFINITY)
        )
        out.write(compare(question["given"], question["answer"]) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
