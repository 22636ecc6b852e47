"""Looking after stores of replies: nothing is lost by zipping, whatever is damaged is told, totals are those of the lines."""

import gzip
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from star1 import cli, ledger, segments
from star1.errors import InputError
from star1.prices import Price
from star1.records import read_rows
from star1.replies import Reply, Store


def key(number: int) -> str:
    """A key in its form."""
    return f"{number:064x}"


def fill(path: Path, *numbers: int, text: str = "text of") -> None:
    """Keep one reply per number, after a failed attempt."""
    with Store(path) as store:
        for number in numbers:
            about = {"key": key(number), "item": str(number), "role": "reason", "label": "m", "model": "m-1"}
            store.keep({**about, "reason": "rate_limit"}, None)
            usage = {"prompt_tokens": 10, "completion_tokens": number, "total_tokens": 10 + number}
            store.keep({**about, "usage": usage, "seconds": 1.5 * number}, Reply(f"{text} {number}\nwith ü"))


def all_lines(path: Path) -> bytes:
    """Every line of a store."""
    return b"".join(line for _, line in segments.lines(path))


def test_zipped_lines_are_served_as_before_and_new_ones_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds of writing and zipping, in small blocks: every byte is there, a later reply to a request wins."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 500)
    path, whole = tmp_path / "r.jsonl", b""
    for text in ("first", "second", "third"):
        fill(path, *range(20), text=text)
        whole += path.read_bytes()
        with Store(path) as store:
            assert store.compact() is not None
            assert store.compact() is None
            assert store.get(key(7)) == Reply(f"{text} 7\nwith ü")
            store.keep({"key": key(99)}, Reply("new"))
            assert store.get(key(99)) == Reply("new")
        assert all_lines(path) == whole + path.read_bytes()
    whole += path.read_bytes()
    assert len(segments.segments(path)) == 3
    assert all(one.stat().st_mode & 0o077 == 0 for one in segments.segments(path))
    assert b"".join(gzip.decompress(one.read_bytes()) for one in segments.segments(path)) + path.read_bytes() == whole
    with Store(path) as store:
        assert (len(store), store.bad_lines) == (21, 0)
        assert store.get(key(7)) == Reply("third 7\nwith ü")


KILLED = """
import os, signal, sys
from star1 import replies, segments
def die_at(call, second, tell=[]):
    def instead(*args, **more):
        tell.append(1)
        return os.kill(os.getpid(), signal.SIGKILL) if len(tell) > second else call(*args, **more)
    return instead
place = sys.argv[2]
if place == "half": segments.gzip.compress = die_at(segments.gzip.compress, 1)
if place == "named": segments.os.fsync = die_at(os.fsync, 1)
if place == "zipped": replies.Store._empty = die_at(None, 0)
segments.BLOCK_BYTES = 500
replies.Store(sys.argv[1]).compact()
"""


@pytest.mark.parametrize("place", ["half", "named", "zipped"])
def test_a_killed_compaction_loses_and_doubles_nothing(place: str, tmp_path: Path) -> None:
    """Killed in the middle of zipping, after the rename, and before the file is emptied."""
    path = tmp_path / "r.jsonl"
    fill(path, *range(20))
    whole = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), place], check=False)
    assert done.returncode == -signal.SIGKILL
    assert all_lines(path) == whole
    told, fine = ledger.verify("r", path)
    assert fine
    assert ("`compact` was killed" in "".join(told)) == (place != "half")
    with Store(path) as store:
        assert len(store) == 20
        store.compact()
    assert all_lines(path) == whole
    assert sorted(path.name for path in tmp_path.glob("r*")) == ["r.jsonl", "r.jsonl.001.gz"]


def test_a_damaged_block_costs_its_own_lines_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped byte in a segment: the blocks before and after it are still read."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 500)
    path = tmp_path / "r.jsonl"
    fill(path, *range(20))
    with Store(path) as store:
        store.compact()
    segment = segments.segments(path)[0]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)
    with Store(path) as store:
        assert store.bad_lines == 1
        assert 15 <= len(store) < 20
        assert store.get(key(0)) is not None
        assert store.get(key(19)) is not None
    told, fine = ledger.verify("r", path)
    assert not fine
    assert "a block that cannot be unzipped" in told[1]


