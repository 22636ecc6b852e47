"""While a job waits or works, DVC is free for other things; what they did, and what the job made, are both on record."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.test_workflow import Project, make

SUMMARY = "results/summary.txt"
BUSY = "is busy, it is being blocked by"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow after one run, whose next job waits until the file HANG is gone; and a file of another kind, tracked."""
    project = make(tmp_path_factory.mktemp("finished") / "project")
    project.edit("scripts/work.py", "time.sleep(60)", 'while os.path.exists("HANG"): time.sleep(0.05)')
    project.snakemake("--quiet", "all")
    (project.path / "notes.txt").write_text("notes")
    project.run("dvc", "add", "-q", "notes.txt")
    project.run("dvc", "push", "-q", "notes.txt.dvc")
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    return project.path


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@contextmanager
def waiting(project: Project, command: Sequence[str]) -> Iterator[None]:
    """While a job of this command waits; then it ends, and must end well."""
    (project.path / "HANG").touch()
    made = project.path / "results/models/a.txt"
    with subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            while not made.exists() or made.read_text() != "half of it":
                assert run.poll() is None, run.stdout and run.stdout.read()
                time.sleep(0.05)
            yield
        finally:
            (project.path / "HANG").unlink()
        text = run.stdout.read() if run.stdout else ""
        assert run.wait() == 0, text


def file_md5(tracked: Path) -> str:
    return str(yaml.safe_load(tracked.read_text())["outs"][0]["md5"])


def use_dvc(project: Project) -> None:
    """Bring something back, take something new in, record a change: all that needs DVC's lock."""
    (project.path / "notes.txt").unlink()
    digest = file_md5(project.path / "notes.txt.dvc")
    (project.path / ".dvc/cache/files/md5" / digest[:2] / digest[2:]).unlink()
    project.run("dvc", "pull", "-q", "notes.txt.dvc")
    (project.path / "new.txt").write_text("new")
    project.run("dvc", "add", "-q", "new.txt")
    (project.path / "notes.txt").write_text("other notes")
    project.run("dvc", "commit", "-q", "-f", "notes.txt.dvc")


def test_dvc_is_free_while_a_job_of_snakemake_waits(project: Project) -> None:
    with waiting(project, ["snakemake"]):
        use_dvc(project)
        assert "changed outs" in project.run("dvc", "status", "train-a")
    assert "0.9" in project.read(SUMMARY)
    assert project.clean()


def test_dvc_repro_holds_only_the_files_of_the_stage_at_work(project: Project) -> None:
    """DVC lets its own lock go while a stage's command runs; the stage's files stay locked, for itself alone."""
    with waiting(project, ["dvc", "repro", "--no-run-cache", "-q"]):
        use_dvc(project)
        assert "up to date" in project.run("dvc", "status", "train-b")
        assert BUSY in project.run("dvc", "status", "train-a", ok=False)
    assert "0.9" in project.read(SUMMARY)
    assert project.clean()


def test_what_a_run_made_is_recorded_when_another_dvc_command_lets_go(project: Project) -> None:
    """The record waited three seconds and was then left out: `dvc status` called everything changed."""
    hold = "import time; from dvc.repo import Repo; repo = Repo('.'); repo.lock.lock(); print(1, flush=True); time.sleep(%s)"
    with subprocess.Popen(["python", "-c", hold % 60], cwd=project.path, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        with subprocess.Popen(["snakemake"], cwd=project.path, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr
            said = next(line for line in run.stderr if "another command is at work" in line)
            assert "waiting for its end" in said
            other.kill()
            run.stderr.read()
            assert run.wait() == 0
    assert project.clean()
