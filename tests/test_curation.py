"""Full marks and balancing: against the published selection, and against its rule written out."""

import json
import random
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from star1.balancing import group, removals
from star1.curation import balance, curate, full_marks
from star1.errors import InputError
from star1.policies import Rubric
from star1.records import Row, read_rows, write_rows

Done: TypeAlias = "subprocess.CompletedProcess[str]"

# The names of the published rows, which are those of the bundled policy pack.
CRITERIA = ("Content_Safety_Compliance", "Relevancy_and_No_Redundant_Content", "Accuracy_of_Thinking_Process")
RUBRIC = Rubric(minimum=0, maximum=10, criteria=dict.fromkeys(CRITERIA, "meaning"))


def scored(index: int, source: str = "a", category: Sequence[str] = ("x",), score: Sequence[int] = (10, 10, 10)) -> Row:
    return {
        "id": str(index),
        "source": source,
        "category": list(category),
        "score": dict(zip(CRITERIA, score, strict=True)),
    }


def weight(source: int, labels: Sequence[int], rows: int, marks: int) -> float:
    """The rule's weight, from counts: its operations in its order."""
    total = 0.0
    for count in labels:
        total += count / marks
    return source / rows * total


def product_first(source: int, labels: Sequence[int], rows: int, marks: int) -> float:
    """The same number but for the last bit."""
    return source * (sum(count / marks for count in labels)) / rows


def sum_first(source: int, labels: Sequence[int], rows: int, marks: int) -> float:
    """The same number but for the last bit."""
    return source / rows * (sum(labels) / marks)


Weight: TypeAlias = Callable[[int, Sequence[int], int, int], float]


def literal_removals(rows: list[Row], size: int, weigh: Weight = weight) -> list[Row]:
    """The rule as it reads: everything counted anew for every row that goes."""
    rows, gone = list(rows), []
    while len(rows) > size:
        sources = Counter(row["source"] for row in rows)
        labels = Counter(name for row in rows for name in row["category"])
        weights = [
            weigh(sources[row["source"]], [labels[name] for name in row["category"]], len(rows), labels.total())
            for row in rows
        ]
        gone.append(rows.pop(weights.index(max(weights))))
    return gone


def literal_balance(rows: list[Row], size: int) -> list[Row]:
    gone = {row["id"] for row in literal_removals(rows, size)}
    return [row for row in rows if row["id"] not in gone]


# Few sources and labels, in any order: many exact ties, and sums that differ in the last bit only.
ROW = st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("wxyz"), min_size=1, max_size=4, unique=True))


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.lists(ROW, min_size=1, max_size=40), st.integers(1, 40))
def test_balance_is_the_rule_written_out(pairs: list[tuple[str, list[str]]], size: int) -> None:
    rows = [scored(index, source, names) for index, (source, names) in enumerate(pairs)]
    kept, dropped = balance(rows, size)
    assert [row["id"] for row in kept] == [row["id"] for row in literal_balance(rows, size)]
    assert sorted(int(row["id"]) for row in kept + dropped) == list(range(len(rows)))


def mixed(seed: int) -> list[Row]:
    random_ = random.Random(seed)
    pairs = [(random_.choice("aaaabbbccde"), random_.choice((1, 1, 2, 3))) for _ in range(150)]
    return [scored(i, source, random_.sample("uvwxyz", width)) for i, (source, width) in enumerate(pairs)]


@pytest.mark.parametrize("seed", range(10))
def test_every_step_of_the_balance_is_the_rules_step(seed: int) -> None:
    """Not only who is left, but who goes when: each step's weights are the rule's to the last bit."""
    rows = mixed(seed)
    assert [row["id"] for row in balance(rows, 1)[1]] == [row["id"] for row in literal_removals(rows, 1)]


@pytest.mark.parametrize("other", [product_first, sum_first])
def test_the_order_of_float_operations_decides(other: Weight) -> None:
    """Else the test above would pass whatever the order."""
    changed = [
        seed for seed in range(10) if literal_removals(mixed(seed), 1) != literal_removals(mixed(seed), 1, other)
    ]
    assert len(changed) >= 3


def test_a_part_in_another_order_is_balanced_as_if_it_stood_alone() -> None:
    random_ = random.Random(5)
    rows = [scored(i, random_.choice("abc"), random_.sample("wxyz", random_.choice((1, 2, 3)))) for i in range(120)]
    groups = group((row["source"], tuple(row["category"])) for row in rows)
    for size in (1, 20, 79, 80, 200):
        part = np.array(random_.sample(range(120), 80))
        alone = literal_balance([rows[index] for index in part], size)
        left = [index for index in part if index not in set(removals(groups, size, part))]
        assert left == [int(row["id"]) for row in alone]


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
def test_balance_keeps_what_the_published_code_keeps(size: int, shared: Path) -> None:
    rows = json.loads((shared / "reference" / "star1" / "STAR-1.json").read_text())
    full, kept, _ = curate(rows, RUBRIC, "Other", size)
    assert len(full) == 1000
    reference = json.loads((shared / "sources" / "reference" / "curate.json").read_text())
    assert [row["id"] for row in kept] == reference["kept"][str(size)]


