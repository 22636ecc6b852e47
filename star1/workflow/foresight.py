"""What a plan's model calls will cost, told by a dry run and at the start of a run, where an endpoint may charge."""

import atexit
import contextlib
import os
import sys
from typing import Any

from star1.errors import Star1Error, tell
from star1.workflow.dag import TRUST_CHECK_OFF


def tell_after_dry_run(workflow: Any) -> None:
    """Have the estimate printed when this process ends, if it was a dry run: Snakemake calls no hook in one."""
    # A plan that is made for the engines' books is nobody's dry run.
    if workflow.is_main_process and TRUST_CHECK_OFF not in os.environ:
        atexit.register(_print_table, workflow)


def _print_table(workflow: Any) -> None:
    if workflow.dryrun and (lines := table(workflow)):
        with contextlib.suppress(OSError):  # nobody reads on
            sys.stdout.write("\n".join(["", "Model calls of these stages, by `star1 estimate`:", *lines, ""]))
            sys.stdout.flush()


def tell_total(workflow: Any) -> None:
    """Print what the model calls of a run that starts are foreseen to cost, in one line."""
    if lines := table(workflow):
        total = next((line for line in lines if line.startswith("total: ")), lines[-1])
        tell(f"model calls by estimate, {total} ({', '.join(paid_stages(workflow))}; `snakemake -n` has the table)")


def table(workflow: Any) -> list[str]:
    """The estimate for the planned stages that ask a remote endpoint; no lines where there are none."""
    if not (names := paid_stages(workflow)):
        return []
    from star1 import estimate
    from star1.params import Params

    try:
        params = Params.model_validate(workflow.globals["P"].values)
        found = estimate.estimates(params, names)
        return estimate.table(found) + estimate.beyond(params, found)
    except (Star1Error, OSError) as error:  # what is wrong with a file is the stage's to say
        return [f"no estimate: {error}"]


def paid_stages(workflow: Any) -> list[str]:
    """The stores of the planned stages that ask an endpoint over the network, or one with a price; sorted."""
    values = workflow.globals["P"].values
    # Small workflows of tests have no such section.
    endpoints = values.get("llm", {}).get("endpoints", {})
    paid = {name for name, one in endpoints.items() if one["provider"] == "openai" or one.get("price")}
    dag = getattr(workflow, "_dag", None)
    if not paid or dag is None:
        return []
    from star1.estimate import STAGES

    asked = {stage: values["llm"]["roles"].get(role, []) for stage, (role, _, _) in STAGES.items()}
    asked["judge"] = _judging(values.get("judge", {}))
    found = []
    for job in dag.jobs:
        stage = job.rule.name
        names = asked.get(stage, []) if job.output and dag.needrun(job) else []
        if paid & {*([names] if isinstance(names, str) else names)}:
            found.append("-".join([stage, *job.wildcards_dict.values()]))
    return sorted(found)


def _judging(section: dict[str, Any]) -> list[str]:
    """The endpoints of the judges in use."""
    used = (section["judges"][name]["endpoint"] for names in section.get("use", {}).values() for name in names)
    return [name for names in used for name in ([names] if isinstance(names, str) else names)]
