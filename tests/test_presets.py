"""Presets are written into params.yaml as a whole or not at all, and its comments stay."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from star1 import params, presets
from star1.decoding import sampling_for
from star1.errors import SettingError
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("presets", "bundled", "policies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path / "params.yaml"


def test_single_values_change_nothing_else(project: Path) -> None:
    before = project.read_text()
    assert presets.apply(None, ["curate.size=77", "collect.tfidf_threshold=0.55"], project) == [
        "collect.tfidf_threshold",
        "curate.size",
    ]
    values = yaml.safe_load(project.read_text())
    assert (values["curate"]["size"], values["collect"]["tfidf_threshold"]) == (77, 0.55)
    pairs = list(zip(before.splitlines(), project.read_text().splitlines(), strict=True))
    assert [new.strip() for old, new in pairs if old != new] == ["tfidf_threshold: 0.55", "size: 77"]
    assert presets.apply(None, ["curate.size=77"], project) == []


def test_mirror_preset_with_a_mirror(project: Path, shared: Path) -> None:
    changed = presets.apply("mirror", [f"fetch.mirror={shared / 'sources'}"], project)
    values = params.load(project, project.parent)
    assert "curate.size" in changed
    assert values["curate"]["size"] == 1000
    assert values["fetch"]["benchmarks"]["xstest"]["format"] == "jsonl"  # an entry is replaced whole
    assert "category" not in values["fetch"]["benchmarks"]["strongreject"]
    assert values["llm"]["roles"]["teacher"] == "replay"
    assert values["judge"]["judges"]["refusal"]["endpoint"] == "stand-in"  # what the preset does not name stays


@pytest.mark.parametrize(("folder", "told"), [("nowhere", "is no folder; expected one with"), (".", "holds none of")])
def test_a_wrong_mirror_is_one_mistake(project: Path, folder: str, told: str) -> None:
    before = project.read_text()
    with pytest.raises(params.ParamsError) as caught:
        presets.apply("mirror", [f"fetch.mirror={folder}"], project)
    assert len(caught.value.lines) == 1
    assert f"{told} train/GPTFuzz.jsonl and 17 more files. Hint: see docs/data.md." in caught.value.lines[0]
    assert project.read_text() == before
    assert sorted(path.name for path in project.parent.iterdir()) == ["bundled", "params.yaml", "policies", "presets"]


def test_a_mirror_that_lacks_a_file_names_it(project: Path) -> None:
    (project.parent / "box" / "train").mkdir(parents=True)
    (project.parent / "box" / "train" / "GPTFuzz.jsonl").touch()
    with pytest.raises(params.ParamsError) as caught:
        presets.apply("mirror", ["fetch.mirror=box"], project)
    assert len(caught.value.lines) == 17
    assert all("does fetch.mirror name the right folder?" in line for line in caught.value.lines)


def test_corrected_changes_what_it_says_about_the_papers_collection(project: Path) -> None:
    presets.apply("paper", [], project)
    changed = presets.apply("corrected", [], project)
    judging = [name for name in changed if name.startswith(("judge.", "llm.endpoints.qwen3guard"))]
    assert [name for name in changed if name not in judging and not name.startswith("generate.")] == [
        "fetch.sources.wildjailbreak.keep",
        "collect.ngram_survivor",
    ]
    assert {"judge.use.harmful", "judge.judges.llama-guard.view", "judge.judges.gpt-4o.cut_off"} <= {*judging}
    values = yaml.safe_load(project.read_text())
    assert values["collect"]["ngram_survivor"] == "first"


def decoded(project: Path, model: str) -> dict[str, Any]:
    """Sampling of a model on each of the paper's sets."""
    values = yaml.safe_load(project.read_text())["generate"]
    names = ("strongreject", "aime24", "math500", "humaneval", "gpqa", "mmlu_pro")
    return {name: sampling_for(model, name, values["sampling"], values["sampling_of"]) for name in names}


