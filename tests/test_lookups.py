"""What rules read: values that carry their name, and the code behind a script."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from star1.errors import SettingError
from star1.workflow.inputs import Inputs
from star1.workflow.lookups import LookUp, Params, Setting, canonical, code
from tests.conftest import ROOT


def test_setting_is_its_value_on_the_command_line_and_its_name_in_the_record() -> None:
    setting = Setting("a.b", {"y": 1.0, "x": [True, None]})
    assert str(setting) == f"{setting}" == '{"x": [true, null], "y": 1}'
    assert repr(setting).startswith("a.b=")
    assert repr(Setting("a.b", 1)) != repr(Setting("a.c", 1))


def test_equal_numbers_are_the_same_text() -> None:
    assert canonical(1.0) == canonical(1)
    assert canonical(0.1) != canonical(0.2)
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})


def test_look_up_with_wildcards_and_each() -> None:
    params = Params({"runs": {"star1+benign": {"seed": 3}, "b": {"seed": 4}}})
    look_up = params("runs.{run}.seed")
    assert look_up({"run": "star1+benign"}) == "3"
    assert look_up.names({"run": "b"}) == ["runs.b.seed"]
    each = params.each("runs.{}.seed", ["b", "star1+benign"])
    assert each({}) == '{"b": 4, "star1+benign": 3}'
    assert each.names({}) == ["runs.b.seed", "runs.star1+benign.seed"]
    assert params.names("runs") == ["star1+benign", "b"]
    assert params.shaping == {"runs"}
    assert isinstance(look_up, LookUp)


def test_code_finds_modules_imported_directly_indirectly_and_inside_functions(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "star1" / "sub").mkdir(parents=True)
    (tmp_path / "scripts" / "work.py").write_text("import os\nfrom star1 import a\nfrom star1.sub.c import f\n")
    (tmp_path / "star1" / "a.py").write_text("def g():\n    import star1.b\n")
    (tmp_path / "star1" / "b.py").write_text("from star1 import a\n")
    (tmp_path / "star1" / "sub" / "c.py").write_text("f = 1\n")
    (tmp_path / "star1" / "d.py").write_text("")
    assert code("work", tmp_path) == ["scripts/work.py", "star1/a.py", "star1/b.py", "star1/sub/c.py"]


def test_code_of_real_scripts() -> None:
    assert {"scripts/summarize.py", "star1/tables.py", "star1/stats.py", "star1/records.py"} <= set(
        code("summarize", ROOT)
    )
    assert "star1/sft.py" not in code("collect", ROOT)


def test_a_model_is_released_after_the_data_that_its_own_rows_are_in() -> None:
    runs = {"a": {"data": ["star1", "benign"]}, "b": {"data": ["STAR-1"]}, "c": {"data": ["STAR-1", "random"]}}
    values = {"policy": {"pack": "star1"}, "fetch": {"published": {"STAR-1": {}}}, "finetune": {"runs": runs}}
    inputs = Inputs(Params(values))
    found = {run: inputs.released_data(SimpleNamespace(run=run)) for run in runs}
    seals = [f"release/datasets/{name}/release.json" for name in ("star-1", "star-benign")]
    assert found == {"a": seals, "b": [], "c": ["release/datasets/star-41k/release.json"]}


def test_endpoints_of_roles_are_each_named_once() -> None:
    llm = {"roles": {"teacher": ["b", "a"], "scorer": "a"}, "endpoints": {"a": 1, "b": 2, "c": 3}}
    look_up = Inputs(Params({"policy": {"pack": "star1"}, "llm": llm})).answerers("scorer", "teacher")
    assert look_up({}) == '{"a": 1, "b": 2}'


def test_training_data_by_name() -> None:
    """The pipeline's own sets, selections, and sets that others released, in the order of the run."""
    values = {
        "policy": {"pack": "star1"},
        "curate": {"selections": {"random": {}}},
        "finetune": {"runs": {"r": {"data": ["random", "benign", "STAR-1", "star1"]}}},
    }
    files = Inputs(Params(values)).training_data(SimpleNamespace(run="r"))
    own = ["data/selections/random.jsonl", "data/benign/benign.jsonl"]
    assert files == [*own, "data/published/STAR-1.jsonl", "data/star1.jsonl"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("runs.b.sede", "params.yaml: runs.b: no 'sede'; expected one of seed. Hint: did you mean seed?"),
        ("runs.b.seed.x", "params.yaml: runs.b.seed: no 'x'; expected one of none."),
    ],
)
def test_a_target_of_a_name_that_is_in_no_table_is_told_with_those_that_are(path: str, said: str) -> None:
    """Such as `snakemake data/sources/typo.jsonl`: it ended with a bare KeyError."""
    with pytest.raises(SettingError) as caught:
        Params({"runs": {"b": {"seed": 4}}}).value(path)
    assert str(caught.value) == said


def test_a_target_of_a_run_that_is_not_there_is_told_with_the_models_of_all_runs() -> None:
    runs = {"a": {"base": "tiny", "seeds": [1, 2]}, "b": {"base": "tiny", "seed": 3}}
    inputs = Inputs(Params({"policy": {"pack": "star1"}, "finetune": {"runs": runs}}))
    with pytest.raises(SettingError, match="no 'a-seed3'; expected one of a-seed1, a-seed2, b"):
        inputs.base(SimpleNamespace(run="a-seed3"))
