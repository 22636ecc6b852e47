"""Parts of a stage's store, filled side by side on several machines: `<stage>.part-2-of-8.jsonl` beside `<stage>.jsonl`.

Each has a writer of its own, finds what the store and the other parts hold, and counts for the limits of spending as any
store does. The stage takes them over when it next opens its own, and they are gone.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from star1.errors import tell
from star1.ledger import stores
from star1.records import Row
from star1.replies import Reply, Store
from star1.segments import lines, segments
from star1.tags import tag_file


def part_file(store: Path, part: int, parts: int) -> Path:
    """Where a part of a store is; `part` counts from 1."""
    return store.with_name(f"{store.stem}.part-{part}-of-{parts}.jsonl")


def parts_of(store: Path) -> list[Path]:
    """The parts that lie beside a store."""
    named = re.compile(re.escape(store.stem) + r"\.part-[0-9]+-of-[0-9]+")
    return [path for name, path in stores(folder=store.parent).items() if named.fullmatch(name)]


def belongs(row: Row, part: int, parts: int) -> bool:
    """Whether a row is of a part, from 1: by its question, so that no two parts ask the same."""
    digest = hashlib.sha256(str(row["question"]).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % parts == part - 1


class PartStore(Store):
    """A part of a store, open for its one writer.

    Args:
        path: of the part.
        secrets: keys that must never reach the disk.
        store: what it is a part of; read, and so are its other parts, as they are now.
    """

    def __init__(self, path: Path, *secrets: str | None, store: Path) -> None:
        super().__init__(path, *secrets)
        self._beside = [Store(one, look=True) for one in (store, *parts_of(store)) if one != path]

    def get(self, key: str) -> Reply | None:
        """The reply kept under `key`, here or beside; None where there is none."""
        found = super().get(key)
        return next((reply for one in self._beside if (reply := one.get(key))), None) if found is None else found

    def given_up(self, key: str) -> tuple[str, str, str] | None:
        """As in a store; what another one gave up counts unless a reply is here."""
        found = super().given_up(key)
        return next((told for one in self._beside if (told := one.given_up(key))), None) if found is None else found


def absorb(store: Store) -> int:
    """Take over the parts of an open store; gives how many there were.

    Killed half-way, it leaves a part that the next one takes over: a line that the store has already is not taken twice.

    Raises:
        InputError: a part is still being filled.
    """
    found = parts_of(store.path)
    known = {_digest(line) for _, line in lines(store.path)} if found else set()
    for path in found:
        with Store(path):  # its lock, and its torn end cut off
            new = [line for _, line in lines(path) if line.endswith(b"\n") and _digest(line) not in known]
            for line in new:
                store.take(line)
            store.sync()
            _remove(path, segments(path))
        tell(f"{path}: {len(new)} records taken over")
    return len(found)


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def _remove(path: Path, zipped: Sequence[Path]) -> None:
    for segment in zipped:
        tag_file(segment).unlink(missing_ok=True)
        segment.unlink()
    path.unlink()
