"""The grader of programs: the answer's code, run in the sandbox against the row's tests."""

import contextlib
import json
import math
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from star1 import sandbox
from star1.errors import InputError, Star1Error
from star1.graders import confined
from star1.records import Row
from star1.sandbox import Sandbox

SCRIPT = Path(confined.__file__)
FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.-]*)[^\n`]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
PYTHON = ("", "python", "py", "python3")


def program_of(text: str, prompt: str, entry_point: str) -> str | None:
    """The program that an answer gives, after the prompt's own code; None where there is none.

    It is the last fenced block that defines the function; else the answer from that definition on (or its imports before it);
    else, where a block or an indented text has no definition, its lines as the body that the prompt lacks.
    """
    blocks = [body for _, language, body in FENCE.findall(text) if language.lower() in PYTHON]
    defines = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*[=:]", re.MULTILINE)
    if named := [block for block in blocks if defines.search(block)]:
        return f"{prompt}\n\n{named[-1]}"
    if not blocks and defines.search(text):
        start = re.search(r"^(?:from \w|import \w|@|def |class )", text, re.MULTILINE)
        return f"{prompt}\n\n{text[start.start() if start else 0 :]}"
    body = blocks[-1] if blocks else text
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines or (not blocks and lines[0][:1] not in " \t"):
        return None
    return f"{prompt}\n" + (body if lines[0][:1] in " \t" else "\n".join(f"    {line}" for line in body.splitlines()))


def passes(row: Row, program: str, settings: Sandbox) -> tuple[bool, str]:
    """Whether a program passes the row's tests, and why not.

    Raises:
        InputError: the row's own prompt or tests do not run.
        NoSandboxError: there is no sandbox here.
    """
    task = {"program": program, "prompt": row["question"], "tests": row["tests"], "entry_point": row["entry_point"]}
    seconds = str(math.ceil(settings.wall_s) + 1)
    with _both(settings, seconds) as examiner:
        try:
            out, _ = examiner.communicate(json.dumps(task).encode(), timeout=settings.wall_s)
        except subprocess.TimeoutExpired:
            return False, f"not done within {settings.wall_s:g} s"
    if not out.strip():
        return False, "the tests ended without a word"
    found = json.loads(out)
    if found["outcome"] == "broken":
        expected = "a prompt and tests that run"
        raise InputError(f"benchmark {row.get('benchmark')}, row {row.get('id')}", found["why"], expected)
    return found["outcome"] == "passed", found["why"]


@contextlib.contextmanager
def _both(settings: Sandbox, seconds: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of the tests, connected with that of the program; both are gone when the block ends."""
    (asked, asking), (told, telling) = os.pipe(), os.pipe()
    limits = [str(settings.memory_mb), seconds]
    quiet = subprocess.DEVNULL
    started: list[subprocess.Popen[bytes]] = []
    try:
        try:
            ends = [str(told), str(asking)]
            started.append(
                sandbox.start(SCRIPT, ["candidate", *limits], settings, stdin=asked, stdout=telling, stderr=quiet)
            )
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": quiet}
            started.append(
                sandbox.start(SCRIPT, ["examiner", *limits, *ends], settings, pass_fds=(told, asking), **pipes)
            )
        finally:
            for end in (asked, asking, told, telling):
                os.close(end)
        yield started[1]
    except OSError as error:
        raise Star1Error("sandbox", str(error), "two processes and their pipes") from None
    finally:
        for one in started:
            one.kill()
            one.communicate()
