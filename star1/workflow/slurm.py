"""Jobs of an earlier run that still are in Slurm's queue, since its Snakemake was killed: they must not be handed in twice."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

from star1.errors import SettingError, Star1Error

WAITING_OR_RUNNING = "PENDING,RUNNING,SUSPENDED,CONFIGURING,COMPLETING,REQUEUED,STOPPED"


def check_left_over(workflow: Any) -> None:
    """Before jobs are handed in: none of them is in the queue already.

    Raises:
        Star1Error: some are; they are told with the command that ends them.
    """
    if getattr(workflow.executor_plugin, "name", None) != "slurm":
        return
    dag = workflow.dag
    wanted = {_comment(job) for job in dag.jobs if job.output and dag.needrun(job) and not job.is_local}
    if found := left_over(_queued(), os.getcwd(), wanted):
        jobs = ", ".join(f"{number} ({comment})" for number, comment in found.items())
        hint = f"wait until they have ended, or `scancel {' '.join(found)}`, then start again"
        raise Star1Error("squeue", f"jobs of an earlier run are still there: {jobs}", "each job once", hint)


def check_machines(workflow: Any) -> None:
    """Before jobs start: those over several machines can get them.

    Raises:
        SettingError: there is neither a Slurm to hand them to, nor an allocation that this process runs in.
    """
    if getattr(workflow.executor_plugin, "name", None) == "slurm" or {"SLURM_JOB_ID", "NNODES"} & {*os.environ}:
        return
    dag = workflow.dag
    for job in dag.jobs:
        count = (job.output and dag.needrun(job) and job.resources.get("nodes")) or 1
        if count > 1:
            where, found = (
                f"{job.rule.name} {' '.join(job.wildcards)}",
                f"nodes: {count}, and there is no Slurm here to give them",
            )
            hint = '`snakemake --workflow-profile profiles/slurm`; docs/training.md, "Several machines", has other ways'
            raise SettingError(where, found, "a Slurm allocation", hint)


def _comment(job: Any) -> str:
    """What the executor writes into a job's comment."""
    wildcards = "_".join(job.wildcards).replace("/", "_") if job.wildcards else ""
    return f"rule_{job.rule.name}" + (f"_wildcards_{wildcards}" if wildcards else "")


def _queued() -> list[str]:
    """Lines `id|folder|comment` of one's own jobs; none where the queue cannot be asked, which handing in will tell."""
    if not shutil.which("squeue"):
        return []
    command = [
        "squeue",
        "--noheader",
        "--user",
        str(os.getuid()),
        "--states",
        WAITING_OR_RUNNING,
        "--format",
        "%i|%Z|%k",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()


def left_over(lines: Iterable[str], folder: str, wanted: set[str]) -> dict[str, str]:
    """Comments of the queued jobs of a folder that are wanted again, by id."""
    fields = (line.strip().split("|", 2) for line in lines)
    return {one[0]: one[2] for one in fields if len(one) == 3 and one[1] == folder and one[2] in wanted}
