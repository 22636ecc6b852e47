"""A disk that fills up under a job of several processes: a line each, no half state taken for a whole one, and on with room."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1.resuming import TrainingError, room_told
from tests.conftest import ROOT
from tests.micro import base_and_rows

torch = pytest.importorskip("torch")
SIZE = 6 * 2**20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and rows."""
    return base_and_rows(tmp_path_factory.mktemp("place"))


def on_a_small_disk(place: Path, folder: Path, way: str) -> dict[str, Any]:
    """Run `tests.fulldisk` in a folder that is a disk of its own."""
    if not shutil.which("bwrap"):
        pytest.skip("no bubblewrap, for a small disk")
    disk = ["bwrap", "--dev-bind", "/", "/", "--size", str(SIZE), "--tmpfs", str(folder), "--chdir", str(folder)]
    if subprocess.run([*disk, "true"], capture_output=True, check=False).returncode:
        pytest.skip("bubblewrap cannot make a disk here")
    command = [*disk, sys.executable, "-m", "tests.fulldisk", "both", str(place), way]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", ["none", "zero3"])
def test_processes_that_find_the_disk_full_end_with_a_line_each(place: Path, tmp_path: Path, way: str) -> None:
    """Where weights are whole, one writes them, and each its own random state; DeepSpeed's writer told it by a traceback."""
    found = on_a_small_disk(place, tmp_path, way)
    full, again = found["full"], found["again"]
    assert "Traceback" not in full["told"]
    *lines, last = full["told"].strip().splitlines()
    assert full["status"] == 1
    assert len(lines) == 2
    assert last.endswith("of 2 ended with status 1; expected all to finish. Hint: what it told stands above")
    told = [line for line in lines if "disk full (0.0 MB free)" in line]
    assert told
    assert len(told) == 2 or any("lost another one" in line for line in lines)
    for line in told:
        assert line.endswith("Hint: free space, then start again: it goes on from the state before")
    assert full["states"] == [".update-000003.part", "update-000002"]
    assert again["status"] == 0
    assert "update-000002: goes on after update 2\n" in again["told"]


def test_a_full_disk_is_known_by_what_torch_says_of_it(tmp_path: Path) -> None:
    """The system's error does not get through its writer in C++."""
    told = "[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"
    with (
        pytest.raises(TrainingError, match=r"disk full \(.* free\).* Hint: free space, then go on"),
        room_told(tmp_path, "go on"),
    ):
        raise RuntimeError(told)
    with pytest.raises(RuntimeError, match="shapes"), room_told(tmp_path, "go on"):
        raise RuntimeError("shapes do not match")
