"""The one way to ask a language model: every reply is kept before it is used, and none is asked for twice."""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from star1.endpoints import Endpoint, Sampling, connect, redact
from star1.errors import CallError
from star1.faults import HINTS, FaultError, connection_fault, read_body, status_fault
from star1.parsing import NoReplyError, Parsed, ReplyError
from star1.replies import Reply, Store, reply_key

T = TypeVar("T")

BACKOFF_S = 1.0
# A longer wait than this is for the user to decide on, not for a job to sit through.
LONGEST_WAIT_S = 120.0
# Rows in a row that failed for the same reason, none answered between: it is the endpoint, not the rows.
SAME_FAULTS = 8
# Where nobody listens, time seldom helps: further attempts, fewer than for other faults.
CONNECT_RETRIES = 2
REPAIR_TURNS = 2
TELL_AFTER_S = 3.0


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        item: id of the row it is asked for.
        role: what the model is to do: name of the prompt.
        messages: the conversation so far.
        template: digest of the prompt's file.
        sample: index, where the same question is asked more than once.
        response_format: the API's own, if one is set.
    """

    item: str
    role: str
    messages: tuple[Mapping[str, str], ...]
    template: str
    sample: int = 0
    response_format: Mapping[str, Any] | None = None

    def then(self, reply: str, message: str, template: str) -> "Request":
        """The next turn: the model's last reply, and what is said to it."""
        turns: Sequence[Mapping[str, str]] = (
            {"role": "assistant", "content": reply},
            {"role": "user", "content": message},
        )
        return replace(self, messages=(*self.messages, *turns), template=f"{self.template}+{template}")


def user_request(item: str, role: str, text: str, template: str) -> Request:
    """A request of one user message."""
    return Request(item, role, ({"role": "user", "content": text},), template)


