"""The table of runs: one model for each seed, what decides each of them, and the published runs by name."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from star1 import params, presets, runs
from star1.workflow.inputs import Inputs
from star1.workflow.lookups import Params
from tests.conftest import ROOT
from tests.test_params import mistakes, write

TABLE: dict[str, Any] = {
    "star1": {"base": "tiny", "data": ["star1"], "think": True, "seed": 7},
    "many": {"base": "tiny", "data": ["star1"], "think": False, "seeds": [3, 1], "tier": "lora", "lora": {"rank": 2}},
}
RUN = {"base": "tiny", "data": ["star1"], "think": True}


def inputs(**changes: Any) -> Inputs:
    values = {
        "policy": {"pack": "p"},
        "fetch": {"models": {"tiny": {}}, "published": {}},
        "curate": {"selections": {}},
        "finetune": {"runs": TABLE, "lora": {"rank": 16, "alpha": 32}},
        "generate": {"models": ["tiny", "many", "star1"]},
    }
    return Inputs(Params(values | changes))


def test_a_list_of_seeds_makes_a_model_each() -> None:
    assert runs.by_model(TABLE) == {"star1": "star1", "many-seed3": "many", "many-seed1": "many"}
    assert runs.expand(["tiny", "many", "star1"], TABLE) == ["tiny", "many-seed3", "many-seed1", "star1"]
    assert runs.expand(["many-seed1"], TABLE) == ["many-seed1"]
    assert runs.entry_of("star1", TABLE) == TABLE["star1"]
    found = runs.entry_of("many-seed1", TABLE)
    assert (found["seed"], found["run"], "seeds" in found) == (1, "many", False)


def test_seeds_of_a_run_are_put_together_again() -> None:
    assert runs.seeds_of(TABLE) == {"many": ["many-seed3", "many-seed1"]}
    assert runs.seeds_of(TABLE, ["star1", "many-seed1"]) == {"many": ["many-seed1"]}
    assert runs.seeds_of(TABLE, ["star1"]) == {}


def test_another_seed_trains_no_model_anew() -> None:
    """The list of seeds is a parameter of no model's training, in either engine."""
    more = {**TABLE, "many": TABLE["many"] | {"seeds": [3, 1, 9]}}
    own = [f"finetune.runs.many.{key}" for key in ("base", "data", "think", "tier", "lora")]
    for job in ({"run": "many-seed3"}, {"run": "many-seed1"}):
        before, after = inputs().run(), inputs(finetune={"runs": more, "lora": {}}).run()
        assert before.names(job) == after.names(job) == own
        assert repr(before(job)) == repr(after(job))
    assert inputs().run().names({"run": "star1"}) == ["finetune.runs.star1"]
    assert json.loads(inputs().run()({"run": "star1"})) == TABLE["star1"]


def test_adapters_concern_the_runs_that_have_some() -> None:
    lora = inputs().lora()
    assert (lora({"run": "star1"}), lora.names({"run": "star1"})) == ("null", [])
    assert json.loads(lora({"run": "many-seed3"})) == {"rank": 16, "alpha": 32}
    assert lora.names({"run": "many-seed3"}) == ["finetune.lora"]
    assert runs.adapter_of({"rank": 16, "alpha": 32}, TABLE["many"]) == {"tier": "lora", "rank": 2, "alpha": 32}
    assert runs.adapter_of({"rank": 16}, TABLE["star1"]) is None


def test_models_that_answer_are_told_one_by_one_and_with_what_decides_them() -> None:
    models = inputs().models()
    assert json.loads(models({})) == ["tiny", "many-seed3", "many-seed1", "star1"]
    assert models.names({}) == ["generate.models", "finetune.runs.many.seeds"]


def test_base_and_data_of_a_seed_are_those_of_its_run() -> None:
    job = SimpleNamespace(run="many-seed1")
    assert inputs().base(job) == "models/base/tiny/manifest.json"
    assert inputs().training_data(job) == ["data/star1.jsonl"]


