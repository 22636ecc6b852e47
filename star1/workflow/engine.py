"""What the Snakefile calls: checks before a plan is made, and the book-keeping when a run ends."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from star1.errors import Star1Error
from star1.workflow import containers, dvcfile, foresight, slurm, sync, trust
from star1.workflow.dag import TRUST_CHECK_OFF, digest, jobs, stage_name
from star1.workflow.stage import STAGE_DIGEST

INSIDE_DVC = "DVC_STAGE"


def before_plan(workflow: Any) -> None:
    """Compare outputs with their records, unless this is a job's own process or one that DVC started for one rule."""
    foresight.tell_after_dry_run(workflow)
    if workflow.is_main_process and INSIDE_DVC not in os.environ and TRUST_CHECK_OFF not in os.environ:
        sync.check_trust()


def limit(workflow: Any, resources: Mapping[str, int]) -> None:
    """Say how much there is of resources, unless the command line does (`--resources NAME=2`)."""
    for name, amount in resources.items():
        if name not in workflow.global_resources:
            workflow.register_resource(name, amount)


def prepare_containers(workflow: Any, params: Mapping[str, Any]) -> None:
    """See to it that jobs in containers get what they need, and no more."""
    if containers.in_use(workflow):
        containers.prepare(params)


def on_start(workflow: Any) -> None:
    """Refuse to work for a DVC stage that was generated from other rules; tell what model calls are foreseen to cost.

    Raises:
        Star1Error: dvc.yaml is out of step with the rules or with a list in params.yaml, an image is not there, a job of an
            earlier run is still in the queue, or one asks for several machines where there is no Slurm.
    """
    slurm.check_left_over(workflow)
    slurm.check_machines(workflow)
    if containers.in_use(workflow):
        containers.check(workflow)
    if expected := os.environ.get(STAGE_DIGEST):
        for job in workflow.dag.jobs:
            if job.output and workflow.dag.needrun(job) and digest(job) != expected:
                raise Star1Error(
                    "dvc.yaml",
                    f"stage of rule {job.rule.name} is out of step with the rules",
                    "what the rules generate",
                    "run `star1 dvc-yaml`, then `dvc repro` again.",
                )
    foresight.tell_total(workflow)


def show_results() -> None:
    """The tables, and where everything lies, at the end of a run that a person started."""
    if INSIDE_DVC not in os.environ:
        subprocess.run([sys.executable, "-m", "star1.cli", "show"], check=False)


def on_end(workflow: Any) -> None:
    """After a run, whether it succeeded or not: keep the digests of what was made, then tell DVC."""
    trust.seal()
    containers.record(workflow)
    if not sync.uses_dvc():
        return
    if INSIDE_DVC in os.environ:
        sync.MEMO.unlink(missing_ok=True)  # Snakemake's records are those of another state than the one seen last
        sync.track_replies()
        return
    dag = workflow.dag
    fresh = [stage_name(job) for job in jobs(dag) if not dag.needrun(job) or dag.finished(job)]
    settings = workflow.dag_settings
    if not (
        settings.targets or settings.until or settings.omit_from
    ):  # the whole DAG, so that dvc.yaml can be made from it
        dvcfile.write(dvcfile.text(workflow, dag))
    # In a process of its own: DVC's logging does not go together with Snakemake's.
    subprocess.run([sys.executable, "-m", "star1.cli", "sync", "--fresh", *fresh], check=False)
