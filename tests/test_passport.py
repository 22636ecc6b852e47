"""Passports: everything a cell rests on can be asked for, what does not agree is told, and nothing is read by the wrong id."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from star1 import cli, status, tags
from star1.deliberation import NO_POLICY
from star1.errors import InputError
from star1.passport import finding, text
from star1.passport.books import Books, md5
from star1.passport.issue import issue
from star1.records import Row, file_digest, read_json, read_rows, write_json, write_rows
from star1.replies import Store
from star1.segments import segments
from tests.conftest import ROOT
from tests.passports import QUESTIONS, check_walk, link_values, make_project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("passport") / "project"
    make_project(root)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "project"))


def change(path: Path, edit: Callable[[list[Row]], Any]) -> None:
    rows = read_rows(path)
    edit(rows)
    write_rows(path, rows)


def test_every_sample_has_its_passport(project: Path) -> None:
    """Only the first could be opened; of rows that are called by numbers, whichever lay in the middle of the file."""
    folder = project / "results"
    for kind in ("generations", "judgements"):
        path = folder / kind / "run/test.jsonl"
        rows = read_rows(path)
        drawn = [{**row, "id": row["id"].removeprefix("test-"), "sample": at} for row in rows for at in range(3)]
        for row in drawn:
            if kind == "generations" and row["answer"] and row["sample"]:
                row |= {
                    "answer": f"{row['answer']} ({row['sample']})",
                    "response": f"{row['response']} ({row['sample']})",
                }
            row |= {"verdict": "unsafe"} if kind == "judgements" and row["verdict"] and row["sample"] == 2 else {}
        write_rows(path, drawn)
    change(project / "data/benchmarks/test.jsonl", lambda rows: [row.update(id=row["id"][5:]) for row in rows])
    first, third = issue("run/test/0", project), issue("run/test/0@2", project)
    assert [one["generation"]["answer"] for one in (first, third)] == [
        "I can't help with that.",
        "I can't help with that. (2)",
    ]
    assert [(one["sample"], one["outcome"]) for one in (first, third)] == [(0, "full_refusal"), (2, "unsafe")]
    assert first["samples"] == third["samples"]
    assert [one["passport"] for one in first["samples"]] == [f"answer:run/test/0{end}" for end in ("", "@1", "@2")]
    assert [one["outcome"] for one in first["samples"]] == ["full_refusal", "full_refusal", "unsafe"]
    assert issue("run/test/0@0", project)["sample"] == 0
    with pytest.raises(InputError, match="no such row"):
        issue("run/test/0@3", project)
    cell = issue("main:run/test", project, everything=True)
    assert {"answer:run/test/0", "answer:run/test/0@2"} <= {one["passport"] for one in cell["of_them"]}


def test_every_cell_leads_to_everything_it_rests_on(made: Path) -> None:
    kinds = check_walk(made)
    assert kinds["cell of a table"] == 6  # two models on two benchmarks, and on both together
    assert kinds["checkpoint"] == 2
    assert kinds["judged answer"] == 12
    assert kinds["row of a benchmark"] == 6
    assert kinds["training row"] == kinds["benign look-alike"] == 3
    assert kinds["released row"] == 1
    assert kinds["fetched prompt"] >= 4


def test_a_row_from_its_source_to_the_models_trained_on_it(made: Path) -> None:
    one = issue("0", made, replies=True)
    assert one["source"]["raw_files"] == [{"path": "raw/school.txt", "sha256": file_digest(made / "raw/school.txt")}]
    assert (one["source"]["licence"], one["source"]["attribution"]) == ("CC0-1.0", "tests")
    assert one["near_duplicates_dropped"][0]["passport"] == "fetched:school-5"
    assert one["near_duplicates_dropped"][0]["similarity"] == 0.9
    assert [call["role"] for name in ("category", "trace", "score") for call in one[name]["calls"]] == [
        "categorize",
        "reason",
        "score",
    ]
    call = one["trace"]["calls"][0]
    assert call["templates"] == [
        {
            "path": "policies/star1/prompts/reason.md",
            "sha256": file_digest(made / "policies/star1/prompts/reason.md"),
        }
    ]
    assert call["sampling"] == {"temperature": 0.6}
    assert call["reply"]["content"] in one["trace"]["response"]
    assert all(file_digest(made / each["path"]) == each["sha256"] for each in one["category"]["policies"])
    assert one["trained"] == [
        {"passport": "model:run", "file": f"data/{name}.jsonl"} for name in ("star1", "selections/few")
    ]
    assert one["curation"] == {"full_marks": True, "selected": True, "selections": ["few"]}
    assert issue("benign:0", made)["trained"] == [{"passport": "model:run", "file": "data/benign/benign.jsonl"}]


def test_contamination_of_the_collection_and_of_the_raw_set(made: Path) -> None:
    near = issue("row:1", made)["near_benchmarks"]
    assert [(one["passport"], one["training"]) for one in near] == [
        ("test:jbb/jbb-0", "collection"),
        ("test:jbb/jbb-0", "school"),
    ]
    back = list(link_values(issue("jbb/jbb-0", made)["near_training_rows"]))
    assert back == ["row:1", "fetched:school-1"]


def test_rows_that_ended_on_the_way(made: Path) -> None:
    assert issue("school-5", made)["outcome"] == "dropped at self_tfidf: TF-IDF cosine >= 0.6 with source school"
    assert issue("school-5", made)["dropped"]["near_to"] == {"passport": "fetched:school-0"}
    assert issue("school-0", made)["collected"] == [{"passport": "row:0"}]
    assert issue("school-6", made)["outcome"] == "left out at fetch: by the entry's `keep`"
    assert issue("school-7", made)["outcome"] == "dropped at fetch: too long"
    aside = issue("row:3", made)
    assert aside["outcome"] == f"set aside by reason: {NO_POLICY}"
    assert (aside["problems"], aside["trained"]) == ([], [])
    dropped = read_rows(made / "data/curate_dropped.jsonl")[-1]
    assert issue(dropped["id"], made)["outcome"] == f"not in the final data set: {dropped['reason']}"


def test_every_judge_of_an_answer_has_its_calls(made: Path) -> None:
    answer = issue("run/jbb/jbb-0", made)
    other = answer["other_judgements"][0]
    assert (answer["judgement"]["name"], other["name"], other["verdict"]) == ("refusal", "guard", "safe")
    assert [one["role"] for one in (*answer["judgement"]["calls"], *other["calls"])] == ["judge_refusal", "judge_guard"]
    assert answer["problems"] == []


def test_an_unscored_answer_and_a_pooled_cell(made: Path) -> None:
    answer = issue("run/jbb/jbb-2", made)
    assert (answer["outcome"], answer["judgement"]["calls"]) == ("unscored: unfinished thinking", [])
    assert answer["cells"] == [{"passport": "main:run/jbb"}, {"passport": "main:run/all harmful"}]
    cell = issue("run/all", made, everything=True)
    assert cell["address"] == "main:run/all harmful"
    assert (cell["n"], cell["total"], len(cell["of_them"]), cell["answers"]) == (4, 6, 6, 6)
    assert cell["checkpoint"]["training_rows"] == 8


# --- what does not agree ---------------------------------------------------------------------------------------------


def test_a_table_that_is_not_what_the_judgements_give(project: Path) -> None:
    path = project / "results/tables/main.json"
    table = read_json(path)
    cell = next(one for one in table["cells"] if (one["model"], one["benchmark"]) == ("run", "jbb"))
    cell["count"], cell["high"] = cell["count"] + 1, cell["high"] + 1e-6
    write_json(path, table)
    problems = issue("main:run/jbb", project)["problems"]
    assert [one.split(":")[0] for one in problems] == ["count", "high"]
    assert "the table says 2; the judgements give 1" in problems[0]
    assert issue("main:run/test", project)["problems"] == []


@pytest.mark.parametrize(
    ("file", "address", "field", "value", "told"),
    [
        (
            "data/cot.jsonl",
            "row:0",
            "response",
            "<think>\nOther.\n</think>\n\nNo.",
            "reason: the stored replies read as",
        ),
        (
            "data/categorized.jsonl",
            "row:0",
            "category",
            ["Privacy/Personal Data"],
            "categorize: the stored replies read",
        ),
        (
            "data/star1.jsonl",
            "row:0",
            "response",
            "<think>x</think>y",
            "data/star1.jsonl: row 0 differs from data/scored",
        ),
        (
            "data/star1.jsonl",
            "model:run",
            "response",
            "x",
            "data/star1.jsonl: other rows than model run was trained on",
        ),
        ("data/collection.jsonl", "row:0", "question", "Another?", "0 rows that were kept have the text of row 0"),
        ("data/benign/rewritten.jsonl", "benign:0", "original", "Another?", "made from another question"),
        ("results/generations/run/jbb.jsonl", "answer:run/jbb/jbb-0", "response", "Yes", "the judged response is not"),
        (
            "results/generations/run/jbb.jsonl",
            "answer:run/jbb/jbb-0",
            "question",
            "Why?",
            "another question than the benc",
        ),
        (
            "results/judgements/run/jbb.jsonl",
            "answer:run/jbb/jbb-0",
            "verdict",
            "full_compliance",
            "judge-run: the stored",
        ),
    ],
)
def test_whatever_was_edited_is_told(project: Path, file: str, address: str, field: str, value: Any, told: str) -> None:
    change(project / file, lambda rows: rows[0].update({field: value}))
    assert any(told in one for one in issue(address, project)["problems"])


def test_a_row_that_is_both_selected_and_dropped(project: Path) -> None:
    kept = read_rows(project / "data/star1.jsonl")[0]
    gone = {name: kept[name] for name in ("id", "source", "category", "score")} | {"reason": "balanced out at step 1"}
    change(project / "data/curate_dropped.jsonl", lambda rows: rows.append(gone))
    assert "in star1, full_score, curate_dropped of" in issue("row:" + kept["id"], project)["problems"][0]


def test_replies_to_other_templates_are_shown_and_not_taken_for_these(project: Path) -> None:
    prompt = project / "policies/star1/prompts/reason.md"
    prompt.write_text(prompt.read_text() + "\nBe brief.\n")
    one = issue("row:0", project)
    assert one["problems"] == ["reason: no stored reply to what would be asked now"]
    call = one["trace"]["calls"][0]
    assert call["reply"] is None
    assert [each["model"] for each in call["records_of_its_id"]] == ["rules"]


def test_replies_are_found_by_what_was_asked_not_by_the_id_of_the_row(project: Path) -> None:
    """Ids are given anew when the collection changes, and stored replies keep the old ones."""
    before = issue("row:0", project)
    change(project / "data/replies/reason.jsonl", lambda rows: [row.update({"item": "77"}) for row in rows])
    after = issue("row:0", project)
    assert after["problems"] == []
    assert after["trace"]["calls"][0]["reply_digest"] == before["trace"]["calls"][0]["reply_digest"]


def test_unknown_fields_and_statuses_of_records(project: Path) -> None:
    path = project / "data/replies/score.jsonl"
    record = next(one for one in read_rows(path) if one["item"] == "0")
    failed = {"version": 1, "status": "failed", "key": record["key"], "item": "0", "reason": "rate_limit"}
    reopened = {"version": 9, "status": "reopened", "key": record["key"], "by": {"any": "one"}}
    with path.open("ab") as file:
        file.write(b"".join(orjson.dumps(one) + b"\n" for one in (failed, reopened)) + b'{"half a line')
    call = issue("row:0", project)["score"]["calls"][0]
    assert (call["attempts"], call["other_attempts"]) == (3, ["rate_limit", "reopened"])
    assert call["time"] == record["time"]


def test_missing_artifacts_are_told_with_the_stage_that_makes_them(project: Path) -> None:
    (project / "data/scored.jsonl").unlink()
    one = issue("row:0", project)
    assert one["missing"] == ["data/scored.jsonl: not there; `snakemake data/scored.jsonl` or `dvc pull` brings it"]
    assert one["outcome"] == "came as far as before score, which is not run"
    assert one["category"]["calls"]
    shutil.rmtree(project / "data/replies")
    assert len(issue("row:0", project)["problems"]) == 2
    shutil.rmtree(project / "results/judgements/run")
    assert "results/judgements/run/jbb.jsonl: not there" in issue("main:run/jbb", project)["missing"][0]


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("run/jbx", "near names: main:run/jbb"),
        ("99", "rows are called 0 to 4"),
        ("row:99", "rows are called 0 to 4"),
        ("jbb/jbb-9", "jbb/jbb-0"),
        ("run/jbb/jbb-9", "run/jbb/jbb-0"),
        ("model:rnu", "model:run"),
        ("school-99", "school-N"),
        ("", "expected ROW, SET-NUMBER"),
        ("run/all benign", "main:run/all harmful"),
    ],
)
def test_unknown_addresses_are_answered_with_near_ones(made: Path, asked: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        issue(asked, made)
    assert told in str(error.value)
    assert "--help" in str(error.value)


def test_tables_alone_say_where_the_rows_are(project: Path) -> None:
    """In a fresh clone tables are there, from git, and rows are not; near names were all that was told."""
    shutil.rmtree(project / "data")
    for asked in ("17", "jbb/jbb-0"):
        with pytest.raises(InputError, match="only tables are here: `dvc pull` fetches rows"):
            issue(asked, project)


def test_who_looks_at_calls_is_no_job_of_a_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage's own code goes through a row: `star1 watch` told of a finished stage of one row."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(status, "FOLDER", project / "status")
    Path("Snakefile").touch()
    assert issue("0", Path())["category"]["calls"]
    assert not status.FOLDER.exists()


def test_an_address_that_means_several_things(project: Path) -> None:
    path = project / "results/tables/main.json"
    table = read_json(path)
    pooled = next(one for one in table["cells"] if one["benchmark"] == "all")
    table["cells"].append(pooled | {"purpose": "reasoning", "measure": "Reasoning, correct"})
    write_json(path, table)
    with pytest.raises(InputError, match="one of main:base/all harmful, main:base/all reasoning"):
        issue("base/all", project)
    assert issue("base/all harmful", project)["address"] == "main:base/all harmful"


def test_nothing_is_made_yet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `snakemake`, or fetch what was released with `dvc pull`"):
        issue("0", tmp_path)


# --- the books -------------------------------------------------------------------------------------------------------


STAND_IN = {"provider": "stand-in", "model": "rules", "label": "stand-in (no language model)"}


def lock(project: Path, **settings: Any) -> None:
    """Record the stage `reason` as it was run."""
    paths = ["policies/star1/prompts/reason.md", "star1/x.py"]
    stage = {
        "deps": [{"path": path, "md5": md5(project / path)} for path in paths],
        "params": {"params.yaml": settings},
        "outs": [
            {"path": name, "md5": md5(project / name), "size": (project / name).stat().st_size}
            for name in ("data/cot.jsonl", "data/quarantine/reason.jsonl")
        ],
    }
    (project / "dvc.lock").write_text(yaml.safe_dump({"stages": {"reason": stage}}))


def test_settings_and_digests_come_from_the_record_of_the_run(project: Path) -> None:
    (project / "star1").mkdir()
    (project / "star1/x.py").write_text("1")
    lock(project, **{"reason.sampling": {"temperature": 0.6}, "llm.endpoints.stand-in": STAND_IN})
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["reason"]["sampling"] = {"temperature": 1.0}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    one = issue("row:0", project)
    stage = next(each for each in one["stages"] if each.get("stage") == "reason")
    assert (one["problems"], stage["changed_since"], stage["code_files"]) == ([], [], 1)
    assert one["trace"]["calls"][0]["sampling"] == {"temperature": 0.6}
    (project / "star1/x.py").write_text("2")
    change(project / "data/cot.jsonl", lambda rows: rows.pop())
    one = issue("row:0", project)
    assert next(each for each in one["stages"] if each.get("stage") == "reason")["changed_since"] == ["star1/x.py"]
    assert "dvc.lock says" in one["problems"][0]
    prompt = project / "policies/star1/prompts/reason.md"
    prompt.write_text(prompt.read_text() + "Be brief.\n")
    told = "reason: no stored reply to what would be asked now (changed since: policies/star1/prompts/reason.md, star1/x.py)"
    assert told in issue("row:0", project)["problems"]


def test_settings_and_code_come_from_what_the_stage_stood_on(project: Path) -> None:
    """dvc.lock has one file for them; where that is another one by now, DVC's cache has the old one."""
    (project / "star1").mkdir()
    (project / "star1/x.py").write_text("1")
    values = {"reason.sampling": {"temperature": 0.6}, "llm.endpoints.stand-in": STAND_IN}
    basis = project / "results/basis/reason.json"
    write_json(basis, {"code": {"star1/x.py": md5(project / "star1/x.py")}, "values": values})
    lock(project)
    recorded = yaml.safe_load((project / "dvc.lock").read_text())
    recorded["stages"]["reason"]["deps"] = [{"path": "results/basis/reason.json", "md5": md5(basis)}]
    (project / "dvc.lock").write_text(yaml.safe_dump(recorded))
    kept = project / ".dvc/cache/files/md5" / md5(basis)[:2] / md5(basis)[2:]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(basis.read_bytes())
    for now in ("1", "2"):
        (project / "star1/x.py").write_text(now)
        one = issue("row:0", project)
        stage = next(each for each in one["stages"] if each.get("stage") == "reason")
        assert (stage["parameters"], stage["code_files"]) == (values, 1)
        assert stage["changed_since"] == ([] if now == "1" else ["star1/x.py"])
        assert one["trace"]["calls"][0]["sampling"] == {"temperature": 0.6}
        write_json(basis, {"code": {}, "values": {}})
    (project / ".dvc/cache").rename(project / "elsewhere")
    (project / ".dvc/config.local").write_text("[cache]\n    dir = ../elsewhere\n")
    stage = next(each for each in issue("row:0", project)["stages"] if each.get("stage") == "reason")
    assert stage["parameters"] == values
    (project / ".dvc/config.local").unlink()  # where it is not at hand, that is told
    stage = next(each for each in issue("row:0", project)["stages"] if each.get("stage") == "reason")
    assert (stage["parameters"], stage["changed_since"]) == ({}, ["results/basis/reason.json"])


