"""What is edited while a job runs is not recorded as what the job used: for a module, a data file and a rule, by both engines."""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from star1.workflow import dvcfile, starts, trust
from star1.workflow.dag import digest
from tests.test_workflow import STAGES, Project, make

CODE = ("scripts/work.py", "half of it", "a part")
DATA = ("raw.txt", "raw", "other")
RULE = ("Snakefile", "{input.data} {params.alpha}", "{params.alpha} {input.data}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small workflow after one run, committed."""
    project = make(tmp_path_factory.mktemp("finished") / "project")
    project.snakemake("--quiet", "all")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "finished")
    return project.path


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def meanwhile(project: Project, *edits: tuple[str, str, str]) -> None:
    """Have the first job make these edits while it runs; its inputs it reads after them."""
    lines = (
        f"p = pathlib.Path({file!r}); p.write_text(p.read_text().replace({old!r}, {new!r}))" for file, old, new in edits
    )
    (project.path / "MEANWHILE").write_text("\n".join([*lines, "os.remove('MEANWHILE')"]))


def test_edit_while_a_job_of_snakemake_runs_makes_it_run_again(project: Project) -> None:
    """Digests were taken when the job had ended: both engines held its output to be made by the edited files."""
    meanwhile(project, CODE, DATA)
    told = project.run("snakemake", "--forceall")
    assert told.count("not recorded: ") == 1  # the jobs after it started with the edited file
    assert f"not recorded: split: {trust.MIXED}raw.txt and 1 more; expected what it started with. Hint: " in told
    assert project.plans() == (STAGES, STAGES)
    assert "NOT TRUSTED: what it was made from changed" in project.run("snakemake", "-n")


def test_edit_while_a_stage_of_dvc_runs_fails_the_stage(project: Project) -> None:
    """DVC takes the digests of dependencies after the command."""
    meanwhile(project, CODE, DATA)
    before = project.read("dvc.lock")
    told = project.run("dvc", "repro", "-f", "-s", "split", ok=False)
    assert f"not recorded: split: {trust.MIXED}raw.txt and 1 more" in told
    assert project.read("dvc.lock") == before
    assert project.plans() == (STAGES, STAGES)


def test_edit_that_is_taken_back_after_the_run(project: Project) -> None:
    """Nobody knows which content the job read; but it made what DVC has on record of an earlier run with the old one."""
    meanwhile(project, CODE)
    project.snakemake("--force", "--", "results/split.txt")
    assert "split" in project.plans()[0]
    project.edit("scripts/work.py", "a part", "half of it")
    assert project.plans() == ([], [])


def test_rule_that_is_edited_while_a_run_goes_on_is_not_recorded_as_the_one_that_ran(project: Project) -> None:
    """With another edit beside it, dvc.yaml was written anew, and what the old rule had made was recorded for the new one."""
    project.edit("params.yaml", "alpha: 0.1", "alpha: 0.9")
    meanwhile(project, RULE, ("params.yaml", "alpha: 0.2", "alpha: 0.3"))
    project.snakemake()
    stale = ["summary", "train-a", "train-b"]
    assert project.plans() == (stale, stale)


def test_rule_that_is_edited_alone_leaves_in_step_to_be_run(project: Project) -> None:
    """DVC took the edited rules for those of dvc.yaml, and had nothing to do."""
    meanwhile(project, RULE)
    project.snakemake("--force", "--", "results/split.txt")
    told = project.run("dvc", "status")
    assert "in_step" in told
    assert "Snakefile" in told


def test_what_in_step_reads_stays_as_it_is_while_it_runs(project: Project) -> None:
    """DVC takes the digests of what it depends on when it has ended."""
    check = "import sys, time; from star1.workflow.dvcfile import check; check(time.time()); check(time.time() - 3600)"
    told = project.run(sys.executable, "-c", check, ok=False)
    assert "it changed while stage in_step ran; expected to stay as it is meanwhile. Hint: `dvc repro` again." in told


def test_a_job_of_a_cluster_notes_in_a_file_what_it_starts_with(project: Project) -> None:
    """It starts long after it was handed in, in a process of its own."""
    outside = ["--mode", "subprocess", "--target-jobs", "split:", "--allowed-rules", "split", "--no-hooks"]
    project.run("snakemake", *outside, "--cores", "1", "--nolock", "--force", "--ignore-incomplete")
    note = json.loads(project.read(".snakemake/star1/starts/split.json"))
    record = json.loads((project.path / trust.record_file("results/split.txt")).read_bytes())
    assert note["files"] == record["input_checksums"]
    assert note["params"] == record["params"]
    assert note["job"] in project.read("dvc.yaml")


