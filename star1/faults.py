"""What went wrong with a request, and what to do about it: try again, give the row up, or stop the run."""

import base64
import codecs
import email.utils
import math
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson

from star1.endpoints import redact
from star1.replies import Reply

BODY_LIMIT = 32 * 2**20
DETAIL_LIMIT = 300
RAW_LIMIT = 4000

Action = Literal["retry", "give up", "stop"]

STOP_STATUS = {401: "wrong_key", 402: "no_quota", 403: "no_access", 404: "unknown_model"}
QUOTA_STATUS = (402, 403, 429)
QUOTA_WORDS = ("insufficient_quota", "insufficient balance", "billing_hard_limit")
FILTER_STATUS = (400, 403, 422)
FILTER_WORDS = ("content_filter", "responsibleaipolicyviolation", "content management policy", "requires moderation")
# What routers and servers write in place of a status, within a body that comes with 200.
STATUS_OF_WORD: Mapping[str, int] = {
    "invalid_api_key": 401,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "billing_hard_limit_reached": 429,
    **dict.fromkeys(FILTER_WORDS, 400),
}
BOM = b"\xef\xbb\xbf"
# Longer waits are all the same to a run, and their ends cannot always be told as a date [s].
LONGEST_WAIT_S = 366 * 86400.0
# What servers say when a reply ended with them, and not with the model.
BROKEN_OFF = ("error", "abort")

# What a user can do about a reason; {key} is the name of the environment variable.
HINTS: Mapping[str, str] = {
    "wrong_key": "check the value of environment variable {key}",
    "no_access": "check what the key in environment variable {key} may use",
    "no_quota": "top up the account behind {key}",
    "unknown_model": "check the endpoint's model and base_url",
    "no_connection": "start the server, or correct the endpoint's base_url",
    "redirected": "correct the endpoint's base_url: what is sent to another address may be read there",
    "connection_lost": "lower the endpoint's slots, and look into the server's log",
    "rate_limit": "lower the endpoint's slots, or start the stage again later",
    "timeout": "raise the endpoint's timeout_s, or lower its slots",
    "server_error": "look into the server's log, or start the stage again later",
    "aborted": "look into the server's log, or start the stage again later",
    "bad_request": "see what the endpoint says against the request: its model, the stage's sampling, a prompt too long",
    "unreadable_body": "check that base_url is that of an OpenAI-compatible server, with its version part",
    "broken_stream": "look into the server's log, or set the endpoint's stream to false",
    "busy": "start the stage again later",
    "expired": "start the stage again, or lower the endpoint's batch.requests",
    "missing": "see what the provider says of the batch, and start the stage again",
    "cancelled": "start the stage again",
    "empty": "check the stage's sampling (max_tokens), or take another model",
    "too_large": "lower the stage's sampling.max_tokens",
    "content_filter_prompt": "ask an endpoint without a filter of prompts",
}


class FaultError(Exception):
    """One failed attempt.

    Attributes:
        reason: one word that is counted.
        detail: the endpoint's or the library's own words.
        action: what to do.
        wait_s: how long the endpoint asks to wait [s], or None.
        raw: start of the body, where there was one: as it came, the key not struck out.
    """

    def __init__(
        self, reason: str, detail: str, action: Action, status: int | None = None, wait_s: float | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.action = reason, detail[:DETAIL_LIMIT], action
        self.status, self.wait_s, self.raw = status, wait_s, b""


def raw_text(raw: bytes, secrets: Iterable[str | None]) -> str:
    """The start of a body as it may be kept: without the keys, and in base64 where it is no text."""
    text = raw.decode("latin-1")
    for secret in secrets:
        text = redact(text, secret)
    clean = text.encode("latin-1")
    try:
        # A last character that was cut in two is no fault of the body's.
        return codecs.getincrementaldecoder("utf-8")().decode(clean)
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(clean).decode()}"


@dataclass(frozen=True)
class Body:
    """A readable answer of an endpoint."""

    reply: Reply
    model: str
    fingerprint: str
    usage: Any


@lru_cache
def connection_errors() -> tuple[type[Exception], ...]:
    """What the client raises where no whole answer came: for some broken answers, its transport's own errors."""
    import httpx2
    import openai

    known: tuple[type[Exception], ...] = (openai.APIConnectionError, httpx2.HTTPError, OSError)
    try:
        import aiohttp
    except ImportError:  # as in `endpoints.connect`
        return known
    return (*known, aiohttp.ClientError)


def connection_fault(error: Exception) -> FaultError:
    """The fault behind an exception of the client that has no HTTP status."""
    import httpx2

    causes = list(_causes(error))
    detail = " ".join(str(causes[1] if len(causes) > 1 else error).split())
    # The aiohttp transport reports a refused connection or an unknown host as a time-out of connecting.
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return FaultError("no_connection", f"connection refused: {detail}", "retry")
    if any(isinstance(cause, socket.gaierror | ssl.SSLError) for cause in causes):
        return FaultError("no_connection", detail, "retry")
    # Nor is a server that hangs up late, though the same transport says so.
    lost = any(type(cause).__name__ == "ServerDisconnectedError" for cause in causes)
    late = not lost and any(isinstance(cause, httpx2.TimeoutException) for cause in causes)
    return FaultError("timeout" if late else "connection_lost", detail, "retry")


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def status_fault(status: int, body: object, headers: Mapping[str, str]) -> FaultError:
    """The fault behind an HTTP status (or the same number in an error object) and its body."""
    code, message = _code_and_message(body)
    told = f"{code} {message}".lower()
    # Messages may quote the prompt, so words count only beside a status that goes with them.
    if status in QUOTA_STATUS and any(word in told for word in QUOTA_WORDS):
        return FaultError("no_quota", message, "stop", status)
    if status in FILTER_STATUS and any(word in told for word in FILTER_WORDS):
        return FaultError("content_filter_prompt", message, "give up", status)
    if status in range(300, 400):
        place = headers.get("location", "nowhere")
        return FaultError("redirected", f"status {status}, to {place}", "retry", status)
    if status in STOP_STATUS:
        return FaultError(STOP_STATUS[status], message, "stop", status)
    if status in (408, 409, 425, 429) or status >= 500:
        reason = "rate_limit" if status == 429 else "server_error"
        return FaultError(reason, f"status {status}: {message}", "retry", status, retry_after(headers))
    return FaultError("bad_request", f"status {status}: {message}", "give up", status)


