"""The protocol ladder: what holds at each step, which answers are judged, and the table."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from star1 import ladder, params, presets, tables_ladder
from star1.endpoints import Endpoint
from star1.judge_settings import Grader, Judge, Use
from star1.judges import calls_of, judge_all, judgements
from star1.policies import load_pack
from star1.records import read_json
from star1.tables_means import Settings
from star1.workflow.ladders import Ladder
from star1.workflow.lookups import Params
from tests.conftest import ROOT
from tests.test_planted_faults import benchmark
from tests.test_tables_means import marks

STEPS: list[dict[str, Any]] = [
    {"name": "published", "set": {"generate.sampling.repetition_penalty": 1.2, "judge.judges.j.view": "response"}},
    {"name": "answer", "set": {"judge.judges.j.view": "answer"}},
    {"name": "free", "set": {"generate.sampling.repetition_penalty": 1.0}},
    {"name": "cut", "set": {"judge.grader.cut_off": "unscored"}},
]
VALUES: dict[str, Any] = {
    "generate": {"sampling": {"repetition_penalty": 1.1, "top_p": 1.0}},
    "judge": {"judges": {"j": {"view": "answer"}}, "grader": {"cut_off": "judged"}},
    "ladder": {"models": ["m"], "benchmarks": ["jbb"], "steps": STEPS},
}


def test_changes_add_up() -> None:
    found = [ladder.changed(VALUES, STEPS, step["name"]) for step in STEPS]
    assert [one["generate"]["sampling"]["repetition_penalty"] for one in found] == [1.2, 1.2, 1.0, 1.0]
    assert [one["judge"]["judges"]["j"]["view"] for one in found] == ["response", "answer", "answer", "answer"]
    assert [one["judge"]["grader"]["cut_off"] for one in found] == ["judged"] * 3 + ["unscored"]
    assert {one["generate"]["sampling"]["top_p"] for one in found} == {1.0}
    assert VALUES["generate"]["sampling"]["repetition_penalty"] == 1.1


def test_answers_are_generated_anew_only_where_that_changes() -> None:
    names = [step["name"] for step in STEPS]
    assert [ladder.generated_at(STEPS, name) for name in names] == ["published", "published", "free", "free"]
    judged_first = [{"name": "a", "set": {}}, {"name": "b", "set": {"judge.judges.j.view": "answer"}}]
    assert [ladder.generated_at(judged_first, name) for name in ("a", "b")] == ["a", "a"]


def test_rules_see_the_values_of_a_step() -> None:
    found = Ladder(Params(VALUES))
    assert found.variants == ["m--published", "m--answer", "m--free", "m--cut"]
    wildcards = SimpleNamespace(model="m--cut")
    assert (found.model(wildcards), found.generated(wildcards)) == ("m", "m--free")
    look_up = found("generate.sampling")
    assert look_up(SimpleNamespace(model="m--answer")) == '{"repetition_penalty": 1.2, "top_p": 1}'
    assert look_up.names(wildcards) == ["generate.sampling", "ladder.steps"]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([STEPS[0]], "fewer than two steps"),
        ([STEPS[0], STEPS[0]], "twice"),
        ([STEPS[0], {"name": "a--b", "set": {}}], "without --"),
        ([STEPS[0], {"name": "a", "set": {"curate.size": 3}}], "expected keys under generate.engine"),
        ([STEPS[0], {"name": "a", "set": {"generate.sampling.top_q": 3}}], "not in params.yaml"),
    ],
)
def test_mistakes_are_told(steps: list[dict[str, Any]], told: str) -> None:
    values = VALUES | {"ladder": {**VALUES["ladder"], "steps": steps}}
    assert any(told in line for line in ladder.mistakes(values))
    assert not list(ladder.mistakes(VALUES))


def test_values_of_a_step_are_checked_like_those_of_params(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    # A value whose type changes when it is checked: what is checked at a step is what stands in the file.
    values["llm"]["endpoints"]["leaving"] = {
        "provider": "openai",
        "model": "m",
        "label": "M",
        "base_url": "http://localhost:1/v1",
        "slots": 1,
        "retires": "2027-01-31",
    }
    wrong = {"name": "wrong", "set": {"generate.sampling.top_p": 2.0}}
    values["ladder"] |= {"models": ["star1"], "steps": [*values["ladder"]["steps"], wrong]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(params.ParamsError, match=r"ladder.steps\[\d\].set: generate.sampling.top_p: 2.0") as caught:
        params.load(tmp_path / "params.yaml", ROOT)
    assert len(caught.value.lines) == 1
    values["ladder"]["steps"].pop()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    params.load(tmp_path / "params.yaml", ROOT)


def test_table_pairs_each_step_with_the_one_before() -> None:
    by_step = {"one": marks("jbb", *"uuus"), "two": marks("jbb", *"ussu"), "three": marks("jbb", *"ss--")}
    result = tables_ladder.table({"m": {"jbb": by_step}}, Settings(0.95, resamples=200))
    first, second, third = result["rungs"]
    assert (first["before"], first["difference"]) == (None, None)
    assert (second["before"], second["difference"]["gained"], second["difference"]["lost"]) == ("one", 2, 1)
    assert (third["difference"]["n"], third["difference"]["total"]) == (2, 4)
    assert third["difference"]["left_out"]["unscored in the first"] == 2
    text = tables_ladder.page(result).markdown()
    assert "| two | 50.0 [15.0, 85.0], 4/4 | rules, shown the response |" in text
    assert "| +25.0 [" in text


def test_another_measure_is_not_subtracted() -> None:
    refused = [{**row, "kind": "refusal", "verdict": "full_refusal"} for row in marks("jbb", *"ss")]
    result = tables_ladder.table({"m": {"jbb": {"one": marks("jbb", *"ss"), "two": refused}}}, Settings(0.95))
    assert result["rungs"][1]["why"] == "another measure than the step before"
    assert "another measure" in tables_ladder.page(result).markdown()


def test_a_second_judge_of_another_kind_is_not_in_the_way() -> None:
    """Steps were compared over the rows of all judges, which have no one measure."""
    second = [{**row, "kind": "refusal", "verdict": "full_refusal", "primary": False} for row in marks("jbb", *"su")]
    by_step = {"one": marks("jbb", *"su") + second, "two": marks("jbb", *"ss") + second}
    result = tables_ladder.table({"m": {"jbb": by_step}}, Settings(0.95, resamples=200))
    assert result["rungs"][1]["difference"]["gained"] == 1


@pytest.mark.parametrize("key", ["generate.models", "generate.benchmarks", "judge.nothing", "generate"])
def test_only_what_the_rules_take_from_a_step_can_be_set(key: str) -> None:
    values = VALUES | {"ladder": {**VALUES["ladder"], "steps": [STEPS[0], {"name": "a", "set": {key: 1}}]}}
    assert any(f"{key!r}; expected keys under generate.engine" in line for line in ladder.mistakes(values))


def test_the_published_faults_are_steps_of_the_papers_ladder(tmp_path: Path) -> None:
    """Prompts that start twice and grading by a model are where it begins, and each is one change."""
    for name in ("presets", "policies", "bundled"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    presets.apply("paper", [], tmp_path / "params.yaml")
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    steps = values["ladder"]["steps"]
    held = {step["name"]: ladder.changed(values, steps, step["name"]) for step in steps}
    ways = {name: (one["generate"]["bos"], one["judge"]["use"]["reasoning"]) for name, one in held.items()}
    assert ways["as-published"] == ("doubled", ["gpt-4o-equality"])
    assert ways["one-start"] == ("one", ["gpt-4o-equality"])
    assert ways["graded-by-rule"] == ("one", [])
    assert [step["name"] for step in steps if "judge.use.reasoning" in step["set"]] == [
        "as-published",
        "graded-by-rule",
    ]
    assert ladder.generated_at(steps, "graded-by-rule") == "long"
    presets.apply(None, ["ladder.models=[R1-Llama-8B]"], tmp_path / "params.yaml")  # all steps are checked
    with pytest.raises(
        params.ParamsError, match=r"ladder.steps\[1\].set: generate: .*; expected bos: one with engine openai"
    ):
        presets.apply(
            None,
            ["ladder.steps=[{name: a, set: {generate.engine: openai}}, {name: b, set: {generate.bos: doubled}}]"],
            tmp_path / "params.yaml",
        )


def test_grading_by_a_model_and_by_rule_are_the_same_measure() -> None:
    asked = [{**row, "name": "same", "kind": "equality", "judge": "a model"} for row in marks("math500", *"ccic")]
    beside = [{**row, "primary": False} for row in marks("math500", *"ciic")]
    by_step = {"asked": asked + beside, "rule": marks("math500", *"ciic")}
    result = tables_ladder.table({"m": {"math500": by_step}}, Settings(0.95, resamples=200))
    found = result["rungs"][1]["difference"]
    assert (found["n"], found["gained"], found["lost"]) == (4, 0, 1)


def test_answers_are_judged_as_each_step_says(tmp_path: Path) -> None:
    """The project's own steps, judged and put into the table: a model compares mathematical answers up to the last of them."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    steps, by_step, one = values["ladder"]["steps"], {}, benchmark("math", faulty=True)
    endpoint = Endpoint.model_validate(values["llm"]["endpoints"]["stand-in"])
    pack = load_pack(ROOT / "policies/star1")
    for step in steps:
        held = ladder.changed(values, steps, step["name"])["judge"]
        judges = {name: Judge.model_validate(how) for name, how in held["judges"].items()}
        calls = calls_of(judges, {"stand-in": endpoint}, tmp_path / f"{step['name']}.jsonl", 0.95)
        found = judge_all([one], judges, Use.model_validate(held["use"]), pack, calls)
        mine = [who for name, who in found.items() if name in held["use"]["reasoning"]]
        by_step[step["name"]] = judgements(one, mine, Grader.model_validate(held["grader"]))
    kinds = [next(row["kind"] for row in rows if row["primary"]) for rows in by_step.values()]
    assert kinds == ["equality"] * 6 + ["grader"]
    cells = tables_ladder.table({"m": {"math500": by_step}}, Settings(0.95, resamples=200))["rungs"]
    assert {cell["value"] for cell in cells} == {0.5}
    # Cut-off answers are judged from the second step to the sixth, and empty ones and open thinking never.
    lost = [cell["total"] - cell["n"] for cell in cells]
    assert lost == [12, 8, 8, 8, 8, 12, 12]
    assert all(cell["difference"]["n"] >= 68 for cell in cells[1:])


