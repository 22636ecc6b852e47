"""What a run's last lines say of the jobs that failed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from star1.workflow import engine

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: three\n'


def _job(name: str, *logs: Path, **wildcards: str) -> Any:
    return SimpleNamespace(rule=SimpleNamespace(name=name), wildcards_dict=wildcards, log=list(logs))


def _told(capsys: pytest.CaptureFixture[str], *failed: Any, kill: str | None = None) -> list[str]:
    scheduler = SimpleNamespace(failed=set(map(_Hashed, failed)), _user_kill=kill)
    engine.tell_failures(SimpleNamespace(scheduler=scheduler))
    return capsys.readouterr().err.splitlines()


class _Hashed(SimpleNamespace):
    """Snakemake keeps failed jobs, single ones and groups, in a set."""

    def __init__(self, job: Any) -> None:
        super().__init__(**vars(job))

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "10 of 20\nerror: a.csv: columns b; expected a column 'c'.\n",
            "error: a.csv: columns b; expected a column 'c'.",
        ),
        (f"10 of 20\n{TRACEBACK}", "ValueError: three"),
    ],
)
def test_each_failed_job_is_told_with_its_error_and_log(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "ours.log"
    log.write_text(text)
    assert _told(capsys, _job("fetch_source", log, source="ours")) == [f"failed: fetch_source-ours: {said} ({log})"]


def test_a_job_killed_without_a_word_and_the_jobs_of_a_group_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "progress.log").write_text("10 of 20\n")
    group = SimpleNamespace(jobs=[_job("b"), _job("a", tmp_path / "progress.log", tmp_path / "none.log")])
    assert _told(capsys, group) == [f"failed: {name}: ended without an error of its own" for name in "ab"]


def test_a_run_that_was_stopped_says_how_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the same command goes on from here" in _told(capsys, kill="graceful")[-1]
    assert _told(capsys) == []


def test_within_dvc_the_jobs_own_words_are_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(engine.INSIDE_DVC, "finetune-x")
    assert _told(capsys, _job("a")) == []