class Client:
    """Asks one endpoint, through one store.

    Attributes:
        asked: requests sent (a retry is not counted again).
        answered: requests answered without sending: from the store, or by an equal one on its way.
        readings: how replies were read, by count.
    """

    def __init__(self, endpoint: Endpoint, sampling: Sampling, store: Store) -> None:
        self.endpoint, self.store = endpoint, store
        self.sampling, self.samples = sampling.sent(), sampling.samples
        self.asked = self.answered = 0
        self.readings: Counter[str] = Counter()
        self._identity = endpoint.identity()
        self._secret = endpoint.secret()
        self._api = connect(endpoint)
        self._slots = asyncio.Semaphore(endpoint.slots)
        self._on_their_way: dict[str, asyncio.Future[Reply]] = {}
        self._exchanges: set[asyncio.Task[Reply]] = set()
        self._works = False
        self._open_again = 0.0
        self._same_faults = ("", 0)

    async def close(self) -> None:
        """Wait for the replies that are on their way, which may have to be paid for, and close the connections."""
        if self._exchanges:
            _, late = await asyncio.wait(self._exchanges, timeout=TELL_AFTER_S)
            if late:
                told = f"waiting for {len(late)} replies on their way, to keep them; interrupt to give them up"
                print(told, file=sys.stderr, flush=True)  # noqa: T201
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await self._api.close()

    async def ask(self, request: Request) -> Reply:
        """The reply to `request`: from the store if it is there, else from the endpoint.

        Raises:
            NoReplyError: this request got no reply; others may.
            CallError: the endpoint cannot go on.
        """
        key = reply_key(
            self._identity,
            request.messages,
            self.sampling,
            request.template,
            request.response_format,
            request.sample,
        )
        if (kept := self.store.get(key)) is not None:
            self.answered, self._works = self.answered + 1, True
            return kept
        if (other := self._on_their_way.get(key)) is not None:
            self.answered += 1
            return await asyncio.shield(other)
        future = self._on_their_way[key] = asyncio.get_running_loop().create_future()
        # Somebody else may or may not wait for it: an exception that nobody fetches is no error.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with self._slots:
                reply = await self._attempts(key, request)
        except (NoReplyError, CallError) as error:
            future.set_exception(error)
            raise
        except BaseException:
            future.cancel()
            raise
        finally:
            del self._on_their_way[key]
        future.set_result(reply)
        return reply

    async def read(
        self,
        request: Request,
        parse: Callable[[Reply], Parsed[T]],
        repair: Callable[[str], tuple[str, str]] | None = None,
    ) -> T:
        """The reply to `request`, read by `parse`; up to two turns ask for it again in the right form.

        What stays unreadable after them is asked for anew, as often as the sampling's `samples` says.

        Args:
            request: what is asked.
            parse: reads a reply.
            repair: gives (message, digest of its template) for what `parse` found wrong; None asks only once.

        Raises:
            ReplyError: no reply, or none that could be read: the last one's fault.
            CallError: the endpoint cannot go on.
        """
        for sample in range(self.samples):
            try:
                value, how = await self._turns(replace(request, sample=sample), parse, repair)
            except NoReplyError:
                raise
            except ReplyError:
                if sample == self.samples - 1:
                    raise
            else:
                self.readings[f"{how}, asked anew" if sample else how] += 1
                return value
        raise AssertionError("the last sample returns or raises")

    async def _turns(
        self,
        request: Request,
        parse: Callable[[Reply], Parsed[T]],
        repair: Callable[[str], tuple[str, str]] | None,
    ) -> tuple[T, str]:
        for turn in range(REPAIR_TURNS + 1):
            reply = await self.ask(request)
            try:
                parsed = parse(reply)
            except ReplyError as problem:
                if repair is None or not problem.repairable or turn == REPAIR_TURNS:
                    raise
                request = request.then(reply.content, *repair(problem.detail))
            else:
                return parsed.value, parsed.how if turn == 0 else f"{parsed.how}, after repair"
        raise AssertionError("the last turn returns or raises")

    async def _attempts(self, key: str, request: Request) -> Reply:
        self.asked += 1
        for attempt in range(self.endpoint.retries + 1):
            await self._until_open()
            try:
                reply = await self._exchange(key, request, attempt)
            except FaultError as fault:
                self._keep_fault(key, request, attempt, fault)
                self._stop_on(fault, attempt)
                if fault.action == "give up" or attempt == self.endpoint.retries:
                    self._count(fault)
                    raise NoReplyError(fault.reason, self._clean(fault.detail), self._clean(fault.raw)) from None
                await self._back_off(attempt, fault)
            else:
                self._same_faults, self._works = ("", 0), True
                return reply
        raise AssertionError("the last attempt returns or raises")

    async def _exchange(self, key: str, request: Request, attempt: int) -> Reply:
        """One attempt, which goes on to its end and into the store even where nobody waits for it any more."""
        task = asyncio.create_task(self._send(key, request, attempt, time.monotonic()))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)
        return await asyncio.shield(task)

    async def _send(self, key: str, request: Request, attempt: int, started: float) -> Reply:
        content = await self._post(request)
        body = read_body(content)
        note = "endpoint" if self.endpoint.provider == "openai" else body.fingerprint
        self.store.keep(
            {
                **self._about(key, request, attempt),
                "served_model": body.model,
                "fingerprint": body.fingerprint,
                "usage": body.usage,
                "seconds": round(time.monotonic() - started, 3),
            },
            replace(body.reply, note=note),
        )
        # What is used is what the next run will find: a reply that echoes the key is kept without it.
        return self.store.get(key) or body.reply

    async def _post(self, request: Request) -> bytes:
        import httpx2
        import openai

        body = {"model": self.endpoint.model, "messages": list(request.messages), **self.sampling}
        if "seed" in body:
            body["seed"] += request.sample  # the same seed would give the same reply again
        if request.response_format is not None:
            body["response_format"] = request.response_format
        try:
            # The raw answer: what a broken body means is decided in one place, `faults.read_body`.
            answer = await self._api.post("/chat/completions", cast_to=httpx2.Response, body=body)
            return bytes(answer.content)
        except openai.APIConnectionError as error:
            raise connection_fault(error) from None
        except openai.APIStatusError as error:
            fault = status_fault(error.status_code, error.body, error.response.headers)
            raise fault from None

    def _about(self, key: str, request: Request, attempt: int) -> dict[str, Any]:
        return {
            "key": key,
            "item": request.item,
            "role": request.role,
            "label": self.endpoint.label,
            "model": self.endpoint.model,
            "attempt": attempt + 1,
        }

    def _keep_fault(self, key: str, request: Request, attempt: int, fault: FaultError) -> None:
        told = {"reason": fault.reason, "http_status": fault.status, "detail": self._clean(fault.detail)}
        if fault.raw:
            told["raw"] = self._clean(fault.raw)
        self.store.keep({**self._about(key, request, attempt), **told}, None)

    def _clean(self, text: str) -> str:
        return redact(text, self._secret).encode("utf-8", "replace").decode()

    def _where(self) -> str:
        return f"model {self.endpoint.model!r} at {self._api.base_url}"

    def _error(self, found: str, expected: str, reason: str) -> CallError:
        key = self.endpoint.key or "no key (llm endpoint field `key` is empty)"
        hint = f"{HINTS[reason].format(key=key)}; replies that came are kept"
        return CallError(f"model {self.endpoint.model!r} at {self._api.base_url}", found, expected, hint)

    def _stop_on(self, fault: FaultError, attempt: int) -> None:
        """End the run where no further request can succeed."""
        # For a wrong key, the endpoint's words are the place where the key is echoed: they are left out.
        words = fault.reason + ("" if fault.status in (401, 403) else f" ({self._clean(fault.detail)})")
        if fault.action == "stop":
            raise self._error(f"status {fault.status}, {words}", "an endpoint that answers", fault.reason)
        if fault.reason == "no_connection" and attempt >= min(CONNECT_RETRIES, self.endpoint.retries):
            raise self._error(words, "a server that listens there", fault.reason)
        if fault.wait_s is not None and fault.wait_s > LONGEST_WAIT_S:
            found, expected = f"{words}: asks to wait {fault.wait_s:.0f} s", f"a wait of at most {LONGEST_WAIT_S:.0f} s"
            raise self._error(found, expected, fault.reason)

    def _count(self, fault: FaultError) -> None:
        """End the run when one row after the other fails alike; rows may do so of themselves where others succeed."""
        own = fault.action == "give up" or fault.status == 200
        if fault.reason == "content_filter_prompt" or (own and self._works):
            return
        reason, count = self._same_faults
        self._same_faults = (fault.reason, count + 1 if fault.reason == reason else 1)
        if self._same_faults[1] >= SAME_FAULTS:
            found = f"{SAME_FAULTS} requests in a row failed with {fault.reason} ({self._clean(fault.detail)})"
            raise self._error(found, "an endpoint that answers", fault.reason)

    async def _until_open(self) -> None:
        while (left := self._open_again - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _back_off(self, attempt: int, fault: FaultError) -> None:
        """Wait before the next attempt; what the endpoint asks for holds for all requests."""
        jitter = random.uniform(0.5, 1.0)  # spreads attempts over time, decides no result
        if fault.wait_s is not None:
            wait = fault.wait_s + jitter * BACKOFF_S
            self._open_again = max(self._open_again, time.monotonic() + wait)
        else:
            await asyncio.sleep(min(BACKOFF_S * 2**attempt, LONGEST_WAIT_S) * jitter)
