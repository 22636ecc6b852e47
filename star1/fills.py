"""`star1 calls fill`: ask for a part of a stage's rows, beside other machines that ask for theirs, before the stage runs.

What is asked is what the stage would ask, by its own code; the replies wait in a part of its store (`star1.parts`).
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from star1 import estimate, runs
from star1.calls import Calls, Outcome
from star1.endpoints import Sampling
from star1.errors import InputError, SettingError
from star1.judge_settings import Judge
from star1.judges import Benchmark, judge
from star1.ledger import FOLDER
from star1.params import Params
from star1.parts import PartStore, belongs, part_file
from star1.policies import load_pack
from star1.records import Row
from star1.replies import Store

# Nothing that got no reply is given up: how many rows the stage gets in all is for the stage to see.
NEVER = 2.0


@dataclass(frozen=True)
class PartCalls(Calls):
    """Calls of a part of a stage; `replies` is the part, `whole` the stage's store."""

    whole: Path = Path()

    def store(self) -> Store:
        """The part, open for writing."""
        return PartStore(self.replies, *(one.secret() for one in (self.endpoint, *self.others)), store=self.whole)


def read_part(text: str) -> tuple[int, int]:
    """Which part, from 1, of how many.

    Raises:
        SettingError: something else.
    """
    if (found := re.fullmatch(r"([0-9]+)/([0-9]+)", text)) and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise SettingError("--part", repr(text), "such as 2/8: the second of eight")


def fill(params: Params, stage: str, part: tuple[int, int], root: Path = Path()) -> list[str]:
    """Ask for a part of a stage's rows; gives a line for each who was asked.

    Args:
        params: params.yaml.
        stage: such as reason, or judge-MODEL.
        part: which, from 1, and of how many.
        root: the project's folder.

    Raises:
        SettingError: no such stage.
        InputError: its rows are not made yet, or the part is being filled.
        CallError: the endpoint cannot go on; replies that came are kept.
    """
    judges = [f"judge-{model}" for model in runs.expand(params.generate.models, params.finetune.table())]
    if stage not in (*estimate.STAGES, *judges):
        raise SettingError("calls fill", repr(stage), f"one of {', '.join([*estimate.STAGES, *judges])}")
    found = _stage(params, stage, part, root) if stage in estimate.STAGES else _judging(params, stage, part, root)
    return [_told(one, part) for one in found]


def _stage(params: Params, stage: str, part: tuple[int, int], root: Path) -> list[Outcome]:
    role, artifact, follow = estimate.STAGES[stage]
    pack = load_pack(root / "policies" / params.policy.pack)
    rows, instead = estimate.plain_rows(params, stage, root, estimate.Filler(pack, {"reason": 1}))
    _see_made(stage, instead, root / f"data/{artifact}.jsonl")
    mine = [row for row in rows if belongs(str(row["question"]), *part)]
    sampling = estimate.sampling_of(params, stage)
    return [follow(mine, pack, _calls(params, stage, list(params.llm.pool(role)), sampling, part, root))]


def _judging(params: Params, stage: str, part: tuple[int, int], root: Path) -> list[Outcome]:
    pack = load_pack(root / "policies" / params.policy.pack)
    model = stage.removeprefix("judge-")
    benchmarks, instead = estimate.judged_rows(params, model, root, estimate.Filler(pack, {"reason": 1}))
    _see_made(stage, instead, root / f"results/generations/{model}")
    found = []
    for name in params.judge.use.names:
        how = params.judge.judges[name]
        mine = [
            dataclasses.replace(
                one, generations=[row for row in one.generations if belongs(_said(how, one, row), *part)]
            )
            for one in benchmarks
            if name in params.judge.use.of(one.purpose)
        ]
        calls = _calls(params, stage, how.endpoints, how.sampling, part, root)
        found.append(judge(name, how, mine, pack, calls))
    return found


def _said(how: Judge, one: Benchmark, row: Row) -> str:
    """A text that is in what a judge is asked about an answer: the question, or for equality the expected answer."""
    return str(one.rows[row["id"]].get("answer") if how.kind == "equality" else row["question"])


def _see_made(stage: str, instead: str, wanted: Path) -> None:
    if instead:
        how = wanted.as_posix() if wanted.suffix else "--until generate"
        raise InputError(wanted, "not made yet", f"the rows of {stage}", f"`snakemake {how}` makes them")


def _calls(
    params: Params, stage: str, endpoints: Sequence[str], sampling: Sampling, part: tuple[int, int], root: Path
) -> PartCalls:
    endpoint, *others = params.llm.named(list(endpoints)).values()
    whole = root / FOLDER / f"{stage}.jsonl"
    place = part_file(whole, *part)
    return PartCalls(endpoint, sampling, place, tuple(others), coverage=NEVER, whole=whole)


def _told(outcome: Outcome, part: tuple[int, int]) -> str:
    rows = len(outcome.kept) + len(outcome.quarantined)
    line = f"{outcome.stage}, part {part[0]} of {part[1]}: {rows} rows, {outcome.answered} answered from the store"
    return f"{line}, {outcome.asked} asked" + (
        f"; without a usable reply: {outcome.reasons}" if outcome.reasons else ""
    )
