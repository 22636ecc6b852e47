"""The API-free check: the released STAR-1 has every published figure, and stand-ins of the other files are told apart."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from star1 import audit, facts, released
from star1.audit import DIFFERS, ELSEWHERE, OK, UNPUBLISHED
from star1.curation import balance
from star1.errors import InputError
from star1.facts import BENIGN, STAR_1, STAR_41K
from star1.records import Row
from tests.conftest import ROOT

Done: TypeAlias = "subprocess.CompletedProcess[str]"


def stand_in(count: int, low: int = 3) -> list[Row]:
    """Rows of the released schema; one in `low` has a mark below the full ones. The order is not that of the ids."""
    random_ = random.Random(41)
    names, labels = list(facts.SOURCES), list(facts.LABELS)
    ids = random_.sample(range(count), count)
    return [
        {
            "id": str(name),
            "question": f"What about matter {name}?",
            "response": "<think>\nThe policy says no.\n</think>\n\nI'm sorry, but no.",
            "category": random_.sample(labels, random_.choice((1, 1, 1, 2, 3))),
            "source": names[min(place % 40, 17)],
            "score": dict(zip(facts.RUBRIC.criteria, (10, 10, 10 if place % low else 9), strict=True)),
        }
        for place, name in enumerate(ids)
    ]


def benign_rows() -> list[Row]:
    score = dict.fromkeys(facts.BENIGN_RUBRIC.criteria, 5)
    return [row | {"score": score} for row in stand_in(915)]


def put(folder: Path, name: str, rows: list[Row]) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows, indent=1))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stand-ins of all three files, of the published sizes: STAR-1 is what the selection gives."""
    folder, pool = tmp_path_factory.mktemp("released"), stand_in(40_961)
    chosen = balance([row for row in pool if min(row["score"].values()) == 10], 1000)[0]
    rows = {STAR_1: chosen, STAR_41K: pool, BENIGN: benign_rows()}
    return {name: put(folder, name, rows[name]) for name in rows}


Verdicts: TypeAlias = dict[tuple[str, str], tuple[object, str]]


def checked(files: dict[str, Path], root: Path = Path("nowhere")) -> tuple[Verdicts, dict[str, dict[str, list[str]]]]:
    checks, overlaps = audit.audit({name: released.read(name, path) for name, path in files.items()}, root)
    return {(one.of, one.what): (one.found, one.verdict) for one in checks}, overlaps


def changed(files: dict[str, Path], name: str, change: Callable[[list[Row]], None], folder: Path) -> dict[str, Path]:
    rows = json.loads(files[name].read_text())
    change(rows)
    return {**files, name: put(folder, name, rows)}


FILE_ORDER = f"ids of STAR-1 that curate selects {audit.ORDERS[0]}"
ID_ORDER = f"ids of STAR-1 that curate selects {audit.ORDERS[1]}"


def test_the_released_star_1_has_every_published_figure(shared: Path) -> None:
    found, overlaps = checked({STAR_1: shared / "reference" / "star1" / "STAR-1.json"}, ROOT)
    own = {what: verdict for (of, what), (_, verdict) in found.items() if of == STAR_1}
    assert len(own) == 50
    assert {what for what, verdict in own.items() if verdict != OK} == {"answers with the word policy or policies"}
    assert found[STAR_1, "answers with the word policy or policies"] == (85, UNPUBLISHED)
    assert all(verdict.startswith(ELSEWHERE) for (of, _), (_, verdict) in found.items() if of != STAR_1)
    assert overlaps == {}


def test_stand_ins_of_the_published_sizes_pass(files: dict[str, Path]) -> None:
    found, overlaps = checked(files)
    for of, what in ((STAR_41K, "rows"), (STAR_41K, "rows of the schema"), (STAR_41K, "distinct ids")):
        assert found[of, what] == (40_961, OK)
    assert found[STAR_41K, "rows with 10 on every criterion"] == (27_307, UNPUBLISHED)
    assert found[STAR_41K, FILE_ORDER] == (1000, OK)
    assert found[STAR_41K, "rows of STAR-1 in it, by id and question"] == (1000, OK)
    assert found[STAR_41K, "rows of STAR-1 with full marks in it, by id"] == (1000, OK)
    assert found[BENIGN, "rows with 5 on every criterion"] == (915, OK)
    assert len(overlaps[audit.ORDERS[0]]["both"]) == 1000
    # In another order other rows of the same source and categories stay: that is what the second line is for.
    assert found[STAR_41K, ID_ORDER][1] == UNPUBLISHED
    assert 0 < len(overlaps[audit.ORDERS[1]]["both"]) < 1000


