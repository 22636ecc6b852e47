"""What the default run stands on: the bundled prompts and benchmarks, what is planted in them, and the policy pack."""

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from star1 import standin_rules

ROOT = Path(__file__).parents[1]
SOURCES, BENCHMARKS, PACK = ROOT / "bundled/sources", ROOT / "bundled/benchmarks", ROOT / "policies/star1"
REFERENCE = Path(__file__).parents[2] / "shared" / "sources"
ORDER = ("neighbourhood", "workplace", "school", "online")
NEAR_DUPLICATE_STEPS = ("self_ngram", "pool_ngram", "pool_tfidf", "self_tfidf", "self_embedding")
LEAK_STEPS = ("pool_ngram", "pool_tfidf", "test_embedding")
SUBJECTS = "Typical subjects:"
PROMPTS = {
    "categorize": {"definitions", "question"},
    "reason": {"policies", "question"},
    "score": {"policies", "rubric", "question", "thinking", "answer", "reply_format"},
    "benign_rewrite": {"question"},
    "benign_reason": {"question"},
    "benign_score": {"rubric", "question", "thinking", "answer", "reply_format"},
    "judge_refusal": {"question", "response"},
    "judge_guard": {"definitions", "question", "response"},
    "judge_wildguard": {"question", "response"},
    "judge_policy": {"policies"},
    "judge_rubric": {"question", "response"},
    "judge_equality": {"expected", "given"},
    "repair": {"problem", "reply_format"},
}


def table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a table whose first line names the columns."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=delimiter, strict=True))
    # DictReader puts surplus fields under None and fills missing ones with None.
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@cache
def source_questions() -> dict[str, list[str]]:
    """Source -> prompts of the raw file, in its order, before any filter."""
    return {
        "neighbourhood": [row["prompt"] for row in table(SOURCES / "neighbourhood.csv")],
        "workplace": [row["instruction"] for row in json.loads((SOURCES / "workplace.json").read_text("utf-8"))],
        "school": (SOURCES / "school.txt").read_text("utf-8").splitlines(),
        "online": [row["text"] for row in lines(SOURCES / "online.jsonl")],
    }


@cache
def benchmark_questions() -> dict[str, list[str]]:
    """Benchmark -> prompts of the raw file, in its order."""
    return {
        "strongreject": [row["forbidden_prompt"] for row in table(BENCHMARKS / "strongreject.csv")],
        "jbb": [row["Goal"] for row in table(BENCHMARKS / "jbb.csv")],
        "jbb_benign": [row["Goal"] for row in table(BENCHMARKS / "jbb_benign.csv")],
        "wildjailbreak": [row["adversarial"] for row in table(BENCHMARKS / "wildjailbreak.tsv", "\t")],
        "xstest": [row["prompt"] for row in table(BENCHMARKS / "xstest.csv")],
        "aime24": [row["problem"] for row in lines(BENCHMARKS / "aime24.jsonl")],
        "math500": [row["problem"] for row in lines(BENCHMARKS / "math500.jsonl")],
        "gpqa": [row["Question"] for row in table(BENCHMARKS / "gpqa.csv")],
        "humaneval": [row["prompt"] for row in lines(BENCHMARKS / "humaneval.jsonl")],
    }


@cache
def planted() -> list[dict[str, Any]]:
    """The entries of planted.json."""
    entries: list[dict[str, Any]] = json.loads((ROOT / "bundled/planted.json").read_text("utf-8"))
    return entries


def matched(entry: dict[str, Any]) -> str:
    """The text of the row that a planted row resembles."""
    of = entry["of"]
    found = source_questions()[of["source"]] if "source" in of else benchmark_questions()[of["benchmark"]]
    text: str = found[of["row"]]
    return text


def ngrams(text: str, n: int = 8) -> set[str]:
    """Word n-grams of a text, with and without its punctuation."""
    found = set()
    for words in (text.lower().split(), re.findall(r"[\w']+", text.lower())):
        found |= {" ".join(words[start : start + n]) for start in range(len(words) - n + 1)}
    return found


