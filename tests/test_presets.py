"""Presets are written into params.yaml as a whole or not at all, and its comments stay."""

import shutil
from pathlib import Path

import pytest
import yaml

from star1 import params, presets
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
    assert values["llm"]["roles"]["judge"] == "stand-in"  # what the preset does not name stays


@pytest.mark.parametrize(("folder", "told"), [("nowhere", "is no folder; expected one with"), (".", "holds none of")])
def test_a_wrong_mirror_is_one_mistake(project: Path, folder: str, told: str) -> None:
    before = project.read_text()
    with pytest.raises(params.ParamsError) as caught:
        presets.apply("mirror", [f"fetch.mirror={folder}"], project)
    assert len(caught.value.lines) == 1
    assert f"{told} train/GPTFuzz.jsonl and 15 more files. Hint: see docs/data.md." in caught.value.lines[0]
    assert project.read_text() == before
    assert sorted(path.name for path in project.parent.iterdir()) == ["bundled", "params.yaml", "policies", "presets"]


def test_a_mirror_that_lacks_a_file_names_it(project: Path) -> None:
    (project.parent / "box" / "train").mkdir(parents=True)
    (project.parent / "box" / "train" / "GPTFuzz.jsonl").touch()
    with pytest.raises(params.ParamsError) as caught:
        presets.apply("mirror", ["fetch.mirror=box"], project)
    assert len(caught.value.lines) == 15
    assert all("does fetch.mirror name the right folder?" in line for line in caught.value.lines)


def test_corrected_changes_what_it_says_about_the_papers_collection(project: Path) -> None:
    presets.apply("paper", [], project)
    assert presets.apply("corrected", [], project) == ["fetch.sources.wildjailbreak.keep", "collect.ngram_survivor"]
    values = yaml.safe_load(project.read_text())
    assert values["collect"]["ngram_survivor"] == "first"


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