def test_verify_names_what_is_damaged_and_what_is_only_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A torn tail is no damage; a broken line, a key of another form and a reply of another form are."""
    monkeypatch.chdir(tmp_path)
    verify = cli.parser().parse_args(["ledger", "verify"])
    verify.do(verify)
    assert capsys.readouterr().out == "no replies\n"
    path = Path("data/replies/r.jsonl")
    fill(path, 1, 2)
    with path.open("ab") as file:
        file.write(b'{"half')
    verify.do(verify)
    assert "half-written last line" in capsys.readouterr().out
    fill(path, 3)
    with path.open("ab") as file:
        file.write(
            b'{"broken\n{"key": "abc", "status": "ok"}\n' + b'{"key": "%064d", "status": "ok", "reply": 1}\n' % 5
        )
    with pytest.raises(SystemExit, match="1"):
        verify.do(verify)
    told = capsys.readouterr().out
    assert "r: 9 lines, 3 damaged" in told
    assert told.count(f"{path}, byte ") == 3
    assert "r.jsonl.torn: 7 bytes" in told


def test_status_counts_what_the_lines_say(tmp_path: Path) -> None:
    """Replies, failures by reason, tokens, cost and mean seconds, zipped or not; one without a count of tokens is told."""
    path = tmp_path / "reason.jsonl"
    fill(path, 1, 2, 3)
    with Store(path) as store:
        store.compact()
        store.keep({"key": key(9), "role": "repair", "label": "m", "model": "m-1", "usage": None}, Reply("x"))
    told = "\n".join(ledger.status(ledger.stores(folder=tmp_path), {("m", "m-1"): Price(input=1000, output=5000)}))
    figures = ["reason", "reason", "m", "m-1", "3", "30", "6", "0.06", "3.00"]
    assert [*figures, "without", "a", "reply:", "rate_limit", "3"] in [line.split() for line in told.splitlines()]
    assert "1 replies without a count of tokens" in told
    assert f"total: 0.06 USD, {sum(one.stat().st_size for one in tmp_path.glob('r*')):,} bytes" in told


def test_export_gives_each_reply_that_is_served_once(tmp_path: Path) -> None:
    """Sorted by key, fields as well; the last reply to a request, from segment or file; the same bytes when zipped."""
    path = tmp_path / "r.jsonl"
    fill(path, 3, 1, 2)
    fill(path, 1, text="later")
    chosen = ledger.stores(["r"], tmp_path)
    assert ledger.export(chosen, tmp_path / "out.jsonl") == 3
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["key"] for row in rows] == [key(1), key(2), key(3)]
    assert rows[0]["reply"]["content"] == "later 1\nwith ü"
    assert list(rows[0]) == sorted(rows[0])
    assert "now" in ledger.compact("r", path)
    ledger.export(chosen, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_an_unknown_store_is_named_with_those_there_are(tmp_path: Path) -> None:
    """Not an empty table."""
    fill(tmp_path / "reason.jsonl", 1)
    with pytest.raises(InputError, match=r"no such store; expected one of reason\."):
        ledger.stores(["raeson"], tmp_path)


def test_a_store_in_use_is_not_zipped(tmp_path: Path) -> None:
    """The run that writes to it would go on in a file that is emptied."""
    path = tmp_path / "r.jsonl"
    with Store(path), pytest.raises(InputError, match="another process is writing"):
        ledger.compact("r", path)


def test_a_copy_without_dvc_is_zipped_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "data/replies/reason.jsonl", 1, 2)
    (tmp_path / "Snakefile").touch()
    monkeypatch.setattr(sys, "argv", ["star1", "ledger", "compact"])
    cli.main()
    assert "reason.jsonl.001.gz" in capsys.readouterr().out
    assert not (tmp_path / "data/replies.dvc").exists()


@pytest.mark.parametrize("read", [7, 64, 1 << 20])
def test_lines_are_told_apart_wherever_a_part_of_the_file_ends(
    read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short, long and empty lines, and a torn one at the end; as reading line by line has them."""
    monkeypatch.setattr("star1.segments.READ_BYTES", read)
    path = tmp_path / "r.jsonl"
    for texts in ([b"", b"a", b"b" * 300, b"", b"c" * 64, b"d" * 127, b"e" * 128], [b"x"], []):
        for end in (b"\n", b"\ntorn", b"\n" + b"t" * 200):
            path.write_bytes(b"\n".join(texts) + end)
            found = [
                (place.start, place.start + place.length, line[: segments.HEAD]) for place, line in segments.lines(path)
            ]
            assert list(segments.spans(path)) == found
