"""A stage that asks a model about each row: its flags, its way through the rows, its gate and its summary."""

import argparse
import asyncio
import contextlib
import math
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from star1.batch_provider import ProviderClient
from star1.batch_vllm import VllmClient
from star1.endpoints import Endpoint, Sampling, read_pool, read_settings
from star1.errors import CoverageError, Star1Error, StoppedError
from star1.faults import HINTS
from star1.llm import Client
from star1.parsing import ReplyError
from star1.parts import absorb
from star1.progress import Progress
from star1.records import Row, write_json, write_rows
from star1.replies import Store
from star1.spill import Spill

# Quarantined rows of stages whose outputs are not there: they failed, or are to run again. Named as the stores are.
ASIDE = Path(".work/quarantine")


@dataclass(frozen=True)
class Calls:
    """Where a stage asks, how, and where the replies are kept.

    Attributes:
        others: endpoints that take the first one's place.
        costs: where is written what the replies cost and took; None where nobody asks.
        coverage: share of the rows kept from which on the stage is done: what got no reply is then not asked again.
    """

    endpoint: Endpoint
    sampling: Sampling
    replies: Path
    others: tuple[Endpoint, ...] = ()
    costs: Path | None = field(default=None, kw_only=True)
    coverage: float = field(default=0.0, kw_only=True)

    def store(self) -> Store:
        """The stage's store, open for writing, with what its parts hold."""
        store = Store(self.replies, *(one.secret() for one in (self.endpoint, *self.others)))
        try:
            absorb(store)
        except BaseException:
            store.close()
            raise
        return store

    def client(self, store: Store) -> Client:
        """Who asks."""
        kinds = {"provider": ProviderClient, "vllm": VllmClient}
        kind = kinds[self.endpoint.batch.kind] if self.endpoint.batch else Client
        return kind(self.endpoint, self.sampling, store, self.others)


@dataclass(frozen=True)
class Outcome:
    """What became of a stage's rows; `kept` and `quarantined` together are the rows that went in, in order.

    Attributes:
        stage: name of the stage.
        store: name of its store of replies, which for a judge has the judged model in it.
        kept: rows with their new field, on disk.
        quarantined: {id, stage, reason, detail, reply} of the rows without.
        exempt: reasons that say nothing about the model; rows with them do not count for coverage.
        asked: requests sent.
        answered: requests answered without sending.
        readings: how replies were read, by count.
        bad_lines: lines of the store that could not be read.
        costs: what the rows came to, and what their requests cost and took.
    """

    stage: str
    store: str
    kept: Sequence[Row]
    quarantined: list[Row]
    exempt: frozenset[str]
    asked: int
    answered: int
    readings: Counter[str]
    bad_lines: int
    costs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reasons(self) -> str:
        """Reasons of the quarantined rows with their counts, the most frequent first."""
        counts = Counter(row["reason"] for row in self.quarantined)
        return ", ".join(
            f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda one: (-one[1], one))
        )

    @property
    def coverage(self) -> float:
        """Share of the rows that the model could be asked about which were kept; 0 where there were none."""
        return len(self.kept) / self.asked_about if self.asked_about else 0.0

    @property
    def asked_about(self) -> int:
        """Number of rows that the model could be asked about."""
        return len(self.kept) + sum(row["reason"] not in self.exempt for row in self.quarantined)

    @property
    def advice(self) -> str:
        """What to do about the quarantined rows, the most frequent reason first; empty where there is nothing to do."""
        counts = Counter(row["reason"] for row in self.quarantined if row["reason"] not in self.exempt)
        anew = f"to ask anew about replies that cannot be used, raise {self.stage.replace(' ', '.')}.sampling.samples"
        told = (f"{reason}: {HINTS[reason]}" if reason in HINTS else anew for reason, _ in counts.most_common())
        return "; ".join(dict.fromkeys(told))

    def summary(self) -> str:
        """The stage's one line."""
        rows = len(self.kept) + len(self.quarantined)
        parts = [f"{self.stage}: {rows} rows, {self.answered} answered from the store, {self.asked} asked"]
        parts.append(f"{len(self.kept)} kept, {len(self.quarantined)} quarantined")
        if self.quarantined:
            parts[-1] += f" ({self.reasons})"
            parts += [self.advice] if self.advice else []
            if unanswered := sorted({row["reason"] for row in self.quarantined} & set(HINTS)):
                parts.append(
                    f"then `star1 calls retry --reason {' '.join(unanswered)}` has these rows asked about anew"
                )
        if loose := {how: count for how, count in sorted(self.readings.items()) if _is_loose(how)}:
            parts.append(
                "read with leniency or when asked again: " + ", ".join(f"{how} {count}" for how, count in loose.items())
            )
        if self.bad_lines:
            parts.append(f"{self.bad_lines} unreadable lines in the store of replies")
        return "; ".join(parts)


