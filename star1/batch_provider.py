"""The batch interface of a provider: a file goes up, a batch is made of it, and its replies come back within a day or so.

What may cost money is noted before and after: where a run ended between the two, the provider's list of batches is
searched for ours, which carry the name of their file.
"""

import asyncio
import contextlib
import functools
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, TypeVar

from star1 import llm
from star1.batch_journal import Sent
from star1.batch_lines import Ended, scratch
from star1.batch_settings import ProviderBatch
from star1.batches import BatchClient
from star1.endpoints import Endpoint, Sampling
from star1.errors import CallError, tell
from star1.faults import HINTS, FaultError, connection_fault, status_fault
from star1.replies import Store

if TYPE_CHECKING:
    from openai.types import Batch, FileObject

T = TypeVar("T")

# Metadata of a batch, by which it is found again.
MARK = "star1_file"
DAY_S = 86_400.0
ENDED = ("completed", "failed", "expired", "cancelled")
# Batches that are of no use to a run that looks for its own.
FRUITLESS = ("failed", "cancelling", "cancelled")
# Looks in a row that learn nothing, after which the run ends.
LOST_LOOKS = 30
# Longest wait of a run that is told to stop for the answer to a batch that it was just making [s].
LAST_WAIT_S = 20.0
TOLD_ERRORS = 3
HEAD_BYTES = 1 << 16
NO_ROOM = "token_limit_exceeded"


