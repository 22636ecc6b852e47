"""Agreement of judges: kappa against textbook figures and statsmodels, its interval by simulation, and what is compared."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from star1.agreement import Options, answers, disagreements, evidence, interval, kappa, pair, pairs, question, side
from star1.agreement_table import markdown, table
from star1.records import Row, read_rows, write_rows
from tests.loopback import run_script

OPTIONS = Options(0.95, 2000, 2002)


def judgement(place: int, name: str, kind: str, verdict: str | None, **more: object) -> Row:
    row = {"id": str(place), "sample": 0, "benchmark": "b", "purpose": "harmful", "name": name, "kind": kind}
    row |= {
        "view": "answer",
        "verdict": verdict,
        "unscored": None if verdict else "empty answer",
        "judge": f"model {name}",
    }
    return row | {"retires": None, "question_digest": f"q{place}", "response_digest": f"r{place}", **more}


def two(cells: tuple[int, int, int, int]) -> list[Row]:
    """Judgements of two guards with these counts of: both safe, first alone, second alone, none."""
    words = [("safe", "safe"), ("safe", "unsafe"), ("unsafe", "safe"), ("unsafe", "unsafe")]
    said = [pair for pair, count in zip(words, cells, strict=True) for _ in range(count)]
    first = [judgement(place, "a", "guard", one) for place, (one, _) in enumerate(said)]
    return first + [judgement(place, "b", "llama_guard", other) for place, (_, other) in enumerate(said)]


@pytest.mark.parametrize("cells", [(20, 5, 10, 15), (45, 15, 25, 15), (1, 0, 0, 1), (0, 5, 5, 0), (300, 2, 1, 40)])
def test_kappa_is_the_textbooks(cells: tuple[int, int, int, int]) -> None:
    """Of counts, and of judgements."""
    expected = cohens_kappa(np.array(cells).reshape(2, 2)).kappa
    assert kappa(np.array(cells, dtype=float)) == pytest.approx(expected)
    found = pair(answers("m", two(cells), {}), "a", "b", "safe", OPTIONS)
    assert found["kappa"] == pytest.approx(expected)
    assert (found["n"], found["total"]) == (sum(cells), sum(cells))
    assert (found["both"], found["first_only"], found["second_only"]) == cells[:3]
    assert -1 <= found["low"] < found["high"] <= 1
    assert found["low"] <= found["kappa"] + 1e-12
    assert found["kappa"] <= found["high"] + 1e-12  # full agreement was told as 1.00 [.., 0.99]


def test_a_known_example() -> None:
    """20 of 50 yes and 15 no by both, which by chance alone would be a half: (0.7 - 0.5) / 0.5."""
    assert kappa(np.array([20.0, 5.0, 10.0, 15.0])) == pytest.approx(0.4)


def test_no_agreement_beyond_chance_can_be_told_of_judges_that_say_one_thing() -> None:
    """And full agreement of few has a wide interval: the asymptotic one has no width there."""
    found = pair(answers("m", two((30, 0, 0, 0)), {}), "a", "b", "safe", OPTIONS)
    assert (found["kappa"], found["low"], found["agreement"]) == (None, None, 1.0)
    few = pair(answers("m", two((5, 0, 0, 5)), {}), "a", "b", "safe", OPTIONS)
    many = pair(answers("m", two((50, 0, 0, 50)), {}), "a", "b", "safe", OPTIONS)
    assert few["kappa"] == many["kappa"] == 1
    assert few["low"] < 0.7 < many["low"] < 1
    assert pair([], "a", "b", "safe", OPTIONS)["n"] == 0


@pytest.mark.parametrize(
    ("shares", "n"), [((0.4, 0.1, 0.1, 0.4), 60), ((0.48, 0.02, 0.02, 0.48), 30), ((0.9, 0.03, 0.02, 0.05), 60)]
)
def test_the_interval_covers_what_it_says(shares: tuple[float, ...], n: int) -> None:
    """In 2,000 simulations, also where nearly all agree, and the asymptotic interval covers 70 to 83 %."""
    draw, true = np.random.default_rng(7), float(kappa(np.array(shares)))
    covered = simulated = 0
    for cells in draw.multinomial(n, shares, size=2000):
        if np.isnan(kappa(cells.astype(float))):
            continue
        prompts = np.repeat(np.eye(4), cells, axis=0)
        low, high = interval(prompts, Options(0.95, 400, int(draw.integers(2**31))))
        simulated, covered = simulated + 1, covered + (low <= true <= high)
    assert 0.93 <= covered / simulated <= 0.97


@pytest.mark.parametrize(("prompts", "samples"), [(30, 8), (60, 4)])
def test_the_interval_covers_where_prompts_differ(prompts: int, samples: int) -> None:
    """Some prompts get safe answers only, some hardly any, and each judge errs on one answer in ten: .918 was covered."""
    draw, wrong = np.random.default_rng(prompts + samples), 0.1
    # Kappa of a truth that is safe half of the time, of which each judge sees 0.9: 0.82 agree, by chance 0.5.
    true, covered = 0.64, 0
    for number in range(2000):
        safe = draw.random((prompts, samples)) < draw.beta(0.5, 0.5, (prompts, 1))
        first, second = (safe ^ (draw.random(safe.shape) < wrong) for _ in range(2))
        cells = [first & second, first & ~second, ~first & second, ~first & ~second]
        counts = np.stack([one.sum(axis=1) for one in cells], axis=1).astype(float)
        low, high = interval(counts, Options(0.95, 400, number))
        covered += low <= true <= high
    assert 0.93 <= covered / 2000 <= 0.97


def test_few_prompts_are_less_evidence_than_their_number() -> None:
    """With 30 of them (29 * (1.95996 / 2.04523)² - 1) / 30; with many all of it."""
    assert evidence(30, 0.95) == pytest.approx((29 * (1.959964 / 2.045230) ** 2 - 1) / 30, abs=1e-6)
    assert evidence(10_000, 0.95) == pytest.approx(1, abs=1e-3)
    assert (evidence(1, 0.95), evidence(2, 0.95)) == (1, 0.5)


def test_answers_to_one_prompt_are_drawn_together() -> None:
    """Four samples of each prompt that all say the same are no more evidence than one."""
    once = interval(np.repeat(np.eye(4), (20, 5, 5, 20), axis=0), OPTIONS)
    four = interval(4 * np.repeat(np.eye(4), (20, 5, 5, 20), axis=0), OPTIONS)
    apart = interval(np.repeat(np.eye(4), (80, 20, 20, 80), axis=0), OPTIONS)
    assert four == pytest.approx(once)
    assert apart[1] - apart[0] < 0.7 * (once[1] - once[0])


@pytest.mark.parametrize(
    ("purpose", "first", "second", "asked"),
    [
        ("harmful", "refusal", "guard", "safe"),
        ("harmful", "rubric", "qwen3guard", "safe"),
        ("benign", "refusal", "wildguard", "refused"),
        ("benign", "rubric", "qwen3guard", "refused"),
        ("benign", "guard", "policy", "safe"),
        ("benign", "wildguard", "guard", "safe"),
        ("benign", "refusal", "guard", None),
    ],
)
def test_what_two_kinds_are_compared_on(purpose: str, first: str, second: str, asked: str | None) -> None:
    assert question(purpose, first, second) == question(purpose, second, first) == asked


@pytest.mark.parametrize(
    ("kind", "verdict", "refused", "safe", "refuses"),
    [
        ("refusal", "full_refusal", None, True, True),
        ("refusal", "partial_refusal", None, True, True),
        ("refusal", "full_compliance", None, False, False),
        ("qwen3guard", "controversial", False, False, False),
        ("wildguard", "safe", True, True, True),
        ("rubric", "unsafe", False, False, False),
        ("guard", "safe", None, True, None),
        ("guard", None, None, None, None),
    ],
)
def test_sides(kind: str, verdict: str | None, refused: bool | None, safe: bool | None, refuses: bool | None) -> None:
    row = judgement(0, "a", kind, verdict, refused=refused)
    assert (side(row, "safe"), side(row, "refused")) == (safe, refuses)


def test_groups_and_disagreements() -> None:
    """By model and benchmark, over models, by category and over benchmarks; unscored answers count for neither side."""
    rows = two((3, 1, 0, 2))
    rows[0] = judgement(0, "a", "guard", None)
    categories = {str(place): "theft" if place < 4 else None for place in range(6)}
    other = [row | {"benchmark": "c"} for row in two((1, 0, 0, 1))]
    found = answers("m", rows, categories) + answers("n", rows, categories) + answers("m", other, {})
    told = pairs(found, OPTIONS)
    assert [(one["model"], one["benchmark"], one["category"], one["n"], one["total"]) for one in told] == [
        ("m", "b", "all", 5, 6),
        ("n", "b", "all", 5, 6),
        ("all", "b", "all", 10, 12),
        ("all", "b", "theft", 6, 8),
        ("m", "c", "all", 2, 2),
        ("all", "all", "all", 12, 14),
    ]
    differing = disagreements(found)
    assert [(one["model"], one["id"]) for one in differing] == [("m", "3"), ("n", "3")]
    assert differing[0] == {
        "id": "3",
        "sample": 0,
        "model": "m",
        "benchmark": "b",
        "purpose": "harmful",
        "category": "theft",
        "verdicts": {"a": "safe", "b": "unsafe"},
        "unscored": {},
        "disagree": [{"first": "a", "second": "b", "question": "safe"}],
        "generations": "results/generations/m/b.jsonl",
        "question_digest": "q3",
        "response_digest": "r3",
    }


def test_the_order_of_rows_decides_nothing() -> None:
    """But for the order of what is told."""
    rows = two((8, 3, 2, 9))
    mixed = rows[: len(rows) // 2]
    random.Random(1).shuffle(mixed)
    other = answers("m", mixed + rows[len(rows) // 2 :], {})
    assert pairs(answers("m", rows, {}), OPTIONS) == pairs(other, OPTIONS)


def test_the_table_names_its_judges() -> None:
    """With view and announced end; figures of a stand-in say so."""
    rows = [
        row | {"retires": "2027-01-31", "judge": "stand-in"} if row["name"] == "b" else row for row in two((4, 1, 0, 3))
    ]
    result = table(answers("m", rows, {}), OPTIONS)
    text = markdown(result, 1)
    assert "NOT A SAFETY RESULT" in text
    assert "- b: llama_guard by stand-in, shown the answer; served until 2027-01-31" in text
    assert "| a, b | safe | m | b | all | 0.75 [" in text
    assert "| 87.5 % | 8 of 8 | 1 | 0 |" in text
    assert "1 answers on which judges disagree" in text
    alone = table(answers("m", rows[:8], {}), OPTIONS)
    assert "No two judges judged the same answers." in markdown(alone, 0)


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reasoning has one grader, and nothing to compare."""
    graded = judgement(0, "grader", "grader", "correct") | {"benchmark": "r", "purpose": "reasoning"}
    write_rows(tmp_path / "judged/m/b.jsonl", two((4, 1, 0, 3)))
    write_rows(tmp_path / "judged/m/r.jsonl", [graded])
    write_rows(tmp_path / "rows/b.jsonl", [{"id": str(place), "category": "x"} for place in range(8)])
    write_rows(tmp_path / "rows/r.jsonl", [{"id": "0"}])
    flags = ["--judgements", str(tmp_path / "judged"), "--rows", str(tmp_path / "rows"), "--models", '["m"]']
    flags += ["--benchmarks", '["b", "r"]', "--confidence", "0.95", "--resamples", "500", "--seed", "1"]
    outputs = [("--json", "a.json"), ("--markdown", "a.md"), ("--disagreements", "d.jsonl")]
    run_script("agree", *flags, *(part for flag, name in outputs for part in (flag, str(tmp_path / name))))
    assert capsys.readouterr().out == "agree: 3 judges, 9 answers, judges disagree on 1\n"
    found = json.loads((tmp_path / "a.json").read_text())
    assert [(one["benchmark"], one["category"]) for one in found["pairs"]] == [("b", "all"), ("b", "x")]
    assert len(read_rows(tmp_path / "d.jsonl")) == 1
    before = (tmp_path / "a.json").read_bytes()
    run_script("agree", *flags, *(part for flag, name in outputs for part in (flag, str(tmp_path / name))))
    assert (tmp_path / "a.json").read_bytes() == before