def test_the_image_that_a_stage_ran_in(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/data.sif").write_bytes(b"image")
    record = tmp_path / ".snakemake/metadata/ZGF0YS9jb3QuanNvbmw="
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"container_img_url": "containers/data.sif", "software_stack_hash": "abc"}))
    books, digest = Books(tmp_path), file_digest(tmp_path / "containers/data.sif")
    for _ in range(2):  # the second time, from the note beside it
        assert books.image("data/cot.jsonl")["sha256"] == digest
    nothing = "d41d8cd98f00b204e9800998ecf8427e"
    record.write_text(json.dumps({"container_img_url": "containers/data.sif", "software_stack_hash": nothing}))
    assert books.image("data/cot.jsonl")["ran_in"] == "the environment that Snakemake ran in"
    assert books.image("data/scored.jsonl") == {"ran_in": "not recorded here"}


# --- zipped stores ---------------------------------------------------------------------------------------------------


def test_zipped_stores_give_the_same_passports(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("star1.segments.BLOCK_BYTES", 300)
    before = issue("row:0", project, replies=True)
    path = project / "data/replies/reason.jsonl"
    with Store(path) as store:
        store.compact()
    segment = segments(path)[0]
    assert tags.tag_file(segment).is_file()
    assert issue("row:0", project, replies=True) == before
    read: list[int] = []
    monkeypatch.setattr("star1.segments.Block.read", lambda block: one_block(block, read))
    tags.tag_file(segment).unlink()
    assert issue("row:0", project, replies=True) == before
    assert len(read) == 1 < len({block for row in "0123" for block in tags.find(segment, "item", row)})


def one_block(block: Any, read: list[int]) -> bytes:
    """Unzip a block, and remember that."""
    read.append(block.start)
    with open(block.path, "rb") as file:
        file.seek(block.start)
        return gzip.decompress(file.read(block.length))


def test_tags_of_another_segment_are_made_anew(project: Path) -> None:
    """`dvc checkout` may put another segment under the same name."""
    path = project / "data/replies/reason.jsonl"
    with Store(path) as store:
        store.compact()
    segment = segments(path)[0]
    key = read_rows(project / "data/replies/score.jsonl")[0]["key"]
    assert tags.find(segment, "key", key) == []
    segment.write_bytes(gzip.compress((project / "data/replies/score.jsonl").read_bytes(), mtime=0))
    assert [block.start for block in tags.find(segment, "key", key)] == [0]
    tags.tag_file(segment).write_bytes(b"")
    assert [block.start for block in tags.find(segment, "key", key)] == [0]


def test_a_damaged_block_is_passed_over(project: Path) -> None:
    path = project / "data/replies/reason.jsonl"
    with Store(path) as store:
        store.compact()
    segment = segments(path)[0]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)  # the tags stay, since the end is the same
    assert issue("row:0", project)["problems"] == ["reason: no stored reply to what would be asked now"]