def test_settings_of_a_run_come_before_the_shared_ones() -> None:
    entry = RUN | {"seed": 5, "settings": {"epochs": 1}}
    assert runs.settings_of({"epochs": 8, "warmup": 0.1}, entry) == {
        "epochs": 1, "warmup": 0.1, "think": True, "seed": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (RUN, "finetune.runs.r: a mapping; expected seed (a number) or seeds (a list), one of the two."),
        (RUN | {"seed": 1, "seeds": [1]}, "expected seed (a number) or seeds (a list), one of the two."),
        (RUN | {"seeds": [1, 1]}, "expected each seed once, not [1, 1]."),
        (RUN | {"seeds": []}, "finetune.runs.r.seeds: [] (list); expected"),
        (RUN | {"seeds": [-1]}, "finetune.runs.r.seeds.0: -1 (int); expected greater than or equal to 0."),
        (RUN | {"seed": 1, "tier": "lroa"}, "finetune.runs.r.tier: 'lroa' (str); expected 'full', 'lora' or 'qlora'."),
        (RUN | {"seed": 1, "lora": {"rank": 2}}, "there are no adapters in tier full."),
        (
            RUN | {"seed": 1, "settings": {"epochs": 0}},
            "finetune.runs.r.settings.epochs: 0 (int); expected greater than",
        ),
        (RUN | {"seed": 1, "settings": {"epoch": 1}}, "Hint: did you mean epochs?"),
        (
            RUN | {"seed": 1, "tier": "lora", "lora": {"rank": 0}},
            "finetune.runs.r.lora.rank: 0 (int); expected greater",
        ),
    ],
)
def test_mistakes_in_a_run(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    (line,) = mistakes(write(tmp_path, {"finetune.runs.r": entry}))
    assert told in line


def test_names_that_seeds_make_are_nobody_elses(tmp_path: Path) -> None:
    change: dict[str, Any] = {"finetune.runs.r": RUN | {"seeds": [1]}, "finetune.runs.r-seed1": RUN | {"seed": 1}}
    (line,) = mistakes(write(tmp_path, change))
    assert "finetune.runs.r.seeds: make a model r-seed1, which something else is called" in line
    change = {"finetune.runs.r": RUN | {"seeds": [1]}, "generate.models": ["r", "r-seed1"]}
    (line,) = mistakes(write(tmp_path, change))
    assert "generate.models: a name twice" in line
    (line,) = mistakes(write(tmp_path, {"finetune.runs.r": RUN | {"seeds": [1]}, "generate.models": ["r-seed2"]}))
    assert "Hint: did you mean r-seed1?" in line


def test_settings_of_a_run_and_the_shared_ones_go_together(tmp_path: Path) -> None:
    run, shared = RUN | {"seed": 1, "tier": "qlora"}, {"finetune.settings.sharding": "zero3"}
    (line,) = mistakes(write(tmp_path, {**shared, "finetune.runs.r": run}))
    told = (
        "finetune.runs.r.tier: qlora with sharding zero3; expected sharding none: weights of four bits are not spread"
    )
    assert told in line
    assert "tier: lora is spread in every way" in line
    for fits in (run | {"settings": {"sharding": "none"}}, run | {"tier": "lora"}):
        params.load(write(tmp_path, {**shared, "finetune.runs.r": fits}), ROOT)
    (line,) = mistakes(write(tmp_path, {"finetune.runs.r": RUN | {"seed": 1, "settings": {"processes": 64}}}))
    assert "finetune.runs.r.settings.processes: 64 with a batch_size of 8" in line


def test_a_job_has_the_processes_of_its_run() -> None:
    table = {**TABLE, "many": TABLE["many"] | {"settings": {"processes": 2}}}
    found = inputs(finetune={"runs": table, "lora": {}, "settings": {"processes": 4}})
    assert [found.processes(SimpleNamespace(run=run)) for run in ("star1", "many-seed1")] == [4, 2]


COMMIT = "0" * 40
HUB = {"kind": "hub", "repository": "o/m"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (HUB | {"revision": "main"}, "a commit as its revision, or pinned: false"),
        (HUB | {"revision": COMMIT, "pinned": False}, "no `pinned: false` beside a commit"),
        (
            HUB | {"revision": "main", "pinned": False, "remote_code": "trusted"},
            "code of a branch can become any other",
        ),
        (HUB | {"revision": COMMIT, "remote_code": True}, "remote_code: True (bool); expected 'never' or 'trusted'."),
    ],
)
def test_base_models_are_fixed_and_run_no_code_unless_told(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    (line,) = mistakes(write(tmp_path, {"fetch.models.m": entry}))
    assert told in line


def test_base_models_that_are_as_they_should_be() -> None:
    for more in (
        {"revision": "main", "pinned": False},
        {"revision": COMMIT, "remote_code": "trusted", "licence": "MIT"},
    ):
        assert params.HubModel.model_validate(HUB | more).repository == "o/m"


# ---------------------------------------------------------------- the published runs


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> params.Params:
    folder = tmp_path_factory.mktemp("paper")
    for name in ("presets", "bundled", "policies"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", folder)
    presets.apply("paper", [], folder / "params.yaml")
    return params.Params.model_validate(params.load(folder / "params.yaml", folder))


DISTILLED = {"R1-Qwen-1_5B", "R1-Qwen-7B", "R1-Qwen-14B", "R1-Qwen-32B", "R1-Llama-8B"}
INSTRUCT = {"Qwen-1_5B-Instruct", "Qwen-7B-Instruct", "Llama-8B-Instruct"}


def of_data(values: params.Params, *data: str, think: bool = True) -> set[str]:
    """The bases of the runs on some data."""
    table = values.finetune.runs.values()
    return {run.base for run in table if run.data == list(data) and run.think == think}


def test_the_published_runs_are_there_by_name(paper: params.Params) -> None:
    assert of_data(paper, "star1") == DISTILLED | INSTRUCT
    assert of_data(paper, "star1", think=False) == INSTRUCT | {"R1-Qwen-1_5B", "R1-Qwen-7B", "R1-Llama-8B"}
    for name in ("medium", "random", "STAR-1"):
        assert of_data(paper, name) == {"R1-Qwen-1_5B", "R1-Qwen-7B"}
    for size in (100, 250, 500, 2000):
        assert of_data(paper, f"star1-{size}") == of_data(paper, f"random-{size}") == {"R1-Qwen-1_5B"}
    assert of_data(paper, "star1", "benign") == {"R1-Qwen-1_5B", "R1-Qwen-7B", "R1-Llama-8B"}
    assert {(run.seed, run.tier) for run in paper.finetune.runs.values()} == {(2002, "full")}
    assert set(paper.generate.models) == set(paper.fetch.models) | set(paper.finetune.runs)


def test_the_published_recipe(paper: params.Params) -> None:
    settings = paper.finetune.settings
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (5, 128, 1e-5)
    assert (settings.betas, settings.weight_decay, settings.warmup) == ([0.9, 0.95], 1e-4, 0.05)
    assert (settings.schedule, settings.precision, settings.max_tokens) == ("cosine", "bf16", 8192)
    assert (settings.gradient_checkpointing, settings.processes, settings.sharding) == (True, 8, "zero3")


def test_the_published_models_are_the_ones_meant(paper: params.Params) -> None:
    """The published code calls Llama-3.1-8B-Instruct what is the base model without instructions."""
    found = {name: model.repository for name, model in paper.fetch.models.items() if isinstance(model, params.HubModel)}
    assert found["Llama-8B-Instruct"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert {name for name, place in found.items() if place.startswith("deepseek-ai/DeepSeek-R1-Distill-")} == DISTILLED
    assert len(found) == 10
    assert all(model.pinned for model in paper.fetch.models.values() if isinstance(model, params.HubModel))
