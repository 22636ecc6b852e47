"""What models are asked, the choices of a row, and the manifests of test sets."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from star1 import presets
from star1.errors import InputError, SettingError
from star1.fetching import fetch_files
from star1.grading import grade
from star1.manifests import manifest, rows_digest
from star1.params import ParamsError
from star1.reading import read_benchmark
from star1.records import Row
from star1.sources import Benchmark, read_entry
from star1.tasks import prompt_of
from tests.conftest import ROOT, SHARED

TERMS: dict[str, Any] = {
    "kind": "mirror",
    "path": "file",
    "format": "jsonl",
    "question": "q",
    "licence": "MIT",
    "attribution": "someone",
}
FIELDS = ["right", "wrong 1", "wrong 2", "wrong 3"]
CHOICE = {**TERMS, "purpose": "reasoning", "grader": "choice", "answer": "right", "choices": FIELDS}


def rows_of(folder: Path, records: list[Row], **fields: Any) -> list[Row]:
    (folder / "file").write_text("".join(json.dumps(record) + "\n" for record in records))
    entry = read_entry(Benchmark, "exam", json.dumps(fields))
    return read_benchmark("exam", entry, [folder / "file"])[0]


def record(number: int) -> Row:
    return {"q": f"Which is {number}?", "id": number} | {name: f" {name} of {number}\n" for name in FIELDS}


def bundled(name: str) -> list[Row]:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())["fetch"]["benchmarks"]
    entry = Benchmark(**values[name])
    return read_benchmark(name, entry, fetch_files(entry, None, Path(), root=ROOT))[0]


# --- choices ----------------------------------------------------------------------------------------------------------


def test_choices_are_shuffled_by_seed_and_row_alone(tmp_path: Path) -> None:
    records = [record(number) for number in range(200)]
    fields = {**CHOICE, "id": "id", "choice_seed": 1}
    rows = rows_of(tmp_path, records, **fields)
    for row, raw in zip(rows, records, strict=True):
        assert row["choices"]["ABCD".index(row["answer"])] == raw["right"].strip()
        assert sorted(row["choices"]) == sorted(raw[name].strip() for name in FIELDS)
    letters = [row["answer"] for row in rows]
    assert all(30 <= letters.count(letter) <= 70 for letter in "ABCD")
    assert rows_of(tmp_path, records, **fields) == rows
    assert rows_of(tmp_path, records[100:], **fields) == rows[100:]  # other rows do not matter
    assert [row["answer"] for row in rows_of(tmp_path, records, **fields | {"choice_seed": 2})] != letters
    plain = rows_of(tmp_path, records, **CHOICE)
    assert {row["answer"] for row in plain} == {"A"}


def test_a_list_of_choices_comes_with_its_letter(tmp_path: Path) -> None:
    fields = {**TERMS, "purpose": "reasoning", "grader": "choice", "answer": "a", "choices": "o"}
    options = [f"option {number}" for number in range(10)]
    (row,) = rows_of(tmp_path, [{"q": "?", "a": "J", "o": options}], **fields)
    assert (row["answer"], row["choices"]) == ("J", options)
    (row,) = rows_of(tmp_path, [{"q": "?", "a": "J", "o": options}], **fields, choice_seed=3)
    assert row["choices"]["ABCDEFGHIJ".index(row["answer"])] == "option 9"
    for wrong, told in (
        ({"a": "K", "o": options}, "answer 'K'; expected a letter from A to J"),
        ({"a": "option 1", "o": options}, "expected a letter from A to J"),
        ({"a": "A", "o": ["one"]}, "expected 2 to 26 choices"),
        ({"a": "A", "o": "one"}, "expected 2 to 26 choices"),
        ({"a": "A", "o": ["one", None]}, "an empty choice"),
    ):
        with pytest.raises(InputError, match=told):
            rows_of(tmp_path, [{"q": "?", **wrong}], **fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"purpose": "reasoning"}, "answer is required for grader math"),
        ({"purpose": "reasoning", "grader": "choice", "answer": "a"}, "choices is required for grader choice"),
        ({"purpose": "reasoning", "grader": "code"}, "tests and entry_point is required for grader code"),
        ({"purpose": "harmful", "grader": "math", "answer": "a"}, "grader is not allowed for purpose harmful"),
        ({"purpose": "reasoning", "answer": "a", "tests": "t"}, "tests is not allowed for grader math"),
        ({"purpose": "reasoning", "answer": "a", "choice_seed": 1}, "choice_seed is not allowed for grader math"),
        ({**CHOICE, "choices": ["wrong 1", "wrong 2"]}, "the field of the answer among them"),
        ({**CHOICE, "manifest_sha256": "abc"}, "manifest_sha256"),
    ],
)
def test_an_entry_that_cannot_be_graded_is_named(fields: Row, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        read_entry(Benchmark, "exam", json.dumps({**TERMS, **fields}))


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_a_set_without_grader_is_asked_to_the_letter() -> None:
    rows = [row for name in ("strongreject", "jbb", "jbb_benign", "xstest", "xstest_unsafe") for row in bundled(name)]
    assert all(prompt_of(row) == row["question"] for row in rows)


def test_a_reasoning_set_is_asked_in_the_way_in_which_it_is_read() -> None:
    """An answer of the form that is asked for is one that the grader reads."""
    for row in bundled("aime24") + bundled("math500"):
        assert prompt_of(row).startswith(row["question"])
        assert "\\boxed{}" in prompt_of(row)
        assert grade(row, f"So \\boxed{{{row['answer']}}}.").verdict == "correct"
    for row in bundled("gpqa"):
        asked = prompt_of(row)
        assert asked.startswith(row["question"])
        assert all(f"\n{letter}) {text}\n" in asked for letter, text in zip("ABCD", row["choices"], strict=True))
        assert grade(row, asked[asked.rindex("Answer:") :].replace("X", row["answer"])).verdict == "correct"
    for row in bundled("humaneval"):
        assert f"```python\n{row['question'].rstrip()}\n```" in prompt_of(row)


def test_questions_with_braces_are_asked_as_they_are() -> None:
    odd = {"question": "{x} {{y}} {0} %s \\boxed{z}", "answer": "1", "benchmark": "b", "id": "1"}
    row: Row
    for row in (
        {**odd, "grader": "math"},
        {**odd, "grader": "code"},
        {**odd, "grader": "choice", "choices": ["{a}", "{0}"]},
    ):
        assert odd["question"] in prompt_of(row)
    assert "A) {a}\nB) {0}" in prompt_of(row)
    for wrong in ({**odd, "grader": "none"}, {**odd, "grader": "choice"}):
        with pytest.raises(InputError, match="benchmark b, row 1"):
            prompt_of(wrong)


# --- manifests --------------------------------------------------------------------------------------------------------


def test_the_digest_is_of_all_that_a_verdict_rests_on() -> None:
    row = {"id": "1", "question": "q", "answer": "a", "choices": ["a", "b"], "tests": "t", "entry_point": "f"}
    digest = rows_digest([row, row])
    assert rows_digest([{**row, "benchmark": "other name", "category": "x"}, row]) == digest
    for key in row:
        assert rows_digest([{**row, key: None}, row]) != digest
    assert rows_digest([row]) != digest
    assert rows_digest([{**row, "id": "2"}, row]) != rows_digest([row, {**row, "id": "2"}])
    assert rows_digest([{"id": "1", "question": "q"}]) == rows_digest([{"id": "1", "question": "q", "answer": None}])


def test_other_rows_than_the_frozen_ones_are_refused(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [{"q": "one"}, {"q": "two"}], **TERMS, purpose="harmful")
    entry = Benchmark(**TERMS, purpose="harmful", manifest_sha256=rows_digest(rows), title="Exam", paper="https://a.b")
    frozen = manifest("exam", entry, rows)
    assert (frozen["rows"], frozen["ids"], frozen["title"]) == (2, ["exam-0", "exam-1"], "Exam")
    with pytest.raises(InputError, match=r"exam: rows with the manifest [0-9a-f]{64}; expected manifest_sha256"):
        manifest("exam", entry, rows[::-1])


def test_bundled_sets_are_frozen() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    names = values["generate"]["benchmarks"]
    assert len(names) == 10
    assert {bundled(name)[0].get("grader") for name in names} == {None, "math", "choice", "code"}
    for name in names:
        assert rows_digest(bundled(name)) == values["fetch"]["benchmarks"][name]["manifest_sha256"], name


def test_real_rows_of_the_mirror_are_frozen() -> None:
    if not SHARED.is_dir():
        pytest.skip("no reference material (../shared) beside the project")
    values = yaml.safe_load((ROOT / "presets" / "mirror.yaml").read_text())["fetch"]["benchmarks"]
    for name, count in (("aime24", 30), ("math500", 500)):
        entry = Benchmark(**values[name])
        rows, _ = read_benchmark(name, entry, fetch_files(entry, SHARED / "sources", Path()))
        assert manifest(name, entry, rows)["rows"] == count


# --- the table --------------------------------------------------------------------------------------------------------


def paper() -> dict[str, Benchmark]:
    values = yaml.safe_load((ROOT / "presets" / "paper.yaml").read_text())["fetch"]["benchmarks"]
    return {name: Benchmark(**entry) for name, entry in values.items()}


NEEDED = {
    **{"strongreject": 313, "jbb": 100, "jbb_benign": 100, "wildchat": None, "wildjailbreak": 250, "wildjailbreak_benign": 210},
    **{"xstest": 250, "xstest_unsafe": 200, "harmbench": 300, "or_bench_hard": 1319, "ifeval": 541, "sgbench": 1442},
    **{"aime24": 30, "aime25": 30, "math500": 500, "gpqa": 198, "humaneval": 164, "mmlu_pro": 12032},
}  # fmt: skip


def test_the_papers_table_has_every_set_with_its_rows() -> None:
    table = paper()
    assert {name: entry.rows for name, entry in table.items()} == NEEDED
    for name, entry in table.items():
        assert entry.title, name
        assert entry.paper or entry.link, name
        assert (entry.example is None) == (entry.purpose == "harmful"), name
    assert "substitute" in str(table["wildchat"].title)
    assert "training data" in str(table["harmbench"].note)
    values = yaml.safe_load((ROOT / "presets" / "paper.yaml").read_text())
    assert set(values["collect"]["benchmarks"]) == set(NEEDED)


def test_benchmarks_md_is_the_table() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    for name, entry in paper().items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 8, name
        assert cells[1] == (f"[{entry.title}]({entry.paper or entry.link})"), name
        assert str(entry.repository) in cells[2], name
        assert (str(entry.revision)[:10] if entry.pinned else "not pinned") in cells[2], name
        assert cells[3] == entry.licence, name
        assert cells[4] == (f"{entry.rows:,}" if entry.rows else "not known"), name
        assert cells[5] == entry.purpose + (f", {entry.graded_by}" if entry.graded_by else ""), name
        assert cells[6] == (entry.example or "none").replace("|", "\\|"), name
        assert cells[7] == (entry.note or ""), name


def test_what_cannot_be_graded_cannot_be_answered(tmp_path: Path) -> None:
    for name in ("presets", "bundled", "policies", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "params.yaml").unlink()
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    presets.apply("paper", [], tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="ifeval, which no grader here can grade"):
        presets.apply(None, ["generate.benchmarks=[ifeval]"], tmp_path / "params.yaml")
