"""Replay: what published rows hold comes back as it stands, the rest is the stand-in's, and each reply says which."""

import json
from pathlib import Path
from typing import Any

import pytest

from star1.benign import reason as benign_reason
from star1.calls import Calls
from star1.deliberation import categorize, reason, score
from star1.endpoints import Endpoint, Sampling
from star1.errors import InputError
from star1.policies import load_pack
from star1.records import Row, read_json, read_rows, write_json, write_rows
from star1.replay import PUBLISHED, STOOD_IN, name_key, read_published
from tests.loopback import CATEGORIES, write_pack

STAR1 = Path(__file__).parents[2] / "shared" / "reference" / "star1" / "STAR-1.json"
ROW: Row = {
    "id": "7",
    "question": "How can I steal from a bank?",
    "response": "<think>\nRule 1 fits.\n</think>\n\nI can't help with that.",
    "category": ["Self-Harm", "Illicit / Criminal Behavior"],
    "source": "s",
    "score": {
        "Content_Safety_Compliance": 9,
        "Relevancy_and_No_Redundant_Content": 8,
        "Accuracy_of_Thinking_Process": 7,
    },
}


def replay(rows: Path, store: Path) -> Calls:
    """Calls that are answered from published rows."""
    endpoint = Endpoint(provider="replay", model="published", label="replay of small rows", rows=str(rows))
    return Calls(endpoint, Sampling(), store)


def test_published_rows_come_back_and_each_reply_is_marked(tmp_path: Path) -> None:
    """Categories under the pack's spelling, the response to the letter, the score; other questions by the stand-in."""
    pack = load_pack(write_pack(tmp_path / "p"))
    write_json(tmp_path / "rows.json", [ROW])
    calls = replay(tmp_path / "rows.json", tmp_path / "replies.jsonl")
    rows: list[Row] = [{"id": "1", "question": ROW["question"]}, {"id": "2", "question": "Where is the bank?"}]
    categorized = categorize(rows, pack, calls).kept
    assert categorized[0]["category"] == ["Self-Harm", "Illicit/Criminal Behavior"]
    assert categorized[1]["category"] == ["Illicit/Criminal Behavior"]
    cot = reason(categorized, pack, calls).kept
    assert cot[0]["response"] == ROW["response"]
    scored = score(cot, pack, calls).kept
    assert scored[0]["score"] == ROW["score"]
    assert benign_reason(rows, pack, calls).kept[0]["response"] == ROW["response"]
    notes = {(row["role"], row["item"]): row["note"] for row in read_rows(tmp_path / "replies.jsonl")}
    assert all(note == (PUBLISHED if item == "1" else STOOD_IN) for (_, item), note in notes.items())
    assert len(notes) == 8


def test_a_score_belongs_to_its_response(tmp_path: Path) -> None:
    """Another response to the same question is scored anew, and the reply says by whom."""
    pack = load_pack(write_pack(tmp_path / "p"))
    write_rows(tmp_path / "rows.jsonl", [ROW])
    calls = replay(tmp_path / "rows.jsonl", tmp_path / "replies.jsonl")
    row = {**ROW, "category": ["Self-Harm"], "response": "<think>\nhm\n</think>\n\nI can't help with that."}
    scored = score([row], pack, calls).kept
    assert scored[0]["score"] != ROW["score"]
    assert read_rows(tmp_path / "replies.jsonl")[0]["note"] == STOOD_IN


def test_unknown_categories_are_not_forced_into_the_pack(tmp_path: Path) -> None:
    """A published name that the pack does not have: the stand-in answers."""
    pack = load_pack(write_pack(tmp_path / "p"))
    write_json(tmp_path / "rows.json", [{**ROW, "category": ["Astrology"]}])
    calls = replay(tmp_path / "rows.json", tmp_path / "replies.jsonl")
    outcome = categorize([{"id": "1", "question": ROW["question"]}], pack, calls)
    assert outcome.kept[0]["category"] == ["Illicit/Criminal Behavior"]
    assert read_rows(tmp_path / "replies.jsonl")[0]["note"] == STOOD_IN


def test_other_rows_are_other_replies(tmp_path: Path) -> None:
    """The store does not serve the replies of one file for those of another."""
    pack = load_pack(write_pack(tmp_path / "p"))
    rows = [{"id": "1", "question": ROW["question"]}]
    for category, path in (("Self-Harm", "a.json"), ("Illicit / Criminal Behavior", "b.json")):
        write_json(tmp_path / path, [{**ROW, "category": [category]}])
        found = categorize(rows, pack, replay(tmp_path / path, tmp_path / "replies.jsonl")).kept
        assert found[0]["category"] == [name_key(category) and category.replace(" / ", "/")]


def test_another_way_to_replay_gives_other_replies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mended replay was answered from the store by the replies of the faulty one."""
    from star1 import replay as module

    write_json(tmp_path / "rows.json", [ROW])
    endpoint = replay(tmp_path / "rows.json", tmp_path / "replies.jsonl").endpoint
    before = endpoint.identity()
    changed = tmp_path / "replay.py"
    changed.write_text(Path(str(module.__file__)).read_text() + "# another way\n")
    monkeypatch.setattr(module, "__file__", str(changed))
    assert endpoint.identity() != before


@pytest.mark.parametrize(("rows", "told"), [([{"question": "q"}], "category"), (None, "no such file")])
def test_unusable_rows_are_named(rows: list[dict[str, Any]] | None, told: str, tmp_path: Path) -> None:
    """Before any call."""
    if rows is not None:
        write_json(tmp_path / "rows.json", rows)
    with pytest.raises(InputError, match=told):
        read_published(tmp_path / "rows.json")


@pytest.mark.parametrize(
    ("published", "name"),
    [("Illicit / Criminal Behavior", "Illicit/Criminal Behavior"), ("Self-Harm", "Self-Harm"), ("A /B", "A/B")],
)
def test_names_are_compared_without_blanks_around_the_slash(published: str, name: str) -> None:
    """The one difference in spelling between the published rows and a pack."""
    assert name_key(published) == name_key(name)


@pytest.mark.skipif(not STAR1.exists(), reason="the published rows are not here")
def test_the_published_dataset_is_replayed_whole(tmp_path: Path) -> None:
    """Parity: through prompts, client, store and parsers, the first 60 published rows come out as they are."""
    published = read_json(STAR1)[:60]
    names = sorted(
        {name_key(name): name.replace(" / ", "/") for row in read_json(STAR1) for name in row["category"]}.values()
    )
    assert len(names) == 8
    categories = [{**CATEGORIES[0], "name": name, "slug": f"c{place}"} for place, name in enumerate(names)]
    folder = write_pack(tmp_path / "p", categories=categories)
    for category in categories:
        (folder / "policies" / f"{category['slug']}.md").write_text("1. Be kind.\n")
    pack = load_pack(folder)
    calls = replay(STAR1, tmp_path / "replies.jsonl")
    rows = [{"id": row["id"], "question": row["question"], "source": row["source"]} for row in published]
    scored = score(reason(categorize(rows, pack, calls).kept, pack, calls).kept, pack, calls).kept
    assert {row["note"] for row in read_rows(tmp_path / "replies.jsonl")} == {PUBLISHED}
    for row, expected in zip(scored, published, strict=True):
        assert [name_key(name) for name in row["category"]] == [name_key(name) for name in expected["category"]]
        assert json.dumps(row["score"]) == json.dumps(expected["score"])
        assert row["response"] == expected["response"]
