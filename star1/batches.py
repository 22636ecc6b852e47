"""Asking in batches: what the store does not hold is gathered into files until nothing can go on without a reply.

Behind it is the same client: the same requests and keys, the same store, the same faults. A reply is in the store, and on
disk, before its batch is noted as ended; batches that another run sent are looked at before anything new is sent.
"""

import asyncio
import hashlib
import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from star1.batch_journal import Journal, Sent
from star1.batch_lines import Ended, Outcome, missing, outcomes, request_line, scratch
from star1.endpoints import Endpoint, Sampling
from star1.errors import tell
from star1.faults import FaultError
from star1.gate import Gate, Ticket
from star1.lanes import Lane
from star1.llm import Client, Request
from star1.prices import REPLY_TOKENS
from star1.replies import Reply, Store

# Passes of the event loop without a new request, after which no row can go on: rows wait for nothing but replies.
QUIET_PASSES = 20

Tokens = tuple[int, int] | None


@dataclass(frozen=True)
class Ask:
    """A request that a row waits for."""

    request: Request
    attempt: int
    tokens: "asyncio.Future[Tokens]"


@dataclass
class Found:
    """What came back, by key: tokens of the replies, which are in the store, and the faults of the others."""

    tokens: dict[str, Tokens] = field(default_factory=dict)
    faults: dict[str, FaultError] = field(default_factory=dict)
    strays: int = 0


