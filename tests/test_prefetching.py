"""`star1 prefetch`: fetched once with a connection, used without one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from star1 import bases, checkpoints, prefetched, prefetching
from star1.errors import InputError, SettingError
from star1.fetching import fetch_files
from star1.params import Params, load
from star1.sources import Source
from tests.conftest import ROOT
from tests.fileserver import COMMIT, FileServer, serving

ROWS = b'{"q": "one"}\n{"q": "two"}\n'
MODEL = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}", "README.md": b"not taken"}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as made:
        yield made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, online, whatever the environment of the tests says."""
    monkeypatch.chdir(tmp_path)
    for name in (prefetched.VARIABLE, "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def entry(**fields: Any) -> Source:
    place = {"kind": "github", "repository": "o/n", "revision": COMMIT, "path": "a.jsonl", "format": "jsonl"}
    return Source.model_validate({**place, "question": "q", "ngram": 8, "licence": "MIT", "attribution": "a"} | fields)


def wanting(**sources: Source) -> Params:
    """The default parameters, with these prompt sets in place of the bundled ones."""
    values = load(ROOT / "params.yaml", ROOT)
    values["fetch"]["sources"] = {name: one.model_dump(exclude_none=True) for name, one in sources.items()}
    values["collect"]["sources"] = list(sources)
    return Params.model_validate(values)


def fetched(params: Params, server: FileServer, *names: str) -> list[str]:
    told: list[str] = []
    prefetching.prefetch(params, names, told.append, github=server.address, pause_s=0.001)
    return told


def test_what_is_prefetched_is_used_without_a_network(
    server: FileServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = entry()
    server.files[f"/o/n/{COMMIT}/a.jsonl"] = ROWS
    params = wanting(ours=one)
    assert prefetching.missing(params) == ["fetch.sources.ours"]
    assert fetched(params, server)[0] == "fetch.sources.ours: 1 files, 0.0 MB"
    assert prefetching.missing(params) == []
    server.files.clear()
    server.asked.clear()
    assert fetched(params, server)[0] == "fetch.sources.ours: there"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (file,) = fetch_files(one, None, here / "elsewhere", github=server.address)
    assert file.read_bytes() == ROWS
    assert file.suffix == ".jsonl"  # readers go by the name
    assert server.asked == []


def test_without_a_network_what_is_missing_is_told_at_once(
    server: FileServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"offline mode.*star1 prefetch"):
        fetch_files(entry(), None, here / "cache", github=server.address)
    assert server.asked == []
    with pytest.raises(SettingError, match="offline mode"):
        fetched(wanting(ours=entry()), server)


def test_what_is_not_pinned_is_fetched_anew_where_there_is_a_network(
    server: FileServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = entry(revision="main", pinned=False)
    params = wanting(ours=branch)
    for content in (b'{"q": "old"}\n', b'{"q": "new"}\n'):
        server.files["/o/n/main/a.jsonl"] = content
        fetched(params, server)
        (file,) = fetch_files(branch, None, here / "cache", github=server.address)
        assert file.read_bytes() == content
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (file,) = fetch_files(branch, None, here / "other", github=server.address)
    assert file.read_bytes() == b'{"q": "new"}\n'


def test_a_damaged_object_is_told_and_not_used(server: FileServer, here: Path) -> None:
    server.files[f"/o/n/{COMMIT}/a.jsonl"] = ROWS
    fetched(wanting(ours=entry()), server)
    assert prefetched.verify()[1]
    (path,) = (here / prefetched.FOLDER / "objects").rglob("a.jsonl")
    path.unlink()  # the download's cache is the same file by a hard link
    path.write_bytes(ROWS[::-1])
    with pytest.raises(InputError, match=r"sha256 .*; expected sha256"):
        fetch_files(entry(), None, here / "cache", github=server.address)
    told, whole = prefetched.verify()
    assert not whole
    assert "1 damaged or missing" in told[-1]
    path.unlink()
    assert prefetching.missing(wanting(ours=entry())) == ["fetch.sources.ours"]
    assert fetched(wanting(ours=entry()), server)[0].endswith("1 files, 0.0 MB")
    assert prefetched.verify()[1]


def test_a_digest_of_the_entry_holds_for_prefetched_files_too(server: FileServer, here: Path) -> None:
    server.files[f"/o/n/{COMMIT}/a.jsonl"] = ROWS
    fetched(wanting(ours=entry()), server)
    with pytest.raises(InputError, match=f"expected sha256 {'0' * 64}"):
        fetch_files(entry(sha256="0" * 64), None, here / "cache", github=server.address)


def test_a_name_that_nothing_has(server: FileServer, here: Path) -> None:
    with pytest.raises(SettingError, match=r"'theirs'; expected one of fetch\.sources\.ours"):
        fetched(wanting(ours=entry()), server, "theirs")


MAKE_MODEL = """
import json, sys
from pathlib import Path
from star1 import bases, errors
made = {}
errors.run(lambda: made.update(bases.obtain({"kind": "hub", "repository": "o/m", "revision": "main"}, None, Path(sys.argv[1]))))
print(json.dumps(made["record"]))
"""
PREFETCH_MODEL = """
import sys
from pathlib import Path
from star1 import bases, errors, prefetched, prefetching
from star1.params import HubModel
model = HubModel(kind="hub", repository="o/m", revision="main")
errors.run(lambda: prefetching._take("fetch.models.m", prefetched.model_key("o/m", "main"), model, "", 0.001))
"""


def script(text: str, *flags: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own: the hub's library reads its settings once."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "STAR1_"))}
    command = [sys.executable, "-c", text, *map(str, flags)]
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=False, timeout=120
    )


def put_model(server: FileServer) -> None:
    siblings = [{"rfilename": name} for name in MODEL]
    info = {"id": "o/m", "sha": COMMIT, "siblings": siblings}
    tree = [{"type": "file", "path": name, "size": len(content), "oid": "0" * 40} for name, content in MODEL.items()]
    for revision in ("main", COMMIT):
        server.files[f"/api/models/o/m/revision/{revision}"] = json.dumps(info).encode()
        server.files[f"/api/models/o/m/tree/{revision}"] = json.dumps(tree).encode()
    for name, content in MODEL.items():
        server.files[f"/o/m/resolve/{COMMIT}/{name}"] = content


def test_a_model_of_the_hub_with_and_without_a_network(server: FileServer, here: Path) -> None:
    put_model(server)
    online = {"HF_ENDPOINT": server.address, "HF_HOME": str(here / "hub")}
    direct = script(MAKE_MODEL, here / "direct", **online)
    assert direct.returncode == 0, direct.stderr
    record = json.loads(direct.stdout)
    assert record == {"repository": "o/m", "revision": "main", "commit": COMMIT}
    taken = script(PREFETCH_MODEL, **online)
    assert taken.returncode == 0, taken.stderr
    server.files.clear()
    server.asked.clear()
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": server.address, "HF_HOME": str(here / "other")}
    made = script(MAKE_MODEL, here / "made", **offline)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == record
    assert server.asked == []
    assert checkpoints.describe(here / "made") == checkpoints.describe(here / "direct")
    assert sorted(path.name for path in (here / "made").iterdir()) == sorted(set(MODEL) - {"README.md"})
    (kept,) = (here / prefetched.FOLDER / "objects").rglob("model.safetensors")
    assert (here / "made/model.safetensors").samefile(kept)  # it takes its room once


def test_a_model_that_was_not_prefetched(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = script(MAKE_MODEL, here / "made", HF_HUB_OFFLINE="1", HF_HOME=str(here / "hub"))
    assert done.returncode == 1
    assert "star1 prefetch" in done.stderr
    assert "Traceback" not in done.stderr


def test_obtain_takes_nothing_of_another_model(here: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / name).write_text(name)
    files = [(path.name, path) for path in sorted((tmp_path / "files").iterdir())]
    prefetched.store(prefetched.model_key("o/m", "main"), "fetch.models.m", files, {"commit": COMMIT})
    staging = here / "staging"
    staging.mkdir()
    (staging / "left.safetensors").write_text("of another model")
    made = bases.obtain({"kind": "hub", "repository": "o/m", "revision": "main"}, None, staging)
    assert made["record"] == {"commit": COMMIT}
    assert not (staging / "left.safetensors").exists()
