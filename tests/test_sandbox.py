"""Where there is no sandbox: nothing runs unless that is said in words."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from star1 import sandbox, syscalls
from star1.endpoints import read_settings
from star1.errors import SettingError
from star1.grading import NO_SANDBOX, grade, label
from star1.records import Row, read_rows, write_rows
from star1.sandbox import ACCEPTED, NoSandboxError, Sandbox
from tests.loopback import run_script, stand_in, write_pack

ROW: Row = {
    "id": "f",
    "benchmark": "programs",
    "purpose": "reasoning",
    "grader": "code",
    "question": 'def f():\n    """Give 1."""\n',
    "tests": "def check(candidate):\n    assert candidate() == 1\n",
    "entry_point": "f",
}
RIGHT = "```python\ndef f():\n    return 1\n```"


@pytest.fixture
def none_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without bubblewrap."""
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.check.cache_clear()
    yield
    sandbox.check.cache_clear()


@pytest.mark.usefixtures("none_here")
def test_it_refuses_to_run_a_program_without_a_sandbox(tmp_path: Path) -> None:
    escaped = f"```python\nopen({str(tmp_path / 'ran')!r}, 'w')\ndef f():\n    return 1\n```"
    with pytest.raises(
        NoSandboxError, match=r"no program bwrap; expected bubblewrap.*unsandboxed_code to the sentence"
    ):
        grade(ROW, escaped)
    left = grade(ROW, escaped, Sandbox(if_missing="unscored"))
    assert (left.verdict, left.reason) == (None, NO_SANDBOX)
    none = grade(ROW, "no program at all", Sandbox(if_missing="unscored"))  # else only failures would keep a verdict
    assert (none.verdict, none.reason) == (None, NO_SANDBOX)
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("none_here")
def test_an_answer_without_a_program_is_not_graded_where_others_cannot_be() -> None:
    with pytest.raises(NoSandboxError):
        grade(ROW, "I cannot.")
    assert grade(ROW, "I cannot.", Sandbox.model_validate({"unsandboxed_code": ACCEPTED})).verdict == "incorrect"


@pytest.mark.usefixtures("none_here")
def test_the_sentence_is_taken_at_its_word(tmp_path: Path) -> None:
    told = read_settings("--sandbox", json.dumps({"unsandboxed_code": ACCEPTED, "wall_s": 20.0}), Sandbox)
    assert grade(ROW, RIGHT, told).verdict == "correct"
    wrong = "```python\nimport os\nprint('passed')\nos._exit(0)\n```"
    assert grade(ROW, wrong, told).verdict == "incorrect"  # neither can a verdict be forged, nor a file be written
    assert (
        grade(ROW, f"```python\nopen({str(tmp_path / 'x')!r}, 'w').write('x' * 10)\n```", told).verdict == "incorrect"
    )
    for other in ("yes", "true", ACCEPTED.upper(), ""):
        with pytest.raises(SettingError, match="--sandbox"):
            read_settings("--sandbox", json.dumps({"unsandboxed_code": other}), Sandbox)


def test_a_bwrap_that_may_not_make_namespaces_is_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sandbox.check.cache_clear()
    sandbox._bwrap.cache_clear()
    try:
        with pytest.raises(NoSandboxError, match="No permissions to create new namespace"):
            grade(ROW, RIGHT)
    finally:
        sandbox.check.cache_clear()
        sandbox._bwrap.cache_clear()


@pytest.mark.usefixtures("none_here")
def test_the_judge_leaves_programs_unscored_or_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of the judge's own file, with the reason; the other grader goes on."""
    write_pack(tmp_path / "pack")
    generated = {"question": "?", "finish_reason": "stop"}
    rows = {"programs": ROW, "sums": {"id": "1", "purpose": "reasoning", "answer": "12"}}
    answers = {"programs": RIGHT, "sums": "\\boxed{12}"}
    for name, row in rows.items():
        write_rows(tmp_path / name, [row])
        write_rows(
            tmp_path / f"{name}.g", [{"id": row["id"], "response": answers[name], "answer": answers[name], **generated}]
        )
    judges = {"guard": {"kind": "guard", "endpoint": "here"}}
    flags = ["--model", "tiny", "--judges", json.dumps(judges), "--use", '{"harmful": ["guard"], "benign": ["guard"]}']
    flags += ["--costs", str(tmp_path / "costs"), "--benchmarks"]
    flags += [f"{name}={tmp_path / name}:{tmp_path / name}.g:{tmp_path / name}.j" for name in rows]
    flags += ["--policy", str(tmp_path / "pack"), "--coverage", "1"]
    flags += ["--endpoints", json.dumps({"here": stand_in().model_dump(mode="json")})]
    flags += ["--replies", str(tmp_path / "r"), "--quarantine", str(tmp_path / "q"), "--sandbox"]
    run_script("judge", *flags, '{"if_missing": "unscored"}')
    assert f"programs: grader: 1 unscored: {NO_SANDBOX}" in capsys.readouterr().out
    (judged,) = read_rows(tmp_path / "programs.j", ["id"])
    assert (judged["verdict"], judged["unscored"], judged["judge"]) == (None, NO_SANDBOX, label(ROW))
    (judged,) = read_rows(tmp_path / "sums.j", ["id"])
    assert (judged["verdict"], judged["judge"], judged["graded"]["given"]) == (
        "correct",
        "math-verify 0.9.0, rule 4",
        "12",
    )
    (tmp_path / "programs.j").unlink()
    # Judges of other answers were asked first, and what they said was paid for nothing.
    write_rows(tmp_path / "harm", [{"id": "1", "purpose": "harmful"}])
    write_rows(tmp_path / "harm.g", [{"id": "1", "response": "No.", "answer": "No.", **generated}])
    place = flags.index("--policy")
    flags[place:place] = [f"harm={tmp_path / 'harm'}:{tmp_path / 'harm.g'}:{tmp_path / 'harm.j'}"]
    with pytest.raises(SystemExit):
        run_script("judge", *flags, "{}")
    assert "no program bwrap" in capsys.readouterr().err
    assert not (tmp_path / "r").exists() or not read_rows(tmp_path / "r")
    run_script("judge", *flags, '{"if_missing": "unscored"}')
    assert len(read_rows(tmp_path / "r")) == 1
    (tmp_path / "programs.j").unlink()
    with pytest.raises(SystemExit):
        run_script("judge", *flags, "{}")
    assert not (tmp_path / "programs.j").exists()


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_the_filter_is_a_whole_program(machine: str) -> None:
    """Instructions of 8 bytes; every jump stays inside; the machine is looked at first, and the last word is to allow."""
    steps = list(struct.iter_unpack("=HBBI", syscalls.program(machine)))
    assert steps[0] == (syscalls.LOAD, 0, 0, syscalls.MACHINE)
    assert steps[-1] == (syscalls.RETURN, 0, 0, syscalls.ALLOW)
    for place, (_, yes, no, _) in enumerate(steps[:-1]):
        assert place + 1 + max(yes, no) < len(steps)
    _, _, refused = syscalls.MACHINES[machine]
    assert {"clone", "socket", "ptrace", "memfd_create", "unshare", "mount"} <= set(refused)
    assert len(set(refused.values())) == len(refused)


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(SettingError, match="a machine of type vax; expected x86_64 or aarch64"):
        syscalls.program("vax")
