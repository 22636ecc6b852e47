"""Stages that are killed, told to stop, or run out of disk: nothing that was kept is lost, and nothing is paid for twice."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import stages
from star1.records import read_rows, write_rows
from tests.faultserver import Running, running

SLOTS = 64


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    flags = ("--size", "3000", "--wait", "0.01", "0.08")
    with running(tmp_path_factory.mktemp("server") / "asked.log", *flags) as found:
        yield found


def test_a_stage_that_is_killed_goes_on_where_it_was(endpoint: Running, tmp_path: Path) -> None:
    """Three times at moments of no plan: what was kept stays and is not asked for again, and the output is the same."""
    rows, moments = stages.rows(1500, "kill"), stages.moments(4, 3, 1500)
    found = stages.interrupt("reason", rows, "kill", endpoint, tmp_path, SLOTS, moments)
    assert (found.lost, found.repeated, found.same) == (0, 0, True)
    assert len(found.in_flight) == 4
    assert max(found.in_flight) <= SLOTS
    assert found.in_flight[-1] == 0
    assert found.requests == 1500 + sum(found.in_flight)


def test_a_stage_that_is_told_to_stop_loses_no_reply_on_its_way(endpoint: Running, tmp_path: Path) -> None:
    """Twice, with 64 on their way: every request has its reply in the store."""
    rows = stages.rows(600, "stop")
    found = stages.interrupt("reason", rows, "stop", endpoint, tmp_path, SLOTS, [150, 200], signal.SIGTERM)
    assert (found.lost, found.repeated, found.same) == (0, 0, True)
    assert found.in_flight == [0, 0, 0]
    assert found.requests == 600


def _stops_and_goes_on(mark: str, served: Running, folder: Path, process: subprocess.Popen[str]) -> str:
    """What is told by a stage whose disk is full; sees that it sends no further request, and goes on from there."""
    before = 0
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in told
    asked = Counter(item for _, item, _, _ in served.lines() if item.startswith(f"{mark}-"))
    kept = stages.stored(folder, "reason", mark)
    assert len(kept) > 20
    assert len(asked) <= len(kept) + SLOTS
    assert not (folder / "cot.jsonl").exists()
    before = len(served.lines())
    stages.finish(stages.start("reason", folder, stages.endpoint(served.url, SLOTS)))
    assert not {item for _, item, _, _ in served.lines(before)} & kept
    assert len(read_rows(folder / "cot.jsonl")) == 600
    return told


def test_a_stage_whose_file_cannot_grow_sends_no_further_request(endpoint: Running, tmp_path: Path) -> None:
    """The record that did not fit is taken back whole, so that the store can be read and appended to."""
    write_rows(tmp_path / "categorized.jsonl", stages.rows(600, "limit"))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    process = stages.start("reason", tmp_path, stages.endpoint(endpoint.url, SLOTS), preexec_fn=limited)
    told = _stops_and_goes_on("limit", endpoint, tmp_path, process)
    assert "File too large" in told
    assert "replies/reason.jsonl" in told


def test_a_stage_whose_disk_is_full_sends_no_further_request(endpoint: Running, tmp_path: Path) -> None:
    """On a file system of its own, with half a megabyte."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root's rights")
    try:
        outside, inside = tmp_path / "outside", folder / "replies"
        outside.mkdir()
        inside.mkdir()
        (outside / "replies").symlink_to(inside)
        write_rows(outside / "categorized.jsonl", stages.rows(600, "full"))
        process = stages.start("reason", outside, stages.endpoint(endpoint.url, SLOTS))
        process.wait(timeout=60)
        # As a user would make room: elsewhere.
        shutil.copytree(inside, outside / "moved")
        (outside / "replies").unlink()
        os.rename(outside / "moved", outside / "replies")
        told = _stops_and_goes_on("full", endpoint, outside, process)
        assert "No space left on device" in told
    finally:
        subprocess.run(["umount", str(folder)], check=True)
