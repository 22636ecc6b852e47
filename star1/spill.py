"""Rows that a stage has made and does not need yet: on disk in place of in memory, whatever their number."""

import tempfile
from array import array
from collections.abc import Sequence
from typing import overload

import orjson

from star1.records import Row

NOTHING = -1


class Spill(Sequence[Row]):
    """Rows in order of their places, in a file without a name that is gone when nobody holds it any more.

    Args:
        places: number of places; each takes one row at most, and those without one do not count.
    """

    def __init__(self, places: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._starts, self._end = array("q", [NOTHING]) * places, 0
        self._filled: list[int] | None = None

    def put(self, place: int, row: Row) -> None:
        """Keep a row."""
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        self._file.seek(self._end)
        self._file.write(line)
        self._starts[place], self._end, self._filled = self._end, self._end + len(line), None

    @property
    def _rows(self) -> list[int]:
        """Where the rows start, in order."""
        if self._filled is None:
            self._filled = [start for start in self._starts if start != NOTHING]
        return self._filled

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """A row, read anew each time."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        self._file.seek(self._rows[index])
        row: Row = orjson.loads(self._file.readline())
        return row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]


def _same(one: Row, other: object) -> bool:
    return one == other
