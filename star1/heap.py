"""Memory that a process has freed, kept for what it asks for next."""

import contextlib
import ctypes
import os

# Of glibc's <malloc.h>.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 2**25  # above it a block is the system's own again: glibc moves its threshold no higher either [bytes]


def keep() -> bool:
    """Have glibc keep what is freed, in place of giving it back to the system; gives whether it does.

    A training step on a CPU frees some megabytes at the end of each operation and asks for as many at the next one. Given
    back in between, they come as fresh pages, and to fault these in takes longer than what is computed on them. The most
    memory that a process holds grew by up to a tenth (docs/training.md), since holes are kept, too. Where there is another
    C library, or the environment says how this one is to do it (MALLOC_MMAP_THRESHOLD_ and the like), nothing is changed.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    with contextlib.suppress(OSError, AttributeError):
        tune = ctypes.CDLL(None).mallopt
        return bool(tune(MMAP_THRESHOLD, LARGEST)) and bool(tune(TRIM_THRESHOLD, 2**31 - 1))
    return False
