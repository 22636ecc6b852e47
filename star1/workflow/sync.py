"""Keep the two engines' books equal: what one holds to be up to date, and made right, the other is told.

`dvc.lock` is the one committed record. Snakemake's records are local and are made from it where they are missing (a
fresh clone after `dvc pull`) or old (after `dvc repro`, a DVC run-cache hit, `git checkout` with `dvc checkout`).
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from star1.errors import Star1Error, tell
from star1.owners import writing
from star1.records import write_text
from star1.workflow import basis, dvcfile, trust
from star1.workflow.dag import TRUST_CHECK_OFF, jobs, load_dag, stage_name

MEMO = Path(".snakemake/star1/synced.json")
REPLIES = "data/replies"


def snakemake_plan(*, check_trust: bool = True) -> dict[str, str]:
    """The stages that `snakemake` would run, each with its reason."""
    with load_dag(check_trust=check_trust) as (_, dag):
        return {stage_name(job): str(dag.reason(job)) for job in jobs(dag) if dag.needrun(job)}


@contextlib.contextmanager
def dvc_repo(*, wait: bool = False) -> Iterator[Any]:
    """DVC's repository in the working directory, locked.

    Args:
        wait: until another DVC command has ended, however long it takes; otherwise for three seconds.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    quiet_dvc()
    try:
        with Repo(".") as repo, _locked(repo, wait):
            yield repo
    except DvcException as error:
        said = " ".join(str(error).split())
        raise Star1Error("dvc", said, "a project that DVC can read", "`dvc status` tells more.") from error


@contextlib.contextmanager
def _locked(repo: Any, wait: bool) -> Iterator[None]:
    from dvc.lock import LockError

    try:
        repo.lock.lock()
    except LockError:
        if not wait:
            raise
        tell("dvc: another command is at work in this project; waiting for its end to record what was made")
        while not repo.lock.is_locked:
            with contextlib.suppress(LockError):
                repo.lock.lock()
    repo._lock_depth += 1  # what DVC's own functions look at before they lock it themselves
    try:
        yield
    finally:
        repo._lock_depth -= 1
        repo.lock.unlock()


def uses_dvc() -> bool:
    """Whether this is a DVC project; a copy without its version control runs with Snakemake alone."""
    return Path(".dvc").is_dir()


def quiet_dvc() -> None:
    """DVC's hints (what to `git add`, that an empty quarantine is empty) are noise at the end of a run."""
    logging.getLogger("dvc").setLevel(logging.ERROR)


def dvc_plan(*, wait: bool = False) -> tuple[set[str], set[str]]:
    """The stages that `dvc repro` may run, and those among them that changed themselves."""
    import networkx

    with dvc_repo(wait=wait) as repo:
        graph = repo.index.graph
        stages = {stage for stage in graph.nodes if not stage.is_data_source}
        away = {out.fs_path for stage in stages for out in stage.outs if _is_away(out)}
        current = basis.Current()
        changed = {stage for stage in stages if _changed(stage, current) and not _only_lacks(stage, away, current)}
        current.save()
        # It changes what others stand on, and each of those has been asked about that.
        in_step = {stage for stage in changed if stage.addressing == dvcfile.IN_STEP}
        changed -= in_step
        # What is away is wanted where what is made of it is; then that stage runs, and all that follows it.
        reached = changed | {later for stage in changed for later in networkx.ancestors(graph, stage)}
        bringing = {stage for stage in stages if away & {out.fs_path for out in stage.outs}}
        changed |= {stage for stage in bringing if networkx.ancestors(graph, stage) & reached}
        after = {later for stage in changed for later in networkx.ancestors(graph, stage)}
        changed |= in_step
        names = {stage.addressing for stage in changed | after if not stage.is_data_source}
        return names, {stage.addressing for stage in changed}


def _changed(stage: Any, current: basis.Current) -> bool:
    """Whether DVC would run a stage, once `in_step` has brought what it stands on up to date."""
    return (
        stage.changed_stage()
        or any(_dep_changed(dep, current) for dep in stage.deps)
        or any(out.status() for out in stage.outs)
    )


