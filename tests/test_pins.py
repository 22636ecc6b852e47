"""`star1 pin`: what lies at an entry's place now is told, and written into the params file with its comments kept."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from star1 import bases, pins, presets
from star1.errors import InputError, SettingError
from tests.conftest import ROOT
from tests.fileserver import COMMIT, serving
from tests.test_fetching import put_on_hub
from tests.test_presets import project

__all__ = ["project"]  # a fixture

CONTENT = b'{"q": "one"}\n'
DIGEST = hashlib.sha256(CONTENT).hexdigest()
ENTRY = {"format": "jsonl", "question": "q", "ngram": 8, "licence": "MIT", "attribution": "someone"}
GITHUB = {"kind": "github", "repository": "o/n", "revision": "main", "pinned": False, "path": "f.jsonl"}


def add(params_file: Path, /, **fields: Any) -> None:
    """Put the entry `new` among the sources."""
    presets.apply(None, [f"fetch.sources.new={json.dumps(ENTRY | fields)}"], params_file)


def new(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = yaml.safe_load(path.read_text())["fetch"]["sources"]["new"]
    return entry


def test_a_branch_on_github_becomes_a_commit(project: Path, tmp_path: Path) -> None:
    add(project, **GITHUB)
    before = project.read_text()
    with serving() as server:
        server.files = {"/repos/o/n/commits/main": COMMIT.encode(), f"/o/n/{COMMIT}/f.jsonl": CONTENT}
        places: dict[str, Any] = {"path": project, "cache": tmp_path / "cache", "pause_s": 0.001}
        places |= {"github": server.address, "api": server.address}
        told = pins.pin(**places)
        assert told == [f"fetch.sources.new: main is {COMMIT}; 1 files, sha256 {DIGEST[:12]}…"]
        assert project.read_text() == before  # told, not written
        assert pins.pin(write=True, **places) == told
        assert new(project) == ENTRY | GITHUB | {"revision": COMMIT, "pinned": True, "sha256": DIGEST}
        comments = [line for line in before.splitlines() if line.lstrip().startswith("#")]
        assert [line for line in project.read_text().splitlines() if line.lstrip().startswith("#")] == comments
        assert pins.pin(**places) == []  # nothing is left that is not pinned
        assert pins.pin(["new"], **places) == [f"fetch.sources.new: 1 files, sha256 {DIGEST[:12]}…"]


def test_an_address_gets_its_digests_and_a_change_is_told(project: Path, tmp_path: Path) -> None:
    with serving() as server:
        server.files = {"/a": CONTENT, "/b": b"other"}
        urls = [f"{server.address}/{name}" for name in "ab"]
        add(project, kind="url", path=urls, sha256=[DIGEST, "0" * 64])
        (told,) = pins.pin(["sources.new"], True, project, tmp_path / "cache", pause_s=0.001)
    assert told.endswith("; 1 of them other than before")
    assert new(project)["sha256"] == [DIGEST, hashlib.sha256(b"other").hexdigest()]


def test_a_branch_on_the_hub_becomes_a_commit(project: Path, tmp_path: Path) -> None:
    add(project, kind="hub", repository="o/n", revision="main", pinned=False, path="data/*.jsonl")
    code = "import sys; from pathlib import Path; from star1 import pins; pins.pin([], True, Path(sys.argv[1]))"
    with serving() as server:
        for revision in ("main", COMMIT):
            put_on_hub(server, "o/n", revision, {"data/a.jsonl": CONTENT})
        environment = os.environ | {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hub")}
        subprocess.run([sys.executable, "-c", code, str(project)], cwd=ROOT, env=environment, check=True)
    assert (new(project)["revision"], new(project)["sha256"], new(project)["pinned"]) == (COMMIT, DIGEST, True)


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "check repository and revision"), (403, "set GITHUB_TOKEN"), (200, "check repository")]
)
def test_what_github_refuses_is_told_and_nothing_is_written(
    project: Path, tmp_path: Path, status: int, hint: str
) -> None:
    add(project, **GITHUB)
    before = project.read_text()
    with serving() as server:
        server.faults = [{"status": status}]
        with pytest.raises(InputError, match=f"status {status}; expected a commit.*{hint}"):
            pins.pin([], True, project, tmp_path / "cache", api=server.address)
    assert project.read_text() == before


def test_a_base_model_of_the_hub_gets_its_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are not fetched for it; one on this machine has no commit."""
    entry = {"kind": "hub", "repository": "o/m", "revision": "main", "pinned": False}
    presets.apply(None, [f"fetch.models.m={json.dumps(entry)}"], project)
    asked: list[tuple[str, ...]] = []

    def commit(*place: str) -> str:
        asked.append(place)
        return COMMIT

    monkeypatch.setattr(bases, "commit", commit)
    assert pins.pin(["models.m"], path=project) == [f"fetch.models.m: main is {COMMIT}"]
    assert pins.pin(write=True, path=project) == [f"fetch.models.m: main is {COMMIT}"]
    found = yaml.safe_load(project.read_text())["fetch"]["models"]["m"]
    assert found == {**entry, "revision": COMMIT, "pinned": True}
    assert pins.pin(path=project) == []
    assert asked == [("o/m", "main")] * 2
    with pytest.raises(SettingError, match=r"fetch\.models\.tiny: kind tiny"):
        pins.pin(["tiny"], path=project)


def test_names_that_cannot_be_pinned(project: Path) -> None:
    with pytest.raises(SettingError, match="no such entry; expected one of"):
        pins.pin(["nothing"], path=project)
    with pytest.raises(SettingError, match=r"fetch\.sources\.school: kind bundled"):
        pins.pin(["school"], path=project)
