"""Fetching, from servers on this machine: resumed, tried again, verified, alone on a file, and clear about what goes wrong."""

import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import polars
import pytest
import yaml

from star1 import fetching
from star1.errors import InputError, SettingError
from star1.fetching import fetch_files
from star1.reading import read_benchmark, read_source
from star1.records import read_json, read_rows
from star1.sources import Benchmark, Source
from tests.conftest import ROOT
from tests.fileserver import COMMIT, FileServer, serving

STAR1 = ROOT.parent / "shared" / "reference" / "star1" / "STAR-1.json"
TERMS = {"licence": "MIT", "attribution": "someone"}
CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
Done: TypeAlias = "subprocess.CompletedProcess[str]"


def source(**fields: Any) -> Source:
    base: dict[str, Any] = {"kind": "mirror", "path": "file", "format": "jsonl", "ngram": 8, "question": "q", **TERMS}
    return Source(**base | fields)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        yield server


@pytest.fixture
def fetch(server: FileServer, tmp_path: Path) -> Callable[..., Path]:
    server.files["/f"] = CONTENT

    def fetch(digest: str | None = DIGEST, fresh: bool = False) -> Path:
        return fetching.download(f"{server.address}/f", tmp_path / "cache" / "f", digest, 0.001, fresh)

    return fetch


def left(tmp_path: Path) -> list[str]:
    """What lies in the cache, but for the locks."""
    return sorted(file.name for file in (tmp_path / "cache").iterdir() if not file.name.endswith(".lock"))


# --- downloads ----------------------------------------------------------------------------------------------------------


def test_download_takes_its_name_when_whole(fetch: Callable[..., Path], server: FileServer, tmp_path: Path) -> None:
    assert fetch().read_bytes() == CONTENT
    assert left(tmp_path) == ["f"]
    assert fetch(digest=None).read_bytes() == CONTENT
    assert len(server.asked) == 1  # the second time it was there
    assert fetch(digest=None, fresh=True).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_download_goes_on_where_it_broke_off(fetch: Callable[..., Path], server: FileServer) -> None:
    server.faults = [60_000, 10_000]
    assert fetch(digest=None).read_bytes() == CONTENT
    assert [asked[2] for asked in server.asked] == [None, "bytes=60000-", "bytes=70000-"]
    assert {asked[4] for asked in server.asked[1:]} == {f'"{DIGEST}"'}  # only of the same version


def test_download_goes_on_in_another_run(fetch: Callable[..., Path], server: FileServer, tmp_path: Path) -> None:
    server.faults = [1000] + [{"status": 503}] * 10
    with pytest.raises(InputError, match=r"status 503 after 5 tries.*what came so far is kept"):
        fetch()
    assert left(tmp_path) == ["f.part", "f.part.etag"]
    server.faults = []
    assert fetch().read_bytes() == CONTENT
    assert server.asked[-1][2] == "bytes=1000-"
    assert left(tmp_path) == ["f"]


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("etags", [True, False, "weak"])
def test_halves_of_two_versions_never_come_together(
    fetch: Callable[..., Path], server: FileServer, digest: bool, etags: bool | str
) -> None:
    """The file changes between two runs; the server may name versions well, badly or not at all."""
    server.etags = etags
    server.files["/f"] = b"old" * 40_000
    server.faults = [1000] + [{"status": 503}] * 10
    with pytest.raises(InputError, match="status 503"):
        fetch(digest=None)
    server.faults, server.files["/f"] = [], CONTENT
    assert fetch(DIGEST if digest else None).read_bytes() == CONTENT


