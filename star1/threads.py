"""How many CPU threads a stage may use."""

import contextlib
import os
import time
from collections.abc import Callable


def use(count: int) -> Callable[[], str]:
    """Limit this process to `count` threads; to be called before torch is imported, which reads some of it only then.

    One thread is often the fastest for a tiny model: threads that wait for each other on a busy machine cost more than
    they bring.

    Returns:
        A clock: what it gives tells the time since this call [s], by the wall and of the CPU.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    os.environ["OMP_NUM_THREADS"] = str(count)
    # Forked and threaded tokenisation gives warnings and nothing else at the sizes of this project.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with contextlib.suppress(ImportError):  # an engine behind a server needs no torch
        import torch

        torch.set_num_threads(count)
    return lambda: f"{time.perf_counter() - wall:,.0f} s ({time.process_time() - cpu:,.0f} CPU-s)"
