"""Single rows of large JSON Lines files: their bytes are looked for, and only lines that hold them are read as JSON.

All files are written by orjson, so a field and its value are the same bytes wherever they stand.
"""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from star1.records import Row

CHUNK = 1 << 20
HEAD = re.compile(rb'\{"id":"([0-9]+)"')


def needle(field: str, value: object) -> bytes:
    """A field and its value as they stand in a line."""
    return orjson.dumps({field: value})[1:-1]


def positions(path: Path, wanted: bytes) -> Iterator[int]:
    """Where `wanted` stands in a file, ascending [bytes].

    Through a small buffer: it stays in the processor's cache, and looking for bytes in it is faster than in a mapped file.
    """
    keep = len(wanted) - 1
    buffer = bytearray(CHUNK + keep)
    held = start = 0
    with open(path, "rb", buffering=0) as file, memoryview(buffer) as view:
        while count := file.readinto(view[held:]):
            end, at = held + count, -1
            while (at := buffer.find(wanted, at + 1, end)) >= 0:
                yield start + at
            # What is carried over is too short to hold it: nothing is found twice.
            held, start = min(keep, end), start + end - min(keep, end)
            view[:held] = bytes(view[end - held : end])


def lines_with(path: Path, wanted: bytes) -> Iterator[bytes]:
    """The whole lines that hold `wanted`, in order."""
    if not path.is_file() or not path.stat().st_size:
        return
    done = 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for at in positions(path, wanted):
            if at >= done:
                start, end = _line(text, at)
                done = end
                yield text[start:end]


def _line(text: mmap.mmap, at: int) -> tuple[int, int]:
    """Start and end of the line around a place, its end of line left out."""
    end = text.find(b"\n", at)
    return text.rfind(b"\n", 0, at) + 1, len(text) if end < 0 else end


def rows_with(path: Path, field: str, value: object) -> Iterator[Row]:
    """The rows of a file whose `field` is `value`, in order; texts that only quote it are passed over."""
    for line in lines_with(path, needle(field, value)):
        row = parsed(line)
        if row.get(field) == value:
            yield row


def parsed(line: bytes) -> Row:
    """A line as an object; empty for what is none (a line that is being written)."""
    try:
        row: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def answers_of(path: Path, name: str) -> tuple[list[Row], list[Row]]:
    """The rows of an answer in a file of generations or judgements, and those of all samples of the same item.

    Args:
        path: the file.
        name: id of the item, which means its first sample, or id@sample; an id that ends like that is an id.
    """
    whole = list(rows_with(path, "id", name))
    item, at, sample = name.rpartition("@")
    if not whole and at and sample.isdecimal():
        whole = list(rows_with(path, "id", item))
        return [row for row in whole if (row.get("sample") or 0) == int(sample)], whole
    return [row for row in whole if not row.get("sample")], whole


def row_of(path: Path, name: str) -> Row | None:
    """The row whose id is `name`, or None; in files that are sorted by number, without reading through them."""
    found = _by_order(path, name) if name.isdecimal() and name.isascii() else None
    return found or next(rows_with(path, "id", name), None)


def _by_order(path: Path, name: str) -> Row | None:
    if not path.is_file() or not path.stat().st_size:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        low, high = 0, len(text)
        while low < high:
            start, end = _line(text, (low + high) // 2)
            head = HEAD.match(text, start, end)
            if head is None:
                return None
            if int(head[1]) == int(name):
                row = parsed(text[start:end])
                return row if row.get("id") == name else None
            low, high = (end + 1, high) if int(head[1]) < int(name) else (low, start)
    return None
