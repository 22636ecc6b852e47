"""Errors that a user can act on, in one form.

`where: what was found; what was expected. Hint: what to do.`
"""

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


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; an expected failure ends it with its one line on stderr and exit status 1."""
    try:
        main()
    except Star1Error as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except OSError as error:
        # Full disks, read-only folders, missing files: the system's own words name the path.
        line = Star1Error(
            error.filename or "file system", error.strerror or str(error), "a folder that can be read and written"
        )
        print(f"error: {line}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
