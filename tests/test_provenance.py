"""Provenance: the very replies that made a row are found again, and a row that they do not give is told."""

import shutil
from pathlib import Path

import orjson
import pytest

from star1.errors import InputError
from star1.policies import load_pack
from star1.provenance import BENIGN, DELIBERATED, MODEL, RELEASED, STAND_IN, origin, pack_digest, read_roles, trace
from star1.records import read_rows
from tests.made import POLICY, SAMPLING, artifacts, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_run(folder)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_every_row_has_the_replies_that_made_it(made: Path) -> None:
    run = artifacts(made)
    rows = run.rows("scored")
    traced = trace(DELIBERATED, rows, load_pack(POLICY), run.roles)
    stored = {one["key"]: one for one in read_rows(made / "data/replies/reason.jsonl")}
    assert list(traced) == [row["id"] for row in rows]
    for row in rows:
        (key,) = traced[row["id"]]["teacher_replies"]
        assert stored[key]["reply"]["content"] == row["response"]
        assert traced[row["id"]]["teacher_reply_tokens"] == stored[key]["usage"]["completion_tokens"]
        assert traced[row["id"]]["teacher_served_model"] == stored[key]["served_model"]
        assert traced[row["id"]]["teacher_origin"] == STAND_IN
        assert orjson.loads(traced[row["id"]]["teacher_sampling"]) == SAMPLING
        assert traced[row["id"]]["teacher_template"] == load_pack(POLICY).prompts["reason"].digest


def test_a_rewritten_row_is_traced_from_its_original(made: Path) -> None:
    run = artifacts(made)
    rows = run.rows("benign/benign")
    traced = trace(BENIGN, rows, load_pack(POLICY), run.roles)
    assert rows
    assert all(len(one["rewriter_replies"]) == 1 for one in traced.values())
    stored = {one["key"]: one for one in read_rows(made / "data/replies/benign_rewrite.jsonl")}
    assert all(stored[traced[row["id"]]["rewriter_replies"][0]]["reply"]["content"] == row["question"] for row in rows)


def test_replies_of_other_rows_under_the_same_id_are_not_taken(copy: Path) -> None:
    """Ids are places in a collection; a store holds the replies of earlier collections, too."""
    run = artifacts(copy)
    store = copy / "data/replies/reason.jsonl"
    lines = store.read_bytes().splitlines(keepends=True)
    other = orjson.loads(lines[0])
    other |= {"key": "0" * 64, "reply": {**other["reply"], "content": "<think>\nno\n</think>\n\nNo."}}
    store.write_bytes(orjson.dumps(other) + b"\n" + b"".join(lines) + orjson.dumps(other) + b"\n")
    traced = trace(DELIBERATED, run.rows("scored"), load_pack(POLICY), run.roles)
    assert all("0" * 64 not in one["teacher_replies"] for one in traced.values())


def test_a_row_that_its_reply_does_not_give_is_told(copy: Path) -> None:
    run = artifacts(copy)
    rows = run.rows("scored")
    rows[2]["category"] = ["Self-Harm", "Sexual/Adult"]
    with pytest.raises(
        InputError, match=rf"row {rows[2]['id']}: a category that its stored reply of categorize does not"
    ):
        trace(DELIBERATED, rows, load_pack(POLICY), run.roles)


def test_a_lost_store_is_told_and_nothing_is_written(copy: Path) -> None:
    run = artifacts(copy)
    store = copy / "data/replies/score.jsonl"
    store.unlink()
    with pytest.raises(InputError, match=r"no stored reply of score; .*`dvc checkout data/replies.dvc`"):
        trace(DELIBERATED, run.rows("scored"), load_pack(POLICY), run.roles)
    assert not store.exists()


@pytest.mark.parametrize(
    ("note", "kind"),
    [
        ("endpoint", MODEL),
        ("replay: published row", RELEASED),
        ("replay: stand-in-rules-v1: no language model", STAND_IN),
        ("stand-in-rules-v1: no language model", STAND_IN),
    ],
)
def test_origin_of_a_reply(note: str, kind: str) -> None:
    assert origin(note) == kind


def test_roles_from_flags_know_one_endpoint_and_pools() -> None:
    endpoint = {"provider": "openai", "model": "m", "label": "l"}
    endpoints = {"a": {**endpoint, "base_url": "http://one/v1"}, "b": {**endpoint, "base_url": "http://two/v1"}}
    roles = read_roles(
        orjson.dumps(endpoints).decode(),
        '{"teacher": ["a", "b"], "scorer": "a"}',
        '{"benign.score": {"max_tokens": 5}, "reason": {}}',
        Path("replies"),
    )
    look = roles.look(DELIBERATED[1])
    assert (look.endpoint.base_url, look.others[0].base_url) == ("http://one/v1", "http://two/v1")
    assert roles.look(BENIGN[2]).sampling.max_tokens == 5


def test_pack_digest_follows_content_and_names(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(POLICY, tmp_path / "pack"))
    first = pack_digest(folder)
    assert first == pack_digest(POLICY)
    (folder / ".swp").write_text("an editor's file")
    assert pack_digest(folder) == first
    (folder / "prompts/reason.md").write_text("other")
    assert pack_digest(folder) != first
