"""The files of a policy pack: whatever is wrong with them is told once, with file and line, and all of it at once."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from star1.errors import InputError
from star1.packs import LONGEST, find_pack, known_packs
from star1.policies import load_pack, pack_mistakes
from tests.conftest import ROOT
from tests.loopback import CATEGORIES, PROMPTS, RUBRICS, write_pack

SCORE: dict[str, Any] = RUBRICS["score"]
CRITERIA: dict[str, str] = SCORE["criteria"]
BENIGN: dict[str, Any] = RUBRICS["benign"]
EXAMPLE = json.dumps(dict.fromkeys(BENIGN["criteria"], 3))


def only_mistake(folder: Path) -> str:
    """The one mistake of a pack, its folder left out; what is loaded says the same."""
    lines = [line.replace(f"{folder}/", "") for line in pack_mistakes(folder)]
    assert len(lines) == 1, lines
    with pytest.raises(InputError) as error:
        load_pack(folder)
    assert str(error.value).replace(f"{folder}/", "") == lines[0]
    return lines[0]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("policies/*/policy.yaml")))
def test_the_packs_of_the_project_have_no_mistakes(name: str) -> None:
    assert pack_mistakes(ROOT / "policies" / name) == []


@pytest.mark.parametrize(
    ("changes", "line", "told"),
    [
        (
            {"other": "Self-Harm"},
            r"^other",
            "other: 'Self-Harm', and a category is called 'Self-Harm'; expected a word",
        ),
        ({"other": "self-harm"}, r"^other", "a category is called 'Self-Harm'"),
        ({"other": False}, r"^other", "other: False (bool); expected a valid string. Hint: put quotes around it"),
        (
            {"categories": [CATEGORIES[0], {**CATEGORIES[1], "name": CATEGORIES[0]["name"]}]},
            r"slug: self_harm",
            "category name 'Illicit/Criminal Behavior' a second time (first in line 4)",
        ),
        (
            {"categories": [CATEGORIES[0], {**CATEGORIES[1], "name": "illicit / criminal  behavior"}]},
            r"slug: self_harm",
            "a second time (first in line 4 as 'Illicit/Criminal Behavior')",
        ),
        (
            {"categories": [CATEGORIES[0], {**CATEGORIES[1], "slug": "illicit"}]},
            r"(?m)slug: illicit(?s:.*)(slug: illicit)",
            "category slug 'illicit' a second time (first in line 5)",
        ),
        ({"categories": [{**CATEGORIES[0], "colour": "red"}]}, r"colour: ", "unknown key categories.0.colour"),
        ({"categories": [{**CATEGORIES[0], "defintion": "x"}]}, r"defintion", "Hint: did you mean definition?"),
        ({"categories": []}, r"^categories", "categories: an empty list"),
        ({"title": ""}, r"^title", "title: '' (str)"),
        ({"name": "another"}, r"^name", "name: 'another'; expected 'p', as the pack's folder is called"),
        ({"rubrics": {"score": SCORE}}, r"^rubrics", "no rubrics.benign; expected a value"),
        (
            {"rubrics": {**RUBRICS, "other": SCORE}},
            r"^  other",
            "unknown key rubrics.other; expected one of benign, score",
        ),
        (
            {"rubrics": {**RUBRICS, "score": {**SCORE, "minimum": 10}}},
            r"^    maximum: 10",
            "rubrics.score: maximum 10 and minimum 10",
        ),
        (
            {"rubrics": {**RUBRICS, "score": {"minimum": 0, "criteria": CRITERIA}}},
            r"^  score",
            "no rubrics.score.maximum; expected a value",
        ),
        (
            {"rubrics": {**RUBRICS, "score": {**SCORE, "criteria": {**CRITERIA, "content_safety_compliance": "x"}}}},
            r"^      content_safety",
            "criterion of rubrics.score 'content_safety_compliance' a second time",
        ),
        (
            {"rubrics": {**RUBRICS, "score": {**SCORE, "criteria": {"two words": "x"}}}},
            r"^    criteria",
            "letters, digits and _ alone in 'two words'",
        ),
        (
            {"rubrics": {**RUBRICS, "score": {**SCORE, "criteria": {"Safe": " "}}}},
            r"^      Safe",
            "rubrics.score.criteria",
        ),
        ({"unknown": 1}, r"^unknown", "unknown key unknown; expected one of categories, name, other, rubrics, title"),
    ],
)
def test_wrong_fields_are_told_with_their_line(changes: dict[str, Any], line: str, told: str, tmp_path: Path) -> None:
    """Where two fields contradict each other, the line is that of the second."""
    folder = write_pack(tmp_path / "p", **changes)
    text = (folder / "policy.yaml").read_text()
    match = re.search(line, text, re.MULTILINE)
    assert match is not None
    place = match.start(match.lastindex or 0)
    expected = text.count("\n", 0, place) + 1
    if "slug: self_harm" in line:
        expected -= 1  # the name stands above its slug
    found = only_mistake(folder)
    assert told in found
    assert found.startswith(f"policy.yaml:{expected}: ")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title: A small pack", "title: [unclosed", "policy.yaml:3: not YAML ("),
        (
            "title: A small pack",
            "title:\tA small pack\n\tother: x",
            "Hint: YAML is indented with spaces; replace the tab",
        ),
        ("title: A small pack", "title: A small pack\ntitle: Another", "policy.yaml:3: key 'title' a second time"),
        ("    minimum: 0", "    minimum: 0\n    minimum: 1", "key 'minimum' a second time (first in line "),
        ("title: A small pack", "title: A pack: small", "mapping values are not allowed here"),
        ("title: A small pack", "title: 2026-13-45", "put quotes around what is meant as text"),
        ("title: A small pack", "title: 'a\x07b'", "policy.yaml:2: not YAML (special characters are not allowed)"),
        ("title: A small pack", "title: !!timestamp soon", "put quotes around what is meant as text"),
        ("title: A small pack", "title: " + "[" * 5000, "policy.yaml: not YAML (maximum recursion depth exceeded"),
        ("title: A small pack", "title: !!python/name:os.system x", "policy.yaml:2: not YAML (could not determine"),
        (
            "title: A small pack",
            "title: A small pack\n---\nx: 1",
            "policy.yaml:3: not YAML (but found another document)",
        ),
    ],
)
def test_broken_yaml_is_told_with_its_line(old: str, new: str, told: str, tmp_path: Path) -> None:
    """PyYAML alone takes the last of two equal keys, and ends with a traceback at a control character or a wrong date."""
    folder = write_pack(tmp_path / "p")
    replace(folder / "policy.yaml", old, new)
    assert told in only_mistake_of_yaml(folder)


def only_mistake_of_yaml(folder: Path) -> str:
    """The one mistake in policy.yaml; what its names decide in other files is not known where it cannot be read."""
    lines = [line for line in pack_mistakes(folder) if "policy.yaml" in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_yaml_alias_that_leads_to_itself_is_no_endless_loop(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "p")
    replace(folder / "policy.yaml", "title: A small pack", "title: &own [*own]")
    assert "title: a list; expected a valid string" in only_mistake(folder)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("policies/self_harm.md", None, "policies/self_harm.md: no such file"),
        ("policies/self_harm.md", " \n", "policies/self_harm.md: an empty file"),
        ("policies/self_harm.md", "word " * LONGEST, f"characters; expected at most {LONGEST:,}"),
        ("policies/self_harm.md", "\ufeffBe kind.", "policies/self_harm.md:1: a byte order mark"),
        ("policies/self_harm.md", "Be kind.\n# Policy: Self-Harm\n", "self_harm.md:2: the line '# Policy: Self-Harm'"),
        ("policies/selfharm.md", "Be kind.", "policies/selfharm.md: a file that nothing reads; expected only"),
        ("prompts/catgorize.md", "x", "prompts/catgorize.md: a file that nothing reads; expected only categorize.md"),
        ("goldn.yaml", "x", "goldn.yaml: a file that nothing reads; expected only policy.yaml, golden.yaml"),
        ("prompts/reason.md", None, "prompts/reason.md: no such file"),
        ("prompts/reason.md", "{{policies}}", "prompts/reason.md: no placeholder {{question}}"),
        ("prompts/reason.md", "{{policies}}\n\n{{question}}\n{{answer}}", "reason.md:4: placeholder {{answer}}"),
        ("prompts/reason.md", "{{policies}}\n{{question}}\n{{ }}", "reason.md:3: placeholder {{ }}"),
        ("prompts/reason.md", "{{polices}}\n{{question}}", "reason.md:1: placeholder {{polices}}; expected one of"),
        ("prompts/reason.md", "{{policies}}\n{question}", "reason.md:2: half a placeholder, '{question}'"),
        ("prompts/reason.md", "{{policies}}\n{{question}", "reason.md:2: half a placeholder, '{{question}'"),
        ("prompts/reason.md", "{{policies}}\n{question}}", "reason.md:2: half a placeholder, '{question}}'"),
        ("prompts/reason.md", "{{policies}}\nQ: {{question}}", "reason.md:2: placeholder {{question}} within a line"),
        ("prompts/reason.md", "{{policies}}\n{{question}}\n# Policy: Other", "reason.md:3: the line '# Policy: Other'"),
        ("prompts/judge_guard.md", "{{definitions}}\n{{question}}\n{{response:raw}}", "placeholder {{response:raw}}"),
        ("prompts/repair.md", "{{problem}}", "prompts/repair.md: no placeholder {{reply_format}}"),
    ],
)
def test_wrong_files_are_named(file: str, text: str | None, told: str, tmp_path: Path) -> None:
    """A prompt that would leave out the question, or let it speak for itself, is found before any call."""
    folder = write_pack(tmp_path / "p")
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    assert told in only_mistake(folder)


@pytest.mark.parametrize(
    ("file", "added", "told"),
    [
        (
            "categorize",
            '["Self-Harm", "Privacy"]',
            'unknown category \'Privacy\'; expected one of "Illicit/Criminal Behavior", "Self-Harm", "Other"',
        ),
        ("categorize", '["Self Harm"]', "unknown category 'Self Harm'; expected one of"),
        ("categorize", 'Mind "self harm" above all.', "Hint: did you mean Self-Harm?"),
        ("judge_guard", 'Mind "Selfharm" above all.', "Hint: did you mean Self-Harm?"),
        ("categorize", '["Self-Harm" "Other"]', "an example that is no JSON list"),
        (
            "score",
            '{"Content_Safety_Compliance": 3}',
            "an example without Relevancy_and_No_Redundant_Content, Accuracy_of",
        ),
        ("score", '{"Content_Safety_Compliance": 3,}', "an example that is no JSON object"),
        ("benign_score", EXAMPLE, ""),
        (
            "benign_score",
            EXAMPLE.replace("3", "9", 1),
            "Content_Safety_Compliance: 9 in the example; expected an integer from 1",
        ),
        ("benign_score", EXAMPLE.replace("Degree", "Degre"), "criterion 'Compliance_Degre' in the example"),
    ],
)
def test_names_in_prompts_are_those_of_the_pack(file: str, added: str, told: str, tmp_path: Path) -> None:
    """A copied pack whose categories or criteria were changed in one place only."""
    folder = write_pack(tmp_path / "p")
    path = folder / "prompts" / f"{file}.md"
    line = path.read_text().count("\n") + 2
    path.write_text(f"{path.read_text()}\n{added}\n")
    lines = pack_mistakes(folder)
    assert bool(lines) == bool(told)
    if told:
        assert told in lines[0]
        assert lines[0].startswith(f"{path}:{line}: ")


def test_the_word_for_no_category_must_be_shown(tmp_path: Path) -> None:
    """Else no classifier would know it; a pack that is copied and given another word is told so."""
    folder = write_pack(tmp_path / "p", other="None")
    lines = pack_mistakes(folder)
    assert len(lines) == 2
    assert "categorize.md:6: unknown category 'Other'; expected one of" in lines[0]
    assert 'categorize.md: no ["None"]; expected an example of the reply where no category applies' in lines[1]
    replace(folder / "prompts" / "categorize.md", '["Other"]', '["None"]')
    assert pack_mistakes(folder) == []


def test_all_mistakes_of_a_pack_are_told_at_once(tmp_path: Path) -> None:
    """In policy.yaml, the policy texts and the prompts; and `load_pack` says how many more there are."""
    folder = write_pack(tmp_path / "p", other="Self-Harm", rubrics={**RUBRICS, "bengin": 1}, colour="red")
    (folder / "prompts" / "reason.md").write_text("{{polices}}\n{{question}}")
    (folder / "prompts" / "scores.md").write_text("{{question}}")
    (folder / "prompts" / "score.md").unlink()
    (folder / "policies" / "self_harm.md").write_text("")
    lines = [line.removeprefix(f"{folder}/") for line in pack_mistakes(folder)]
    assert [line.split(":")[0] for line in lines] == [
        "policy.yaml",
        "policy.yaml",
        "policy.yaml",
        "policies/self_harm.md",
        "prompts/reason.md",
        "prompts/score.md",
        "prompts/scores.md",
    ]
    assert "Hint: did you mean benign?" in "".join(lines[:3])
    assert lines[-1].endswith("Hint: did you mean score.md?")
    with pytest.raises(InputError, match=r"tells of 6 more$"):
        load_pack(folder)
    (folder / "policy.yaml").write_text("name: [unclosed")
    found = [line.split(": ")[0].removeprefix(f"{folder}/") for line in pack_mistakes(folder)]
    assert found[:2] == ["policy.yaml:1", "prompts/reason.md:1"]


def test_a_missing_key_does_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    """Names are compared and prompts are read even where policy.yaml lacks a field."""
    categories = [CATEGORIES[0], {**CATEGORIES[1], "slug": "illicit"}]
    rubrics = {**RUBRICS, "score": {"minimum": 0, "criteria": CRITERIA}}
    folder = write_pack(tmp_path / "p", categories=categories, rubrics=rubrics, other="self-harm", name="q")
    (folder / "policies" / "self_harm.md").write_text("Be kind.")
    prompt = folder / "prompts" / "benign_score.md"
    prompt.write_text(f"{prompt.read_text()}\n{EXAMPLE.replace('3', '9', 1)}\n")
    assert [line.removeprefix(f"{folder}/").partition("; expected")[0] for line in pack_mistakes(folder)] == [
        "policy.yaml:13: no rubrics.score.maximum",
        "policy.yaml:1: name: 'q'",
        "policy.yaml:9: category slug 'illicit' a second time (first in line 5)",
        "policy.yaml:11: other: 'self-harm', and a category is called 'Self-Harm'",
        "prompts/benign_score.md:8: Content_Safety_Compliance: 9 in the example",
    ]


def test_files_of_editors_and_systems_are_no_mistakes(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "p")
    for name in ("prompts/.reason.md.swp", "prompts/reason.md~", ".DS_Store", "README.md"):
        (folder / name).write_text("x")
    assert pack_mistakes(folder) == []


def test_a_line_end_of_another_system_is_no_mistake(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "p")
    for path in folder.rglob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert pack_mistakes(folder) == []
    assert "\r" not in load_pack(folder).render("categorize", question="q", definitions="d")


def test_a_pack_that_is_not_there(tmp_path: Path) -> None:
    """The packs that are there are listed, the most similar first."""
    for name in ("kitchen", "star1", "workshop"):
        write_pack(tmp_path / "policies" / name)
    (tmp_path / "policies" / "notes").mkdir()
    assert known_packs(tmp_path) == ["kitchen", "star1", "workshop"]
    with pytest.raises(InputError, match=r"expected one of workshop, .*Hint: did you mean workshop\?"):
        find_pack(tmp_path, "work-shop")
    for name in ("star1", "policies/star1/"):
        assert find_pack(tmp_path, name) == tmp_path / "policies" / "star1"
    for name in ("", "..", "../policies", "star1/prompts"):
        with pytest.raises(InputError, match="no such policy pack"):
            find_pack(tmp_path, name)
    lines = pack_mistakes(find_pack(tmp_path, "notes"))
    assert len(lines) == 1 + len(PROMPTS)
    assert lines[0].startswith(f"{os.fspath(tmp_path)}/policies/notes/policy.yaml: no such file")
