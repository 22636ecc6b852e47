"""The one way to ask a language model: every reply is kept before it is used, and none is asked for twice."""

import asyncio
import functools
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from star1.endpoints import Endpoint, Sampling, connect, redact
from star1.errors import CallError, tell
from star1.faults import HINTS, Body, FaultError, connection_errors, connection_fault, raw_text, read_body, status_fault
from star1.gate import Gate, Ticket
from star1.parsing import NoReplyError, Parsed, ReplyError
from star1.prices import Budget
from star1.replies import Reply, Store, reply_key, usage_tokens

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 120.0
# Rows in a row that failed for the same reason, none answered between: it is the endpoint, not the rows.
SAME_FAULTS = 8
# Pauses of the whole endpoint in a row, each longer than the last and no reply between, before the run is given up.
REFUSALS = 8
CHARACTERS_PER_TOKEN = 4
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

    Args:
        endpoint: who is asked.
        sampling: how replies are sampled.
        store: where they are kept.
        spent: what was spent at the endpoint before [USD].

    Attributes:
        asked: requests sent (a retry is not counted again).
        answered: requests answered without sending: from the store, or by an equal one on its way.
        readings: how replies were read, by count.
    """

    def __init__(self, endpoint: Endpoint, sampling: Sampling, store: Store, spent: float = 0.0) -> None:
        self.endpoint, self.store = endpoint, store
        self.sampling, self.samples = sampling.sent(), sampling.samples
        self.asked = self.answered = 0
        self.readings: Counter[str] = Counter()
        self._identity = endpoint.identity()
        self._secret = endpoint.secret()
        limits = (endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self._gate = Gate(endpoint.slots, *limits, pause_s=BACKOFF_S, longest_pause_s=endpoint.max_wait_s)
        self._on_their_way: dict[str, asyncio.Future[Reply]] = {}
        self._exchanges: set[asyncio.Task[Reply]] = set()
        self._works = False
        self._replies = self._reply_tokens = 0
        self._budget = Budget(endpoint.price, endpoint.max_usd, spent)
        self._same_faults = ("", 0)

    @functools.cached_property
    def _api(self) -> "AsyncOpenAI":
        return connect(self.endpoint)

    async def close(self) -> None:
        """Wait for the replies that are on their way, which may have to be paid for, and close the connections."""
        if self._exchanges:
            _, late = await asyncio.wait(self._exchanges, timeout=TELL_AFTER_S)
            if late:
                tell(f"waiting for {len(late)} replies on their way, to keep them; interrupt to give them up")
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        if "_api" in self.__dict__:
            await self._api.close()

    def give_up(self) -> None:
        """Wait no longer for the replies that are on their way."""
        for exchange in self._exchanges:
            exchange.cancel()

    def key(self, request: Request) -> str:
        """Under which a reply to `request` is kept."""
        form, sample = request.response_format, request.sample
        return reply_key(self._identity, request.messages, self.sampling, request.template, form, sample)

    async def ask(self, request: Request) -> Reply:
        """The reply to `request`: from the store if it is there, else from the endpoint.

        Raises:
            NoReplyError: this request got no reply; others may.
            CallError: the endpoint cannot go on.
        """
        key = self.key(request)
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
                value, how = await self._turns(replace(request, sample=sample) if sample else request, parse, repair)
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
        failed = 0
        for attempt in itertools.count():
            foreseen = self._foreseen(request)
            ticket = await self._gate.enter(sum(foreseen))
            try:
                reply = await self._exchange(key, request, attempt, ticket, self._reserve(ticket, foreseen))
            except FaultError as fault:
                failed += fault.reason != "rate_limit"  # no fault of the row, and none that it has to pay for
                self._stop_on(fault, failed)
                if fault.action == "give up" or failed > self.endpoint.retries:
                    self._count(fault)
                    raise NoReplyError(
                        fault.reason, self._clean(fault.detail), raw_text(fault.raw, self._secret)
                    ) from None
                await self._back_off(failed, fault)
            else:
                self._same_faults, self._works = ("", 0), True
                self._gate.answered(ticket)
                return reply
        raise AssertionError("the last attempt returns or raises")

    def _foreseen(self, request: Request) -> tuple[int, int]:
        """What a request will use, by estimate: its length, and as long a reply as they were so far [tokens]."""
        prompt = sum(len(turn["content"]) for turn in request.messages) // CHARACTERS_PER_TOKEN
        return prompt, self._reply_tokens // self._replies if self._replies else 0

    def _reserve(self, ticket: Ticket, foreseen: tuple[int, int]) -> float:
        """Set aside what a request will cost; end the run where that is more than is left [USD]."""
        if (reserved := self._budget.reserve(*foreseen)) is None:
            self._gate.leave(ticket, 0)
            found = f"{self._budget.spent:.2f} USD are spent, and the next request would pass the limit"
            expected = f"at most {self.endpoint.max_usd:g} USD (the endpoint's max_usd)"
            hint = "raise max_usd and start the stage again; replies that came are kept"
            raise CallError(self._where(), found, expected, hint)
        return reserved

    async def _exchange(self, key: str, request: Request, attempt: int, ticket: Ticket, reserved: float) -> Reply:
        """One attempt, which goes on to its end and into the store even where nobody waits for it any more."""
        task = asyncio.create_task(self._send(key, request, attempt, ticket, reserved))
        self._exchanges.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Reply]) -> None:
        self._exchanges.discard(task)
        # Where nobody waits any more, asyncio would print the fault in the endpoint's own words, key and all.
        task.cancelled() or task.exception()

    async def _send(self, key: str, request: Request, attempt: int, ticket: Ticket, reserved: float) -> Reply:
        started, used, answered = time.monotonic(), None, False
        try:
            body = read_body(await self._post(request))
            used, answered = self._used(body), True
        except FaultError as fault:
            self._keep_fault(key, request, attempt, fault)
            self._heed(ticket, fault)  # before the slot is free: the next request is to know of it
            raise
        finally:
            self._gate.leave(ticket, None if used is None else sum(used))
            self._budget.settle(reserved, used, answered)
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

    def _used(self, body: Body) -> tuple[int, int] | None:
        """What a request used [tokens], as the endpoint counts; None where it does not say."""
        if tokens := usage_tokens(body.usage):
            self._replies, self._reply_tokens = self._replies + 1, self._reply_tokens + tokens[1]
        return tokens

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
            async with asyncio.timeout(self.endpoint.timeout_s):  # the client's own ends with each byte that comes
                answer = await self._api.post("/chat/completions", cast_to=httpx2.Response, body=body)
            return bytes(answer.content)
        except TimeoutError:
            raise FaultError("timeout", f"no whole reply within {self.endpoint.timeout_s:g} s", "retry") from None
        except openai.APIStatusError as error:
            fault = status_fault(error.status_code, error.body, error.response.headers)
            raise fault from None
        except connection_errors() as error:
            raise connection_fault(error) from None

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
            told["raw"] = raw_text(fault.raw, self._secret)
        self.store.keep({**self._about(key, request, attempt), **told}, None)

    def _clean(self, text: str) -> str:
        return redact(text, self._secret).encode("utf-8", "replace").decode()

    def _where(self) -> str:
        return f"model {self.endpoint.model!r} at {self._api.base_url}"

    def _error(self, found: str, expected: str, reason: str) -> CallError:
        key = self.endpoint.key or "no key (llm endpoint field `key` is empty)"
        hint = f"{HINTS[reason].format(key=key)}; replies that came are kept"
        return CallError(self._where(), found, expected, hint)

    def _stop_on(self, fault: FaultError, failed: int) -> None:
        """End the run where no further request can succeed."""
        # For a wrong key, the endpoint's words are the place where the key is echoed: they are left out.
        words = fault.reason + ("" if fault.status in (401, 403) else f" ({self._clean(fault.detail)})")
        if fault.action == "stop":
            raise self._error(f"status {fault.status}, {words}", "an endpoint that answers", fault.reason)
        if fault.reason == "no_connection" and failed > min(CONNECT_RETRIES, self.endpoint.retries):
            raise self._error(words, "a server that listens there", fault.reason)
        if fault.reason == "rate_limit" and self._gate.refusals >= REFUSALS:
            found = f"{REFUSALS} pauses in a row ended in {words}"
            raise self._error(found, "an endpoint that answers", fault.reason)
        longest = self.endpoint.max_wait_s
        if fault.wait_s is not None and fault.wait_s > longest:
            again = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() + fault.wait_s))
            found = f"{words}: asks to wait {fault.wait_s:.0f} s, until {again}"
            expected = f"a wait of at most {longest:.0f} s (the endpoint's max_wait_s)"
            hint = f"start the stage again after {again}; replies that came are kept"
            raise CallError(self._where(), found, expected, hint)

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

    def _heed(self, ticket: Ticket, fault: FaultError) -> None:
        """Ask a busy endpoint less at a time; what it asks to wait holds for all requests."""
        episode = self._gate.episode
        wait = None if fault.wait_s is None else min(fault.wait_s, self.endpoint.max_wait_s)
        if fault.reason == "rate_limit":
            pause = self._gate.refused(ticket, wait)
            if self._gate.episode > episode and pause >= TELL_AFTER_S:
                told = f"{fault.reason}: waiting for {pause:.0f} s, then {int(self._gate.limit)} requests at a time"
                tell(told)
            return
        if fault.status == 503:
            self._gate.strained(ticket)
        if wait is not None:
            self._gate.hold(wait + random.uniform(0.5, 1.0) * BACKOFF_S)

    async def _back_off(self, failed: int, fault: FaultError) -> None:
        """Wait before a row's next attempt, unless the gate makes it wait."""
        if fault.reason != "rate_limit" and fault.wait_s is None:
            jitter = random.uniform(0.5, 1.0)  # spreads attempts over time, decides no result
            await asyncio.sleep(min(BACKOFF_S * 2 ** (failed - 1), LONGEST_BACKOFF_S) * jitter)