def test_another_selection_is_told_id_by_id(files: dict[str, Path], tmp_path: Path) -> None:
    pool = json.loads(files[STAR_41K].read_text())
    chosen = {row["id"] for row in json.loads(files[STAR_1].read_text())}
    stranger = next(row for row in pool if row["id"] not in chosen and min(row["score"].values()) == 10)

    def swap(rows: list[Row]) -> None:
        rows[7] = stranger

    missing = json.loads(files[STAR_1].read_text())[7]["id"]
    found, overlaps = checked(changed(files, STAR_1, swap, tmp_path))
    assert found[STAR_41K, FILE_ORDER] == (999, DIFFERS)
    parts = overlaps[audit.ORDERS[0]]
    assert (parts["published_alone"], parts["ours_alone"]) == ([stranger["id"]], [missing])
    assert found[STAR_41K, "rows of STAR-1 in it, by question"] == (1000, OK)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"score": None}, "1 rows: score null"),
        ({"score": {"Content_Safety_Compliance": 10}}, "1 rows: no mark on Relevancy_and_No_Redundant_Content"),
        ({"score": dict.fromkeys(facts.RUBRIC.criteria, "10")}, "1 rows: mark '10' on Content_Safety_Compliance"),
        ({"category": "Self-Harm"}, "1 rows: category 'Self-Harm'"),
        ({"id": 12}, "1 rows: id missing, empty or no text"),
        ({"question": ""}, "1 rows: question missing, empty or no text"),
        ({"response": "No thinking."}, "1 rows: response not in the two parts"),
    ],
)
def test_rows_of_another_schema_are_counted_and_left_out(
    files: dict[str, Path], tmp_path: Path, change: Row, told: str
) -> None:
    def spoil(rows: list[Row]) -> None:
        rows[3].update(change)

    paths = changed({STAR_1: files[STAR_1]}, STAR_1, spoil, tmp_path)
    sets = {name: released.read(name, path) for name, path in paths.items()}
    checks, overlaps = audit.audit(sets, tmp_path)
    assert [one.found for one in checks if one.what == "rows of the schema" and one.of == STAR_1] == [999]
    lines = audit.report(checks, overlaps, sets)
    assert any(line.startswith(f"{STAR_1}: {told}") for line in lines), lines[-4:]


def test_a_file_with_other_figures_differs(files: dict[str, Path], tmp_path: Path) -> None:
    def lose(rows: list[Row]) -> None:
        rows[1]["id"] = rows[0]["id"]
        rows[2]["score"]["Content_Safety_Compliance"] = 9
        del rows[3:5]

    found, _ = checked(changed(files, STAR_1, lose, tmp_path))
    assert found[STAR_1, "rows"] == (998, DIFFERS)
    assert found[STAR_1, "distinct ids"] == (997, DIFFERS)
    assert found[STAR_1, "rows with 10 on every criterion"] == (997, DIFFERS)


def test_the_digest_is_asked_of_the_released_layout_alone(files: dict[str, Path], tmp_path: Path) -> None:
    assert checked({STAR_1: files[STAR_1]}, ROOT)[0][STAR_1, "MD5 of the file"][1] == DIFFERS
    lines = tmp_path / "STAR-1.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in json.loads(files[STAR_1].read_text())))
    found = checked({STAR_1: lines}, ROOT)[0]
    assert found[STAR_1, "MD5 of the file"][1] == UNPUBLISHED
    assert found[STAR_1, "rows of the schema"] == (1000, OK)


def test_where_released_files_are_looked_for(tmp_path: Path) -> None:
    assert released.find(STAR_1, None, tmp_path) is None
    (tmp_path / "data/published").mkdir(parents=True)
    (tmp_path / "published").mkdir()
    mirrored, imported = tmp_path / "data/published/STAR-1.jsonl", tmp_path / "published/STAR-1.json"
    mirrored.touch()
    assert released.find(STAR_1, None, tmp_path) == mirrored
    imported.touch()
    assert released.find(STAR_1, None, tmp_path) == imported
    assert released.find(STAR_1, Path("given"), tmp_path) == Path("given")


def test_a_file_that_is_no_data_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "STAR-41K.json"
    with pytest.raises(InputError, match="`star1 import-published STAR-41K` fetches it"):
        released.read(STAR_41K, path)
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(InputError, match="an HTML page"):
        released.read(STAR_41K, path)
    path.write_text("[]")
    with pytest.raises(InputError, match="no rows"):
        released.read(STAR_41K, path)


def command(folder: Path, *flags: str) -> Done:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "star1.cli", "check-published", *flags]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_file_of_other_rows_altogether_is_one_error(tmp_path: Path) -> None:
    """Such as prompts of one's own, given as STAR-1 by mistake: figures of no rows ended in a traceback."""
    path = tmp_path / "ours.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    with pytest.raises(
        InputError, match=r"ours.jsonl: no row of the schema \(the first: .*\); expected the released STAR-1"
    ):
        released.read("STAR-1", path)


def test_the_command(files: dict[str, Path], tmp_path: Path, shared: Path) -> None:
    (tmp_path / "Snakefile").touch()
    nothing = command(tmp_path)
    assert nothing.returncode == 1
    assert "`star1 import-published` fetches them, or give --star-1" in nothing.stderr
    real = shared / "reference" / "star1" / "STAR-1.json"
    (tmp_path / "published").mkdir()
    shutil.copy(real, tmp_path / "published")
    done = command(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Not here: STAR-41K, STAR-benign-915." in done.stdout
    assert "49 ok" not in done.stdout  # its digest is recorded in the project alone
    assert "48 ok" in done.stdout
    flags = ["--star-41k", str(files[STAR_41K]), "--benign", str(files[BENIGN]), "--json", str(tmp_path / "out.json")]
    both = command(tmp_path, *flags)
    assert both.returncode == 1  # the real 1,000 are not those of the stand-in
    assert "in the file's order: published and not selected: " in both.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    parts = found["overlaps"][audit.ORDERS[0]]
    assert len(parts["both"]) + len(parts["published_alone"]) == 1000
    assert {one["verdict"] for one in found["checks"]} >= {OK, DIFFERS, UNPUBLISHED}