@pytest.mark.parametrize("before", [[], ["corrected"]])
def test_answers_are_decoded_as_published(project: Path, before: list[str]) -> None:
    for name in ("paper", *before, "as-published"):
        presets.apply(name, [], project)
    found = decoded(project, "R1-Qwen-7B")
    limits = {"strongreject": 8000, "mmlu_pro": 4096, "gpqa": 32768}
    assert {name: one.max_tokens for name, one in found.items()} == {name: limits.get(name, 16384) for name in found}
    assert {(one.temperature, one.repetition_penalty, one.seed, one.samples) for one in found.values()} == {
        (0.0, 1.2, 46, 1)
    }
    assert {one.max_tokens for one in decoded(project, "Qwen-7B-Instruct").values()} == {8000, 16384, 28672, 4096}


@pytest.mark.parametrize("before", [[], ["as-published"]])
def test_answers_are_decoded_with_draws_and_room(project: Path, before: list[str]) -> None:
    for name in ("paper", *before, "corrected"):
        presets.apply(name, [], project)
    found = decoded(project, "R1-Qwen-7B")
    assert {(one.temperature, one.top_p, one.repetition_penalty, one.max_tokens) for one in found.values()} == {
        (0.6, 0.95, 1.0, 32768)
    }
    assert {name: one.samples for name, one in found.items()} == {
        **{"strongreject": 1, "aime24": 8, "math500": 4, "humaneval": 4, "gpqa": 4, "mmlu_pro": 1}
    }
    assert {one.max_tokens for one in decoded(project, "Qwen-7B-Instruct+star1").values()} == {24576}


def test_paper_names_its_other_selections(project: Path) -> None:
    presets.apply("paper", [], project)
    values = yaml.safe_load(project.read_text())["curate"]
    assert values["size"] == 1000
    sizes = {name: one["size"] for name, one in values["selections"].items() if one["kind"] == "balanced"}
    assert {sizes[f"star1-{size}"] for size in (100, 250, 500, 1000, 2000)} == {100, 250, 500, 1000, 2000}
    assert {"random", "medium", "per_category"} <= set(values["selections"])
    changes = ["curate.selections.per_category=null", "finetune.runs.R1-Qwen-7B+star1.data=[random-500, benign]"]
    presets.apply(None, changes, project)
    assert "per_category" not in yaml.safe_load(project.read_text())["curate"]["selections"]
    with pytest.raises(params.ParamsError, match=r"'randm-500', which nothing is called.* did you mean random-500"):
        presets.apply(None, ["finetune.runs.R1-Qwen-7B+star1.data=[randm-500]"], project)


def test_unknown_preset_and_broken_assignment(project: Path) -> None:
    with pytest.raises(SettingError, match=r"one of .*mirror"):
        presets.apply("miror", [], project)
    with pytest.raises(SettingError, match=r"section.key=value"):
        presets.apply(None, ["curate.size"], project)
    with pytest.raises(SettingError, match=r"'curate.size=\[1', whose value is not YAML \(expected ',' or ']'"):
        presets.apply(None, ["curate.size=[1"], project)  # ended in a traceback
    with pytest.raises(params.ParamsError, match="'guard', which nothing is called; expected an entry of that name"):
        presets.apply(None, ["judge.judges={}"], project)  # "expected one of ."


def test_value_deep_inside_an_entry(project: Path) -> None:
    assert presets.apply(None, ["fetch.models.tiny.seed=7"], project) == ["fetch.models.tiny.seed"]
    with pytest.raises(SettingError, match=r"there is no fetch\.model"):
        presets.apply(None, ["fetch.model.tiny=7"], project)


def test_null_takes_an_entry_out(project: Path) -> None:
    presets.apply(None, ["finetune.runs.star1+benign=null", "generate.models=[tiny, star1]"], project)
    assert list(yaml.safe_load(project.read_text())["finetune"]["runs"]) == ["star1"]


@pytest.mark.parametrize(("text", "written"), [("0.00001", "0.00001"), ("1.0e-7", "0.0000001"), ("3.0", "3.0")])
def test_small_numbers_are_written_out(project: Path, text: str, written: str) -> None:
    """Python's 1e-05 is a number for one engine and a text for the other: the published learning rate was refused."""
    presets.apply(None, [f"finetune.settings.learning_rate={text}"], project)
    assert f"learning_rate: {written}\n" in project.read_text()
    assert params.load(project, project.parent)["finetune"]["settings"]["learning_rate"] == float(text)
