"""dvc.yaml, generated from the rules: one stage per rule and wildcard value."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from star1.errors import Star1Error
from star1.records import write_text
from star1.workflow import basis
from star1.workflow.dag import CHECKPOINT_MANIFEST, digest, jobs, load_dag, parameter_names, stage_name
from star1.workflow.outputs import is_fetched_again
from star1.workflow.plots import axes_of

HEADER = "# Generated from the rules by `star1 dvc-yaml`; do not edit.\n"
PARAMS = "params.yaml"
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
        "deps": sorted({*_read(job), *filter(None, [basis.path_of(job)])}),
    }
    metrics = [path for path in outputs if path.startswith(METRICS)]
    plots = [path for path in outputs if path.startswith(PLOTS)]
    axes = {str(file): found for file in job.output if (found := axes_of(file))}
    uncached = {out_path(str(file)) for file in job.output if is_fetched_again(file, job.wildcards)}
    outs = [out_path(path) for path in outputs if path not in (*metrics, *plots)]
    for kind, paths in (("outs", outs), ("metrics", metrics), ("plots", plots)):
        if paths:
            entry[kind] = [_out(path, path in uncached, axes.get(path)) for path in paths]
    return entry


def _read(job: Any) -> list[str]:
    """The inputs of a job that are no code; code is told of in the job's basis."""
    return [str(file) for file in job.input if not basis.is_code(str(file))]


def _out(path: str, uncached: bool, axes: dict[str, str] | None) -> str | dict[str, dict[str, Any]]:
    """An output as dvc.yaml has it; a plot is drawn over the axes that its rule names, else by a template in .dvc/plots."""
    options: dict[str, Any] = {"cache": False} if uncached or path.startswith(IN_GIT) else {}
    if uncached:
        options["persist"] = True  # or the run cache would store it all the same
    if path.startswith(PLOTS):
        options |= axes or {"template": Path(path).stem}
    return {path: options} if options else path


# What decides what is in the files of `star1.workflow.basis`.
WRITERS = (
    "scripts/stage.sh",
    *(f"star1/workflow/{name}.py" for name in ("basis", "dag", "dvcfile", "lookups", "stage", "stamps")),
)


def in_step_stage(workflow: Any, dag: Any) -> dict[str, Any]:
    """The stage that fails while dvc.yaml is out of step, and writes what the others stand on (`star1.workflow.basis`).

    It depends on what shapes the DAG, rules and lists in params.yaml, and on all code and values that a job reads.
    """
    planned, names = jobs(dag), deciding(workflow)
    names |= {str(file) for job in planned for file in job.input if basis.is_code(str(file))}
    entry: dict[str, Any] = {"cmd": "sh scripts/stage.sh --in-step", "deps": sorted(names)}
    keys = {*workflow.globals["P"].shaping, *(name for job in planned for name in parameter_names(job))}
    # Two levels are as exact, since the files that are written decide, and as many however many runs there are.
    if read := sorted({".".join(key.split(".")[:2]) for key in keys}):
        entry["params"] = read
    if outs := sorted({path for job in planned if (path := basis.path_of(job))}):
        entry["outs"] = outs
    return entry


def deciding(workflow: Any) -> set[str]:
    """The files that decide what the stages are, and what they are told to stand on: the rules, and the code that reads them."""
    root = Path.cwd().resolve()
    files = [Path(file.get_path_or_uri(secret_free=False)) for file in workflow.included]
    names = {path.resolve().relative_to(root).as_posix() for path in files}
    return names | {name for name in WRITERS if Path(name).exists()}


def changed_since(files: Iterable[str], moment: float) -> list[str]:
    """The files among these that were written, or put there, since a moment in seconds of the epoch; also those that are gone."""

    def since(path: str) -> bool:
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            return True
        return max(stat.st_mtime, stat.st_ctime) > moment

    return sorted(filter(since, files))


def digest_in(command: str) -> str:
    """The digest of the job in the command of a stage; "" where it has none."""
    words = shlex.split(command)
    return words[3] if len(words) > 3 else ""


def text(workflow: Any, dag: Any) -> str:
    """dvc.yaml as a planned DAG calls for it."""
    stages = {IN_STEP: in_step_stage(workflow, dag)}
    stages |= {stage_name(job): stage(job) for job in jobs(dag)}
    return HEADER + yaml.safe_dump({"stages": stages}, sort_keys=False, width=1000, allow_unicode=True)


def planned() -> tuple[str, dict[str, str]]:
    """dvc.yaml, and the files of the stages' bases, as the rules and params.yaml in the working directory call for them."""
    with load_dag() as (workflow, dag):
        return text(workflow, dag), basis.of_jobs(workflow, dag)


def write() -> bool:
    """Bring dvc.yaml in step, and with it what its stages stand on; gives whether dvc.yaml had to change."""
    new, bases = planned()
    basis.write(bases)
    return write_yaml(new)


def write_yaml(new: str) -> bool:
    """Bring dvc.yaml in step with its text; gives whether it had to change."""
    path = Path("dvc.yaml")
    if path.exists() and path.read_text("utf-8") == new:
        return False
    write_text(path, new)
    return True


def check(since: float | None = None) -> dict[str, str]:
    """Compare dvc.yaml with the rules; gives the files of the stages' bases.

    Args:
        since: if given, the files that it hangs on must not have been written since then [s of the epoch].

    Raises:
        Star1Error: it is out of step, or a file that it hangs on was written meanwhile.
    """
    path = Path("dvc.yaml")
    with load_dag() as (workflow, dag):
        new, bases = text(workflow, dag), basis.of_jobs(workflow, dag)
        read = {PARAMS, *in_step_stage(workflow, dag)["deps"]}
    if since is not None and (changed := changed_since(read, since)):  # DVC takes their digests next
        hint = "`dvc repro` again."
        raise Star1Error(changed[0], "it changed while stage in_step ran", "to stay as it is meanwhile", hint)
    if not path.exists() or path.read_text("utf-8") != new:
        raise Star1Error("dvc.yaml", "out of step with the rules", "what the rules generate", "run `star1 dvc-yaml`.")
    return bases
