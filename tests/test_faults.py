"""Wrong input to the real workflow: one clear line, an exit status that says so, nothing half-written under its final name."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.projects import copy_parts


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project without artifacts, git or DVC."""
    return copy_parts(tmp_path)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def snakemake(project: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(["snakemake", *options], cwd=project, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def error_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ") or ": unknown key" in line]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "  size: 160",
            "  sice: 160",
            "curate.sice: unknown key; expected one of selections, size, stability. Hint: did you mean size?",
        ),
        ("  size: 160", "  size: lots", "curate.size: 'lots' (str); expected a valid integer."),
        (
            "benchmarks: {strongreject: drop, jbb: drop, jbb_benign: drop,",
            "benchmarks: {harmbench: drop, jbb: drop, jbb_benign: drop,",
            "'harmbench', which nothing is called",
        ),
        ("path: bundled/sources/school.txt", "path: bundled/sources/scool.txt", "fetch.sources.school.path: no file"),
        ("  mirror: null", "  mirror: null\n  mirrors: 1", "fetch.mirrors: unknown key"),
    ],
)
def test_wrong_params_stop_before_the_first_job(project: Path, old: str, new: str, told: str) -> None:
    edit(project / "params.yaml", old, new)
    status, text = snakemake(project)
    assert status != 0
    assert told in text
    assert "Traceback" not in text
    assert not (project / "data").exists()


def test_missing_mirror_file_is_named(project: Path) -> None:
    (project / "box").mkdir()
    edit(project / "params.yaml", "  mirror: null", "  mirror: box")
    edit(project / "params.yaml", "{kind: bundled, path: bundled/sources/school.txt", "{kind: mirror, path: school.txt")
    status, text = snakemake(project)
    assert status != 0
    assert "fetch.sources.school.path: no file box/school.txt; expected the mirror file." in text


def one_job(project: Path, target: str) -> str:
    """Run one job that must fail; gives its error line."""
    status, text = snakemake(project, "--", target)
    assert status != 0
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    assert not (project / target).exists()
    assert not list((project / target).parent.glob(".*.part"))
    return lines[0]


def test_checksum_mismatch(project: Path) -> None:
    edit(project / "params.yaml", "school.txt, format: txt,", f"school.txt, format: txt, sha256: {'a' * 64},")
    assert f"expected sha256 {'a' * 64}" in one_job(project, "data/sources/school.jsonl")


def test_malformed_row(project: Path) -> None:
    with (project / "bundled/sources/online.jsonl").open("a") as file:
        file.write('{"text": "cut off')
    line = one_job(project, "data/sources/online.jsonl")
    assert "online.jsonl:101" in line
    assert "not JSON" in line


def test_empty_source(project: Path) -> None:
    (project / "bundled/sources/school.txt").write_text("\n \n")
    assert "school" in one_job(project, "data/sources/school.jsonl")


def test_missing_key_variable(project: Path) -> None:
    stand_in = "stand-in: {provider: stand-in, model: rules, label: stand-in (no language model), slots: 16}"
    hosted = 'stand-in: {provider: openai, model: m, label: hosted, base_url: "http://127.0.0.1:9/v1", key: STAR1_NO_SUCH_KEY}'
    edit(project / "params.yaml", stand_in, hosted)
    (project / "data").mkdir()
    row = {"id": "0", "question": "q", "source": "s"}
    (project / "data/collection.jsonl").write_text(json.dumps(row) + "\n")
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "scripts.categorize",
                "--input",
                "data/collection.jsonl",
                "--output",
                "data/out.jsonl",
            ),
            *("--quarantine", "data/q.jsonl", "--replies", "data/replies/c.jsonl", "--policy", "policies/star1"),
            *(
                "--coverage",
                "0.9",
                "--endpoint",
                json.dumps({"provider": "openai", "model": "m", "label": "h", "key": "STAR1_NO_SUCH_KEY"}),
            ),
        ],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "STAR1_NO_SUCH_KEY is not set" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (project / "data/out.jsonl").exists()


def test_read_only_output_folder() -> None:
    """As a user without rights to the folder; root has them always, so that power is taken away for the test."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    flags = ["--output", str(folder / "data.jsonl"), "--counts", str(folder / "counts.json"), "--source", "school"]
    entry = {
        "kind": "bundled",
        "path": "bundled/sources/school.txt",
        "format": "txt",
        "ngram": 8,
        "licence": "x",
        "attribution": "x",
    }
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if powerless and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere, and setpriv is not here to take that power away")
    done = subprocess.run(
        [*powerless, sys.executable, "-m", "scripts.fetch_source", *flags, "--entry", json.dumps(entry)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    files = list(folder.iterdir())
    folder.chmod(0o700)
    shutil.rmtree(folder)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr
    assert str(folder) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert files == []
