"""Prompt sets and benchmarks: the tables' entries, the fetching (from a server on this machine), and the formats."""

import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars
import pytest

from star1 import fetching, sources
from star1.errors import InputError, SettingError
from star1.fetching import fetch_files
from star1.reading import read_benchmark, read_published, read_source
from star1.records import Row, read_rows
from star1.sources import Benchmark, Published, Source

ROOT = Path(__file__).parents[1]
STAR1 = ROOT.parent / "shared" / "reference" / "star1" / "STAR-1.json"
Done: TypeAlias = "subprocess.CompletedProcess[str]"

TERMS = {"licence": "MIT", "attribution": "someone"}


def source(format_: str = "jsonl", **fields: Any) -> Source:
    base: dict[str, Any] = {"kind": "mirror", "path": "file", "format": format_, "ngram": 8, "question": "q", **TERMS}
    return Source(**base | fields)


def benchmark(format_: str = "jsonl", **fields: Any) -> Benchmark:
    base: dict[str, Any] = {
        "kind": "mirror",
        "path": "file",
        "format": format_,
        "question": "q",
        "purpose": "harmful",
        **TERMS,
    }
    return Benchmark(**base | fields)


def read(tmp_path: Path, content: str | bytes, entry: Source, name: str = "set") -> tuple[list[Row], dict[str, int]]:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source("set", entry, [file])


def questions(result: tuple[list[Row], dict[str, int]]) -> list[str]:
    return [row["question"] for row in result[0]]


# --- entries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": "red"}, "set.colour: Extra inputs"),
        ({"rows": "3"}, "set.rows: Input should be a valid integer"),
        ({"kind": "ftp"}, "set.kind"),
        ({"kind": "github", "repository": "a/b"}, "revision is required for kind github"),
        ({"kind": "hub", "revision": "v1"}, "repository is required for kind hub"),
        ({"repository": "a/b"}, "repository is not allowed for kind mirror"),
        ({"kind": "bundled", "path": "../outside"}, "must be relative"),
        ({"path": "/etc/hosts"}, "must be relative"),
        ({"path": []}, "path is empty"),
        ({"sha256": ["a", "b"]}, "2 sha256 for 1 paths"),
        ({"question": None}, "question is required for format jsonl"),
        ({"ngram": 0}, "greater than or equal to 1"),
    ],
)
def test_a_faulty_entry_names_the_field(change: Row, told: str) -> None:
    entry = source().model_dump() | change
    with pytest.raises(SettingError) as caught:
        sources.read_entry(Source, "set", json.dumps(entry))
    assert told in str(caught.value)


def test_an_entry_may_leave_out_what_has_a_default() -> None:
    text = json.dumps({"kind": "bundled", "path": "a.txt", "format": "txt", "ngram": 8, **TERMS})
    entry = sources.read_entry(Source, "set", text)
    assert (entry.question, entry.keep, entry.strip, entry.gated, entry.header, entry.rows) == (
        None,
        None,
        [],
        False,
        True,
        None,
    )


# --- formats --------------------------------------------------------------------------------------------------------

PLAIN = ["None", "two, with comma", None, "  ", "null", 'say "five"']


def as_csv(delimiter: str) -> str:
    cells = ["" if text is None else '"' + text.replace('"', '""') + '"' for text in PLAIN]
    return "".join(f"{left}{delimiter}{right}\r\n" for left, right in zip(["q", *cells], "n123456", strict=True))


