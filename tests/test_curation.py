"""Full marks and balancing: against the published selection, and against its rule written out."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from star1.curation import balance, curate, full_marks
from star1.errors import InputError
from star1.records import Row, read_rows, write_rows

SHARED = Path(__file__).parents[2] / "shared"
Done: TypeAlias = "subprocess.CompletedProcess[str]"

CRITERIA = ("safety", "relevance", "accuracy")


def scored(index: int, source: str = "a", category: Sequence[str] = ("x",), score: Sequence[int] = (10, 10, 10)) -> Row:
    return {
        "id": str(index),
        "source": source,
        "category": list(category),
        "score": dict(zip(CRITERIA, score, strict=True)),
    }


def literal_balance(rows: list[Row], size: int) -> list[Row]:
    """The rule as it reads: everything counted anew for every row that goes."""
    rows = list(rows)
    while len(rows) > size:
        sources = [row["source"] for row in rows]
        labels = [name for row in rows for name in row["category"]]
        weights = []
        for row in rows:
            total = 0.0
            for name in row["category"]:
                total += labels.count(name) / len(labels)
            weights.append(sources.count(row["source"]) / len(rows) * total)
        rows.pop(weights.index(max(weights)))
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_balance_is_the_rule_written_out(seed: int) -> None:
    # Few sources and labels, in both orders: many exact ties, and sums that differ in the last bit only.
    random_ = random.Random(seed)
    rows = [scored(i, random_.choice("abc"), random_.sample("wxyz", random_.choice((1, 1, 2, 3)))) for i in range(90)]
    for size in (89, 60, 25, 1):
        kept, dropped = balance(rows, size)
        assert [row["id"] for row in kept] == [row["id"] for row in literal_balance(rows, size)]
        assert sorted(int(row["id"]) for row in kept + dropped) == list(range(90))


def test_balance_sums_in_the_rows_own_order() -> None:
    # (0.1 + 0.2) + 0.3 and (0.3 + 0.2) + 0.1 differ in binary: the group is the ordered list, not the set.
    rows = [scored(0, "a", "x")] + [scored(i, "a", "y") for i in (1, 2)] + [scored(i, "a", "z") for i in (3, 4, 5)]
    rows += [scored(6, "b", "xyz"), scored(7, "b", "zyx"), scored(8, "b", "zxy"), scored(9, "b", "yxz")]
    for size in range(1, 10):
        assert [row["id"] for row in balance(rows, size)[0]] == [row["id"] for row in literal_balance(rows, size)]


def test_balance_takes_from_the_most_crowded_source_first() -> None:
    rows = [scored(0, "small"), scored(1, "large"), scored(2, "large"), scored(3, "large")]
    kept, dropped = balance(rows, 2)
    assert [row["id"] for row in kept] == ["0", "3"]
    assert [row["reason"] for row in dropped] == [
        "balanced out at step 1 (source large)",
        "balanced out at step 2 (source large)",
    ]


@pytest.mark.parametrize("size", [900, 500, 250])
def test_balance_keeps_what_the_published_code_keeps(size: int) -> None:
    reference = SHARED / "sources" / "reference" / "curate.json"
    if not reference.exists():
        pytest.skip("the published selection is not at hand (../shared)")
    rows = json.loads((SHARED / "reference" / "star1" / "STAR-1.json").read_text())
    full, kept, _ = curate(rows, 10, "Other", size)
    assert len(full) == 1000
    assert [row["id"] for row in kept] == json.loads(reference.read_text())["kept"][str(size)]


def test_balance_of_many_rows_is_quick() -> None:
    # By the literal rule this is minutes; by groups about a second.
    random_ = random.Random(1)
    names = [f"category {i}" for i in range(8)]
    rows = [scored(i, f"s{min(i % 97, 17)}", random_.sample(names, random_.choice((1, 1, 2)))) for i in range(10_000)]
    started = time.process_time()
    kept, dropped = balance(rows, 1000)
    assert time.process_time() - started < 20
    assert (len(kept), len(dropped)) == (1000, 9000)
    counts = [sum(row["source"] == f"s{i}" for row in kept) for i in range(18)]
    assert max(counts) < 200  # one source held 83 % of the rows


def test_full_marks_says_why_a_row_goes() -> None:
    rows = [
        scored(0),
        scored(1, score=(10, 9, 8)),
        scored(2, category=("x", "Other")),
        scored(3, category=()),
        scored(4) | {"score": {}},
    ]
    kept, dropped = full_marks(rows, 10, "Other")
    assert [row["id"] for row in kept] == ["0"]
    assert [row["reason"] for row in dropped] == ["score 9 on relevance", "Other", "no category", "no score"]


def test_full_marks_uses_the_given_maximum() -> None:
    assert len(full_marks([scored(0, score=(5, 5, 5)), scored(1)], 5, "Other")[0]) == 1


def test_curate_without_a_full_row_is_an_error() -> None:
    with pytest.raises(InputError, match="none of 1 rows has full marks"):
        curate([scored(0, score=(10, 10, 0))], 10, "Other", 5)


def run_script(folder: Path, rows: list[Row], size: int) -> Done:
    write_rows(folder / "scored.jsonl", rows)
    names = {"--full-score": "full.jsonl", "--output": "star1.jsonl", "--dropped": "dropped.jsonl"}
    flags = [part for flag, name in names.items() for part in (flag, str(folder / name))]
    command = [sys.executable, "-m", "scripts.curate", "--input", str(folder / "scored.jsonl"), *flags]
    command += ["--policy", "policies/star1", "--size", str(size)]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)


def test_script_writes_all_three_files(tmp_path: Path) -> None:
    rows = [scored(0), scored(1), scored(2, score=(9, 10, 10))]
    result = run_script(tmp_path, rows, 1)
    assert result.stdout == "curate: 3 rows in, 2 with full marks, 1 kept\n"
    assert read_rows(tmp_path / "full.jsonl") == rows[:2]
    assert read_rows(tmp_path / "star1.jsonl") == rows[1:2]
    dropped = read_rows(tmp_path / "dropped.jsonl")
    assert [row["reason"] for row in dropped] == ["score 9 on safety", "balanced out at step 1 (source a)"]


def test_script_keeps_all_when_there_are_too_few(tmp_path: Path) -> None:
    result = run_script(tmp_path, [scored(0), scored(1)], 5)
    assert "2 kept (fewer than the 5 asked for)" in result.stdout
    assert len(read_rows(tmp_path / "star1.jsonl")) == 2


def test_script_fails_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    result = run_script(tmp_path, [scored(0, category=("Other",))], 5)
    assert result.returncode == 1
    assert result.stderr.startswith("error: curate: none of 1 rows")
    assert not (tmp_path / "star1.jsonl").exists()