def _dep_changed(dep: Any, current: basis.Current) -> bool:
    if not str(dep.def_path).startswith(f"{basis.FOLDER}/"):
        return bool(dep.status())
    text = current.of(dep.def_path)
    return text is None or dep.hash_info.value != basis.digest(text)


def _is_away(out: Any) -> bool:
    """Whether an output is not there that DVC does not store, since it can be fetched again as it was."""
    return not (out.use_cache or out.exists or out.def_path.startswith(dvcfile.IN_GIT))


def _only_lacks(stage: Any, away: Collection[str], current: basis.Current) -> bool:
    """Whether nothing else is amiss with a stage than that outputs which are away are its own or its dependencies."""
    if not away or stage.changed_stage() or any(out.status() for out in stage.outs if out.fs_path not in away):
        return False
    places = [Path(place) for place in away]
    return not any(
        _dep_changed(dep, current)
        for dep in stage.deps
        if dep.exists or not any(Path(dep.fs_path).is_relative_to(one) for one in places)
    )


def to_dvc(fresh: Mapping[str, str] | None = None) -> list[str]:
    """Record in dvc.lock every stage that Snakemake holds to be up to date and DVC does not; gives their names.

    Never `dvc commit` by hand for this: it takes whatever lies there for right.

    Args:
        fresh: the stages that Snakemake holds to be up to date, if that is known already, with the digests of their jobs; a
            stage whose command in dvc.yaml has another digest is not recorded.
    """
    # What a run planned with is no longer there: nobody can tell DVC what its outputs were made from.
    stale = basis.stale()
    if fresh is None or stale:
        dvcfile.write()
    stale_for_dvc = dvc_plan(wait=True)[1]
    names = stale_for_dvc & {*fresh} if fresh is not None else stale_for_dvc and stale_for_dvc - set(snakemake_plan())
    recorded = _commit(names, stale if fresh is not None else set(), fresh or {}) if names else []
    remember()
    return recorded


def _commit(names: Collection[str], stale: Collection[str] = (), digests: Mapping[str, str] | None = None) -> list[str]:
    """`dvc commit -f` of several stages with one lock and one write of dvc.lock (by name it reads the index for each).

    Gives the names of those recorded: not those that stand on a stale file or are another job than that of the digest, nor
    `in_step` when a file is stale.
    """
    with dvc_repo(wait=True) as repo:
        stages = [
            stage
            for stage in repo.index.stages
            if stage.addressing in names
            and not {dep.def_path for dep in stage.deps} & set(stale)
            and (digests or {}).get(stage.addressing, "") in ("", dvcfile.digest_in(stage.cmd))
            and (stage.addressing != dvcfile.IN_STEP or all(out.exists for out in stage.outs))
        ]
        for stage in stages:
            stage.save()
        if basis.stale():  # something changed just now
            stages = [stage for stage in stages if stage.addressing != dvcfile.IN_STEP]
        for stage in stages:
            stage.commit()
        if stages:
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
    return sorted(stage.addressing for stage in stages)


def forget(outputs: Collection[str]) -> list[str]:
    """Make DVC run the stages of some outputs again; gives their names. What is in its cache stays there.

    That an output is missing is not enough: DVC brings it back, by its lock or its run cache.
    """
    if not uses_dvc() or not outputs:
        return []
    from dvc.exceptions import DvcException
    from dvc.stage.cache import _can_hash, _get_stage_hash

    with dvc_repo() as repo:
        stages = [stage for stage in repo.index.stages if {out.def_path for out in stage.outs} & set(outputs)]
        for stage in stages:
            for look in (lambda: None, stage.save_deps):  # as it was run last, and as it would be now
                with contextlib.suppress(DvcException, OSError):
                    look()
                    if _can_hash(stage):
                        runs = repo.stage_cache._get_cache_dir(_get_stage_hash(stage))
                        shutil.rmtree(runs, ignore_errors=True)
            stage.dvcfile._lockfile.remove_stage(stage)
    return sorted(stage.addressing for stage in stages)


