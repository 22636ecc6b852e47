"""Freed memory that a process keeps."""

import os
import platform
import subprocess
import sys

import pytest

# What a process still holds [MB] of 20 blocks of 8 MB that it has freed.
HELD = """
import resource, torch
from star1 import heap
{keep}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6
before = resident()
blocks = [torch.ones(2 * 10**6) for _ in range(20)]
del blocks
print(resident() - before)
"""


def held(keep: str, **environment: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", HELD.format(keep=keep)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_kept() -> None:
    kept, given_back = held("assert heap.keep()"), held("")
    assert kept > 150
    assert given_back < 50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_the_environment_says_goes_first() -> None:
    """A lower threshold that was set for a run, as in docs/training.md, was overruled without a word."""
    assert held("assert not heap.keep()", MALLOC_MMAP_THRESHOLD_="131072") < 50
