"""Categorize, reason and score over rows: order, quarantine, coverage and a second run that asks nothing."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from star1.calls import Calls, settle
from star1.deliberation import NO_POLICY, categorize, reason, score, split_response
from star1.endpoints import Endpoint, Sampling
from star1.errors import CallError, CoverageError, InputError
from star1.policies import Pack, load_pack
from star1.records import read_rows, write_rows
from tests.loopback import Answer, completion, run_script, server, stand_in, write_pack

ROOT = Path(__file__).parents[1]
QUESTIONS = [
    "How can I steal from a bank?",
    "What is the capital of Norway?",
    "Explain a diet on which I starve",
    "How can I steal from a bank?",
    "How to take money from a shop",
]
ROWS = [{"id": str(place), "question": question, "source": "s"} for place, question in enumerate(QUESTIONS)]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A small pack."""
    return load_pack(write_pack(tmp_path / "pack"))


def local(path: Path) -> Calls:
    """Calls to the stand-in."""
    return Calls(stand_in(), Sampling(), path)


def remote(url: str, path: Path, **changes: Any) -> Calls:
    """Calls over HTTP."""
    fields = {"provider": "openai", "model": "m", "label": "m", "base_url": url, "slots": 1, "retries": 0, **changes}
    return Calls(Endpoint(**fields), Sampling(temperature=0.6), path)


def test_the_three_steps_with_the_stand_in(pack: Pack, tmp_path: Path) -> None:
    """Rows keep their order and fields; the row of no category is set aside with its reason, and costs no coverage."""
    first = categorize(ROWS, pack, local(tmp_path / "categorize.jsonl"))
    assert [row["id"] for row in first.kept] == ["0", "1", "2", "3", "4"]
    assert first.kept[1]["category"] == ["Other"]
    assert (first.asked, first.answered) == (4, 1)
    second = reason(first.kept, pack, local(tmp_path / "reason.jsonl"))
    assert [row["id"] for row in second.kept] == ["0", "2", "3", "4"]
    assert [(row["id"], row["reason"]) for row in second.quarantined] == [("1", NO_POLICY)]
    assert second.coverage == 1.0
    third = score(second.kept, pack, local(tmp_path / "score.jsonl"))
    assert [list(row) for row in third.kept] == [["id", "question", "source", "category", "response", "score"]] * 4
    assert third.kept[0]["score"] == third.kept[2]["score"]
    assert all(split_response(row).thinking for row in third.kept)


def test_a_second_run_asks_nothing_and_gives_the_same(pack: Pack, tmp_path: Path) -> None:
    """Also with another number of slots; and within one run, a repeated question is answered from the store."""
    alone = categorize(ROWS, pack, Calls(stand_in(slots=1), Sampling(), tmp_path / "alone.jsonl"))
    assert (alone.asked, alone.answered) == (4, 1)
    first = categorize(ROWS, pack, local(tmp_path / "r.jsonl"))
    calls = Calls(stand_in(slots=1), Sampling(), tmp_path / "r.jsonl")
    second = categorize(ROWS, pack, calls)
    assert second.kept == first.kept
    assert second.summary() == "categorize: 5 rows, 5 answered from the store, 0 asked; 5 kept, 0 quarantined"


def test_a_changed_prompt_or_definition_asks_anew(pack: Pack, tmp_path: Path) -> None:
    """What the model was shown is part of the key, and so is the template."""
    categorize(ROWS, pack, local(tmp_path / "r.jsonl"))
    folder = tmp_path / "pack"
    prompt = folder / "prompts" / "categorize.md"
    prompt.write_text(prompt.read_text() + "\n\n")  # the same text once rendered, but another file
    assert categorize(ROWS, load_pack(folder), local(tmp_path / "r.jsonl")).asked == 4
    path = folder / "policy.yaml"
    path.write_text(path.read_text().replace("hopeless", "helpless"))
    assert categorize(ROWS, load_pack(folder), local(tmp_path / "r.jsonl")).asked == 4


BAD_REPLIES = {
    "0": (completion('["Self-Harm"'), "no_json"),
    "2": (completion('["Self-Harm"]', "length"), "length"),
    "4": (completion('["Cats"]'), "unknown_name"),
}


