"""The DAG of jobs, read through Snakemake's API.

The calls used here are private ones of the 9.27 series (hence the narrow pin in pyproject.toml); everything else in this
package reads the DAG through this file only.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from star1.errors import Star1Error
from star1.images import without_key
from star1.workflow.lookups import LookUp, canonical

TRUST_CHECK_OFF = "STAR1_TRUST_CHECK_OFF"
RERUN_TRIGGERS = ("code", "input", "mtime", "params")
EVERY_SIZE = 10**15
CHECKPOINT_MANIFEST = "manifest.json"


@contextlib.contextmanager
def load_dag(snakefile: str = "Snakefile", *, check_trust: bool = False) -> Iterator[tuple[Any, Any]]:
    """Plan the whole DAG in the working directory, without running anything; gives Snakemake's workflow and DAG.

    Args:
        snakefile: the file to plan.
        check_trust: whether reading the Snakefile may compare outputs with their records (see `star1.workflow.trust`).
    """
    from snakemake.api import SnakemakeApi
    from snakemake.exceptions import WorkflowError
    from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, RerunTrigger, ResourceSettings

    before = os.environ.get(TRUST_CHECK_OFF)
    if not check_trust:
        os.environ[TRUST_CHECK_OFF] = "1"
    try:
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, verbose=False)) as api:
            dag_api = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=Path(snakefile)).dag(
                DAGSettings(
                    max_checksum_file_size=EVERY_SIZE,
                    rerun_triggers=RerunTrigger.parse_choices_set(list(RERUN_TRIGGERS)),
                )
            )
            workflow = dag_api.workflow_api._workflow
            workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
            workflow._build_dag()
            yield workflow, workflow.dag
    except WorkflowError as error:
        said = " ".join(str(error).split())
        raise Star1Error(snakefile, said, "rules that Snakemake can plan", "`snakemake -n` tells more.") from error
    finally:
        if before is None:
            os.environ.pop(TRUST_CHECK_OFF, None)
        else:
            os.environ[TRUST_CHECK_OFF] = before


def jobs(dag: Any) -> list[Any]:
    """The jobs that write files, sorted by stage name; each is one DVC stage.

    Raises:
        Star1Error: two jobs would have the same stage name.
    """
    named: dict[str, Any] = {}
    for job in dag.jobs:
        if not job.output:
            continue
        name = stage_name(job)
        if name in named:
            raise Star1Error(name, "two jobs with this stage name", "names that differ in more than punctuation")
        named[name] = job
    return [named[name] for name in sorted(named)]


def stage_name(job: Any) -> str:
    """Rule and wildcard values as a DVC stage name, for example `finetune-star1_benign`."""
    parts = [job.rule.name, *(str(value) for _, value in sorted(job.wildcards_dict.items()))]
    return "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", part) for part in parts)


def parameter_names(job: Any) -> list[str]:
    """The keys of params.yaml that the job reads."""
    look_ups = [value for value in job.rule.params if isinstance(value, LookUp)]
    return sorted({name for look_up in look_ups for name in look_up.names(job.wildcards)})


def digest(job: Any) -> str:
    """Names what the job is: rule text, files in order, parameter keys and image.

    DVC does not notice a removed input or parameter; it does notice that this digest in the command changed.
    """
    text = canonical(
        [
            job.rule.name,
            job.rule.shellcmd or "",
            [str(file) for file in job.input],
            [str(file) for file in job.output],
            parameter_names(job),
            without_key(job.container_img_url or ""),
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]