def test_without_a_place_for_tags_every_block_is_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = issue("row:0", project)
    path = project / "data/replies/reason.jsonl"
    with Store(path) as store:
        store.compact()
    tags.tag_file(segments(path)[0]).unlink()

    def refuse(segment: Path) -> None:
        raise PermissionError(segment)

    monkeypatch.setattr(tags, "write", refuse)
    assert issue("row:0", project) == before


# --- finding rows ----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=4), st.integers(1, 9))
def test_positions_are_those_of_a_search_in_the_whole(text: bytes, wanted: bytes, chunk: int) -> None:
    path = Path(PLACE) / "bytes"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "CHUNK", chunk)
        found = list(finding.positions(path, wanted))
    assert found == [at for at in range(len(text)) if text.startswith(wanted, at)]


PLACE = ""


@pytest.fixture(autouse=True, scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> None:
    global PLACE
    PLACE = str(tmp_path_factory.mktemp("finding"))


@given(st.lists(st.integers(0, 60), unique=True), st.booleans())
def test_rows_are_found_by_id_in_any_order(ids: list[int], ordered: bool) -> None:
    rows = [{"id": str(one), "question": "long " * one} for one in (sorted(ids) if ordered else ids)]
    path = Path(PLACE) / "rows.jsonl"
    write_rows(path, rows)
    for wanted in range(61):
        assert finding.row_of(path, str(wanted)) == next((row for row in rows if row["id"] == str(wanted)), None)


def test_sorted_files_are_not_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"id": str(number)} for number in range(1000)])
    monkeypatch.setattr(finding, "lines_with", None)
    assert finding.row_of(path, "0") == {"id": "0"}
    assert finding.row_of(path, "999") == {"id": "999"}


