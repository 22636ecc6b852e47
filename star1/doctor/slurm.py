"""Slurm: its commands, its answer, and its partitions against what jobs ask for."""

import math
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from star1.doctor import commands
from star1.doctor.about import About
from star1.doctor.asked import Asked, asked
from star1.doctor.findings import Outcome, Seen, Unknown, finding

# Partition, whether it is open, longest time, nodes, memory and CPUs of a node, its GPUs, its state.
FORMAT = "%R|%a|%l|%D|%m|%c|%G|%T"
UP = ("idle", "mixed", "allocated", "completing", "planned", "reserved")
MINUTES = {"m": 1, "h": 60, "d": 1440, "w": 10080}


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike: longest time [minutes], number, memory [MiB], CPUs and GPUs of each."""

    partition: str
    open: bool
    minutes: float
    count: int
    mem_mb: int
    cpus: int
    gpus: int
    state: str

    @property
    def works(self) -> bool:
        """Whether jobs can come to run there."""
        return self.open and self.state.rstrip("*~#!%$@^-+") in UP and not self.state.endswith("*")


def check(about: About) -> Iterator[Outcome]:
    """Everything about Slurm, where the profile hands jobs to it; else whether it is in the way."""
    if not about.slurm:
        yield from _stale(about)
        return
    lacking = [name for name in ("sbatch", "squeue", "sinfo") if commands.which(name) is None]
    if lacking:
        what = f"no {', '.join(lacking)} on the PATH; {about.profiles[0]} hands jobs to Slurm"
        yield finding("slurm", "Slurm", what, "module load slurm || ssh LOGIN_NODE  # where jobs can be submitted")
        return
    told = commands.ask(["sinfo", "--noheader", f"--format={FORMAT}"])
    if told.status != 0:
        yield finding("slurm-down", "sinfo", told.last, "scontrol ping")
        return
    nodes = [found for line in told.out.splitlines() if (found := read_nodes(line))]
    yield Seen(
        "slurm", f"{sum(one.count for one in nodes)} nodes in {len({one.partition for one in nodes})} partitions"
    )
    yield from _accounting(about)
    yield from _partitions(about, nodes)
    reason = "`srun -p PARTITION star1 doctor --profile profiles/default` looks at a node"
    yield Unknown(
        "apptainer-fails", f"what compute nodes have (apptainer, network, this folder) is not seen from here; {reason}"
    )
    yield Unknown(
        "gpu-memory",
        "sinfo tells no memory of GPUs; `star1 train fit RUN --gpus N --memory-gib G` computes what is needed",
    )


def read_nodes(line: str) -> Nodes | None:
    """A line of sinfo."""
    fields = line.strip().split("|")
    if len(fields) != 8:
        return None
    name, state, limit, count, memory, cpus, gres, mode = fields
    # Types may begin with a digit (gpu:3090:4, gpu:1g.10gb:7); a number alone is the count.
    found = re.findall(r"(?:^|,)gpu(?::[\w.-]+?)??(?::(\d+))?(?=[(,]|$)", gres)
    gpus = sum(int(number or 1) for number in found)
    return Nodes(name, state == "up", minutes(limit), _int(count), _int(memory), _int(cpus), gpus, mode)


def _int(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0


def minutes(text: Any) -> float:
    """A time of Slurm (`2-00:00:00`, `30:00`, `infinite`) or of the executor's partition file (`2d`, `90`) [minutes]."""
    text = str(text).strip()
    if units := re.findall(r"(\d+(?:\.\d+)?)([mhdw])", text):
        return sum(float(number) * MINUTES[unit] for number, unit in units)
    if found := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text):
        days, first, second, third = (int(one or 0) for one in found.groups())
        if found[1] or found[4]:  # d-hh[:mm[:ss]], hh:mm:ss
            return days * 1440 + first * 60 + second + third / 60
        return first + second / 60
    return math.inf


def _partitions(about: About, nodes: list[Nodes]) -> Iterator[Outcome]:
    """Each partition that is named, and each rule's wishes in its own."""
    file = about.settings.get("slurm-partition-config")
    if file and not Path(str(file)).is_file():
        yield finding("slurm-partition", file, "no such file; the profile names it", f"git checkout {file}")
    there = {one.partition for one in nodes}
    limits = configured(about)
    wishes = asked(about)
    named = dict.fromkeys([*limits, *(one.partition for one in wishes if one.partition)])
    for name in named:
        if name not in there:
            what = f"no such partition; there are {', '.join(sorted(there)) or 'none'}"
            place = file if name in limits else f"{about.profiles[0]}/config.yaml"
            yield finding("slurm-partition", name, what, f"sinfo --summarize; sed -i 's/\\b{name}\\b/NAME/' {place}")
        else:
            yield from _working(name, [one for one in nodes if one.partition == name])
    faults = [fault for wish in wishes if (fault := _wish(wish, nodes, limits))]
    yield from faults
    if not faults:
        yield Seen("slurm-memory", f"what {len(wishes)} rules ask for can be had")


