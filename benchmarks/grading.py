"""How long grading takes: programs in the sandbox, choices, and mathematics in the process of math-verify.

    python -m benchmarks.grading [--rows 164] [--mathematics FILE]

FILE is JSON Lines with `answer`, such as MATH-500; without one, the bundled problems are repeated.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from star1.grading import grade
from star1.records import Row, read_rows
from star1.sandbox import Sandbox, check

PROGRAM: Row = {
    "id": "add",
    "benchmark": "timing",
    "grader": "code",
    "question": 'def add(a, b):\n    """Add two numbers."""\n',
    "tests": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    "entry_point": "add",
}
CHOICE: Row = {"id": "c", "benchmark": "timing", "grader": "choice", "answer": "B", "choices": [*"abcdefghij"]}


def processor_s() -> float:
    """Processor time of this process and of its ended children [s]."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(name: str, rows: Sequence[Row], text: Callable[[Row], str]) -> None:
    """Grade the rows, all of them right, and tell how long it took."""
    grade(rows[0], text(rows[0]), Sandbox(wall_s=60.0))  # what is started once is not counted
    started, used = time.perf_counter(), processor_s()
    right = sum(grade(row, text(row), Sandbox(wall_s=60.0)).verdict == "correct" for row in rows)
    wall_s = time.perf_counter() - started
    print(
        f"{name}: {right} of {len(rows)} correct, {wall_s:.1f} s ({1000 * wall_s / len(rows):.1f} ms each), "
        f"{processor_s() - used:.1f} s of processor time without running children"
    )


def main() -> None:
    """Time each grader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=164, help="how many programs are graded")
    parser.add_argument("--mathematics", type=Path, default=Path("bundled/benchmarks/math500.jsonl"))
    flags = parser.parse_args()
    started = time.perf_counter()
    check()
    print(f"sandbox: first start, with the search for Python's files, {time.perf_counter() - started:.2f} s")
    timed("programs", [PROGRAM] * flags.rows, lambda _: "```python\ndef add(a, b):\n    return a + b\n```")
    timed("choices", [CHOICE] * 12_032, lambda _: "Because of this and that.\n" * 100 + "Answer: B")
    rows = [{"id": "m", **row} for row in read_rows(flags.mathematics, ["answer"])]
    timed("mathematics, in a box", rows, lambda row: f"So \\boxed{{{row['answer']}}}.")
    timed("mathematics, read by math-verify", rows, lambda row: f"The answer is ${row['answer']}$.")


if __name__ == "__main__":
    main()
