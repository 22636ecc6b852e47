"""Named selections: what each kind takes, that draws are repeatable and nested, and that params.yaml checks them."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from star1.curation import curate
from star1.datasets import Selection, data_file, read_selection
from star1.errors import InputError, SettingError
from star1.records import Row, read_rows, write_rows
from star1.selections import in_turn, select
from tests.conftest import ROOT
from tests.loopback import run_script
from tests.test_curation import CRITERIA, RUBRIC, scored


def rows_of(count: int, seed: int = 3) -> list[Row]:
    """Rows of three sources and four labels; half of them with full marks."""
    random_ = random.Random(seed)
    marks = [(10, 10, 10), (10, 7, 10), (5, 5, 6), (1, 9, 10)]
    return [
        scored(i, random_.choice("abc"), random_.sample("wxyz", random_.choice((1, 1, 2))), marks[max(i % 6 - 2, 0)])
        for i in range(count)
    ]


ROWS = rows_of(240)


def chosen(rows: list[Row] = ROWS, **selection: Any) -> list[Row]:
    return select("mine", rows, RUBRIC, "Other", Selection(**selection))


def ids(rows: list[Row]) -> list[int]:
    return [int(row["id"]) for row in rows]


def test_balanced_is_the_final_data_set_of_another_size() -> None:
    for size in (100, 40, 7):
        assert chosen(kind="balanced", size=size) == curate(ROWS, RUBRIC, "Other", size)[1]


def test_random_takes_any_marks_where_it_says_so() -> None:
    full, drawn = chosen(kind="random", size=100, seed=1), chosen(kind="random", size=100, seed=1, marks=[0, 10])
    assert {tuple(row["score"].values()) for row in full} == {(10, 10, 10)}
    assert len({tuple(row["score"].values()) for row in drawn}) == 4
    assert len(full) == len(drawn) == 100
    assert ids(drawn) == sorted(ids(drawn))


def test_random_is_uniform_over_seeds() -> None:
    seen = Counter(
        name for seed in range(200) for name in ids(chosen(kind="random", size=60, seed=seed, marks=[0, 10]))
    )
    assert set(seen) == set(range(240))
    assert 25 < min(seen.values()) <= max(seen.values()) < 80  # 50 on average, standard deviation 6


def test_a_smaller_draw_is_part_of_a_larger_one_and_a_missing_row_moves_no_other() -> None:
    small, large = (chosen(kind="random", size=size, seed=9) for size in (20, 60))
    assert set(ids(small)) < set(ids(large))
    without = [row for row in ROWS if row["id"] != small[0]["id"]]
    assert set(ids(small[1:])) < set(ids(chosen(without, kind="random", size=20, seed=9)))
    assert ids(small) != ids(chosen(kind="random", size=20, seed=10))


def test_medium_marks_are_those_of_the_lowest_mark() -> None:
    assert {tuple(row["score"].values()) for row in chosen(kind="balanced", size=500, marks=[5, 8])} == {
        (10, 7, 10),
        (5, 5, 6),
    }
    assert {min(row["score"].values()) for row in chosen(kind="balanced", size=500, marks=[5, 5])} == {5}


def test_per_category_goes_round() -> None:
    """Also once a category has no rows left, and through rows that another category took (once an IndexError)."""
    rows = [scored(i, "a", "w") for i in range(20)] + [
        scored(20, "a", "xy"),
        scored(21, "a", "x"),
        scored(22, "a", "z"),
    ]
    assert ids(in_turn(rows)) == [0, 20, 22, 1, 21, *range(2, 20)]
    counts = Counter(name for row in chosen(kind="per_category", size=40, seed=1) for name in row["category"])
    assert max(counts.values()) - min(counts.values()) <= 10  # rows of two labels count for both
    assert len(chosen(kind="per_category", size=1000, seed=1)) == len(chosen(kind="random", size=1000, seed=1))


def test_per_category_is_even_where_each_row_has_one_label() -> None:
    rows = [scored(i, "a", "wwwwwwxyz"[i % 9]) for i in range(90)]
    counts = Counter(row["category"][0] for row in chosen(rows, kind="per_category", size=40, seed=1))
    assert counts == {"w": 10, "x": 10, "y": 10, "z": 10}


def test_rows_of_no_policy_are_never_taken() -> None:
    rows = [scored(0), scored(1, category=["Other"]), scored(2, category=())]
    for kind, seed in (("balanced", None), ("random", 1), ("per_category", 1)):
        assert ids(chosen(rows, kind=kind, size=5, seed=seed, marks=[0, 10])) == [0]


def test_nothing_to_choose_from_and_bad_rows_are_errors() -> None:
    with pytest.raises(InputError, match=r"selection mine: none of 1 rows has a lowest mark from 2 to 3"):
        chosen([scored(0)], kind="random", size=1, seed=1, marks=[2, 3])
    with pytest.raises(InputError, match="selection mine, row 1: score null"):
        chosen([scored(0), scored(1) | {"score": None}], kind="random", size=1, seed=1)
    with pytest.raises(SettingError, match=r"curate.selections.mine.marks: 5 to 11; expected within 0 to 10"):
        chosen(kind="random", size=1, seed=1, marks=[5, 11])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"kind": "random", "size": 5}', "curate.selections.mine: seed is required for kind random"),
        ('{"kind": "balanced", "size": 5, "seed": 1}', "seed is not allowed for kind balanced"),
        ('{"kind": "balanced", "size": 5, "marks": [8, 5]}', "must be the lower one, then the higher one"),
        ('{"kind": "medium", "size": 5}', "curate.selections.mine.kind"),
        ('{"kind": "balanced", "size": 0}', "curate.selections.mine.size"),
    ],
)
def test_a_wrong_selection_is_told_by_its_key(text: str, told: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_selection("mine", text)
    assert told in str(caught.value)


def test_where_data_sets_lie() -> None:
    selections = {"random"}
    assert data_file("star1", selections) == "data/star1.jsonl"
    assert data_file("random", selections) == "data/selections/random.jsonl"
    assert data_file("STAR-1", selections) == "data/published/STAR-1.jsonl"


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "scored.jsonl", ROWS)
    flags = ["--input", str(tmp_path / "scored.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--name", "mine"]
    flags += ["--policy", str(ROOT / "policies/star1")]
    run_script("curate_select", *flags, "--selection", json.dumps({"kind": "balanced", "size": 500}))
    assert capsys.readouterr().out.startswith(
        "curate_select mine: 240 rows in, 120 kept (fewer than the 500 asked for): "
    )
    assert len(read_rows(tmp_path / "out.jsonl", ["id", "score"])) == 120
    assert list(read_rows(tmp_path / "out.jsonl")[0]["score"]) == list(CRITERIA)