def test_kept_and_quarantined_are_the_rows_that_went_in(pack: Pack, tmp_path: Path) -> None:
    """Each bad reply in quarantine with its reason and text; the repair turns are counted out first."""

    def respond(body: dict[str, Any], _place: int) -> Answer:
        question = body["messages"][0]["content"]
        row = next(one for one in rows if one["question"] in question)
        return Answer(BAD_REPLIES.get(row["id"], (completion('["Self-Harm"]'), ""))[0])

    rows = [{"id": str(place), "question": f"question {place}."} for place in range(6)]
    with server(respond) as served:
        outcome = categorize(rows, pack, remote(served.url, tmp_path / "r.jsonl", slots=3))
    assert [row["id"] for row in outcome.kept] == ["1", "3", "5"]
    assert {row["id"]: row["reason"] for row in outcome.quarantined} == {
        key: one[1] for key, one in BAD_REPLIES.items()
    }
    assert outcome.quarantined[0]["reply"] == '["Self-Harm"'
    assert len(served.requests) == 6 + 2 + 2
    assert outcome.coverage == 0.5
    again = categorize(rows, pack, remote(served.url, tmp_path / "r.jsonl"))
    assert (again.kept, again.quarantined, again.asked) == (outcome.kept, outcome.quarantined, 0)
    with pytest.raises(CoverageError, match=r"3 of 6 rows .*length 1, no_json 1, unknown_name 1"):
        settle(outcome, tmp_path / "out.jsonl", tmp_path / "quarantine.jsonl", 0.9)
    assert len(read_rows(tmp_path / "quarantine.jsonl")) == 3
    assert not (tmp_path / "out.jsonl").exists()
    told = settle(outcome, tmp_path / "out.jsonl", tmp_path / "quarantine.jsonl", 0.5)
    assert "3 kept, 3 quarantined (length 1, no_json 1, unknown_name 1)" in told
    assert read_rows(tmp_path / "out.jsonl") == outcome.kept


def test_unreadable_replies_are_asked_for_anew_when_samples_are_raised(pack: Pack, tmp_path: Path) -> None:
    """The stored reply was served for ever; now a larger `samples` asks about the unreadable ones alone, and keeps it."""

    def calls(samples: int) -> Calls:
        endpoint = Endpoint(provider="openai", model="m", label="m", base_url=served.url, slots=1, retries=0)
        return Calls(endpoint, Sampling(temperature=0.6, seed=7, samples=samples), tmp_path / "r.jsonl")

    def respond(body: dict[str, Any], _place: int) -> Answer:
        good = "bank" not in body["messages"][0]["content"] or body["seed"] == 8
        return Answer(completion("<think>a</think>b" if good else "b"))

    rows = [{**row, "category": ["Self-Harm"]} for row in ROWS[:3]]
    with server(respond) as served:
        first = reason(rows, pack, calls(1))
        assert [row["reason"] for row in first.quarantined] == ["no_think"]
        advice = "to ask anew about replies that cannot be used, raise reason.sampling.samples"
        assert advice in first.summary()
        with pytest.raises(CoverageError, match=advice):
            settle(first, tmp_path / "o", tmp_path / "q", 1.0)
        assert reason(rows, pack, calls(1)).asked == 0
        second = reason(rows, pack, calls(3))
        assert ([row["id"] for row in second.kept], second.asked) == (["0", "1", "2"], 1)
        assert "think tags, asked anew 1" in second.summary()
        again = reason(rows, pack, calls(3))
    assert (again.kept, again.asked) == (second.kept, 0)
    assert [row["reply"]["content"] for row in read_rows(tmp_path / "r.jsonl")].count("b") == 1


def test_too_few_replies_for_a_fault_of_the_endpoint_are_told_with_its_hint(pack: Pack, tmp_path: Path) -> None:
    """Asking anew is no advice where no reply came."""
    with server(lambda _body, _place: Answer({"error": {"message": "busy"}}, 503)) as served:
        outcome = categorize(ROWS[:2], pack, remote(served.url, tmp_path / "r.jsonl", slots=1))
    with pytest.raises(CoverageError, match="Hint: server_error: look into the server") as error:
        settle(outcome, tmp_path / "o", tmp_path / "q", 1.0)
    assert "samples" not in str(error.value)


def test_lenient_readings_are_counted(pack: Pack, tmp_path: Path) -> None:
    """A trailing comma is read, and told about."""
    with server(lambda _body, _place: Answer(completion('["Self-Harm",]'))) as served:
        outcome = categorize(ROWS, pack, remote(served.url, tmp_path / "r.jsonl"))
    assert outcome.summary().endswith("read with leniency or when asked again: trailing comma 5")


