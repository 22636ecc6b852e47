"""Rows and small documents on disk: JSON Lines in, JSON Lines out, never a half-written file under its final name."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from star1.errors import InputError

Row = dict[str, Any]


def text_digest(text: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of `text`: names a text in reports without quoting it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: str | Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a new file that takes the name `path` only when the block ends without an error.

    The bytes are on disk before the rename, so that a crash leaves the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON, atomically. Key order is kept."""
    with atomic(path) as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def write_rows(path: str | Path, rows: Iterable[Row]) -> int:
    """Write one JSON object a line, atomically; gives the number of rows."""
    count = 0
    with atomic(path) as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def read_json(path: str | Path) -> Any:
    """Read one JSON document.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return orjson.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(path, "no such file", "a JSON document") from None
    except orjson.JSONDecodeError as error:
        raise InputError(path, f"not JSON ({error})", "a JSON document") from None


def read_rows(path: str | Path, required: Sequence[str] = ()) -> list[Row]:
    """Read JSON Lines, every row an object that has the `required` fields. Blank lines are passed over.

    Raises:
        InputError: the file is missing, a line is not a JSON object, or a row lacks a field; names the line.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError(path, "no such file", "JSON Lines") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}:{number}", f"not JSON ({error})", "one JSON object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}", f"a {type(row).__name__}", "a JSON object")
        if missing := [name for name in required if name not in row]:
            raise InputError(f"{path}:{number}", f"no field {missing[0]!r}", "the fields " + ", ".join(required))
        rows.append(row)
    return rows


def primary(rows: Sequence[Row]) -> list[Row]:
    """The judgements that the tables are made of: those of the first judge of each purpose, and the grader's."""
    return [row for row in rows if row.get("primary", True)]
