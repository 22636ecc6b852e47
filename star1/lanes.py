"""The way to one endpoint: its connections, slots and rates, its money, and what it sends back."""

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from star1.endpoints import Endpoint, connect
from star1.errors import CallError, tell
from star1.faults import Body, FaultError, connection_errors, connection_fault, read_body, read_completion, status_fault
from star1.gate import Gate, Ticket
from star1.preflight import Preflight
from star1.prices import Budget
from star1.spending import Spending
from star1.streams import EVENT_STREAM, assemble

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

TELL_AFTER_S = 3.0
# Roles whose replies begin with long thinking.
REASONING = frozenset({"reason", "benign_reason"})


class Lane:
    """The way to one endpoint.

    Args:
        endpoint: who is asked.
        pause_s: first pause after a refusal that does not say how long to wait [s].
        spending: what is spent at the endpoint elsewhere, where that counts.

    Attributes:
        closed: why no more is asked here; None while it goes on.
    """

    def __init__(self, endpoint: Endpoint, pause_s: float, spending: Spending | None = None) -> None:
        self.endpoint, self.secret = endpoint, endpoint.secret()
        limits = (endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self.gate = Gate(endpoint.slots, *limits, pause_s=pause_s, longest_pause_s=endpoint.max_wait_s)
        self.budget = Budget(endpoint.price, endpoint.max_usd, spending.usd if spending else 0.0)
        self.closed: CallError | None = None
        self._preflight = Preflight(endpoint)
        self._spending = spending
        self._settled = asyncio.Event()
        self._in_pieces = endpoint.stream
        self._counted = True

    @functools.cached_property
    def api(self) -> "AsyncOpenAI":
        """The endpoint's client, made when it is first asked."""
        return connect(self.endpoint)

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"model {self.endpoint.model!r} at {self.api.base_url}"

    async def close(self) -> None:
        """Close the connections."""
        if "api" in self.__dict__:
            await self.api.close()

    async def reserve(self, foreseen: tuple[int, int], sure: Callable[[], bool]) -> float:
        """Set aside what a request will cost, as soon as that is not too much [USD].

        Args:
            foreseen: prompt and reply [tokens].
            sure: tells whether any reply has come to go by.

        Raises:
            CallError: it would pass the endpoint's limit, and nothing is on its way that may cost less than foreseen; or
                before the first one, the endpoint does not know the model.
        """
        await self._preflight.passed(self.api)
        while True:
            if self._spending is not None:
                self.budget.spent += self._spending.news()
            if (reserved := self.budget.reserve(*foreseen, sure())) is not None:
                return reserved
            if not self.budget.open or self.closed is not None:
                raise self.closed or self._spent()
            self._settled.clear()
            await self._settled.wait()

    def settle(self, ticket: Ticket, reserved: float, used: tuple[int, int] | None, answered: bool) -> None:
        """A request has come back; `used` is what it used, where that is known [tokens]."""
        self.budget.settle(reserved, used, answered)
        self.gate.leave(ticket, None if used is None else sum(used))
        self._settled.set()

    def _spent(self) -> CallError:
        found = f"{self.budget.spent:.2f} USD are spent, and the next request would pass the limit"
        expected = f"at most {self.endpoint.max_usd:g} USD (the endpoint's max_usd)"
        hint = "raise max_usd and start the stage again; replies that came are kept"
        return CallError(self.where, found, expected, hint)

    def shut(self, error: CallError) -> bool:
        """Ask here no more; gives whether that is news."""
        if self.closed is not None:
            return False
        self.closed = error
        self.gate.shut()
        self._settled.set()
        return True

    def heed(self, ticket: Ticket, fault: FaultError) -> None:
        """Ask a busy endpoint less at a time; what it asks to wait holds for all requests."""
        gate, episode = self.gate, self.gate.episode
        wait = None if fault.wait_s is None else min(fault.wait_s, self.endpoint.max_wait_s)
        if fault.reason == "rate_limit":
            pause = gate.refused(ticket, wait)
            if gate.episode > episode and pause >= TELL_AFTER_S:
                tell(f"{fault.reason}: waiting for {pause:.0f} s, then {int(gate.limit)} requests at a time")
            return
        if fault.status == 503:
            gate.strained(ticket)
        if wait is not None:
            gate.hold(wait + random.uniform(0.5, 1.0) * gate.pause_s)

    async def post(self, role: str, body: Mapping[str, Any]) -> Body:
        """Send a chat request and read what comes back.

        Raises:
            FaultError: no usable reply.
        """
        import openai

        sent = {"model": self.endpoint.served_as or self.endpoint.model, **body}
        _ = self.api  # making the client takes time, which is none of the endpoint's
        try:
            if self._streams(role):
                return await self._streamed(sent)
            return await self._whole(sent)
        except TimeoutError:
            raise FaultError("timeout", f"no reply within {self.endpoint.timeout_s:g} s", "retry") from None
        except openai.APIStatusError as error:
            fault = status_fault(error.status_code, error.body, error.response.headers)
            if not self._refuses_stream(fault):
                raise fault from None
        except connection_errors() as error:
            raise connection_fault(error) from None
        return await self.post(role, body)

    def _streams(self, role: str) -> bool:
        if self.endpoint.provider != "openai":
            return False
        return role in REASONING if self._in_pieces is None else self._in_pieces

    def _refuses_stream(self, fault: FaultError) -> bool:
        """Whether a server refuses a request for being streamed; it gets no such requests from then on."""
        told = fault.detail.lower()
        if fault.reason != "bad_request" or "stream" not in told or self._in_pieces is False:
            return False
        if "stream_options" in told and self._counted:
            self._counted = False
        else:
            self._in_pieces = False
        return True

    async def _whole(self, body: Mapping[str, Any]) -> Body:
        import httpx2

        # The limit of the whole: a server that sends a byte now and then would keep any other waiting for ever.
        async with asyncio.timeout(self.endpoint.timeout_s):
            # The raw answer: what a broken body means is decided in one place, `faults.read_body`.
            answer = await self.api.post("/chat/completions", cast_to=httpx2.Response, body=body)
        return read_body(bytes(answer.content))

    async def _streamed(self, body: Mapping[str, Any]) -> Body:
        import httpx2

        counted = {"stream_options": {"include_usage": True}} if self._counted else {}
        body = {**body, "stream": True, **counted}
        async with asyncio.timeout(self.endpoint.timeout_s):
            answer = await self.api.post("/chat/completions", cast_to=httpx2.Response, body=body, stream=True)
        try:
            if EVENT_STREAM not in answer.headers.get("content-type", ""):  # some send the whole all the same
                async with asyncio.timeout(self.endpoint.timeout_s):
                    return read_body(await answer.aread())
            completion = await assemble(self._chunks(answer))
        finally:
            await answer.aclose()
        return read_completion(completion, b"")

    async def _chunks(self, answer: "httpx2.Response") -> AsyncIterator[bytes]:
        idle, chunks, clock = self.endpoint.idle_timeout_s, answer.aiter_bytes(), asyncio.get_running_loop().time
        last = clock()
        while True:
            try:
                async with asyncio.timeout(idle):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise FaultError("timeout", f"silent for {idle:g} s within a streamed reply", "retry") from None
            if b"data:" in chunk:
                last = clock()
            elif clock() - last > self.endpoint.timeout_s:  # a server may keep a connection alive for ever
                raise FaultError("timeout", f"nothing but signs of life for {self.endpoint.timeout_s:g} s", "retry")
            yield chunk
