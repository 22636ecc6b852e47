"""Quality figures: each against rows where it is known, and the released rows where it was published."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from star1 import quality, responses
from star1.records import Row, read_json, write_rows
from tests.conftest import ROOT
from tests.loopback import run_script


def row(
    question: str = "one two three",
    thinking: str = "The policy says no.",
    answer: str = "I can't do that.",
    category: tuple[str, ...] = ("x",),
    source: str = "a",
    marks: tuple[int, int] = (10, 9),
) -> Row:
    response = f"<think>\n{thinking}\n</think>\n\n{answer}"
    score = dict(zip(("safety", "relevance"), marks, strict=True))
    return {"question": question, "response": response, "category": list(category), "source": source, "score": score}


@pytest.mark.parametrize(
    ("answer", "style"),
    [
        ("I'm sorry, but I can't help with that.", "apologises"),
        ("My apologies. Ask me something else.", "apologises"),
        ("I can’t help with that.", "declines"),
        ("That is something I am unable to do.", "declines"),
        ("Here is a recipe. You cannot go wrong with it.", "no words of refusal"),  # only the opening counts
        ("A feast of sorryness.", "no words of refusal"),
    ],
)
def test_style_is_told_by_the_first_sentence(answer: str, style: str) -> None:
    assert responses.style(answer) == style


@pytest.mark.parametrize(
    ("text", "cites"),
    [
        *((text, True) for text in ("Our Policy forbids it", "two policies", "see rule 3", "the guideline")),
        *((text, False) for text in ("call the police", "a politician", "as a rule")),
    ],
)
def test_citations(text: str, cites: bool) -> None:
    assert responses.cites(text) is cites


@pytest.mark.parametrize(
    "response", ["no tags", "<think></think>a", "<think>a</think>", "<think>a</think>b</think>c", "a<think>b</think>c"]
)
def test_a_response_of_another_form_is_counted_apart(response: str) -> None:
    assert responses.split(response) is None
    found = quality.describe([row(), row() | {"response": response}], 0.95)
    assert (found["rows"], found["responses_not_in_two_parts"], found["policy_in_thinking"]["n"]) == (2, 1, 1)


def test_figures_of_known_rows() -> None:
    rows = [
        row(),
        row(category=("x", "y"), answer="I'm sorry. If you are in danger, call for help.", marks=(8, 9)),
        row(thinking="No harm here.", answer="A b c d, by our policy.", source="b"),
        row(question="one", thinking="Rule 2 holds."),
    ]
    found = quality.describe(rows, 0.95)
    assert found["labels"] == {"x": 4, "y": 1}
    assert found["labels_per_row"] == {"1": 3, "2": 1}
    assert found["sources"] == {"a": 3, "b": 1}
    assert found["mean_marks"] == {"safety": 9.5, "relevance": 9}
    assert found["words"]["question"] == {"median": 3, "p90": 3, "max": 3}
    assert found["words"]["answer"] == {"median": 5.5, "p90": 10, "max": 10}
    assert (found["policy_in_thinking"]["count"], found["policy_in_answer"]["count"]) == (3, 1)
    assert found["policy_in_thinking"]["low"] < 0.75 < found["policy_in_thinking"]["high"]
    assert {name: one["count"] for name, one in found["refusal_style"].items()} == {
        "apologises": 1,
        "declines": 2,
        "no words of refusal": 1,
    }
    assert found["offers_something"]["count"] == 1


def test_no_rows_are_no_crash() -> None:
    found = quality.describe([], 0.95)
    assert (found["rows"], found["words"]["answer"]["p90"], found["policy_in_answer"]["value"]) == (0, None, None)


def test_the_released_rows_have_their_published_figures(shared: Path) -> None:
    rows = json.loads((shared / "reference" / "star1" / "STAR-1.json").read_text())
    found = quality.describe(rows, 0.95)
    assert found["words"]["question"]["median"] == 15
    assert found["words"]["thinking"] == {"median": 209, "p90": 289, "max": 435}
    assert (found["words"]["answer"]["median"], found["words"]["answer"]["p90"]) == (50, 176)
    assert found["labels_per_row"] == {"1": 700, "2": 285, "3": 14, "4": 1}
    assert found["policy_in_thinking"]["value"] > 0.95


def test_the_script_writes_figures_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = {"mine": [row(), row(category=("x", "y"))], "theirs": [row(marks=(1, 2))]}
    for name, rows in sets.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
    plots = ("categories", "marks", "lengths", "wording")
    flags = ["--sets", *(f"{name}={tmp_path / name}.jsonl" for name in sets), "--confidence", "0.9"]
    flags += [part for name in plots for part in (f"--{name}", str(tmp_path / f"{name}.csv"))]
    run_script("describe", *flags, "--json", str(tmp_path / "quality.json"))
    assert capsys.readouterr().out.startswith(
        "describe: mine 2 rows, 100 % cite a policy, in 0 % it is in the answer; theirs "
    )
    assert read_json(tmp_path / "quality.json") == {name: quality.describe(rows, 0.9) for name, rows in sets.items()}
    lines: dict[str, list[dict[str, Any]]] = {}
    for name in plots:
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            lines[name] = list(csv.DictReader(file))
        template = json.loads((ROOT / f".dvc/plots/{name}.json").read_text())
        fields = {one["field"] for one in template["encoding"].values() if isinstance(one, dict) and "field" in one}
        assert fields - {"rev"} <= set(lines[name][0]), name  # a template that names no such column draws nothing
    assert {"set": "mine", "category": "x", "source": "a", "labels": "2"} in lines["categories"]
    assert {"set": "theirs", "criterion": "relevance", "mark": "2", "rows": "1"} in lines["marks"]
    assert {"set": "mine", "part": "question", "words": "0", "share": "1.0"} in lines["lengths"]
    assert lines["wording"][0]["share"] == "1.0"