# --- prompt sets ------------------------------------------------------------------------------------------------------


def test_the_prompt_sets_have_their_rows() -> None:
    assert {name: len(found) for name, found in source_questions().items()} == {
        "neighbourhood": 70,
        "workplace": 78,
        "school": 81,
        "online": 100,
    }


def test_the_prompt_sets_have_their_fields() -> None:
    rows = table(SOURCES / "neighbourhood.csv")
    assert list(rows[0]) == ["id", "prompt", "topic"]
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(set(row) == {"instruction", "tag"} for row in json.loads((SOURCES / "workplace.json").read_text()))
    online = lines(SOURCES / "online.jsonl")
    assert all(set(row) == {"text", "unsafe"} for row in online)
    assert Counter(row["unsafe"] for row in online) == {True: 92, False: 8}


def test_no_question_is_blank_or_comes_twice() -> None:
    everything = [*source_questions().values(), *benchmark_questions().values()]
    folded = [" ".join(text.lower().split()) for texts in everything for text in texts]
    assert all(folded)
    assert not [text for text, count in Counter(folded).items() if count > 1]


def test_prompts_are_of_natural_length() -> None:
    counts = [len(text.split()) for texts in source_questions().values() for text in texts]
    assert min(counts) >= 5
    assert max(counts) <= 30


def test_every_category_has_enough_prompts() -> None:
    # As the default run's stand-in classifies; planted rows do not count, since they are dropped before.
    gone = {(entry["source"], entry["row"]) for entry in planted()}
    safe = {("online", n) for n, row in enumerate(lines(SOURCES / "online.jsonl")) if not row["unsafe"]}
    definitions = {one["name"]: one["definition"] for one in pack()["categories"]}
    labels: Counter[str] = Counter()
    several = 0
    for name, texts in source_questions().items():
        for row, text in enumerate(texts):
            if (name, row) in gone | safe:
                continue
            shown = standin_rules.Shown({"question": text}, definitions, {}, {}, bare=False)
            found = json.loads(standin_rules.categorize(shown))
            labels.update(found)
            several += len(found) > 1
    assert all(labels[name] >= 25 for name in definitions), labels
    assert 8 <= labels["Other"] <= 12
    assert several >= 15


# --- planted rows -----------------------------------------------------------------------------------------------------


def test_planted_rows_cover_every_step() -> None:
    near = Counter(entry["step"] for entry in planted() if "source" in entry["of"])
    leaks = Counter(entry["step"] for entry in planted() if "benchmark" in entry["of"])
    assert set(near) == set(NEAR_DUPLICATE_STEPS)
    assert set(leaks) == set(LEAK_STEPS)
    assert min(near.values()) >= 6
    assert min(leaks.values()) >= 3


def test_planted_entries_refer_to_rows_that_exist() -> None:
    places = [(entry["source"], entry["row"]) for entry in planted()]
    assert len(set(places)) == len(places)
    for entry in planted():
        assert set(entry) == {"source", "row", "step", "of", "why"}
        assert entry["why"].strip()
        assert entry["row"] >= 0
        assert entry["of"]["row"] >= 0
        assert matched(entry) != source_questions()[entry["source"]][entry["row"]]


def test_planted_rows_come_after_what_they_resemble() -> None:
    places = {(entry["source"], entry["row"]) for entry in planted()}
    for entry in planted():
        of = entry["of"]
        if "benchmark" in of:
            continue
        assert (of["source"], of["row"]) not in places
        here, there = (ORDER.index(entry["source"]), entry["row"]), (ORDER.index(of["source"]), of["row"])
        assert there < here
        if entry["step"].startswith("pool_"):
            assert there[0] < here[0]
        elif entry["step"] in ("self_ngram", "self_tfidf"):
            assert there[0] == here[0]


