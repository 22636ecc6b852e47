"""Quarantined rows are asked about anew for chosen reasons, all others are not, and nothing that was paid for is lost."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from star1 import cli, ledger, retry
from star1.deliberation import NO_POLICY
from star1.errors import SettingError
from star1.records import read_rows, write_rows
from star1.replies import Reply, Store
from tests.conftest import ROOT
from tests.loopback import Answer, completion, run_script, server, write_pack
from tests.test_workflow import Project, make

STORE = Path("data/replies/categorize.jsonl")
OUTPUT = Path("data/quarantine/categorize.jsonl")
ASIDE = Path(".work/quarantine/categorize.jsonl")
QUESTIONS = ["fine 0", "long 1", "prose 2", "fine 3", "long 4", "nothing 5"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's folder with a policy pack and some questions."""
    monkeypatch.chdir(tmp_path)
    write_pack(tmp_path / "pack")
    Path("Snakefile").touch()
    rows = [{"id": str(place), "question": question, "source": "s"} for place, question in enumerate(QUESTIONS)]
    write_rows("rows.jsonl", rows)


class Model:
    """Cuts some replies off and answers others in prose, also when asked to repair them; well, it answers all."""

    def __init__(self) -> None:
        self.well = False

    def __call__(self, body: dict[str, Any], _: int) -> Answer:
        question = body["messages"][0]["content"]
        good = '["Self-Harm"]'
        if self.well or "fine" in question:
            return Answer(completion(good))
        if "nothing" in question:
            return Answer({"error": {"message": "too busy", "code": 500}}, 500)
        return Answer(completion(good[:5], "length") if "long" in question else completion("I would say so."))


def categorize(url: str, coverage: float = 0.1) -> None:
    """Run the stage."""
    endpoint = {"provider": "openai", "model": "m", "label": "m", "base_url": url, "slots": 1, "retries": 0}
    run_script(
        "categorize",
        *("--input", "rows.jsonl", "--output", "data/categorized.jsonl", "--quarantine", str(OUTPUT)),
        *("--replies", str(STORE), "--policy", "pack", "--coverage", str(coverage), "--endpoint", json.dumps(endpoint)),
    )


def star1(*arguments: str) -> None:
    """Run the command."""
    args = cli.parser().parse_args(arguments)
    cli.in_project(args)


def asked(served: Any, before: int) -> list[str]:
    """The questions that were asked since there were `before` requests, each as often as it was."""
    texts = [body["messages"][0]["content"] for body in served.requests[before:]]
    return [question for text in texts for question in QUESTIONS if question in text]


