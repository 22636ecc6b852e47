"""Parts of a stage's store, filled side by side on several machines: `<stage>.part-2-of-8.jsonl` beside `<stage>.jsonl`.

Each has a writer of its own, finds what the store and the other parts hold, and counts for the limits of spending as any
store does. The stage takes them over when it next opens its own, and they are gone.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from star1.batch_journal import Journal
from star1.errors import InputError, tell
from star1.ledger import stores
from star1.owners import NO_LOCKS, in_use, see_free
from star1.replies import Reply, Store, keep_torn, part_from_cache
from star1.segments import lines, segments
from star1.tags import tag_file


def part_file(store: Path, part: int, parts: int) -> Path:
    """Where a part of a store is; `part` counts from 1."""
    return store.with_name(f"{store.stem}.part-{part}-of-{parts}.jsonl")


def parts_of(store: Path) -> list[Path]:
    """The parts that lie beside a store."""
    named = re.compile(re.escape(store.stem) + r"\.part-[0-9]+-of-[0-9]+")
    return [path for name, path in stores(folder=store.parent).items() if named.fullmatch(name)]


def belongs(text: str, part: int, parts: int) -> bool:
    """Whether a row is of a part, from 1: by a text that is in what it asks, so that no two parts ask the same."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % parts == part - 1


class PartStore(Store):
    """A part of a store, open for its one writer.

    Args:
        path: of the part.
        secrets: keys that must never reach the disk.
        store: what it is a part of; read, and so are its other parts, as they are now. It has no writer meanwhile.

    Raises:
        InputError: another process is writing to the part or to the store, or batches of the store are on their way.
    """

    def __init__(self, path: Path, *secrets: str | None, store: Path) -> None:
        self._shared = _share(store)
        try:
            # Their rows have no reply yet and are paid for: a part would ask for them again.
            _see_ended(store, "running the stage")
            super().__init__(path, *secrets)
            self._beside = [Store(one, look=True) for one in (store, *parts_of(store)) if one != path]
        except BaseException:
            self._leave()
            raise

    def close(self) -> None:
        """As a store does; the last part to close lets a writer to the whole store in."""
        super().close()
        self._leave()

    def _leave(self) -> None:
        if self._shared >= 0:
            os.close(self._shared)
            self._shared = -1

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
        InputError: a part is still being filled, or batches of it are on their way.
    """
    found = parts_of(store.path)
    known = {_digest(line) for _, line in lines(store.path)} if found else set()
    for path in found:
        with Store(path):  # its lock, and its torn end cut off
            _see_ended(path, "`star1 calls fill` with the same --part")
            new = [line for _, line in lines(path) if line.endswith(b"\n") and _digest(line) not in known]
            for line in new:
                store.take(line)
            store.sync()
            _take_torn(path, store.path)
            _remove(path, segments(path))
        tell(f"{path}: {len(new)} records taken over")
    return len(found)


def _share(store: Path) -> int:
    """Lock a store for one of its parts: beside other parts, not beside its writer; gives the open file."""
    store.parent.mkdir(parents=True, exist_ok=True)
    while True:
        part_from_cache(store)  # its writer would, and lock the new file
        file = os.open(store, os.O_RDONLY | os.O_CREAT, 0o600)
        try:
            see_free(store, _lock_shared(file, store))
            if os.path.samestat(os.fstat(file), store.stat()):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # another part has just replaced it


def _lock_shared(file: int, store: Path) -> bool:
    """Lock an open store's file; gives whether there are locks where it lies."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise in_use(store) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _see_ended(path: Path, who: str) -> None:
    """See that nothing is on its way that only the own journal of a store, or of a part of one, knows how to collect."""
    journal = Journal.beside(path)
    if journal.opened:
        hint = f"{who} collects them (without {journal.path.name} they are paid anew)"
        raise InputError(path, "batches of it are on their way", "none of them open", hint)


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def _take_torn(path: Path, store: Path) -> None:
    torn = Path(f"{path}.torn")
    if torn.exists():
        keep_torn(store, torn.read_bytes())
        torn.unlink()


def _remove(path: Path, zipped: Sequence[Path]) -> None:
    """Remove a part; its own file last, by which it is found."""
    Journal.beside(path).path.unlink(missing_ok=True)
    for segment in zipped:
        tag_file(segment).unlink(missing_ok=True)
        segment.unlink()
    path.unlink()
