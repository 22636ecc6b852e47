"""The workflow on a real Slurm: jobs that are cancelled, run out of time or memory, or lose their node, and what was paid for.

All runs go on side by side, since each of them mostly waits: for the queue, for Slurm's clock, for Snakemake's next look.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import stages
from star1.records import read_json, read_rows, write_rows
from tests import micro
from tests.cluster import ask, jobs, resume, slurm, wait_until
from tests.faultserver import Running, running
from tests.projects import copy_parts
from tests.test_default_run import SMALL, copy_project
from tests.test_default_run import run as run_in

pytestmark = pytest.mark.slow

KEY = "sk-never-to-be-seen-4711"
PROFILE = ("--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "3")
NODES = 4  # one for most runs, one that goes down, and two for a run of which one is drained
SLOTS = 8
TARGETS = ("data/star1.jsonl", "results/judgements/tiny/xstest.jsonl")
# Put into every Python process of a job: takes memory for good, a while after the stage has begun to ask.
LEAK = """
import os, sys, threading, time
if "scripts.reason" in sys.orig_argv and os.environ.get("LEAK_MB"):
    def leak():
        time.sleep(6)
        sys.leaked = b"x" * (int(os.environ["LEAK_MB"]) << 20)
    threading.Thread(target=leak, daemon=True).start()
