"""Several machines: the loss curve of one process, an end of all where one ends, and who they are told to be."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from star1 import boards, launching, nodes
from star1.errors import Star1Error
from star1.records import read_json, write_rows
from tests import spread
from tests.conftest import ROOT
from tests.micro import ROWS, checkpoint
from tests.test_sharding import ENVIRONMENT, LIMIT_S, after, flags

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and rows."""
    folder = tmp_path_factory.mktemp("place")
    checkpoint(folder / "micro")
    write_rows(folder / "rows.jsonl", ROWS)
    return folder


@pytest.fixture(scope="module")
def alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The history of the same run in one process."""
    made = spread.tune(place, tmp_path_factory.mktemp("alone"), "none", processes=1)
    history: list[dict[str, Any]] = made["history"]
    return history


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


Launcher = subprocess.Popen[str]


def launchers(stack: ExitStack, place: Path, folder: Path, **changes: Any) -> list[Launcher]:
    """Two launchers on this machine that take themselves for two machines."""
    environment = {**ENVIRONMENT, "NNODES": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    command = [sys.executable, "-m", "scripts.finetune", *flags(place, **{"nodes": 2, "processes": 1, **changes})]
    return [
        stack.enter_context(
            subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, "NODE_RANK": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        for number in (0, 1)
    ]


def ended(running: list[Launcher]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each."""
    said = [one.communicate(timeout=LIMIT_S) for one in running]
    return [(one.returncode, *words) for one, words in zip(running, said, strict=True)]


def curve(folder: Path, alone: list[dict[str, Any]]) -> None:
    """See that a run gave the curve of one process."""
    found = read_json(folder / "metrics/run.json")["history"]
    assert len(found) == len(alone) == 12
    for key in ("loss", "norm"):
        assert [one[key] for one in found] == pytest.approx([one[key] for one in alone], rel=1e-5)


@pytest.mark.slow
def test_two_machines_are_stopped_by_one_signal_and_go_on_to_the_curve_of_one_process(
    place: Path, alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Two processes on each of two machines, FSDP2; SIGTERM comes to one machine alone."""
    with ExitStack() as stack:
        running = launchers(stack, place, tmp_path, processes=2, sharding="fsdp", checkpoint_minutes=0)
        after(tmp_path, 0, running[0])
    assert running
