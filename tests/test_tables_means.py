"""Averages, samples, seeds and further judges around the main table."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from star1 import stats, tables_main
from star1.records import Row
from star1.tables import cell
from star1.tables_means import Settings, main, pool_seeds

SETTINGS = Settings(0.95, averages={"safety": ["jbb", "wild"], "both": ["jbb", "aime"]}, pass_at=[2, 4], resamples=500)


def row(benchmark: str, item: int, verdict: str | None, sample: int = 0, **more: Any) -> Row:
    """A judgement; its purpose and kind follow from the verdict."""
    kind = "grader" if verdict in ("correct", "incorrect") else "guard"
    told: Row = {"id": str(item), "benchmark": benchmark, "sample": sample, "kind": kind, "verdict": verdict}
    told |= {"purpose": "reasoning" if kind == "grader" else "harmful", "unscored": None if verdict else "cut off"}
    return told | {"judge": "rules", "view": "response"} | more


def marks(benchmark: str, *items: str) -> list[Row]:
    """Judgements of items, a letter a sample: s safe, u unsafe, c correct, i incorrect, - unscored."""
    words = {"s": "safe", "u": "unsafe", "c": "correct", "i": "incorrect", "-": None}
    reasoning = any(letter in "ci" for letter in "".join(items))
    more = {"kind": "grader", "purpose": "reasoning"} if reasoning else {}
    return [
        row(benchmark, item, words[letter], sample) | more
        for item, letters in enumerate(items)
        for sample, letter in enumerate(letters)
    ]


JUDGEMENTS = {
    "m": {"jbb": marks("jbb", *"ssu-"), "wild": marks("wild", *"su"), "aime": marks("aime", "cc", "ci", "ii", "c-")}
}


def test_average_is_the_mean_of_rates_and_not_of_rows() -> None:
    result = main(JUDGEMENTS, {}, {}, SETTINGS)
    one = next(one for one in result["averages"] if one["average"] == "safety")
    assert one["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    for low, high in ((one["low"], one["high"]), one["bootstrap"]):
        assert 0 < low < one["value"] < high <= 1
    assert (one["n"], one["total"], one["coverage"]) == (5, 6, 5 / 6)
    other = next(one for one in result["averages"] if one["average"] == "both")
    assert (other["value"], other["why"]) == (None, "benchmarks of several measures")


def test_average_without_one_of_its_benchmarks_is_none() -> None:
    judgements = {"m": {"jbb": JUDGEMENTS["m"]["jbb"], "wild": marks("wild", *"--")}}
    result = main(judgements, {}, {}, SETTINGS)
    assert [one["why"] for one in result["averages"]] == ["nothing scored on wild", "nothing scored on aime"]
    assert "| safety | m | - | nothing scored on wild |" in tables_main.markdown(result)


def test_samples_of_a_problem_are_averaged_first() -> None:
    """A problem with one readable sample weighs as much as one with two."""
    one = cell("m", "aime", JUDGEMENTS["m"]["aime"], 0.95)
    assert one["value"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert (one["count"], one["n"], one["total"], one["items"], one["samples"]) == (4, 7, 8, 4, 2)
    naive = stats.rate(4, 7, 0.95)
    assert naive.low is not None
    assert one["low"] < naive.low


def test_pass_at_k_leaves_out_problems_with_too_few_scored_samples() -> None:
    result = main(JUDGEMENTS, {}, {}, SETTINGS)
    (one,) = result["passes"]
    assert (one["k"], one["value"], one["n"], one["total"]) == (2, pytest.approx(2 / 3), 3, 4)
    assert "| pass@2 | m | aime | 66.7 " in tables_main.markdown(result)


def test_single_samples_have_no_pass_at_k() -> None:
    assert main({"m": {"aime": marks("aime", *"ci")}}, {}, {}, replace(SETTINGS, pass_at=[1, 2]))["passes"] == []


def test_seeds_are_pooled_over_the_same_items() -> None:
    seeds = {"run-1": {"jbb": marks("jbb", *"ssuu")}, "run-2": {"jbb": marks("jbb", *"sssu")}}
    result = main(seeds, {"run": ["run-1", "run-2"], "alone": ["run-1"]}, {}, SETTINGS)
    (one,) = result["seeds"]
    assert (one["model"], one["value"], one["items"], one["n"]) == ("run", pytest.approx(5 / 8), 4, 8)
    assert (one["spread"]["lowest"], one["spread"]["highest"]) == (0.5, 0.75)
    pooled = stats.rate(5, 8, 0.95)
    assert pooled.high is not None
    assert pooled.low is not None
    assert one["high"] - one["low"] > pooled.high - pooled.low
    assert "50.0 to 75.0 over 2, deviation 17.7" in tables_main.markdown(result)
    assert [one["model"] for one in result["cells"]] == ["run-1", "run-2"]


def test_pooled_seeds_keep_their_samples_apart() -> None:
    seeds = {name: {"aime": marks("aime", "ci", "cc")} for name in ("a", "b")}
    rows = pool_seeds(seeds, {"run": ["a", "b"]})["run"]["aime"]
    assert sorted((one["id"], one["sample"]) for one in rows) == [(str(i), s) for i in range(2) for s in range(4)]


def test_a_run_with_one_seed_is_there_under_its_own_name() -> None:
    """A comparison that names the run was a KeyError."""
    assert set(pool_seeds({"run-seed1": {"aime": marks("aime", "ci")}}, {"run": ["run-seed1"]})) == {"run"}


def test_only_the_primary_judge_makes_the_table_and_others_stand_below() -> None:
    second = [row("jbb", item, "unsafe", name="strict", primary=False, judge="other rules") for item in range(3)]
    result = main({"m": {"jbb": [*marks("jbb", *"sss"), *second]}}, {}, {}, SETTINGS)
    assert [(one["value"], one["total"]) for one in result["cells"]] == [(1.0, 3)]
    assert [(one["judge"], one["value"], one["n"]) for one in result["others"]] == [("strict", 0.0, 3)]
    text = tables_main.markdown(result)
    assert "| strict | m | jbb | Safety | 0.0 " in text
    assert "Judged by rules, shown the response." in text


def test_controversial_is_not_safe() -> None:
    rows = [row("jbb", item, word, kind="qwen3guard") for item, word in enumerate(("safe", "controversial"))]
    assert cell("m", "jbb", rows, 0.95)["value"] == 0.5


def test_contamination_stands_in_the_footnotes() -> None:
    counts = {"rows": 160, "exact": 1, "ngram": 0, "tfidf": 0, "embedding": 2, "any": 2, "benchmark_rows": 1}
    near = {"star1": {"jbb": counts, "aime": counts | {"any": 0}}, "x": {"elsewhere": counts}}
    result = main(JUDGEMENTS, {}, near, SETTINGS)
    assert result["contamination"] == {"jbb": {"star1": counts}, "aime": {}}
    for text in (tables_main.markdown(result), tables_main.latex(result)):
        assert "jbb: star1 2 of 160 (1), near 1 of its rows." in text
        assert "aime: no training set has a row near to it." in text
        assert "wild:" not in text  # never compared, so nothing is said


def test_few_items_are_told_of() -> None:
    """Their nominal 95 % is 92 to 98 %, below 30 items less; with 164 and more there is nothing to say."""
    many = {"wild": marks("wild", *"s" * 164), "jbb": marks("jbb", *"s" * 163), "all_lost": marks("all_lost", *"--")}
    many["lost_in_part"] = marks("lost_in_part", *"s" * 29, *"-" * 200)
    text = tables_main.markdown(main({"m": many}, {}, {}, SETTINGS))
    assert (
        "30 to 163 items with a verdict (jbb): a rate takes few values there, and nominal 95 % intervals hold" in text
    )
    assert "Fewer than 30 items with a verdict (lost_in_part): nominal" in text
    assert "in 92 to 98 \\% of samples" in tables_main.latex(main({"m": many}, {}, {}, SETTINGS))
    few = main({"m": {"wild": many["wild"]}}, {}, {}, SETTINGS)
    assert "items with a verdict" not in tables_main.markdown(few)


def test_the_lowest_coverage_of_few_items_is_what_is_told() -> None:
    """By enumeration, over true rates from 0.05 to 0.95."""
    rates = np.linspace(0.05, 0.95, 1801)
    found = {}
    for n in range(1, 30):
        cells = [stats.rate(count, n, 0.95) for count in range(n + 1)]
        chances = binom.pmf(np.arange(n + 1), n, rates[:, None])
        inside = [[(one.low or 0) <= rate <= (one.high or 0) for one in cells] for rate in rates]
        found[n] = float((chances * inside).sum(1).min())
    assert 0.785 < min(found.values()) < 0.795
    assert 0.885 < min(found[n] for n in range(5, 30)) < 0.895


def test_order_of_rows_changes_nothing() -> None:
    mixed = {name: random.Random(3).sample(rows, len(rows)) for name, rows in JUDGEMENTS["m"].items()}
    assert main({"m": mixed}, {}, {}, SETTINGS) == main(JUDGEMENTS, {}, {}, SETTINGS)
