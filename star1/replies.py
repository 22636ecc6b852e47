"""The store of model replies: append-only JSON Lines that outlive crashes, so that no reply is paid for twice."""

import fcntl
import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson

from star1 import tags
from star1.actuals import Actuals
from star1.errors import InputError, tell
from star1.owners import NO_LOCKS, Owner, in_use
from star1.segments import HEAD, Block, Place, add_segment, is_zipped, lines, spans

# Part of every key: raise it when what is sent for the same arguments changes.
VERSION = 1
SYNC_EVERY_S = 1.0
# Status of the record that takes a reply back (`star1 calls retry`).
REOPENED = "reopened"
# Status of the record that says: no reply came, and none is to be asked for again.
GIVEN_UP = "given up"
# How a record of a reply begins, and at which place its key does, so that most lines need not be parsed to be found.
BEGINNING = b'{"version":%d,"status":"ok","key":"' % VERSION
KEY_LENGTH = 64
# Unzipped blocks that are kept at hand: rows ask for their replies in nearly the order in which they came.
BLOCKS = 16
# Servers without keys are given a word such as EMPTY in place of one: no secret, and a word that replies may hold.
SHORTEST_SECRET = 8
# A file of this size is closed, and zipped by the next run; the lines that follow begin a new one.
SEGMENT_BYTES = 256 * 2**20
COPY_BYTES = 2**24


@dataclass(frozen=True)
class Reply:
    """What a model answered, as it came."""

    content: str
    reasoning_content: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    note: str = ""


def reply_key(
    identity: str,
    messages: Sequence[Mapping[str, str]],
    sampling: Mapping[str, Any],
    template: str,
    response_format: Mapping[str, Any] | None = None,
    sample: int = 0,
) -> str:
    """SHA-256 that names a request by what decides its reply: never by address, key, time-out or retries.

    Args:
        identity: who answers, as `Endpoint.identity` has it.
        messages: the conversation so far.
        sampling: decoding settings that are sent.
        template: digest of the prompt's file.
        response_format: the API's own, if one is set.
        sample: index, where the same question is asked more than once.
    """
    parts = {
        "version": VERSION,
        "label": identity,
        "messages": list(messages),
        "sampling": dict(sampling),
        "response_format": response_format,
        "sample": sample,
        "template": template,
    }
    # Canonical form: sorted keys, no blanks; a lone surrogate in a prompt must not stop the run.
    try:
        canonical = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        canonical = repr(sorted(parts.items())).encode("utf-8", "surrogatepass")
    return hashlib.sha256(canonical).hexdigest()


def usage_tokens(usage: object) -> tuple[int, int] | None:
    """Tokens of prompt and reply in a server's `usage`; None where it does not tell them."""
    if not isinstance(usage, dict):
        return None
    prompt, reply = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (prompt, reply) if type(prompt) is int and type(reply) is int and min(prompt, reply) >= 0 else None


