"""params.yaml is checked as a whole, and every mistake is told with key, value and what was allowed."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from star1 import params
from tests.conftest import ROOT


def write(tmp_path: Path, change: dict[str, Any] | None = None, text: str | None = None) -> Path:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in (change or {}).items():
        place = values
        *parents, last = key.split(".")
        for parent in parents:
            place = place[parent]
        place[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values) if text is None else text)
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(params.ParamsError) as caught:
        params.load(path, ROOT)
    return caught.value.lines


def test_default_params_have_no_mistakes() -> None:
    assert set(params.load(ROOT / "params.yaml", ROOT)) == set(params.Params.model_fields)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "curate.sise",
            3,
            "curate.sise: unknown key; expected one of selections, size, stability. Hint: did you mean size?",
        ),
        ("curate.size", "many", "curate.size: 'many' (str); expected a valid integer."),
        ("curate.size", 0, "curate.size: 0 (int); expected greater than or equal to 1."),
        ("curate.size", True, "curate.size: True (bool); expected a valid integer."),
        ("collect.tfidf_threshold", 1.5, "collect.tfidf_threshold: 1.5 (float); expected less than or equal to 1."),
        ("collect.tfidf_threshold", float("nan"), "collect.tfidf_threshold: nan"),
        ("collect.ngram_survivor", "last", "collect.ngram_survivor: 'last' (str); expected 'first' or 'as_published'."),
        ("collect.sources", [], "collect.sources: [] (list)"),
        ("collect.sources", ["neighborhood"], "Hint: did you mean neighbourhood?"),
        ("collect.sources", ["school", "school"], "collect.sources: a name twice"),
        ("generate.benchmarks", ["strongrejct"], "Hint: did you mean strongreject?"),
        ("generate.models", ["star2"], "generate.models: 'star2', which nothing is called"),
        ("generate.engine", "vlm", "generate.engine: 'vlm' (str); expected 'transformers', 'vllm' or 'openai'."),
        (
            "generate.sampling_of",
            {"aime25": {"max_tokens": 9}},
            "generate.sampling_of: 'aime25', which nothing is called",
        ),
        ("generate.sampling_of", {"stra1/aime24": {"max_tokens": 9}}, "generate.sampling_of: 'stra1', which nothing"),
        ("generate.sampling_of", {"star*/aime25": {"max_tokens": 9}}, "generate.sampling_of: 'aime25', which nothing"),
        ("generate.sampling_of", {"aime24": {"max_token": 9}}, "Hint: did you mean max_tokens?"),
        (
            "generate.sampling_of",
            {"aime24": {"seed": None}},
            "generate.sampling_of.aime24.seed: None (NoneType); expected",
        ),
        (
            "generate.sampling_of",
            {"aime24": {"samples": 8}},
            "generate.sampling_of: 8 samples at temperature 0, which are all the same (star1 on aime24); expected one",
        ),
        ("llm.roles.scorer", "nobody", "llm.roles.scorer: 'nobody', which nothing is called"),
        (
            "llm.roles.judge",
            "stand-in",
            "Hint: each judge names its own endpoint: judge.judges.NAME.endpoint; see docs",
        ),
        (
            "judge.prompts",
            {"harmful": "guard"},
            "judge.prompts: unknown key; expected one of coverage, grader, judges, sandbox, use. Hint: judges",
        ),
        ("judge.sampling", {}, "Hint: each judge has its own: judge.judges.NAME.sampling"),
        ("judge.judges.guard.endpoint", "nobody", "judge.judges.guard.endpoint: 'nobody', which nothing is called"),
        ("judge.judges.guard.kind", "gard", "judge.judges.guard.kind: 'gard' (str); expected 'refusal', 'guard', "),
        ("judge.judges.guard.view", "all", "judge.judges.guard.view: 'all' (str); expected 'answer', 'thinking' or"),
        (
            "judge.judges.guard.threshold",
            0.5,
            "judge.judges.guard: a mapping; expected threshold goes with kind 'rubric'",
        ),
        ("judge.judges.guard.template", "x.md", "template goes with llama_guard, wildguard, qwen3guard"),
        (
            "judge.judges.grader",
            {"kind": "guard", "endpoint": "stand-in"},
            "judge.judges.grader: the name of those who",
        ),
        (
            "judge.judges.wild",
            {"kind": "wildguard", "endpoint": "stand-in", "template": "w.md"},
            "judge.judges.wild.template: no file",
        ),
        ("judge.use.harmful", ["gard"], "judge.use.harmful: 'gard', which nothing is called"),
        ("judge.use.harmful", ["guard", "guard"], "judge.use.harmful: a name twice"),
        ("judge.use.benign", [], "judge.use.benign: [] (list)"),
        ("llm.endpoints.stand-in.label", "GPT-4o", "label must say 'stand-in'"),
        (
            "llm.endpoints.stand-in.key",
            "sk-123",
            "llm.endpoints.stand-in.key: a value that is not repeated here; it must be the name of an environment variable",
        ),
        (
            "finetune.runs.two words",
            {"base": "tiny"},
            "expected a name of letters, digits and _ + -, which begins with",
        ),
        ("release.licence", "a b", "release.licence: 'a b' (str); expected text like ^[A-Za-z0-9]"),
        (
            "finetune.runs.star1",
            {"base": "tiny", "data": ["star1"], "think": True, "seeds": []},
            "finetune.runs.star1.seeds: [] (list); expected 1 or more in it.",
        ),
        (
            "fetch.sources.school.path",
            "/etc/hosts",
            "params.yaml: fetch.sources.school: path '/etc/hosts' must be relative and stay in its folder.",
        ),
        ("policy.pack", "star2", "policy.pack: no policies/star2/policy.yaml; expected one of star1"),
        (
            "finetune.runs.tiny",
            {"base": "tiny", "data": ["star1"], "think": True, "seed": 1},
            "a name that a base model has",
        ),
        ("finetune.runs.star1.data", ["star2"], "finetune.runs.star1.data: 'star2'"),
        (
            "finetune.runs.star1.data",
            ["randon"],
            "expected one of benign, random, star1. Hint: did you mean random?",
        ),
        (
            "curate.selections.star1",
            {"kind": "balanced", "size": 9},
            "curate.selections.star1: a name that another data set",
        ),
        ("curate.selections.a/b", {"kind": "balanced", "size": 9}, "curate.selections.a/b"),
        ("curate.selections.random", {"kind": "random", "size": 9}, "seed is required for kind random"),
        ("curate.selections.random.kind", "medium", "expected 'balanced', 'random' or 'per_category'."),
        ("curate.selections.random.marks", [10], "curate.selections.random.marks: [10] (list); expected"),
        (
            "curate.selections.random.sise",
            4,
            "unknown key; expected one of kind, marks, seed, size. Hint: did you mean size?",
        ),
        ("curate.stability.lowered", [1.5], "curate.stability.lowered.0: 1.5 (float); expected less than 1."),
        ("curate.stability.repeats", 1, "curate.stability.repeats: 1 (int); expected greater than or equal to 2."),
        ("finetune.runs.a/b", {"base": "tiny", "data": ["star1"], "think": True, "seed": 1}, "finetune.runs.a/b"),
        ("fetch.models.tiny.kind", "huge", "fetch.models.tiny"),
        ("fetch.sources.school.path", "bundled/sources/none.txt", "fetch.sources.school.path: no file"),
        ("fetch.sources.school.kind", "mirror", "fetch.sources.school: of kind mirror, and fetch.mirror is null"),
        ("fetch.sources.school.sha", "0", "fetch.sources.school.sha: unknown key"),
        ("fetch.sources.school.sha256", 3, "fetch.sources.school.sha256: 3 (int); expected a valid string."),
        ("curate", 3, "curate: 3 (int); expected a mapping with the keys selections, size, stability."),
        ("release.redistribute", {"schol": True}, "release.redistribute: 'schol', which nothing is called"),
        (
            "release.redistribute.school",
            "perhaps",
            "release.redistribute.school: 'perhaps' (str); expected a valid boolean",
        ),
        ("release.licence", "no such name; rm", "release.licence"),
        ("fetch.sources", 3, "fetch.sources: 3 (int); expected a mapping."),
    ],
)
def test_every_mistake_names_key_value_and_what_is_allowed(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    lines = mistakes(write(tmp_path, {key: value}))
    assert any(expected in line for line in lines), lines
    assert all(line.startswith(str(tmp_path / "params.yaml")) and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value"), [("key", "sk-123-secret"), ("base_url", "http://me:secret@host/v1"), ("key", ["secret"])]
)
def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path, key: str, value: Any) -> None:
    """It was printed, and so went into logs."""
    lines = mistakes(write(tmp_path, {f"llm.endpoints.stand-in.{key}": value}))
    assert any(f"llm.endpoints.stand-in.{key}: a value that is not repeated here" in line for line in lines)
    assert "secret" not in "".join(lines)


def test_mistakes_of_the_policy_pack_are_told_as_well(tmp_path: Path) -> None:
    """A misspelt placeholder passed the check and stopped the run at its stage."""
    for name in ("policies", "bundled"):
        shutil.copytree(ROOT / name, tmp_path / name)
    prompt = tmp_path / "policies/star1/prompts/reason.md"
    prompt.write_text(prompt.read_text().replace("{{policies}}", "{{polices}}"))
    with pytest.raises(params.ParamsError) as caught:
        params.load(write(tmp_path, {"curate.size": 3, "generate.models": ["star2"]}), tmp_path)
    assert len(caught.value.lines) == 2
    assert "prompts/reason.md:" in caught.value.lines[1]
    assert "placeholder {{polices}}; expected one of policies, question." in caught.value.lines[1]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    change = {"curate.size": -1, "score.coverage": 2.0, "generate.engine": "none", "judge.extra": 1}
    assert len(mistakes(write(tmp_path, change))) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1,\nb: 2\n", ", line 3, column 1: not YAML (expected"),
        ("a: b: c", ", line 1, column 5: not YAML (mapping"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    (line,) = mistakes(tmp_path / "params.yaml")
    assert line.startswith(f"{tmp_path / 'params.yaml'}{expected}")
    assert "\n" not in line


def test_missing_section_and_key(tmp_path: Path) -> None:
    text = "\n".join(line for line in (ROOT / "params.yaml").read_text().splitlines() if "pool_ngram" not in line)
    assert any("collect.pool_ngram: missing" in line for line in mistakes(write(tmp_path, text=text)))
    assert len(mistakes(write(tmp_path, text="policy: {pack: star1}\n"))) == len(params.Params.model_fields) - 1


def test_value_that_the_two_engines_would_read_differently(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("learning_rate: 0.002\n", "learning_rate: 2e-3\n")
    assert "2e-3" in text
    assert any(
        "finetune.settings.learning_rate" in line and "version of YAML" in line
        for line in mistakes(write(tmp_path, text=text))
    )


@pytest.mark.parametrize("text", ["a: [", "just text", "", "a: 1\na: 2\n", "- a\n"])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    assert len(mistakes(write(tmp_path, text=text))) == 1


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in mistakes(tmp_path / "params.yaml")[0]


def test_sections_have_the_fields_of_the_settings_they_become() -> None:
    """The sections are checked without loading torch, so their fields are written again; here they are held together."""
    from star1 import decoding, sft, tiny

    def fields(kind: Any) -> set[str]:
        return {field.name for field in dataclasses.fields(kind)}

    assert set(params.Training.model_fields) == fields(sft.Settings) - {"think", "seed"}
    assert set(params.TinyModel.model_fields) - {"kind"} <= fields(tiny.Settings)
    assert set(params.Decoding.model_fields) == set(params.OtherDecoding.model_fields) == fields(decoding.Sampling)