@pytest.mark.parametrize(
    ("format_", "name", "content"),
    [
        ("jsonl", "a.jsonl", "\n".join(json.dumps({"q": text}) for text in PLAIN)),
        ("json", "a.json", json.dumps([{"q": text} for text in PLAIN])),
        ("json", "b.json", json.dumps({"q": PLAIN, "inputs": [], "version": 1})),
        ("csv", "a.csv", as_csv(",")),
        ("tsv", "a.tsv", as_csv("\t")),
        ("jsonl", "a.jsonl.gz", gzip.compress("\n".join(json.dumps({"q": text}) for text in PLAIN).encode())),
        ("csv", "a.csv.xz", lzma.compress(as_csv(",").encode())),
        ("csv", "mark.csv", b"\xef\xbb\xbf" + as_csv(",").encode()),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, format_: str, name: str, content: str | bytes) -> None:
    rows, counts = read(tmp_path, content, source(format_), name)
    assert counts == {"read": 6, "filtered": 0, "empty": 2, "kept": 4}
    assert rows == [
        {"question": PLAIN[row], "source": "set", "licence": "MIT", "row": row} for row in (0, 1, 4, 5)
    ]  # "None" and "null" are questions like any other


def test_parquet(tmp_path: Path) -> None:
    polars.DataFrame({"q": PLAIN, "safe": [False] * 5 + [True], "more": range(6)}).write_parquet(tmp_path / "a")
    rows, counts = read_source("set", source("parquet", keep={"safe": False}), [tmp_path / "a"])
    assert counts == {"read": 6, "filtered": 1, "empty": 2, "kept": 3}
    assert [row["row"] for row in rows] == [0, 1, 4]
    with pytest.raises(InputError, match="columns q, safe, more; expected a column 'prompt'"):
        read_source("set", source("parquet", question="prompt"), [tmp_path / "a"])
    (tmp_path / "b").write_text("no")
    with pytest.raises(InputError, match="not Parquet"):
        read_source("set", source("parquet"), [tmp_path / "b"])


def test_plain_text_is_a_question_a_line(tmp_path: Path) -> None:
    # U+2028 ends a line for str.splitlines, but not in a file.
    rows, counts = read(tmp_path, "one\r\n\ntwo\u2028three\n", source("txt", question=None))
    assert [(row["row"], row["question"]) for row in rows] == [(0, "one"), (2, "two\u2028three")]
    assert counts["empty"] == 1


def test_a_json_list_of_strings(tmp_path: Path) -> None:
    assert questions(read(tmp_path, '["one", "two"]', source("json", question=None))) == ["one", "two"]


def test_a_csv_without_header_keeps_its_first_row(tmp_path: Path) -> None:
    result = read(tmp_path, 'first\n"second, too"\n', source("csv", question="0", header=False))
    assert questions(result) == ["first", "second, too"]


def test_a_csv_field_may_have_lines_and_a_row_may_be_short(tmp_path: Path) -> None:
    rows, counts = read(tmp_path, 'n,q\n1,"two\nlines"\n2\n\n3,three\n', source("csv"))
    assert [(row["row"], row["question"]) for row in rows] == [(0, "two\nlines"), (2, "three")]
    assert counts["empty"] == 1


def test_several_files_are_numbered_through(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f'{{"q": "{name}0"}}\n{{"q": "{name}1"}}\n')
    rows, _ = read_source("set", source(), [tmp_path / "a", tmp_path / "b"])
    assert [(row["row"], row["question"]) for row in rows] == [(0, "a0"), (1, "a1"), (2, "b0"), (3, "b1")]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ({"kind": "a"}, ["1", "4"]),
        ({"kind": ["a", "b"]}, ["1", "2", "4"]),
        ({"not kind": "a"}, ["2", "3"]),
        ({"not kind": ["a", None]}, ["2"]),
        ({"safe": False}, ["1", "2"]),
        ({"safe": 0}, ["4"]),  # in Python False == 0
        ({"kind": "a", "not safe": 0}, ["1"]),
    ],
)
def test_keep(tmp_path: Path, keep: dict[str, Any], kept: list[str]) -> None:
    values: list[tuple[str, str | None, object]] = [
        ("1", "a", False),
        ("2", "b", False),
        ("3", None, True),
        ("4", "a", 0),
    ]
    content = "\n".join(json.dumps(dict(zip(("q", "kind", "safe"), line, strict=True))) for line in values)
    assert questions(read(tmp_path, content, source(keep=keep))) == kept


def test_keep_reads_truth_values_and_numbers_from_csv(tmp_path: Path) -> None:
    content = "q,safe,level\none,False,2\ntwo,True,2\nthree,false,3\n"
    assert questions(read(tmp_path, content, source("csv", keep={"safe": False, "level": 2}))) == ["one"]


def test_strip_takes_markers_off(tmp_path: Path) -> None:
    content = json.dumps({"q": "### Instruction:\n how? \n### Response:\n"})
    entry = source(strip=["### Instruction:", "### Response:"])
    assert questions(read(tmp_path, content, entry)) == ["how?"]
    assert questions(read(tmp_path, json.dumps({"q": " as it is "}), source())) == [" as it is "]


