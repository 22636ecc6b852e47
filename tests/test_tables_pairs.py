"""Paired comparisons: the same items, unscored ones left out and counted."""

import random

import pytest

from star1 import tables_pairs
from star1.errors import InputError
from star1.records import Row
from star1.stats_pairs import mcnemar
from star1.tables_means import Settings, pool_seeds
from tests.test_tables_means import marks

SETTINGS = Settings(0.95, averages={"safety": ["jbb", "wild"]}, resamples=500)
BASE = {"jbb": marks("jbb", *"uuuuus-s"), "wild": marks("wild", *"uuss"), "aime": marks("aime", *"cci")}
RUN = {"jbb": marks("jbb", *"ssssuus-"), "wild": marks("wild", *"ssss"), "aime": marks("aime", *"cic")}
BASES = {"run": "base", "other": "elsewhere"}


def by_name(result: Row) -> dict[str, Row]:
    return {one.get("benchmark") or one["average"]: one for one in result["comparisons"]}


def test_a_run_stands_against_its_base_on_the_same_items() -> None:
    found = by_name(tables_pairs.compare({"base": BASE, "run": RUN}, BASES, {}, SETTINGS))
    jbb = found["jbb"]
    assert (jbb["gained"], jbb["lost"], jbb["n"], jbb["total"], jbb["coverage"]) == (4, 1, 6, 8, 0.75)
    assert jbb["left_out"] == {"unscored in the first": 1, "in the second": 1, "in both": 0}
    assert (jbb["value"], jbb["run_value"], jbb["base_value"]) == pytest.approx((3 / 6, 4 / 6, 1 / 6))
    assert jbb["p"] == mcnemar(4, 1, mid_p=True)
    assert jbb["p_exact"] == mcnemar(4, 1)
    assert jbb["low"] < jbb["value"] < jbb["high"]
    assert jbb["p_holm"] == pytest.approx(min(1, jbb["p"] * 3), abs=0.3)
    assert all(found[name]["p_holm"] >= found[name]["p"] for name in ("jbb", "wild", "aime"))
    safety = found["safety"]
    assert safety["value"] == pytest.approx((3 / 6 + 2 / 4) / 2)
    assert (safety["n"], safety["total"]) == (10, 12)


def test_items_missing_in_one_model_are_counted_as_left_out() -> None:
    short = {"jbb": BASE["jbb"][:3]}
    one = by_name(tables_pairs.compare({"base": short, "run": RUN}, BASES, {}, SETTINGS))["jbb"]
    assert (one["n"], one["total"]) == (3, 8)
    assert sum(one["left_out"].values()) == 5


def test_two_questions_are_not_compared() -> None:
    first, second = ([{**row, "question_digest": digest} for row in marks("jbb", *"ss")] for digest in ("a", "b"))
    with pytest.raises(InputError, match="run and base on jbb, row 0"):
        tables_pairs.compare({"base": {"jbb": second}, "run": {"jbb": first}}, BASES, {}, SETTINGS)


def test_two_measures_are_not_compared() -> None:
    refused = [{**row, "kind": "refusal", "verdict": "full_refusal"} for row in marks("jbb", *"ss")]
    with pytest.raises(InputError, match="one measure"):
        tables_pairs.compare({"base": {"jbb": refused}, "run": RUN}, BASES, {}, SETTINGS)


def test_samples_are_compared_by_the_means_of_items() -> None:
    base, run = {"aime": marks("aime", "ii", "ci", "ii")}, {"aime": marks("aime", "cc", "ci", "ic")}
    one = by_name(tables_pairs.compare({"base": base, "run": run}, BASES, {}, SETTINGS))["aime"]
    assert one["value"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert (one["test"], one["gained"], one["lost"]) == (tables_pairs.T_TEST, 2, 0)
    assert "detectable" not in one


def test_seeds_are_compared_together() -> None:
    seeds = {"run-1": {"jbb": marks("jbb", *"ssuu")}, "run-2": {"jbb": marks("jbb", *"sssu")}}
    groups, bases = {"run": ["run-1", "run-2"]}, {"run": "base", "run-1": "base", "run-2": "base"}
    judgements = {"base": {"jbb": marks("jbb", *"uuuu")}, **seeds}
    judgements |= pool_seeds(judgements, groups)
    (one,) = tables_pairs.compare(judgements, bases, groups, SETTINGS)["comparisons"]
    assert (one["run"], one["value"]) == ("run", pytest.approx(5 / 8))


def test_further_pairs_come_once() -> None:
    found = tables_pairs.pairs_of(["base", "run"], BASES, [["run", "base"], ["base", "run"]])
    assert found == [("run", "base"), ("base", "run")]


def test_page_and_metrics() -> None:
    result = tables_pairs.compare({"base": BASE, "run": RUN}, BASES, {}, SETTINGS)
    text, latex = tables_pairs.page(result).markdown(), tables_pairs.page(result).latex()
    assert "| jbb | Safety | +50.0 [" in text
    assert "| 4 | 1 | 6/8 (75%) |" in text
    assert "average: safety & Safety & +50.0 [" in latex
    assert set(tables_pairs.metrics(result)["run - base"]) == {"jbb", "wild", "aime", "average safety"}
    empty = tables_pairs.page(tables_pairs.compare({"run": RUN}, BASES, {}, SETTINGS)).markdown()
    assert "No run was evaluated beside its base model." in empty


def test_order_of_rows_changes_nothing() -> None:
    mixed = {name: random.Random(1).sample(rows, len(rows)) for name, rows in RUN.items()}
    one, other = (tables_pairs.compare({"base": BASE, "run": run}, BASES, {}, SETTINGS) for run in (RUN, mixed))
    assert one == other