def test_rows_of_a_reason_are_asked_about_anew_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Cut-off replies are taken back and asked for once more; those in prose, three turns each, stay as they are."""
    model = Model()
    with server(model) as served:
        categorize(served.url)
        assert [row["reason"] for row in read_rows(OUTPUT)] == ["length", "no_json", "length", "server_error"]
        first = len(served.requests)
        capsys.readouterr()
        star1("calls", "retry")
        told = [line.split() for line in capsys.readouterr().out.splitlines()]
        counted = [["categorize", "length", "2"], ["categorize", "no_json", "1"], ["categorize", "server_error", "1"]]
        assert told == [["stage", "reason", "rows"], *counted]
        star1("calls", "retry", "--reason", "length")
        assert capsys.readouterr().out.splitlines() == [
            "categorize: 2 rows (length 2), 2 requests re-opened",
            "now run `snakemake`, or `dvc repro`: it asks about these rows anew, and about no others",
        ]
        assert not OUTPUT.exists()
        model.well = True
        categorize(served.url)
        assert asked(served, first) == ["long 1", "long 4"]
        assert [row["id"] for row in read_rows(OUTPUT)] == ["2", "5"]
        star1("calls", "retry", "--reason", "server_error")  # got no reply at all
        categorize(served.url)
        assert asked(served, first) == ["long 1", "long 4", "nothing 5"]
        second = len(served.requests)
        categorize(served.url)
        assert len(served.requests) == second
        star1("calls", "retry", "--reason", "no_json", "--stage", "categorize")
        assert "categorize: 1 rows (no_json 1), 3 requests re-opened" in capsys.readouterr().out
        categorize(served.url)
        assert asked(served, second) == ["prose 2"]
    assert [row["id"] for row in read_rows("data/categorized.jsonl")] == ["0", "1", "2", "3", "4", "5"]
    assert read_rows(OUTPUT) == []
    assert not ASIDE.exists()


def test_what_was_paid_stays_counted_and_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """In the status, the lines and the export, zipped or not; the last word on a request counts."""
    model = Model()
    with server(model) as served:
        categorize(served.url)
        before = ledger.uses("categorize", STORE)[0]
        lines = STORE.read_bytes()
        star1("calls", "retry", "--reason", "length", "no_json", "server_error")
        assert STORE.read_bytes().startswith(lines)
        after = ledger.uses("categorize", STORE)[0]
        assert (after.answered, after.prompt_tokens) == (before.answered, before.prompt_tokens) == (7, 7)
        assert (after.reopened, after.given_up, sum(after.failed.values())) == (6, 1, 1)
        assert "1 given up; 6 re-opened" in "\n".join(ledger.status(ledger.stores(), {}))
        assert ledger.verify("categorize", STORE)[1]
        assert ledger.export(ledger.stores(), Path("out.jsonl")) == 2
        star1("ledger", "compact")
        with Store(STORE) as store:
            assert (len(store), store.bad_lines) == (2, 0)
        assert ledger.export(ledger.stores(), Path("again.jsonl")) == 2
        assert Path("again.jsonl").read_bytes() == Path("out.jsonl").read_bytes()
        model.well = True
        categorize(served.url)
        assert ledger.export(ledger.stores(), Path("out.jsonl")) == 6
    assert "re-opened" in capsys.readouterr().out


def test_a_stage_that_never_got_a_reply_is_given_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty one would be told as a store of its own."""
    write_rows(ASIDE, [{"id": "1", "reason": "timeout"}])
    star1("calls", "retry", "--reason", "timeout")
    assert "1 rows (timeout 1), 0 requests re-opened; 1 rows have no reply of their own" in capsys.readouterr().out
    assert not STORE.exists()


def test_rows_that_nobody_was_asked_about_cannot_be_asked_about_anew(capsys: pytest.CaptureFixture[str]) -> None:
    """The classifier decided on them; re-opening them in the stage that set them aside would change nothing."""
    write_rows("data/quarantine/reason.jsonl", [{"id": "1", "stage": "reason", "reason": NO_POLICY}])
    star1("calls", "retry")
    assert capsys.readouterr().out == "no row is in quarantine for want of a usable reply\n"
    with pytest.raises(SettingError, match="'nope'; expected nothing at all, since no row is in quarantine"):
        retry.select(retry.quarantines(), [], ["nope"])
    write_rows("data/quarantine/reason.jsonl", [{"id": "1", "reason": NO_POLICY}, {"id": "2", "reason": "length"}])
    with pytest.raises(
        SettingError, match="no quarantined row with 'no policy of the pack applies'; expected one of 'len"
    ):
        retry.select(retry.quarantines(), [], [NO_POLICY])
    star1("calls", "retry", "--reason", "length", "--stage", "reason")
    assert [row["id"] for row in read_rows(".work/quarantine/reason.jsonl")] == ["1", "2"]


def test_a_dry_run_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with server(Model()) as served:
        categorize(served.url)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    star1("calls", "retry", "--reason", "length", "server_error", "--dry-run")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert capsys.readouterr().out == ("categorize: 3 rows (length 2, server_error 1), 3 requests would be re-opened\n")


