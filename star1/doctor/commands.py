"""Other programs, started with a limit of time; whatever they do, it is an answer."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 10.0
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Answer:
    """What a program said: `status` is None where it did not end in time or could not be started."""

    status: int | None
    out: str
    error: str

    @property
    def last(self) -> str:
        """The last line of what it complained of, or said."""
        lines = [line.strip() for line in (self.error or self.out).splitlines() if line.strip()]
        return lines[-1][:300] if lines else "no message"


def ask(command: Sequence[str], limit_s: float = LIMIT_S) -> Answer:
    """Run a program; it and what it started end with the limit."""
    try:
        started = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=-1,
            stderr=-1,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Answer(None, "", error.strerror or str(error))
    try:
        out, told = started.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        return Answer(None, "", f"no answer within {limit_s:g} s")
    return Answer(started.returncode, out, told)


def which(*names: str) -> str | None:
    """The first of these programs that is on the PATH."""
    return next((found for name in names if (found := shutil.which(name))), None)
