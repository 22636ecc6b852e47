"""Loops that numba compiles to machine code, and how many threads run them."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Beside the downloads, and not among the sources: an image may hold those read-only.
os.environ.setdefault("NUMBA_CACHE_DIR", ".cache/numba")

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers at its first call, and keep the result on disk for the next process.

    Floats are not reordered. Such functions run without the interpreter's lock, so threads share the cores. A kernel may
    call others of its own file only: the kept result of a kernel is not renewed when another file changes.
    """
    decorated: Function = numba.njit(cache=True, nogil=True)(function)
    return decorated


def cores() -> int:
    """How many threads are worth starting: the cores that this process may use, or fewer by OMP_NUM_THREADS."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(wanted)) if wanted.isdigit() and int(wanted) else allowed


def in_threads(work: Callable[[int, int, int], None], low: int, high: int, threads: int) -> None:
    """Call `work(thread, from, to)` for `threads` even parts of the rows `low` to `high`, at the same time."""
    bounds = [low + (high - low) * thread // threads for thread in range(threads + 1)]
    if threads == 1:
        work(0, low, high)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, thread, bounds[thread], bounds[thread + 1]) for thread in range(threads)]:
            done.result()