def _code_and_message(body: object) -> tuple[str, str]:
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        code = " ".join(str(error[name]) for name in ("code", "type") if error.get(name) is not None)
        told = str(error.get("message") or error.get("detail") or code or "no message")
        return code, "; ".join([told, *_severities(error)])
    return "", str(error or "no message")


def _severities(error: Mapping[str, Any]) -> list[str]:
    """What Azure's filter found in a prompt: a category and how severe it is."""
    inner = error.get("innererror")
    found = inner.get("content_filter_result") if isinstance(inner, dict) else None
    marks = found.items() if isinstance(found, dict) else ()
    return [
        f"{name} {mark.get('severity', 'found')}"
        for name, mark in marks
        if isinstance(mark, dict) and mark.get("filtered")
    ]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, from its headers."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if not math.isnan(seconds):
            return min(max(0.0, seconds), LONGEST_WAIT_S)
    try:
        until = email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, until - time.time()), LONGEST_WAIT_S)


def read_body(content: bytes) -> Body:
    """Read a chat completion out of a body that came with status 200.

    Raises:
        FaultError: too large, not JSON, an error object, or no usable choice.
    """
    if len(content) > BODY_LIMIT:
        raise FaultError("too_large", f"{len(content)} bytes", "give up", 200)
    try:
        body = orjson.loads(content.removeprefix(BOM))
    except orjson.JSONDecodeError as error:
        raise _unreadable(f"not JSON ({error})", content) from None
    return read_completion(body, content)


def read_completion(body: Any, content: bytes) -> Body:
    """Read a chat completion; `content` is what is kept of it where it cannot be read.

    Raises:
        FaultError: an error object, or no usable choice.
    """
    if isinstance(body, dict) and (told := body if body.get("object") == "error" else body.get("error")):
        raise status_fault(_status_in(told), {"error": told}, {})
    try:
        choice = body["choices"][0]
        if choice.get("error"):  # a router whose provider failed half-way
            raise status_fault(_status_in(choice["error"]), choice, {})
        return Body(
            _reply(choice), str(body.get("model") or ""), str(body.get("system_fingerprint") or ""), body.get("usage")
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _unreadable(f"not a chat completion ({type(error).__name__})", content) from None


def _status_in(error: object) -> int:
    words = [str(error.get(name)) for name in ("code", "type", "status")] if isinstance(error, dict) else []
    for word in words:
        if re.fullmatch("[45][0-9]{2}", word):
            return int(word)
        if status := STATUS_OF_WORD.get(word.lower()):
            return status
    # An error object that tells no more is most often a fault upstream of a router: it passes.
    return 502


def _reply(choice: dict[str, Any]) -> Reply:
    message = choice["message"]
    content, thinking = parts_text(message.get("content"))
    reasoning = message.get("reasoning_content") or message.get("reasoning") or thinking
    reasoning = reasoning or parts_text(message.get("reasoning_details"))[1]
    refusal = message.get("refusal")
    if not isinstance(reasoning, str | None):
        raise TypeError("text")
    if choice.get("finish_reason") in BROKEN_OFF:
        raise FaultError("aborted", f"the reply ended with {choice['finish_reason']!r}", "retry", 200)
    reply = Reply(content, reasoning or None, choice.get("finish_reason"), str(refusal) if refusal else None)
    if (
        not reply.content.strip()
        and not reply.reasoning_content
        and not reply.refusal
        and reply.finish_reason in ("stop", None)
    ):
        raise FaultError("empty", "a reply without text", "retry", 200)
    return reply


def parts_text(content: object) -> tuple[str, str]:
    """Text and thinking of a message's content, which is a text or a list of parts.

    Raises:
        TypeError: neither.
    """
    if isinstance(content, str | None):
        return content or "", ""
    if not isinstance(content, list):
        raise TypeError("text")
    text, thinking = "", ""
    for part in content:
        if part["type"] in ("text", "output_text"):
            text += part["text"]
        elif part["type"] == "thinking":  # holds a text, or parts of text
            thinking += "".join(parts_text(part["thinking"]))
        elif part["type"] in ("reasoning.text", "reasoning.summary"):
            thinking += part.get("text") or part.get("summary") or ""
        elif part["type"] != "reasoning.encrypted":
            raise TypeError("part")
    return text, thinking


def _unreadable(detail: str, content: bytes) -> FaultError:
    fault = FaultError("unreadable_body", detail, "retry", 200)
    fault.raw = content[:RAW_LIMIT]
    return fault
