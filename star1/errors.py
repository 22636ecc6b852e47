"""Errors that a user can act on, in one form.

`where: what was found; what was expected. Hint: what to do.`
"""

import contextlib
import signal
import sys
from collections.abc import Callable


class Star1Error(Exception):
    """An expected failure, told in one line."""

    def __init__(self, where: object, found: str, expected: str, hint: str = "") -> None:
        self.where, self.found, self.expected, self.hint = str(where), found, expected, hint
        super().__init__(f"{where}: {found}; expected {expected}." + (f" Hint: {hint}" if hint else ""))


class InputError(Star1Error):
    """A file or row that is not what the stage reads."""


class SettingError(Star1Error):
    """A value in params.yaml, a preset or the environment that cannot be used."""


class CallError(Star1Error):
    """A model endpoint that cannot go on: wrong key, unknown model, no quota, or no connection."""


class CoverageError(Star1Error):
    """Too few rows of a stage could be read or scored."""


class StoppedError(Star1Error):
    """A signal that ended a stage in order; `number` is the signal's."""

    def __init__(self, stage: str, number: int, hint: str = "") -> None:
        self.number = number
        name = signal.Signals(number).name
        hint = hint or "start it again: what was answered is in the store, and is not asked again"
        super().__init__(stage, f"stopped by {name}", "to go on to the last row", hint)


def tell(line: str) -> None:
    """Print a line on stderr; where nobody reads it any more (an interrupt also ends `tee`), the work goes on."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; an expected failure ends it with its one line on stderr and exit status 1.

    After a signal, the status is 128 and the signal's number, as in a shell.
    """
    try:
        main()
    except StoppedError as error:
        tell(f"error: {error}")
        sys.exit(128 + error.number)
    except KeyboardInterrupt:
        tell("error: interrupted")
        sys.exit(128 + signal.SIGINT)
    except Star1Error as error:
        tell(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        # Full disks, read-only folders, missing files: the system's own words name the path.
        where, found = error.filename or "file system", error.strerror or str(error)
        tell(f"error: {Star1Error(where, found, 'a folder that can be read and written')}")
        sys.exit(1)
