"""What is foreseen is what is then asked: calls exactly, tokens nearly; without network, key or change on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from star1 import cli, params, status
from star1.calls import Calls, Outcome
from star1.deliberation import categorize, reason, score
from star1.endpoints import Endpoint, Sampling
from star1.errors import CallError, SettingError
from star1.estimate import Estimate, beyond, estimates, table
from star1.ledger import uses
from star1.policies import Pack, load_pack
from star1.prices import Budget, Price
from star1.records import Row, read_rows, write_rows
from tests.conftest import ROOT
from tests.loopback import stand_in

PRICE = Price(input=2.0, output=8.0)
Stage = Callable[[list[Row], Pack, Calls], Outcome]
CHAIN: list[tuple[str, Stage, str]] = [
    ("categorize", categorize, "categorized"),
    ("reason", reason, "cot"),
    ("score", score, "scored"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the policies, and 60 questions of which the last two are the same."""
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    lines = (ROOT / "bundled/sources/school.txt").read_text("utf-8").splitlines()[:59]
    rows = [{"id": str(n), "question": line, "source": "school"} for n, line in enumerate([*lines, lines[-1]])]
    write_rows(tmp_path / "data/collection.jsonl", rows)
    return tmp_path


def settings(**changes: Any) -> params.Params:
    """The default parameters, with another endpoint for all roles."""
    values = params.load(ROOT / "params.yaml", ROOT)
    if changes:
        values["llm"]["endpoints"]["stand-in"] = {"provider": "openai", "model": "m", "label": "m", **changes}
    return params.Params.model_validate(values)


def one(found: params.Params, name: str, root: Path) -> Estimate:
    """The estimate of one stage."""
    return estimates(found, [name], root)[0]


def test_calls_are_exact_and_tokens_near_after_a_sample(project: Path) -> None:
    """Each stage of the chain: foreseen with an empty store, after a sample of a dozen rows, and when all is there."""
    found, pack = settings(), load_pack(ROOT / "policies/star1")
    rows = read_rows(project / "data/collection.jsonl")
    for name, ask, output in CHAIN:
        path = project / f"data/replies/{name}.jsonl"
        costs = project / f"results/costs/{name}.json"
        sampling = Sampling.model_validate(getattr(found, name).sampling)
        calls = Calls(stand_in(price=PRICE), sampling, path, costs=costs)
        empty = one(found, name, project)
        ask(rows[:12], pack, calls)
        sampled = one(found, name, project)
        before = uses(name, path)[0]
        outcome = ask(rows, pack, calls)
        after = uses(name, path)[0]
        actual = json.loads(costs.read_text())
        assert empty.calls == after.answered == actual["replies"]
        assert empty.prompt_tokens == after.prompt_tokens == actual["prompt_tokens"]
        assert empty.reply_tokens == pytest.approx(actual["reply_tokens"], rel=0.25)
        assert empty.prompt_tokens + empty.reply_tokens == pytest.approx(
            after.prompt_tokens + after.reply_tokens, rel=0.1
        )
        assert actual["reply_tokens"] == after.reply_tokens
        assert actual["usd"] == pytest.approx(PRICE.cost(after.prompt_tokens, after.reply_tokens), abs=1e-6)
        assert (actual["rows"], actual["failed_attempts"]) == (len(rows), 0)
        assert sampled.calls == outcome.asked == after.answered - before.answered > 0
        assert sampled.prompt_tokens == pytest.approx(after.prompt_tokens - before.prompt_tokens, rel=0.1)
        assert sampled.reply_tokens == pytest.approx(after.reply_tokens - before.reply_tokens, rel=0.1)
        assert one(found, name, project).calls == 0
        rows = list(outcome.kept)
        write_rows(project / f"data/{output}.jsonl", rows)


def test_nothing_is_sent_made_or_asked_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint with a key that is not set, at an address where nobody is: foreseen all the same."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    found = settings(base_url="http://no-such-host.invalid/v1", key="NO_SUCH_KEY", slots=2)
    # In a project's folder jobs tell what they do; `star1 watch` took these for jobs of a run.
    monkeypatch.chdir(project)
    monkeypatch.setattr(status, "FOLDER", project / "status")
    (project / "Snakefile").touch()
    before = sorted(project.rglob("*"))
    foreseen = estimates(found, [], project)
    assert sorted(project.rglob("*")) == before
    assert foreseen[0].calls == 59
    assert [one.stage for one in foreseen][:3] == ["categorize", "reason", "score"]
    assert foreseen[1].calls == 59  # by the questions of the collection
    assert "\nreason, score, benign_rewrite, benign_reason, benign_score: by the rows of" in "\n".join(table(foreseen))
    unknown = (
        ", and what judge-tiny/refusal, judge-tiny/guard, judge-star1/refusal, judge-star1/guard, "
        "judge-star1+benign/refusal, judge-star1+benign/guard will ask, whose rows are not made yet"
    )
    assert unknown in "\n".join(table(foreseen))