def test_41k_rows_take_two_seconds_and_memory_for_each_row_alone() -> None:
    """By the literal rule this is a quarter of an hour. Measured: 0.35 s."""
    random_ = random.Random(1)
    names = [f"category {i}" for i in range(8)]
    pick = [random_.sample(names, random_.choice((1, 1, 2))) for _ in range(41_000)]
    rows = [scored(i, f"s{min(i % 97, 17)}", names) for i, names in enumerate(pick)]
    balance(rows[:50], 5)  # compiles, or loads what was compiled
    started = time.process_time()
    _, kept, dropped = curate(rows, RUBRIC, "Other", 1000)
    assert time.process_time() - started < 2
    tracemalloc.start()
    balance(rows, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 41_000 * 600
    assert (len(kept), len(dropped)) == (1000, 40_000)
    counts = [sum(row["source"] == f"s{i}" for row in kept) for i in range(18)]
    assert max(counts) < 200  # one source held 83 % of the rows


def test_full_marks_says_why_a_row_goes() -> None:
    rows = [scored(0), scored(1, score=(10, 9, 8)), scored(2, category=("x", "Other")), scored(3, category=())]
    kept, dropped = full_marks(rows, 10, "Other")
    assert [row["id"] for row in kept] == ["0"]
    assert [row["reason"] for row in dropped] == [f"score 9 on {CRITERIA[1]}", "Other", "no category"]


def test_full_marks_uses_the_given_maximum() -> None:
    assert len(full_marks([scored(0, score=(5, 5, 4)), scored(1, score=(5, 5, 5))], 5, "Other")[0]) == 1


def test_curate_without_a_full_row_is_an_error() -> None:
    with pytest.raises(InputError, match="none of 1 rows has full marks"):
        curate([scored(0, score=(10, 10, 0))], RUBRIC, "Other", 5)


FULL = dict.fromkeys(CRITERIA, 10)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"score": None}, "score null; expected marks on Content"),
        ({"score": "10"}, "score '10'; expected marks on Content"),
        ({"score": {}}, f"no mark on {CRITERIA[0]}; expected one on each of"),
        # Full marks on the criteria that it has: once passed as full marks.
        ({"score": {CRITERIA[0]: 10, CRITERIA[1]: 10}}, f"no mark on {CRITERIA[2]}; expected one on each of"),
        ({"score": FULL | {"Style": 10}}, "a mark on 'Style'; expected only"),
        ({"score": FULL | {CRITERIA[1]: "10"}}, f"mark '10' on {CRITERIA[1]}; expected a whole number from 0 to 10"),
        ({"score": FULL | {CRITERIA[1]: 10.0}}, f"mark 10.0 on {CRITERIA[1]}; expected a whole number"),
        ({"score": FULL | {CRITERIA[1]: True}}, f"mark True on {CRITERIA[1]}; expected a whole number"),
        ({"score": FULL | {CRITERIA[1]: None}}, f"mark null on {CRITERIA[1]}; expected a whole number"),
        ({"score": FULL | {CRITERIA[1]: 11}}, f"mark 11 on {CRITERIA[1]}; expected a whole number from 0 to 10"),
        ({"category": None}, "category null; expected a list of names"),
        ({"category": "x"}, "category 'x'; expected a list of names"),
        ({"category": ["x", None]}, "category ['x', None]; expected a list of names"),
        ({"category": ["x", "x"]}, "category ['x', 'x']; expected each name once"),
        ({"source": None}, "source null; expected text"),
        ({"id": 7}, "row 7: id 7; expected text"),
        ({"id": "0"}, "row 0: the id comes 2 times; expected each once"),
    ],
)
def test_a_bad_row_is_one_clear_error(change: Row, told: str) -> None:
    with pytest.raises(InputError) as caught:
        curate([scored(0), scored(1) | change], RUBRIC, "Other", 1)
    assert told in str(caught.value)
    assert "curate, row " in str(caught.value)


def test_many_bad_rows_are_one_error_with_their_number() -> None:
    with pytest.raises(InputError, match=r"row 0: score null \(3 such rows of 3\)"):
        curate([scored(n) | {"score": None} for n in range(3)], RUBRIC, "Other", 1)


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
    assert [row["reason"] for row in dropped] == [f"score 9 on {CRITERIA[0]}", "balanced out at step 1 (source a)"]


def test_script_keeps_all_when_there_are_too_few(tmp_path: Path) -> None:
    result = run_script(tmp_path, [scored(0), scored(1)], 5)
    assert "2 kept (fewer than the 5 asked for)" in result.stdout
    assert len(read_rows(tmp_path / "star1.jsonl")) == 2


def test_script_fails_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    result = run_script(tmp_path, [scored(0, category=("Other",))], 5)
    assert result.returncode == 1
    assert result.stderr.startswith("error: curate: none of 1 rows")
    assert not (tmp_path / "star1.jsonl").exists()


def test_script_tells_a_row_without_a_field_by_its_line(tmp_path: Path) -> None:
    rows = [scored(0), {name: value for name, value in scored(1).items() if name != "category"}]
    result = run_script(tmp_path, rows, 5)
    assert result.returncode == 1
    assert "scored.jsonl:2: no field 'category'; expected the fields id, source, category, score." in result.stderr
