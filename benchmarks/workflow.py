"""What planning costs: `snakemake -n`, `dvc status` and `star1 plan` over this project's own rules, by number of jobs.

python -m benchmarks.workflow                   # the smallest DAG, 150 and 1,500 jobs: some fifteen minutes
python -m benchmarks.workflow --jobs 150        # one size
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.dedup import table
from star1.records import write_text
from tests.test_default_run import copy_project

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "snakemake -n": ["snakemake", "-n", "--quiet", "all"],
    "dvc status": ["dvc", "status"],
    "star1 plan": ["star1", "plan"],
}
SIZES = (10, 150, 1500)
# The DAG with one source, benchmark, selection and model each; and what a run adds (finetune, generate, judge, release_model).
FEWEST, OF_A_RUN = 21, 4
TARGET_JOBS, TARGET_S = 150, 3.0


class Cost(NamedTuple):
    """What a command took [s], with all that it started."""

    cpu: float
    wall: float


def settings(jobs: int) -> dict[str, Any]:
    """A preset under which the DAG has about so many jobs; as with several seeds or models, most are of runs."""
    if jobs < 2 * FEWEST:
        one = ["strongreject"]
        return {
            "collect": {
                "sources": ["school"],
                "benchmarks": dict.fromkeys(("jbb", "jbb_benign", "wildjailbreak", "xstest", "xstest_unsafe")),
            },
            "curate": {"selections": {"random": None}},
            "generate": {"models": ["tiny"], "benchmarks": one},
            "finetune": {"runs": {"star1": None, "star1+benign": None}},
        }
    runs = [f"run-{number:03}" for number in range((jobs - FEWEST - 13) // OF_A_RUN)]
    entries = {name: {"base": "tiny", "data": ["star1"], "think": True, "seed": at} for at, name in enumerate(runs)}
    return {
        "finetune": {"runs": {"star1": None, "star1+benign": None, **entries}},
        "generate": {"models": ["tiny", *runs]},
    }


def call(folder: Path, *command: str) -> Cost:
    """Run a command in a project.

    Raises:
        SystemExit: it failed.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # Bytecode is kept as it is for users, but apart from theirs.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    variables |= {"PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode")} if folder != ROOT else {}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    if done.returncode:
        raise SystemExit(
            f"benchmarks: {' '.join(command)} ended with {done.returncode}\n{done.stdout[-500:]}{done.stderr[-1500:]}"
        )
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def fill() -> None:
    """In a project: make up every output, tiny, and record all of them as made."""
    from star1.workflow import basis, dvcfile, sync
    from star1.workflow.dag import CHECKPOINT_MANIFEST, jobs, load_dag, stage_name

    names = {dvcfile.IN_STEP}
    with load_dag() as (workflow, dag):
        basis.write(basis.of_jobs(workflow, dag))
        for job in jobs(dag):
            names.add(stage_name(job))
            for file in map(Path, job.output):
                write_text(file, '{"files": {}}\n' if file.name == CHECKPOINT_MANIFEST else f'"{file}"\n')
    sync._commit(names)
    sync.to_snakemake()
    sync.remember()


def count(folder: Path) -> int:
    """Jobs of the DAG: all stages but the one that no job is behind."""
    return len(yaml.safe_load((folder / "dvc.yaml").read_text("utf-8"))["stages"]) - 1


def measure(folder: Path, jobs: int, repeats: int) -> list[tuple[int, str, str, Cost]]:
    """Costs of the commands in a project with about so many jobs: before anything is made, and when all is up to date."""
    folder.mkdir()
    copy_project(folder)
    write_text(folder / "presets/made.yaml", yaml.safe_dump(settings(jobs)))
    (folder / "dvc.lock").unlink()
    call(folder, "star1", "preset", "made")
    n, found = count(folder), list[tuple[int, str, str, Cost]]()
    for state in ("nothing made", "up to date"):
        if state == "up to date":
            call(folder, sys.executable, "-m", "benchmarks.workflow", "--fill")
            time.sleep(2.5)  # files younger than two seconds are not trusted by their times
            found.append((n, state, "first snakemake -n", call(folder, *COMMANDS["snakemake -n"])))
        for name, command in COMMANDS.items():
            call(folder, *command)
            found.append((n, state, name, min(call(folder, *command) for _ in range(repeats))))
    return found


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=SIZES, help="numbers of jobs, about")
    parser.add_argument("--repeats", type=int, default=3, help="the least of so many is given")
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fill:
        fill()
        return
    with tempfile.TemporaryDirectory() as place:
        start = call(ROOT, "snakemake", "--version"), call(ROOT, "dvc", "--version")
        print("CPU seconds are of a command and all that it starts. Wall seconds hang on what else the machine does.")
        print(f"snakemake --version: {start[0].cpu:.2f} CPU-s; dvc --version: {start[1].cpu:.2f} CPU-s")
        found = [line for jobs in args.jobs for line in measure(Path(place) / str(jobs), jobs, args.repeats)]
    lines = [
        (
            f"{n:,}",
            state,
            name,
            f"{cost.cpu:.2f}",
            f"{cost.wall:.2f}",
            f"{cost.cpu / n * 1000:.1f}",
            verdict(n, name, cost),
        )
        for n, state, name, cost in found
    ]
    table("Planning", ("jobs", "state", "command", "CPU-s", "wall s", "CPU-ms a job", "target"), lines)


def verdict(n: int, name: str, cost: Cost) -> str:
    """The target, where there is one for this line."""
    if name not in ("snakemake -n", "dvc status") or abs(n - TARGET_JOBS) > 10:
        return ""
    return f"<= {TARGET_S:.0f} s: {'met' if cost.cpu <= TARGET_S else 'MISSED'}"


if __name__ == "__main__":
    main()
