"""Several processes for one job: started by torchrun from the job's own command, watched, and ended together.

An outside launcher (torchrun over several nodes, srun) sets WORLD_SIZE and the like itself; then none is started here.
"""

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from star1 import errors
from star1.errors import Star1Error

LAUNCHER = "STAR1_LAUNCHER"  # process number of what started a process
DEATH = 1  # prctl: PR_SET_PDEATHSIG
HERE = "127.0.0.1"
# How long a process that lost another one waits before it ends, so that the launcher names the one that was first [s].
AFTER_S = 2.0


class LaunchError(Star1Error):
    """A process of a job that did not finish."""


def inside() -> bool:
    """Whether this process is one that a launcher started."""
    return "WORLD_SIZE" in os.environ


def needed(processes: int, sharding: str) -> bool:
    """Whether a job must start processes: weights are only spread among such, even if there is one."""
    return not inside() and (processes > 1 or sharding != "none")


def threads_each(threads: int, processes: int) -> int:
    """CPU threads of each process of this machine, when the job has `threads`."""
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", processes)))


def command(processes: int, module: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs `module` in so many processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    # SIGTERM and Ctrl-C are passed on by us: torchrun would give a process 30 s to save its state, however large.
    launcher += ["--local-addr", HERE, "--signals-to-handle", "SIGHUP,SIGQUIT"]
    # Behind `--`, or the launcher would take our flags for its own.
    return [*launcher, "-m", "--", module, *arguments]


def launch(stage: str, processes: int, module: str, arguments: Sequence[str]) -> None:
    """Run `module` in so many processes; what one of them cannot do ends all.

    Raises:
        LaunchError: a process did not finish; what it told stands on stderr already.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parse_args, run_agent = cast(Any, torchrun.parse_args), cast(Any, torchrun.run)
    os.environ |= {LAUNCHER: str(os.getpid()), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _passed_on() as heard:
        try:
            run_agent(parse_args(command(processes, module, arguments)[3:]))
        except ChildFailedError as error:
            if heard:
                sys.exit(128 + heard[0])
            raise _failed(stage, processes, *error.get_first_failure()) from None


def _failed(stage: str, processes: int, rank: int, failure: Any) -> LaunchError:
    status = int(failure.exitcode)
    which = f"process {rank + 1} of {processes}"
    if status < 0:
        found = f"{which} was killed by {signal.Signals(-status).name}"
        hint = "SIGKILL is what a system does that runs out of memory; start it again: it goes on from the last state"
        return LaunchError(stage, found, "all to finish", hint)
    return LaunchError(stage, f"{which} ended with status {status}", "all to finish", "what it told stands above")


@contextmanager
def _passed_on() -> Iterator[list[int]]:
    """Give SIGTERM and Ctrl-C to the processes that were started, which save their state and end."""
    import psutil

    heard: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        heard.append(number)
        children = psutil.Process().children()
        if not children:
            sys.exit(128 + number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- in a process that was started


def run(main: Callable[[], None]) -> None:
    """Run a script's `main` as `errors.run` does; one process of several ends at once when it is done.

    What it has to say and to write is out by then, and DeepSpeed's threads abort some runs while the interpreter ends.
    """
    if not inside():
        return errors.run(main)
    _follow_launcher()
    status: Any = 0
    try:
        errors.run(main)
    except SystemExit as ended:
        status = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    from star1 import peers  # by now torch is loaded

    if peers.LOST:
        time.sleep(AFTER_S)
    os._exit(status or 0)


def _follow_launcher() -> None:
    """Die with the process that started this one: what outlives it would train beside the next start."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(DEATH, signal.SIGKILL)
    if os.getppid() != int(launcher):  # it ended before the line above
        os._exit(128 + signal.SIGKILL)
