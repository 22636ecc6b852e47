"""The one way to ask a language model: every reply is kept before it is used, and none is asked for twice."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from star1.endpoints import Endpoint, Sampling, connect, redact
from star1.errors import CallError
from star1.faults import FaultError, read_body, status_fault
from star1.parsing import Parsed, ReplyError
from star1.replies import Reply, Store, reply_key

T = TypeVar("T")

BACKOFF_S = 1.0
# A longer wait than this is for the user to decide on, not for a job to sit through.
LONGEST_WAIT_S = 120.0
# Rows in a row that failed for the same reason, none answered between: it is the endpoint, not the rows.
SAME_FAULTS = 8
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
    """Asks one endpoint, through one store.

    Attributes:
        asked: requests sent (a retry is not counted again).
        answered: requests answered without sending: from the store, or by an equal one on its way.
        readings: how replies were read, by count.
    """

    def __init__(self, endpoint: Endpoint, sampling: Sampling, store: Store) -> None:
        self.endpoint, self.store = endpoint, store
        self.sampling = sampling.sent()
        self.asked = self.answered = 0
        self.readings: Counter[str] = Counter()
        self._identity = endpoint.identity()
        self._secret = endpoint.secret()
        self._api = connect(endpoint)
        self._slots = asyncio.Semaphore(endpoint.slots)
        self._on_their_way: dict[str, asyncio.Future[Reply]] = {}
        self._open_again = 0.0
        self._same_faults = ("", 0)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def ask(self, request: Request) -> Reply:
        """The reply to `request`: from the store if it is there, else from the endpoint.

        Raises:
            ReplyError: this request got no usable reply; others may.
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
            self.answered += 1
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
        except (ReplyError, CallError) as error:
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

        Args:
            request: what is asked.
            parse: reads a reply.
            repair: gives (message, digest of its template) for what `parse` found wrong; None asks only once.

        Raises:
            ReplyError: no reply, or none that could be read.
            CallError: the endpoint cannot go on.
        """
        for turn in range(REPAIR_TURNS + 1):
            reply = await self.ask(request)
            try:
                parsed = parse(reply)
            except ReplyError as problem:
                if repair is None or not problem.repairable or turn == REPAIR_TURNS:
                    raise
                request = request.then(reply.content, *repair(problem.detail))
            else:
                self.readings[parsed.how if turn == 0 else f"{parsed.how}, after repair"] += 1
                return parsed.value
        raise AssertionError("the last turn returns or raises")

    async def _attempts(self, key: str, request: Request) -> Reply:
        self.asked += 1
        for attempt in range(self.endpoint.retries + 1):
            await self._until_open()
            started = time.monotonic()
            try:
                reply = await self._send(key, request, attempt, started)
            except FaultError as fault:
                self._keep_fault(key, request, attempt, fault)
                self._stop_on(fault)
                if fault.action == "give up" or attempt == self.endpoint.retries:
                    self._count(fault)
                    raise ReplyError(fault.reason, self._clean(fault.detail), self._clean(fault.raw)) from None
                await self._back_off(attempt, fault)
            else:
                self._same_faults = ("", 0)
                return reply
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, key: str, request: Request, attempt: int, started: float) -> Reply:
        content = await self._post(request)
        body = read_body(content)
        note = "endpoint" if self.endpoint.provider == "openai" else body.fingerprint
        reply = replace(body.reply, note=note)
        self.store.keep(
            {
                **self._about(key, request, attempt),
                "served_model": body.model,
                "fingerprint": body.fingerprint,
                "usage": body.usage,
                "seconds": round(time.monotonic() - started, 3),
            },
            reply,
        )
        return reply

    async def _post(self, request: Request) -> bytes:
        import httpx2
        import openai

        body = {"model": self.endpoint.model, "messages": list(request.messages), **self.sampling}
        if request.response_format is not None:
            body["response_format"] = request.response_format
        try:
            # The raw answer: what a broken body means is decided in one place, `faults.read_body`.
            answer = await self._api.post("/chat/completions", cast_to=httpx2.Response, body=body)
            return bytes(answer.content)
        except openai.APIConnectionError as error:
            # The aiohttp transport reports a refused connection as a time-out of connecting.
            late = isinstance(error, openai.APITimeoutError) and not isinstance(error.__cause__, httpx2.ConnectTimeout)
            reason = "timeout" if late else "no_connection"
            raise FaultError(reason, f"{error} ({error.__cause__!r})", "retry") from None
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

    def _stop_on(self, fault: FaultError) -> None:
        """End the run where no further request can succeed."""
        if fault.action == "stop":
            # For a wrong key, the endpoint's words are the place where the key is echoed: they are left out.
            words = "" if fault.status in (401, 403) else f" ({self._clean(fault.detail)})"
            key = self.endpoint.key or "no key (llm endpoint field `key` is empty)"
            hints = {
                "wrong_key": f"check the value of environment variable {key}",
                "no_access": f"check what the key in environment variable {key} may use",
                "no_quota": f"top up the account behind {key}; replies that came are kept",
                "unknown_model": "check the endpoint's model and base_url",
            }
            raise CallError(
                self._where(),
                f"status {fault.status}, {fault.reason}{words}",
                "an endpoint that answers",
                hints[fault.reason],
            )
        if fault.wait_s is not None and fault.wait_s > LONGEST_WAIT_S:
            raise CallError(
                self._where(),
                f"{fault.reason}: asks to wait {fault.wait_s:.0f} s",
                f"a wait of at most {LONGEST_WAIT_S:.0f} s",
                "start the stage again later: replies that came are kept",
            )

    def _count(self, fault: FaultError) -> None:
        if fault.reason == "content_filter_prompt":  # the prompts' own fault, and with harmful prompts a frequent one
            return
        reason, count = self._same_faults
        self._same_faults = (fault.reason, count + 1 if fault.reason == reason else 1)
        if self._same_faults[1] >= SAME_FAULTS:
            raise CallError(
                self._where(),
                f"{SAME_FAULTS} requests in a row failed with {fault.reason} ({self._clean(fault.detail)})",
                "an endpoint that answers",
                "check that the server is up and that its address is right; replies that came are kept",
            )

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
