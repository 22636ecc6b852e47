"""Several machines for one job: a launcher on each, and which of them this one is.

In a Slurm allocation srun starts the launchers (`start`). Elsewhere whoever starts them says which is which: NNODES,
NODE_RANK, MASTER_ADDR and MASTER_PORT in the environment, the names that torch and most sites have for this.
"""

import dataclasses
import errno
import os
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence

from star1.errors import SettingError, Star1Error

PORT = 29500  # torch's own, where none is told
PORTS = range(20000, 32000)  # from which srun's launchers take one; Linux hands out higher ones by itself
# What an inner srun is to know of the allocation: the rest describes the step that this process may be in.
KEPT = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME", "SLURM_CONF")
CONTAINERS = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")


class LaunchError(Star1Error):
    """A process of a job that did not finish."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One machine of a job.

    Attributes:
        number: of this machine, from 0.
        count: how many there are.
        address: of the first one.
        port: there.
    """

    number: int
    count: int
    address: str
    port: int

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"machine {self.number + 1} of {self.count} ({socket.gethostname()})"


def here(count: int, environment: Mapping[str, str] = os.environ) -> Node | None:
    """This machine, as whoever started this process on each of `count` machines says; None where nobody did.

    Raises:
        SettingError: what was said does not go together, or with `count`.
    """
    if "NNODES" not in environment or "MASTER_ADDR" not in environment:
        return None
    number = environment.get("NODE_RANK", environment.get("SLURM_NODEID", ""))
    port = environment.get("MASTER_PORT", str(PORT))
    if environment["NNODES"] != str(count):
        raise SettingError(
            "NNODES",
            environment["NNODES"],
            f"{count}, as finetune.settings.nodes (or the run's) says",
            "set both alike",
        )
    if not number.isdecimal() or int(number) >= count:
        raise SettingError(
            "NODE_RANK", number or "nothing", f"a number from 0 to {count - 1}, another one on each machine"
        )
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise SettingError("MASTER_PORT", repr(port), "a port that is free on the first machine")
    return Node(int(number), count, environment["MASTER_ADDR"], int(port))


# ---------------------------------------------------------------- in a Slurm allocation


def start(
    stage: str, count: int, command: Sequence[str], run: Callable[[list[str], dict[str, str]], int] | None = None
) -> int:
    """Run `command` once on each of `count` machines of this allocation; gives srun's exit status.

    Args:
        stage: whose name stands in messages.
        count: of machines.
        command: that makes a machine's launcher.
        run: what runs srun with an environment; by default as a child.

    Raises:
        SettingError: there is no allocation of so many machines, or no srun.
    """
    hosts = allocated(count)
    address = address_of(hosts[0])
    srun = ["srun", "--overlap", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
    # Where one machine's launcher fails, Slurm ends the others; where one is done early, it waits for the rest.
    srun += [f"--nodelist={','.join(hosts)}", "--kill-on-bad-exit=1", "--wait=0"]
    srun += ["--cpu-bind=none", "--input=none", f"--job-name={re.sub(r'[^a-zA-Z0-9.+-]+', '-', stage)}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SRUN_"))}
    environment |= {name: os.environ[name] for name in KEPT if name in os.environ}
    port = os.environ.get("MASTER_PORT") or str(free_port(address))
    environment |= {"NNODES": str(count), "MASTER_ADDR": address, "MASTER_PORT": port}
    environment.pop("NODE_RANK", None)
    return (run or _child)([*srun, *command], environment)


def allocated(count: int) -> list[str]:
    """The first `count` machines of the allocation that this process runs in.

    Raises:
        SettingError: there is none, it has fewer, or srun cannot be had here.
    """
    where, hint = "finetune.settings.nodes", 'docs/training.md, "Several machines", says how'
    job = os.environ.get("SLURM_JOB_ID")
    if inside := next((name for name in CONTAINERS if name in os.environ), None):
        found = f"{count}, and this process is in a container ({inside}), from where srun cannot be called"
        raise SettingError(where, found, "NNODES, NODE_RANK and MASTER_ADDR from a launcher outside", hint)
    if job is None or shutil.which("srun") is None:
        found = f"{count}, and " + ("no srun is on the PATH" if job else "this is no Slurm job")
        raise SettingError(
            where, found, "a Slurm allocation, or NNODES, NODE_RANK and MASTER_ADDR in the environment", hint
        )
    names = os.environ.get("SLURM_JOB_NODELIST") or _told("squeue", "-h", "-j", job, "-o", "%N")
    hosts = _told("scontrol", "show", "hostnames", names).split()
    if len(hosts) < count:
        found = f"{count}, and job {job} has {len(hosts)} ({names})"
        raise SettingError(where, found, "an allocation of as many machines (sbatch --nodes)")
    return hosts[:count]


def address_of(host: str) -> str:
    """Where Slurm itself reaches a machine."""
    found = re.search(r"\bNodeAddr=(\S+)", _told("scontrol", "show", "node", host, "--oneliner"))
    return found[1] if found else host


def free_port(address: str) -> int:
    """A port for the launchers; seen to be free where `address` is this machine's own."""
    for port in random.SystemRandom().sample(PORTS, 20):
        try:
            socket.create_server((address, port)).close()
        except OSError as error:
            if (
                isinstance(error, socket.gaierror) or error.errno != errno.EADDRINUSE
            ):  # not this machine's: nothing can be seen
                return port
        else:
            return port
    return PORT


def _told(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        told = str(getattr(error, "stderr", None) or error).strip()
        raise SettingError("Slurm", f"`{' '.join(command)}`: {told}", "an answer") from None
    return done.stdout.strip()


def _child(command: list[str], environment: dict[str, str]) -> int:
    # A session of its own: Ctrl-C reaches it through us alone, since two in a second would abort it.
    return subprocess.Popen(command, env=environment, start_new_session=True).wait()
