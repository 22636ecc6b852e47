"""Freed memory that a process keeps."""

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


def held(keep: str) -> float:
    done = subprocess.run([sys.executable, "-c", HELD.format(keep=keep)], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_kept() -> None:
    kept, given_back = held("assert heap.keep()"), held("")
    assert kept > 150
    assert given_back < 50
