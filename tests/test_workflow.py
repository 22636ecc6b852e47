"""The two engines agree, and neither takes a wrong artifact for the right one.

On a small workflow of four jobs that uses the project's own engine code; test_default_run.py runs the real one.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

SNAKEFILE = """
import yaml
from star1.workflow import engine
from star1.workflow.lookups import Params, code

P = Params(yaml.safe_load(open("params.yaml")))
MODELS = P.names("models")
engine.before_plan(workflow)

rule all:
    input: "results/split.txt", expand("results/models/{m}.txt", m=MODELS), "results/summary.txt"

rule split:
    input: code=code("work"), raw="raw.txt"
    output: "results/split.txt"
    params: low=P("split.low"), high=P("split.high")
    shell: "python -m scripts.work {output} {input.raw} {params.low} {params.high}"

rule train:
    input: code=code("work"), data="results/split.txt"
    output: "results/models/{model}.txt"
    params: alpha=P("models.{model}.alpha")
    shell: "python -m scripts.work {output} {input.data} {params.alpha}"

rule summary:
    input: code=code("work"), models=expand("results/models/{m}.txt", m=MODELS)
    output: "results/summary.txt"
    shell: "python -m scripts.work {output} {input.models}"

onstart: engine.on_start(workflow)
onsuccess: engine.on_end(workflow)
onerror:
    engine.on_end(workflow)
    engine.tell_failures(workflow)
"""
WORK = """
import os, pathlib, sys, time
out, *rest = sys.argv[1:]
with open("ran.txt", "a") as log:
    log.write(out + "\\n")
if os.path.exists("FAIL"):
    open(out, "w").write("half of it")
    sys.exit(1)
if os.path.exists("HANG"):
    open(out, "w").write("half of it")
    time.sleep(60)
if os.path.exists("MEANWHILE"):
    exec(open("MEANWHILE").read())
text = "".join(pathlib.Path(item).read_text() if os.path.exists(item) else f"<{item}>" for item in rest)
open(out, "w").write(text)
"""
PARAMS = "split: {low: 1, high: 2}\nmodels:\n  a: {alpha: 0.1}\n  b: {alpha: 0.2}\n"


class Project:
    """A copy of the small workflow, driven by the real commands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str, ok: bool = True) -> str:
        """Run a command; gives its output, stderr included."""
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=120, check=False)
        text = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, f"{command} ended with {done.returncode}:\n{text}"
        return text

    def snakemake(self, *options: str, ok: bool = True) -> list[str]:
        """Run the workflow with Snakemake; gives the outputs it made."""
        return self.ran("snakemake", *options, ok=ok)

    def repro(self, *options: str, ok: bool = True) -> list[str]:
        """Run the workflow with DVC; gives the outputs it made."""
        return self.ran("dvc", "repro", *options, ok=ok)

    def ran(self, *command: str, ok: bool = True) -> list[str]:
        """Run a command; gives the outputs that the jobs under it made, sorted."""
        log = self.path / "ran.txt"
        log.unlink(missing_ok=True)
        self.run(*command, ok=ok)
        return sorted(log.read_text().split()) if log.exists() else []

    def plans(self) -> tuple[list[str], list[str]]:
        """What each engine would run, by stage name."""
        done = subprocess.run(["star1", "plan", "--json"], cwd=self.path, capture_output=True, text=True, check=False)
        plans = json.loads(done.stdout)
        return plans["snakemake"], plans["dvc"]

    def clean(self) -> bool:
        """Whether both engines say that there is nothing to do."""
        assert "Nothing to be done" in self.run("snakemake", "-n"), self.run("snakemake", "-n")
        assert "up to date" in self.run("dvc", "status"), self.run("dvc", "status")
        return True

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text in a file."""
        text = (self.path / name).read_text()
        assert old in text
        (self.path / name).write_text(text.replace(old, new))

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self.path / name).read_text()


def make(path: Path) -> Project:
    (path / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "stage.sh", path / "scripts")
    (path / "scripts" / "__init__.py").touch()
    (path / "scripts" / "work.py").write_text(WORK)
    shutil.copytree(ROOT / "profiles" / "default", path / "profiles" / "default")
    (path / "Snakefile").write_text(SNAKEFILE)
    (path / "params.yaml").write_text(PARAMS)
    (path / "raw.txt").write_text("raw")
    (path / ".gitignore").write_text("/.snakemake/\n/results/\nran.txt\n__pycache__/\n")
    (path / ".dvcignore").write_text("/.snakemake/\n/dvc-store/\n")
    project = Project(path)
    for command in (
        "git init -q",
        "git config user.email test@example.org",
        "git config user.name test",
        "dvc init -q",
        "dvc config core.analytics false",
        "dvc remote add -q -d release dvc-store",
        "star1 dvc-yaml",
    ):
        project.run(*command.split())
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small workflow after one run, committed."""
    project = make(tmp_path_factory.mktemp("finished") / "project")
    assert len(project.snakemake()) == 4
    project.run("dvc", "push", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "finished")
    return project.path


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy of the finished workflow of its own."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


