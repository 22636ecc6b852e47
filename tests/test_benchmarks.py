"""The benchmarks run, the contenders of the joins agree, and it is said when they do not."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import calls, contenders, curation, dedup, published, synthetic

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_quick_run() -> None:
    command = [sys.executable, "-m", "benchmarks.dedup", "--quick", "tfidf", "vectors", "scale", "growth"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    titles = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("### ")]
    assert titles == ["### tfidf", "### vectors", "### vectors", "### scale", "### growth"]
    assert done.stdout.count("published way") == 3
    assert done.stdout.count("same rows") == 4
    assert "MISSED" not in done.stdout  # a quick run measures nothing


@pytest.mark.slow
def test_passports_of_a_made_up_run() -> None:
    """Ends with an error if anything in one of its passports does not agree."""
    command = [sys.executable, "-m", "benchmarks.passport", "--rows", "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("row of the final data set") == 2
    assert done.stdout.count("stores zipped") == 1


@pytest.mark.slow
def test_quick_run_of_the_calls() -> None:
    """Its promises are kept: nothing is lost by kills, and the three stages give the same files when killed."""
    command = [sys.executable, "-m", "benchmarks.calls", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    titles = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("### ")]
    assert titles == ["### cost", "### resume", "### kill", "### endurance"]
    assert done.stdout.count(": kept") == 3
    assert "MISSED" not in done.stdout


def test_a_broken_promise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: calls.Bench) -> None:
        bench.must("nothing is lost", False)

    monkeypatch.setitem(calls.SECTIONS, "kill", broken)
    with pytest.raises(SystemExit, match="broken: nothing is lost"):
        calls.main(["kill"])


def test_every_way_to_tfidf_keeps_the_same_rows() -> None:
    texts = synthetic.prompts(400)
    ours = contenders.our_tfidf(texts)
    assert 200 < len(ours) < 380
    assert ours == published.self_tfidf(texts, 0.6) == contenders.masked_tfidf(texts) == contenders.scipy_tfidf(texts)


def test_every_way_to_vectors_keeps_the_same_rows() -> None:
    found = synthetic.vectors(400)
    ours = contenders.our_vectors(found)
    assert 200 < len(ours) < 380
    assert ours == published.self_embedding(found, 0.7) == contenders.masked_vectors(found)


def test_input_is_the_same_each_time() -> None:
    vectors = synthetic.vectors(50)
    assert (vectors == synthetic.vectors(50)).all()
    assert synthetic.prompts(50) == synthetic.prompts(50)


def test_ways_that_differ_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(bench: dedup.Bench) -> None:
        bench.same("one", [1, 2, 3], [1, 2])

    monkeypatch.setattr(dedup.Bench, "run", lambda *_, **__: None)
    monkeypatch.setitem(dedup.SECTIONS, "tfidf", other)
    with pytest.raises(SystemExit, match="one: 1 of 3 rows differ"):
        dedup.main(["--quick", "tfidf"])


def test_curation_benchmark_runs_and_both_ways_agree() -> None:
    command = [sys.executable, "-m", "benchmarks.curation", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same rows") == 3
    assert "4,100" in done.stdout


def test_curation_benchmark_notices_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpu": 1.0, "loaded": 0.0, "over": 0.0}
    monkeypatch.setattr(curation, "run", lambda job, count, size: {**found, "kept": [job]})
    with pytest.raises(SystemExit, match="the two ways keep different rows"):
        curation.main(["--quick"])


@pytest.mark.slow
def test_quick_run_of_training() -> None:
    from star1.packing import STEP

    command = [sys.executable, "-m", "benchmarks.training", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "### fine-tuning: 1 updates of 8 rows" in done.stdout
    ours, *one_by_one, padded = (
        float(line.split("|")[3].strip("% ")) for line in done.stdout.splitlines() if line.count("%") == 1
    )
    assert one_by_one == [0.0, 0.0]
    assert 0 <= ours < 100 * STEP / 3860 < padded  # a pack of 3,860 tokens, filled up
    assert "MISSED" not in done.stdout


def test_made_up_rows_have_the_lengths_of_the_released_ones() -> None:
    from benchmarks import training

    rows = training.synthetic_rows(1000)
    assert rows == training.synthetic_rows(1000)
    thinking = sorted(len(row["response"].split("</think>")[0].split()) - 1 for row in rows)
    answers = sorted(len(row["response"].split("</think>")[1].split()) for row in rows)
    questions = sorted(len(row["question"].split()) for row in rows)
    for words, at, expected in (
        (questions, 500, 15),
        (thinking, 500, 209),
        (thinking, 900, 289),
        (answers, 500, 50),
        (answers, 900, 176),
    ):
        assert words[at] == pytest.approx(expected, rel=0.12)


def test_both_ways_to_train_have_the_same_loss() -> None:
    """The published way is a fair one only if it learns the same: its update moves the weights to where ours does."""
    import copy

    torch = pytest.importorskip("torch")
    from benchmarks import training
    from star1 import sft
    from tests.micro import ROWS, fresh_accelerate, small_settings, tokenizer_and_model

    tokenizer, model = tokenizer_and_model()
    settings = small_settings(learning_rate=1e-3)
    example = sft.render_all(tokenizer, ROWS, settings)[0][0]
    ends = []
    for make in (training.ours, lambda one, how: training.padded(one, how, 1, False, 0)):
        fresh_accelerate()
        trained = copy.deepcopy(model)
        make(trained, settings)([example] * 4)  # equal rows: then a mean of means is the mean
        ends.append(torch.cat([one.detach().flatten() for one in trained.parameters()]))
    assert not torch.equal(ends[0], torch.cat([one.detach().flatten() for one in model.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=2e-5)