FILES = {"a.py": "sha256:1", "rows.jsonl": "sha256:2"}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A job that is to run elsewhere."""
    monkeypatch.chdir(tmp_path)
    rule = SimpleNamespace(name="judge", shellcmd="judge", params=[])
    names = {"input": ["a.py", "rows.jsonl"], "output": ["out.txt"], "wildcards_dict": {}, "wildcards": {}}
    return SimpleNamespace(rule=rule, container_img_url=None, attempt=1, **names)


def reason(job: Any, note: dict[str, Any] | None, files: dict[str, str], params: list[str]) -> str | None:
    """Why a record of the job is marked, when this is the note of it."""
    here = starts.Starts()
    here.expect(SimpleNamespace(jobs=[job], needrun=lambda _: True))
    if note is not None:
        starts.FOLDER.mkdir(parents=True)
        (starts.FOLDER / "judge.json").write_text(json.dumps(note))
    record = SimpleNamespace(input_checksums=files, params=params)
    here.check("out.txt", record)
    assert here.mixed() == ({"judge"} if record.params != params else set())
    job.attempt = 2
    assert not here.mixed()  # it is run again in this run, and has not ended
    return None if record.params == params else trust._lasting({"params": record.params})


def test_job_that_started_with_what_is_on_record(job: Any) -> None:
    assert reason(job, {"files": FILES, "job": digest(job), "params": ["p=1"]}, FILES, ["p=1"]) is None


def test_file_that_changed_between_start_and_record(job: Any) -> None:
    note = {"files": FILES, "job": digest(job), "params": ["p=1"]}
    assert reason(job, note, FILES | {"rows.jsonl": "sha256:3"}, ["p=1"]) == trust.MIXED + "rows.jsonl"


def test_file_that_is_gone_when_the_job_has_ended(job: Any) -> None:
    note = {"files": FILES, "job": digest(job), "params": ["p=1"]}
    assert reason(job, note, {}, ["p=1"]) == trust.MIXED + "a.py and 1 more"


@pytest.mark.parametrize("change", [{"params": ["p=2"]}, {"job": "other"}])
def test_values_or_rule_that_changed_before_a_job_came_out_of_the_queue(job: Any, change: dict[str, Any]) -> None:
    """Its process reads params.yaml and the rules itself; what is recorded was planned when it was handed in."""
    note = {"files": FILES, "job": digest(job), "params": ["p=1"], **change}
    assert reason(job, note, FILES, ["p=1"]) == f"{trust.MIXED}its rule, or values of params.yaml"


def test_job_without_a_note(job: Any) -> None:
    assert reason(job, None, FILES, ["p=1"]) == trust.UNNOTED


def test_note_of_an_earlier_run_does_not_count(job: Any) -> None:
    starts.FOLDER.mkdir(parents=True)
    (starts.FOLDER / "judge.json").write_text(json.dumps({"files": FILES, "job": digest(job), "params": []}))
    starts.Starts().expect(SimpleNamespace(jobs=[job], needrun=lambda _: True))
    assert not list(starts.FOLDER.iterdir())


def test_file_that_changed_right_after_the_job(job: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """DVC would take its digest next."""
    for name in FILES:
        Path(name).write_text(name)
    job.dag = SimpleNamespace(workflow=SimpleNamespace(is_main_process=True))
    here = starts.Starts()
    here.expect(SimpleNamespace(jobs=[job], needrun=lambda _: True))
    here.note(job)
    here.look_again()
    assert not here.mixed()
    Path("a.py").write_text("edited")
    here.look_again()
    here.look_again()
    assert here.mixed() == {"judge"}
    assert capsys.readouterr().err.count(f"not recorded: judge: {trust.MIXED}a.py; expected") == 1


def test_record_that_no_job_of_this_process_made_is_left_alone(job: Any) -> None:
    """So are those that are taken over from DVC."""
    record = SimpleNamespace(input_checksums=FILES, params=["p"])
    starts.Starts().check("out.txt", record)
    assert record.params == ["p"]


def test_mark_of_the_run_stays_when_the_files_are_put_back(job: Any) -> None:
    Path("out.txt").write_text("made")
    trust.write_record(
        "out.txt", {"params": [trust.MARK + trust.MIXED + "a.py"], "endtime": os.lstat("out.txt").st_mtime}
    )
    for _ in range(2):
        found = trust.survey(["out.txt"], trust.Digests())
        assert found == {"out.txt": trust.MIXED + "a.py"}
        trust.mark_untrusted(["out.txt"], found)


def test_files_that_were_written_or_put_there_since(tmp_path: Path) -> None:
    """Of one that was put there its own time tells nothing."""
    old, put = tmp_path / "old", tmp_path / "put"
    old.touch()
    time.sleep(0.05)
    moment = time.time()
    time.sleep(0.05)
    put.touch()
    os.utime(put, (1e9, 1e9))
    assert dvcfile.changed_since([str(old), str(put), "gone"], moment) == [str(put), "gone"]