@pytest.mark.parametrize(
    ("format_", "content", "told"),
    [
        ("txt", b"fine\nna\xefve\n", r"set:2: bytes that are not UTF-8 .*; expected UTF-8 text"),
        ("jsonl", '{"q": "one"}\n{"q": \n', r"set:2: not JSON"),
        ("jsonl", '["one"]\n', r"set:1: a list; expected a JSON object"),
        ("json", "[1]", r"set row 0: a int"),
        ("json", '"text"', r"a JSON str; expected a list of rows"),
        ("csv", 'q,n\none,1\n"two,2\nthree,3\n', r"set:4: .*; expected well-quoted fields"),
        ("csv", "q,n\none,1,extra\n", r"set:2: 3 fields; expected 2"),
        ("csv", "prompt,kind\none,a\n", r"columns prompt, kind; expected a column 'q'"),
        ("json", '{"prompt": ["one"]}', r"columns prompt; expected a column 'q'"),
        ("jsonl", '{"prompt": "one"}\n', r"columns prompt; expected a column 'q'"),
        ("csv", "q,n\n", r"a header and no rows"),
        ("jsonl", "", r"columns \(none\)"),
        ("txt", "\n\n", r"no question in 2 rows"),
        ("jsonl", '{"q": 5}\n', r"row 0: a question of type int"),
    ],
)
def test_a_faulty_file_is_told(tmp_path: Path, format_: str, content: str | bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(tmp_path, content, source(format_, question=None if format_ == "txt" else "q"))


def test_a_cut_off_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be unpacked"):
        read(tmp_path, gzip.compress(b'{"q": "one"}')[:-6], source(), "a.gz")


def test_a_missing_keep_column_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a column 'safe'"):
        read(tmp_path, '{"q": "one"}', source(keep={"not safe": True}))


def test_keep_that_fits_no_row_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no question in 1 rows"):
        read(tmp_path, '{"q": "one"}', source(keep={"q": "two"}))


def test_expected_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path, '{"q": "one"}\n{"q": ""}', source(rows=1))[0]) == 1
    with pytest.raises(InputError, match="set: 1 rows; expected 2"):
        read(tmp_path, '{"q": "one"}\n{"q": ""}', source(rows=2))


# --- benchmarks -----------------------------------------------------------------------------------------------------


def write_lines(path: Path, rows: list[Row]) -> list[Path]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [path]


def test_benchmark_rows(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "a", [{"q": "1+1?", "key": 7, "is": 2, "of": "sums"}, {"q": "", "key": 8, "is": 0}])
    rows, counts = read_benchmark("exam", benchmark(id="key", answer="is", category="of"), files)
    assert rows == [
        {"id": "7", "question": "1+1?", "benchmark": "exam", "purpose": "harmful", "answer": "2", "category": "sums"}
    ]
    assert counts == {"read": 2, "filtered": 0, "empty": 1, "kept": 1}


def test_benchmark_rows_without_id_are_named_by_their_place_in_the_file(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "a", [{"q": "x", "k": 0}, {"q": "y", "k": 1}, {"q": "z", "k": 1}])
    rows, _ = read_benchmark("exam", benchmark(keep={"k": 1}), files)
    assert [row["id"] for row in rows] == ["exam-1", "exam-2"]


