"""The store of replies: what a crash, a second writer or a full disk may not do to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from star1 import owners
from star1.errors import InputError
from star1.records import read_rows
from star1.replies import Reply, Store, reply_key

MESSAGES = [{"role": "user", "content": "hello"}]


def fill(path: Path, *keys: str) -> None:
    """Keep one reply per key."""
    with Store(path) as store:
        for key in keys:
            store.keep({"key": key, "item": key}, Reply(f"text of {key}\nwith 'quotes' and ü"))


def test_a_reply_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    """Every field, in the same process and in the next."""
    reply = Reply("text\n\u2028", "thinking", "stop", None, "stand-in")
    with Store(tmp_path / "deep" / "r.jsonl") as store:
        assert store.get("k") is None
        store.keep({"key": "k"}, reply)
        assert store.get("k") == reply
    with Store(tmp_path / "deep" / "r.jsonl") as store:
        assert store.get("k") == reply
        assert len(store) == 1


def test_failures_are_on_record_and_never_served(tmp_path: Path) -> None:
    """Only a reply is a reply; a later one under the same key wins."""
    with Store(tmp_path / "r.jsonl") as store:
        store.keep({"key": "k", "reason": "server_error"}, None)
        assert store.get("k") is None
    with Store(tmp_path / "r.jsonl") as store:
        assert store.get("k") is None
        store.keep({"key": "k"}, Reply("first"))
        store.keep({"key": "k"}, Reply("second"))
    with Store(tmp_path / "r.jsonl") as store:
        assert store.get("k") == Reply("second")
    assert [row["status"] for row in read_rows(tmp_path / "r.jsonl")] == ["failed", "ok", "ok"]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_tail_is_cut_and_kept_aside(tmp_path: Path, cut: int) -> None:
    """What a killed run left half-written must not be glued to the next record."""
    path = tmp_path / "r.jsonl"
    fill(path, "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Store(path) as store:
        assert store.get("a") is not None
        assert store.get("b") is None
        assert store.bad_lines == 0
        store.keep({"key": "c"}, Reply("c"))
    assert [row["key"] for row in read_rows(path)] == ["a", "c"]
    last = whole.splitlines(keepends=True)[1]
    assert (tmp_path / "r.jsonl.torn").read_bytes() == last[:-cut] + b"\n"


def test_a_torn_tail_longer_than_one_block(tmp_path: Path) -> None:
    """The last line's start is found however far back it lies."""
    path = tmp_path / "r.jsonl"
    fill(path, "a")
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    with Store(path) as store:
        assert len(store) == 1
    path.write_bytes(b"y" * 200_000)
    with Store(path) as store:
        assert len(store) == 0


def test_a_bad_line_in_the_middle_is_counted_not_fatal(tmp_path: Path) -> None:
    """The lines around it are still served."""
    path = tmp_path / "r.jsonl"
    fill(path, "a", "b")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"key": "broken\n[1]\n' + lines[1])
    with Store(path) as store:
        assert store.bad_lines == 2
        assert store.get("a") is not None
        assert store.get("b") == Reply("text of b\nwith 'quotes' and ü")


def test_a_line_that_is_damaged_within_is_found_when_it_is_needed(tmp_path: Path) -> None:
    """It begins and ends as a whole one does; the reply is asked for again, and the others are served."""
    path = tmp_path / "r.jsonl"
    keys = ["a" * 64, "b" * 64]
    fill(path, *keys)
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"text of ' + b"a" * 64, b'"text" of ' + b"a" * 64))
    with Store(path) as store:
        assert len(store) == 2
        assert (store.get(keys[0]), store.bad_lines) == (None, 1)
        assert (len(store), store.get(keys[1]) is not None) == (1, True)
        store.keep({"key": keys[0]}, Reply("new"))
        assert store.get(keys[0]) == Reply("new")