def test_a_model_that_is_named_like_a_variant_is_a_mistake() -> None:
    values = VALUES | {"generate": VALUES["generate"] | {"models": ["m", "m--free"]}}
    assert any("'m--free'; expected one without --" in line for line in ladder.mistakes(values))


@pytest.mark.slow
def test_ladder_is_planned(tmp_path: Path) -> None:
    """Three generations, of which two steps share one, and four another; the DAG and dvc.yaml know the same jobs."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("dvc-store"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for command in (["git", "init", "-q"], ["star1", "preset", "--set", "ladder.models=[star1]"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    stages = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]
    found = [name for name in stages if name.startswith("ladder")]
    names = (
        "penalised",
        "whole_shown",
        "one_start",
        "no_penalty",
        "answer_shown",
        "cut_off_unscored",
        "graded_by_rule",
    )
    steps = list(names)
    judged = [f"ladder_judge-star1_{step}" for step in steps]
    assert sorted(found) == sorted(
        [
            "ladder",
            *(f"ladder_generate-star1_{step}" for step in ("penalised", "one_start", "no_penalty")),
            *judged,
        ]
    )
    assert (
        "results/ladder/generations/star1--no-penalty/xstest.jsonl"
        in stages["ladder_judge-star1_cut_off_unscored"]["deps"]
    )
    (basis,) = (one for one in stages["ladder_generate-star1_penalised"]["deps"] if one.startswith("results/basis/"))
    assert {"generate.bos", "generate.sampling", "ladder.steps"} <= set(read_json(tmp_path / basis)["values"])
