"""The stability table: against the whole selection done again on changed rows, and on rows where the answer is known."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from star1 import stability
from star1.curation import curate
from star1.datasets import Noise
from star1.errors import InputError
from star1.records import Row, read_json, write_rows
from tests.conftest import ROOT
from tests.loopback import run_script
from tests.test_curation import CRITERIA, RUBRIC, scored
from tests.test_selections import rows_of

ROWS = [*rows_of(300), scored(300, category=["Other"]), scored(301, category=())]
NOISE = Noise(lowered=[0.05, 0.3], repeats=4, seed=7)


def table(rows: list[Row] = ROWS, size: int = 40, noise: Noise = NOISE) -> dict[str, Any]:
    return stability.perturb(rows, RUBRIC, "Other", size, noise, 0.9)


def changes(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["change"]: one for one in result["changes"]}


def kept(rows: list[Row], size: int = 40) -> set[str]:
    return {row["id"] for row in curate(rows, RUBRIC, "Other", size)[1]}


def noisy(probability: float, trial: int) -> list[Row]:
    """The rows with their marks lowered, as the documentation says: draws by seed and trial, the same for all probabilities."""
    rows = copy.deepcopy(ROWS)
    draws = np.random.default_rng([NOISE.seed, trial]).random((300, len(CRITERIA)))
    for row, drawn in zip(rows[:300], draws, strict=True):
        for name, draw in zip(CRITERIA, drawn, strict=True):
            row["score"][name] -= int(draw < probability)
    return rows


@pytest.mark.parametrize("probability", [0.05, 0.3])
def test_noise_is_the_selection_done_again_on_lowered_marks(probability: float) -> None:
    before, found = kept(ROWS), changes(table())[f"each mark one lower with p = {probability:g}"]
    trials = [kept(noisy(probability, trial)) for trial in range(4)]
    shares = [len(before & after) / len(before) for after in trials]
    assert found["share"]["mean"] == pytest.approx(np.mean(shares))
    assert found["share"]["low"] == pytest.approx(np.quantile(shares, 0.05))
    assert found["jaccard"]["mean"] == pytest.approx(np.mean([len(before & a) / len(before | a) for a in trials]))
    full = [len(curate(noisy(probability, trial), RUBRIC, "Other", 40)[0]) for trial in range(4)]
    assert found["passing"] == pytest.approx(np.mean(full))
    assert found["trials"] == 4


def test_thresholds_are_the_selection_of_rows_with_lower_marks() -> None:
    rows = [row if min(row["score"].values()) < 9 else row | {"score": dict.fromkeys(CRITERIA, 10)} for row in ROWS]
    rows = [row if n % 7 else row | {"score": dict.fromkeys(CRITERIA, 9)} for n, row in enumerate(ROWS)]
    lifted = [row if n % 7 else row | {"score": dict.fromkeys(CRITERIA, 10)} for n, row in enumerate(ROWS)]
    found = changes(table(rows))["every mark at least 9"]
    before, after = kept(rows), kept(lifted)
    assert found["share"] == {"mean": len(before & after) / len(before), "low": None, "high": None}
    assert found["share"]["mean"] < 1
    assert found["kept"] == 40


def test_more_noise_leaves_less_and_no_change_leaves_all() -> None:
    found = changes(table())
    small, large = (found[f"each mark one lower with p = {p:g}"] for p in NOISE.lowered)
    assert 1 > small["still_pass"] > large["still_pass"] > 0.2
    assert small["share"]["mean"] > large["share"]["mean"]
    assert small["share"]["mean"] <= small["still_pass"]
    whole = changes(table(size=1000))["rows in another order"]  # nothing is balanced out, so order cannot matter
    assert (whole["share"]["mean"], whole["jaccard"]["mean"], whole["chance"]) == (1, 1, 1)


def test_order_matters_only_where_rows_are_alike() -> None:
    apart = [scored(n, f"s{n}", [f"c{n}"]) for n in range(6)] + [scored(6, "s0", ["c1"]), scored(7, "s1", ["c0"])]
    found = changes(table(apart, size=7))["rows in another order"]
    assert found["passing"] == 8
    alike = changes(table([scored(n) for n in range(40)], size=20))["rows in another order"]
    assert 0.2 < alike["share"]["mean"] < 0.8
    assert alike["chance"] == 0.5


def test_noise_that_takes_every_row_is_no_crash() -> None:
    result = table([scored(0)], 5, Noise(lowered=[0.999999], repeats=2, seed=1))
    gone = changes(result)["each mark one lower with p = 0.999999"]
    assert (gone["passing"], gone["kept"], gone["share"]["mean"], gone["chance"]) == (0, 0, 0, 0)
    with pytest.raises(InputError, match="none of 1 rows has full marks"):
        table([scored(0, score=(9, 10, 10))])


def test_the_same_seed_gives_the_same_table() -> None:
    assert table() == table()
    assert table() != table(noise=NOISE.model_copy(update={"seed": 8}))


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "scored.jsonl", ROWS)
    flags = ["--input", str(tmp_path / "scored.jsonl"), "--policy", str(ROOT / "policies/star1"), "--size", "40"]
    for name, suffix in (("json", "json"), ("markdown", "md"), ("metrics", "metrics.json")):
        flags += [f"--{name}", str(tmp_path / f"stability.{suffix}")]
    run_script("curate_perturb", *flags, "--noise", NOISE.model_dump_json(), "--confidence", "0.9")
    assert "curate_perturb: 40 of " in capsys.readouterr().out
    assert read_json(tmp_path / "stability.json") == table()
    text = (tmp_path / "stability.md").read_text()
    assert text.count("\n| each mark one lower") == 2
    assert "[the range that holds 90 % of them]" in text
    metrics = read_json(tmp_path / "stability.metrics.json")
    assert set(metrics["rows in another order"]) == {"share", "jaccard", "chance"}
