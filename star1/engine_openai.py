"""Generation by an OpenAI-compatible server, which renders the chat template itself."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from star1 import chat
from star1.decoding import Emit, Model, Output, Request, options_from
from star1.errors import CallError, Star1Error

OPTIONS = {
    "base_url": None,  # of the server; without it, the client's own default
    "key_variable": "OPENAI_API_KEY",  # environment variable that holds the key
    "served_model": None,  # the model's name on the server, where it differs from its name in results
    "thinks": None,  # whether its template opens the think block; null: as the checkpoint's does, no without checkpoint
    "concurrency": 16,  # requests at once
    "timeout_s": 600.0,
    "retries": 5,
}
# How a server is reached; what it answers does not hang on it.
REACHING = frozenset({"base_url", "key_variable", "concurrency", "timeout_s", "retries"})


def run_openai(
    model: Model, requests: Sequence[Request], todo: Sequence[int], options: dict[str, Any], emit: Emit
) -> None:
    """Ask for `requests[i]`, i in `todo`; an engine as in `star1.decoding.Engine`.

    Raises:
        CallError: the server refuses or cannot be reached after the client's retries.
    """
    asyncio.run(_ask_all(model, requests, todo, options_from(options, OPTIONS, "openai"), emit))


async def _ask_all(
    model: Model, requests: Sequence[Request], todo: Sequence[int], options: dict[str, Any], emit: Emit
) -> None:
    import openai

    key = os.environ.get(options["key_variable"]) or "none"
    client = openai.AsyncOpenAI(
        base_url=options["base_url"], api_key=key, timeout=options["timeout_s"], max_retries=options["retries"]
    )
    served, slots = options["served_model"] or model.name, asyncio.Semaphore(options["concurrency"])
    opened = options["thinks"]
    if opened is None:
        opened = model.tokenizer is not None and chat.opens_thinking(model.tokenizer)

    async def one(number: int) -> None:
        async with slots:
            try:
                output = await _ask(client, served, requests[number], opened)
            except openai.OpenAIError as error:
                raise _call_error(error, options) from None
            emit([(number, output)])

    try:
        async with client, asyncio.TaskGroup() as group:
            for number in todo:
                group.create_task(one(number))
    except* (Star1Error, OSError) as failures:
        raise failures.exceptions[0] from None


async def _ask(client: Any, served: str, request: Request, opened: bool) -> Output:
    sampling = request.sampling
    penalty = {"repetition_penalty": sampling.repetition_penalty} if sampling.repetition_penalty != 1 else {}
    reply = await client.chat.completions.create(
        model=served,
        messages=[{"role": "user", "content": request.question}],
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=request.seed,
        extra_body=penalty or None,
    )
    if not reply.choices:
        raise CallError(served, "a reply without choices", "a completed chat request", "finished rows are kept")
    choice, usage = reply.choices[0], reply.usage
    counts = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    # "stop" or "length"; a server may also say "content_filter", which is told as it is.
    return Output(whole_text(choice.message, choice.finish_reason, opened), choice.finish_reason or "stop", *counts)


def whole_text(message: Any, finish_reason: str | None, opened: bool) -> str:
    """Thinking and answer as one text, with the tags that the server took away or the template had written.

    Args:
        message: the server's message; some split the think block off into a field of its own.
        finish_reason: why it ends.
        opened: the template had written the opening tag.
    """
    text = message.content or ""
    fields = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    thinking = next((field for field in fields if field is not None), None)
    if thinking:
        # The server split the block off. It is closed when the model went on to an answer, or stopped by itself.
        closed = f"\n{chat.CLOSE}\n\n" if text.strip() or finish_reason in ("stop", None) else ""
        return f"{chat.OPEN}\n{thinking.strip()}{closed}{text.lstrip()}"
    # A server that splits nothing off starts within the block: without its tag, thinking that was cut off is an answer.
    # One that splits and finds no end may hand all of it on as the answer: cut off, it is not taken for one.
    inside = chat.CLOSE in text or (opened and (thinking is None or finish_reason == "length"))
    return f"{chat.OPEN}\n{text}" if inside and chat.OPEN not in text else text


def _call_error(error: BaseException, options: dict[str, Any]) -> CallError:
    """What the server said, in one line; the request and its key are not in it."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    found = f"status {status}: {said or 'no message'}" if status else f"{type(error).__name__}: {error}"
    hint = {
        401: f"set {options['key_variable']}",
        403: f"check the rights of the key in {options['key_variable']}",
        404: "check served_model and base_url",
    }.get(status or 0, "finished rows are kept: start again to go on")
    return CallError(options["base_url"] or "OpenAI API", found, "a completed chat request", hint)
