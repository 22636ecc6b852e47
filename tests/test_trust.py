"""Records of outputs: where they lie, and when an output is trusted."""

import base64
import json
import os
from pathlib import Path

import pytest

from star1.records import file_digest
from star1.workflow import trust


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, text: str = "made", **record: object) -> None:
    """An output as Snakemake leaves it: the file, and a record with the file's modification time."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    trust.write_record(
        name, {"rule": "r", "params": ["p"], "endtime": os.lstat(name).st_mtime, "input_checksums": {}, **record}
    )


def reason(name: str) -> str | None:
    return trust.survey([name], trust.Digests()).get(name)


def test_record_lies_where_snakemake_keeps_it() -> None:
    assert trust.record_file("a/b").name == base64.urlsafe_b64encode(b"a/b").decode()
    long = "x" * 400
    trust.write_record(long, {})
    assert trust.recorded_outputs() == [long]


def test_finished_output_is_trusted_and_gets_its_digest() -> None:
    made("out.txt")
    assert reason("out.txt") is None
    trust.seal()
    assert trust.read_record("out.txt")["digest"] == file_digest("out.txt")
    os.utime("out.txt", (1e9, 1e9))  # content decides from now on
    assert reason("out.txt") is None


def test_edited_output_is_marked_and_the_mark_goes_with_the_edit() -> None:
    made("out.txt")
    trust.seal()
    Path("out.txt").write_text("edited")
    trust.mark_untrusted(["out.txt"], trust.survey(["out.txt"], trust.Digests()))
    assert trust.read_record("out.txt")["params"] == [trust.MARK + "it changed after it was made"]
    Path("out.txt").write_text("made")
    trust.mark_untrusted(["out.txt"], trust.survey(["out.txt"], trust.Digests()))
    assert trust.read_record("out.txt")["params"] == ["p"]


def test_record_of_a_failed_job_does_not_cover_a_restored_file() -> None:
    made("out.txt")
    os.utime("out.txt", (1e9, 1e9))
    assert reason("out.txt") == "it was not written by the job on record"


def test_output_without_a_record() -> None:
    Path("out.txt").write_text("x")
    assert reason("out.txt") == "there is no record of how it was made"
    trust.mark_untrusted(["out.txt"], {"out.txt": "why"})
    record = trust.read_record("out.txt")
    assert (record["params"], record["record_format_version"]) == (["NOT TRUSTED: why"], trust.RECORD_FORMAT)


def test_changed_input_counts_whatever_its_time() -> None:
    Path("in.txt").write_text("in")
    made("out.txt", input_checksums={"in.txt": f"sha256:{file_digest('in.txt')}"})
    assert reason("out.txt") is None
    Path("in.txt").write_text("on")
    os.utime("in.txt", (1e9, 1e9))
    assert reason("out.txt") == "its input in.txt changed"


@pytest.mark.parametrize("damage", ["change", "remove", "unlist"])
def test_checkpoint_is_trusted_only_with_every_file_its_manifest_lists(damage: str) -> None:
    Path("model").mkdir()
    Path("model/weights").write_text("w")
    made("model/manifest.json", json.dumps({"files": {"weights": {"sha256": file_digest("model/weights")}}}))
    trust.seal()
    assert reason("model/manifest.json") is None
    if damage == "change":
        Path("model/weights").write_text("v")
    elif damage == "remove":
        Path("model/weights").unlink()
    else:
        Path("model/manifest.json").write_text("{}")
    assert reason("model/manifest.json") == "it changed after it was made"


def test_unreadable_record_is_no_record() -> None:
    made("out.txt")
    trust.record_file("out.txt").write_text("{")
    assert reason("out.txt") == "there is no record of how it was made"


def made_folder(name: str) -> None:
    """A folder as Snakemake leaves it: with a file in it whose time is the end of the job."""
    made(f"{name}/part/a.txt")
    Path(name, trust.TIMESTAMP).touch()
    os.utime(Path(name, trust.TIMESTAMP), (1e9, 1e9))
    trust.write_record(name, {"rule": "r", "params": ["p"], "endtime": 1e9, "input_checksums": {}})


def test_a_folder_is_trusted_by_its_time_first_and_by_its_files_then() -> None:
    made_folder("out")
    assert reason("out") is None
    trust.seal()
    Path("out", trust.TIMESTAMP).unlink()  # as after `dvc checkout`
    assert reason("out") is None


@pytest.mark.parametrize("change", ["edited", "added", "renamed", "removed"])
def test_a_folder_with_another_file_in_it_is_not_trusted(change: str) -> None:
    made_folder("out")
    trust.seal()
    one = Path("out/part/a.txt")
    if change == "edited":
        one.write_text("other")
    elif change == "added":
        Path("out/b.txt").touch()
    elif change == "renamed":
        one.rename("out/part/b.txt")
    else:
        one.unlink()
    assert reason("out") == "it changed after it was made"


def test_a_folder_from_before_the_job_on_record_is_not_trusted() -> None:
    made_folder("out")
    Path("out", trust.TIMESTAMP).unlink()  # a failed job takes it along with the folder; what is there now was put back
    assert reason("out") == "it was not written by the job on record"