@pytest.mark.parametrize("name", ["a", "007", "x/y z", 'quoted "id"', "ü-1", "back\\slash", "line\nbreak", "²"])
def test_rows_are_not_mistaken_for_texts_that_quote_their_ids(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    wanted = {"id": name, "question": "the one"}
    others: list[Row] = [
        {"id": "7", "question": orjson.dumps(wanted).decode()},
        {"id": "b", "matched": {"id": name}},
        {"id": f"{name}x", "question": name},
        {"question": "no id"},
    ]
    write_rows(path, others)
    assert finding.row_of(path, name) is None
    write_rows(path, [*others, wanted])
    assert finding.row_of(path, name) == wanted


def test_a_question_that_quotes_ids_has_its_own_passport(made: Path) -> None:
    assert issue("row:2", made)["question"] == QUESTIONS[2]
    assert issue("row:1", made)["question"] == QUESTIONS[1]


# --- the command -----------------------------------------------------------------------------------------------------


def command(project: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.chdir(project)
    cli.in_project(cli.parser().parse_args(["passport", *words]))


def test_command(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(project, monkeypatch, "main:run/all", "harmful")
    told = capsys.readouterr().out
    assert told.startswith("main:run/all harmful (cell of a table)\n")
    assert "answer:run/jbb/jbb-0" in told
    command(project, monkeypatch, "row:0", "--json")
    one = json.loads(capsys.readouterr().out)
    assert one == json.loads(json.dumps(issue("row:0", project)))
    change(project / "data/star1.jsonl", lambda rows: rows.pop(0))
    with pytest.raises(SystemExit) as ended:
        command(project, monkeypatch, "row:0")
    assert ended.value.code == 1
    assert "\nDOES NOT AGREE: row 0: in full_score of" in capsys.readouterr().out


def test_cells_load_nothing_that_takes_long() -> None:
    """Models of settings, the code of the stages and statistics would take longer to load than the answer takes."""
    code = "import sys, star1.cli, star1.passport.text, star1.passport.issue; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"pydantic", "scipy", "numpy", "asyncio", "openai"} & set(done.stdout.split())


@pytest.mark.parametrize("everything", [False, True])
def test_text_says_what_the_object_says(made: Path, everything: bool) -> None:
    for address in (
        "row:0",
        "row:3",
        "school-5",
        "benign:0",
        "published:Released/0",
        "jbb/jbb-0",
        "run/jbb/jbb-0",
        "model:run",
    ):
        one = issue(address, made, replies=everything, everything=everything)
        told = "\n".join(text.lines(one, everything))
        missing = [link for link in link_values(one) if link not in told]
        assert missing == []
        assert not any(line != line.rstrip() for line in told.split("\n"))
