"""`star1 push`: nothing leaves the machine unasked, what leaves is what was released, and faults are told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from star1 import checkpoints, uploads
from star1.errors import InputError, SettingError, Star1Error
from star1.records import file_digest, write_text
from star1.seals import seal
from tests.conftest import ROOT
from tests.hubserver import Hub, hub

TOKEN = "hf_writing_token"
CARD = "---\nlicense: mit\n---\n# A card\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # Chunked storage has servers of its own; without it, large files go by Git LFS.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A released data set and a released model, by language models as far as their records say."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "release/datasets/star-1"
    write_text(data / "README.md", CARD)
    write_text(data / "data/train-00000-of-00001.parquet", "PAR1 not really")
    files = ["README.md", "data/train-00000-of-00001.parquet"]
    seal(data, {"kind": "dataset", "name": "star-1", "stand_in": []}, files)
    write_text(tmp_path / "staging/model.safetensors", "weights")
    write_text(tmp_path / "staging/config.json", "{}")
    checkpoints.publish(tmp_path / "staging", "models/star1+benign", "sft", {})
    model = tmp_path / "release/models/star1+benign"
    write_text(model / "README.md", CARD)
    digest = file_digest("models/star1+benign/manifest.json")
    checkpoint = {"folder": "models/star1+benign", "manifest_sha256": digest}
    seal(model, {"kind": "model", "name": "star1+benign", "stand_in": [], "checkpoint": checkpoint}, ["README.md"])
    return tmp_path


def push(*names: str, owner: str = "us", **changes: bool) -> list[str]:
    said: list[str] = []
    flags = {"yes": False, "public": False, "update": False, "stand_in_too": False, **changes}
    uploads.push(uploads.find(names, owner), say=said.append, **flags)
    return said


def mark(project: Path) -> None:
    folder = project / "release/datasets/star-1"
    seal(folder, {"kind": "dataset", "name": "star-1", "stand_in": ["the stand-in was teacher of 3 of 3 rows"]}, [])


def test_without_yes_nothing_is_sent(project: Path, served: Hub) -> None:
    said = push()
    assert served.requests == []
    assert said[0].startswith("dataset us/star-1 (private): 3 files, ")
    assert any(line.startswith("model us/star1-benign (private): 5 files, ") for line in said)
    digest = file_digest(project / "models/star1+benign/model.safetensors")
    assert f"  model.safetensors  7 bytes  SHA-256 {digest}" in said
    assert said[-1] == "dry run: 2 repositories would be created or written to; --yes uploads"


def test_uploaded_is_what_was_released(project: Path, served: Hub) -> None:
    said = push(yes=True)
    assert said[-2] == f"dataset us/star-1: {served.url}/datasets/us/star-1/commit/abc"
    data, model = served.repositories["dataset us/star-1"], served.repositories["model us/star1-benign"]
    folder = project / "release/datasets/star-1"
    assert data == {name: (folder / name).read_bytes() for name in data}
    assert set(data) == {"README.md", "release.json", "data/train-00000-of-00001.parquet"}
    assert model["model.safetensors"] == b"weights"
    assert set(model) == {"README.md", "release.json", "manifest.json", "config.json", "model.safetensors"}
    assert set(served.visibility.values()) == {"private"}
    assert served.cards == [CARD, CARD]
    assert sum(path.endswith("/commit/main") for _, path in served.requests) == 2


def test_public_only_when_said(project: Path, served: Hub) -> None:
    push("star-1", yes=True, public=True)
    assert served.visibility == {"dataset us/star-1": "public"}


def test_repository_that_is_there_is_not_written_to_unasked(project: Path, served: Hub) -> None:
    push("star-1", yes=True)
    served.repositories["dataset us/star-1"]["README.md"] = b"theirs"
    with pytest.raises(InputError, match=r"it is there already \(409\); expected a new name. Hint: --update adds"):
        push("star-1", yes=True)
    assert served.repositories["dataset us/star-1"]["README.md"] == b"theirs"
    push("star-1", yes=True, update=True)
    assert served.repositories["dataset us/star-1"]["README.md"] == CARD.encode()


def test_made_by_the_stand_in_is_refused_unless_said_in_words(project: Path, served: Hub) -> None:
    mark(project)
    assert "--yes would refuse us/star-1: made by the stand-in (--stand-in-too)" in push("star-1")
    with pytest.raises(SettingError, match="no language model made this"):
        push(yes=True)
    assert served.requests == []
    push("star-1", yes=True, stand_in_too=True)
    assert "release.json" in served.repositories["dataset us/star-1"]


def test_token_is_needed_and_comes_from_the_environment_alone(
    project: Path, served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(project / "token"))
    (project / "token").write_text(TOKEN)
    with pytest.raises(SettingError, match=r"HF_TOKEN: not set; expected a token of the hub that may write"):
        push("star-1", yes=True)
    assert served.requests == []


@pytest.mark.parametrize(
    ("status", "part", "message"),
    [
        (401, "/repos/create", r"does not accept HF_TOKEN \(401\); expected a valid token"),
        (403, "/repos/create", r"refuses to let HF_TOKEN write \(403\).* Hint: is us yours"),
        (403, "/commit/", r"refuses to let HF_TOKEN write \(403\)"),
        (400, "/validate-yaml", r"status 400|not uploaded"),
        (422, "/preupload/", r"status 422"),
    ],
)
def test_refusals_are_told_without_the_token(project: Path, served: Hub, status: int, part: str, message: str) -> None:
    served.fault = (status, part)
    with pytest.raises(Star1Error, match=message) as caught:
        push("star-1", yes=True)
    assert TOKEN not in str(caught.value)
    assert str(caught.value).startswith("dataset us/star-1: ")


def test_no_hub_is_told(project: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"not uploaded \(ConnectError.*Hint: HF_ENDPOINT names the hub"):
        push("star-1", yes=True)


@pytest.mark.parametrize("name", ["release/datasets/star-1/README.md", "models/star1+benign/model.safetensors"])
def test_a_file_that_changed_since_it_was_released_is_refused(project: Path, served: Hub, name: str) -> None:
    path = project / name
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(InputError, match="as recorded"):
        push()


def test_a_model_trained_anew_needs_a_new_release(project: Path, served: Hub) -> None:
    write_text(project / "staging/model.safetensors", "other weights")
    checkpoints.publish(project / "staging", "models/star1+benign", "sft", {})
    with pytest.raises(InputError, match="release the model again"):
        push("star1+benign")


def test_two_runs_that_come_to_one_name_are_told(project: Path, served: Hub) -> None:
    folder = project / "release/datasets"
    for name in ("a+b", "a-b"):
        write_text(folder / name / "README.md", CARD)
        seal(folder / name, {"kind": "dataset", "name": name, "stand_in": []}, ["README.md"])
    with pytest.raises(InputError, match="us/a-b: two releases of this name"):
        push()


@pytest.mark.parametrize("owner", ["", "a/b", "-x", "x y"])
def test_owner_is_a_name(project: Path, owner: str) -> None:
    with pytest.raises(SettingError, match="--to"):
        push(owner=owner)


def test_unknown_release_and_none_at_all(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"star-2: no such release; expected one of star-1, star1\+benign"):
        push("star-2")
    with pytest.raises(InputError, match="no release; expected the releases of a finished run"):
        uploads.find([], "us", tmp_path / "nowhere")


def test_command_line_is_dry_by_default(project: Path) -> None:
    (project / "Snakefile").touch()
    command = [sys.executable, "-m", "star1.cli", "push", "star-1", "--to", "us"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dry run: 1 repositories" in done.stdout
