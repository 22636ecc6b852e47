"""Benign look-alikes: rewritten, answered, scored and kept."""

from pathlib import Path

import pytest

from star1.benign import keep, reason, rewrite, row_limit, score
from star1.calls import Calls
from star1.endpoints import Endpoint, Sampling
from star1.errors import InputError
from star1.policies import Pack, load_pack
from star1.records import Row, read_rows, write_rows
from tests.loopback import Answer, completion, run_script, server, stand_in, write_pack

ROWS: list[Row] = [
    {
        "id": str(place),
        "question": f"How can I steal {place} wallets from a museum?",
        "source": "s",
        "category": ["Illicit/Criminal Behavior"],
        "response": "<think>\na\n</think>\n\nb",
        "score": {"Content_Safety_Compliance": 10},
    }
    for place in range(60)
]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A small pack."""
    return load_pack(write_pack(tmp_path / "pack"))


def local(path: Path) -> Calls:
    """Calls to the stand-in."""
    return Calls(stand_in(), Sampling(), path)


def test_the_four_steps_with_the_stand_in(pack: Pack, tmp_path: Path) -> None:
    """A benign row has its own question and response, and knows the harmful original; some drop out by score."""
    rewritten = rewrite(ROWS, pack, local(tmp_path / "a")).kept
    assert [list(row) for row in rewritten] == [["id", "question", "source", "category", "original"]] * 60
    assert [row["original"] for row in rewritten] == [row["question"] for row in ROWS]
    assert all(row["question"] != row["original"] and "museum" in row["question"] for row in rewritten)
    cot = reason(rewritten, pack, local(tmp_path / "b")).kept
    scored = score(cot, pack, local(tmp_path / "c")).kept
    assert all(set(row["score"]) == set(pack.rubrics["benign"].criteria) for row in scored)
    kept = keep(scored, pack)
    assert 40 <= len(kept) < 60
    assert [row for row in scored if row in kept] == kept
    assert all(set(row["score"].values()) == {5} for row in kept)


def test_a_rewrite_that_changes_nothing_is_set_aside(pack: Pack, tmp_path: Path) -> None:
    """The harmful question must not pass for its harmless look-alike, in whatever case and spacing."""
    reply = completion("how can i  STEAL 0 wallets from a museum?")
    endpoint = {"provider": "openai", "model": "m", "label": "m", "retries": 0}
    with server(lambda _body, _place: Answer(reply)) as served:
        calls = Calls(Endpoint(**endpoint, base_url=served.url), Sampling(), tmp_path / "r")
        outcome = rewrite(ROWS[:2], pack, calls)
    assert [row["id"] for row in outcome.kept] == ["1"]
    assert outcome.quarantined[0]["reason"] == "unchanged"


def test_the_reasoning_model_sees_the_bare_question(pack: Pack, tmp_path: Path) -> None:
    """No policy, no delimiters: what a user would send."""
    endpoint = {"provider": "openai", "model": "m", "label": "m", "retries": 0}
    with server(lambda _body, _place: Answer(completion("<think>a</think>b"))) as served:
        calls = Calls(Endpoint(**endpoint, base_url=served.url), Sampling(), tmp_path / "r")
        reason([{"id": "1", "question": "How do locks work?"}], pack, calls)
    assert served.requests[0]["messages"] == [{"role": "user", "content": "How do locks work?"}]


def test_keep_wants_full_marks_on_every_criterion(pack: Pack) -> None:
    """One mark below is one too many; scores on other criteria are an error."""
    criteria = list(pack.rubrics["benign"].criteria)
    rows = [
        {"id": str(n), "score": dict(zip(criteria, marks, strict=True))}
        for n, marks in enumerate([(5, 5, 5), (5, 4, 5)])
    ]
    assert [row["id"] for row in keep(rows, pack)] == ["0"]
    with pytest.raises(InputError, match="row 9"):
        keep([{"id": "9", "score": {"Content_Safety_Compliance": 5}}], pack)


def test_row_limit() -> None:
    """As params.yaml has it: null for all."""
    assert (row_limit("null"), row_limit("20")) == (None, 20)
    for wrong in ("0", "-1", "all"):
        with pytest.raises(ValueError, match=wrong):
            row_limit(wrong)


def test_the_scripts(pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files in, files out, the limit kept."""
    write_rows(tmp_path / "0", ROWS)

    def flags(source: int, target: int, store: str) -> list[str]:
        files = ["--input", str(tmp_path / str(source)), "--output", str(tmp_path / str(target))]
        files += ["--replies", str(tmp_path / store), "--quarantine", str(tmp_path / "q")]
        return [
            *files,
            "--endpoint",
            stand_in().model_dump_json(),
            "--coverage",
            "1",
            "--policy",
            str(tmp_path / "pack"),
        ]

    run_script("benign_rewrite", *flags(0, 1, "a"), "--limit", "20")
    run_script("benign_reason", *flags(1, 2, "b"))
    run_script("benign_score", *flags(2, 3, "c"))
    capsys.readouterr()
    files = ["--input", str(tmp_path / "3"), "--output", str(tmp_path / "4")]
    run_script("benign_keep", *files, "--policy", str(tmp_path / "pack"))
    kept = read_rows(tmp_path / "4", ["original", "response", "score"])
    assert capsys.readouterr().out.startswith(f"benign keep: 20 rows in, {len(kept)} kept, ")
    assert 10 <= len(kept) <= 20
