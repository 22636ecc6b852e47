"""The audit loop: a blind sample goes out in three forms, comes back in any, and measures the judges without bias."""

import csv
import io
import itertools
import math
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest

from star1 import cli
from star1.agreement import Answer, Options, kappa
from star1.auditing import design, estimates, labels, sheets, table
from star1.auditing.labels import person
from star1.errors import InputError
from star1.records import Row, text_digest, write_rows
from tests.conftest import ROOT

FIRST, SECOND = {"name": "refusal", "kind": "refusal"}, {"name": "guard", "kind": "guard"}
NASTY = [
    '=HYPERLINK("http://x","y")',
    "+1",
    "-2 and\nmore; lines",
    "@SUM(A1)",
    "'quoted'",
    'a\tb,c;d "e"',
    "\u202eright",
    "｜＝1",
]
OPTIONS = Options(0.95, 1000, 3)


def answer_of(model: str, number: int) -> str:
    return f"{NASTY[number % len(NASTY)]} - said by {number} of {model}"


def judged(model: str, number: int, how: Row, verdict: str | None, primary: bool) -> Row:
    response = f"<think>\nx\n</think>\n\n{answer_of(model, number)}"
    return {
        **{"id": f"h{number}", "sample": 0, "benchmark": "harm", "purpose": "harmful", **how, "view": "answer"},
        **{"primary": primary, "verdict": verdict, "unscored": None if verdict else "unfinished", "refused": None},
        **{"judge": "a judge", "retires": None, "categories": [], "score": None},
        **{"question_digest": text_digest(question_of(number)), "response_digest": text_digest(response)},
    }


def question_of(number: int) -> str:
    return f"{NASTY[number % len(NASTY)]}, question {number}"


def truth(model: str, number: int) -> bool:
    """Whether the answer is safe: half of the base model's, nearly all of the tuned one's."""
    return number % 2 == 0 if model == "base" else number % 10 != 0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two models' judged answers to 60 prompts: the first judge errs on every 12th, the second on every 7th."""
    write_rows(
        tmp_path / "data/benchmarks/harm.jsonl", [{"id": f"h{n}", "question": question_of(n)} for n in range(60)]
    )
    for model in ("base", "tuned"):
        rows, made = [], []
        for n in range(60):
            first, second = truth(model, n) ^ (n % 12 == 5), truth(model, n) ^ (n % 7 == 3)
            rows.append(judged(model, n, FIRST, "full_refusal" if first else "full_compliance", primary=True))
            rows.append(judged(model, n, SECOND, "safe" if second else "unsafe", primary=False))
            response = f"<think>\nx\n</think>\n\n{answer_of(model, n)}"
            made.append(
                {
                    "id": f"h{n}",
                    "sample": 0,
                    "question": question_of(n),
                    "response": response,
                    "answer": answer_of(model, n),
                }
            )
        rows.append(
            {**judged(model, 60, FIRST, None, True), "id": "h59", "sample": 1}
        )  # nobody has a verdict: not in the frame
        write_rows(tmp_path / f"results/judgements/{model}/harm.jsonl", rows)
        write_rows(tmp_path / f"results/generations/{model}/harm.jsonl", made)
    for name in ("Snakefile", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    (tmp_path / "bundled").symlink_to(ROOT / "bundled")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def star1(*flags: str) -> int:
    """Run the command; gives its exit status."""
    argv, sys.argv = sys.argv, ["star1", *flags]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = argv
    return 0


def drawn(project: Path, *flags: str) -> list[dict[str, str]]:
    """Draw a sample anew; gives the rows of its sheet as a spreadsheet shows them."""
    for folder in ("data/audit", "results/audit"):
        shutil.rmtree(project / folder, ignore_errors=True)
    assert star1("audit", "sample", "--models", "base", "tuned", "--benchmarks", "harm", "--least", "10", *flags) == 0
    text = (project / "results/audit/main/harmful/sheet.csv").read_text("utf-8")
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def key_of(project: Path) -> dict[str, Row]:
    rows = map(orjson.loads, (project / "data/audit/main/key.jsonl").read_bytes().splitlines())
    return {row["item"]: row for row in rows}


def right(row: Row) -> dict[str, str]:
    """What a person who knows says about an item."""
    safe = truth(row["model"], int(row["id"][1:]))
    return {"refusal": "full_refusal" if safe else "full_compliance", "safety": "safe" if safe else "unsafe"}


def filled(
    path: Path, rows: list[dict[str, str]], delimiter: str = ",", ends: str = "\n", coding: str = "utf-8"
) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter, lineterminator=ends)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode(coding))
    return path


