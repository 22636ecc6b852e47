"""What the Snakefile calls: checks before a plan is made, and the book-keeping when a run ends."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from star1.errors import Star1Error, tell
from star1.workflow import basis, containers, dvcfile, foresight, slurm, starts, sync, trust
from star1.workflow.dag import TRUST_CHECK_OFF, digest, jobs, stage_name
from star1.workflow.stage import STAGE_DIGEST

INSIDE_DVC = "DVC_STAGE"
# When Snakemake began to read the rules.
READ_AT = time.time()


def before_plan(workflow: Any) -> None:
    """Compare outputs with their records, unless this is a job's own process or one that DVC started for one rule."""
    starts.watch()
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
    if not workflow.touch:
        starts.here().expect(workflow.dag)
    slurm.check_left_over(workflow)
    slurm.check_machines(workflow)
    if containers.in_use(workflow):
        containers.check(workflow)
    if expected := os.environ.get(STAGE_DIGEST):
        try:
            _see_in_step(workflow, expected)
        except Star1Error as error:
            tell(f"error: {error}")  # Snakemake would not, since stages run with --quiet
            raise
    foresight.tell_total(workflow)


def _see_in_step(workflow: Any, expected: str) -> None:
    """The job of a DVC stage is the one in dvc.yaml, and what DVC is told of its code and values is what it will use."""
    current = basis.Current()
    for job in workflow.dag.jobs:
        if not job.output or not workflow.dag.needrun(job):
            continue
        if digest(job) != expected:
            raise Star1Error(
                "dvc.yaml",
                f"stage of rule {job.rule.name} is out of step with the rules",
                "what the rules generate",
                "run `star1 dvc-yaml`, then `dvc repro` again.",
            )
        path = basis.path_of(job)
        if path and not current.holds(path):
            found = "not the code and values that there are now"
            raise Star1Error(path, found, "what stage in_step writes", "`dvc repro` again; it runs that stage first.")


def show_results(workflow: Any) -> None:
    """The tables, and where everything lies, at the end of a whole run that a person started.

    After a part of one, tables that lie there may be of other settings.
    """
    if INSIDE_DVC not in os.environ and _whole(workflow):
        subprocess.run([sys.executable, "-m", "star1.cli", "show"], check=False)


def _whole(workflow: Any) -> bool:
    """Whether a run is about the whole DAG."""
    settings = workflow.dag_settings
    return not (settings.targets or settings.until or settings.omit_from)


def on_end(workflow: Any) -> None:
    """After a run, whether it succeeded or not: keep the digests of what was made, then tell DVC.

    Raises:
        Star1Error: DVC waits for this run, and would record that an output was made from what was not there at its start.
    """
    starts.here().save()
    untrusted = trust.seal()
    containers.record(workflow)
    if not sync.uses_dvc():
        return
    if INSIDE_DVC in os.environ:
        sync.MEMO.unlink(missing_ok=True)  # Snakemake's records are those of another state than the one seen last
        sync.track_replies()
        starts.here().look_again()
        if mixed := starts.here().mixed():
            hint = "`dvc repro` again."
            raise Star1Error(", ".join(sorted(mixed)), "not made from what there is now", "nothing to change", hint)
        return
    dag = workflow.dag
    # An input that changed after its job had read it is not what the output was made from; DVC would take it for that.
    fresh = [
        f"{stage_name(job)}={digest(job)}"
        for job in jobs(dag)
        if (not dag.needrun(job) or dag.finished(job)) and not untrusted & {str(file) for file in job.output}
    ]
    if not dvcfile.changed_since({dvcfile.PARAMS, *dvcfile.deciding(workflow)}, READ_AT):
        fresh.append(dvcfile.IN_STEP)
    if whole := _whole(workflow):  # dvc.yaml can be made from it
        dvcfile.write_yaml(dvcfile.text(workflow, dag))
    basis.write(basis.of_jobs(workflow, dag), whole=whole)
    # In a process of its own: DVC's logging does not go together with Snakemake's.
    subprocess.run([sys.executable, "-m", "star1.cli", "sync", "--fresh", *fresh], check=False)


def tell_failures(workflow: Any) -> None:
    """What ended each job that failed, once more: Snakemake's own last lines name neither the job nor the reason."""
    if INSIDE_DVC in os.environ:  # one job, whose words are the last ones
        return
    failed = [one for job in getattr(workflow.scheduler, "failed", ()) for one in getattr(job, "jobs", (job,))]
    for job in sorted(failed, key=stage_name):
        said = (f"{line} ({path})" for path in job.log if (line := _last_error(Path(path))))
        tell(f"failed: {stage_name(job)}: {next(said, 'ended without an error of its own')}")
    if getattr(workflow.scheduler, "_user_kill", None):
        tell("stopped: the same command goes on from here; replies and training states that were stored are used")


def _last_error(log: Path) -> str:
    """The line of a log that says why its job failed: its error, or of a traceback the last one; empty where none does."""
    try:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    starts = [place for place, line in enumerate(lines) if line.startswith(("error: ", "Traceback "))]
    if not starts:
        return ""
    return lines[starts[-1]] if lines[starts[-1]].startswith("error: ") else lines[-1]
