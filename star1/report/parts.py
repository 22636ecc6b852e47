"""Data files of the report's page that are too large for one: rows cut into parts, each a script that a page on disk can load."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from star1.errors import InputError
from star1.records import Row
from star1.report.writing import DATA, ESCAPES

# Bytes of a part, unless a single row is larger: read in a few milliseconds, and few enough of them for 41,000 rows.
LIMIT = 480_000


class Parts:
    """Rows on their way into numbered files `{name}-{number}.js`, a JSON list each; one part is in memory.

    Args:
        folder: of the page.
        name: of the parts.

    Attributes:
        starts: number of the first row of each part that was written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.starts = folder, name, list[int]()
        self._rows: list[bytes] = []
        self._size = self._next = 0

    def add(self, row: object) -> None:
        """Take the next row."""
        content = orjson.dumps(row)
        if self._rows and self._size + len(content) > LIMIT:
            self._end()
        self._rows.append(content)
        self._size += len(content) + 1

    def _end(self) -> None:
        name = f"{self.name}-{len(self.starts)}"
        content = b",\n".join(self._rows)
        for character, escaped in ESCAPES.items():
            content = content.replace(character.encode(), escaped.encode())
        path = self.folder / DATA / f"{name}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not atomic: the folder of the page takes its place as a whole, and there are a thousand of these.
        path.write_bytes(b"report.put(" + orjson.dumps(name) + b", [" + content + b"]);\n")
        self.starts.append(self._next)
        self._next += len(self._rows)
        self._rows, self._size = [], 0

    def close(self) -> Row:
        """Write what is left; gives what the page needs to find a row: the parts' name and first rows."""
        if self._rows:
            self._end()
        return {"name": self.name, "starts": self.starts}


def stream(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a file and where in it each begins [bytes], one in memory at a time. Blank lines are passed over.

    Raises:
        InputError: the file is missing, or a line is not a JSON object; names the line.
    """
    place = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield place, _object(f"{path}:{number}", line)
                place += len(line)
    except FileNotFoundError:
        raise InputError(path, "no such file", "JSON Lines") from None


def _object(where: str, line: bytes) -> Row:
    try:
        row: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(where, f"not JSON ({error})", "one JSON object a line") from None
    if not isinstance(row, dict):
        raise InputError(where, f"a {type(row).__name__}", "a JSON object")
    return row
