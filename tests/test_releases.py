"""Released data sets: readable without a cast, the published layout, and no text that a licence does not allow."""

import json
from pathlib import Path

import orjson
import polars as pl
import pytest

from star1.errors import InputError
from star1.publications import release_data
from star1.reading import read_published
from star1.records import file_digest, read_json, read_rows, text_digest, write_rows
from star1.releases import PARQUET, published_text
from star1.sources import Published
from tests.made import LICENCES, artifacts, make_run

NAMES = {"star-41k": "STAR-41K", "star-1": "STAR-1", "star-benign": "STAR-benign"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose sources may be given on, may not, and say nothing; released as it stands, and with leave for all."""
    folder = tmp_path_factory.mktemp("made")
    release_data(make_run(folder), folder / "release")
    release_data(artifacts(folder, dict.fromkeys(LICENCES, True)), folder / "open")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_parquet_loads_with_polars_and_datasets_without_a_cast(made: Path, tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("datasets")
    path = made / "release" / name / PARQUET
    table = pl.read_parquet(path)
    assert not any(isinstance(kind, pl.Struct | pl.Object) for kind in table.schema.values())
    assert table.schema["category"] == pl.List(pl.String)
    found = datasets.load_dataset(str(path.parents[1]), split="train", cache_dir=str(tmp_path))
    assert found.column_names == table.columns
    assert found.to_list() == table.to_dicts()


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_the_run_with_all_they_need(made: Path, name: str) -> None:
    file = {"star-41k": "scored", "star-1": "star1", "star-benign": "benign/benign"}[name]
    rows = read_rows(made / f"data/{file}.jsonl")
    table = pl.read_parquet(made / "open" / name / PARQUET)
    assert table["id"].to_list() == [row["id"] for row in rows]
    for row, flat in zip(rows, table.to_dicts(), strict=True):
        assert all(flat[field] == row[field] for field in ("question", "response", "category", "source"))
        assert {key: flat[f"score_{key}"] for key in row["score"]} == row["score"]
        assert flat["licence"] == LICENCES[row["source"]]
        assert flat["question_digest"] == text_digest(row["question"])
        assert flat["policy_pack"] == "star1"
        assert all(flat[f"{role}_replies"] for role in ("teacher", "scorer"))
    full = [name for name in table.columns if table[name].null_count() == len(table)]
    assert full == ["source_revision", "withheld"]


def test_every_row_says_why_it_is_in_the_final_set_or_not(made: Path) -> None:
    table = pl.read_parquet(made / "release/star-41k" / PARQUET)
    why = {row["id"]: row["reason"] for row in read_rows(made / "data/curate_dropped.jsonl")}
    kept = {row["id"] for row in read_rows(made / "data/star1.jsonl")}
    assert table["selected"].sum() == len(kept) == 12
    for flat in table.to_dicts():
        assert flat["selected"] is (flat["id"] in kept)
        assert flat["selection"] == why.get(flat["id"], flat["selection"])
        assert flat["selection"].startswith("full marks; kept") is flat["selected"]
    assert any(reason.startswith("score ") for reason in table["selection"])
    assert any(reason.startswith("balanced out") for reason in table["selection"])


@pytest.mark.parametrize("name", NAMES)
def test_ids_only_rows_hold_no_text_anywhere(made: Path, name: str) -> None:
    everything = pl.read_parquet(made / "open" / name / PARQUET)
    table = pl.read_parquet(made / "release" / name / PARQUET)
    withheld = table.filter(pl.col("source") != "open")
    assert len(withheld) > 0
    assert withheld["withheld"].null_count() == 0
    assert (
        table.filter(pl.col("source") == "open")
        .drop("withheld")
        .equals(everything.filter(pl.col("source") == "open").drop("withheld"))
    )
    for column in ("id", "category", "source", "question_digest", "response_digest", "teacher_replies", "selection"):
        assert table[column].equals(everything[column])
    said = everything.filter(pl.col("source") != "open")
    texts = {
        text
        for column in ("question", "response", "original_question")
        if column in said.columns
        for text in said[column]
    }
    cells = {cell for row in withheld.rows() for cell in row if isinstance(cell, str)}
    assert texts
    assert not texts & cells
    for path in (made / "release" / name).iterdir():
        content = path.read_text("utf-8") if path.is_file() else ""
        assert not any(text in content or json.dumps(text)[1:-1] in content for text in texts), path
    seal = read_json(made / "release" / name / "release.json")
    assert (seal["rows"], seal["ids_only"]) == (len(table), len(withheld))


@pytest.mark.parametrize(("name", "title"), NAMES.items())
def test_published_layout_loads_as_the_released_sets_do(made: Path, name: str, title: str) -> None:
    path = made / "open" / name / f"{title}.json"
    entry = Published(kind="bundled", path=path.name, format="json", licence="MIT", attribution="us")
    rows = read_published(title, entry, [path])
    assert [row["id"] for row in rows] == pl.read_parquet(made / "open" / name / PARQUET)["id"].to_list()
    assert all(list(row)[:6] == ["id", "question", "response", "category", "source", "score"] for row in rows)
    given = json.loads((made / "release" / name / f"{title}.json").read_text())
    assert given == [row for row in json.loads(path.read_text()) if row["source"] == "open"]


def test_published_layout_is_that_of_the_released_file_to_the_byte(shared: Path) -> None:
    path = shared / "reference/star1/STAR-1.json"
    assert published_text(read_json(path)).encode() == path.read_bytes()


def test_a_release_is_the_same_whenever_it_is_made(made: Path, tmp_path: Path) -> None:
    release_data(artifacts(made), tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (made / "release" / path.relative_to(tmp_path)).read_bytes(), path.name


@pytest.mark.parametrize("name", NAMES)
def test_seal_has_the_digest_of_every_file(made: Path, name: str) -> None:
    folder = made / "release" / name
    seal = read_json(folder / "release.json")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"release.json"}
    assert set(seal["files"]) == files
    assert all(seal["files"][file]["sha256"] == file_digest(folder / file) for file in files)
    assert seal["origins"]["teacher"] == {"stand-in": seal["rows"]}
    assert "the stand-in was" in seal["stand_in"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "elsewhere"}, "source 'elsewhere'; expected a source of fetch.sources"),
        ({"id": "new"}, "neither kept nor dropped by curate"),
    ],
)
def test_a_row_that_does_not_belong_is_told(tmp_path: Path, change: dict[str, str], message: str) -> None:
    run = make_run(tmp_path, 30)
    rows = run.rows("scored")
    write_rows(tmp_path / "data/scored.jsonl", [{**rows[0], **change}, *rows[1:]])
    with pytest.raises(InputError, match=message):
        release_data(run, tmp_path / "release")


def test_a_row_without_its_marks_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path, 30)
    text = (tmp_path / "data/scored.jsonl").read_bytes().replace(b'"score"', b'"mark"', 1)
    (tmp_path / "data/scored.jsonl").write_bytes(text)
    with pytest.raises(InputError, match="no field 'score'"):
        release_data(run, tmp_path / "release")


def test_a_set_without_rows_is_released_as_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, 30)
    write_rows(tmp_path / "data/benign/benign.jsonl", [])
    assert release_data(run, tmp_path / "release")[2] == "star-benign: 0 rows"
    table = pl.read_parquet(tmp_path / "release/star-benign" / PARQUET)
    assert (len(table), "original_digest" in table.columns) == (0, True)
    assert "There are no rows." in (tmp_path / "release/star-benign/README.md").read_text()


def test_settings_of_calls_are_json_in_one_text_column(made: Path) -> None:
    table = pl.read_parquet(made / "release/star-1" / PARQUET)
    assert orjson.loads(table["teacher_sampling"][0]) == {"max_tokens": 800, "temperature": 0.6}