MODELS = ["results/models/a.txt", "results/models/b.txt"]
STAGES = ["split", "summary", "train-a", "train-b"]
ALL = [*MODELS, "results/split.txt", "results/summary.txt"]


def test_nothing_to_do_after_a_run(project: Project) -> None:
    assert project.clean()
    assert project.snakemake() == project.repro() == []


@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_fresh_clone_is_complete_after_a_bare_pull(project: Project, tmp_path: Path, link: str) -> None:
    project.run("git", "clone", "-q", str(project.path), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "config", "cache.type", link)
    clone.run("dvc", "pull", "-q")
    assert clone.clean()
    if link == "copy":
        return
    clone.edit("params.yaml", "alpha: 0.1", "alpha: 0.3")
    assert clone.plans() == (["summary", "train-a"], ["summary", "train-a"])
    assert clone.snakemake() == ["results/models/a.txt", "results/summary.txt"]
    assert clone.clean()
    clone.run("dvc", "gc", "-q", "-w", "-f")  # fails on a damaged cache


def test_one_change_runs_the_same_stages_with_either_engine(project: Project, tmp_path: Path) -> None:
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.5")
    other = Project(tmp_path / "other")
    shutil.copytree(project.path, other.path, symlinks=True)
    assert project.snakemake() == other.repro("--no-run-cache") == ["results/models/a.txt", "results/summary.txt"]
    assert project.clean()
    assert other.clean()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "low: 1, high: 2", "low: 2, high: 1"),  # Snakemake alone compares sets of values without names
        ("params.yaml", "low: 1", "low: 2"),  # a value that another parameter has already
        ("scripts/work.py", "half of it", "a part"),
        ("raw.txt", "raw", "other"),
    ],
)
def test_every_kind_of_change_is_seen_by_both(project: Project, file: str, old: str, new: str) -> None:
    project.edit(file, old, new)
    assert project.plans() == (STAGES, STAGES)


def test_changed_input_with_an_old_file_time_is_seen(project: Project) -> None:
    project.edit("raw.txt", "raw", "older")
    os.utime(project.path / "raw.txt", (1e9, 1e9))
    assert project.plans()[0] == STAGES
    assert project.snakemake() == ALL
    assert project.clean()


def test_edit_that_is_taken_back_leaves_nothing_to_do(project: Project) -> None:
    project.edit("raw.txt", "raw", "x")
    assert project.plans()[0]
    project.edit("raw.txt", "x", "raw")
    assert project.clean()


@pytest.mark.parametrize("option", ["--until", "--omit-from"])
def test_a_part_of_the_workflow_leaves_dvc_yaml_whole(project: Project, option: str) -> None:
    before = (project.path / "dvc.yaml").read_text()
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.3")
    assert project.snakemake(option, "train" if option == "--until" else "summary") == ["results/models/a.txt"]
    assert (project.path / "dvc.yaml").read_text() == before
    assert project.plans() == (["summary"], ["summary"])


def test_list_entry_added_to_params(project: Project) -> None:
    project.edit("params.yaml", "  b: {alpha: 0.2}", "  b: {alpha: 0.2}\n  c: {alpha: 0.2}")
    assert "star1 dvc-yaml" in project.run(
        "dvc", "repro", ok=False
    )  # it does not know of c and must not pass off the old summary
    assert project.snakemake() == ["results/models/c.txt", "results/summary.txt"]
    assert "models/c" in project.read("dvc.yaml")
    assert project.clean()


