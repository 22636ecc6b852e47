"""Shared by all tests: where the project is, and reference material that only its developers have."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

# Code that is compiled at its first call would break any time limit on single examples.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# Commands started by tests find the environment that runs the tests.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# Servers of tests are on this machine, whatever proxy leads out of it.
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost")))


@pytest.fixture(scope="session", autouse=True)
def _no_states_of_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests do in the project's folder is nothing for whoever watches a run there."""
    from star1 import status

    status.FOLDER = tmp_path_factory.mktemp("status")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the project."""
    if not SHARED.is_dir():
        pytest.skip("no reference material (../shared) beside the project")
    return SHARED