def configured(about: About) -> dict[str, dict[str, Any]]:
    """Partitions of the executor's own file, which says what each allows."""
    path = Path(str(about.settings.get("slurm-partition-config") or ""))
    if not path.is_file():
        return {}
    found = yaml.safe_load(path.read_text("utf-8"))
    table = found.get("partitions") if isinstance(found, dict) else None
    return {str(name): one or {} for name, one in table.items()} if isinstance(table, dict) else {}


def _working(name: str, nodes: list[Nodes]) -> Iterator[Outcome]:
    total, up = sum(one.count for one in nodes), sum(one.count for one in nodes if one.works)
    if up == 0:
        states = ", ".join(sorted({one.state for one in nodes})) if all(one.open for one in nodes) else "closed"
        yield finding(
            "slurm-nodes", name, f"none of {total} nodes is up ({states})", f"sinfo --partition={name} --list-reasons"
        )
    elif up * 2 < total:
        yield finding(
            "slurm-nodes", name, f"{up} of {total} nodes are up", f"sinfo --partition={name} --list-reasons", "warning"
        )
    else:
        yield Seen("slurm-partition", f"partition {name}: {up} of {total} nodes are up")


def _wish(wish: Asked, nodes: list[Nodes], limits: dict[str, dict[str, Any]]) -> Outcome | None:
    """What of a rule's wishes cannot be had anywhere that it may go."""
    allowed = [wish.partition] if wish.partition else list(limits)
    mine = [one for one in nodes if not allowed or one.partition in allowed]
    if not mine:  # told already
        return None
    where = f"rule {wish.rule} in {', '.join(allowed) or 'any partition'}"
    if not (able := [one for one in mine if one.gpus >= wish.gpu]):
        most = max(one.gpus for one in mine)
        fix = f"star1 preset --set finetune.settings.processes={max(1, most)}"
        return finding("slurm-gpus", where, f"asks for {wish.gpu} GPUs on a node; the most are {most}", fix)
    again = f"snakemake --workflow-profile profiles/slurm --set-resources {wish.rule}"
    if not (roomy := [one for one in able if one.mem_mb >= wish.mem_mb and one.cpus >= wish.threads]):
        memory, cpus = max(one.mem_mb for one in able), max(one.cpus for one in able)
        what = f"asks for {wish.mem_mb:,} MB and {wish.threads} CPUs; nodes have {memory:,} MB and {cpus} CPUs"
        return finding("slurm-memory", where, what, f"{again}:mem_mb={memory} --set-threads {wish.rule}={cpus}")
    if not any(one.minutes >= wish.runtime for one in roomy):
        longest = max(one.minutes for one in roomy)
        what = f"asks for {wish.runtime:,} minutes; the longest are {longest:,.0f}"
        return finding("slurm-time", where, what, f"{again}:runtime={longest:.0f}")
    return None


def _accounting(about: About) -> Iterator[Outcome]:
    """Where job states come from sacct, it has to keep accounts."""
    if str(about.settings.get("slurm-status-command", "sacct")) != "sacct":
        return
    told = commands.ask(["sacct", "--noheader", "--allocations", "--starttime=now-1minutes"])
    if told.status == 0:
        yield Seen("slurm-accounting", "sacct answers")
    else:
        fix = f"echo 'slurm-status-command: squeue' >> {about.profiles[0]}/config.yaml"
        yield finding("slurm-accounting", "sacct", told.last, fix)


def _stale(about: About) -> Iterator[Outcome]:
    """The executor's plugin asks Slurm whenever Snakemake starts, wanted or not."""
    import importlib.util

    path = Path(about.environment.get("SLURM_CONF") or "/etc/slurm/slurm.conf")
    if not path.is_file() or importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return
    text = path.read_text("utf-8", "replace")
    host = re.search(
        r"^\s*(?:SlurmctldHost|ControlMachine)\s*=\s*([^\s(#,]+)(?:\(([^)]+)\))?", text, re.MULTILINE | re.IGNORECASE
    )
    port = re.search(r"^\s*SlurmctldPort\s*=\s*(\d+)", text, re.MULTILINE | re.IGNORECASE)
    if host is None:
        return
    address = (host[2] or host[1], int(port[1]) if port else 6817)
    try:
        socket.create_connection(address, 3.0).close()
    except OSError as error:
        told = f"{address[0]}:{address[1]}: {error.strerror or error}"
        fix = f"sudo mv {path} {path}.off  # or start slurmctld"
        yield finding("slurm-stale", path, told, fix if os.access(path.parent, os.W_OK) else "scontrol ping")
    else:
        yield Seen("slurm-stale", "Slurm's controller answers")
