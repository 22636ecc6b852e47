"""Replies that come in pieces (server-sent events), put together into the completion that would have come whole."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from star1.faults import BODY_LIMIT, RAW_LIMIT, FaultError, parts_text

EVENT_STREAM = "text/event-stream"
DONE = b"[DONE]"
# Where servers put the thinking: DeepSeek and older vLLM, newer vLLM and OpenRouter.
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class Assembled:
    """A chat completion in the making: what the first choice's pieces add up to."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.told: dict[str, Any] = {}
        self.finish_reason: str | None = None
        self.ended = False

    def add(self, data: bytes) -> None:
        """Take one event in.

        Raises:
            FaultError: it is not JSON, or not a piece of a completion.
        """
        if data == DONE:
            self.ended = True
            return
        try:
            piece = orjson.loads(data)
            self.told |= {
                name: piece[name] for name in ("model", "system_fingerprint", "usage", "error") if piece.get(name)
            }
            for choice in piece.get("choices") or ():
                if not choice.get("index"):
                    self._take(choice)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise _broken(f"a piece that is none of a completion ({type(error).__name__})", data) from None

    def _take(self, choice: dict[str, Any]) -> None:
        if choice.get("error"):  # a router whose provider failed half-way
            self.told["error"] = choice["error"]
        delta = choice.get("delta") or choice.get("message") or {}
        for name in TEXTS:
            if text := delta.get(name):
                self.texts.setdefault(name, []).append(text)
        if isinstance(content := delta.get("content"), list):  # of parts, some of which are thinking
            self.texts["content"][-1], thinking = parts_text(content)
            self.texts.setdefault("reasoning", []).append(thinking)
        elif "reasoning_details" in delta and not (delta.get("reasoning") or delta.get("reasoning_content")):
            self.texts.setdefault("reasoning", []).append(parts_text(delta["reasoning_details"])[1])
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def completion(self) -> dict[str, Any]:
        """The whole.

        Raises:
            FaultError: the stream ended before its reply did.
        """
        if "error" not in self.told and not self.ended and self.finish_reason is None:
            raise _broken("the stream ended within the reply", self.so_far())
        try:
            message = {name: "".join(parts) for name, parts in self.texts.items()}
        except TypeError as error:
            raise _broken(f"a text in another form ({error})", b"") from None
        choice = {"index": 0, "finish_reason": self.finish_reason, "message": {"content": None, **message}}
        return {**self.told, "choices": [choice]}

    def so_far(self) -> bytes:
        """The start of what came."""
        texts = ("".join(map(str, self.texts.get(name, ()))) for name in TEXTS)
        return "".join(texts)[:RAW_LIMIT].encode("utf-8", "replace")


def _broken(detail: str, content: bytes) -> FaultError:
    fault = FaultError("broken_stream", detail, "retry", 200)
    fault.raw = content[:RAW_LIMIT]
    return fault


async def assemble(chunks: AsyncIterator[bytes]) -> dict[str, Any]:
    """Put a stream's events together; comments and blank lines, which keep a connection alive, are passed over.

    Raises:
        FaultError: too large, an event that cannot be read, or an end before the reply's.
    """
    whole, rest, size = Assembled(), b"", 0
    async for chunk in chunks:
        if (size := size + len(chunk)) > BODY_LIMIT:
            raise FaultError("too_large", f"more than {BODY_LIMIT} bytes", "give up", 200)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _event(whole, line)
        if whole.ended:
            break
    _event(whole, rest)
    return whole.completion()


def _event(whole: Assembled, line: bytes) -> None:
    field, _, value = line.strip().partition(b":")
    if field == b"data" and value.strip():
        whole.add(value.strip())
