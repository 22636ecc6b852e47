"""Several processes for one job: started by torchrun from the job's own command, watched, and ended together.

Over several machines there is such a launcher on each (star1/nodes.py), and they watch each other (star1/boards.py).
An outside launcher of all processes (torchrun, srun) sets WORLD_SIZE and the like itself; then none is started here.
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

from star1 import errors, nodes
from star1.nodes import LaunchError, Node

LAUNCHER = "STAR1_LAUNCHER"  # process number of what started a process
DEATH = 1  # prctl: PR_SET_PDEATHSIG
HERE = "127.0.0.1"
# How long a process that lost another one waits before it ends, so that the launcher names the one that was first [s].
AFTER_S = 2.0
# Statuses of processes that a signal stopped in order; they have told it, and what they did.
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT)


def inside() -> bool:
    """Whether this process is one that a launcher started."""
    return "WORLD_SIZE" in os.environ


def needed(processes: int, sharding: str, machines: int = 1) -> bool:
    """Whether a job must start processes: weights are only spread among such, even if there is one."""
    return not inside() and (processes * machines > 1 or sharding != "none")


def threads_each(threads: int, processes: int) -> int:
    """CPU threads of each process of this machine, when the job has `threads`."""
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", processes)))


def command(processes: int, module: str, arguments: Sequence[str], node: Node | None = None) -> list[str]:
    """The command that runs `module` in so many processes on this machine, `node` of several."""
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    if node is None:
        launcher += ["--standalone", "--nproc-per-node", str(processes), "--local-addr", HERE]
    else:
        launcher += ["--nnodes", str(node.count), "--node-rank", str(node.number), "--nproc-per-node", str(processes)]
        launcher += ["--master-addr", node.address, "--master-port", str(node.port)]
    # SIGTERM and Ctrl-C are passed on by us: torchrun would give a process 30 s to save its state, however large.
    launcher += ["--signals-to-handle", "SIGHUP,SIGQUIT"]
    # Behind `--`, or the launcher would take our flags for its own.
    return [*launcher, "-m", "--", module, *arguments]


def launch(stage: str, processes: int, module: str, arguments: Sequence[str], machines: int = 1) -> None:
    """Run `module` in so many processes on each of so many machines; what one of them cannot do ends all.

    Raises:
        LaunchError: a process did not finish; what it told stands on stderr already.
        SettingError: the machines are not there.
    """
    os.environ |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    node = nodes.here(machines) if machines > 1 else None
    if machines > 1 and node is None:
        return _by_slurm(stage, machines, [sys.executable, "-m", module, *arguments])
    os.environ[LAUNCHER] = str(os.getpid())
    with _passed_on() as heard:
        status, found = _run(stage, processes, module, arguments, node)
    if heard:
        sys.exit(128 + heard[0])
    if status in STOPPED:
        sys.exit(status)
    if found is not None:
        raise found


def _run(
    stage: str, processes: int, module: str, arguments: Sequence[str], node: Node | None
) -> tuple[int, LaunchError | None]:
    """Run the processes of this machine; gives the status of the first that failed, and the error that tells it."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from star1.boards import Board

    parse_args, run_agent = cast(Any, torchrun.parse_args), cast(Any, torchrun.run)
    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if node is None and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    board = Board(stage, node, _kill_children) if node else None
    status, error = 0, None
    try:
        run_agent(parse_args(command(processes, module, arguments, node)[3:]))
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        status = int(failure.exitcode)
        error = _failed(stage, processes * (node.count if node else 1), rank, status, node)
    if board and node:
        if error and status not in STOPPED:
            board.failed(error.found)
        board.leave()
        if board.trouble and status not in STOPPED:
            return 1, LaunchError(f"{stage}: {node.name}", f"ended, since {board.trouble}", "all to finish")
    return status, error


def main() -> None:
    """`python -m star1.launching STAGE MACHINES COMMAND`: outside of containers, a command of the shell on each machine."""
    stage, machines, command = sys.argv[1:]
    # What runs inside knows nothing of Slurm, so it is told which machine it is on (nodes.here).
    _by_slurm(stage, int(machines), ["sh", "-c", f'export NODE_RANK="$SLURM_NODEID"; exec {command}'])


def _by_slurm(stage: str, machines: int, command: Sequence[str]) -> None:
    """Have srun start a command on each machine of the allocation."""
    with _passed_on(signal.SIGTERM) as heard:
        status = nodes.start(stage, machines, command)
    if heard:
        sys.exit(128 + heard[0])
    if status in STOPPED:
        sys.exit(status)
    if status:
        found, hint = f"ended with status {status} on one of {machines} machines", "the first error stands above"
        raise LaunchError(stage, found, "all to finish", hint)


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children():
        child.kill()


def _failed(stage: str, processes: int, rank: int, status: int, node: Node | None = None) -> LaunchError:
    which = f"process {rank + 1} of {processes}"
    where = f"{stage}: {node.name}" if node else stage
    if status < 0:
        found = f"{which} was killed by {signal.Signals(-status).name}"
        hint = "SIGKILL is what a system does that runs out of memory; start it again: it goes on from the last state"
        return LaunchError(where, found, "all to finish", hint)
    return LaunchError(where, f"{which} ended with status {status}", "all to finish", "what it told stands above")


@contextmanager
def _passed_on(always: int = 0) -> Iterator[list[int]]:
    """Give SIGTERM and Ctrl-C (or `always` in place of both) to what was started, which saves its state and ends."""
    import psutil

    heard: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        heard.append(number)
        children = psutil.Process().children()
        if not children:
            sys.exit(128 + number)
        for child in children:
            child.send_signal(always or number)

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


if __name__ == "__main__":
    errors.run(main)