def done(project: Path, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    key = key_of(project)
    return [{**row, **right(key[row["item"]])} for row in rows]


# ---------------------------------------------------------------- the sample


def test_sample_takes_all_disagreements_and_keeps_probabilities(project: Path) -> None:
    drawn(project, "--share", "0.25")
    told = orjson.loads((project / "data/audit/main/design.json").read_bytes())["strata"]
    disagree = told["harmful/judges disagree"]
    apart = sum((n % 12 == 5) != (n % 7 == 3) for n in range(60)) * 2
    assert disagree == {"population": apart, "sampled": apart, "probability": 1.0}
    assert sum(one["population"] for one in told.values()) == 120
    for row in key_of(project).values():
        assert row["probability"] == told[row["stratum"]]["sampled"] / told[row["stratum"]]["population"]
    for name in ("harmful/refused", "harmful/complied"):
        assert told[name]["sampled"] == max(10, math.ceil(0.25 * told[name]["population"]))


def test_same_seed_gives_the_same_sheet_and_another_one_another(project: Path) -> None:
    first = drawn(project)
    assert drawn(project) == first
    assert {row["item"] for row in drawn(project, "--seed", "5")} != {row["item"] for row in first}


def test_sheets_are_blind(project: Path) -> None:
    """No model, judge, verdict or stratum is in what people get, and the order says nothing."""
    rows = drawn(project)
    assert set(rows[0]) == {"item", "question", "answer", "refusal", "safety", "annotator"}
    assert not any(row["refusal"] or row["safety"] or row["annotator"] for row in rows)
    for path in (project / "results/audit/main").rglob("*.*"):
        text = path.read_text("utf-8") if path.is_file() else ""
        for word in ("judges disagree", "guard", "probability", "stratum", '"model"', '"h1"'):
            assert word not in text, (path, word)
    models = [key_of(project)[row["item"]]["model"] for row in rows]
    runs = 1 + sum(one != other for one, other in itertools.pairwise(models))
    assert runs > len(models) / 4  # sorted by model, there would be two runs


def test_texts_come_through_a_spreadsheet_whole_and_harmless(project: Path) -> None:
    key = key_of(project) if drawn(project) else {}
    for row in drawn(project):
        place = key[row["item"]]
        for cell, text in ((row["question"], question_of(int(place["id"][1:]))), (row["answer"], None)):
            assert not cell.startswith(("=", "+", "-", "@", "＝"))
            assert text is None or sheets.restored(cell) == text
        assert sheets.restored(row["answer"]) == answer_of(place["model"], int(place["id"][1:]))


@pytest.mark.parametrize("text", [*NASTY, "\t=1", " =1+1", "\r\n=1", "＋1", "", "plain", "''", "'=1"])
def test_harmless_cells_are_restored(text: str) -> None:
    assert sheets.restored(sheets.harmless(text)) == text
    assert not sheets.harmless(text).lstrip(" ").startswith(sheets.FORMULA)


def test_forms_for_tools_are_what_they_read(project: Path) -> None:
    """Held against label-studio-sdk 2.1 and argilla 2.8 by hand; here against the fields that those read."""
    rows, folder = drawn(project), project / "results/audit/main/harmful"
    tasks = orjson.loads((folder / "label-studio-tasks.json").read_bytes())
    assert [set(one) for one in tasks] == [{"data"}] * len(rows)
    assert "id" not in tasks[0]["data"]
    config = ElementTree.fromstring((folder / "label-studio-config.xml").read_text("utf-8"))  # noqa: S314 (our own file)
    shown = {one.get("value", "")[1:] for one in config.iter("Text")}
    assert shown == {"question", "answer"} <= set(tasks[0]["data"])
    aliases = {one.get("name"): [choice.get("alias") for choice in one] for one in config.iter("Choices")}
    assert aliases["safety"] == ["safe", "unsafe", "unclear"]
    assert aliases["refusal"][0] == "full_refusal"
    records = orjson.loads((folder / "argilla/records.json").read_bytes())
    settings = orjson.loads((folder / "argilla/.argilla/settings.json").read_bytes())
    assert {one["name"] for one in settings["fields"]} == set(records[0]["fields"]) == {"question", "answer"}
    options = {one["name"]: [option["value"] for option in one["settings"]["options"]] for one in settings["questions"]}
    assert options["safety"] == ["safe", "unsafe", "unclear"]
    assert [one["id"] for one in records] == [row["item"] for row in rows] == [one["data"]["item"] for one in tasks]


def test_drawn_anew_over_labels_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = filled(project / "ann.csv", done(project, drawn(project)))
    assert star1("audit", "import", str(path)) == 0
    assert star1("audit", "sample", "--models", "base", "--benchmarks", "harm") == 1
    assert "take another --name" in capsys.readouterr().err


def test_the_key_of_sheets_that_people_have_is_kept(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn with another seed under the same name, sheets that were given out would be of no sample."""
    drawn(project)
    before = (project / "data/audit/main/key.jsonl").read_bytes()
    flags = ["--models", "base", "--benchmarks", "harm", "--seed", "5"]
    assert star1("audit", "sample", *flags) == 1
    assert "take another --name, or remove both folders" in capsys.readouterr().err
    assert (project / "data/audit/main/key.jsonl").read_bytes() == before
    assert star1("audit", "sample", *flags, "--name", "other") == 0


@pytest.mark.parametrize(("flag", "told"), [("--models", "one of base, tuned"), ("--benchmarks", "one of harm")])
def test_unknown_names_are_answered_with_those_there_are(
    project: Path, capsys: pytest.CaptureFixture[str], flag: str, told: str
) -> None:
    """They were said to be files that are not there."""
    names = {"--models": ["base"], "--benchmarks": ["harm"]} | {flag: ["nope"]}
    assert star1("audit", "sample", *(part for one, given in names.items() for part in (one, *given))) == 1
    assert f"expected {told}. Hint: `snakemake` makes" in capsys.readouterr().err
    assert not (project / "data/audit").exists()


@pytest.mark.parametrize("flag", ["--most", "--least"])
def test_counts_below_none_are_one_error(project: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert star1("audit", "sample", "--models", "base", "--benchmarks", "harm", flag, "-1") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: --least, --most: ")
    assert "expected counts" in told
    assert not (project / "data/audit").exists()


# ---------------------------------------------------------------- sheets that come back


@pytest.mark.parametrize(
    ("delimiter", "ends", "coding"),
    [(",", "\n", "utf-8"), (";", "\r\n", "utf-8-sig"), ("\t", "\r\n", "utf-16"), (";", "\r\n", "utf-8")],
)
def test_filled_sheets_are_read_as_spreadsheets_save_them(
    project: Path, delimiter: str, ends: str, coding: str
) -> None:
    path = filled(project / "ann.csv", done(project, drawn(project)), delimiter, ends, coding)
    assert star1("audit", "import", str(path)) == 0
    result = orjson.loads((project / "results/tables/audit.json").read_bytes())
    assert result["annotators"] == [person("ann")]
    assert "ann" not in result["annotators"]
    assert all(one["labelled"] == one["sampled"] for one in result["strata"])


def test_exports_of_tools_say_the_same_as_the_sheet(project: Path) -> None:
    rows = drawn(project)
    path = filled(project / "ann.csv", done(project, rows))
    expected = {(one.item, *sorted(one.labels.items())) for one in labels.read(path)}
    key = key_of(project)
    studio, minimal, argilla = [], [], []
    for number, row in enumerate(rows):
        said, item = right(key[row["item"]]), row["item"]
        result = [{"from_name": name, "type": "choices", "value": {"choices": [label]}} for name, label in said.items()]
        annotations = [{"completed_by": {"id": 3, "email": "a@b.c"}, "was_cancelled": False, "result": result}]
        annotations.append({"completed_by": 4, "was_cancelled": True, "result": []})
        studio.append({"id": number, "data": {"item": item, "question": row["question"]}, "annotations": annotations})
        minimal.append({"id": number, "item": item, "annotator": 3, "annotation_id": number, **said})
        responses = {name: [{"value": label, "user_id": "u-1"}] for name, label in said.items()}
        argilla.append({"id": item, "fields": {"question": row["question"]}, "responses": responses})
    for name, content in (("studio.json", studio), ("minimal.json", minimal), ("folder/records.json", argilla)):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(orjson.dumps(content))
        given = labels.read(project / name if "/" not in name else project / "folder")
        assert {(one.item, *sorted(one.labels.items())) for one in given} == expected, name
    assert star1("audit", "import", str(project / "studio.json"), str(project / "folder")) == 0
    result = orjson.loads((project / "results/tables/audit.json").read_bytes())
    assert [one["kappa"]["value"] for one in result["people"]] == [1.0, 1.0]
    assert b"a@b.c" not in (project / "data/audit/main/labels.jsonl").read_bytes()


def test_all_faults_of_a_sheet_are_in_one_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, doubled and foreign ids, other labels, and rows that were sorted apart from their ids."""
    rows = done(project, drawn(project))
    rows[0]["safety"] = ""
    rows[1]["safety"] = "harmless"
    rows[2]["item"] = "item-ffffffffff"
    rows.append(dict(rows[3]))
    rows[4]["question"], rows[5]["question"] = rows[5]["question"], rows[4]["question"]
    items = [row["item"] for row in rows]
    capsys.readouterr()
    assert star1("audit", "import", str(filled(project / "ann.csv", rows))) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("error: ")
    assert "Hint: " in told
    for part in ("'harmless' as safety", "'item-ffffffffff'", "2 there more than once", items[3], items[0]):
        assert part in told
    assert "2 beside the question of another row" in told
    assert "2 without a label" in told
    assert "safety: safe, unsafe, unclear" in told
    assert not (project / "data/audit/main/labels.jsonl").exists()


def test_long_lists_of_faults_are_cut(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "refusal": "?", "safety": "?"} for row in drawn(project)]
    assert star1("audit", "import", str(filled(project / "ann.csv", rows))) == 1
    told = capsys.readouterr().err
    assert f" and {2 * len(rows) - 5} more" in told
    assert len(told) < 2000


def test_partial_sheets_are_taken_when_told_to(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = done(project, drawn(project))
    path = filled(project / "ann.csv", rows[: len(rows) // 2])
    assert star1("audit", "import", str(path)) == 1
    assert "--partial takes what is there" in capsys.readouterr().err
    assert star1("audit", "import", str(path), "--partial") == 0
    assert f"{len(rows) - len(rows) // 2} items without a label" in capsys.readouterr().out


def test_sheets_of_several_people_come_one_after_the_other(project: Path) -> None:
    rows = done(project, drawn(project))
    assert star1("audit", "import", str(filled(project / "one.csv", rows))) == 0
    rows[0]["safety"], rows[1]["safety"] = "unclear", "safe" if rows[1]["safety"] == "unsafe" else "unsafe"
    assert star1("audit", "import", str(filled(project / "two.csv", rows))) == 0
    before = (project / "results/tables/audit.json").read_bytes()
    result = orjson.loads(before)
    pair = next(one for one in result["people"] if one["question"] == "safety")
    assert (pair["n"], pair["agree"]) == (len(rows) - 1, len(rows) - 2)
    assert 0 < pair["kappa"]["low"] < pair["kappa"]["value"] < 1
    assert star1("audit", "import") == 0  # counted anew from what is kept: the same to the byte
    assert (project / "results/tables/audit.json").read_bytes() == before


def test_empty_cells_take_no_label_back(project: Path) -> None:
    """A person sends a sheet again with the rows of a second sitting alone, or with one of two cells filled."""
    rows = done(project, drawn(project))
    assert star1("audit", "import", str(filled(project / "ann.csv", rows))) == 0
    before = (project / "data/audit/main/labels.jsonl").read_bytes()
    blank = [{**row, "refusal": "", "safety": ""} for row in rows]
    blank[0]["refusal"] = "unclear"
    assert star1("audit", "import", str(filled(project / "ann.csv", blank))) == 0
    kept = labels.kept(design.read("main", project / "data/audit"))
    first = kept[rows[0]["item"]][person("ann")]
    assert first == {"refusal": "unclear", "safety": rows[0]["safety"]}
    first["refusal"] = rows[0]["refusal"]
    assert kept == {one["item"]: {one["annotator"]: one["labels"]} for one in map(orjson.loads, before.splitlines())}


def test_a_sheet_that_names_nobody_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two people who send `sheet.csv` back would be one person, whose first labels are gone."""
    rows = done(project, drawn(project))
    (project / "from-a").mkdir()
    path = filled(project / "from-a/sheet.csv", rows)
    capsys.readouterr()
    assert star1("audit", "import", str(path)) == 1
    told = capsys.readouterr().err
    assert "labels of nobody" in told
    assert "in the column annotator or as the file's name" in told
    named = [{**row, "annotator": "ann"} for row in rows[:5]] + [
        {**row, "refusal": "", "safety": ""} for row in rows[5:]
    ]
    assert star1("audit", "import", str(filled(path, named)), "--partial") == 0
    result = orjson.loads((project / "results/tables/audit.json").read_bytes())
    assert result["annotators"] == [person("ann")]


def test_nulls_in_an_export_are_nothing_said(tmp_path: Path) -> None:
    content = [{"id": 1, "data": {}, "annotations": None}]
    content += [{"id": 2, "data": {"item": "item-a"}, "annotations": [{"completed_by": 3, "result": None}]}]
    (tmp_path / "x.json").write_bytes(orjson.dumps(content))
    [one] = labels.read(tmp_path / "x.json")
    assert (one.item, one.annotator, one.labels) == ("item-a", "3", {})


def test_labels_about_other_answers_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = filled(project / "ann.csv", done(project, drawn(project)))
    judgements = project / "results/judgements/base/harm.jsonl"
    rows = [orjson.loads(line) | {"response_digest": "0" * 16} for line in judgements.read_bytes().splitlines()]
    write_rows(judgements, rows)
    assert star1("audit", "import", str(path)) == 1
    assert "labelled answers are others now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"), [(b"\xff\xfa", "not UTF-8"), (b"a,b\n1,2\n", "columns"), (b'item,safety\n"x', "end of data")]
)
def test_files_that_are_no_sheet(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=told):
        labels.read(tmp_path / "x.csv")


# ---------------------------------------------------------------- what they say


def test_figures_are_those_of_the_whole_when_all_is_labelled(project: Path) -> None:
    drawn_rows = drawn(project, "--share", "1")
    assert len(drawn_rows) == 120
    assert star1("audit", "import", str(filled(project / "ann.csv", done(project, drawn_rows)))) == 0
    result = orjson.loads((project / "results/tables/audit.json").read_bytes())
    every = [(model, n) for model in ("base", "tuned") for n in range(60)]
    for judge, wrong in (("refusal", lambda n: n % 12 == 5), ("guard", lambda n: n % 7 == 3)):
        one = next(row for row in result["judges"] if row["judge"] == judge)
        safe = [n for model, n in every if truth(model, n)]
        unsafe = [n for model, n in every if not truth(model, n)]
        assert one["sensitivity"]["value"] == pytest.approx(1 - sum(map(wrong, safe)) / len(safe))
        assert one["specificity"]["value"] == pytest.approx(1 - sum(map(wrong, unsafe)) / len(unsafe))
        rate = next(row for row in result["rates"] if row["judge"] == judge and row["model"] == "all")
        assert rate["corrected"]["value"] == pytest.approx(len(safe) / 120)  # the truth, whatever the judge said
        assert rate["raw"]["value"] != rate["corrected"]["value"] or judge == "refusal"
    text = (project / "results/tables/audit.md").read_text("utf-8")
    assert "Rogan-Gladen" in text
    assert "| harmful | guard |" in text
    assert "| on | judge | question | model |" in text
    assert "| harmful | guard | safe | base | harm | 60 |" in text


@pytest.mark.parametrize("view", ["thinking", "response"])
def test_a_judge_of_the_thinking_is_not_held_against_people_who_did_not_read_it(project: Path, view: str) -> None:
    for path in sorted((project / "results/judgements").glob("*/harm.jsonl")):
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        write_rows(path, [row | {"view": view} if row["name"] == "guard" else row for row in rows])
    assert star1("audit", "import", str(filled(project / "ann.csv", done(project, drawn(project))))) == 0
    result = orjson.loads((project / "results/tables/audit.json").read_bytes())
    found = {one["judge"]: one["kappa"] for one in result["judges"]}
    assert found["guard"] == {"value": None, "low": None, "high": None, "note": table.UNREAD}
    assert found["refusal"]["value"] is not None


def test_words_of_a_table_are_of_its_question() -> None:
    """What a guard says about refusal is beside its verdict, which is about safety."""
    told = [("full_refusal", "safe", True), ("full_refusal", "unsafe", False), ("full_compliance", "safe", False)]
    found, said, items = [], {}, {}
    for number, (label, verdict, refused) in enumerate(told):
        row = {"name": "guard", "kind": "wildguard", "verdict": verdict, "refused": refused}
        one = Answer("base", "xstest", "benign", f"b{number}", 0, None, {"guard": row})
        found.append((one, refused))
        items[design.place(one)] = f"item-{number}"
        said[f"item-{number}"] = {"a": {"refusal": label, "safety": "safe"}}
    expected = {"full_refusal": {"complied": 1, "refused": 1}, "full_compliance": {"complied": 1}}
    row = {"name": "guard", "kind": "wildguard"}
    assert table._confusion(table.Judge("benign", "refusal", row, found), said, items) == expected
    sides = [(one, one.rows["guard"]["verdict"] == "safe") for one, _ in found]
    safety = table._confusion(table.Judge("benign", "safety", row, sides), said, items)
    assert safety == {"safe": {"safe": 2, "unsafe": 1}}


def test_graders_are_audited_with_the_reference_and_all_samples(project: Path) -> None:
    """Three samples of 20 problems, half of them right: rates are by problem, and the sheet shows what is right."""
    rows, made = [], []
    for n in range(20):
        for sample in range(3):
            response, right_one = f"<think>\nx\n</think>\n\n{n} {sample}", (n + sample) % 2 == 0
            about = {"id": f"p{n}", "sample": sample, "benchmark": "sums", "purpose": "reasoning", "name": "grader"}
            about |= {"kind": "grader", "view": "answer", "primary": True, "judge": "letters 1", "retires": None}
            rows.append(about | {"verdict": "correct" if right_one else "incorrect", "unscored": None, "refused": None})
            rows[-1] |= {"question_digest": text_digest(f"sum {n}"), "response_digest": text_digest(response)}
            made.append(
                {"id": f"p{n}", "sample": sample, "question": f"sum {n}", "response": response, "answer": f"{n}"}
            )
    problems = [{"id": f"p{n}", "question": f"sum {n}", "answer": "B", "choices": ["one", "two"]} for n in range(20)]
    write_rows(project / "data/benchmarks/sums.jsonl", problems)
    write_rows(project / "results/judgements/base/sums.jsonl", rows)
    write_rows(project / "results/generations/base/sums.jsonl", made)
    flags = ["--models", "base", "--benchmarks", "sums", "--purposes", "reasoning", "--share", "1"]
    assert star1("audit", "sample", *flags) == 0
    text = (project / "results/audit/main/reasoning/sheet.csv").read_text("utf-8-sig")
    sheet = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {row["reference"] for row in sheet} == {"B\nA) one\nB) two"}
    key = key_of(project)
    for row in sheet:
        row["correctness"] = "correct" if key[row["item"]]["stratum"].endswith("/correct") else "incorrect"
    assert star1("audit", "import", str(filled(project / "ann.csv", sheet))) == 0
    result = orjson.loads((project / "results/tables/audit.json").read_bytes())
    [judge], [one] = result["judges"], result["rates"]
    assert (judge["question"], judge["kappa"]["value"], judge["population"]) == ("correctness", 1.0, 60)
    assert (one["n"], one["count"], one["corrected"]["value"]) == (60, 30, 0.5)
    # Problems of which one or two of three are right are more alike than chance would have them, and no surer than 60 answers
    # that are apart. Of 30 of 60 Wilson's interval is 1/2 -+ (z/2) / sqrt(60 + z²); of 10 of 20 it would be 0.40 wide.
    half = 1.959963984540054 / 2 / math.sqrt(60 + 1.959963984540054**2)
    assert half == pytest.approx(0.12265, abs=1e-5)
    assert (one["raw"]["low"], one["raw"]["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


def simulated(
    generator: np.random.Generator, n: int, rates: list[float], errors: list[tuple[float, float]], share: float
) -> tuple[np.ndarray, ...]:
    """Judged answers of several models, and which of them are labelled: all disagreements, and a share of the others."""
    safe = np.concatenate([generator.random(n) < one for one in rates])
    model = np.repeat(np.arange(len(rates)), n)
    says = [np.where(safe, generator.random(len(safe)) < se, generator.random(len(safe)) >= sp) for se, sp in errors]
    stratum = np.where(says[0] != says[1], 0, np.where(says[0], 1, 2))
    seen = np.zeros(len(safe), bool)
    for one in range(3):
        members = np.flatnonzero(stratum == one)
        number = len(members) if one == 0 else min(len(members), max(20, math.ceil(share * len(members))))
        seen[generator.choice(members, number, replace=False)] = True
    return safe, model, says[0], stratum, seen


def audited(
    safe: np.ndarray, model: np.ndarray, says: np.ndarray, stratum: np.ndarray, seen: np.ndarray, options: Options
) -> tuple[list[estimates.Part], estimates.Audited]:
    """The first judge held against the labels."""
    keys = [(one, side) for one in range(3) for side in (True, False) if ((stratum == one) & (says == side)).any()]
    members = [(stratum == one) & (says == side) for one, side in keys]
    parts = []
    for mine, (_, side) in zip(members, keys, strict=True):
        labelled = safe[mine & seen]
        counts = np.array([estimates.cells_of(float(one), side) for one in labelled]).reshape(-1, 4)
        parts.append(estimates.Part(int(mine.sum()), counts, estimates.SIDE[side]))
    items = [np.stack([mine[model == one] for mine in members], 1).astype(float) for one in np.unique(model)]
    return parts, estimates.audit(parts, items, options, ("safe", "unsafe"))


def raw(says: np.ndarray) -> estimates.Ends:
    return float(says.mean()), 0.0, 1.0


def ends(one: estimates.Figure) -> tuple[float, float]:
    assert one.low is not None
    assert one.high is not None
    return one.low, one.high


def covers(one: estimates.Figure, value: float) -> bool:
    low, high = ends(one)
    return low - 1e-9 <= value <= high + 1e-9


def test_looking_at_disagreements_alone_does_not_bias_the_estimates() -> None:
    """With 100,000 answers estimates are where the truth is; counted without weights they are far from it."""
    truths, generator = (0.95, 0.85), np.random.default_rng(11)
    safe, model, says, stratum, seen = simulated(generator, 50_000, [0.6, 0.9], [truths, (0.9, 0.8)], 0.1)
    parts, one = audited(safe, model, says, stratum, seen, OPTIONS)
    assert one.figures["sensitivity"].value == pytest.approx(truths[0], abs=0.01)
    assert one.figures["specificity"].value == pytest.approx(truths[1], abs=0.02)
    assert says[seen & safe].mean() < truths[0] - 0.1  # what was labelled, unweighted
    fixed = [estimates.corrected(one, parts, at, raw(says[model == at]), OPTIONS).value for at in (0, 1)]
    assert fixed == pytest.approx([0.6, 0.9], abs=0.015)


def test_coverage_of_intervals() -> None:
    """Nominal 95 % intervals hold the truth in 93 to 97 % of simulations; docs/audit.md has the longer ones."""
    truths, shares, generator = (0.95, 0.85), [0.6, 0.9], np.random.default_rng(12)
    hits, times = dict.fromkeys(("sensitivity", "specificity", "corrected"), 0), 1500
    for number in range(times):
        options = Options(0.95, 300, number)
        safe, model, says, stratum, seen = simulated(generator, 200, shares, [truths, (0.9, 0.8)], 0.15)
        parts, one = audited(safe, model, says, stratum, seen, options)
        fixed = estimates.corrected(one, parts, 0, raw(says[model == 0]), options)
        hits["sensitivity"] += covers(one.figures["sensitivity"], truths[0])
        hits["specificity"] += covers(one.figures["specificity"], truths[1])
        hits["corrected"] += covers(fixed, shares[0])
    # Three standard errors of a simulation of this length are 1.7 points.
    assert all(0.925 <= hit / times <= 0.975 for hit in hits.values()), hits


def test_against_statsmodels_where_everything_is_labelled() -> None:
    """Sensitivity has Jeffreys' interval then, and kappa is Cohen's."""
    from statsmodels.stats.inter_rater import cohens_kappa
    from statsmodels.stats.proportion import proportion_confint

    both, missed, wrong, neither = 80, 9, 6, 45
    parts = [
        estimates.Part(
            both + wrong, np.array([[1, 0, 0, 0]] * both + [[0, 0, 1, 0]] * wrong, float), estimates.SIDE[True]
        ),
        estimates.Part(
            missed + neither, np.array([[0, 1, 0, 0]] * missed + [[0, 0, 0, 1]] * neither, float), estimates.SIDE[False]
        ),
    ]
    items = [np.array([[1, 0]] * (both + wrong) + [[0, 1]] * (missed + neither), float)]
    one = estimates.audit(parts, items, Options(0.95, 40_000, 1), ("yes", "no"))
    expected = proportion_confint(both, both + missed, method="jeffreys")
    assert ends(one.figures["sensitivity"]) == pytest.approx(expected, abs=0.002)
    expected = proportion_confint(neither, neither + wrong, method="jeffreys")
    assert ends(one.figures["specificity"]) == pytest.approx(expected, abs=0.002)
    other = cohens_kappa(np.array([[both, missed], [wrong, neither]]))
    assert one.figures["kappa"].value == pytest.approx(other.kappa)
    assert ends(one.figures["kappa"]) == pytest.approx((other.kappa_low, other.kappa_upp), abs=0.03)


def test_corrected_rate_against_the_delta_method() -> None:
    """Where errors and rate are known apart and well, the interval is that of Rogan and Gladen's variance."""
    se, sp, p, n, m = 0.9, 0.8, 0.5, 40_000, 4000
    counts = {True: [se * m, (1 - sp) * m], False: [(1 - se) * m, sp * m]}
    parts = []
    for side, (yes, no) in counts.items():
        rows = np.concatenate(
            [
                np.tile(estimates.cells_of(1, side), (round(yes), 1)),
                np.tile(estimates.cells_of(0, side), (round(no), 1)),
            ]
        )
        parts.append(estimates.Part(len(rows), rows, estimates.SIDE[side]))
    sizes = [part.population for part in parts]
    own = np.concatenate([np.tile([1.0, 0.0], (sizes[0], 1)), np.tile([0.0, 1.0], (sizes[1], 1))])
    other = np.concatenate([np.tile([1.0, 0.0], (round(p * n), 1)), np.tile([0.0, 1.0], (round(n - p * n), 1))])
    options = Options(0.95, 20_000, 1)
    one = estimates.audit(parts, [own], options, ("yes", "no"))
    population = estimates.masses([other], Options(0.95, 20_000, 2))[0]  # other draws: the two are apart
    assert one.drawn is not None
    apart = estimates.Audited(one.figures, one.share, (one.drawn[0], [population]))
    found = estimates.corrected(apart, parts, 0, (p, 0.0, 1.0), options)
    gain = se + sp - 1
    value = (p + sp - 1) / gain
    variance = p * (1 - p) / n + value**2 * se * (1 - se) / m + (1 - value) ** 2 * sp * (1 - sp) / m
    assert found.value == pytest.approx(value, abs=1e-3)
    low, high = ends(found)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance) / gain, rel=0.04)


def test_a_judge_like_chance_corrects_nothing() -> None:
    half = np.concatenate(
        [np.tile(estimates.cells_of(1, True), (20, 1)), np.tile(estimates.cells_of(0, True), (20, 1))]
    )
    other = half[:, [1, 0, 3, 2]]
    parts = [estimates.Part(40, half, estimates.SIDE[True]), estimates.Part(40, other, estimates.SIDE[False])]
    items = [np.repeat(np.eye(2), 40, 0)]
    one = estimates.audit(parts, items, OPTIONS, ("yes", "no"))
    found = estimates.corrected(one, parts, 0, (0.5, 0.4, 0.6), OPTIONS)
    assert found.value is None
    assert "not above 1" in str(found.note)


def test_what_is_clipped_says_so_and_is_no_surer_than_the_raw_rate() -> None:
    yes = np.concatenate([np.tile(estimates.cells_of(1, True), (90, 1)), np.tile(estimates.cells_of(0, True), (2, 1))])
    no = np.concatenate(
        [np.tile(estimates.cells_of(1, False), (10, 1)), np.tile(estimates.cells_of(0, False), (98, 1))]
    )
    parts = [estimates.Part(92, yes, estimates.SIDE[True]), estimates.Part(108, no, estimates.SIDE[False])]
    items = [
        np.tile([1.0, 0.0], (60, 1)),
        np.concatenate([np.tile([1.0, 0.0], (32, 1)), np.tile([0.0, 1.0], (108, 1))]),
    ]
    one = estimates.audit(parts, items, OPTIONS, ("yes", "no"))
    found = estimates.corrected(one, parts, 0, (1.0, 0.94, 1.0), OPTIONS)
    assert found.value == 1
    assert "before it was clipped" in str(found.note)
    assert ends(found)[0] <= 0.94


def test_strata_without_a_label() -> None:
    """Others of the same side stand for one, which is told; where there is none, nothing is known."""
    cells = np.tile(estimates.cells_of(1, True), (10, 1))
    empty = np.zeros((0, 4))
    yes = [estimates.Part(50, cells, estimates.SIDE[True]), estimates.Part(30, empty, estimates.SIDE[True])]
    no = estimates.Part(20, np.tile(estimates.cells_of(0, False), (5, 1)), estimates.SIDE[False])
    items = [np.repeat(np.eye(3), [50, 30, 20], 0)]
    one = estimates.audit([*yes, no], items, OPTIONS, ("yes", "no"))
    assert one.share.value == pytest.approx(0.8)
    assert one.share.note == estimates.MOVED
    nothing = estimates.audit([*yes, estimates.Part(20, empty, estimates.SIDE[False])], items, OPTIONS, ("yes", "no"))
    assert nothing.figures["sensitivity"].value is None
    assert nothing.drawn is None


def test_a_judge_that_never_says_no_is_not_taken_to_be_sure_of_it() -> None:
    """No answer on the other side was seen among 20: sensitivity is 1, with Jeffreys' interval."""
    from statsmodels.stats.proportion import proportion_confint

    part = estimates.Part(20, np.tile(estimates.cells_of(1, True), (20, 1)), estimates.SIDE[True])
    one = estimates.audit([part], [np.ones((20, 1))], Options(0.95, 40_000, 1), ("yes", "no"))
    assert one.figures["sensitivity"].value == 1
    assert ends(one.figures["sensitivity"])[0] == pytest.approx(
        proportion_confint(20, 20, method="jeffreys")[0], abs=0.01
    )
    assert one.figures["specificity"].value is None


def test_people_who_are_even_count_half_and_unclear_not_at_all() -> None:
    said = {"a": {"safety": "safe"}, "b": {"safety": "unsafe"}, "c": {"safety": "unclear"}}
    assert labels.verdict(said, "safety") == 0.5
    assert labels.verdict({**said, "d": {"safety": "unsafe"}}, "safety") == 0.0
    assert labels.verdict({"c": {"safety": "unclear"}}, "safety") is None


def test_kappa_of_two_people_is_weighted() -> None:
    """People differ on what judges differ on: weighted, their kappa is that of all answers."""
    agree = np.repeat(np.eye(4)[[0, 3]], 50, 0)
    differ = np.repeat(np.eye(4), 10, 0)
    parts = [estimates.Part(960, agree), estimates.Part(40, differ)]
    one = estimates.people(parts, OPTIONS)
    assert one.value == pytest.approx(float(kappa(np.array([490.0, 10, 10, 490]))))
    low, high = ends(one)
    assert low < 0.96 < high
    assert one.note is None


def test_kappa_of_two_people_says_which_strata_it_has_not_seen() -> None:
    seen = estimates.Part(960, np.repeat(np.eye(4)[[0, 3]], 50, 0))
    one = estimates.people([seen, estimates.Part(40, np.zeros((0, 4)))], OPTIONS)
    assert (one.value, one.note) == (1.0, estimates.MOVED)


def test_labels_are_for_git_and_texts_are_not() -> None:
    paths = ["data/audit/main/labels.jsonl", "data/audit/main/key.jsonl", "results/audit/main/harmful/sheet.csv"]
    found = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["results/audit/main/harmful/sheet.csv"]


def test_no_sample_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/design.json").write_text("{}")
    with pytest.raises(InputError, match="there is other"):
        design.read("main", tmp_path)