"""


@dataclass
class Run:
    """A run of the workflow in a folder of its own, and what its endpoint was asked."""

    folder: Path
    served: Running | None = None
    process: subprocess.Popen[str] | None = None

    def start(self, *flags: str, **variables: str) -> None:
        """Start Snakemake."""
        environment = {**os.environ, "STAR1_TEST_KEY": KEY, "PYTHONPATH": str(self.folder), **variables}
        with open(self.folder / "head.log", "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *PROFILE, *flags],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def wait(self, timeout_s: float = 900) -> int:
        """Its exit status."""
        assert self.process
        return self.process.wait(timeout=timeout_s)

    @property
    def has_ended(self) -> bool:
        """Whether Snakemake has."""
        return self.process is None or self.process.poll() is not None

    @property
    def told(self) -> str:
        """What it printed."""
        return (self.folder / "head.log").read_text()

    @property
    def items(self) -> list[str]:
        """What was asked, one entry a request."""
        return [item for _, item, _, _ in self.served.lines()] if self.served else []

    def wait_asked(self, count: int) -> None:
        """Until so many requests came."""
        wait_until(lambda: len(self.items) >= count or self.has_ended, f"{count} requests of {self.folder.name}")
        assert not self.has_ended, self.told[-4000:]

    def running_job(self, among: str = "") -> str:
        """The id of its job that runs."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [n for n, job in jobs(self.folder, "RUNNING").items() if among in job["comment"]]
            return bool(found)

        wait_until(is_there, f"a job of {self.folder.name}")
        return found[0]

    def end(self) -> None:
        """Stop it, with its jobs, if it still is on its way."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=60)
            for number in jobs(self.folder, "PENDING,RUNNING"):
                ask("scancel", number)


def set_params(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change params.yaml."""
    values = yaml.safe_load((folder / "params.yaml").read_text())
    change(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def small_project(folder: Path) -> Path:
    """The project without git and DVC."""
    return copy_parts(folder)


def reasoning(folder: Path, served: Running, rows: int, more: float = 1.0, **need: int) -> Run:
    """A folder in which the stage `reason` is to be run, on rows that are there, asking an endpoint with a key."""
    small_project(folder)

    def change(values: dict[str, Any]) -> None:
        endpoint = {"provider": "openai", "model": "m", "label": "m", "base_url": served.url, "slots": SLOTS}
        values["llm"]["endpoints"]["paid"] = {**endpoint, "key": "STAR1_TEST_KEY"}
        values["llm"]["roles"]["teacher"] = "paid"
        values["resources"] |= {"jobs": {"reason": {"mem_mb": 1000, **need}}, "more": more}

    set_params(folder, change)
    write_rows(folder / "data/categorized.jsonl", stages.rows(rows, folder.name))
    return Run(folder, served)


def reason(run: Run, without: str = "node[2-4]", **variables: str) -> None:
    """Start the stage, on nodes that nothing is done to unless told."""
    flags = ("--set-resources", f"reason:slurm_extra='--exclude={without}'", "--allowed-rules", "reason")
    run.start(*flags, "--", "data/cot.jsonl", **variables)


def training(folder: Path) -> Run:
    """A folder in which a run is to be trained by two processes, each of which Slurm sends its signals to."""
    small_project(folder)

    def change(values: dict[str, Any]) -> None:
        settings = {"epochs": 150, "batch_size": 4, "processes": 2, "pack_tokens": 256, "max_tokens": 256}
        values["finetune"]["settings"] |= {
            **settings,
            "precision": "float32",
            "gather_every": 1,
            "checkpoint_minutes": 0,
        }
        values["resources"] |= {"jobs": {"finetune": {"mem_mb": 2000}}}

    set_params(folder, change)
    micro.checkpoint(folder / "models/base/tiny")
    write_rows(folder / "data/star1.jsonl", micro.ROWS)
    return Run(folder)


def log_of(run: Run, name: str) -> str:
    """What a stage told so far."""
    path = run.folder / "logs" / name
    return path.read_text() if path.is_file() else ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with slurm(NODES):
        yield


@dataclass
class Runs:
    """All runs, ended, and what was seen on the way."""

    cancelled: Run
    late: Run
    leaking: Run
    moved: Run
    trained: Run
    whole: Run
    shown: str
    drained: str


@pytest.fixture(scope="module")
def runs(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Six runs side by side, five of which lose a job."""
    root = tmp_path_factory.mktemp("slurm")
    with ExitStack() as stack:

        def serve(name: str, *wait: str) -> Running:
            return stack.enter_context(running(root / f"{name}.asked", "--wait", *wait))

        late = reasoning(root / "late", serve("late", "4", "5"), 170, more=3.0, runtime=1)
        cancelled = reasoning(root / "cancelled", serve("cancelled", "1", "2"), 120)
        leaking = reasoning(root / "leaking", serve("leaking", "0.6", "1.2"), 120, mem_mb=600)
        moved = reasoning(root / "moved", serve("moved", "1", "2"), 120)
        trained = training(root / "trained")
        whole = Run(root / "whole")
        copy_project(whole.folder)
        subprocess.run(
            ["star1", "preset", *(part for one in SMALL for part in ("--set", one))], cwd=whole.folder, check=True
        )
        everything = Runs(cancelled, late, leaking, moved, trained, whole, "", "")
        for run in (late, cancelled, leaking, moved, trained, whole):
            stack.callback(run.end)
        _go(everything, root)
        yield everything


def _go(all_of: Runs, root: Path) -> None:
    (root / "leak").mkdir()
    (root / "leak/sitecustomize.py").write_text(LEAK)
    reason(all_of.late)
    elsewhere = ("--default-resources", "gpu_as=gpu", "slurm_extra='--exclude=node[1-2]'")
    all_of.whole.start(*elsewhere, "--", *TARGETS)
    reason(all_of.cancelled)
    reason(all_of.moved, without="node1,node[3-4]")
    all_of.trained.start("--set-resources", "finetune:slurm_extra='--exclude=node[2-4]'", "--allowed-rules", "finetune",
                         "--", "models/star1/manifest.json")  # fmt: skip
    python_path = f"{all_of.leaking.folder}{os.pathsep}{root / 'leak'}"
    reason(all_of.leaking, PYTHONPATH=python_path, LEAK_MB="500")
    acts = (_cancel, _move, _drain, _stop_training)
    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(act, all_of) for act in acts]:
            done.result()
    for name in ("cancelled", "late", "leaking", "moved", "trained", "whole"):
        run = getattr(all_of, name)
        assert run.wait() == 0, f"{name}: {run.told[-4000:]}"


def _cancel(all_of: Runs) -> None:
    """As a user does it, or an operator."""
    run = all_of.cancelled
    run.wait_asked(40)
    job = run.running_job()
    all_of.shown = ask("scontrol", "show", "job", "--details", job) + ask("scontrol", "write", "batch_script", job, "-")
    all_of.shown += ask("squeue", "--jobs", job, "--Format", "name:500,comment:500,command:2000,adminComment:200")
    ask("scancel", job)


def _move(all_of: Runs) -> None:
    """The node goes down and comes back, as after a crash."""
    run = all_of.moved
    run.wait_asked(40)
    job = run.running_job()
    ask("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    wait_until(lambda: jobs(run.folder)[job]["state"] != "RUNNING", "the job to leave its node", 60)
    resume("node2")
    # The job starts again after two minutes: the node has to end what it was at, and at once it would collide with itself.


def _drain(all_of: Runs) -> None:
    """The node of a job that runs takes no further ones."""
    run = all_of.whole
    job = run.running_job("rule_c")
    all_of.drained = jobs(run.folder)[job]["node"]
    ask("scontrol", "update", f"nodename={all_of.drained}", "state=drain", "reason=test")


def _stop_training(all_of: Runs) -> None:
    """Between two updates, in both processes."""
    run = all_of.trained
    wait_until(lambda: "tokens, " in log_of(run, "finetune/star1.log"), "the training to begin")
    ask("scancel", run.running_job())


def paid(run: Run) -> tuple[int, int]:
    """How many items were asked for, and how many requests went out beyond the one for each."""
    counted = Counter(run.items)
    return len(counted), sum(counted.values()) - len(counted)


def ended(run: Run) -> list[str]:
    """How its jobs ended, the first first."""
    return [job["state"] for job in jobs(run.folder).values()]


def test_the_workflow_runs_through_the_queue(runs: Runs) -> None:
    """Each job but downloads went through it, once; what is there is complete for a run without Slurm."""
    found = [job["comment"] for job in jobs(runs.whole.folder).values()]
    assert sorted(found) == sorted(
        [
            *(f"rule_{name}" for name in ("collect", "categorize", "reason", "score", "curate")),
            *(f"rule_{name}_wildcards_tiny" for name in ("fetch_model", "generate", "judge")),
        ]
    )
    assert set(ended(runs.whole)) == {"COMPLETED"}
    assert "Nothing to be done" in run_in(runs.whole.folder, "snakemake", "-n", "--", *TARGETS)


def test_a_drained_node_gets_no_further_jobs_and_its_own_ends(runs: Runs) -> None:
    nodes = [job["node"] for job in jobs(runs.whole.folder).values()]
    last = max(place for place, node in enumerate(nodes) if node == runs.drained)
    assert set(nodes[last + 1 :]) == {"node3", "node4"} - {runs.drained}
    assert len(nodes) - last > 3


def test_hooks_run_in_the_head_and_not_in_its_jobs(runs: Runs) -> None:
    """The estimate is told once, by what a person started; a job's own Snakemake tells nothing of the kind."""
    for run in (runs.cancelled, runs.late):
        assert run.told.count("model calls by estimate") == 1
        logs = [path.read_text() for path in (run.folder / ".snakemake/slurm_logs").rglob("*.log")]
        assert logs  # those of failed jobs stay
        assert not any("model calls by estimate" in text for text in logs)


def test_a_cancelled_job_goes_on_and_pays_nothing_twice(runs: Runs) -> None:
    assert ended(runs.cancelled) == ["CANCELLED", "COMPLETED"]
    assert paid(runs.cancelled) == (120, 0)
    assert len(read_rows(runs.cancelled.folder / "data/cot.jsonl")) == 120


def test_a_job_out_of_time_gets_more_of_it_and_pays_nothing_twice(runs: Runs) -> None:
    """On a busy machine it may take a third try."""
    found = list(jobs(runs.late.folder).values())
    assert [job["limit"] for job in found] == ["1:00", "4:00", "7:00"][: len(found)]
    assert [job["state"] for job in found] == ["TIMEOUT"] * (len(found) - 1) + ["COMPLETED"]
    assert len(found) > 1
    assert paid(runs.late) == (170, 0)


def test_a_job_out_of_memory_gets_more_of_it(runs: Runs) -> None:
    """It is killed without a word, so what was on its way is asked again: no more than there are slots."""
    found = list(jobs(runs.leaking.folder).values())
    assert [job["memory"] for job in found] == ["600M", "1200M"]
    assert found[0]["state"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")
    assert found[1]["state"] == "COMPLETED"
    items, again = paid(runs.leaking)
    assert items == 120
    assert again <= SLOTS
    assert max(Counter(runs.leaking.items).values()) <= 2


def test_a_job_whose_node_went_down_is_started_anew_by_slurm_alone(runs: Runs) -> None:
    """The same job, not a second one beside it."""
    (found,) = jobs(runs.moved.folder).values()
    assert (found["state"], found["node"]) == ("COMPLETED", "node2")
    (number,) = jobs(runs.moved.folder)
    assert " Restarts=1 " in ask("scontrol", "show", "job", number)
    items, again = paid(runs.moved)
    assert items == 120
    assert again <= SLOTS


def test_training_that_is_cancelled_goes_on_where_it_was(runs: Runs) -> None:
    assert ended(runs.trained) == ["CANCELLED", "COMPLETED"]
    assert "goes on after update " in log_of(runs.trained, "finetune/star1.log")
    history = read_json(runs.trained.folder / "results/metrics/finetune-star1.json")["history"]
    assert len(history) == 150 * len(micro.ROWS) // 4


def test_no_key_is_seen_by_other_users(runs: Runs) -> None:
    """Neither in what Slurm shows, nor in a file of the project; jobs have it all the same, as their endpoint was told it."""
    assert "rule_reason" in runs.shown
    assert "scripts.reason" not in runs.shown  # a job's script starts Snakemake, which knows the rest
    assert KEY not in runs.shown
    files = [path for path in runs.cancelled.folder.rglob("*") if path.is_file()]
    assert any(".snakemake/slurm_logs" in str(path) for path in files)
    assert [str(path) for path in files if KEY.encode() in path.read_bytes()] == []
