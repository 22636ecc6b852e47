"""dvc.yaml, generated from the rules: one stage per rule and wildcard value."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from star1.errors import Star1Error
from star1.records import write_text
from star1.workflow.dag import CHECKPOINT_MANIFEST, digest, jobs, load_dag, parameter_names, stage_name
from star1.workflow.outputs import is_fetched_again
from star1.workflow.plots import axes_of

HEADER = "# Generated from the rules by `star1 dvc-yaml`; do not edit.\n"
# Small files that people read and compare: git keeps them, DVC only records their digests.
IN_STEP = "in_step"
IN_GIT = ("results/metrics/", "results/tables/", "results/plots/")
# What `dvc metrics show` prints. Costs are never the same twice, so git would see a change after every run.
METRICS = ("results/metrics/", "results/costs/")
PLOTS = "results/plots/"


def out_path(output: str) -> str:
    """What DVC tracks for an output: of a checkpoint the folder that its manifest lists, else the file."""
    path = Path(output)
    return path.parent.as_posix() if path.name == CHECKPOINT_MANIFEST else path.as_posix()


def stage(job: Any) -> dict[str, Any]:
    """One stage of dvc.yaml."""
    outputs = [str(file) for file in job.output]
    entry: dict[str, Any] = {
        "cmd": shlex.join(["sh", "scripts/stage.sh", job.rule.name, digest(job), *outputs]),
        "deps": sorted({str(file) for file in job.input}),
    }
    if names := parameter_names(job):
        entry["params"] = names
    metrics = [path for path in outputs if path.startswith(METRICS)]
    plots = [path for path in outputs if path.startswith(PLOTS)]
    axes = {str(file): found for file in job.output if (found := axes_of(file))}
    uncached = {out_path(str(file)) for file in job.output if is_fetched_again(file, job.wildcards)}
    outs = [out_path(path) for path in outputs if path not in (*metrics, *plots)]
    for kind, paths in (("outs", outs), ("metrics", metrics), ("plots", plots)):
        if paths:
            entry[kind] = [_out(path, path in uncached, axes.get(path)) for path in paths]
    return entry


def _out(path: str, uncached: bool, axes: dict[str, str] | None) -> str | dict[str, dict[str, Any]]:
    """An output as dvc.yaml has it; a plot is drawn over the axes that its rule names, else by a template in .dvc/plots."""
    options: dict[str, Any] = {"cache": False} if uncached or path.startswith(IN_GIT) else {}
    if uncached:
        options["persist"] = True  # or the run cache would store it all the same
    if path.startswith(PLOTS):
        options |= axes or {"template": Path(path).stem}
    return {path: options} if options else path


def in_step_stage(workflow: Any) -> dict[str, Any]:
    """The stage that fails while dvc.yaml is out of step; it depends on what shapes the DAG: rules, lists in params.yaml."""
    root = Path.cwd().resolve()
    files = [Path(file.get_path_or_uri(secret_free=False)) for file in workflow.included]
    names = {path.resolve().relative_to(root).as_posix() for path in files}
    entry: dict[str, Any] = {"cmd": "sh scripts/stage.sh --in-step", "deps": sorted(names)}
    if shaping := sorted(workflow.globals["P"].shaping):
        entry["params"] = shaping
    return entry


def text(workflow: Any, dag: Any) -> str:
    """dvc.yaml as a planned DAG calls for it."""
    stages = {IN_STEP: in_step_stage(workflow)}
    stages |= {stage_name(job): stage(job) for job in jobs(dag)}
    return HEADER + yaml.safe_dump({"stages": stages}, sort_keys=False, width=1000, allow_unicode=True)


def planned_text() -> str:
    """dvc.yaml as the rules and params.yaml in the working directory call for it."""
    with load_dag() as (workflow, dag):
        return text(workflow, dag)


def write(new: str | None = None) -> bool:
    """Bring dvc.yaml in step; gives whether it had to change.

    Args:
        new: its text, if that is known already.
    """
    new, path = planned_text() if new is None else new, Path("dvc.yaml")
    if path.exists() and path.read_text("utf-8") == new:
        return False
    write_text(path, new)
    return True


def check() -> None:
    """Compare dvc.yaml with the rules.

    Raises:
        Star1Error: it is out of step.
    """
    path = Path("dvc.yaml")
    if not path.exists() or path.read_text("utf-8") != planned_text():
        raise Star1Error("dvc.yaml", "out of step with the rules", "what the rules generate", "run `star1 dvc-yaml`.")