def test_money_and_hours_are_those_of_the_limits(project: Path) -> None:
    """59 calls at 30 a minute; prices per million tokens; the usual length is a parameter and max_tokens its bound."""
    price = {"input": 2.0, "output": 8.0}
    found = settings(price=price, requests_per_minute=30)
    foreseen = one(found, "reason", project)
    assert foreseen.reply_tokens == 59 * 460
    assert foreseen.usd == pytest.approx((foreseen.prompt_tokens * 2 + 59 * 460 * 8) / 1e6)
    assert foreseen.hours == pytest.approx(59 / 30 / 60)
    found.llm.reply_tokens["reason"] = 20_000
    assert one(found, "reason", project).reply_tokens == 59 * 8000
    found = settings(price=price, tokens_per_minute=1000)
    foreseen = one(found, "reason", project)
    assert foreseen.hours == pytest.approx((foreseen.prompt_tokens + foreseen.reply_tokens) / 1000 / 60)


def test_an_unknown_stage_is_named_with_those_there_are(project: Path) -> None:
    """As everywhere."""
    with pytest.raises(SettingError, match=r"'resaon'; expected one of categorize, reason, score, .*judge-tiny"):
        estimates(settings(), ["resaon"], project)


def test_the_table_is_printed_by_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the project's folder, whatever is there."""
    monkeypatch.chdir(ROOT)
    args = cli.parser().parse_args(["estimate", "categorize"])
    args.do(args)
    told = capsys.readouterr().out.splitlines()
    assert told[0].split()[:3] == ["stage", "model", "rows"]
    assert told[1].startswith("categorize")
    assert told[2].startswith("total: ")


def test_a_limit_on_money_needs_a_price_and_a_budget_counts_what_is_on_its_way() -> None:
    """Two requests of a cent each, of which the second would pass a limit of one and a half."""
    with pytest.raises(ValueError, match="max_usd goes with a price"):
        Endpoint(provider="openai", model="m", label="m", max_usd=1)
    budget = Budget(Price(input=1, output=10), 0.015)
    assert budget.reserve(0, 1000) == pytest.approx(0.01)
    assert budget.reserve(0, 1000) is None
    budget.settle(0.01, (0, 100), answered=True)
    assert budget.spent == pytest.approx(0.001)
    assert budget.reserve(0, 1000) == pytest.approx(0.01)
    budget.settle(0.01, None, answered=False)
    assert budget.spent + budget.reserved == pytest.approx(0.001)


def test_what_may_be_spent_ends_a_run_which_goes_on_when_more_may_be(project: Path) -> None:
    """Nothing that was paid for is lost, the limit is kept over runs and stages, and no more than that is asked."""
    pack, rows = load_pack(ROOT / "policies/star1"), read_rows(project / "data/collection.jsonl")
    path = project / "data/replies/categorize.jsonl"
    price = {"input": 1000.0, "output": 0.0}

    def run(limit: float) -> Outcome:
        return categorize(rows, pack, Calls(stand_in(price=price, max_usd=limit, slots=4), Sampling(), path))

    with pytest.raises(CallError, match=r"the next request would pass the limit; expected at most 10 USD"):
        run(10)
    assert uses("categorize", path)[0].prompt_tokens / 1000 > 5
    with pytest.raises(CallError, match="max_usd"):
        run(10)
    spent = uses("categorize", path)[0]
    assert spent.prompt_tokens / 1000 <= 10
    assert run(1000).asked == 59 - spent.answered


def test_an_estimate_beyond_what_may_be_spent_is_told(project: Path) -> None:
    """Also by what was spent before alone; and nothing where it suffices."""
    price = {"input": 1000.0, "output": 0.0}

    def told(limit: float) -> list[str]:
        found = settings(price=price, max_usd=limit)
        return beyond(found, estimates(found, ["categorize"], project), project)

    ahead = estimates(settings(price=price), ["categorize"], project)[0].usd
    assert ahead
    (line,) = told(ahead / 2)
    assert line.startswith(f"stand-in: {ahead:,.2f} USD is more than max_usd, ")
    assert told(ahead * 1.01) == []
    record = {
        "key": "k",
        "label": "m",
        "model": "m",
        "status": "ok",
        "usage": {"prompt_tokens": 5000, "completion_tokens": 0},
    }
    path = project / "data/replies/score.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record) + "\n")
    (line,) = told(ahead * 1.01)
    assert "beside 5.00 USD already spent" in line


def test_rows_made_with_another_pack_are_not_counted_on(project: Path) -> None:
    """After a change of policy.pack their categories mean nothing, and every stage begins with the collection again."""
    rows = [{**row, "category": ["Other"]} for row in read_rows(project / "data/collection.jsonl")]
    write_rows(project / "data/categorized.jsonl", rows)
    write_rows(project / "data/cot.jsonl", [{**row, "category": ["Self-Harm"], "response": "r"} for row in rows])
    found = settings()
    assert one(found, "reason", project).calls == 0
    other = found.model_copy(update={"policy": params.Policy(pack="workshop")})
    for stage in ("reason", "score"):
        assert one(other, stage, project).stands_for == f"{project}/data/collection.jsonl"
        assert one(other, stage, project).calls == 59  # two questions are the same