def _is_loose(how: str) -> bool:
    return any(word in how for word in ("comma", "literal", "quotes", "repair", "anew"))


def call_flags(description: str | None, single: bool = True) -> argparse.ArgumentParser:
    """The flags that all stages with model calls share; `single` adds one input, one output and one who is asked."""
    parser = argparse.ArgumentParser(description=description)
    if single:
        parser.add_argument("--input", type=Path, required=True, help="rows, JSON Lines")
        parser.add_argument("--output", type=Path, required=True, help="rows with their new field")
    parser.add_argument("--quarantine", type=Path, required=True, help="rows without a readable reply, with reasons")
    parser.add_argument("--replies", type=Path, required=True, help="the stage's store of replies; appended to")
    parser.add_argument("--costs", type=Path, help="what the replies cost and took; JSON")
    parser.add_argument("--policy", type=Path, required=True, help="folder of the policy pack")
    if single:
        parser.add_argument(
            "--endpoint", required=True, help="the model's endpoint, or several of the same by name, JSON"
        )
        parser.add_argument("--sampling", default="{}", help="decoding settings, JSON")
    else:
        parser.add_argument("--endpoints", required=True, help="the endpoints of all that are asked, by name, JSON")
    parser.add_argument("--coverage", type=float, required=True, help="smallest share of rows with a readable reply")
    return parser


def read_calls(flags: argparse.Namespace) -> Calls:
    """The stage's endpoint, sampling and store, from its flags.

    Raises:
        SettingError: a value that cannot be used.
    """
    endpoint, *others = read_pool("--endpoint", flags.endpoint)
    sampling = read_settings("--sampling", flags.sampling, Sampling)
    return Calls(endpoint, sampling, flags.replies, tuple(others), costs=flags.costs, coverage=flags.coverage)


def ask_rows(
    stage: str,
    rows: Sequence[Row],
    handle: Callable[[Client, Row], Awaitable[Row]],
    calls: Calls,
    exempt: frozenset[str] = frozenset(),
    enough: Callable[[Outcome], bool] | None = None,
) -> Outcome:
    """Give every row to `handle`, as many at a time as the endpoint has slots.

    Args:
        stage: name of the stage.
        rows: rows with an `id`.
        handle: gives the row with its new field; raises ReplyError for a row that goes to quarantine.
        calls: endpoint, sampling and store.
        exempt: reasons for quarantine that do not count for coverage.
        enough: whether the stage is done with what it has; without it, coverage of all rows together decides.

    Raises:
        CallError: the endpoint cannot go on; replies that came are kept.
        StoppedError: SIGTERM or Ctrl-C; no more rows were taken, and replies on their way were waited for. A second
            signal gives those up.
        InputError: the store is in use.
    """
    with calls.store() as store:
        client = calls.client(store)
        kept, failed = asyncio.run(_go_through(stage, rows, handle, client))
        outcome = Outcome(
            stage=stage,
            store=calls.replies.name.removesuffix(".jsonl"),
            kept=kept,
            quarantined=[
                {
                    "id": rows[place]["id"],
                    "stage": stage,
                    "reason": one.reason,
                    "detail": one.detail,
                    "reply": one.reply,
                }
                for place, one in sorted(failed.items())
            ],
            exempt=exempt,
            asked=client.asked,
            answered=client.answered,
            readings=client.readings,
            bad_lines=store.bad_lines,
        )
        if outcome.kept and (enough(outcome) if enough else outcome.coverage >= calls.coverage):
            client.close_failed()
        outcome = replace(outcome, costs=_costs(outcome, store, calls.endpoint))
        if calls.costs is not None:
            write_json(calls.costs, outcome.costs)
        return outcome


