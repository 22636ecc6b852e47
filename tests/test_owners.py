"""Who writes to a store: on one machine, on several, and where files cannot be locked."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from star1 import ledger, owners, segments
from star1.errors import InputError
from star1.replies import Reply, Store

KEY = "0" * 64


def owned(path: Path) -> Path:
    """The file that names a store's owner."""
    return path.with_name(f".{path.name}.owner")


def test_the_owner_is_named_and_gone_when_the_store_is_closed(tmp_path: Path) -> None:
    """Whoever looks for the other run finds its process."""
    with Store(tmp_path / "r.jsonl"):
        assert json.loads(owned(tmp_path / "r.jsonl").read_text())["pid"] == os.getpid()
        with pytest.raises(InputError, match=rf"is writing to this store of replies \(process {os.getpid()} on"):
            Store(tmp_path / "r.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl"]


def test_a_killed_owner_is_followed_at_once(tmp_path: Path) -> None:
    """On the same machine, nobody waits to see whether it lives."""
    program = (
        f"from star1.replies import Store; Store({str(tmp_path / 'r.jsonl')!r}); import os; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert owned(tmp_path / "r.jsonl").exists()
    started = time.monotonic()
    with Store(tmp_path / "r.jsonl"):
        assert time.monotonic() - started < 1


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that refuses to lock."""

    def no_locks(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)


def test_where_there_are_no_locks_the_owner_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some shared folders refuse to lock; a living process of this machine is known by its number."""

    without_locks(monkeypatch)
    path = tmp_path / "r.jsonl"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        owned(path).write_text(json.dumps({**_here(), "pid": other.pid}))
        with pytest.raises(InputError, match=f"process {other.pid}"):
            Store(path)
        other.kill()
    with Store(path) as store:
        store.keep({"key": KEY}, Reply("x"))
    assert not owned(path).exists()


def test_where_there_are_no_locks_nothing_is_zipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was, by the owner file alone, which two machines may write at once: what one added while the other emptied was lost."""
    path = tmp_path / "r.jsonl"
    with Store(path) as store:
        store.keep({"key": KEY}, Reply("x"))
    text = path.read_bytes()
    without_locks(monkeypatch)
    with pytest.raises(
        InputError, match=r"files cannot be locked here; expected a lock on it, to zip it\. Hint: .*compact"
    ):
        ledger.compact("r", path)
    monkeypatch.setattr("star1.replies.SEGMENT_BYTES", 1)
    with Store(path) as store:  # a run goes on
        assert store.get(KEY) == Reply("x")
    assert "r.jsonl: 0 MB, not zipped, since files cannot be locked here" in capsys.readouterr().err
    assert (path.read_bytes(), sorted(one.name for one in tmp_path.iterdir())) == (text, ["r.jsonl"])


def test_where_there_are_no_locks_a_killed_compaction_is_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That empties the file as well; nothing is changed, and the next one that can lock ends it."""
    path = tmp_path / "r.jsonl"
    with Store(path) as store:
        store.keep({"key": KEY}, Reply("x"))
    text = path.read_bytes()
    segments.add_segment(path)
    with monkeypatch.context() as patch:
        without_locks(patch)
        with pytest.raises(InputError, match="expected a lock on it, to end a compaction that was killed"):
            Store(path)
    assert path.read_bytes() == text
    assert not owned(path).exists()
    with Store(path) as store:
        assert store.get(KEY) == Reply("x")
    assert path.read_bytes() == b""


def _here() -> dict[str, object]:
    import socket

    return {"host": socket.gethostname()}


def test_an_owner_on_another_machine_is_believed_as_long_as_it_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lock may hold on one machine alone: only the file's age tells."""
    monkeypatch.setattr(owners, "GONE_AFTER_S", 1.0)
    path, left = tmp_path / "r.jsonl", threading.Event()
    owned(path).write_text(json.dumps({"host": "far-away", "pid": 7}))

    def live() -> None:
        while not left.wait(0.2):
            os.utime(owned(path))

    heart = threading.Thread(target=live)
    heart.start()
    try:
        with pytest.raises(InputError, match=r"process 7 on far-away"):
            Store(path)
    finally:
        left.set()
        heart.join()
    with Store(path):
        assert json.loads(owned(path).read_text())["pid"] == os.getpid()
    assert "process 7 on far-away) may be writing there" in capsys.readouterr().err


def test_a_living_owner_touches_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while no reply comes."""
    monkeypatch.setattr(owners, "TOUCH_EVERY_S", 0.05)
    with Store(tmp_path / "r.jsonl"):
        os.utime(owned(tmp_path / "r.jsonl"), (0, 0))
        until = time.monotonic() + 5
        while owned(tmp_path / "r.jsonl").stat().st_mtime == 0:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_large_store_is_zipped_when_it_is_next_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in it is served as before, and the next lines begin a new file."""
    path = tmp_path / "r.jsonl"
    with Store(path) as store:
        store.keep({"key": KEY}, Reply("x" * 5000))
    monkeypatch.setattr("star1.replies.SEGMENT_BYTES", 4000)
    with Store(path) as store:
        assert path.stat().st_size == 0
        assert store.get(KEY) == Reply("x" * 5000)
        store.keep({"key": "1" * 64}, Reply("new"))
    with Store(path) as store:
        assert (len(store), [one.name for one in tmp_path.glob("*.gz")]) == (2, ["r.jsonl.001.gz"])
