"""What went wrong with a request, and what to do about it: try again, give the row up, or stop the run."""

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from star1.replies import Reply

BODY_LIMIT = 32 * 2**20
DETAIL_LIMIT = 300
RAW_LIMIT = 4000

Action = Literal["retry", "give up", "stop"]

STOP_STATUS = {
    401: ("wrong_key", "a key that the endpoint accepts"),
    402: ("no_quota", "an account with quota left"),
    403: ("no_access", "a key with access to this model"),
    404: ("unknown_model", "a model and a base_url that the endpoint knows"),
}
QUOTA_WORDS = ("insufficient_quota", "insufficient balance", "billing_hard_limit")
FILTER_WORDS = ("content_filter", "responsibleaipolicyviolation", "content management policy")


class FaultError(Exception):
    """One failed attempt.

    Attributes:
        reason: one word that is counted.
        detail: the endpoint's or the library's own words.
        action: what to do.
        wait_s: how long the endpoint asks to wait [s], or None.
        raw: start of the body, where there was one.
    """

    def __init__(
        self, reason: str, detail: str, action: Action, status: int | None = None, wait_s: float | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.action = reason, detail[:DETAIL_LIMIT], action
        self.status, self.wait_s, self.raw = status, wait_s, ""


@dataclass(frozen=True)
class Body:
    """A readable answer of an endpoint."""

    reply: Reply
    model: str
    fingerprint: str
    usage: Any


def status_fault(status: int, body: object, headers: Mapping[str, str]) -> FaultError:
    """The fault behind an HTTP status (or the same number in an error object) and its body."""
    code, message = _code_and_message(body)
    told = f"{code} {message}".lower()
    if any(word in told for word in QUOTA_WORDS):
        return FaultError("no_quota", message, "stop", status)
    if status in STOP_STATUS:
        return FaultError(STOP_STATUS[status][0], message, "stop", status)
    if status in (400, 422) and any(word in told for word in FILTER_WORDS):
        return FaultError("content_filter_prompt", message, "give up", status)
    if status in (408, 409, 425, 429) or status >= 500:
        reason = "rate_limit" if status == 429 else "server_error"
        return FaultError(reason, f"status {status}: {message}", "retry", status, retry_after(headers))
    return FaultError("bad_request", f"status {status}: {message}", "give up", status)


def _code_and_message(body: object) -> tuple[str, str]:
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        code = " ".join(str(error[name]) for name in ("code", "type") if error.get(name) is not None)
        return code, str(error.get("message") or code or "no message")
    return "", str(error or "no message")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, from its headers."""
    if milliseconds := headers.get("retry-after-ms"):
        try:
            return float(milliseconds) / 1000
        except ValueError:
            pass
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def read_body(content: bytes) -> Body:
    """Read a chat completion out of a body that came with status 200.

    Raises:
        FaultError: too large, not JSON, an error object, or no usable choice.
    """
    if len(content) > BODY_LIMIT:
        raise FaultError("too_large", f"{len(content)} bytes", "give up", 200)
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _unreadable(f"not JSON ({error})", content) from None
    if isinstance(body, dict) and body.get("error"):
        raise status_fault(_status_in(body["error"]), body, {})
    try:
        choice = body["choices"][0]
        return Body(
            _reply(choice), str(body.get("model") or ""), str(body.get("system_fingerprint") or ""), body.get("usage")
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _unreadable(f"not a chat completion ({type(error).__name__})", content) from None


def _status_in(error: object) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    text = str(code)
    # An error object without a number is most often a fault upstream of a router: it passes.
    return int(text) if text.isdecimal() and 400 <= int(text) <= 599 else 502


def _reply(choice: dict[str, Any]) -> Reply:
    message = choice["message"]
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    refusal = message.get("refusal")
    if not isinstance(content, str | None) or not isinstance(reasoning, str | None):
        raise TypeError("text")
    reply = Reply(content or "", reasoning or None, choice.get("finish_reason"), str(refusal) if refusal else None)
    if (
        not reply.content.strip()
        and not reply.reasoning_content
        and not reply.refusal
        and reply.finish_reason in ("stop", None)
    ):
        raise FaultError("empty", "a reply without text", "retry", 200)
    return reply


def _unreadable(detail: str, content: bytes) -> FaultError:
    fault = FaultError("unreadable_body", detail, "retry", 200)
    fault.raw = content[:RAW_LIMIT].decode("utf-8", "replace")
    return fault