class ProviderClient(BatchClient):
    """Asks by the provider's batch interface."""

    def __init__(self, endpoint: Endpoint, sampling: Sampling, store: Store, others: Sequence[Endpoint] = ()) -> None:
        super().__init__(endpoint, sampling, store, others)
        settings = endpoint.batch
        assert isinstance(settings, ProviderBatch)  # noqa: S101 (chosen by it)
        self.window = settings.completion_window
        self.poll_s, self.path = settings.poll_s, settings.path
        self.most_requests, self.most_bytes = settings.requests, settings.file_mb * 1e6
        self._making: asyncio.Task[None] | None = None
        self._lost = 0
        self._told: dict[str, str] = {}

    @property
    def left(self) -> str:
        """What goes on without this run."""
        going = [sent.batch_id for sent in self._open if sent.batch_id]
        if not going:
            return ""
        several = f"{len(going)} batches go" if len(going) > 1 else "the batch goes"
        return f"{several} on at the provider ({', '.join(going)}): start it again to collect the replies"

    async def _start(self, sent: Sent, file: IO[bytes]) -> None:
        async def upload() -> str:
            file.seek(0)
            made = await self.lane.api.files.create(file=(f"{sent.name}.jsonl", file), purpose="batch")
            return _id(made)

        with file:
            file_id = await self._call(upload)
        self.journal.uploaded(sent, file_id)
        # Not cut short by anything: once made, a batch has to be paid for, and its id is to be known.
        self._making = asyncio.create_task(self._make(sent))
        await asyncio.shield(self._making)

    async def _make(self, sent: Sent) -> None:
        attempts = itertools.count()

        async def make() -> str:
            if next(attempts) and (made := await self._find(sent)):
                return made  # the answer to an earlier attempt was lost
            return _id(
                await self.lane.api.batches.create(
                    input_file_id=sent.file_id,
                    endpoint=self.path,  # type: ignore[arg-type]
                    completion_window=self.window,  # type: ignore[arg-type]
                    metadata={MARK: sent.name},
                )
            )

        self.journal.created(sent, await self._call(make))
        tell(f"{self.stage}: batch {sent.batch_id} sent, with {len(sent.requests):,} requests")

    async def _leave(self) -> None:
        if self._making is not None and not self._making.done():
            await asyncio.wait([self._making], timeout=LAST_WAIT_S)
            self._making.cancel()

    def give_up(self) -> None:
        """Wait no longer, not even for the id of a batch that is being made: the next run looks for it."""
        super().give_up()
        if self._making is not None:
            self._making.cancel()

    async def _goes_on(self, sent: Sent) -> bool:
        if sent.batch_id:
            return True
        found = await self._call(functools.partial(self._find, sent))
        if found:
            self.journal.created(sent, found)
        return bool(found)

    async def _find(self, sent: Sent) -> str:
        """The id of the batch that was made of a file, though nobody was told; empty where there is none."""
        with _faults():
            async for batch in self.lane.api.batches.list(limit=100):
                ours = (batch.metadata or {}).get(MARK) == sent.name or batch.input_file_id == (sent.file_id or None)
                if ours and batch.status not in FRUITLESS:
                    return _id(batch)
                if batch.created_at and batch.created_at < sent.time - DAY_S:
                    break
        return ""

    async def _ended(self, sent: Sent) -> Ended | None:
        batch = await self._state(sent)
        if batch is None or batch.status not in ENDED:
            return None
        lines = scratch()
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            await self._call(functools.partial(self._fetch, file_id, lines, lines.tell()), self._gone(sent))
        lines.seek(0)
        again = not sent.alone and NO_ROOM in _errors(batch)
        return Ended(batch.status, lines, None if again else self._fatal(sent, batch), again)

    async def _state(self, sent: Sent) -> "Batch | None":
        """How far a batch is; None where that cannot be learned at the moment."""
        try:
            with _faults():
                batch = await self.lane.api.batches.retrieve(sent.batch_id)
                counts = batch.request_counts
                if batch.status == "completed" and not (batch.output_file_id or batch.error_file_id):
                    raise FaultError("missing", "a batch that is completed, and has no files", "retry")
        except FaultError as fault:
            self._lost += 1
            if fault.action != "retry" or self._lost >= LOST_LOOKS:
                raise self._call_error(fault, self._gone(sent)) from None
            if self._lost == 1:
                tell(
                    f"{self.stage}: batch {sent.batch_id}: {fault.reason} ({self._clean(fault.detail)}); looking again"
                )
            return None
        self._lost = 0
        if batch.status in ENDED:
            return batch
        done = f", {counts.completed + counts.failed:,} of {counts.total:,} requests" if counts else ""
        self._tell(sent, f"{batch.status}{done}")
        return batch

    def _tell(self, sent: Sent, state: str) -> None:
        """Tell what is new."""
        if self._told.get(sent.name) != state:
            self._told[sent.name] = state
            tell(f"{self.stage}: batch {sent.batch_id}: {self._clean(state)}")

    async def _fetch(self, file_id: str, out: IO[bytes], start: int) -> None:
        """Write a file of the provider's to `out`, from `start` on."""
        out.seek(start)
        out.truncate()
        last = b""
        with _faults():
            async with self.lane.api.files.with_streaming_response.content(file_id) as answer:
                async for chunk in answer.iter_bytes():
                    out.write(chunk)
                    last = chunk or last
        if not last.endswith(b"\n"):
            out.write(b"\n")
        out.seek(start)
        if (head := out.read(HEAD_BYTES)).strip() and b'"custom_id"' not in head:
            # A gateway's page, say: taken for replies, all of them would be asked, and paid for, again.
            raise FaultError("unreadable_body", "a file of replies without any", "retry", 200)
        out.seek(0, os.SEEK_END)

    def _fatal(self, sent: Sent, batch: "Batch") -> CallError | None:
        """Why the run ends with a batch; None where it does not."""
        where, told = f"batch {sent.batch_id} at {self.lane.api.base_url}", _errors(batch)
        if batch.status == "cancelled":
            hint = "start the stage again to ask the others in a new batch; replies that came are kept"
            return CallError(where, "it was cancelled at the provider", "a batch that comes to its end", hint)
        if batch.status != "failed":
            return None
        hint = "lower the endpoint's batch.requests" if NO_ROOM in told else HINTS["bad_request"]
        found = f"the provider refused it: {self._clean(told) or 'no reason given'}"
        return CallError(where, found, "a batch that the provider takes", f"{hint}; replies that came are kept")

    def _gone(self, sent: Sent) -> str:
        """What to do where the provider does not know a batch."""
        return (
            f"check that base_url and key are those that batch {sent.batch_id} was sent with;"
            f" to give its replies up, and pay for them anew, remove {self.journal.path}"
        )

    async def _call(self, make: Callable[[], Awaitable[T]], gone: str = "") -> T:
        """What `make` gives, tried again where a fault passes.

        Args:
            make: sends requests.
            gone: what to do where the provider does not know what is asked for.

        Raises:
            CallError: it cannot be had.
        """
        for failed in itertools.count(1):
            try:
                with _faults():
                    return await make()
            except FaultError as fault:
                if (end := self._end(self.lane, fault, failed)) is not None and fault.status != 404:
                    raise end from None
                if fault.action != "retry" or failed > self.endpoint.retries:
                    raise self._call_error(fault, gone) from None
                await asyncio.sleep(fault.wait_s or min(llm.BACKOFF_S * 2 ** (failed - 1), llm.LONGEST_BACKOFF_S))
        raise AssertionError("the last attempt returns or raises")

    def _call_error(self, fault: FaultError, gone: str) -> CallError:
        if fault.status != 404:
            words = fault.reason if fault.status in (401, 403) else f"{fault.reason} ({self._clean(fault.detail)})"
            return self._error(self.lane, words, "the provider's files and batches", fault.reason)
        hint = gone or "check base_url, or take `batch` out of the endpoint's settings"
        expected = "the provider's files and batches"
        return CallError(self.lane.where, f"status 404 ({self._clean(fault.detail)})", expected, hint)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """What went wrong with a request, as a fault."""
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        fault = status_fault(error.status_code, error.body, error.response.headers)
        raise fault from None
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        raise connection_fault(error) from None
    except (ValueError, AttributeError) as error:
        # A page of HTML is handed on as a text, and broken JSON as Python's own error.
        detail = f"no answer of a batch interface ({type(error).__name__})"
        raise FaultError("unreadable_body", detail, "retry", 200) from None


def _id(made: "Batch | FileObject") -> str:
    if not isinstance(made.id, str) or not made.id:
        raise FaultError("unreadable_body", "an answer without an id", "retry", 200)
    return made.id


def _errors(batch: "Batch") -> str:
    """The provider's words against a batch."""
    errors = (batch.errors.data if batch.errors else None) or []
    lines = (f" (line {one.line})" if one.line else "" for one in errors)
    told = [f"{one.code}: {one.message}{line}" for one, line in zip(errors, lines, strict=True)]
    return "; ".join([*told[:TOLD_ERRORS], *([f"and {len(told) - TOLD_ERRORS} more"] if told[TOLD_ERRORS:] else [])])