def test_dvc_refuses_a_stage_that_is_out_of_step(project: Project) -> None:
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.4")
    project.edit("Snakefile", "{input.data} {params.alpha}", "{params.alpha} {input.data}")
    text = project.run("dvc", "repro", "--no-run-cache", ok=False)
    assert "star1 dvc-yaml" in text
    project.run("star1", "dvc-yaml")
    assert project.repro("--no-run-cache") == ALL[:2] + ALL[3:]
    assert project.clean()


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_failed_job_is_not_taken_for_a_finished_one(project: Project, engine: str) -> None:
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    (project.path / "FAIL").touch()
    project.run(*(["snakemake"] if engine == "snakemake" else ["dvc", "repro", "--no-run-cache"]), ok=False)
    (project.path / "FAIL").unlink()
    project.run("dvc", "checkout", "-q", "--force")  # puts the artifact for 0.1 back under its name
    assert "0.1" in project.read("results/models/a.txt")
    assert project.plans() == (["summary", "train-a"], ["summary", "train-a"])
    project.snakemake()
    assert "0.9" in project.read("results/models/a.txt")
    assert project.clean()


def test_killed_run_leaves_no_half_artifact_that_counts(project: Project) -> None:
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    (project.path / "HANG").touch()
    run = subprocess.Popen(["snakemake"], cwd=project.path, start_new_session=True, stderr=subprocess.DEVNULL)
    while "half" not in (project.read("results/models/a.txt") if (project.path / MODELS[0]).exists() else ""):
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    (project.path / "HANG").unlink()
    assert "train-a" in project.plans()[1]
    project.run("snakemake", "--unlock")
    assert project.snakemake("--rerun-incomplete") == ["results/models/a.txt", "results/summary.txt"]
    assert "0.9" in project.read("results/models/a.txt")
    assert project.clean()


def test_half_written_artifact_then_dvc(project: Project) -> None:
    """As above, with DVC as the next engine: it has the right content in its cache and need not make it again."""
    (project.path / "results/models/a.txt").write_text("half of it")
    project.repro("--no-run-cache")
    assert "0.1" in project.read("results/models/a.txt")
    assert project.clean()


def test_hand_edited_output_is_made_again(project: Project) -> None:
    project.edit("results/models/a.txt", "0.1", "0.7")
    assert "train-a" in project.plans()[0]
    assert "NOT TRUSTED" in project.run("snakemake", "-n", "--printshellcmds")
    assert project.snakemake() == ["results/models/a.txt", "results/summary.txt"]
    assert "0.1" in project.read("results/models/a.txt")
    assert project.clean()


def test_hand_edited_output_put_back_by_dvc_is_fine(project: Project) -> None:
    project.edit("results/models/a.txt", "0.1", "0.7")
    assert "train-a" in project.plans()[0]
    project.run("dvc", "checkout", "-q", "--force")
    assert project.clean()


def test_output_without_a_record_is_not_trusted(project: Project) -> None:
    shutil.rmtree(project.path / ".snakemake")
    (project.path / "dvc.lock").unlink()
    assert len(project.plans()[0]) == 4
    assert project.snakemake() == ALL


def test_reverted_parameter(project: Project) -> None:
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    project.snakemake()
    project.edit("params.yaml", "alpha: 0.9", "alpha: 0.1")
    assert project.plans() == (["summary", "train-a"], ["summary", "train-a"])
    project.snakemake()
    assert "0.1" in project.read("results/summary.txt")
    assert project.clean()


def test_run_cache_hit_is_known_to_snakemake(project: Project) -> None:
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    assert project.repro() == ["results/models/a.txt", "results/summary.txt"]
    project.edit("params.yaml", "alpha: 0.9", "alpha: 0.8")
    assert project.repro() == ["results/models/a.txt", "results/summary.txt"]
    project.edit("params.yaml", "alpha: 0.8", "alpha: 0.9")
    assert project.repro() == []  # DVC restores both from its run cache
    assert "0.9" in project.read("results/summary.txt")
    assert project.clean()


