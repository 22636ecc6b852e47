"""Who writes to a store, told in a file beside it: on shared folders, a lock may hold on one machine alone, or not be had.

The owner touches the file as long as it lives. One that was killed, or whose machine is gone, is known by its silence.
"""

import errno
import json
import os
import socket
import threading
import time
import weakref
from pathlib import Path

from star1.errors import InputError, tell

TOUCH_EVERY_S = 10.0
GONE_AFTER_S = 25.0
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Owner:
    """The present owner of a store.

    Args:
        path: the store.
        locked: whether this process holds a lock on it, which no other process of this machine then has.

    Raises:
        InputError: another process writes to the store.
    """

    def __init__(self, path: Path, locked: bool) -> None:
        self.file = _file(path)
        self.name = _own_name()
        see_free(path, locked)
        self.file.write_text(json.dumps(self.name), "utf-8")
        self._left = threading.Event()
        # Only the file and the event: a store that nobody holds any more is not kept alive by its heartbeat.
        threading.Thread(target=_touch, args=(self.file, self._left), daemon=True).start()
        weakref.finalize(self, self._left.set)

    def leave(self) -> None:
        """Give the store up."""
        self._left.set()
        if _read(self.file) == self.name:
            self.file.unlink(missing_ok=True)


def see_free(path: Path, locked: bool) -> None:
    """See that no other process owns a store; `locked` as for an owner.

    Raises:
        InputError: one does.
    """
    file, name = _file(path), _own_name()
    other = _read(file)
    if other is None or other == name:
        return
    if other.get("host") == name["host"]:
        free = locked or not _lives(other.get("pid"))
    else:
        tell(f"{file.parent}: a run{told(file)} may be writing there; waiting to see whether it lives")
        free = _silent(file)
    if not free:
        raise in_use(path)


def in_use(path: Path) -> InputError:
    """The error for a store that another process writes to."""
    found = f"another process is writing to this store of replies{told(_file(path))}"
    return InputError(path, found, "one writer at a time", "wait until the other run has ended, or stop it")


def writing(folder: Path) -> list[str]:
    """Names of the stores in a folder that a process is writing to, as far as their owner files tell."""
    found = []
    for file in sorted(folder.glob(".*.owner")):
        touched, other = _touched(file), _read(file) or {}
        gone = other.get("host") == socket.gethostname() and not _lives(other.get("pid"))
        if touched and time.time() - touched < GONE_AFTER_S and not gone:
            found.append(file.name[1:].removesuffix(".owner"))
    return found


def told(file: Path) -> str:
    """The owner that a file names, in words that follow others; empty where there is none."""
    other = _read(file)
    return f" (process {other.get('pid')} on {other.get('host')})" if other else ""


def _own_name() -> dict[str, object]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _file(path: Path) -> Path:
    return path.with_name(f".{path.name}.owner")


def _read(file: Path) -> dict[str, object] | None:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _lives(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _silent(file: Path) -> bool:
    """Whether nobody touches a file for longer than an owner would leave it alone."""
    first, until = _touched(file), time.monotonic() + GONE_AFTER_S
    while first is not None and time.monotonic() < until:
        time.sleep(min(1.0, GONE_AFTER_S / 10))
        if (now := _touched(file)) != first:
            return now is None
    return True


def _touched(file: Path) -> float | None:
    """When a file was touched; opened for that, since shared folders may keep a file's times for a while otherwise."""
    try:
        with open(file, "rb") as opened:
            return os.fstat(opened.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _touch(file: Path, left: threading.Event) -> None:
    while not left.wait(TOUCH_EVERY_S):
        try:
            os.utime(file)
        except OSError:  # a folder that is gone for a moment, or for good: the store's own writes will tell
            continue
