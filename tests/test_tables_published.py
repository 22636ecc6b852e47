"""Ours beside the paper's: only where both are about the same."""

import csv
from pathlib import Path
from typing import Any

import pytest

from star1.errors import InputError
from star1.records import Row
from star1.tables_means import Settings, main
from star1.tables_published import Paper, _against, compare, over_refusal, over_refusal_page, page, read_paper
from tests.conftest import ROOT
from tests.test_tables_means import marks, row

PAPER = read_paper(ROOT / "published/paper_results.csv", ROOT / "published/paper_rows.yaml")
SIZES = {"strongreject": 313, "jbb": 100, "wildchat": 370, "wildjailbreak": 250}
NAME = "R1-Qwen-7B+star1"
SETTINGS = Settings(0.95, averages={"safety": list(SIZES)}, resamples=200)
REAL = {name: {"kind": "mirror" if name == "wildchat" else "hub"} for name in SIZES}


def judged(**safe: int) -> dict[str, list[Row]]:
    found = {}
    for name, size in SIZES.items():
        right = safe.get(name, size - 5)
        found[name] = [{**one, "kind": "llama_guard"} for one in marks(name, *"s" * right, *"u" * (size - right))]
    return found


def table(benchmarks: dict[str, list[Row]], entries: Any = REAL, model: str = NAME) -> dict[str, Row]:
    result = main({model: benchmarks}, {}, {}, SETTINGS)
    rows = compare("published", result, PAPER, entries)["comparisons"]
    return {one["benchmark"]: one for one in rows if (one["base"], one["model"]) == ("Qwen 7B", "STAR-1")}


def test_the_published_figures_are_whole() -> None:
    assert len(PAPER.rows) == 15 * 11 + 8 * 11 + 18 * 5
    for one in PAPER.rows:
        if one["benchmark"] in PAPER.averages:
            same = [other for other in PAPER.rows if all(other[key] == one[key] for key in ("table", "base", "model"))]
            parts = [other["percent"] for other in same if other["benchmark"] in PAPER.averages[one["benchmark"]]]
            # All are rounded to one decimal, and some averages to the other side.
            assert len(parts) == len(PAPER.averages[one["benchmark"]])
            assert one["percent"] == pytest.approx(sum(parts) / len(parts), abs=0.101), one


def test_every_published_row_with_a_model_of_ours_is_named_once() -> None:
    rows = {f"{row['base']} / {row['model']}" for row in PAPER.rows}
    assert set(PAPER.models) <= rows
    assert {name.split(" / ")[1] for name in rows - set(PAPER.models)} == {"SafeChain 1K", "SafeChain 40K"}


def test_difference_and_whether_the_published_value_is_in_our_interval() -> None:
    found = table(judged(jbb=98, strongreject=313, wildchat=300))
    assert (found["jbb"]["value"], found["jbb"]["inside"]) == (0.98, True)
    assert found["jbb"]["difference"] == pytest.approx(0.0)
    assert found["strongreject"]["inside"] is True  # 99.0 published, 98.8 to 100 ours
    assert (found["wildchat"]["difference"], found["wildchat"]["inside"]) == (pytest.approx(300 / 370 - 0.884), False)
    average = found["safety_avg"]
    assert average["value"] == pytest.approx((0.98 + 1 + 300 / 370 + 245 / 250) / 4)
    assert found["reasoning_avg"]["why"] == found["aime24"]["why"] == "not run"


