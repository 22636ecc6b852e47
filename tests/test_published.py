"""The released data sets are imported by DVC from where they lie, and any other file is refused."""

import functools
import shutil
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from star1.errors import InputError
from star1.published import import_published, names
from tests.conftest import ROOT
from tests.served import running


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A loopback server over a folder; gives both."""
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    with running(httpd):
        yield folder, f"http://127.0.0.1:{httpd.server_address[1]}"


@pytest.fixture
def project(tmp_path: Path, server: tuple[Path, str]) -> Path:
    """The project's import files, their addresses turned to the loopback server."""
    folder = tmp_path / "published"
    shutil.copytree(ROOT / "published", folder, ignore=shutil.ignore_patterns("*.json", "cache", "tmp"))
    for path in folder.glob("*.dvc"):
        entry = yaml.safe_load(path.read_text()) if path.is_file() else None
        if entry:
            path.write_text(path.read_text().replace(entry["deps"][0]["path"], f"{server[1]}/{path.stem}"))
    import subprocess

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return folder


def test_all_three_sets_are_there_and_star1_has_its_digest() -> None:
    assert names(ROOT / "published") == ["STAR-1", "STAR-41K", "STAR-benign-915"]
    entry = yaml.safe_load((ROOT / "published" / "STAR-1.json.dvc").read_text())
    assert entry["outs"][0]["md5"] == "057183fd47969ff3bf090015f60cd31c"


def test_released_star1_is_imported_and_matches(project: Path, server: tuple[Path, str], shared: Path) -> None:
    before = (project / "STAR-1.json.dvc").read_text()
    shutil.copy(shared / "reference" / "star1" / "STAR-1.json", server[0])
    assert "as recorded" in import_published(["STAR-1"], project)[0]
    assert (project / "STAR-1.json").read_bytes() == (server[0] / "STAR-1.json").read_bytes()
    assert (project / "STAR-1.json.dvc").read_text() == before


def test_another_file_is_refused_and_nothing_changes(project: Path, server: tuple[Path, str]) -> None:
    before = (project / "STAR-1.json.dvc").read_text()
    (server[0] / "STAR-1.json").write_text("[]")
    with pytest.raises(InputError, match=r"MD5 .* expected 057183fd47969ff3bf090015f60cd31c"):
        import_published(["STAR-1"], project)
    assert not (project / "STAR-1.json").exists()
    assert (project / "STAR-1.json.dvc").read_text() == before


def test_first_import_records_the_digest_and_the_next_one_holds_to_it(project: Path, server: tuple[Path, str]) -> None:
    (server[0] / "STAR-41K.json").write_text('[{"id": "1"}]')
    assert "recorded now" in import_published(["STAR-41K"], project)[0]
    (server[0] / "STAR-41K.json").write_text('[{"id": "22"}]')
    with pytest.raises(InputError, match="as recorded in"):
        import_published(["STAR-41K"], project)


def test_unknown_name_and_unreachable_address(project: Path) -> None:
    with pytest.raises(InputError, match="one of STAR-1, STAR-41K, STAR-benign-915"):
        import_published(["STAR-2"], project)
    with pytest.raises(InputError, match="cannot be fetched"):
        import_published(["STAR-1"], project)
