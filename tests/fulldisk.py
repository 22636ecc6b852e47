"""Run by tests inside a small disk: two processes that find it full when they save their third state, then with room again."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import torch

from star1 import errors, launching, peers, resuming
from star1.records import Row
from star1.sharding import Whole
from tests import spread


def fill() -> None:
    """Leave nothing of the disk."""
    with open("filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            continue


class Filling(resuming.States):
    """A state after each update; the disk is full before anything of the third is written."""

    def due(self) -> bool:
        return True

    def save(self, model: Whole, history: list[Row]) -> None:
        write = model.write

        def late(folder: Path) -> None:
            if peers.main():
                fill()
            peers.wait()
            write(folder)

        if len(history) == 3:
            vars(model)["write"] = late
        super().save(model, history)


def job(place: Path, way: str) -> None:
    """One of two processes, as a script runs it."""
    torch.set_num_threads(1)
    spread.tune(place, Path(), way, resuming.States if Path("filled").exists() else Filling)


def started(*words: str) -> dict[str, Any]:
    """Run the job in two processes; gives its status, what it told, and the states that it left."""
    command = [sys.executable, "-m", "tests.fulldisk", "launch", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    names = sorted(path.name for path in Path("states").glob("*/*"))
    return {"status": done.returncode, "told": done.stderr, "states": names}


def main() -> None:
    """What the first word says; `launch` is the script that the rule would start."""
    what, *words = sys.argv[1:]
    if what == "launch":
        return launching.launch("test", 2, "tests.fulldisk", ["job", *words])
    if what == "job":
        return job(Path(words[0]), words[1])
    full = started(*words)
    Path("filler").rename("filled")
    os.truncate("filled", 0)
    again = started(*words)
    print(orjson.dumps({"full": full, "again": again}).decode())  # noqa: T201
    return None


if __name__ == "__main__":
    (launching.run if sys.argv[1] == "job" else errors.run)(main)