def test_what_was_given_up_stays_so_until_it_is_reopened_or_answered(tmp_path: Path) -> None:
    """Also in another process's eyes, and zipped."""
    path, about = tmp_path / "r.jsonl", {"key": "a" * 64, "item": "1"}
    with Store(path) as store:
        store.give_up(about, "timeout", "no reply within 5 s", "")
        assert store.given_up("a" * 64) == ("timeout", "no reply within 5 s", "")
    with Store(path) as store:
        assert (store.get("a" * 64), store.given_up("a" * 64)) == (None, ("timeout", "no reply within 5 s", ""))
        store.compact()
        assert store.given_up("a" * 64) is not None
        store.reopen("a" * 64, about)
        assert store.given_up("a" * 64) is None
        store.give_up(about, "timeout", "again", "raw")
        store.keep(about, Reply("at last"))
        assert store.given_up("a" * 64) is None
    with Store(path) as store:
        assert (store.get("a" * 64), store.given_up("a" * 64)) == (Reply("at last"), None)


def test_a_second_writer_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    """The lock goes with the store."""
    path = tmp_path / "r.jsonl"
    with Store(path), pytest.raises(InputError, match="another process is writing"):
        Store(path)
    with Store(path) as store:
        assert len(store) == 0


WRITER = """
import sys
from star1.replies import Reply, Store
store = Store(sys.argv[1])
for number in range(10**9):
    store.keep({"key": str(number)}, Reply("x" * 5000))
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Every record that was told to be kept is there after SIGKILL, and the lock is free."""
    path = tmp_path / "r.jsonl"
    for _ in range(3):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(200)]
            os.kill(process.pid, signal.SIGKILL)
            told += [int(line) for line in process.stdout if line.endswith("\n")]
        with Store(path) as store:
            assert store.bad_lines == 0
            assert all(store.get(str(number)) is not None for number in told)


def test_a_full_disk_leaves_a_readable_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a record is taken back, and the error goes up."""
    path = tmp_path / "r.jsonl"
    write = os.write

    def half(handle: int, data: bytes) -> int:
        if len(data) > 100:
            return write(handle, data[:100])
        raise OSError(28, "No space left on device")

    with Store(path) as store:
        store.keep({"key": "a"}, Reply("short"))
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            store.keep({"key": "b"}, Reply("long " * 10))
        monkeypatch.undo()
        assert store.get("b") is None
        store.keep({"key": "c"}, Reply("after"))
    assert [row["key"] for row in read_rows(path)] == ["a", "c"]


def test_a_key_never_reaches_the_disk(tmp_path: Path) -> None:
    """Also one with characters that JSON escapes."""
    secret = 'sk-"quoted"-key'
    with Store(tmp_path / "r.jsonl", secret) as store:
        store.keep({"key": "k"}, Reply(f"echo {secret}"))
        assert store.get("k") == Reply("echo [key]")
    assert "quoted" not in (tmp_path / "r.jsonl").read_text()


@pytest.mark.parametrize("word", ["1", "EMPTY"])
def test_a_word_in_place_of_a_key_changes_no_reply(tmp_path: Path, word: str) -> None:
    """Struck out of the record, `1` made it unreadable, and `EMPTY` took a word out of replies."""
    with Store(tmp_path / "r.jsonl", word) as store:
        store.keep({"key": "k", "attempt": 1}, Reply("1 box is EMPTY"))
    with Store(tmp_path / "r.jsonl", word) as store:
        assert store.get("k") == Reply("1 box is EMPTY")


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_link_into_a_cache_is_parted_from_it(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    """What is appended must not reach DVC's cache, which a link of either kind would write to, or be refused by it."""
    cached, path = tmp_path / "cached", tmp_path / "r.jsonl"
    fill(cached, "a")
    before = cached.read_bytes()
    cached.chmod(0o444)
    link(cached, path)
    fill(path, "b")
    assert cached.read_bytes() == before
    with Store(path) as store:
        assert len(store) == 2


@pytest.mark.parametrize("soft", [True, False])
def test_a_file_that_dvc_links_while_it_is_written_to_is_left(tmp_path: Path, soft: bool) -> None:
    """`dvc add` in the middle of a run puts a link in the file's place: what followed was lost, or written into the cache."""
    cached, path = tmp_path / "cached", tmp_path / "r.jsonl"
    with Store(path) as store:
        store.keep({"key": "a"}, Reply("a"))
        if soft:  # a copy goes into the cache
            cached.write_bytes(path.read_bytes())
            path.unlink()
            path.symlink_to(cached)
        else:
            cached.hardlink_to(path)
        before = cached.read_bytes()
        store.keep({"key": "b"}, Reply("b"))
        store.keep({"key": "c"}, Reply("c"))
        with pytest.raises(InputError, match="another process"):
            Store(path)
    assert cached.read_bytes() == before
    assert not path.is_symlink()
    with Store(path) as store:
        assert [store.get(key) for key in "abc"] == [Reply(key) for key in "abc"]