class Store:
    """One stage's replies on disk, open for one writer.

    A record is on disk before its reply is used; older lines may be zipped (`compact`). A half-written last line (a
    killed run) is cut off and kept in `<path>.torn`; a line in the middle that cannot be read is counted in `bad_lines`
    and passed over.

    Args:
        path: the file; made when missing. Beyond `SEGMENT_BYTES` it is zipped when it is opened.
        secrets: keys that must never reach the disk.
        look: only to read, also beside a writer; nothing is made or changed.

    Raises:
        InputError: another process is writing to the file, or a compaction was killed and no lock can be had to end it.
    """

    def __init__(self, path: str | Path, *secrets: str | None, look: bool = False) -> None:
        self.path = Path(path)
        self.bad_lines = 0
        self.actuals = Actuals()
        self._places: dict[str, Place] = {}
        self._given_up: dict[str, Place] = {}
        self._block = functools.lru_cache(maxsize=BLOCKS)(Block.read)
        if look:
            self._fd = os.open(self.path if self.path.exists() else os.devnull, os.O_RDONLY)
            self._index()
        else:
            self._open(secrets)

    def _open(self, secrets: Sequence[str | None]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part_from_cache(self.path)
        # orjson escapes quotes and backslashes, so the bytes to look for are those of the key inside a JSON string.
        self._secrets = [orjson.dumps(one)[1:-1] for one in secrets if one and len(one) >= SHORTEST_SECRET]
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._links = os.fstat(self._fd).st_nlink
            self._locked = self._lock()
            self._owner = Owner(self.path, self._locked)
        except BaseException:
            os.close(self._fd)
            raise
        try:
            self._size = self._cut_torn_tail()
            if is_zipped(self.path):
                self._see_locked("end a compaction that was killed")
                self._empty()
            self._index()
            if self._size >= SEGMENT_BYTES:
                self._compact_if_locked()
        except BaseException:
            self.close()
            raise
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __len__(self) -> int:
        """Number of requests with a reply."""
        return len(self._places)

    def get(self, key: str) -> Reply | None:
        """The reply kept under `key`, or None. Failures are never given back."""
        if (place := self._places.get(key)) is None:
            self.actuals.want(key)
            return None
        try:
            record = orjson.loads(self._line(place))
            reply = Reply(**record["reply"], note=record["note"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            # A damaged line that begins and ends as a whole one does.
            del self._places[key]
            self.bad_lines += 1
            return self.get(key)
        self.actuals.answer(key, usage_tokens(record.get("usage")), record.get("seconds"))
        return reply

    def given_up(self, key: str) -> tuple[str, str, str] | None:
        """Reason, detail and start of the body where no reply under `key` is to be asked for again; None elsewhere."""
        if (place := self._given_up.get(key)) is None:
            return None
        record = orjson.loads(self._line(place))
        return str(record["reason"]), str(record["detail"]), str(record.get("raw", ""))

    def give_up(self, about: Mapping[str, Any], reason: str, detail: str, raw: str) -> None:
        """Note that no reply is to be asked for again, until its key is reopened."""
        start = self._size
        self.keep({**about, "status": GIVEN_UP, "reason": reason, "detail": detail, "raw": raw}, None)
        self._given_up[about["key"]] = Place(None, start, self._size - start)

    def _line(self, place: Place) -> bytes:
        if place.block is None:
            return os.pread(self._fd, place.length, place.start)
        return bytes(self._block(place.block)[place.start : place.start + place.length])

    def keep(self, record: Mapping[str, Any], reply: Reply | None) -> None:
        """Append one attempt: an answered one with its reply, or with None a failed one."""
        record = {"version": VERSION, "status": "failed" if reply is None else "ok", **record}
        if reply is not None:
            record["reply"] = {
                name: value for name, value in asdict(reply).items() if value is not None and name != "note"
            }
            record["note"] = reply.note
        record["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        for secret in self._secrets:
            if secret in line:
                line = line.replace(secret, b"[key]")
        start = self._size
        self._append(line)
        if reply is not None:
            self._places[record["key"]] = Place(None, start, len(line))
            self._given_up.pop(record["key"], None)
        elif record["status"] == "failed":
            self.actuals.fail(record["key"], record.get("reason"))

    def take(self, line: bytes) -> None:
        """Append a whole line of another store as it stands."""
        place = Place(None, self._size, len(line))
        self._append(line)
        if not (line.endswith(b"}\n") and self._found(line[:HEAD], place)):
            self._take(place, line)

    def reopen(self, key: str, about: Mapping[str, Any]) -> None:
        """Give the reply under `key` back no more, until a new one comes; it stays on disk, and so does what it cost."""
        self.keep({**about, "key": key, "status": REOPENED}, None)
        self._places.pop(key, None)
        self._given_up.pop(key, None)

    def compact(self) -> Path | None:
        """Zip the lines so far into a segment of their own, every byte kept; gives its path, or None without lines.

        Killed half-way, it leaves the lines in the file, or in both: the next one to open the store ends it.

        Raises:
            InputError: files cannot be locked here.
        """
        if not self._size:
            return None
        self._see_locked("zip it")
        os.fdatasync(self._fd)
        segment = add_segment(self.path)
        self._empty()
        self._places, self._given_up, self.bad_lines = {}, {}, 0
        self._index()
        tags.write(segment)
        return segment

    def _compact_if_locked(self) -> None:
        """Zip where that is safe; a run that only asks for replies must not end because it is not."""
        if self._locked:
            self.compact()
        else:
            tell(f"{self.path}: {self._size / 1e6:,.0f} MB, not zipped, since files cannot be locked here")

    def _see_locked(self, what: str) -> None:
        """See that the lock is ours: what is emptied could otherwise hold a line that another machine just wrote.

        Raises:
            InputError: files cannot be locked here; the owner file alone is not enough, since two may write it at once.
        """
        if not self._locked:
            found, hint = "files cannot be locked here", "do it on a machine that can lock files in this folder"
            raise InputError(self.path, found, f"a lock on it, to {what}", f"{hint}, with `star1 ledger compact`")

    def sync(self) -> None:
        """Bring everything to the disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Bring everything to the disk and let the next writer in."""
        if self._fd >= 0:
            if fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                os.fdatasync(self._fd)
                self._owner.leave()
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: bytes) -> None:
        if os.fstat(self._fd).st_nlink != self._links:
            self._take_out()
        done = 0
        try:
            while done < len(line):
                done += os.write(self._fd, line[done:])
        except OSError as error:
            # A full disk: take the half record back, so that what is there stays readable.
            os.ftruncate(self._fd, self._size)
            error.filename = str(self.path)
            raise
        self._size += len(line)
        if time.monotonic() - self._synced >= SYNC_EVERY_S:
            os.fdatasync(self._fd)
            self._synced = time.monotonic()

    def _take_out(self) -> None:
        """Go on in a file of our own: somebody had DVC record this one, and what is a link now must not grow."""
        fresh = self.path.with_name(f".{self.path.name}.own")
        before, self._fd = self._fd, os.open(fresh, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for start in range(0, self._size, COPY_BYTES):
                os.write(self._fd, os.pread(before, min(COPY_BYTES, self._size - start), start))
            os.fdatasync(self._fd)
            self._lock()
            os.replace(fresh, self.path)
        except BaseException:
            os.close(self._fd)
            self._fd = before
            raise
        os.close(before)
        self._links = os.fstat(self._fd).st_nlink

    def _lock(self) -> bool:
        """Lock the file; gives whether there are locks where it lies."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(self.path) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        return True

    def _cut_torn_tail(self) -> int:
        """Cut a last line without its end off and keep it aside; gives the size that remains."""
        size = os.fstat(self._fd).st_size
        with open(self.path, "rb") as file:
            end = _end_of_last_line(file, size)
            if end == size:
                return size
            file.seek(end)
            torn = file.read()
        keep_torn(self.path, torn + b"\n")
        os.ftruncate(self._fd, end)
        return end

    def _empty(self) -> None:
        # Not a new file: the lock is on this one.
        os.ftruncate(self._fd, 0)
        self._size = 0

    def _index(self) -> None:
        self.actuals.forget_failures()
        for place, line in lines(self.path, own=False):
            if not (line.endswith(b"}\n") and self._found(line[:HEAD], place)):
                self._take(place, line)
        for start, end, head in spans(self.path):
            place = Place(None, start, end - start)
            whole = len(head) > 1 and os.pread(self._fd, 2, end - 2) == b"}\n"
            if not (whole and self._found(head, place)):
                self._take(place, self._line(place))

    def _found(self, head: bytes, place: Place) -> bool:
        """Take a line into account by how it begins, where that is as the line of a reply does."""
        key = slice(len(BEGINNING), len(BEGINNING) + KEY_LENGTH)
        if not head.startswith(BEGINNING) or head[key.stop : key.stop + 2] != b'",':
            return False
        name = head[key].decode("latin-1")
        self._places[name] = place
        self._given_up.pop(name, None)
        return True

    def _take(self, place: Place, line: bytes) -> None:
        """Take a line into account that is not, at first sight, one of a reply."""
        try:
            record = orjson.loads(line)
            name, status = record["key"], record["status"]
            if status == "ok":
                Reply(**record["reply"], note=record["note"])
                self._places[name] = place
            elif status in (REOPENED, GIVEN_UP):
                self._places.pop(name, None)
                self._given_up.pop(name, None)
                if status == GIVEN_UP:
                    self._given_up[name] = place
            else:
                self.actuals.fail(name, record.get("reason"))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self.bad_lines += 1


def part_from_cache(path: Path) -> None:
    """Make a link into DVC's cache a file of its own, and so a file that may only be read.

    The cache is read-only, perhaps other people's as well, and what is appended is not to reach it.
    """
    if not path.exists():
        return
    if not path.is_symlink() and path.stat().st_nlink == 1 and os.access(path, os.W_OK):
        return
    found = path.lstat()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    shutil.copyfile(path, name)
    if os.path.samestat(found, path.lstat()):
        os.replace(name, path)
    else:  # another process was faster, and may have locked its own
        os.unlink(name)


def keep_torn(store: Path, text: bytes) -> None:
    """Keep half-written lines that were cut off, beside a store."""
    aside = Path(f"{store}.torn")
    part_from_cache(aside)  # DVC tracks it beside the store
    with aside.open("ab") as out:
        out.write(text)


def _end_of_last_line(file: IO[bytes], size: int, block: int = 1 << 16) -> int:
    end = size
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
