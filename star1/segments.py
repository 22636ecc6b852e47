"""Zipped lines of a store of replies: `<store>.001.gz`, `.002.gz`, ... hold its older lines, in order.

A segment is never changed. It is a row of gzip members, so that `zcat` reads it whole and a single line costs only one member.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from star1.records import atomic

# Of unzipped text in one member: larger ones are smaller on disk, and slower where single lines are looked up.
BLOCK_BYTES = 1 << 16
# What is read of a store's own file at a time, and of each line to know it by.
READ_BYTES = 1 << 20
HEAD = 128
# How each member starts, with the file time left out.
MEMBER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


class DamagedError(Exception):
    """A member that cannot be unzipped."""


@dataclass(frozen=True)
class Block:
    """One gzip member of a segment: where it starts, and its length [bytes]."""

    path: Path
    start: int
    length: int

    def read(self) -> bytes:
        """The lines in it."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return gzip.decompress(file.read(self.length))


class Place(NamedTuple):
    """Where a line is: in a block, or (None) in the store's own file; its start there, and its length [bytes]."""

    block: Block | None
    start: int
    length: int


def segments(path: Path) -> list[Path]:
    """The segments of a store, oldest first."""
    name = re.compile(re.escape(path.name) + r"\.[0-9]{3,}\.gz")
    found = [one for one in path.parent.glob("*.gz") if name.fullmatch(one.name)]
    return sorted(found, key=lambda one: int(one.name.split(".")[-2]))


def lines(path: Path, own: bool = True) -> Iterator[tuple[Place, bytes]]:
    """All lines of a store, the older ones first; a damaged block counts as one empty line.

    Args:
        path: the store.
        own: with those in its own file, which are not zipped.
    """
    for segment in segments(path):
        for block, text in blocks(segment):
            start = 0
            for line in text.splitlines(keepends=True) or [b""]:
                yield Place(block, start, len(line)), line
                start += len(line)
    if own and path.exists() and not is_zipped(path):
        with open(path, "rb") as file:
            start = 0
            for line in file:
                yield Place(None, start, len(line)), line
                start += len(line)


def spans(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Start, end and first `HEAD` bytes of each line in a store's own file, without making a text of each [bytes]."""
    if not path.exists() or is_zipped(path):
        return
    with open(path, "rb", buffering=0) as file:
        start = base = 0
        while chunk := file.read(READ_BYTES):
            place = chunk.find(b"\n")
            while place >= 0:
                end = base + place + 1
                head = chunk[start - base : start - base + HEAD] if start >= base else b""
                if len(head) < min(HEAD, end - start):  # begun in the chunk before
                    head = os.pread(file.fileno(), HEAD, start)
                yield start, end, head[: end - start]
                start, place = end, chunk.find(b"\n", place + 1)
            base += len(chunk)
        if start < base:
            yield start, base, os.pread(file.fileno(), HEAD, start)[: base - start]


def blocks(segment: Path) -> Iterator[tuple[Block, bytes]]:
    """The members of a segment and their text, which is empty for a damaged one."""
    with open(segment, "rb") as file:
        start = 0
        while True:
            file.seek(start)
            try:
                text, length = _member(file)
            except DamagedError:
                text, length = b"", _next_member(file, start) - start
            if not length:
                return
            yield Block(segment, start, length), text
            start += length


def _member(file: IO[bytes]) -> tuple[bytes, int]:
    unzip, parts, read = zlib.decompressobj(wbits=31), [], 0
    try:
        while not unzip.eof and (chunk := file.read(BLOCK_BYTES)):
            read += len(chunk)
            parts.append(unzip.decompress(chunk))
    except zlib.error as error:
        raise DamagedError(str(error)) from None
    if read and not unzip.eof:
        raise DamagedError("cut off")
    return b"".join(parts), read - len(unzip.unused_data)


def _next_member(file: IO[bytes], start: int) -> int:
    file.seek(start)
    rest = file.read()
    found = rest.find(MEMBER, 1)
    return start + (found if found > 0 else len(rest))


def add_segment(path: Path) -> Path:
    """Zip the lines of a store's own file into a new segment, which is on disk when this ends; the file stays."""
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a run that was killed here
        left.unlink()
    known = segments(path)
    number = int(known[-1].name.split(".")[-2]) + 1 if known else 1
    segment = path.with_name(f"{path.name}.{number:03d}.gz")
    with open(path, "rb") as file, atomic(segment, 0o600) as out:
        # Whole lines only: a line is looked up in one member.
        while text := file.readlines(BLOCK_BYTES):
            out.write(gzip.compress(b"".join(text), mtime=0))
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return segment


def is_zipped(path: Path) -> bool:
    """Whether a store's own file holds what its last segment does: a compaction that was killed before its end."""
    if not (known := segments(path)) or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        return all(file.read(len(text)) == text for _, text in blocks(known[-1])) and not file.read(1)