def test_dvc_leaves_replies_alone_that_are_being_written_to(tmp_path: Path) -> None:
    with Store(tmp_path / "r.jsonl"):
        assert owners.writing(tmp_path) == ["r.jsonl"]
    assert owners.writing(tmp_path) == []


def test_a_record_of_another_form_is_counted_not_fatal(tmp_path: Path) -> None:
    """Found when it is indexed, not in the middle of a run."""
    lines = ['{"status": "ok", "key": "a", "reply": "text", "note": ""}', '{"status": "ok", "key": "b", "reply": {}}']
    (tmp_path / "r.jsonl").write_text("\n".join(lines) + "\n")
    with Store(tmp_path / "r.jsonl") as store:
        assert (store.bad_lines, store.get("a"), store.get("b")) == (2, None, None)


def test_others_cannot_read_the_store(tmp_path: Path) -> None:
    """Replies may be harmful text on a shared machine."""
    fill(tmp_path / "r.jsonl", "a")
    assert (tmp_path / "r.jsonl").stat().st_mode & 0o077 == 0


def test_the_key_of_a_request() -> None:
    """Order of fields does not matter; everything that decides the reply does."""
    base = reply_key("m", MESSAGES, {"temperature": 0.5, "top_p": 1.0}, "t")
    assert base == reply_key("m", [{"content": "hello", "role": "user"}], {"top_p": 1.0, "temperature": 0.5}, "t")
    others = {
        reply_key("n", MESSAGES, {"temperature": 0.5, "top_p": 1.0}, "t"),
        reply_key("m", [{"role": "user", "content": "bye"}], {"temperature": 0.5, "top_p": 1.0}, "t"),
        reply_key("m", MESSAGES, {"temperature": 0.5}, "t"),
        reply_key("m", MESSAGES, {"temperature": 0.5, "top_p": 1.0}, "u"),
        reply_key("m", MESSAGES, {"temperature": 0.5, "top_p": 1.0}, "t", sample=1),
        reply_key("m", MESSAGES, {"temperature": 0.5, "top_p": 1.0}, "t", {"type": "json_object"}),
        reply_key("m", [{"role": "user", "content": "\ud83d"}], {}, "t"),
    }
    assert len(others | {base}) == 8


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_torn_tail_is_not_written_into_what_dvc_linked(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    """What is kept aside lies beside the store, so DVC tracks it, too: the second torn tail went into the cache."""
    path, aside, cached = (tmp_path / name for name in ("r.jsonl", "r.jsonl.torn", "cached"))
    fill(path, "a")
    cached.write_bytes(b"cut off before\n")
    cached.chmod(0o444)
    link(cached, aside)
    path.write_bytes(path.read_bytes()[:-5])
    with Store(path):
        pass
    assert cached.read_bytes() == b"cut off before\n"
    assert aside.read_bytes().startswith(b"cut off before\n{")


def test_a_store_that_may_only_be_read_is_made_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left where the cache that a file was a link into has been cleared: mode 0444, and no other name."""
    path = tmp_path / "r.jsonl"
    fill(path, "a")
    path.chmod(0o444)
    if os.geteuid() == 0:  # who may do anything
        monkeypatch.setattr(os, "access", lambda file, _: bool(Path(file).stat().st_mode & 0o200))
    fill(path, "b")
    assert path.stat().st_mode & 0o777 == 0o600
    with Store(path) as store:
        assert len(store) == 2


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_reply_is_never_written_into_what_dvc_linked(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    """`dvc pull` with links as cache type puts the cached file itself there: it has to stay what its name says."""
    cached, path = tmp_path / "cache" / "ab", tmp_path / "data" / "r.jsonl"
    fill(cached, "a")
    before = cached.read_bytes()
    cached.chmod(0o444)
    path.parent.mkdir()
    link(cached, path)
    fill(path, "b")
    assert cached.read_bytes() == before
    with Store(path) as store:
        assert len(store) == 2
