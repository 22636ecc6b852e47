"""What %test does in every image: exactly the locked packages are there, and the modules named can be imported.

python -I check.py LOCK MODULE...
"""

import importlib
import os
import re
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, cast

CACHES = (
    "XDG_CACHE_HOME",
    "HF_HOME",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "NUMBA_CACHE_DIR",
)


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Version by package of a lock file."""
    return {plain(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)}


def agrees(expected: str | None, found: str | None) -> bool:
    """Whether a version is the locked one; a build for one kind of machine (2.13.0+cpu) may stand where none is locked."""
    return found == expected or (expected is not None and found is not None and found.partition("+")[0] == expected)


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Each package whose version is not the locked one, a line each."""
    names = sorted(expected.keys() | found.keys())
    return [
        f"{name}: {found.get(name, 'not there')}; expected {expected.get(name, 'none, it is not in the lock')}"
        for name in names
        if not agrees(expected.get(name), found.get(name))
    ]


def failures(modules: list[str]) -> list[str]:
    """Each module that cannot be imported, a line each."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(dict.fromkeys(CACHES, scratch))  # what is imported must not write into the image
        sys.modules["openvino_telemetry"] = cast(Any, None)  # nor tell its makers of it
        for module in modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is told and fails the build)
                found.append(f"import {module}: {type(error).__name__}: {error}")
    return found


def main() -> None:
    """Compare and import; ends with all that is wrong."""
    lock, *modules = sys.argv[1:]
    expected = locked(Path(lock).read_text("utf-8"))
    found = {plain(one.metadata["Name"]): one.version for one in distributions()}
    if wrong := [*differences(expected, found), *failures(modules)]:
        sys.exit("\n".join(wrong))
    sys.stdout.write(f"{len(expected)} packages as locked; imported {', '.join(modules)}\n")


if __name__ == "__main__":
    main()