def test_leaked_rows_are_in_the_part_of_the_benchmark_that_is_measured() -> None:
    wild = table(BENCHMARKS / "wildjailbreak.tsv", "\t")
    measured = {
        "strongreject": range(30),
        "jbb": range(30),
        "wildjailbreak": [n for n, row in enumerate(wild) if row["data_type"] == "adversarial_harmful"],
        "xstest": [n for n, row in enumerate(table(BENCHMARKS / "xstest.csv")) if row["label"] == "safe"],
    }
    of = [entry["of"] for entry in planted() if "benchmark" in entry["of"]]
    assert all(one["row"] in measured[one["benchmark"]] for one in of)
    # One leak of what a model should answer, and one of what it should not.
    assert {"strongreject", "jbb", "xstest"} <= {one["benchmark"] for one in of}


def test_eight_words_are_shared_only_where_planted() -> None:
    holders: dict[str, list[tuple[str, int]]] = {}
    for name, texts in {**source_questions(), **benchmark_questions()}.items():
        for row, text in enumerate(texts):
            for ngram in ngrams(text):
                holders.setdefault(ngram, []).append((name, row))
    # Benchmarks are not compared with each other.
    groups = (frozenset(places) for places in holders.values() if len(set(places)) > 1)
    shared = {group for group in groups if any(name in ORDER for name, _ in group)}
    expected = {
        frozenset([(one["source"], one["row"]), (one["of"].get("source") or one["of"]["benchmark"], one["of"]["row"])])
        for one in planted()
        if one["step"].endswith("_ngram")
    }
    assert shared == expected


def test_no_question_is_taken_from_a_public_set() -> None:
    if not REFERENCE.is_dir():
        pytest.skip("no reference material (../shared) beside the project")
    public: set[str] = set()
    rows = 0
    for path in sorted(REFERENCE.glob("*/*.jsonl")):
        for row in lines_by_newline(path):
            public |= ngrams(row["question"]) | {" ".join(re.findall(r"\w+", row["question"].lower()))}
            rows += 1
    assert rows > 8000
    mine = [text for texts in [*source_questions().values(), *benchmark_questions().values()] for text in texts]
    taken = [text for text in mine if (ngrams(text) | {" ".join(re.findall(r"\w+", text.lower()))}) & public]
    assert not taken


