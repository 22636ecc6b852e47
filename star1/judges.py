"""Judges: prompts and a model's answers in, verdicts out; what cannot be judged is unscored with its reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from star1.calls import Calls, Outcome, ask_rows
from star1.errors import InputError, SettingError
from star1.grading import Graded, grade
from star1.grading import label as grader_label
from star1.llm import Client, user_request
from star1.parsing import parse_guard_verdict, parse_refusal_verdict
from star1.policies import Pack
from star1.records import Row, read_rows, text_digest
from star1.sandbox import Sandbox

PURPOSES = ("harmful", "benign", "reasoning")
UNFINISHED = "unfinished thinking"
CUT_OFF = "answer cut off"
EMPTY = "empty answer"
PARSERS = {"refusal": parse_refusal_verdict, "guard": parse_guard_verdict}

Kind = Literal["refusal", "guard", "grader"]


class Prompts(BaseModel):
    """How answers are judged.

    Attributes:
        harmful: prompt of the judge for harmful prompts: refusal (full, partial or none) or guard (safe or unsafe).
        benign: the same for benign prompts.
        shown: what the judge model is shown: the answer alone, or the whole response with its thinking.
        cut_off: whether an answer that ran into the token limit is judged as far as it goes, or left unscored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    harmful: Literal["refusal", "guard"]
    benign: Literal["refusal", "guard"]
    shown: Literal["answer", "response"] = "answer"
    cut_off: Literal["unscored", "judged"] = "unscored"

    def kind(self, purpose: str) -> Kind:
        """Who judges benchmarks of a purpose: one of the judge's prompts, or for reasoning the grader."""
        return {"harmful": self.harmful, "benign": self.benign}.get(purpose, "grader")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's rows, and what a model generated for them."""

    name: str
    purpose: str
    rows: Mapping[str, Row]
    generations: Sequence[Row]


def read_benchmark(name: str, rows: str | Path, generations: str | Path) -> Benchmark:
    """Read a benchmark and its generations.

    Raises:
        InputError: a file or field is missing, rows of several purposes, or generations that are not one for each row.
    """
    known = {row["id"]: row for row in read_rows(rows, ["id", "purpose"])}
    purposes = sorted({row["purpose"] for row in known.values()})
    if len(purposes) != 1 or purposes[0] not in PURPOSES:
        raise InputError(rows, f"purposes {purposes}", "one of " + ", ".join(PURPOSES))
    generated = read_rows(generations, ["id", "question", "response", "answer", "finish_reason"])
    # A row left out here would be missing from the total, and coverage would not show it.
    counts = Counter(row["id"] for row in generated)
    if wrong := [place for place in {**known, **counts} if counts[place] != (place in known)]:
        raise InputError(generations, f"row {wrong[0]!r} {counts[wrong[0]]} times", f"each row of {rows} once")
    return Benchmark(name, purposes[0], known, generated)


def unscored(row: Row, prompts: Prompts) -> str | None:
    """Why a generation cannot be judged as it stands; None when it can."""
    if row["finish_reason"] not in ("stop", "length"):
        return f"ended by {row['finish_reason']}"  # a filter or a fault of the server: not the model's answer
    if row["answer"] is None:
        return UNFINISHED
    if not row["answer"].strip():
        return EMPTY
    return CUT_OFF if row["finish_reason"] == "length" and prompts.cut_off == "unscored" else None


def judge(benchmarks: Sequence[Benchmark], prompts: Prompts, pack: Pack, calls: Calls) -> Outcome:
    """Ask the judge model about the answers to harmful and benign prompts that can be judged.

    Returns:
        Outcome whose `kept` rows are {id: benchmark/id, verdict}; `judgements` tells about all generations.
    """
    rows = [
        {**row, "id": f"{one.name}/{row['id']}", "kind": prompts.kind(one.purpose)}
        for one in benchmarks
        if prompts.kind(one.purpose) != "grader"
        for row in one.generations
        if unscored(row, prompts) is None
    ]

    async def handle(client: Client, row: Row) -> Row:
        name = f"judge_{row['kind']}"
        values = {"question": row["question"], "response": row[prompts.shown]}
        if row["kind"] == "guard":
            values["definitions"] = pack.definitions()
        request = user_request(row["id"], name, pack.render(name, **values), pack.prompts[name].digest)
        verdict = await client.read(request, PARSERS[row["kind"]], lambda problem: pack.repair(name, problem))
        return {"id": row["id"], "verdict": verdict}

    return ask_rows("judge", rows, handle, calls)


def judgements(
    one: Benchmark, prompts: Prompts, outcome: Outcome, label: str, sandbox: Sandbox | None = None
) -> list[Row]:
    """One judgement per generation of a benchmark, order kept: a verdict, or the reason why there is none.

    Args:
        one: the benchmark.
        prompts: how it is judged.
        outcome: what the judge model said.
        label: the judge model's label.
        sandbox: how programs that the model wrote are run.

    Raises:
        InputError: a reasoning problem without what its grader needs.
        NoSandboxError: a program has to be run, and there is no sandbox.
    """
    kind = prompts.kind(one.purpose)
    found = {row["id"]: row["verdict"] for row in outcome.kept}
    failed = {row["id"]: f"judge: {row['reason']}" for row in outcome.quarantined}
    judged = []
    for row in one.generations:
        place = f"{one.name}/{row['id']}"
        reason = unscored(row, prompts) or failed.get(place)
        graded: Graded | None = None
        verdict = found.get(place)
        if kind == "grader" and not reason:
            graded = grade(one.rows[row["id"]], row["answer"], sandbox)
            verdict, reason = graded.verdict, graded.reason
        judged.append(
            {
                "id": row["id"],
                "benchmark": one.name,
                "purpose": one.purpose,
                "kind": kind,
                "verdict": verdict,
                "unscored": None if verdict else reason,
                "judge": grader_label(one.rows[row["id"]]) if kind == "grader" else label,
                "question_digest": text_digest(row["question"]),
                "response_digest": text_digest(row["response"]),
                **({"graded": {"reason": graded.reason, **graded.detail}} if graded else {}),
            }
        )
    return judged


def tally(judged: Sequence[Row]) -> str:
    """Verdicts and reasons of a benchmark with their counts."""
    counts = Counter(row["verdict"] or f"unscored: {row['unscored']}" for row in judged)
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def read_paths(flag: str, values: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Read `NAME=ROWS:GENERATIONS:JUDGEMENTS` values of a flag.

    Raises:
        SettingError: a value of another form, or a name twice.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for value in values:
        name, _, rest = value.partition("=")
        paths = rest.split(":")
        if not name or name in found or len(paths) != 3 or not all(paths):
            raise SettingError(flag, repr(value), "NAME=ROWS:GENERATIONS:JUDGEMENTS, each name once")
        found[name] = (paths[0], paths[1], paths[2])
    return found