def test_run_cache_hit_with_the_same_content_is_known_to_snakemake(project: Project) -> None:
    """There and back: dvc.lock and outputs are as Snakemake saw them last, and its records are of the state between."""
    project.edit("scripts/work.py", "half of it", "a part")
    assert project.repro() == ALL
    project.edit("scripts/work.py", "a part", "half of it")
    assert project.repro() == []
    assert project.clean()


def test_old_version_by_git_and_dvc_checkout(project: Project) -> None:
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    project.snakemake()
    project.run("git", "checkout", "-q", ".")
    assert project.plans()[0] == ["summary", "train-a"]
    project.run("dvc", "checkout", "-q", "--force")
    assert project.clean()


def test_dvc_sees_a_changed_module_or_value_by_itself(project: Project) -> None:
    """`dvc status` alone tells of it: what stages stand on is an output of a stage, which is stale then."""
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.4")
    assert "in_step" in (told := project.run("dvc", "status"))
    assert "models.a" in told
    project.edit("params.yaml", "alpha: 0.4", "alpha: 0.1")
    assert "up to date" in project.run("dvc", "status")
    project.edit("scripts/work.py", "half of it", "a part")
    assert "scripts/work.py" in project.run("dvc", "status")
    assert project.repro("--no-run-cache") == ALL
    assert project.clean()


def test_comment_in_params_runs_nothing(project: Project) -> None:
    project.edit("params.yaml", "models:", "# of each\nmodels:")
    assert project.repro() == []
    assert project.clean()


def test_a_stage_run_on_its_own_does_not_pass_for_one_with_other_code(project: Project) -> None:
    """`dvc repro -s` leaves out what tells DVC of code and values; it would record those of before."""
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.4")
    told = project.run("dvc", "repro", "-f", "-s", "train-a", "--no-run-cache", ok=False)
    assert "results/basis/train-a.json: not the code and values that there are now" in told
    project.edit("params.yaml", "alpha: 0.4", "alpha: 0.1")
    project.repro()
    assert "0.1" in project.read("results/models/a.txt")
    assert project.clean()


@pytest.mark.parametrize(
    ("file", "old", "new", "stale"),
    [
        ("params.yaml", "alpha: 0.1", "alpha: 0.6", ["summary", "train-a"]),
        ("scripts/work.py", "half of it", "a part", STAGES),
    ],
)
def test_what_changes_while_a_run_goes_on_is_not_recorded_as_what_it_used(
    project: Project, file: str, old: str, new: str, stale: list[str]
) -> None:
    """The record of an output was made at the end of the run, from params.yaml and the code as they were then."""
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    old = old.replace("0.1", "0.9")
    edit = f"p = pathlib.Path({file!r}); p.write_text(p.read_text().replace({old!r}, {new!r}))"
    (project.path / "MEANWHILE").write_text(edit)
    assert project.snakemake() == ["results/models/a.txt", "results/summary.txt"]
    (project.path / "MEANWHILE").unlink()
    assert project.plans() == (stale, stale)
    assert project.snakemake()
    assert project.clean()


def test_another_job_of_a_rule_renames_no_file_that_stages_stand_on(project: Project) -> None:
    """The first stage would seem changed to DVC, and to Snakemake it would not."""
    project.edit("params.yaml", "  b: {alpha: 0.2}\n", "")
    project.snakemake()
    names = sorted(path.name for path in (project.path / "results/basis").iterdir())
    assert names == ["split.json", "summary.json", "train-a.json"]
    project.edit("params.yaml", "  a: {alpha: 0.1}", "  a: {alpha: 0.1}\n  c: {alpha: 0.2}")
    project.run("star1", "dvc-yaml")
    assert project.plans() == (["summary", "train-c"], ["summary", "train-c"])


def test_dvc_yaml_check_names_the_command(project: Project) -> None:
    project.run("star1", "dvc-yaml", "--check")
    project.edit("dvc.yaml", "raw.txt", "row.txt")
    assert "star1 dvc-yaml" in project.run("star1", "dvc-yaml", "--check", ok=False)
