"""What model calls will cost is told before any is made, where they may cost something, and nowhere else."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from star1.records import read_json, write_rows
from tests.conftest import ROOT
from tests.loopback import Answer, completion, server
from tests.projects import copy_parts

QUESTIONS = (ROOT / "bundled/sources/school.txt").read_text("utf-8").splitlines()[:20]
JUDGES = (("refusal", "hosted", "0"), ("guard", "stand-in", "(no"))
HEADING = "Model calls of these stages, by `star1 estimate`:"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project without git or DVC, with a collection of twenty questions."""
    copy_parts(tmp_path)
    rows = [{"id": str(place), "question": question, "source": "s"} for place, question in enumerate(QUESTIONS)]
    write_rows(tmp_path / "data/collection.jsonl", rows)
    return tmp_path


def hosted(project: Path, url: str, role: str) -> None:
    """Let a priced endpoint of a test play a role."""
    text = (project / "params.yaml").read_text()
    entry = (
        f'r1: {{provider: openai, model: m, label: hosted, base_url: "{url}", price: {{input: 1000, output: 2000}}}}'
    )
    text = text.replace("    stand-in: {", f"    {entry}\n    stand-in: {{").replace(f"{role}: stand-in", f"{role}: r1")
    (project / "params.yaml").write_text(text)


def snakemake(project: Path, *options: str) -> str:
    """Run it; gives what it printed."""
    done = subprocess.run(["snakemake", *options], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_dry_run_of_the_default_says_nothing_about_cost(project: Path) -> None:
    """No model is asked for money there."""
    assert HEADING not in snakemake(project, "-n", "--quiet", "all")


def test_a_dry_run_shows_the_estimate_of_the_paid_stages_alone(project: Path) -> None:
    """Nothing is sent for it, and no key is needed; what cannot be known yet is said to be unknown."""
    hosted(project, "http://127.0.0.1:9/v1", "classifier")
    hosted_judge = (project / "params.yaml").read_text().replace("refusal, endpoint: stand-in", "refusal, endpoint: r1")
    (project / "params.yaml").write_text(hosted_judge)
    told = snakemake(project, "-n")
    lines = told[told.index(HEADING) :].splitlines()
    assert lines[1].split()[:5] == ["stage", "model", "rows", "stored", "calls"]
    models = ("star1", "star1+benign", "tiny")
    assert [line.split()[:3] for line in lines[2:9]] == [
        ["categorize", "hosted", "20"],
        # The other judge of a paid stage is told of as well: it is another line, not another price.
        *([f"judge-{model}/{who}", label, count] for model in models for who, label, count in JUDGES),
    ]
    assert lines[9].startswith("total: 20 calls, ")
    assert lines[9].endswith(
        "and what judge-star1/refusal, judge-star1/guard, judge-star1+benign/refusal, judge-star1+benign/guard, "
        "judge-tiny/refusal, judge-tiny/guard will ask, whose rows are not made yet"
    )
    assert not (project / "data/replies").exists()


def test_a_run_tells_the_total_before_it_starts_and_the_actual_cost_afterwards(project: Path) -> None:
    """In one line before the first job; a second plan has nothing to ask, and says so."""
    seen: list[dict[str, Any]] = []

    def answer(body: dict[str, Any], _: int) -> Answer:
        seen.append(body)
        return Answer(completion('["Self-Harm"]'))

    with server(answer) as served:
        hosted(project, served.url, "classifier")
        told = snakemake(project, "--allowed-rules", "categorize", "--cores", "1", "--", "data/categorized.jsonl")
    line = next(line for line in told.splitlines() if line.startswith("model calls by estimate, total: 20 calls, "))
    assert line.endswith("(categorize; `snakemake -n` has the table)")
    assert told.index(line) < told.index("rule categorize")
    assert len(seen) == 20
    costs = read_json(project / "results/costs/categorize.json")
    assert (costs["label"], costs["model"]) == ("hosted", "m")
    assert (costs["rows"], costs["quarantined"], costs["replies"], costs["failed_attempts"]) == (20, 0, 20, 0)
    assert (costs["prompt_tokens"], costs["reply_tokens"], costs["usd"]) == (20, 20, 0.06)
    assert costs["mean_seconds"] >= 0
    told = snakemake(project, "-n", "--allowed-rules", "categorize", "--force", "--", "data/categorized.jsonl")
    assert "total: 0 calls, 0.00 USD" in told
