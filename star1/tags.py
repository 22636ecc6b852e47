"""Which block of a zipped segment holds which request or row, kept in a hidden file beside it.

Segments do not change, so a list of their keys does not either. One that is missing or of another segment is made anew.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import orjson

from star1.records import atomic
from star1.segments import Block, blocks

FORM = b"star1 tags 1\n"
ENTRY = struct.Struct(">QQI")
FIELDS = ("key", "item")


def tag(field: str, value: str) -> int:
    """A number for a key or an item; two may share one, so what is found is read and compared."""
    return int.from_bytes(hashlib.blake2b(f"{field} {value}".encode("utf-8", "replace"), digest_size=8).digest())


def tag_file(segment: Path) -> Path:
    """Where the tags of a segment are."""
    return segment.with_name(f".{segment.name}.tags")


def write(segment: Path) -> None:
    """Write down which block holds which key and item."""
    entries = sorted({(one, block.start, block.length) for block, text in blocks(segment) for one in _tags(text)})
    with atomic(tag_file(segment), 0o600) as file:
        file.write(_header(segment) + b"".join(ENTRY.pack(*entry) for entry in entries))


def _tags(text: bytes) -> Iterator[int]:
    for line in text.splitlines():
        try:
            record = orjson.loads(line)
            found = [(field, record.get(field)) for field in FIELDS]
        except (orjson.JSONDecodeError, AttributeError):
            continue
        yield from (tag(field, value) for field, value in found if isinstance(value, str))


def _header(segment: Path) -> bytes:
    """The form, and what tells the segment from another of its name: size, and check sum of the last member."""
    with open(segment, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - 8))
        return FORM + struct.pack(">Q", size) + file.read().rjust(8, b"\0")


def find(segment: Path, field: str, value: str) -> list[Block]:
    """The blocks of a segment that may hold a line with a key or an item, in order: all, where tags cannot be written."""
    path, header = tag_file(segment), _header(segment)
    try:
        if not path.is_file() or path.stat().st_size < len(header):
            write(segment)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text[: len(header)] == header:
                return [Block(segment, *place) for place in _places(text, len(header), tag(field, value))]
        path.unlink()
    except PermissionError:
        return [block for block, _ in blocks(segment)]
    return find(segment, field, value)


def _places(text: mmap.mmap, start: int, wanted: int) -> Iterator[tuple[int, int]]:
    low, high = 0, (len(text) - start) // ENTRY.size
    while low < high:
        middle = (low + high) // 2
        if ENTRY.unpack_from(text, start + middle * ENTRY.size)[0] < wanted:
            low = middle + 1
        else:
            high = middle
    while start + (low + 1) * ENTRY.size <= len(text):
        found, place, length = ENTRY.unpack_from(text, start + low * ENTRY.size)
        if found != wanted:
            return
        yield place, length
        low += 1