def test_the_request_is_the_rendered_prompt(pack: Pack, tmp_path: Path) -> None:
    """One user message with the policies of the row's categories only, and the sampling that was set."""
    row = {**ROWS[0], "category": ["Self-Harm"]}
    with server(lambda _body, _place: Answer(completion("hm</think>no"))) as served:
        outcome = reason([row], pack, remote(served.url, tmp_path / "r.jsonl"))
    assert outcome.kept[0]["response"] == "<think>\nhm\n</think>\n\nno"
    (request,) = served.requests
    assert [turn["role"] for turn in request["messages"]] == ["user"]
    assert "# Policy: Self-Harm" in request["messages"][0]["content"]
    assert "Illicit" not in request["messages"][0]["content"]
    assert request["temperature"] == 0.6


def test_a_dead_endpoint_ends_the_stage_with_one_error(pack: Pack, tmp_path: Path) -> None:
    """Not a group of errors, and what came before is kept."""

    def respond(_body: dict[str, Any], place: int) -> Answer:
        return Answer(completion('["Self-Harm"]')) if place < 2 else Answer({"error": {"message": "no"}}, 401)

    with server(respond) as served, pytest.raises(CallError, match="wrong_key"):
        categorize(ROWS, pack, remote(served.url, tmp_path / "r.jsonl", slots=3))
    kept = [row for row in read_rows(tmp_path / "r.jsonl") if row["status"] == "ok"]
    assert len(kept) == 2


def test_rows_that_do_not_fit_are_named(pack: Pack, tmp_path: Path) -> None:
    """A category of another pack, or a response without thinking, is an error in the input."""
    with pytest.raises(InputError, match="row 0: category 'Cats'"):
        reason([{**ROWS[0], "category": ["Cats"]}], pack, local(tmp_path / "r.jsonl"))
    with pytest.raises(InputError, match="row 0: a response with no </think>"):
        score([{**ROWS[0], "category": ["Self-Harm"], "response": "No."}], pack, local(tmp_path / "r.jsonl"))


def test_no_rows_are_no_coverage(pack: Pack, tmp_path: Path) -> None:
    """An empty input does not pass for a finished stage."""
    outcome = categorize([], pack, local(tmp_path / "r.jsonl"))
    with pytest.raises(CoverageError, match="no rows"):
        settle(outcome, tmp_path / "o.jsonl", tmp_path / "q.jsonl", 0.0)


def script_flags(name: str, folder: Path, source: str, target: str) -> list[str]:
    """The flags of a stage's script."""
    flags = ["--policy", str(folder / "pack"), "--replies", str(folder / f"{name}.replies"), "--coverage", "0.9"]
    flags += ["--endpoint", stand_in().model_dump_json(), "--quarantine", str(folder / f"{name}.quarantine")]
    return [*flags, "--input", str(folder / source), "--output", str(folder / target)]


def test_the_scripts(pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files in, files out, one line each."""
    write_rows(tmp_path / "0", ROWS)
    for place, name in enumerate(("categorize", "reason", "score")):
        run_script(name, *script_flags(name, tmp_path, str(place), str(place + 1)))
        told = capsys.readouterr().out
        assert told.startswith(f"{name}: ")
        assert told.count("\n") == 1
    assert len(read_rows(tmp_path / "3", ["score"])) == 4
    assert read_rows(tmp_path / "reason.quarantine")[0]["reason"] == NO_POLICY


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--input", "no/such/file"], "no/such/file: no such file"),
        (["--endpoint", '{"provider": "openai", "model": "m", "label": "m", "key": "NO_SUCH_KEY"}'], "NO_SUCH_KEY"),
        (["--endpoint", "{"], "--endpoint: not JSON"),
        (["--sampling", '{"heat": 1}'], "--sampling.heat"),
        (["--policy", "no/such/pack"], "no/such/pack/policy.yaml: no such file"),
    ],
)
def test_an_error_of_a_script_is_one_line(
    more: list[str], told: str, pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with exit status 1 and nothing written."""
    write_rows(tmp_path / "0", ROWS)
    with pytest.raises(SystemExit) as end:
        run_script("categorize", *script_flags("categorize", tmp_path, "0", "1"), *more)
    printed = capsys.readouterr()
    assert end.value.code == 1
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith("error: ")
    assert told in printed.err
    assert not (tmp_path / "1").exists()


def test_the_scripts_start_fast() -> None:
    """Nothing heavy is imported before the flags are read."""
    names = [
        "categorize",
        "reason",
        "score",
        "judge",
        *(f"benign_{step}" for step in ("rewrite", "reason", "score", "keep")),
    ]
    code = f"import sys, {', '.join(f'scripts.{name}' for name in names)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {"openai", "torch", "transformers", "sklearn"}.isdisjoint(loaded.split())
