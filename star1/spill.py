"""Rows that a stage has made and does not need yet: on disk in place of in memory, whatever their number."""

import os
import tempfile
from array import array
from collections.abc import Sequence
from typing import overload

import orjson

from star1.records import Row


class Spill(Sequence[Row]):
    """Rows in order of their places, in a file without a name that is gone when nobody holds it any more.

    Args:
        places: number of places; each takes one row at most, and those without one do not count.
    """

    def __init__(self, places: int) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._starts, self._lengths, self._end = array("q", [0]) * places, array("q", [0]) * places, 0
        self._filled: list[int] | None = None

    def put(self, place: int, row: Row) -> None:
        """Keep a row."""
        text, done = orjson.dumps(row), 0
        while done < len(text):
            done += os.pwrite(self._file.fileno(), text[done:], self._end + done)
        self._starts[place], self._lengths[place] = self._end, len(text)
        self._end, self._filled = self._end + len(text), None

    @property
    def _places(self) -> list[int]:
        """The places that have a row."""
        if self._filled is None:
            self._filled = [place for place, length in enumerate(self._lengths) if length]
        return self._filled

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """A row, read anew each time."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = self._places[index]
        row: Row = orjson.loads(os.pread(self._file.fileno(), self._lengths[place], self._starts[place]))
        return row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]


def _same(one: Row, other: object) -> bool:
    return one == other
