"""What a running job is doing, in a small file of its own for `star1 watch`: nothing but counts, written once a second.

A thread writes it, so that a job that waits is seen to wait. The file is no output of any rule, and a job never fails for it.
"""

import atexit
import contextlib
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import orjson

from star1 import gpus
from star1.records import Row

FOLDER = Path(".work/status")
BEAT_S = 1.0
# Where nothing changes the file is only touched, and not each second.
TOUCH_S = 3.0
# Rates are of the last so many seconds.
RATE_S = 60.0
GPUS_S = 10.0
# Files of jobs that ended are removed when another one starts, so much later [s].
KEPT_S = 86_400.0


class Status:
    """Writes what `look` tells until it is closed, or the process ends.

    Args:
        job: names the file; another living process's file of this name is left alone, and this one's number is added.
        look: gives what changes: {done, ...}.
        facts: what does not.
        watches_gpus: whether the job uses GPUs.
    """

    def __init__(self, job: str, look: Callable[[], Row], facts: Row, watches_gpus: bool = False) -> None:
        now = time.time()
        self.look, self.watches_gpus = look, watches_gpus
        self.facts = {"job": job, **facts, "host": socket.gethostname(), "pid": os.getpid(), "started": now}
        if slurm := os.environ.get("SLURM_JOB_ID"):
            self.facts["slurm_job"] = slurm
        self.path = _path(job)
        self._seen: deque[tuple[float, float]] = deque()
        self._written, self._gpus, self._gpus_at = (b"", 0.0), list[Row](), now
        self._seen_last: Row = {"done": 0, "rate": None}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        _clear(now)
        self._beat()
        self._gpus_at = 0.0  # asking for them takes time, which is the thread's
        with contextlib.suppress(
            RuntimeError
        ):  # no further thread may be started; the first and the last state are told
            threading.Thread(target=self._go_on, daemon=True).start()
        atexit.register(self.close)

    def close(self) -> None:
        """Write the last state, with the time of the end."""
        if self._ended.is_set():
            return
        self._ended.set()
        atexit.unregister(self.close)
        self._beat()

    def _go_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._beat()

    def _beat(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # a full or absent disk is told by what matters
            now = time.time()
            content = self._told(now, now if self._ended.is_set() else None)
            if content != self._written[0]:
                _write(self.path, content)
            elif now - self._written[1] >= TOUCH_S:
                os.utime(self.path)
            else:
                return
            self._written = content, now

    def _told(self, now: float, ended: float | None) -> bytes:
        """The state as JSON; where it cannot be had, what was told last, with the kind of error: its text may hold anything."""
        try:
            found = self.look()
            found |= self._rate(now, float(found.get("done", 0))) | self._gpu_use(now)
            content = orjson.dumps(self.facts | found | {"ended": ended})
        except Exception as error:  # noqa: BLE001  # of whoever is looked at; the job goes on, and so does the thread
            return orjson.dumps(self.facts | self._seen_last | {"fault": type(error).__name__, "ended": ended})
        self._seen_last = orjson.loads(orjson.dumps(found))  # as it was, whatever becomes of its parts
        return content

    def _rate(self, now: float, done: float) -> Row:
        """Units a second of late."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_S:
            self._seen.popleft()
        (first, before), passed = self._seen[0], now - self._seen[0][0]
        return {"rate": round((done - before) / passed, 3) if passed >= BEAT_S / 2 and first < now else None}

    def _gpu_use(self, now: float) -> Row:
        if self.watches_gpus and now - self._gpus_at >= GPUS_S:
            self._gpus, self._gpus_at = gpus.use(), now
        return {"gpus": self._gpus} if self.watches_gpus else {}


def start(job: str, look: Callable[[], Row], facts: Row, watches_gpus: bool = False) -> Status | None:
    """A job's status; None outside a project's folder, where nobody looks for it."""
    return Status(job, look, facts, watches_gpus) if Path("Snakefile").is_file() else None


def _path(job: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_+.-]+", "-", job)
    path = FOLDER / f"{name}.json"
    with contextlib.suppress(OSError, orjson.JSONDecodeError, AttributeError, KeyError):  # no state of a job
        other = orjson.loads(path.read_bytes())
        fresh = time.time() - path.stat().st_mtime < 3 * TOUCH_S
        if (
            fresh
            and other.get("ended") is None
            and (other["host"], other["pid"]) != (socket.gethostname(), os.getpid())
        ):
            return FOLDER / f"{name}-{os.getpid()}.json"
    return path


def _write(path: Path, content: bytes) -> None:
    """Put a file into place at once; it is not brought to the disk, since it is old a second later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _clear(now: float) -> None:
    with contextlib.suppress(OSError):
        for path in FOLDER.glob("*.json"):
            if now - path.stat().st_mtime > KEPT_S:
                path.unlink(missing_ok=True)