def track_replies() -> bool:
    """Let DVC track the stored model replies as they are now; gives whether they had changed."""
    if not uses_dvc() or not any(Path(REPLIES).glob("*.jsonl")):
        return False
    if busy := writing(Path(REPLIES)):
        # With links, DVC would make the very file that is written to a part of its cache.
        tell(f"{REPLIES}: {', '.join(busy)} is being written to; DVC records the replies at the end of the next run")
        return False
    from dvc.repo import Repo

    quiet_dvc()
    tracked = Path(f"{REPLIES}.dvc")
    before = tracked.read_bytes() if tracked.exists() else b""
    with Repo(".") as repo, _locked(repo, wait=True):
        changed = not before or any(stage.changed() for stage in repo.stage.load_all(str(tracked)))
        if changed:
            repo.add([REPLIES])
    return changed and tracked.read_bytes() != before


def to_snakemake() -> list[str]:
    """Write Snakemake's record of every stage that DVC alone holds to be up to date; gives their names."""
    from snakemake.settings.types import ExecutionSettings

    stale_for_dvc = dvc_plan()[0]
    done, outputs = [], []
    with load_dag() as (workflow, dag):
        workflow.execution_settings = workflow.execution_settings or ExecutionSettings()
        digests = trust.Digests()
        for job in jobs(dag):
            files = [str(file) for file in job.output]
            if stage_name(job) in stale_for_dvc:
                continue
            if dag.needrun(job) or trust.survey(files, digests):
                workflow.persistence.deactivate_cache()
                workflow.async_run(workflow.persistence.finished(job))
                done.append(stage_name(job))
                outputs.extend(files)
    digests.save()
    trust.mark_untrusted(outputs, {})
    return done


def _state(untrusted: dict[str, str]) -> str:
    """Names what a look at DVC's lock was about: the lock, outputs that Snakemake alone would not trust, and bases."""
    lock, digests = Path("dvc.lock"), trust.Digests()
    # An input that changed is a change for DVC as well: its lock has nothing new to say about it.
    changed = [output for output, reason in untrusted.items() if not reason.startswith(trust.INPUT)]
    contents: dict[str, str | None] = {output: digests.of_output(output) for output in changed}
    # Of what was made while its files changed, DVC may hold an earlier run's record, which holds again when they are put back.
    mixed = [output for output, reason in untrusted.items() if reason.startswith((trust.MIXED, trust.UNNOTED))]
    read = {path for output in mixed for path in trust.read_record(output).get("input_checksums") or {}}
    contents |= {path: digests.of(path) for path in sorted({*read, *(("params.yaml",) if mixed else ())})}
    bases = {path.name: path.read_text("utf-8") for path in basis.FOLDER.glob("*.json")}
    digests.save()
    text = json.dumps([lock.read_text("utf-8") if lock.exists() else "", contents, bases], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def remember() -> None:
    """Note that Snakemake's records have seen dvc.lock as it is."""
    write_text(MEMO, json.dumps({"seen": _state(_untrusted())}))


def _untrusted() -> dict[str, str]:
    digests = trust.Digests()
    untrusted = trust.survey(_outputs(), digests)
    digests.save()
    return untrusted


def _outputs() -> list[str]:
    return sorted({*trust.recorded_outputs(), *trust.outputs_of_dvc()})


def check_trust() -> None:
    """Bring Snakemake's records in step with dvc.lock and with what lies there, before a plan is made.

    Costs some milliseconds when nothing changed. When dvc.lock or an output changed since the last look, what DVC holds to
    be up to date is taken over (in a process of its own, since that needs a DAG); whatever is then still not what its
    record says is marked to run again.
    """
    if Path(".snakemake/locks").is_dir() and any(Path(".snakemake/locks").iterdir()):
        return  # another snakemake is at work here: its files and records are on the move
    untrusted = _untrusted()
    seen = json.loads(MEMO.read_text()).get("seen") if MEMO.exists() else None
    if uses_dvc() and Path("dvc.lock").exists() and _state(untrusted) != seen:
        subprocess.run(
            [sys.executable, "-m", "star1.workflow.sync"],
            env={**os.environ, TRUST_CHECK_OFF: "1"},
            stdout=subprocess.DEVNULL,
            check=False,  # without it nothing wrong is trusted: the outputs stay marked to run again
        )
        untrusted = _untrusted()
        write_text(MEMO, json.dumps({"seen": _state(untrusted)}))
    trust.mark_untrusted(_outputs(), untrusted)


if __name__ == "__main__":
    to_snakemake()