def test_benchmark_shuffle_and_limit(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "a", [{"q": f"q{i}"} for i in range(10)])
    rows, counts = read_benchmark("exam", benchmark(shuffle_seed=42, limit=4), files)
    assert [row["question"] for row in rows] == [f"q{i}" for i in np.random.default_rng(42).permutation(10)[:4]]
    assert counts["kept"] == 4
    assert [row["id"] for row in read_benchmark("exam", benchmark(limit=2), files)[0]] == ["exam-0", "exam-1"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"q": "a", "key": 1, "is": "b"}, {"q": "c", "key": "1", "is": "d"}], "the id '1' twice"),
        ([{"q": "a", "key": 1, "is": None}], "exam row 0: nothing in 'is'; expected a value for answer"),
        ([{"q": "a", "key": 1}], "expected a column 'is'"),
    ],
)
def test_a_faulty_benchmark_is_told(tmp_path: Path, rows: list[Row], told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_benchmark("exam", benchmark(id="key", answer="is"), write_lines(tmp_path / "a", rows))
    assert told in str(caught.value)


# --- fetching -------------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """Serves `files` by path; `faults` are met first, in order: a status, or a number of bytes to break off after."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list[Any] = []
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        self.ranges = True
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        fault = self.server.faults.pop(0) if self.server.faults else None
        content = self.server.files.get(path)
        if isinstance(fault, dict) or content is None:
            return self.reply(404 if fault is None else fault["status"], {}, b"", body)
        start = int(self.headers["Range"][6:-1]) if self.server.ranges and self.headers.get("Range") else 0
        if start >= len(content) > 0:
            return self.reply(416, {}, b"", body)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self.reply(206 if start else 200, headers, content[start:], body, fault)

    def reply(self, status: int, headers: Row, content: bytes, body: bool, cut: int | None = None) -> None:
        if status == 403:
            headers = {"X-Error-Code": "GatedRepo"}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        self.close_connection = self.close_connection or cut is not None


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Callable[..., Path]:
    server.files["/f"] = CONTENT

    def fetch(digest: str | None = DIGEST) -> Path:
        return fetching.download(f"{server.address}/f", tmp_path / "cache" / "f", digest, pause_s=0.001)

    return fetch


def test_download_takes_its_name_when_whole(fetch: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    assert fetch().read_bytes() == CONTENT
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["f"]
    assert fetch(digest=None).read_bytes() == CONTENT
    assert len(server.asked) == 1  # the second time it was there


def test_download_goes_on_where_it_broke_off(fetch: Callable[..., Path], server: Server) -> None:
    server.faults = [60_000, 10_000]
    assert fetch().read_bytes() == CONTENT
    assert [asked[2] for asked in server.asked] == [None, "bytes=60000-", "bytes=70000-"]


def test_download_goes_on_in_another_run(fetch: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    server.faults = [1000] + [{"status": 503}] * 10
    with pytest.raises(InputError, match="status 503 after 5 tries"):
        fetch()
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["f.part"]
    server.faults = []
    assert fetch().read_bytes() == CONTENT
    assert server.asked[-1][2] == "bytes=1000-"


def test_download_from_a_server_without_ranges_begins_again(fetch: Callable[..., Path], server: Server) -> None:
    server.faults, server.ranges = [60_000], False
    assert fetch().read_bytes() == CONTENT


def test_download_with_a_part_longer_than_the_file_begins_again(fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f.part").write_bytes(CONTENT + b"more")
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_download_tries_again_when_the_server_is_busy(fetch: Callable[..., Path], server: Server, status: int) -> None:
    server.faults = [{"status": status}] * 4
    assert fetch().read_bytes() == CONTENT
    assert len(server.asked) == 5


@pytest.mark.parametrize("status", [401, 404])
def test_download_gives_up_at_once_when_refused(fetch: Callable[..., Path], server: Server, status: int) -> None:
    server.faults = [{"status": status}]
    with pytest.raises(InputError, match=f"status {status}; expected the file"):
        fetch()
    assert len(server.asked) == 1


def test_download_of_another_file_leaves_nothing(fetch: Callable[..., Path], tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(InputError, match=f"sha256 {DIGEST}; expected sha256 {wrong}"):
        fetch(wrong)
    assert list((tmp_path / "cache").iterdir()) == []


def test_download_replaces_a_file_that_is_not_the_one_expected(fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f").write_text("old")
    assert fetch().read_bytes() == CONTENT


def test_download_leaves_no_wrong_file_when_refused(fetch: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f").write_text("old")
    server.faults = [{"status": 404}]
    with pytest.raises(InputError, match="status 404"):
        fetch()
    assert list((tmp_path / "cache").iterdir()) == []


def test_download_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ConnectError .* after 5 tries"):
        fetching.download("http://127.0.0.1:9/f", tmp_path / "f", None, pause_s=0.001)


def test_github_files(server: Server, tmp_path: Path) -> None:
    server.files = {"/o/n/v1/data/dev.json": b"dev", "/o/n/v1/data/test.json": b"test"}
    digests = [hashlib.sha256(text).hexdigest() for text in (b"dev", b"test")]
    place: dict[str, Any] = {
        "kind": "github",
        "repository": "o/n",
        "revision": "v1",
        "path": ["data/dev.json", "data/test.json"],
    }
    files = fetch_files(source(**place, sha256=digests), None, tmp_path, github=server.address)
    assert [file.read_text() for file in files] == ["dev", "test"]
    assert files[0] == tmp_path / "o/n/v1/data/dev.json"
    with pytest.raises(InputError, match="expected sha256"):
        fetch_files(source(**place, sha256=digests[::-1]), None, tmp_path, github=server.address)


def test_bundled_and_mirror_files_are_checked_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert fetch_files(source(sha256=DIGEST.upper()), tmp_path, tmp_path) == [tmp_path / "file"]
    assert fetch_files(source(kind="bundled"), None, tmp_path, root=tmp_path) == [tmp_path / "file"]
    with pytest.raises(InputError, match=f"sha256 {DIGEST}; expected sha256 {'0' * 64}"):
        fetch_files(source(sha256="0" * 64), tmp_path, tmp_path)
    with pytest.raises(SettingError, match="no mirror folder"):
        fetch_files(source(), None, tmp_path)
    with pytest.raises(InputError, match="no such file"):
        fetch_files(source(path="other"), tmp_path, tmp_path)


def test_a_gated_set_without_token_names_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(SettingError, match=r"HF_TOKEN is not set.*datasets/o/n"):
        fetch_files(source(kind="hub", repository="o/n", revision="v1", gated=True), None, tmp_path)


def test_no_token_but_that_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    seen = []

    def download(repository: str, path: str, **place: Any) -> str:
        seen.append(place["token"])
        return str(tmp_path / path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (tmp_path / "file").write_text("x")
    entry = source(kind="hub", repository="o/n", revision="v1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    fetch_files(entry, None, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch_files(entry, None, tmp_path)
    assert seen == [False, "hf_secret"]  # False: the token stored by a login stays out


# --- the scripts ----------------------------------------------------------------------------------------------------


def run_script(name: str, *flags: object, **environment: str) -> Done:
    inherited = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"}
    command = [sys.executable, "-m", f"scripts.{name}", *map(str, flags)]
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_source_script(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"q": "one"}\n{"q": ""}\n')
    flags = ("--source", "set", "--mirror", tmp_path, "--output", tmp_path / "out.jsonl", "--entry")
    result = run_script("fetch_source", *flags, source().model_dump_json())
    assert result.stdout == "fetch: set: 2 rows read, 1 kept (0 filtered out, 1 empty)\n"
    expected = {"question": "one", "source": "set", "licence": "MIT", "row": 0}
    assert read_rows(tmp_path / "out.jsonl") == [expected]


def test_source_script_fails_in_one_line(tmp_path: Path) -> None:
    result = run_script(
        *("fetch_source", "--source", "set", "--entry", source().model_dump_json(), "--output", tmp_path / "o"),
        *("--mirror", "null"),  # as params.yaml has it where there is none
    )
    assert result.returncode == 1
    assert result.stderr == "error: file: no mirror folder; expected a folder. Hint: give --mirror\n"
    assert not (tmp_path / "o").exists()


def test_benchmark_script(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"q": "one"}\n')
    flags = ("--benchmark", "exam", "--mirror", tmp_path, "--output", tmp_path / "out.jsonl", "--entry")
    result = run_script("fetch_benchmark", *flags, benchmark().model_dump_json())
    assert result.stdout == "fetch: exam: 1 rows read, 1 kept (0 filtered out, 0 empty)\n"
    assert read_rows(tmp_path / "out.jsonl") == [
        {"id": "exam-0", "question": "one", "benchmark": "exam", "purpose": "harmful"}
    ]


HUB: dict[str, Any] = {"kind": "hub", "repository": "o/n", "revision": "v1", "gated": True}


@pytest.fixture
def hub(server: Server, tmp_path: Path) -> Callable[..., Done]:
    """A hub on this machine with one data set, and how to run the script against it."""
    listed = ["data/b.jsonl", "README.md", "data/a.jsonl"]
    tree = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in listed]
    server.files["/api/datasets/o/n/tree/v1"] = json.dumps(tree).encode()
    for name in "ab":
        for revision in ("v1", COMMIT):
            server.files[f"/datasets/o/n/resolve/{revision}/data/{name}.jsonl"] = f'{{"q": "{name}"}}\n'.encode()

    def run(**fields: Any) -> Done:
        entry = source(**HUB | fields).model_dump_json()
        flags = ("--source", "set", "--entry", entry, "--output", tmp_path / "out.jsonl")
        environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hub"), "HF_TOKEN": "hf_secret"}
        return run_script("fetch_source", *flags, **environment, HF_HUB_DISABLE_TELEMETRY="1")

    return run


def test_hub_files_by_glob_in_sorted_order(hub: Callable[..., Done], server: Server, tmp_path: Path) -> None:
    result = hub(path="data/*.jsonl")
    assert result.returncode == 0, result.stderr
    assert [row["question"] for row in read_rows(tmp_path / "out.jsonl")] == ["a", "b"]
    assert {asked[3] for asked in server.asked} == {"Bearer hf_secret"}


def test_hub_file_with_another_digest(hub: Callable[..., Done], tmp_path: Path) -> None:
    result = hub(path="data/a.jsonl", sha256="0" * 64)
    assert f"expected sha256 {'0' * 64}" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_hub_digests_are_counted_after_the_glob(hub: Callable[..., Done]) -> None:
    assert "1 sha256 for 2 files" in hub(path="data/*.jsonl", sha256="0" * 64).stderr


def test_hub_glob_that_fits_nothing(hub: Callable[..., Done]) -> None:
    assert "no file like 'more/*.csv'" in hub(path="more/*.csv").stderr


def test_hub_missing_file(hub: Callable[..., Done]) -> None:
    result = hub(path="data/c.jsonl")
    assert result.returncode == 1
    assert result.stderr.startswith("error: https://huggingface.co/datasets/o/n: ")


def test_hub_refusal_names_the_page_and_not_the_token(hub: Callable[..., Done], server: Server) -> None:
    server.faults = [{"status": 403}] * 20
    result = hub(path="data/a.jsonl")
    assert result.returncode == 1
    assert "ask for it at https://huggingface.co/datasets/o/n" in result.stderr
    assert "hf_secret" not in result.stderr + result.stdout


# --- released data sets ---------------------------------------------------------------------------------------------

RELEASED = {
    "id": "1",
    "question": "q",
    "response": "<think>\nt\n</think>\n\na",
    "category": ["c"],
    "score": {"s": 10},
    "source": "x",
}


def published(format_: str = "json", **fields: Any) -> Published:
    return Published(**{"kind": "mirror", "path": "file", "format": format_, **TERMS} | fields)


@pytest.mark.parametrize("format_", ["json", "jsonl"])
def test_published_rows(tmp_path: Path, format_: str) -> None:
    rows = [RELEASED, RELEASED | {"id": "2", "note": "kept"}]
    text = json.dumps(rows) if format_ == "json" else "\n".join(map(json.dumps, rows))
    (tmp_path / "file").write_text(text)
    assert read_published("set", published(format_, rows=2), [tmp_path / "file"]) == rows
    with pytest.raises(InputError, match="2 rows; expected 3"):
        read_published("set", published(format_, rows=3), [tmp_path / "file"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": 2}, "row 1: id: "),
        ({"category": "['c']"}, "row 1: category: "),
        ({"category": []}, "row 1: category: "),
        ({"score": {"s": "10"}}, "row 1: score.s: "),
        ({"response": None}, "row 1: response: "),
    ],
)
def test_a_faulty_published_row_is_named(tmp_path: Path, change: Row, told: str) -> None:
    (tmp_path / "file").write_text(json.dumps([RELEASED, RELEASED | change]))
    with pytest.raises(InputError) as caught:
        read_published("set", published(), [tmp_path / "file"])
    assert told in str(caught.value)


def test_a_published_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("[]")
    with pytest.raises(InputError, match="set: no rows"):
        read_published("set", published(), [tmp_path / "file"])


@pytest.mark.skipif(not STAR1.exists(), reason="the released STAR-1 is not at hand (../shared)")
def test_star1_loads_as_released(tmp_path: Path) -> None:
    entry = published(path=STAR1.name, rows=1000).model_dump_json()
    flags = ("--name", "STAR-1", "--entry", entry, "--mirror", STAR1.parent, "--output", tmp_path / "out.jsonl")
    assert run_script("fetch_published", *flags).stdout == "fetch: STAR-1: 1000 rows\n"
    assert read_rows(tmp_path / "out.jsonl") == json.loads(STAR1.read_text())
