"""Jobs in containers (`--sdm apptainer`): what they are given, that their images are there, and which image made what."""

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from star1.errors import Star1Error
from star1.images import GPU_KINDS, kind_of, read_record
from star1.records import Row, file_digest, write_text
from star1.workflow.dag import jobs, stage_name

# Variables that a container is given besides the endpoints' keys, where they are set; all others stay outside.
PASSED = (
    "HF_TOKEN",
    "GITHUB_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
)
PREFIX = "APPTAINERENV_"
# Snakemake tells a job how many threads it has by this variable, which a cleaned environment would not hold.
THREADS = ' --env OMP_NUM_THREADS="$OMP_NUM_THREADS"'
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
# Which GPUs a job may use; it must hold inside too, or a job takes its neighbours'.
WHICH_GPUS = "CUDA_VISIBLE_DEVICES"
# By these Slurm tells a job that it was given some.
GIVEN_GPUS = ("SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", WHICH_GPUS)
RECORDED = Path("results/metrics/images.json")
# Which machine of several this is: set outside, on each (star1/nodes.py).
PLACE = "".join(f' --env {name}="${name}"' for name in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"))
# How a rule's command ends that writes a log.
LOG = " 2>&1 | tee "


def in_use(workflow: Any) -> bool:
    """Whether rules run in their images."""
    from snakemake.settings.types import DeploymentMethod

    settings = workflow.deployment_settings
    return settings is not None and DeploymentMethod.APPTAINER in settings.deployment_method


def prepare(params: Mapping[str, Any]) -> None:
    """Have this process, and those that it starts, run containers as ours are meant to be run."""
    from snakemake.deployment import singularity

    os.environ.update(passed_on(params, os.environ))
    if not hasattr(singularity.shellcmd, "of_star1"):
        singularity.shellcmd = _with_options(singularity.shellcmd)


def passed_on(params: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for containers, by the names under which apptainer takes them; never on a command line."""
    endpoints = (params.get("llm") or {}).get("endpoints") or {}
    options = (params.get("generate") or {}).get("options") or {}
    keys = [one.get("key") for one in endpoints.values()] + [options.get("key_variable")]
    names = dict.fromkeys([*PASSED, *(str(key) for key in keys if key)])
    found = {PREFIX + name: environment[name] for name in names if name in environment}
    return {name: value for name, value in found.items() if name not in environment}


def _with_options(shellcmd: Callable[..., str]) -> Callable[..., str]:
    """Snakemake's way to write a command for a container, with what depends on the job: it has one set of options for all."""

    def of_star1(image: str, command: str, *given: Any, args: str = "", **named: Any) -> str:
        count = _machines(inspect.currentframe())
        if count == 1:
            return shellcmd(image, command, *given, args=args + options(image), **named)
        # srun cannot be called from inside: it starts the container on each machine, and all of them write one log.
        command, log, file = command.rpartition(LOG) if LOG in command else (command, "", "")
        inside = shellcmd(image, command, *given, args=args + options(image) + PLACE, **named)
        words = [
            sys.executable,
            "-m",
            "star1.launching",
            kind_of(_from_project(image)) or "job",
            str(count),
            inside.strip(),
        ]
        return f"set -euo pipefail; {shlex.join(words)}{log}{file}"

    of_star1.of_star1 = True  # type: ignore[attr-defined]
    return of_star1


def _machines(frame: Any) -> int:
    """How many machines the job is over whose command is being written.

    Args:
        frame: of a function that Snakemake's `shell` calls, which knows the job's resources and tells them to nobody.
    """
    resources = frame.f_back.f_locals.get("resources") if frame and frame.f_back else None
    return int((resources and resources.get("nodes")) or 1)


def options(image: str) -> str:
    """Options for a job in an image: its threads, and the GPUs of this machine where it may and can use them."""
    if kind_of(_from_project(image)) not in GPU_KINDS or not _has_gpus(os.environ):
        return THREADS
    which = f' --env {WHICH_GPUS}="${WHICH_GPUS}"' if WHICH_GPUS in os.environ else ""
    return f"{THREADS} --nv{which}"


def _has_gpus(environment: Mapping[str, str]) -> bool:
    """Whether this machine has a GPU, and this job one of them: asked where the job runs, as login nodes have none."""
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return False
    given = any(environment.get(name, "") not in ("", "NoDevFiles") for name in GIVEN_GPUS)
    return given or "SLURM_JOB_ID" not in environment


def _from_project(image: str) -> str:
    path = Path(image)
    return os.path.relpath(path) if path.is_absolute() else image


def check(workflow: Any) -> None:
    """Before jobs start: every image that one of them needs is there.

    Raises:
        Star1Error: one is not.
    """
    dag = workflow.dag
    wanted = {job.container_img_url for job in dag.jobs if job.container_img_url and dag.needrun(job)}
    if missing := sorted(image for image in wanted if "://" not in image and not Path(image).is_file()):
        hint = "`make images` builds what is missing (docs/hpc.md)"
        raise Star1Error(", ".join(missing), "no such image", "the one for what is in containers/ and envs/ now", hint)


def record(workflow: Any) -> None:
    """After a run: note in which image each stage ran that ended, and forget it of those that ran in none.

    The file is in git, beside dvc.lock: an image itself is large, and made again from its parts.
    """
    dag = workflow.dag
    ended = {stage_name(job): job.container_img_url for job in jobs(dag) if dag.finished(job)}
    noted = read_recorded()
    if not in_use(workflow):
        ended = dict.fromkeys(ended)
    stages = {**noted.get("stages", {}), **ended}
    _write({name: image for name, image in stages.items() if image}, noted.get("images", {}))


def _write(stages: Mapping[str, str], known: Mapping[str, Row]) -> None:
    used = sorted(set(stages.values()))
    images = dict(_records(used, known))
    text = orjson.dumps({"images": images, "stages": dict(sorted(stages.items()))}, option=orjson.OPT_INDENT_2).decode()
    if (stages or RECORDED.exists()) and (not RECORDED.exists() or RECORDED.read_text("utf-8") != text + "\n"):
        write_text(RECORDED, text + "\n")


def _records(used: Iterable[str], known: Mapping[str, Row]) -> Iterable[tuple[str, Row]]:
    for image in used:
        path = Path(image)
        found = read_record(path) or known.get(image)
        if found is None and path.is_file():
            found = {"image": image, "sha256": file_digest(path)}
        if found is not None:
            yield image, found


def read_recorded(root: Path = Path()) -> Row:
    """What is noted about images: `images` by file, and the file by stage."""
    try:
        found: Row = orjson.loads((root / RECORDED).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return found
