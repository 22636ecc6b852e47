"""How endpoints misbehave, by name: the bytes that come over the wire, and how the connection ends."""

import base64
import gzip
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson

from tests.loopback import completion as _completion

HUGE_BYTES = 64 * 2**20
FOR_EVER_S = 3600.0


@dataclass(frozen=True)
class Asked:
    """A request that is to be answered badly: how many of its item came before, a good reply's text, the client's key."""

    role: str
    item: str
    place: int
    text: str
    secret: str = "none"


@dataclass(frozen=True)
class Sent:
    """What goes over the wire after `wait_s`: whole, or `piece` bytes `every_s`; and what becomes of the connection."""

    data: bytes
    end: Literal["open", "close", "reset"] = "open"
    wait_s: float = 0.0
    piece: int = 0
    every_s: float = 0.0


Fault: TypeAlias = Callable[[Asked], Sent]


def completion(text: str | None, item: str, finish_reason: str | None = "stop", **message: object) -> dict[str, Any]:
    """A chat completion with one choice, and an id of its own."""
    made = _completion(text)
    made["choices"][0]["message"] |= message
    made["choices"][0]["finish_reason"] = finish_reason
    return {**made, "id": f"chatcmpl-{item}"}


def http(content: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """A response; a header that is "" is left out."""
    sent = {"content-type": "application/json", "content-length": str(len(content))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in sent.items() if value]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode() + content


def ok(body: object, **headers: str) -> Sent:
    """A good response with a JSON body."""
    return Sent(http(orjson.dumps(body), **headers))


def error(status: int, message: str, code: object = None, **headers: str) -> Fault:
    """An error object beside its status; `{key}` and `{ends}` in the message are the key, whole and in part."""

    def fault(asked: Asked) -> Sent:
        ends = f"{asked.secret[:7]}****{asked.secret[-4:]}"
        text = message.replace("{key}", asked.secret).replace("{ends}", ends)
        body = {"error": {"message": text, "code": code, "type": "error", "param": None}}
        return Sent(http(orjson.dumps(body), f"{status} Status", **headers))

    return fault


def body(make: Callable[[Asked], object], **headers: str) -> Fault:
    """Status 200 and some JSON."""
    return lambda asked: ok(make(asked), **headers)


def raw(make: Callable[[bytes], bytes], status: str = "200 OK", **headers: str) -> Fault:
    """What `make` does to the bytes of a good body."""
    return lambda asked: Sent(http(make(_good(asked)), status, **headers))


def reply(make: Callable[[str], str | None], finish_reason: str | None = "stop", **message: object) -> Fault:
    """A chat completion with another text, or another end."""
    return body(lambda asked: completion(make(asked.text), asked.item, finish_reason, **message))


def fault_of(name: str) -> Fault:
    """A fault by its name; `text:` and base64 is a reply of that text, with the client's key for `{key}`."""
    if name.startswith("text:"):
        text = base64.urlsafe_b64decode(name.removeprefix("text:")).decode()
        return body(lambda asked: completion(text.replace("{key}", asked.secret), asked.item))
    return FAULTS[name]


def text_fault(text: str) -> str:
    """The name of the fault that replies with `text`."""
    return f"text:{base64.urlsafe_b64encode(text.encode()).decode()}"


def _good(asked: Asked) -> bytes:
    return orjson.dumps(completion(asked.text, asked.item))


def wire(
    make: Callable[[bytes], bytes],
    end: Literal["open", "close", "reset"],
    wait_s: float = 0.0,
    piece: int = 0,
    every_s: float = 0.0,
) -> Fault:
    """What `make` does to all bytes of a good response, head and body."""
    return lambda asked: Sent(make(http(_good(asked))), end, wait_s, piece, every_s)


def _half(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _content(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[2]


def _chunked(data: bytes, last: bytes) -> bytes:
    content = _content(data)
    start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    return start + b"%x\r\n%s\r\n" % (len(content) // 2, content[: len(content) // 2]) + last


def _told_length(data: bytes, more: int) -> bytes:
    content = _content(data)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(content) + more) + content


def _without_tags(text: str) -> str:
    return text.replace("<think>", "").replace("</think>", "")


def _thinking(text: str) -> str:
    return text.partition("</think>")[0].removeprefix("<think>").strip()


def _answer(text: str) -> str:
    return text.rpartition("</think>")[2].strip()


def _own_field(name: str, make: Callable[[str], object]) -> Fault:
    """Thinking in a field of its own, the answer as text."""
    return body(
        lambda asked: completion(_answer(asked.text), asked.item, "stop", **{name: make(_thinking(asked.text))})
    )


def _text_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text[: len(text) // 2]}, {"type": "text", "text": text[len(text) // 2 :]}]


def _alternating(asked: Asked) -> Sent:
    # Its first, third, fifth ... request is refused, so that an item is answered at its second.
    return error(429, "slow down")(asked) if asked.place % 2 == 0 else Sent(http(_good(asked)))


def _date(asked: Asked) -> Sent:
    at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() - 5))
    return error(429, "slow down", retry_after=at)(asked)


def _with_parts(asked: Asked) -> Sent:
    made = completion(None, asked.item)
    made["choices"][0]["message"]["content"] = _text_parts(asked.text)
    return ok(made)


def _with_thinking_parts(asked: Asked) -> Sent:
    made = completion(None, asked.item)
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": _thinking(asked.text)}]}
    made["choices"][0]["message"]["content"] = [thinking, {"type": "text", "text": _answer(asked.text)}]
    return ok(made)


def _changed(**fields: object) -> Fault:
    """A good body with other fields at its top; None leaves one out."""

    def fault(asked: Asked) -> Sent:
        made = {**completion(asked.text, asked.item), **fields}
        return ok({name: value for name, value in made.items() if value is not None})

    return fault


def _two_choices(asked: Asked) -> Sent:
    made = completion(asked.text, asked.item)
    made["choices"] += completion("something else", asked.item)["choices"]
    return ok(made)


def _json_depth(_asked: Asked) -> Sent:
    return Sent(http(b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"))


FILTERED = {
    "hate": {"filtered": False, "severity": "safe"},
    "violence": {"filtered": True, "severity": "medium"},
}


def _filter_azure(_asked: Asked) -> Sent:
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERED}
    message = "The response was filtered due to the prompt triggering the content management policy."
    told = {"message": message, "type": None, "param": "prompt", "code": "content_filter", "status": 400}
    return Sent(http(orjson.dumps({"error": {**told, "innererror": inner}}), "400 Bad Request"))


Pieces: TypeAlias = list[dict[str, Any]]


def pieces(asked: Asked, field: str = "content", text: str | None = None, size: int = 16) -> Pieces:
    """A good reply's text in pieces, in one field of each."""
    text = asked.text if text is None else text
    return [{field: text[start : start + size]} for start in range(0, len(text), size)]


def events(asked: Asked, deltas: Pieces, finish_reason: str | None = "stop", done: bool = True) -> list[bytes]:
    """The events of a streamed reply, the way DeepSeek and vLLM send them."""
    about = {"id": f"chatcmpl-{asked.item}", "object": "chat.completion.chunk", "created": 0, "model": "served-model"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    bodies: Pieces = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    bodies += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}] if finish_reason else []
    bodies += [{"choices": [], "usage": usage}]
    return [b"data: " + orjson.dumps({**about, **one}) for one in bodies] + ([b"data: [DONE]"] if done else [])


def streamed(
    make: Callable[[Asked], list[bytes]],
    end: Literal["open", "close", "reset"] = "open",
    between: bytes = b"\n\n",
    **pace: Any,
) -> Fault:
    """A reply that comes event by event; without its last chunk where the connection does not stay open."""

    def fault(asked: Asked) -> Sent:
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        content = between.join(make(asked)) + between
        last = b"0\r\n\r\n" if end == "open" else b""
        return Sent(head + b"%x\r\n%s\r\n" % (len(content), content) + last, end, **pace)

    return fault


def good(asked: Asked) -> list[bytes]:
    """A whole streamed reply."""
    return events(asked, pieces(asked))


def _broken_off(asked: Asked) -> list[bytes]:
    found = good(asked)
    return found[: len(found) // 2]


def _with(*added: bytes) -> Callable[[Asked], list[bytes]]:
    """Something half-way."""
    return lambda asked: [*_broken_off(asked), *added, *good(asked)[len(_broken_off(asked)) :]]


def _parts_streamed(asked: Asked) -> list[bytes]:
    thinking = [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": _thinking(asked.text)}]}]}]
    return events(asked, [*thinking, *pieces(asked, text=_answer(asked.text))])


def _details_streamed(asked: Asked) -> list[bytes]:
    thinking = [{"reasoning_details": [{"type": "reasoning.text", "text": _thinking(asked.text)}]}]
    return events(asked, [*thinking, *pieces(asked, text=_answer(asked.text))])


def _fields_streamed(field: str) -> Callable[[Asked], list[bytes]]:
    return lambda asked: events(
        asked, [*pieces(asked, field, _thinking(asked.text)), *pieces(asked, text=_answer(asked.text))]
    )


REDIRECT = {"location": "/v1/chat/completions"}

FAULTS: Mapping[str, Fault] = {
    # Busy, or out of money.
    "rate_limit": error(429, "slow down"),
    "rate_limit_wait": error(429, "slow down", retry_after="0.02"),
    "rate_limit_wait_ms": error(429, "slow down", retry_after_ms="20"),
    "rate_limit_date": _date,
    "rate_limit_negative": error(429, "slow down", retry_after="-3"),
    "rate_limit_garbage": error(429, "slow down", retry_after="soon"),
    "rate_limit_nan": error(429, "slow down", retry_after="nan", retry_after_ms="nan"),
    "rate_limit_alternating": _alternating,
    "rate_limit_600": error(429, "slow down", retry_after="600"),
    "rate_limit_days": error(429, "slow down", retry_after="99999999999999999999"),
    "rate_limit_inf": error(429, "slow down", retry_after="inf"),
    "busy_600": error(503, "down for the night", retry_after="600"),
    "quota_429": error(429, "You exceeded your current quota, {key}", "insufficient_quota"),
    "quota_billing_429": error(429, "Billing hard limit has been reached", "billing_hard_limit_reached"),
    "no_balance_402": error(402, "Insufficient Balance of {key}"),
    # A run that cannot work at all.
    "wrong_key_401": error(401, "Incorrect API key provided: {ends} ({key}).", "invalid_api_key"),
    "wrong_key_401_html": raw(lambda _good: b"<html>Unauthorized</html>", "401 Unauthorized", content_type="text/html"),
    "no_access_403": error(403, "Key {key} may not use this model"),
    "unknown_model_404": error(404, "The model `m` does not exist for {ends}", "model_not_found"),
    "no_such_path_404": raw(lambda _good: b"<html>Not Found</html>", "404 Not Found", content_type="text/html"),
    # The row's own fault.
    "context_length_400": error(400, "This model's maximum context length is 8192 tokens", "context_length_exceeded"),
    "unprocessable_422": raw(
        lambda _: b'{"detail": [{"msg": "Field required", "type": "missing"}]}', "422 Unprocessable"
    ),
    "too_long_413": error(413, "Request too large"),
    "filter_azure_400": _filter_azure,
    "filter_403": error(403, "m requires moderation on A. Your input was flagged for violence"),
    # A server in trouble.
    "http_500": error(500, "oops {key}"),
    "http_500_html": raw(
        lambda _good: b"<html><h1>Internal Server Error</h1></html>", "500 Oops", content_type="text/html"
    ),
    "http_500_empty": raw(lambda _good: b"", "500 Oops"),
    "http_502": error(502, "bad gateway"),
    "http_503": error(503, "overloaded"),
    "http_504": error(504, "gateway timeout"),
    "http_529": error(529, "overloaded"),
    "http_408": error(408, "took too long"),
    "redirect_loop_307": raw(lambda _good: b"", "307 Temporary Redirect", **REDIRECT),
    "redirect_302": raw(lambda _good: b"", "302 Found", **REDIRECT),
    "redirect_nowhere": raw(lambda _good: b"", "301 Moved"),
    # Connections.
    "reset": wire(_half, "reset"),
    "cut": wire(_half, "close"),
    "no_answer": wire(lambda _data: b"", "close"),
    "half_a_head": wire(lambda _data: b"HTTP/1.1 200 OK\r\ncontent-le", "close"),
    "not_http": wire(lambda _data: b"220 ready for mail\r\n\r\n", "close"),
    "long_header": wire(lambda data: data.replace(b"\r\n", b"\r\nx-long: " + b"a" * 100_000 + b"\r\n", 1), "close"),
    "chunked_good": wire(lambda data: _chunked(data, b"%x\r\n%s\r\n0\r\n\r\n" % _rest(data)), "open"),
    "chunked_cut": wire(lambda data: _chunked(data, b""), "close"),
    "chunked_bad": wire(lambda data: _chunked(data, b"xyz\r\n"), "close"),
    "http_1_0": wire(lambda data: b"HTTP/1.0 200 OK\r\n\r\n" + _content(data), "close"),
    "http_1_0_cut": wire(lambda data: b"HTTP/1.0 200 OK\r\n\r\n" + _half(_content(data)), "close"),
    "length_too_long": wire(lambda data: _told_length(data, 10), "close"),
    "length_too_short": wire(lambda data: _told_length(data, -10), "close"),
    "closes_after": wire(lambda data: data, "close"),
    "hang": wire(lambda data: data, "open", wait_s=FOR_EVER_S),
    "trickle": wire(lambda data: data, "open", 0, 4, 0.05),
    "trickle_blank": wire(
        lambda data: _told_length(b"\r\n\r\n" + b"\n" * 5000 + _content(data), 0), "open", 0, 20, 0.05
    ),
    "gzip": raw(gzip.compress, content_encoding="gzip"),
    "gzip_broken": raw(lambda good: gzip.compress(good)[:15] + b"\xff\xff\xff\xff\xff\xff", content_encoding="gzip"),
    "gzip_cut": raw(lambda good: _half(gzip.compress(good)), content_encoding="gzip"),
    "gzip_not": raw(lambda good: good, content_encoding="gzip"),
    # Bodies that are no chat completion.
    "http_204": raw(lambda _good: b"", "204 No Content", content_length=""),
    "empty_200": raw(lambda _good: b""),
    "truncated": raw(_half),
    "html": raw(lambda _good: b"<html><body>Log in</body></html>", content_type="text/html"),
    "json_null": raw(lambda _good: b"null"),
    "json_list": raw(lambda good: b"[" + good + b"]"),
    "json_text": raw(lambda _good: b'"hello"'),
    "json_number": raw(lambda _good: b"7"),
    "json_deep": _json_depth,
    "event_stream": raw(lambda good: b"data: " + good + b"\n\ndata: [DONE]\n\n", content_type="text/event-stream"),
    "not_utf8": raw(lambda good: good.replace(b"chatcmpl", b"chat\xff\xfecmpl")),
    "not_utf8_key": lambda asked: Sent(http(b'{"choices": "\xff\xfe ' + asked.secret.encode() + b'"}')),
    "utf16": raw(lambda good: good.decode().encode("utf-16")),
    "nul_raw": raw(lambda good: good.replace(b"chatcmpl", b"chat\x00cmpl")),
    "lone_surrogate": raw(lambda good: good.replace(b'"content":"', b'"content":"\\ud83d ')),
    "huge": lambda asked: Sent(http(orjson.dumps(completion("a" * HUGE_BYTES, asked.item)))),
    "choices_null": body(lambda _asked: {"id": "x", "choices": None}),
    "choices_missing": body(lambda _asked: {"id": "x"}),
    "choices_empty": body(lambda _asked: {"id": "x", "choices": []}),
    "choices_text": body(lambda _asked: {"id": "x", "choices": "none"}),
    "choice_null": body(lambda _asked: {"id": "x", "choices": [None]}),
    "message_null": body(lambda _asked: {"choices": [{"message": None, "finish_reason": "stop"}]}),
    "message_list": body(lambda _asked: {"choices": [{"message": ["a"], "finish_reason": "stop"}]}),
    "content_number": body(lambda asked: completion(None, asked.item) | {"choices": [{"message": {"content": 7}}]}),
    "content_object": body(lambda asked: {"choices": [{"message": {"content": {"text": asked.text}}}]}),
    # Errors in place of a status.
    "error_200": body(lambda _asked: {"error": {"code": 502, "message": "upstream"}}),
    "error_200_text": body(lambda _asked: {"error": "upstream is down"}),
    "error_200_list": body(lambda _asked: {"error": ["upstream", "is down"]}),
    "error_200_choices": body(lambda asked: {**completion(asked.text, asked.item), "error": {"message": "upstream"}}),
    "error_200_rate": body(lambda _asked: {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}),
    "error_200_context": body(lambda _asked: {"error": {"code": "context_length_exceeded", "message": "too long"}}),
    "error_200_filter": body(lambda _asked: {"error": {"code": "content_filter", "message": "filtered"}}),
    "error_200_key": body(lambda asked: {"error": {"code": 401, "message": f"bad key {asked.secret}"}}),
    "error_200_key_word": body(lambda asked: {"error": {"code": "invalid_api_key", "message": asked.secret}}),
    "error_200_quota": body(lambda _asked: {"error": {"code": "insufficient_quota", "message": "no money"}}),
    "error_200_model": body(lambda _asked: {"error": {"code": "model_not_found", "message": "no m"}}),
    "error_200_vllm": body(
        lambda _asked: {"object": "error", "message": "too long", "type": "BadRequest", "code": 400}
    ),
    "error_in_choice": body(
        lambda asked: {
            "choices": [{"error": {"code": 502}, "message": {"content": asked.text}, "finish_reason": "error"}]
        }
    ),
    # Replies that ended otherwise.
    "length": reply(lambda text: text, "length"),
    "filter_reply": reply(lambda _text: "", "content_filter"),
    "refusal": reply(lambda _text: None, refusal="I'm sorry, I can't help with that."),
    "empty": reply(lambda _text: ""),
    "blank": reply(lambda _text: " \n "),
    "null_content": reply(lambda _text: None),
    "tool_calls": reply(
        lambda _text: None,
        "tool_calls",
        tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    ),
    "aborted": reply(lambda text: text[:20], "abort"),
    "finish_null": reply(lambda text: text, None),
    "finish_unknown": reply(lambda text: text, "because"),
    "finish_number": body(lambda asked: {"choices": [{"message": {"content": asked.text}, "finish_reason": 7}]}),
    # Good replies in odd clothes.
    "bom": raw(lambda good: b"\xef\xbb\xbf" + good),
    "blank_lines": wire(lambda data: _told_length(b"\r\n\r\n" + b"\n" * 20 + _content(data), 0), "open", 0, 60, 0.005),
    "nul": reply(lambda text: text.replace(" ", " \x00", 1)),
    "parts": _with_parts,
    "two_choices": _two_choices,
    "no_usage": _changed(usage=None),
    "odd_usage": _changed(usage={"prompt_tokens": "many", "completion_tokens": -1}),
    "text_usage": _changed(usage="much"),
    "odd_model": _changed(model={"name": ["m"]}, system_fingerprint=7),
    "same_id": _changed(id="chatcmpl-always-the-same"),
    # Thinking.
    "no_think": reply(_without_tags),
    "only_close": reply(lambda text: text.removeprefix("<think>")),
    "unclosed": reply(lambda text: text.replace("</think>", "")),
    "empty_think": reply(lambda text: f"<think>\n\n</think>\n\n{_answer(text)}"),
    "two_thinks": reply(lambda text: text + text),
    "no_answer_text": reply(lambda text: text.partition("</think>")[0] + "</think>\n\n"),
    "reasoning_content": _own_field("reasoning_content", str),
    "reasoning": _own_field("reasoning", str),
    "reasoning_details": _own_field("reasoning_details", lambda text: [{"type": "reasoning.text", "text": text}]),
    "reasoning_hidden": _own_field("reasoning_details", lambda _text: [{"type": "reasoning.encrypted", "data": "x"}]),
    "reasoning_blank": _own_field("reasoning_content", lambda _text: "\n"),
    "thinking_parts": _with_thinking_parts,
    # Streams.
    "stream_keep_alive": streamed(_with(b": keep-alive", b"", b"", b": keep-alive")),
    "stream_crlf": streamed(good, between=b"\r\n\r\n"),
    "stream_no_done": streamed(lambda asked: events(asked, pieces(asked), done=False)),
    "stream_slow": streamed(good, piece=200, every_s=0.05),
    "stream_reasoning_content": streamed(_fields_streamed("reasoning_content")),
    "stream_reasoning": streamed(_fields_streamed("reasoning")),
    "stream_details": streamed(_details_streamed),
    "stream_parts": streamed(_parts_streamed),
    "stream_length": streamed(lambda asked: events(asked, pieces(asked)[:5], "length")),
    "stream_filtered": streamed(lambda asked: events(asked, pieces(asked)[:5], "content_filter")),
    "stream_empty": streamed(lambda asked: events(asked, [])),
    "stream_nothing": streamed(lambda _asked: []),
    "stream_ended": streamed(_broken_off),
    "stream_cut": streamed(_broken_off, "close"),
    "stream_reset": streamed(_broken_off, "reset"),
    "stream_silent": streamed(good, piece=600, every_s=FOR_EVER_S),
    "stream_only_alive": streamed(lambda _asked: [b": keep-alive"] * 2000, piece=28, every_s=0.05),
    "stream_garbage": streamed(_with(b"data: {oops")),
    "stream_not_utf8": streamed(_with(b'data: {"choices": "\xff"}')),
    "stream_list": streamed(_with(b"data: [1, 2]")),
    "stream_error": streamed(_with(b'data: {"error": {"code": 502, "message": "upstream"}}')),
    "stream_error_key": streamed(lambda asked: [*_broken_off(asked), b'data: {"error": {"code": 401}}']),
}


def _rest(data: bytes) -> tuple[int, bytes]:
    content = _content(data)
    rest = content[len(content) // 2 :]
    return len(rest), rest