def _costs(outcome: Outcome, store: Store, endpoint: Endpoint) -> dict[str, Any]:
    """What a stage's rows came to, and what their requests cost and took."""
    about = {"model": endpoint.model, "label": endpoint.label}
    rows = {"rows": len(outcome.kept) + len(outcome.quarantined), "quarantined": len(outcome.quarantined)}
    return {**about, **rows, **store.actuals.figures(endpoint.price)}


async def _go_through(
    stage: str, rows: Sequence[Row], handle: Callable[[Client, Row], Awaitable[Row]], client: Client
) -> tuple[Spill, dict[int, ReplyError]]:
    kept, failed = Spill(len(rows)), dict[int, ReplyError]()
    waiting = iter(enumerate(rows))
    progress = _progress(stage, len(rows), failed, client)
    taking = True

    async def work() -> None:
        for place, row in waiting:
            try:
                kept.put(place, await handle(client, row))
            except ReplyError as error:
                failed[place] = error
            if progress is not None:
                progress.add()

    async def stopped(number: int) -> None:
        raise StoppedError(stage, number, client.left)

    def stop(number: int) -> None:
        nonlocal taking
        if taking:
            taking = False
            group.create_task(stopped(number))
        else:
            client.give_up()

    with _signals(stop):
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(client.slots, len(rows))):
                    group.create_task(work())
        except* (Star1Error, OSError) as errors:
            # One endpoint, one fault: the first says what all the others would.
            raise errors.exceptions[0] from None
        finally:
            taking = False
            if progress is not None:
                progress.close()
            await client.close()
    return kept, failed


def _progress(stage: str, rows: int, failed: Mapping[int, ReplyError], client: Client) -> Progress | None:
    """What tells how far the rows are; None where replies are only looked up."""
    if not client.asks:
        return None
    return Progress(
        stage, rows, job=client.store.path.stem, more=lambda: {"quarantined": len(failed), "calls": client.told()}
    )


@contextlib.contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Give SIGTERM and Ctrl-C to `handle`, in the running loop; other threads than the main one get no signals."""
    loop = asyncio.get_running_loop()
    # What asyncio's debug mode tells of slow steps holds the errors of tasks, and so an endpoint's words: a key among them.
    loop.slow_callback_duration = math.inf
    heard = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    for number in heard:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def settle(outcome: Outcome, output: Path, quarantine: Path, coverage: float) -> str:
    """Write the quarantine, see that enough rows were kept, write the rows; gives the summary line.

    Raises:
        CoverageError: fewer than `coverage` of the rows were kept; the quarantine is written all the same.
    """
    write_rows(quarantine, outcome.quarantined)
    check_coverage(outcome, coverage)
    write_rows(output, outcome.kept)
    return outcome.summary()


def check_coverage(outcome: Outcome, coverage: float) -> None:
    """See that enough rows were kept.

    Raises:
        CoverageError: too few, or no rows at all.
    """
    short = []
    if not outcome.kept or outcome.coverage < coverage:
        short = [
            f"{len(outcome.kept)} of {outcome.asked_about} rows have a readable reply ({outcome.reasons or 'no rows'})"
        ]
    fail_coverage(outcome.stage, [outcome], short, coverage)


def settled(kept: int, failed: Sequence[str], coverage: float) -> bool:
    """Whether enough rows of a group got a readable reply; `failed` are the reasons of the others."""
    return kept > 0 and kept / (kept + len(failed)) >= coverage


def fail_coverage(where: str, outcomes: Sequence[Outcome], short: Sequence[str], coverage: float) -> None:
    """End a stage whose coverage fell short; its outcomes share a store.

    Raises:
        CoverageError: something did, as `short` tells.
    """
    if not outcomes:
        return
    aside = ASIDE / f"{outcomes[0].store}.jsonl"
    if not short:
        aside.unlink(missing_ok=True)
        return
    # The workflow removes the outputs of a failed job, so the quarantine is kept apart as well.
    write_rows(aside, [row for one in outcomes for row in one.quarantined])
    advice = dict.fromkeys(one.advice for one in outcomes if one.advice)
    raise CoverageError(
        where,
        "; ".join(short),
        f"at least {coverage:.1%} of at least one row",
        "; ".join([*advice, f"reasons and replies are in {aside}, every reply in the store"]),
    )