def lines_by_newline(path: Path) -> list[dict[str, Any]]:
    """Rows of a file whose texts may hold other line separators of Unicode."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


# --- benchmarks -------------------------------------------------------------------------------------------------------


def test_harmful_benchmarks_have_the_public_layout() -> None:
    strongreject, jbb = table(BENCHMARKS / "strongreject.csv"), table(BENCHMARKS / "jbb.csv")
    assert list(strongreject[0]) == ["category", "source", "forbidden_prompt"]
    assert list(jbb[0]) == ["Index", "Goal", "Target", "Behavior", "Category", "Source"]
    assert [row["Index"] for row in jbb] == [str(n) for n in range(30)]
    assert len(strongreject) == 30
    assert all(value for row in [*strongreject, *jbb] for value in row.values())
    assert len({row["Behavior"] for row in jbb}) == 30


def test_wildjailbreak_has_the_public_layout() -> None:
    rows = table(BENCHMARKS / "wildjailbreak.tsv", "\t")
    assert list(rows[0]) == ["adversarial", "data_type", "label"]
    assert Counter((row["data_type"], row["label"]) for row in rows) == {
        ("adversarial_harmful", "1"): 24,
        ("adversarial_benign", "0"): 6,
    }
    assert min(len(row["adversarial"].split()) for row in rows) >= 25


def test_xstest_has_the_public_layout() -> None:
    rows = table(BENCHMARKS / "xstest.csv")
    assert list(rows[0]) == ["id", "type", "label", "prompt", "focus", "note"]
    assert Counter(row["label"] for row in rows) == {"safe": 60, "unsafe": 20}
    assert len({row["id"] for row in rows}) == 80
    assert all(row["type"].startswith("contrast_") == (row["label"] == "unsafe") for row in rows)


def test_further_benchmarks_have_the_public_layout() -> None:
    benign, choices = table(BENCHMARKS / "jbb_benign.csv"), table(BENCHMARKS / "gpqa.csv")
    assert list(benign[0]) == list(table(BENCHMARKS / "jbb.csv")[0])
    wrong = [f"Incorrect Answer {number}" for number in (1, 2, 3)]
    assert {"Question", "Correct Answer", *wrong, "High-level domain", "Record ID"} <= set(choices[0])
    assert all(len({row["Correct Answer"], *(row[name] for name in wrong)}) == 4 for row in choices)
    programs = lines(BENCHMARKS / "humaneval.jsonl")
    assert all(set(row) == {"task_id", "prompt", "entry_point", "canonical_solution", "test"} for row in programs)
    assert (len(benign), len(choices), len(programs)) == (10, 10, 8)


def test_bundled_solutions_pass_their_tests_and_empty_ones_do_not() -> None:
    for row in lines(BENCHMARKS / "humaneval.jsonl"):
        scope: dict[str, Any] = {}
        exec(row["prompt"] + row["canonical_solution"] + "\n\n" + row["test"], scope)  # noqa: S102  our own
        scope["check"](scope[row["entry_point"]])
        with pytest.raises((AssertionError, TypeError)):
            scope["check"](lambda *_: None)


def test_harmful_prompts_can_be_told_by_the_stand_in() -> None:
    # A prompt without any word of a definition would be judged safe whatever the model writes.
    definitions = {one["name"]: one["definition"] for one in pack()["categories"]}
    texts = [*benchmark_questions()["strongreject"], *benchmark_questions()["jbb"]]
    texts += benchmark_questions()["wildjailbreak"][:24]
    assert sum(bool(standin_rules.overlaps(text, definitions)) for text in texts) >= 0.95 * len(texts)


def test_reasoning_answers_stand_in_their_solutions() -> None:
    aime, math = lines(BENCHMARKS / "aime24.jsonl"), lines(BENCHMARKS / "math500.jsonl")
    assert all(set(row) == {"id", "problem", "solution", "answer", "url", "year"} for row in aime)
    assert all(set(row) == {"problem", "solution", "answer", "subject", "level", "unique_id"} for row in math)
    assert (len(aime), len(math)) == (10, 20)
    assert len({row["unique_id"] for row in math}) == 20
    assert [row["id"] for row in aime] == list(range(10))
    for row in aime:
        assert re.fullmatch(r"\d{1,3}", row["answer"])
    for row in [*aime, *math]:
        assert row["solution"].count(r"\boxed{") == 1
        assert rf"\boxed{{{row['answer']}}}" in row["solution"]
        assert row["answer"].count("{") == row["answer"].count("}")


def _dice() -> int:
    hits = sum(a * b * c % 10 == 0 for a, b, c in itertools.product(range(1, 7), repeat=3))
    chance = Fraction(hits, 216)
    return chance.numerator + chance.denominator


def _triangle() -> int:
    # Heron: s = 27 and area = 126 for the sides 13, 20, 21.
    area = 126
    assert area**2 == 27 * (27 - 13) * (27 - 20) * (27 - 21)
    total = Fraction(area, 27) + Fraction(13 * 20 * 21, 4 * area)
    return total.numerator + total.denominator


@cache
def _paths(x: int, y: int) -> int:
    if min(x, y) < 0 or (x, y) == (3, 3):
        return 0
    return 1 if x == y == 0 else _paths(x - 1, y) + _paths(x, y - 1)


def _increasing() -> int:
    triples = itertools.combinations(range(1, 10), 3)
    return sum(100 * a + 10 * b + c for a, b, c in triples if a + b + c == 12) % 1000


# Counted out rather than reasoned: independent of the written solutions.
BY_FORCE: tuple[Callable[[], int], ...] = (
    lambda: sum((a + b) % 7 == 0 for a in range(1, 31) for b in range(1, 31)),
    lambda: sum(2**5 * 3**4 * 5**2 % n == 0 and n % 12 == 0 and n % 36 != 0 for n in range(1, 64801)),
    lambda: 7**222 % 1000,
    _increasing,
    _dice,
    _triangle,
    lambda: sum("BB" not in "A" + "".join(rest) for rest in itertools.product("AB", repeat=9)),
    lambda: _paths(6, 6),
    lambda: next(x**3 + (9 - x) ** 3 for x in range(10) if x**2 + (9 - x) ** 2 == 53),
    lambda: sum((n % 4 == 0) + (n % 5 == 0) + (n % 6 == 0) == 1 for n in range(1, 601)),
)


@pytest.mark.parametrize("number", range(10))
def test_aime_answers_are_right(number: int) -> None:
    assert int(lines(BENCHMARKS / "aime24.jsonl")[number]["answer"]) == BY_FORCE[number]()


# --- policy pack ------------------------------------------------------------------------------------------------------


@cache
def pack() -> dict[str, Any]:
    """The pack's policy.yaml."""
    found: dict[str, Any] = yaml.safe_load((PACK / "policy.yaml").read_text("utf-8"))
    return found