def test_a_stage_that_failed_for_coverage_is_re_opened_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    """Its outputs are gone; what was put aside tells, and goes when the stage succeeds."""
    model = Model()
    with server(model) as served:
        with pytest.raises(SystemExit):
            categorize(served.url, coverage=0.9)
        OUTPUT.unlink()  # as the workflow does
        first = len(served.requests)
        star1("calls", "retry", "--reason", "length")
        capsys.readouterr()
        star1("calls", "retry", "--reason", "length", "no_json")
        told = capsys.readouterr().out
        assert "3 rows (length 2, no_json 1), 3 requests re-opened; 2 rows were re-opened before" in told
        model.well = True
        categorize(served.url, coverage=0.9)
        assert asked(served, first) == ["long 1", "prose 2", "long 4", "nothing 5"]
    assert not ASIDE.exists()
    star1("calls", "retry")
    assert capsys.readouterr().out.endswith("no row is in quarantine for want of a usable reply\n")


def test_judges_of_several_models_keep_their_rows_apart() -> None:
    """Two that failed for coverage wrote to one file, the later over the earlier."""
    write_rows(".work/quarantine/judge-a.jsonl", [{"id": "x/1", "reason": "length"}])
    write_rows("results/quarantine/b+c.jsonl", [{"id": "x/1", "reason": "empty"}])
    for name in ("a", "b+c"):
        with Store(f"data/replies/judge-{name}.jsonl") as store:
            store.keep({"key": "0" * 64, "item": "x/1", "label": "j", "model": "j"}, Reply("?"))
    found = retry.quarantines()
    assert list(found) == ["judge-a", "judge-b+c"]
    assert retry.reopen(retry.select(found, [], ["empty"]), ["empty"]) == [
        "judge-b+c: 1 rows (empty 1), 1 requests re-opened"
    ]
    assert [len(Store(f"data/replies/judge-{name}.jsonl", look=True)) for name in ("a", "b+c")] == [1, 0]
    retry.put_aside(retry.select(found, ["judge-b+c"], []))
    assert read_rows(".work/quarantine/judge-b+c.jsonl") == [{"id": "x/1", "reason": "empty"}]
    assert not Path("results/quarantine/b+c.jsonl").exists()


def test_variants_of_the_ladder_are_asked_about_anew() -> None:
    """Their quarantines lie in a folder of their own, which was not looked into; their stores are named like a judge's."""
    write_rows("results/ladder/quarantine/m--first.jsonl", [{"id": "x/1", "reason": "length"}])
    write_rows(".work/quarantine/judge-m--second.jsonl", [{"id": "x/1", "reason": "length"}])
    write_rows("results/quarantine/m.jsonl", [{"id": "x/1", "reason": "empty"}])
    for name in ("m--first", "m--second", "m"):
        with Store(f"data/replies/judge-{name}.jsonl") as store:
            store.keep({"key": "0" * 64, "item": "x/1", "label": "j", "model": "j"}, Reply("?"))
    found = retry.quarantines()
    assert {name: one.output.as_posix() for name, one in found.items()} == {
        "judge-m": "results/quarantine/m.jsonl",
        "judge-m--first": "results/ladder/quarantine/m--first.jsonl",
        "judge-m--second": "results/ladder/quarantine/m--second.jsonl",
    }
    told = retry.reopen(retry.select(found, [], ["length"]), ["length"])
    assert [line.partition(":")[0] for line in told] == ["judge-m--first", "judge-m--second"]
    retry.put_aside(retry.select(found, [], ["length"]))
    assert not Path("results/ladder/quarantine/m--first.jsonl").exists()
    assert Path("results/quarantine/m.jsonl").exists()
    assert read_rows(".work/quarantine/judge-m--first.jsonl") == [{"id": "x/1", "reason": "length"}]


