"""Which requests were sent in which batch: append-only JSON Lines beside a store of replies, written before any waiting."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from star1.errors import InputError
from star1.replies import part_from_cache

HINT = "remove the line, or the file: the batches in it are then not collected, and have to be paid for anew"


@dataclass(eq=False)
class Sent:
    """One file of requests.

    Attributes:
        name: of the file; no two of a stage have the same.
        requests: (item, role, attempt) of each, by key.
        time: when it was written [s since 1970].
        file_id: the provider's, once the file is there.
        batch_id: the provider's, once the batch is.
        alone: whether no other was on its way when it was sent.
    """

    name: str
    requests: dict[str, tuple[str, str, int]]
    time: float
    file_id: str = ""
    batch_id: str = ""
    alone: bool = False

    @property
    def called(self) -> str:
        """What messages call it."""
        return self.batch_id or self.name


class Journal:
    """The batches of one stage. The store's lock holds for it as well: there is one writer.

    A line is on disk before what it tells is relied on; a half-written last line (a killed run) is cut off.

    Args:
        path: the file; made with the first line.

    Attributes:
        names: of all files so far.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._fd = path, -1
        self.names: set[str] = set()
        self._open: dict[str, Sent] = {}
        self._size = 0
        if path.exists():
            self._read()

    @classmethod
    def beside(cls, store: Path) -> Self:
        """The journal of a store."""
        return cls(store.with_name(f".{store.stem}.batches.jsonl"))

    @property
    def opened(self) -> list[Sent]:
        """The batches that have not come to their end, in the order in which they were sent."""
        return list(self._open.values())

    def begin(self, name: str, requests: Mapping[str, tuple[str, str, int]]) -> Sent:
        """Note that these requests are about to be sent."""
        known = {key: list(about) for key, about in requests.items()}
        return self._note({"event": "begin", "name": name, "time": time.time(), "requests": known})

    def uploaded(self, sent: Sent, file_id: str) -> None:
        """Note that the file has reached the provider."""
        self._note({"event": "file", "name": sent.name, "file_id": file_id})

    def created(self, sent: Sent, batch_id: str) -> None:
        """Note that the provider works on it."""
        self._note({"event": "batch", "name": sent.name, "batch_id": batch_id})

    def end(self, sent: Sent, status: str) -> None:
        """Note that nothing more is to be had from it: the replies that came are in the store, and on disk."""
        self._note({"event": "end", "name": sent.name, "status": status})

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        part_from_cache(self.path)
        content = self.path.read_bytes()
        whole, self._size = content[: content.rfind(b"\n") + 1], len(content)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._apply(orjson.loads(line))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                found = f"a line that cannot be read ({type(error).__name__})"
                raise InputError(f"{self.path}:{number}", found, "the batches that were sent", HINT) from None
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
            self._size = len(whole)

    def _note(self, event: dict[str, Any]) -> Sent:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        line, done = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE), 0
        try:
            while done < len(line):
                done += os.write(self._fd, line[done:])
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)  # a full disk: the next line is not to be glued to half of this one
            raise
        self._size += len(line)
        return self._apply(event)

    def _apply(self, event: Mapping[str, Any]) -> Sent:
        name = event["name"]
        if event["event"] == "begin":
            requests = {
                key: (str(item), str(role), int(attempt)) for key, (item, role, attempt) in event["requests"].items()
            }
            self._open[name] = Sent(name, requests, event["time"])
            self.names.add(name)
        sent = self._open.pop(name) if event["event"] == "end" else self._open[name]
        sent.file_id = event.get("file_id", sent.file_id)
        sent.batch_id = event.get("batch_id", sent.batch_id)
        return sent