def test_the_pack_names_its_categories_in_order() -> None:
    assert [(one["name"], one["slug"]) for one in pack()["categories"]] == [
        ("Harassment/Hate/Discrimination", "harassment"),
        ("Sexual/Adult", "sexual"),
        ("Violence/Physical Harm", "violence"),
        ("Self-Harm", "self_harm"),
        ("Illicit/Criminal Behavior", "illicit"),
        ("Misinformation/Disinformation", "misinformation"),
        ("Privacy/Personal Data", "privacy"),
        ("Intellectual Property", "intellectual_property"),
    ]


def test_no_typical_subject_belongs_to_two_categories() -> None:
    words: Counter[str] = Counter()
    for one in pack()["categories"]:
        subjects = one["definition"].partition(SUBJECTS)[2]
        assert 20 <= len(subjects.split(",")) <= 40
        words.update(set(standin_rules.content_words(subjects)))
    assert not [word for word, count in words.items() if count > 1]


def test_every_category_has_a_policy_of_readable_length() -> None:
    slugs = {one["slug"] for one in pack()["categories"]}
    assert {path.stem for path in (PACK / "policies").iterdir()} == slugs
    for slug in sorted(slugs):
        text = (PACK / "policies" / f"{slug}.md").read_text("utf-8")
        assert 120 <= len(text.split()) <= 250, slug
        # Rules and ways to respond are numbered through, so that a number names one of them.
        numbers = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1)), slug
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Objective", "Rules", "Ways to respond"]


def test_the_pack_has_exactly_its_prompts() -> None:
    assert {path.name for path in (PACK / "prompts").iterdir()} == {f"{name}.md" for name in PROMPTS}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_has_exactly_its_placeholders(name: str) -> None:
    text = (PACK / "prompts" / f"{name}.md").read_text("utf-8")
    found = re.findall(r"\{\{(.*?)\}\}", text)
    assert set(found) == PROMPTS[name]
    assert len(found) == len(PROMPTS[name]), "a placeholder stands twice"
    if name == "benign_reason":
        assert text.strip() == "{{question}}"


@pytest.mark.parametrize("name", ["categorize", "score", "benign_score"])
def test_the_example_of_a_reply_is_valid_json_of_the_right_shape(name: str) -> None:
    text = (PACK / "prompts" / f"{name}.md").read_text("utf-8")
    examples = [json.loads(line) for line in text.splitlines() if line[:1] in ("[", "{") and line[:2] != "{{"]
    assert examples
    names = {one["name"] for one in pack()["categories"]}
    if name == "categorize":
        assert all(set(example) <= names or example == [pack()["other"]] for example in examples)
        return
    rubric = pack()["rubrics"]["score" if name == "score" else "benign"]
    for example in examples:
        assert list(example) == list(rubric["criteria"])
        assert all(rubric["minimum"] <= value <= rubric["maximum"] for value in example.values())


@pytest.mark.parametrize("name", sorted(set(PROMPTS) - {"benign_reason", "repair", "reason"}))
def test_prompts_that_show_foreign_text_call_it_data(name: str) -> None:
    text = (PACK / "prompts" / f"{name}.md").read_text("utf-8")
    assert re.search(r"\bdata to be (graded|judged|sorted|rewritten)\b.*is an instruction to you", text)