class BatchClient(Client, ABC):
    """Asks one endpoint in batches, through one store.

    Attributes:
        poll_s: between two looks at the batches [s].
        most_open: batches on their way at a time, at most.
        most_requests: in one file.
        most_bytes: of one file.
        path: what the lines of a file name as their interface.
    """

    poll_s: float = 1.0
    most_open: float = float("inf")
    most_requests: int = sys.maxsize
    most_bytes: float = float("inf")
    path: str = "/v1/chat/completions"

    def __init__(self, endpoint: Endpoint, sampling: Sampling, store: Store, others: Sequence[Endpoint] = ()) -> None:
        super().__init__(endpoint, sampling, store, others)
        self.slots = sys.maxsize
        self.lane = self.lanes[0]
        # Every row waits at once, and the provider paces itself.
        self.lane.gate = Gate(sys.maxsize)
        self.stage = store.path.stem
        self.journal = Journal.beside(store.path)
        self._asks: dict[str, Ask] = {}
        self._waiting: dict[str, None] = {}
        self._faults: dict[str, FaultError] = {}
        self._open: list[Sent] = []
        self._earlier: dict[Sent, asyncio.Future[dict[str, Tokens]]] = {}
        self._moves, self._news = 0, asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None
        self._work: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None

    @abstractmethod
    async def _start(self, sent: Sent, file: IO[bytes]) -> None:
        """Send a file of requests off, and close it."""

    @abstractmethod
    async def _goes_on(self, sent: Sent) -> bool:
        """Whether there is anything to be had from a batch of an earlier run."""

    @abstractmethod
    async def _ended(self, sent: Sent) -> Ended | None:
        """What became of a batch; None while it is on its way."""

    @abstractmethod
    async def _leave(self) -> None:
        """Let go of what is on its way."""

    async def close(self) -> None:
        """Wait for nothing: what is on its way is in the journal, and the next run collects it."""
        tasks = [task for task in (self._beginning, self._work) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._leave()
        self.journal.close()
        await super().close()

    async def ask(self, request: Request) -> Reply:
        """The reply to `request`: from the store if it is there, else from a batch.

        Raises:
            NoReplyError: this request got no reply; others may.
            CallError: the endpoint cannot go on.
        """
        if self._beginning is not None and self._beginning.done():
            self._beginning.result()  # raises what ended it
        elif self.store.get(self.key(request)) is None:
            # Before anything is reserved or sent: what an earlier run paid for may be there.
            self._beginning = self._beginning or asyncio.create_task(self._begin())
            await asyncio.shield(self._beginning)
        if self._earlier:
            await self._wait_for_earlier(self.key(request), request)
        return await super().ask(request)

    async def _wait_for_earlier(self, key: str, request: Request) -> None:
        """Wait for the batch of an earlier run that a request is in; it is paid for, whatever may still be spent."""
        for sent, collected in list(self._earlier.items()):
            if key not in sent.requests or collected.done():
                continue
            owed, tokens = self.lane.budget.owe(*self._foreseen(request)), None
            try:
                tokens = (await asyncio.shield(collected)).get(key)
            finally:
                self.lane.budget.settle(owed, tokens, self.store.get(key) is not None)

    def _foreseen(self, request: Request) -> tuple[int, int]:
        """As for single requests; before the first reply, whose length would come too late, by the usual length."""
        prompt, reply = super()._foreseen(request)
        usual = REPLY_TOKENS.get(request.role) or REPLY_TOKENS.get(request.role.partition("_")[0], reply)
        return prompt, reply if self._replies else usual

    @property
    def _sure(self) -> bool:
        return True  # one request to learn from would take a batch of its own

    async def _back_off(self, failed: int, fault: FaultError) -> None:
        """Nothing to wait for: a further attempt goes into a further batch."""

    async def _exchange(
        self, key: str, request: Request, attempt: int, lane: Lane, ticket: Ticket, reserved: float
    ) -> Reply:
        tokens, answered = None, False
        try:
            tokens, answered = await self._from_batch(key, request, attempt), True
        except FaultError as fault:
            self._keep_fault(key, request, attempt, lane, fault)
            raise
        finally:
            lane.settle(ticket, reserved, tokens, answered)
        reply = self.store.get(key)
        assert reply is not None, "kept before anybody is told"  # noqa: S101
        return reply

    async def _from_batch(self, key: str, request: Request, attempt: int) -> Tokens:
        """Wait until a request is answered; gives the tokens that it used."""
        if self._broken is not None:
            raise self._broken
        if (fault := self._faults.pop(key, None)) is not None:  # from a batch that an earlier run sent
            raise fault
        tokens: asyncio.Future[Tokens] = asyncio.get_running_loop().create_future()
        tokens.add_done_callback(_heard)
        self._asks[key] = Ask(request, attempt, tokens)
        self._waiting[key] = None
        self._moves += 1
        self._news.set()
        try:
            return await tokens
        finally:
            self._asks.pop(key, None)
            self._waiting.pop(key, None)

    async def _begin(self) -> None:
        """See what became of the batches that earlier runs sent, and begin to send."""
        for sent in self.journal.opened:
            if await self._goes_on(sent):
                self._open.append(sent)
                self._earlier[sent] = asyncio.get_running_loop().create_future()
                self._earlier[sent].add_done_callback(_heard)
                tell(f"{self.stage}: batch {sent.called} of an earlier run, with {len(sent.requests):,} requests")
            else:
                self.journal.end(sent, "lost")
        await self._look()
        self._work = asyncio.create_task(self._run())
        self._work.add_done_callback(self._stopped)

    def _stopped(self, work: "asyncio.Task[None]") -> None:
        """Tell everybody who waits why nothing more will come."""
        if work.cancelled() or (error := work.exception()) is None:
            return
        self._broken = error
        futures: list[asyncio.Future[Any]] = [ask.tokens for ask in self._asks.values()]
        for future in [*futures, *self._earlier.values()]:
            if not future.done():
                future.set_exception(error)

    async def _run(self) -> None:
        while True:
            await self._settle()
            if self._waiting and len(self._open) < self.most_open:
                await self._send_file()
            elif not await self._look():
                await self._pause()

    async def _settle(self) -> None:
        """Wait until no row can go on."""
        passes, moves = 0, -1
        self._news.clear()
        while passes < QUIET_PASSES:
            passes, moves = passes + 1 if self._moves == moves else 0, self._moves
            await asyncio.sleep(0)

    async def _pause(self) -> None:
        """Wait for the next look, or for a row that has something to ask."""
        try:
            async with asyncio.timeout(self.poll_s if self._open else None):
                await self._news.wait()
        except TimeoutError:
            return

    async def _send_file(self) -> None:
        """Send one file of what waits."""
        file = scratch()
        name, requests = self._write(file)
        sent = self.journal.begin(name, requests)
        for key in requests:
            self._waiting.pop(key, None)
        sent.alone = not self._open
        self._open.append(sent)
        await self._start(sent, file)

    def _write(self, file: IO[bytes]) -> tuple[str, dict[str, tuple[str, str, int]]]:
        """Write the next file of requests; gives its name, and what each request is for."""
        digest, size = hashlib.sha256(), 0
        requests: dict[str, tuple[str, str, int]] = {}
        model = self.endpoint.served_as or self.endpoint.model
        for key in self._waiting:
            ask = self._asks[key]
            line = request_line(key, self.path, {"model": model, **self.body(ask.request)})
            size += len(line)
            if requests and (len(requests) >= self.most_requests or size > self.most_bytes):
                break
            file.write(line)
            digest.update(line)
            requests[key] = (ask.request.item, ask.request.role, ask.attempt)
        stem = f"{self.stage}-{digest.hexdigest()[:16]}"
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in self.journal.names), requests

    async def _look(self) -> bool:
        """Collect the batches that have ended; gives whether there was one."""
        ended = 0
        for sent in list(self._open):
            if (one := await self._ended(sent)) is not None:
                self._collect(sent, one)
                ended += 1
        return ended > 0

    def _collect(self, sent: Sent, ended: Ended) -> None:
        """Keep what came back, and let the rows that wait for it go on."""
        with ended.lines:
            found = self._keep_all(sent, outcomes(ended.lines))
        self.store.sync()
        self.journal.end(sent, ended.status)
        self._open.remove(sent)
        left = len(sent.requests) - len(found.tokens) - len(found.faults)
        told = [f"{len(found.tokens):,} replies", f"{len(found.faults):,} failed", f"{left:,} without a line"]
        told += [f"{found.strays:,} lines that belong to no request"] if found.strays else []
        tell(f"{self.stage}: batch {sent.called} {ended.status}: {', '.join(told)}")
        if ended.error is not None:
            raise ended.error
        if ended.again:
            self.most_open = max(1, len(self._open))
            self._waiting.update({key: None for key in sent.requests if key in self._asks})
            if sent not in self._earlier:
                return
        self._release(sent, ended.status, found)

    def _keep_all(self, sent: Sent, lines: Iterable[tuple[str, Outcome]]) -> Found:
        """Put the replies among the lines into the store; of several lines for a request, a reply counts."""
        found = Found()
        for key, one in lines:
            if key not in sent.requests:
                found.strays += 1
            elif isinstance(one, FaultError):
                found.faults[key] = one
            elif key not in found.tokens:
                found.tokens[key] = self._used(one)
                item, role, attempt = sent.requests[key]
                about = self._about(key, Request(item, role, (), ""), attempt, self.endpoint)
                if self.store.get(key) is None:  # else a run was killed while it collected
                    self.keep({**about, "batch": sent.called}, one, 0.0)
        for key in found.faults.keys() & found.tokens.keys():
            del found.faults[key]
        return found

    def _release(self, sent: Sent, status: str, found: Found) -> None:
        """Let the rows go on; the answered ones first, so that what fails is known to fail beside others."""
        self._works = self._works or bool(found.tokens)
        if sent in self._earlier:
            self._earlier[sent].set_result(found.tokens)
        for key in sorted(sent.requests, key=lambda key: key not in found.tokens):
            ask, fault = self._asks.get(key), found.faults.get(key)
            if ask is None:
                if fault is not None:
                    self._faults[key] = fault
            elif ask.tokens.done():
                continue
            elif key in found.tokens:
                ask.tokens.set_result(found.tokens[key])
            else:
                ask.tokens.set_exception(fault or missing(status))


def _heard(done: "asyncio.Future[Any]") -> None:
    """Fetch an exception: where nobody waits for it any more, it is no error."""
    if not done.cancelled():
        done.exception()