def test_a_published_value_is_known_to_its_last_digit_only() -> None:
    """99.0 may be 98.95: an interval that begins at 99.02 does not exclude it."""
    ours = {"value": 0.999, "low": 0.9902, "high": 1.0, "n": 1, "total": 1, "coverage": 1.0}
    assert _against(ours, 0.99)["inside"] is True
    assert _against({**ours, "low": 0.9907}, 0.99)["inside"] is False


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("bundled", "not comparable: bundled rows, not the benchmark"),
        ("substitute", "not comparable: other rows, since the published ones are not public"),
        ("short", "not comparable: 99 rows, published 100"),
        ("refusal", "not comparable: judged by refusal, published by a llama_guard"),
        ("rubric", "not comparable: judged by rubric, published by a llama_guard"),
        ("stand-in", "not comparable: judged by a stand-in"),
    ],
)
def test_what_is_not_the_same_is_not_compared(change: str, why: str) -> None:
    benchmarks, entries = judged(), dict(REAL)
    changed = "wildchat" if change == "substitute" else "jbb"
    if change in ("bundled", "substitute"):
        entries[changed] = {"kind": "bundled" if change == "bundled" else "hub"}
    elif change == "short":
        benchmarks["jbb"] = benchmarks["jbb"][1:]
    elif change == "refusal":
        benchmarks["jbb"] = [{**one, "kind": "refusal", "verdict": "full_refusal"} for one in benchmarks["jbb"]]
    elif change == "rubric":  # another measure of safety, in the same words
        benchmarks["jbb"] = [{**one, "kind": "rubric"} for one in benchmarks["jbb"]]
    else:
        benchmarks["jbb"] = [{**one, "judge": "stand-in (no language model)"} for one in benchmarks["jbb"]]
    found = table(benchmarks, entries)
    assert (found[changed]["why"], found["safety_avg"]["why"]) == (why, why)
    assert "value" in found["strongreject"]
    text = page(compare("published", main({NAME: benchmarks}, {}, {}, SETTINGS), PAPER, entries)).markdown()
    assert f"[1] {why}." in text
    assert ", 313/313 / 99.0 (" in text  # no rate without its n


def test_models_of_other_names_are_compared_with_nothing() -> None:
    found = table(judged(), model="tiny")
    assert {one["why"] for one in found.values()} == {"not run"}
    result = compare("published", main({"tiny": judged()}, {}, {}, SETTINGS), PAPER, REAL)
    text = page(result).markdown()
    assert "- / 99.0" in text
    assert "None of the 165 published figures is compared" in text
    assert "--" not in page(result).latex().replace("---", "")


def test_over_refusal_counts_the_three_verdicts() -> None:
    words = ["full_compliance", "partial_refusal", "full_refusal"]
    rows = [row("xstest", item, word, kind="refusal", purpose="benign") for item, word in enumerate(words)]
    result = over_refusal(main({"m": {"xstest": rows}}, {}, {}, SETTINGS))
    (one,) = result["comparisons"]
    assert (one["value"], one["published"]) == (pytest.approx(2 / 3), None)
    assert "1 full_compliance, 1 full_refusal, 1 partial_refusal" in over_refusal_page(result).markdown()
    none = over_refusal(main({"m": judged()}, {}, {}, SETTINGS))
    assert "No benchmark of benign prompts was run." in over_refusal_page(none).markdown()


@pytest.mark.parametrize(("column", "value"), [("percent", "93,3"), ("percent", "101"), ("benchmark", "jb")])
def test_wrong_figures_are_refused(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "figures.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["table", "base", "model", "benchmark", "percent"])
        writer.writeheader()
        told = {"table": "main", "base": "b", "model": "m", "benchmark": "jbb", "percent": "93.3"}
        writer.writerow({**told, column: value})
    with pytest.raises(InputError):
        read_paper(path, ROOT / "published/paper_rows.yaml")


def test_paper_needs_its_columns(tmp_path: Path) -> None:
    (tmp_path / "figures.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns"):
        read_paper(tmp_path / "figures.csv", ROOT / "published/paper_rows.yaml")
    with pytest.raises(InputError, match="no such file"):
        read_paper(tmp_path / "none.csv", ROOT / "published/paper_rows.yaml")


def test_paper_of_one_row() -> None:
    paper = Paper([], {}, {}, {"t": {"title": "T", "table": "main"}}, {})
    assert compare("t", main({NAME: judged()}, {}, {}, SETTINGS), paper, REAL)["comparisons"] == []
