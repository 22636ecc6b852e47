"""The files of batches: requests as they go out, and what comes back for each."""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from star1.errors import CallError
from star1.faults import BODY_LIMIT, RAW_LIMIT, Body, FaultError, read_body, read_completion, status_fault

FOLDER = Path(".work/batches")
CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([0-9a-f]{64})"')
# What providers say of a request that they did not come to, and the reason that is counted for it.
NOT_DONE = {"batch_expired": "expired", "batch_cancelled": "cancelled"}

Outcome = Body | FaultError


@dataclass(frozen=True)
class Ended:
    """What became of a batch.

    Attributes:
        status: in one word.
        lines: what came back; closed by who reads it.
        error: why the run ends, once the lines are kept.
        again: whether the provider had no room for it, so that it is to be sent again when another has ended.
    """

    status: str
    lines: IO[bytes]
    error: CallError | None = None
    again: bool = False


def scratch() -> IO[bytes]:
    """A file that is gone when it is closed, or with the process: replies may echo a key."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=FOLDER)


def request_line(key: str, path: str, body: Mapping[str, Any]) -> bytes:
    """One request of a batch; `key` names it, and will name its reply."""
    line = {"custom_id": key, "method": "POST", "url": path, "body": dict(body)}
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate: sent escaped, as it is over HTTP
        return json.dumps(line).encode() + b"\n"


def outcomes(lines: Iterable[bytes]) -> Iterator[tuple[str, Outcome]]:
    """What came back for each request, by key, in the lines' order; lines that name no request are passed over."""
    for line in lines:
        if (found := read_line(line)) is not None:
            yield found


def read_line(line: bytes) -> tuple[str, Outcome] | None:
    """The request's key, and its reply or its fault; None for a line that names no request."""
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        named = CUSTOM_ID.search(line)
        return (named[1].decode(), _unreadable(line)) if named else None
    if not isinstance(told, dict) or not isinstance(told.get("custom_id"), str):
        return None
    try:
        return told["custom_id"], _reply(told, line)
    except FaultError as fault:
        return told["custom_id"], _in_batch(fault)


def _reply(told: Mapping[str, Any], line: bytes) -> Body:
    response, error = told.get("response"), told.get("error")
    if not isinstance(response, dict):
        raise _without_response(error, line)
    status, body = response.get("status_code"), response.get("body")
    if status != 200:
        # vLLM leaves the body out and gives the endpoint's error in its place.
        raise status_fault(status if isinstance(status, int) else 502, body or error, {})
    if len(line) > BODY_LIMIT:
        raise FaultError("too_large", f"{len(line)} bytes", "give up", 200)
    return read_completion(body, line)


def _without_response(error: object, line: bytes) -> FaultError:
    code = str(error.get("code")) if isinstance(error, dict) else ""
    if isinstance(error, dict) and code in NOT_DONE:
        return FaultError(NOT_DONE[code], str(error.get("message") or code), "retry")
    if not error:
        return _unreadable(line)
    try:
        read_body(orjson.dumps({"error": error}))
    except FaultError as fault:
        return fault
    raise AssertionError("a body with an error is a fault")


def _in_batch(fault: FaultError) -> FaultError:
    """The fault as it counts in a batch: there is no endpoint to be asked less, so that each refusal is an attempt."""
    fault.reason = "busy" if fault.reason == "rate_limit" else fault.reason
    fault.wait_s = None
    return fault


def _unreadable(line: bytes) -> FaultError:
    fault = FaultError("unreadable_body", "a line of the batch's output that cannot be read", "retry", 200)
    fault.raw = line[:RAW_LIMIT]
    return fault


def missing(status: str) -> FaultError:
    """The fault of a request without a line, in a batch that ended with `status`."""
    if status == "expired":
        return FaultError("expired", "the batch's time was over before its turn came", "retry")
    return FaultError("missing", "the batch came back without a line for it", "retry")