def test_replies_of_another_model_about_the_same_row_stay() -> None:
    """Who goes back to that model finds them."""
    write_rows(OUTPUT, [{"id": "7", "reason": "length"}])
    with Store(STORE) as store:
        for place, model in enumerate(("old", "new", "new")):
            store.keep({"key": f"{place:064d}", "item": "7", "label": "l", "model": model}, Reply("cut"))
    found = list(retry.quarantines().values())
    assert retry.reopen(found, ["length"]) == ["categorize: 1 rows (length 1), 2 requests re-opened"]
    with Store(STORE, look=True) as store:
        assert store.get("0" * 64) == Reply("cut")
        assert len(store) == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--reason", "lenght"],
            "--reason: no quarantined row with 'lenght'; expected one of 'length', 'no_json', 'server_error'.",
        ),
        (
            ["--reason", "length", "--stage", "reasn"],
            "--stage: no quarantined row of 'reasn'; expected one of categorize.",
        ),
    ],
)
def test_unknown_reasons_and_stages_are_told_with_those_there_are(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(Model()) as served:
        categorize(served.url)
    monkeypatch.setattr(sys, "argv", ["star1", "calls", "retry", *flags])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert capsys.readouterr().err.endswith(f"error: {says}\n")
    assert OUTPUT.exists()


def test_a_run_at_work_is_left_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with a writer, and a folder that Snakemake holds; nothing is re-opened in any stage."""
    with server(Model()) as served:
        categorize(served.url)
    write_rows("data/quarantine/score.jsonl", [{"id": "1", "reason": "length"}])
    before = STORE.read_bytes()
    monkeypatch.setattr(sys, "argv", ["star1", "calls", "retry", "--reason", "length"])
    with Store("data/replies/score.jsonl"), pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "is writing to this store of replies" in capsys.readouterr().err
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.input.lock").touch()
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "a run of Snakemake holds this folder; expected no run. Hint: wait until" in capsys.readouterr().err
    assert STORE.read_bytes() == before
    assert OUTPUT.exists()


SNAKEFILE = """
import yaml
from star1.workflow import engine
from star1.workflow.lookups import Params, code

P = Params(yaml.safe_load(open("params.yaml")))
engine.before_plan(workflow)

rule all:
    input: "data/asked.txt", "data/quarantine/ask.jsonl", "results/summary.txt"

rule ask:
    input: code=code("ask"), raw="raw.txt"
    output: rows="data/asked.txt", quarantine="data/quarantine/ask.jsonl"
    params: low=P("split.low")
    shell: "python -m scripts.ask {output} {input.raw}"

rule summary:
    input: "data/asked.txt"
    output: "results/summary.txt"
    shell: "cp {input} {output}"

onstart: engine.on_start(workflow)
onsuccess: engine.on_end(workflow)
onerror: engine.on_end(workflow)
"""
ASK = """
import sys
from pathlib import Path
with open("ran.txt", "a") as log:
    log.write("ask\\n")
Path(sys.argv[1]).write_text("rows")
Path(sys.argv[2]).write_text('{"id": "1", "reason": "length"}\\n')
"""


def test_both_engines_run_the_stage_again_and_agree(tmp_path: Path) -> None:
    """DVC alone would bring the missing output back: from its lock, or from its run cache."""
    project = make(tmp_path / "project")
    (project.path / "Snakefile").write_text(SNAKEFILE)
    (project.path / "scripts/ask.py").write_text(ASK)
    project.run("star1", "dvc-yaml")
    project.ran("snakemake")
    assert project.clean()
    project.edit("params.yaml", "low: 1", "low: 5")
    project.ran("dvc", "repro")
    project.edit("params.yaml", "low: 5", "low: 1")
    project.ran("dvc", "repro")  # now DVC has this state in its run cache as well
    assert project.clean()
    assert "now run `snakemake`, or `dvc repro`" in project.run("star1", "calls", "retry", "--reason", "length")
    assert project.plans() == (["ask", "summary"], ["ask", "summary"])
    other = Project(tmp_path / "other")
    shutil.copytree(project.path, other.path, symlinks=True)
    assert project.ran("snakemake") == ["ask"]
    assert other.ran("dvc", "repro") == ["ask"]
    assert project.clean()
    assert other.clean()


def test_every_stage_with_a_quarantine_is_named_in_rule_all() -> None:
    """A missing output that nothing needs any more would not make Snakemake run the stage again."""
    text = (ROOT / "Snakefile").read_text()
    for stage in (
        "categorize",
        "reason",
        "score",
        "benign_rewrite",
        "benign_reason",
        "benign_score",
        "judge",
        "ladder_judge",
    ):
        assert f"rules.{stage}.output" in text
