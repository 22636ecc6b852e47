"""The model calls behind a row: the stage's own code says what is asked, and the store what was answered.

A request's key is made from its text, its template and its settings. A stored reply under that key is therefore one to
this very prompt, policies and settings included; ids, which another collection gives to other rows, prove nothing.
"""

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from star1 import benign, deliberation, tags
from star1.actuals import Actuals
from star1.calls import Calls, Outcome
from star1.judge_settings import Judge
from star1.judges import Benchmark, judge
from star1.llm import Client, Request
from star1.parsing import NoReplyError
from star1.passport.finding import lines_with, needle, parsed
from star1.policies import Pack
from star1.records import Row
from star1.replies import Reply, Store
from star1.segments import Block, segments

# The stages that ask about training rows, and the field that they add.
STAGES: Mapping[str, tuple[str, Callable[[Sequence[Row], Pack, Calls], Outcome]]] = {
    "categorize": ("category", deliberation.categorize),
    "reason": ("response", deliberation.reason),
    "score": ("score", deliberation.score),
    "benign_rewrite": ("question", benign.rewrite),
    "benign_reason": ("response", benign.reason),
    "benign_score": ("score", benign.score),
}


def stored(path: Path, name: str, value: str) -> list[Row]:
    """The records of a store whose `name` (key or item) is `value`, in order, each once."""
    wanted = needle(name, value)
    lines: dict[bytes, None] = {}
    for segment in segments(path):
        for block in tags.find(segment, name, value):
            lines |= {line: None for line in _unzipped(block).splitlines() if wanted in line}
    lines |= dict.fromkeys(lines_with(path, wanted))
    return [record for record in map(parsed, lines) if record.get(name) == value]


def _unzipped(block: Block) -> bytes:
    """A block's lines; none where it is damaged, as in a run (`star1 ledger verify` tells of it)."""
    try:
        return block.read()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return b""


@dataclass(frozen=True)
class Asked:
    """One request, and what the store has for it.

    Attributes:
        key: the request's.
        request: what is asked.
        records: those under its key, in order.
        others: where none of them has a reply, those of the same row under other keys.
    """

    key: str
    request: Request
    records: list[Row]
    others: list[Row]

    @property
    def answer(self) -> Row | None:
        """The record whose reply a run would be given."""
        return next(filter(_reply, reversed(self.records)), None)


def _reply(record: Row) -> bool:
    return isinstance(record.get("reply"), dict)


class Looking(Store):
    """A store that is looked up in place; nothing is opened, made or changed."""

    def __init__(self, path: Path) -> None:
        self.path, self.bad_lines, self.actuals = path, 0, Actuals()

    def close(self) -> None:
        """Nothing is open."""


class Tracing(Client):
    """Answers from the store alone, and remembers what was asked."""

    asks = False

    def __init__(self, calls: "Trace", store: Store) -> None:
        # Who only reads needs no key, and spends nothing.
        super().__init__(calls.endpoint.model_copy(update={"key": None, "max_usd": None}), calls.sampling, store)
        self.trail = calls.trail

    async def ask(self, request: Request) -> Reply:
        """The stored reply.

        Raises:
            NoReplyError: there is none.
        """
        key = self.key(request)
        records = stored(self.store.path, "key", key)
        others = [] if any(map(_reply, records)) else stored(self.store.path, "item", request.item)
        asked = Asked(key, request, records, [one for one in others if one.get("role") == request.role])
        self.trail.append(asked)
        if asked.answer is None:
            raise NoReplyError("not stored", "no reply under this key")
        return Reply(**asked.answer["reply"], note=str(asked.answer.get("note", "")))


@dataclass(frozen=True)
class Trace(Calls):
    """Calls of a stage that are followed back.

    Attributes:
        trail: the requests, in the order in which the stage makes them.
    """

    trail: list[Asked] = field(default_factory=list)

    def store(self) -> Store:
        """The stage's store, only to be looked up in."""
        return Looking(self.replies)

    def client(self, store: Store) -> Client:
        """Who looks up."""
        return Tracing(self, store)


@dataclass(frozen=True)
class Found:
    """What a stage's code makes of the stored replies for one row.

    Attributes:
        value: what it reads; None where it gets none.
        reason: why it gets none.
        trail: the requests.
        sampling: decoding settings that are sent.
    """

    value: Any
    reason: str
    trail: list[Asked]
    sampling: Mapping[str, Any]

    @cached_property
    def complete(self) -> bool:
        """Whether every request that this takes has its reply in the store."""
        return all(one.answer is not None for one in self.trail)


def asked(stage: str, row: Row, pack: Pack, trace: Trace) -> Found:
    """Follow what a stage asks about one of its rows."""
    name, follow = STAGES[stage]
    return _found(name, follow([row], pack, trace), trace)


def asked_of_judge(who: str, how: Judge, benchmark: str, test: Row, generation: Row, pack: Pack, trace: Trace) -> Found:
    """Follow what a judge was asked about one answer."""
    one = Benchmark(benchmark, str(test["purpose"]), {str(test["id"]): test}, [generation])
    return _found("verdict", judge(who, how, [one], pack, trace), trace)


def _found(name: str, outcome: Outcome, trace: Trace) -> Found:
    sampling = trace.sampling.sent()
    if outcome.kept:
        return Found(outcome.kept[0][name], "", trace.trail, sampling)
    reason = outcome.quarantined[0]["reason"] if outcome.quarantined else "nothing to ask"
    return Found(None, reason, trace.trail, sampling)
