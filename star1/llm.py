"""The one way to ask a language model: every reply is kept before it is used, and none is asked for twice."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from star1.endpoints import Endpoint, Sampling, redact
from star1.errors import CallError, tell
from star1.faults import HINTS, Body, FaultError, raw_text
from star1.gate import Ticket
from star1.inert import inert
from star1.lanes import TELL_AFTER_S, Lane
from star1.parsing import NoReplyError, Parsed, ReplyError
from star1.replies import Reply, Store, reply_key, usage_tokens
from star1.spending import Spending

T = TypeVar("T")

BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 120.0
# Rows in a row that failed for the same reason, none answered between: it is the endpoint, not the rows.
SAME_FAULTS = 8
# Pauses of the whole endpoint in a row, each longer than the last and no reply between, before the run is given up.
REFUSALS = 8
CHARACTERS_PER_TOKEN = 4
# Length of a reply by estimate, as long as none has come [tokens].
UNKNOWN_TOKENS = 500
# Where nobody listens, time seldom helps: further attempts, fewer than for other faults.
CONNECT_RETRIES = 2
REPAIR_TURNS = 2


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
    """Asks one model, through one store: at one endpoint, or at several that take each other's place.

    Args:
        endpoint: who is asked.
        sampling: how replies are sampled.
        store: where they are kept.
        others: further endpoints of the same model; a request goes to the one with the shortest way, and one that cannot
            go on is left out while there are others.

    Attributes:
        asked: requests sent (a retry is not counted again).
        answered: requests answered without sending: from the store, or by an equal one on its way.
        readings: how replies were read, by count.
        slots: requests in flight, at most.
        faults: attempts without a reply, by reason.
        asks: whether requests may be sent; who only looks replies up is no job that a run does.
    """

    asks = True

    def __init__(self, endpoint: Endpoint, sampling: Sampling, store: Store, others: Sequence[Endpoint] = ()) -> None:
        self.endpoint, self.store = endpoint, store
        self.sampling, self.samples = {**(endpoint.extra_body or {}), **sampling.sent()}, sampling.samples
        self.asked = self.answered = 0
        self.readings: Counter[str] = Counter()
        self.lanes = [Lane(one, BACKOFF_S, _spending(one, store)) for one in (endpoint, *others)]
        self.slots = sum(lane.endpoint.slots for lane in self.lanes)
        self._identity = endpoint.identity()
        self._secrets = [lane.secret for lane in self.lanes if lane.secret]
        self._on_their_way: dict[str, asyncio.Future[Reply]] = {}
        self._exchanges: set[asyncio.Task[Reply]] = set()
        self._works = False
        self._replies = self._reply_tokens = 0
        self._unknown = min(sampling.max_tokens or sampling.max_completion_tokens or UNKNOWN_TOKENS, UNKNOWN_TOKENS)
        self._same_faults = ("", 0)
        self._failed: dict[str, tuple[dict[str, Any], NoReplyError]] = {}
        self.faults: Counter[str] = Counter()

    @property
    def left(self) -> str:
        """What goes on without a run that is told to stop, and how to come by it; empty where nothing does."""
        return ""

    async def close(self) -> None:
        """Wait for the replies that are on their way, which may have to be paid for, and close the connections."""
        if self._exchanges:
            _, late = await asyncio.wait(self._exchanges, timeout=TELL_AFTER_S)
            if late:
                tell(f"waiting for {len(late)} replies on their way, to keep them; interrupt to give them up")
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        for lane in self.lanes:
            await lane.close()

    def give_up(self) -> None:
        """Wait no longer for the replies that are on their way."""
        for exchange in self._exchanges:
            exchange.cancel()

    def close_failed(self) -> None:
        """Note that the requests which got no reply are not to be asked again, until somebody says so."""
        for about, error in self._failed.values():
            self.store.give_up(about, error.reason, error.detail, error.reply)
        self._failed.clear()

    def key(self, request: Request) -> str:
        """Under which a reply to `request` is kept."""
        form, sample = request.response_format, request.sample
        return reply_key(self._identity, request.messages, self.sampling, request.template, form, sample)

    async def ask(self, request: Request) -> Reply:
        """The reply to `request`: from the store if it is there, else from the endpoint.

        Raises:
            NoReplyError: this request got no reply, now or in an earlier run that ended; others may.
            CallError: the endpoint cannot go on.
        """
        key = self.key(request)
        if (kept := self.store.get(key)) is not None:
            self.answered, self._works = self.answered + 1, True
            return kept
        if (closed := self.store.given_up(key)) is not None:
            self.answered += 1
            raise NoReplyError(*closed)
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
                # What it wrote may quote a text that it was shown, control tokens and all.
                request = request.then(inert(reply.content), *repair(problem.detail))
            else:
                return parsed.value, parsed.how if turn == 0 else f"{parsed.how}, after repair"
        raise AssertionError("the last turn returns or raises")

    async def _attempts(self, key: str, request: Request) -> Reply:
        self.asked += 1
        failed = attempt = 0
        last: Lane | None = None
        while True:
            lane = self._shortest(last)
            ticket = await lane.gate.enter(sum(self._foreseen(request)))
            try:
                reserved = await lane.reserve(self._foreseen(request), sure=lambda: self._sure)
            except BaseException as error:
                lane.gate.leave(ticket, 0)
                if not isinstance(error, CallError):
                    raise
                self._shut(lane, error)
                self._go_elsewhere(error)
                continue
            if lane.closed is not None:  # while this one waited
                lane.settle(ticket, reserved, (0, 0), answered=False)
                self._go_elsewhere(lane.closed)
                continue
            last, attempt = lane, attempt + 1
            try:
                reply = await self._exchange(key, request, attempt, lane, ticket, reserved)
            except FaultError as fault:
                failed += fault.reason != "rate_limit"  # no fault of the row, and none that it has to pay for
                if (end := lane.closed or self._end(lane, fault, failed)) is not None:
                    self._shut(lane, end)
                    self._go_elsewhere(end)
                    failed = 0
                    continue
                if fault.action == "give up" or failed > lane.endpoint.retries:
                    self._count(lane, fault)
                    raw = raw_text(fault.raw, self._secrets)
                    failure = NoReplyError(fault.reason, self._clean(fault.detail), raw)
                    self._failed[key] = (self._about(key, request, attempt, lane.endpoint), failure)
                    raise failure from None
                await self._back_off(failed, fault)
            else:
                self._same_faults, self._works = ("", 0), True
                lane.gate.answered(ticket)
                return reply

    def _shortest(self, last: Lane | None) -> Lane:
        """The endpoint with the shortest way; after a failed attempt, another one where there is one."""
        if len(self.lanes) == 1:
            return self.lanes[0]
        going = [lane for lane in self.lanes if lane.closed is None] or self.lanes
        others = [lane for lane in going if lane is not last]
        return min(others or going, key=lambda lane: lane.gate.load)

    def _shut(self, lane: Lane, error: CallError) -> None:
        """Ask an endpoint no more."""
        going = sum(one.closed is None for one in self.lanes if one is not lane)
        if lane.shut(error) and going:
            tell(f"left out, while {going} endpoint{'s go' if going > 1 else ' goes'} on: {error}")

    def _go_elsewhere(self, error: CallError) -> None:
        """See that there is another endpoint to ask.

        Raises:
            CallError: there is none.
        """
        if all(lane.closed is not None for lane in self.lanes):
            raise error from None

    def _foreseen(self, request: Request) -> tuple[int, int]:
        """What a request will use, by estimate: its length, and as long a reply as they were so far [tokens]."""
        prompt = sum(len(turn["content"]) for turn in request.messages) // CHARACTERS_PER_TOKEN
        return prompt, self._reply_tokens // self._replies if self._replies else self._unknown

    @property
    def _sure(self) -> bool:
        """Whether there is anything to go by for the length of a reply."""
        return self._replies > 0

    async def _exchange(
        self, key: str, request: Request, attempt: int, lane: Lane, ticket: Ticket, reserved: float
    ) -> Reply:
        """One attempt, which goes on to its end and into the store even where nobody waits for it any more."""
        task = asyncio.create_task(self._send(key, request, attempt, lane, ticket, reserved))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanged)
        return await asyncio.shield(task)

    def _exchanged(self, task: asyncio.Task[Reply]) -> None:
        self._exchanges.discard(task)
        # Where nobody waits any more, asyncio would print the fault in the endpoint's own words, key and all.
        task.cancelled() or task.exception()

    async def _send(
        self, key: str, request: Request, attempt: int, lane: Lane, ticket: Ticket, reserved: float
    ) -> Reply:
        started, used, answered = time.monotonic(), None, False
        try:
            body = await lane.post(request.role, self.body(request))
            used, answered = self._used(body), True
        except FaultError as fault:
            self._keep_fault(key, request, attempt, lane, fault)
            # Before the slot is free: the next request is to know of it.
            lane.heed(ticket, fault)
            if (end := self._end(lane, fault, 0)) is not None:
                self._shut(lane, end)
            raise
        finally:
            lane.settle(ticket, reserved, used, answered)
        return self.keep(self._about(key, request, attempt, lane.endpoint), body, time.monotonic() - started)

    def keep(self, about: Mapping[str, Any], body: Body, seconds: float) -> Reply:
        """Put a reply into the store; gives it as it is there."""
        note = "endpoint" if self.endpoint.provider == "openai" else body.fingerprint
        told = {"served_model": body.model, "fingerprint": body.fingerprint, "usage": body.usage}
        self.store.keep({**about, **told, "seconds": round(seconds, 3)}, replace(body.reply, note=note))
        # What is used is what the next run will find: a reply that echoes the key is kept without it.
        return self.store.get(about["key"]) or body.reply

    def _used(self, body: Body) -> tuple[int, int] | None:
        """What a request used [tokens], as the endpoint counts; None where it does not say."""
        if tokens := usage_tokens(body.usage):
            self._replies, self._reply_tokens = self._replies + 1, self._reply_tokens + tokens[1]
        return tokens

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent, but for the model's name."""
        body = {"messages": list(request.messages), **self.sampling}
        if "seed" in body:
            body["seed"] += request.sample  # the same seed would give the same reply again
        if request.response_format is not None:
            body["response_format"] = request.response_format
        return body

    def _about(self, key: str, request: Request, attempt: int, endpoint: Endpoint) -> dict[str, Any]:
        about = {
            "key": key,
            "item": request.item,
            "role": request.role,
            "label": endpoint.label,
            "model": endpoint.model,
            "attempt": attempt,
        }
        return about | ({"endpoint": endpoint.url} if endpoint.provider == "openai" else {})

    def told(self) -> dict[str, Any]:
        """Calls so far, for whoever watches; tokens and money are those of the replies that present rows use, as in the costs."""
        used, price = self.store.actuals, self.endpoint.price
        return {
            "asked": self.asked,
            "answered": self.answered,
            "replies": used.replies,
            "in_flight": sum(lane.gate.in_flight for lane in self.lanes),
            "waiting": sum(lane.gate.waiting for lane in self.lanes),
            "prompt_tokens": used.prompt_tokens,
            "reply_tokens": used.reply_tokens,
            "usd": price.cost(used.prompt_tokens, used.reply_tokens) if price else None,
            "failed_attempts": dict(self.faults),
        }

    def _keep_fault(self, key: str, request: Request, attempt: int, lane: Lane, fault: FaultError) -> None:
        self.faults[fault.reason] += 1
        told = {"reason": fault.reason, "http_status": fault.status, "detail": self._clean(fault.detail)}
        if fault.raw:
            told["raw"] = raw_text(fault.raw, self._secrets)
        self.store.keep({**self._about(key, request, attempt, lane.endpoint), **told}, None)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = redact(text, secret)
        return text.encode("utf-8", "replace").decode()

    def _error(self, lane: Lane, found: str, expected: str, reason: str) -> CallError:
        key = lane.endpoint.key or "no key (llm endpoint field `key` is empty)"
        hint = f"{HINTS[reason].format(key=key)}; replies that came are kept"
        return CallError(lane.where, found, expected, hint)

    def _end(self, lane: Lane, fault: FaultError, failed: int) -> CallError | None:
        """Why no further request can succeed at an endpoint, or None."""
        # For a wrong key, the endpoint's words are the place where the key is echoed: they are left out.
        words = fault.reason + ("" if fault.status in (401, 403) else f" ({self._clean(fault.detail)})")
        if fault.action == "stop":
            return self._error(lane, f"status {fault.status}, {words}", "an endpoint that answers", fault.reason)
        if fault.reason == "no_connection" and failed > min(CONNECT_RETRIES, lane.endpoint.retries):
            return self._error(lane, words, "a server that listens there", fault.reason)
        if fault.reason == "rate_limit" and lane.gate.refusals >= REFUSALS:
            found = f"{REFUSALS} pauses in a row ended in {words}"
            return self._error(lane, found, "an endpoint that answers", fault.reason)
        longest = lane.endpoint.max_wait_s
        if fault.wait_s is None or fault.wait_s <= longest:
            return None
        again = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() + fault.wait_s))
        found = f"{words}: asks to wait {fault.wait_s:.0f} s, until {again}"
        expected = f"a wait of at most {longest:.0f} s (the endpoint's max_wait_s)"
        hint = f"start the stage again after {again}; replies that came are kept"
        return CallError(lane.where, found, expected, hint)

    def _count(self, lane: Lane, fault: FaultError) -> None:
        """End the run when one row after the other fails alike; rows may do so of themselves where others succeed."""
        own = fault.action == "give up" or fault.status == 200
        if fault.reason == "content_filter_prompt" or (own and self._works):
            return
        reason, count = self._same_faults
        self._same_faults = (fault.reason, count + 1 if fault.reason == reason else 1)
        if self._same_faults[1] >= SAME_FAULTS:
            found = f"{SAME_FAULTS} requests in a row failed with {fault.reason} ({self._clean(fault.detail)})"
            raise self._error(lane, found, "an endpoint that answers", fault.reason)

    async def _back_off(self, failed: int, fault: FaultError) -> None:
        """Wait before a row's next attempt, unless the gate makes it wait."""
        if fault.reason != "rate_limit" and fault.wait_s is None:
            jitter = random.uniform(0.5, 1.0)  # spreads attempts over time, decides no result
            await asyncio.sleep(min(BACKOFF_S * 2 ** (failed - 1), LONGEST_BACKOFF_S) * jitter)


def _spending(endpoint: Endpoint, store: Store) -> Spending | None:
    """What was spent at the endpoint; read only where there is a limit."""
    return None if endpoint.max_usd is None else Spending(endpoint, store.path)