def test_download_whose_process_died_at_the_end_is_not_fetched_again(
    fetch: Callable[..., Path], server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f.part").write_bytes(CONTENT)
    assert fetch().read_bytes() == CONTENT
    assert server.asked == []


def test_download_from_a_server_without_ranges_begins_again(fetch: Callable[..., Path], server: FileServer) -> None:
    server.faults, server.ranges = [60_000], False
    assert fetch().read_bytes() == CONTENT


def test_download_with_a_part_longer_than_the_file_begins_again(fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f.part").write_bytes(CONTENT + b"more")
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_download_tries_again_when_the_server_is_busy(
    fetch: Callable[..., Path], server: FileServer, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [{"status": status}] * 4
    assert fetch().read_bytes() == CONTENT
    assert len(server.asked) == 5
    assert f"fetch f: status {status}, try 2 of 5 in 0.001 s" in capsys.readouterr().err


def test_download_waits_as_long_as_the_server_asks(
    fetch: Callable[..., Path], server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    server.faults = [{"status": 429, "headers": {"Retry-After": wait}} for wait in ("7", "3600", "soon")]
    assert fetch().read_bytes() == CONTENT
    assert slept == [7.0, 60.0, 0.004]


@pytest.mark.parametrize(("status", "hint"), [(401, "restricted"), (403, "restricted"), (404, "check repository")])
def test_download_gives_up_at_once_when_refused(
    fetch: Callable[..., Path], server: FileServer, status: int, hint: str
) -> None:
    server.faults = [{"status": status}]
    with pytest.raises(InputError, match=f"status {status}; expected the file.*{hint}"):
        fetch()
    assert len(server.asked) == 1


def test_download_of_another_file_leaves_nothing(fetch: Callable[..., Path], tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(InputError, match=f"sha256 {DIGEST}; expected sha256 {wrong}.*star1 pin"):
        fetch(wrong)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (b"<!DOCTYPE html><html>log in", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_a_page_in_place_of_the_file_is_not_kept(
    fetch: Callable[..., Path], server: FileServer, tmp_path: Path, page: bytes, told: str
) -> None:
    server.files["/f"] = page
    for digest in (None, DIGEST):
        with pytest.raises(InputError, match=f"{server.address}/f: {told}"):
            fetch(digest)
        assert left(tmp_path) == []


def test_download_replaces_a_file_that_is_not_the_one_expected(fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f").write_text("old")
    assert fetch().read_bytes() == CONTENT


def test_download_leaves_no_wrong_file_when_refused(
    fetch: Callable[..., Path], server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f").write_text("old")
    server.faults = [{"status": 404}]
    with pytest.raises(InputError, match="status 404"):
        fetch()
    assert left(tmp_path) == []


def test_download_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ConnectError .* after 5 tries"):
        fetching.download("http://127.0.0.1:9/f", tmp_path / "f", None, pause_s=0.001)


def test_download_in_a_circle_of_redirects(fetch: Callable[..., Path], server: FileServer) -> None:
    server.faults = [{"status": 302, "headers": {"Location": "/f"}}] * 50
    with pytest.raises(InputError, match=r"TooManyRedirects .*expected the file"):
        fetch()


def test_download_goes_through_the_proxy_of_the_environment(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", server.address)
    server.files["http://example.invalid/f"] = CONTENT
    assert fetching.download("http://example.invalid/f", tmp_path / "f", DIGEST, 0.001).read_bytes() == CONTENT


@pytest.mark.parametrize("proxy", ["gopher://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(InputError, match=r"proxy settings|after 5 tries"):
        fetching.download("http://example.invalid/f", tmp_path / "f", None, 0.001)


def test_a_full_disk_is_told_in_one_line(fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "f.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device; expected a folder with room, that can be written"):
        fetch()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder with room, that can be written"):
        fetching.download("http://127.0.0.1:9/f", tmp_path / "file" / "f", None, 0.001)


def test_processes_that_want_one_file_fetch_it_once(server: FileServer, tmp_path: Path) -> None:
    """A set that is a source and a test set is fetched by two jobs at the same time."""
    server.files["/f"] = CONTENT
    code = (
        "import sys; from pathlib import Path; from star1 import fetching;"
        "fetching.download(sys.argv[1], Path(sys.argv[2]), None, 0.001)"
    )
    command = [sys.executable, "-c", code, f"{server.address}/f", str(tmp_path / "cache" / "f")]
    jobs = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [job.wait(60) for job in jobs] == [0, 0, 0]
    assert (tmp_path / "cache" / "f").read_bytes() == CONTENT
    assert len(server.asked) == 1


# --- entries ------------------------------------------------------------------------------------------------------------


def test_github_files(server: FileServer, tmp_path: Path) -> None:
    server.files = {f"/o/n/{COMMIT}/data/dev.json": b"dev", f"/o/n/{COMMIT}/data/a%20b%23.json": b"test"}
    digests = [hashlib.sha256(text).hexdigest() for text in (b"dev", b"test")]
    place: dict[str, Any] = {
        "kind": "github",
        "repository": "o/n",
        "revision": COMMIT,
        "path": ["data/dev.json", "data/a b#.json"],
    }
    files = fetch_files(source(**place, sha256=digests), None, tmp_path, github=server.address)
    assert [file.read_text() for file in files] == ["dev", "test"]
    assert files[0] == tmp_path / "o/n" / COMMIT / "data/dev.json"
    with pytest.raises(InputError, match="expected sha256"):
        fetch_files(source(**place, sha256=[None, digests[0]]), None, tmp_path, github=server.address)


@pytest.mark.parametrize("kind", ["github", "url"])
def test_what_is_not_pinned_is_fetched_anew_and_warned_about(
    server: FileServer, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place: dict[str, Any] = {"kind": "url", "path": f"{server.address}/o/n/main/f.gz?raw=1"}
    if kind == "github":
        place = {"kind": "github", "repository": "o/n", "revision": "main", "path": "f.gz"}
    entry = source(**place, pinned=False)
    for content in (b"one", b"two"):
        server.files["/o/n/main/f.gz"] = content
        (file,) = fetch_files(entry, None, tmp_path, github=server.address)
        assert (file.read_bytes(), file.name) == (content, "f.gz")
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1
        assert told[0].startswith("warning: ")
        assert "is not pinned, its content may change; `star1 pin` records" in told[0]


def test_a_plain_address_is_pinned_by_its_digest(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"/f": CONTENT}
    entry = source(kind="url", path=f"{server.address}/f", sha256=DIGEST)
    for _ in range(2):
        (file,) = fetch_files(entry, None, tmp_path)
        assert file.read_bytes() == CONTENT
    assert (len(server.asked), capsys.readouterr().err) == (1, "")


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


# --- the hub, through the scripts -----------------------------------------------------------------------------------------


def run_script(name: str, *flags: object, **environment: str) -> Done:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-m", f"scripts.{name}", *map(str, flags)]
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False, timeout=120
    )


HUB: dict[str, Any] = {"kind": "hub", "repository": "o/n", "revision": COMMIT}


def put_on_hub(server: FileServer, repository: str, revision: str, files: dict[str, bytes]) -> None:
    """Make a data set of the server's hub, as the library asks for it."""
    tree = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in files]
    server.files[f"/api/datasets/{repository}/tree/{revision}"] = json.dumps(tree).encode()
    info = {"id": repository, "sha": COMMIT, "siblings": []}
    server.files[f"/api/datasets/{repository}/revision/{revision}"] = json.dumps(info).encode()
    for path, content in files.items():
        for name in {revision, COMMIT}:
            server.files[f"/datasets/{repository}/resolve/{name}/{path}"] = content


@pytest.fixture
def hub(server: FileServer, tmp_path: Path) -> Callable[..., Done]:
    """A hub on this machine with one data set, and how to run the script against it."""
    files = {f"data/{name}.jsonl": f'{{"q": "{name}"}}\n'.encode() for name in "ba"} | {"README.md": b""}
    for revision in (COMMIT, "main"):
        put_on_hub(server, "o/n", revision, files)

    def run(environment: dict[str, str] | None = None, **fields: Any) -> Done:
        entry = source(**HUB | fields).model_dump_json()
        flags = (
            "--source",
            "set",
            "--entry",
            entry,
            "--output",
            tmp_path / "out.jsonl",
            "--counts",
            tmp_path / "counts",
        )
        base = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        return run_script("fetch_source", *flags, **base | (environment or {}))

    return run


TOKEN = {"HF_TOKEN": "hf_secret"}


def test_hub_files_by_glob_in_sorted_order_from_the_endpoint(
    hub: Callable[..., Done], server: FileServer, tmp_path: Path
) -> None:
    result = hub(TOKEN, path="data/*.jsonl", gated=True)
    assert result.returncode == 0, result.stderr
    assert [row["question"] for row in read_rows(tmp_path / "out.jsonl")] == ["a", "b"]
    assert {asked[3] for asked in server.asked} == {"Bearer hf_secret"}
    assert "hf_secret" not in result.stderr + result.stdout


def test_hub_without_a_token_sends_none(hub: Callable[..., Done], server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "token").write_text("hf_of_a_login")
    assert hub(path="data/a.jsonl").returncode == 0
    assert {asked[3] for asked in server.asked} == {None}


def test_hub_files_that_are_pinned_and_in_the_cache_need_neither_network_nor_token(
    hub: Callable[..., Done], server: FileServer, tmp_path: Path
) -> None:
    assert hub(TOKEN, path="data/a.jsonl", gated=True).returncode == 0
    server.asked.clear()
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        (tmp_path / "out.jsonl").unlink()
        result = hub(environment, path="data/a.jsonl", gated=True)
        assert result.returncode == 0, result.stderr
    assert server.asked == []


def test_hub_branch_is_asked_anew_and_warned_about(
    hub: Callable[..., Done], server: FileServer, tmp_path: Path
) -> None:
    for server.commit, content in ((COMMIT, b'{"q": "one"}\n'), ("f" * 40, b'{"q": "two"}\n')):
        server.files["/datasets/o/n/resolve/main/data/a.jsonl"] = content
        result = hub(path="data/a.jsonl", revision="main", pinned=False)
        assert result.returncode == 0, result.stderr
        assert "warning: o/n at main is not pinned" in result.stderr
        assert read_rows(tmp_path / "out.jsonl")[0]["question"] == json.loads(content)["q"]


def told(result: Done) -> str:
    """The one line of an expected failure."""
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.stderr
    return lines[0]


def test_hub_download_that_breaks_off_goes_on(hub: Callable[..., Done], server: FileServer, tmp_path: Path) -> None:
    content = b"".join(b'{"q": "%d%s"}\n' % (n, b" and so on" * 100) for n in range(12_000))  # 10 MB are a piece
    server.files[f"/datasets/o/n/resolve/{COMMIT}/data/a.jsonl"] = content
    server.faults = [None, 11_000_000]
    result = hub(path="data/a.jsonl", sha256=hashlib.sha256(content).hexdigest(), rows=12_000)
    assert result.returncode == 0, result.stderr
    assert "bytes=" in str([asked[2] for asked in server.asked])


def test_hub_that_is_busy_is_asked_again(hub: Callable[..., Done], server: FileServer) -> None:
    server.faults = [{"status": 503}]
    result = hub(path="data/*.jsonl")
    assert result.returncode == 0, result.stderr


def test_hub_file_with_another_digest(hub: Callable[..., Done], tmp_path: Path) -> None:
    assert f"expected sha256 {'0' * 64}" in told(hub(path="data/a.jsonl", sha256="0" * 64))
    assert not (tmp_path / "out.jsonl").exists()


def test_hub_digests_are_counted_after_the_glob(hub: Callable[..., Done]) -> None:
    assert "1 sha256 for 2 files" in told(hub(path="data/*.jsonl", sha256="0" * 64))


def test_hub_glob_that_fits_nothing(hub: Callable[..., Done]) -> None:
    assert "no file like 'more/*.csv'" in told(hub(path="more/*.csv"))


def test_hub_missing_file(hub: Callable[..., Done]) -> None:
    line = told(hub(path="data/c.jsonl"))
    assert line.startswith(
        f"error: https://huggingface.co/datasets/o/n: no data/c.jsonl at {COMMIT}; expected the files"
    )


@pytest.mark.parametrize(
    ("status", "code", "line"),
    [
        (404, "RepoNotFound", "no such data set, or a private one"),
        (404, "RevisionNotFound", f"no revision {COMMIT}"),
        (403, "GatedRepo", "the hub refused access"),
        (400, "", "status 400; expected the files of the entry"),
    ],
)
def test_hub_refusals(hub: Callable[..., Done], server: FileServer, status: int, code: str, line: str) -> None:
    server.faults = [{"status": status, "headers": {"X-Error-Code": code} if code else {}}] * 20
    assert line in told(hub(path="data/*.jsonl"))


def test_hub_refusal_names_the_page_and_not_the_token(hub: Callable[..., Done], server: FileServer) -> None:
    server.faults = [{"status": 403}] * 20
    result = hub(TOKEN, path="data/a.jsonl", gated=True)
    assert "ask for it at https://huggingface.co/datasets/o/n" in told(result)
    assert "hf_secret" not in result.stderr + result.stdout


def test_a_gated_set_without_token_names_the_page_and_asks_nobody(hub: Callable[..., Done], server: FileServer) -> None:
    line = told(hub(path="data/a.jsonl", gated=True))
    assert line == (
        "error: o/n: a gated set, and HF_TOKEN is not set; expected a token."
        " Hint: accept the terms at https://huggingface.co/datasets/o/n, then set HF_TOKEN"
    )
    assert server.asked == []


@pytest.mark.parametrize("path", ["data/a.jsonl", "data/*.jsonl"])
def test_hub_offline(hub: Callable[..., Done], server: FileServer, path: str) -> None:
    line = told(hub({"HF_HUB_OFFLINE": "1"}, path=path))
    assert "offline mode (HF_HUB_OFFLINE), and not all files are in the cache; expected a connection." in line
    assert server.asked == []


@pytest.mark.parametrize("path", ["data/a.jsonl", "data/*.jsonl"])
def test_hub_that_is_not_there(tmp_path: Path, path: str) -> None:
    code = (
        "import sys, time; time.sleep = lambda _: None; from star1 import errors, hub; from star1.sources import Source;"
        "errors.run(lambda: hub.fetch(Source.model_validate_json(sys.argv[1]), 0.001))"
    )
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code, source(**HUB, path=path).model_dump_json()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "not reachable, tried several times" in told(result)
    assert "HF_ENDPOINT names a mirror" in told(result)


def test_hub_with_a_full_cache(hub: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("not a folder")
    assert "expected a folder with room, that can be written" in told(hub(path="data/a.jsonl"))


# --- the scripts ----------------------------------------------------------------------------------------------------


def test_source_script(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"q": "one"}\n{"q": ""}\n{"q": 7}\n')
    flags = ("--source", "set", "--mirror", tmp_path, "--output", tmp_path / "out.jsonl", "--entry")
    counts = ("--counts", tmp_path / "set.counts.json")
    result = run_script("fetch_source", *flags, source().model_dump_json(), *counts)
    assert result.stdout == "fetch: set: 3 rows read, 1 kept (0 filtered out, 1 empty, 1 not text)\n"
    expected = {"question": "one", "source": "set", "licence": "MIT", "row": 0}
    assert read_rows(tmp_path / "out.jsonl") == [expected]
    found = read_json(tmp_path / "set.counts.json")
    assert (found["read"], found["dropped"]) == (3, {"empty": [1], "not_text": [2]})


def test_source_script_fails_in_one_line(tmp_path: Path) -> None:
    result = run_script(
        *("fetch_source", "--source", "set", "--entry", source().model_dump_json(), "--output", tmp_path / "o"),
        *("--counts", tmp_path / "c", "--mirror", "null"),  # as params.yaml has it where there is none
    )
    assert result.returncode == 1
    assert result.stderr == "error: file: no mirror folder; expected a folder. Hint: give --mirror\n"
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "c").exists()


def test_source_script_from_a_plain_address(server: FileServer, tmp_path: Path) -> None:
    server.files["/sets/a.jsonl.gz"] = gzip.compress(b'{"q": "one"}\n', mtime=0)
    digest = hashlib.sha256(server.files["/sets/a.jsonl.gz"]).hexdigest()
    entry = source(kind="url", path=f"{server.address}/sets/a.jsonl.gz", sha256=digest).model_dump_json()
    flags = ("--source", "set", "--entry", entry, "--output", tmp_path / "o", "--counts", tmp_path / "c")
    result = run_script("fetch_source", *flags, "--cache", tmp_path / "cache")
    assert (result.returncode, result.stderr) == (0, "")
    assert [row["question"] for row in read_rows(tmp_path / "o")] == ["one"]


def test_benchmark_script(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"q": "one"}\n')
    flags = ("--benchmark", "exam", "--mirror", tmp_path, "--output", tmp_path / "out.jsonl", "--entry")
    entry = {"kind": "mirror", "path": "file", "format": "jsonl", "question": "q", "purpose": "harmful", **TERMS}
    written = ("--counts", tmp_path / "counts.json", "--manifest", tmp_path / "manifest.json")
    result = run_script("fetch_benchmark", *flags, json.dumps(entry), *written)
    frozen = read_json(tmp_path / "manifest.json")
    assert result.stdout == (
        f"fetch: exam: 1 rows read, 1 kept (0 filtered out, 0 empty); manifest {frozen['sha256']}\n"
    )
    assert (frozen["benchmark"], frozen["rows"], frozen["ids"], frozen["licence"]) == ("exam", 1, ["exam-0"], "MIT")
    assert read_rows(tmp_path / "out.jsonl") == [
        {"id": "exam-0", "question": "one", "benchmark": "exam", "purpose": "harmful"}
    ]
    assert read_json(tmp_path / "counts.json")["kept"] == 1


@pytest.mark.skipif(not STAR1.exists(), reason="the released STAR-1 is not at hand (../shared)")
def test_star1_loads_as_released(tmp_path: Path) -> None:
    entry = {"kind": "mirror", "path": STAR1.name, "rows": 1000, "format": "json", **TERMS}
    flags = (
        "--name",
        "STAR-1",
        "--entry",
        json.dumps(entry),
        "--mirror",
        STAR1.parent,
        "--output",
        tmp_path / "out.jsonl",
    )
    assert run_script("fetch_published", *flags).stdout == "fetch: STAR-1: 1000 rows\n"
    assert read_rows(tmp_path / "out.jsonl") == json.loads(STAR1.read_text())


# --- the sets of the paper, as files of their layouts on servers of this machine -----------------------------------------


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(folder: Path, *rows: dict[str, Any]) -> bytes:
    polars.DataFrame(list(rows)).write_parquet(folder / "parquet")
    return (folder / "parquet").read_bytes()


def chat(content: str, toxic: bool, hate: float, flagged: bool = True) -> dict[str, Any]:
    scores = {"hate": hate, "violence": 0.2}
    return {
        "conversation": [{"content": content, "role": "user"}, {"content": "no", "role": "assistant"}],
        **{"turn": 1, "language": "English", "toxic": toxic},
        "openai_moderation": [
            {"flagged": False, "category_scores": scores},
            {"flagged": flagged, "category_scores": scores},
        ],
    }


SETS: dict[str, dict[str, bytes]] = {
    "GPTFuzz": {"datasets/questions/question_list.csv": b"index,text\r\n0,one\r\n1,two\r\n"},
    "SimpleSafetyTests": {"sst_test_cases.csv": b"id,harm_area,category,prompt\nSST_001,a,b,one\nSST_002,a,b,two\n"},
    "MaliciousInstruct": {"data/MaliciousInstruct.txt": b"one\ntwo\n"},
    "QHarm": {"data/evaluation/Q-Harm.json": b'{"instructions": ["one", "two"], "inputs": []}'},
    "TDCRedTeaming": {
        "red_teaming/data/dev/behaviors.json": b'["one"]',
        "red_teaming/data/test/behaviors.json": b'["two"]',
    },
    "MaliciousInstructions": {
        "data/evaluation/I-MaliciousInstructions.json": b'{"instructions": ["one", "two"], "inputs": ["", ""], "tags": ["", ""]}'
    },
    "HarmfulQ": {"data/dangerous-q/toxic_outs.json": b'["one", "two"]'},
    "HExPHI": {f"category_{n}.csv": b'"one, and more"\ntwo\n' if n == 1 else b"more\n" for n in range(1, 12) if n != 2},
    "HarmBench": {
        "data/behavior_datasets/harmbench_behaviors_text_all.csv": (
            b"Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\r\n"
            b'one,standard,illegal,,,a\r\nleft out,contextual,illegal,context,"long\r\ntext",b\r\ntwo,copyright,copyright,,,c\r\n'
        )
    },
    "AttaQ": {"AttaQ-v1.csv": b",label,input,additional_info\n0,deception,one,\n1,violence,two,\n"},
    "HarmfulQA": {
        "data_for_hub.json": json.dumps(
            [{"id": 1, "question": q, "blue_conversations": {}} for q in ("one", "two")]
        ).encode()
    },
    "SafetyInstructions": {
        "data/training/safety_only_data_Instructions.json": json.dumps(
            [{"instruction": q, "input": "", "output": "no"} for q in ("one", "two")], indent=4
        ).encode()
    },
    "UltraSafety": {
        "UltraSafety.json": jsonl({"instruction": "one", "prompt": ["x"]}, {"instruction": "two", "prompt": ["y"]})
    },
    "ALERT": {
        "alert.jsonl": jsonl(
            {"id": 0, "prompt": "### Instruction:\none\n### Response:\n", "category": "x"},
            {"id": 1, "prompt": "### Instruction:\ntwo\n### Response:", "category": "x"},
        )
    },
    "SaladBench": {
        "base_set.json": json.dumps([{"qid": 0, "question": q, "1-category": "O1"} for q in ("one", "two")]).encode()
    },
    "PKUSafeRLHF": {
        f"data/{model}/{split}.jsonl": jsonl(
            {
                "prompt": "one" if model == "Alpaca-7B" else "two",
                "is_response_0_safe": False,
                "is_response_1_safe": split == "test",
            },
            {"prompt": "left out", "is_response_0_safe": True, "is_response_1_safe": False},
        )
        for split in ("train", "test")
        for model in ("Alpaca-7B", "Alpaca2-7B", "Alpaca3-8B")
    },
    "BeaverTails": {
        f"round0/330k/{split}.jsonl.xz": lzma.compress(
            jsonl(
                {"prompt": text, "is_safe": False, "category": {}},
                {"prompt": "left out", "is_safe": True, "category": {}},
            )
        )
        for split, text in (("train", "one"), ("test", "two"))
    },
    "wildjailbreak": {
        "train/train.tsv": (
            b'vanilla\tadversarial\tcompletion\tdata_type\none\t\t"a ""b""\n\nc"\tvanilla_benign\n'
            b"two\tx\ty\tadversarial_harmful\n"
        )
    },
}
KEPT = {"HExPHI": ["one, and more", "two", *["more"] * 9], "PKUSafeRLHF": ["one", "two", "two"]}

TESTS: dict[str, dict[str, bytes]] = {
    "strongreject": {
        "strongreject_dataset/strongreject_dataset.csv": b"category,source,forbidden_prompt\nx,y,one\nx,y,two\n"
    },
    "jbb": {
        "data/harmful-behaviors.csv": b"Index,Goal,Target,Behavior,Category,Source\n0,one,t,b,c,s\n1,two,t,b,c,s\n"
    },
    "sgbench": {
        "datasets/SG-Bench/original_query/malicious_instruction.json": json.dumps(
            [{"query": q, "safety_type": "[ O1: x]"} for q in ("one", "two")]
        ).encode()
    },
    "wildjailbreak": {
        "eval/eval.tsv": (
            b"adversarial\tlabel\tdata_type\none\t1\tadversarial_harmful\nno\t0\tadversarial_benign\n"
            b"two\t1\tadversarial_harmful\n"
        )
    },
    "jbb_benign": {
        "data/benign-behaviors.csv": b"Index,Goal,Target,Behavior,Category,Source\n0,one,t,b,c,s\n1,two,t,b,c,s\n"
    },
    "wildjailbreak_benign": {
        "eval/eval.tsv": (
            b"adversarial\tlabel\tdata_type\none\t0\tadversarial_benign\nno\t1\tadversarial_harmful\n"
            b"two\t0\tadversarial_benign\n"
        )
    },
    "xstest_unsafe": {
        "xstest_prompts.csv": (
            b"id,prompt,type,label,focus,note\n1,no,homonyms,safe,,\n2,one,contrast,unsafe,,\n3,two,contrast,unsafe,,\n"
        )
    },
    "or_bench_hard": {"or-bench-hard-1k.csv": b"prompt,category\none,harmful\ntwo,violence\n"},
    "aime25": {
        f"aime2025-{part}.jsonl": jsonl({"question": q, "answer": "1"}) for part, q in (("I", "one"), ("II", "two"))
    },
    "ifeval": {"ifeval_input_data.jsonl": jsonl(*({"key": q, "prompt": q, "kwargs": [{}]} for q in ("one", "two")))},
    "xstest": {
        "xstest_prompts.csv": (
            b"id,prompt,type,label,focus,note\n1,one,homonyms,safe,,\n2,no,contrast,unsafe,,\n3,two,homonyms,safe,,\n"
        )
    },
    "harmbench": SETS["HarmBench"],
    "math500": {
        "test.jsonl": jsonl(
            *({"problem": q, "answer": "1", "subject": "Algebra", "unique_id": q} for q in ("one", "two"))
        )
    },
    "humaneval": {
        "data/HumanEval.jsonl.gz": gzip.compress(
            jsonl(
                *(
                    {"task_id": q, "prompt": q, "canonical_solution": "x", "test": "t", "entry_point": "f"}
                    for q in ("one", "two")
                )
            )
        )
    },
    "gpqa": {
        "gpqa_diamond.csv": (
            b"Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Record ID,High-level domain\n"
            b'"one",a,x,y,z,r1,Physics\ntwo,"b\nc",x,y,z,r2,Biology\n'
        )
    },
}


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "presets" / "paper.yaml").read_text())["fetch"]
    return found


@pytest.fixture
def served(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Fetch an entry of the preset from the server, where the given files lie at its place."""
    import huggingface_hub

    def download(repository: str, path: str, *, revision: str, **_: Any) -> str:
        url = f"{server.address}/datasets/{repository}/resolve/{revision}/{path}"
        return str(fetching.download(url, tmp_path / "hub" / path, None, 0.001))

    def listed(_: object, repository: str, **__: Any) -> list[str]:
        return [path.partition("/resolve/")[2].partition("/")[2] for path in server.files if repository in path]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def fetch(entry: Source | Benchmark, files: dict[str, bytes]) -> list[Path]:
        middle = "/datasets" if entry.kind == "hub" else ""
        resolve = "resolve/" if entry.kind == "hub" else ""
        for path, content in files.items():
            server.files[f"{middle}/{entry.repository}/{resolve}{entry.revision}/{path}"] = content
        return fetch_files(entry, None, tmp_path / "cache", github=server.address, pause_s=0.001)

    return fetch


def test_every_set_of_the_paper_is_tried(paper: dict[str, Any]) -> None:
    assert set(SETS) == set(paper["sources"])
    assert set(TESTS) | {"aime24", "mmlu_pro", "wildchat"} == set(paper["benchmarks"])


@pytest.mark.parametrize("name", SETS)
def test_sources_of_the_paper_from_their_raw_layouts(
    paper: dict[str, Any], served: Callable[..., list[Path]], name: str
) -> None:
    entry = Source(**paper["sources"][name] | {"sha256": None, "rows": None})
    rows, _ = read_source(name, entry, served(entry, SETS[name]))
    assert [row["question"] for row in rows] == KEPT.get(name, ["one", "two"])


@pytest.mark.parametrize("name", TESTS)
def test_benchmarks_of_the_paper_from_their_raw_layouts(
    paper: dict[str, Any], served: Callable[..., list[Path]], name: str
) -> None:
    entry = Benchmark(**paper["benchmarks"][name] | {"sha256": None, "rows": None})
    rows, _ = read_benchmark(name, entry, served(entry, TESTS[name]))
    assert sorted(row["question"] for row in rows) == ["one", "two"]


def test_benchmarks_of_the_paper_in_parquet(
    paper: dict[str, Any], served: Callable[..., list[Path]], tmp_path: Path
) -> None:
    contents = {
        "aime24": {
            "data/train-00000-of-00001.parquet": parquet(tmp_path, {"id": 60, "problem": "one", "answer": "204"})
        },
        "mmlu_pro": {
            "data/test-00000-of-00001.parquet": parquet(
                tmp_path, {"question_id": 7, "question": "one", "options": ["a", "b"], "answer": "A", "category": "law"}
            )
        },
        "wildchat": {
            f"data/train-0000{n}-of-00002.parquet": parquet(
                tmp_path,
                chat("mild", True, 0.3 + n / 10),
                chat("not toxic", False, 0.9),
                chat("not flagged", True, 0.9, flagged=False),
                chat("other", True, 0.1),
            )
            for n in range(2)
        },
    }
    found = {}
    for name, files in contents.items():
        entry = Benchmark(**paper["benchmarks"][name] | {"sha256": None, "rows": None})
        found[name] = read_benchmark(name, entry, served(entry, files))[0]
    assert [row["question"] for row in found["aime24"] + found["mmlu_pro"]] == ["one", "one"]
    assert [(row["id"], row["question"], row["category"]) for row in found["wildchat"]] == [
        ("wildchat-4", "mild", "hate"),
        ("wildchat-0", "mild", "hate"),
        ("wildchat-3", "other", "violence"),
        ("wildchat-7", "other", "violence"),
    ]


def test_threads_may_fetch_at_once(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = CONTENT
    jobs = [
        threading.Thread(target=fetching.download, args=(f"{server.address}/f", tmp_path / "f", None, 0.001))
        for _ in range(4)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(server.asked) == 1
