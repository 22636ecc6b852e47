"""Before an endpoint's first request: does it know the model, will the name go on to mean it, and for how long?"""

import asyncio
import difflib
import fnmatch
import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from star1.endpoints import Endpoint, redact
from star1.errors import CallError, tell
from star1.faults import connection_fault, status_fault

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LIST_S = 10.0
# Names of models that a message shows, and characters of each.
SHOWN = 12
NAME_LIMIT = 100
SOON_DAYS = 60
# What a name ends with that says which release is meant: 2024-08-06, 20241022, 08-06, 0613, 2411, 002.
DATE = re.compile(r"[-@](20\d\d-\d\d-\d\d|20\d{6}|\d\d-\d\d|\d{4}|00\d)")
# Names that their providers move from model to model, beside those that end in "latest".
MOVING = ("auto", "deepseek-chat", "deepseek-reasoner")


@dataclass(frozen=True)
class Listing:
    """What an endpoint says when it is asked for its models.

    Attributes:
        names: the models, in its order; None where it does not list them.
        status: of its answer; None where none came.
        problem: why there are no names.
    """

    names: tuple[str, ...] | None
    status: int | None = None
    problem: str = ""


async def listing(api: "AsyncOpenAI", endpoint: Endpoint) -> Listing:
    """Ask an endpoint for its models; whatever comes, or does not come, is no error."""
    import httpx2
    import openai

    if endpoint.batch is not None and endpoint.batch.kind == "vllm":
        return Listing(None, None, "files for vllm run-batch, and nobody to ask")
    longest = min(LIST_S, endpoint.timeout_s)
    try:
        async with asyncio.timeout(longest):
            answer = await api.get("/models", cast_to=httpx2.Response)
    except TimeoutError:
        return Listing(None, None, f"no answer within {longest:g} s")
    except openai.APIStatusError as error:
        fault = status_fault(error.status_code, error.body, error.response.headers)
        return Listing(None, error.status_code, redact(fault.detail, endpoint.secret()))
    except openai.APIConnectionError as error:
        return Listing(None, None, redact(connection_fault(error).detail, endpoint.secret()))
    except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
        return Listing(None, None, f"an answer of another form ({type(error).__name__})")
    names = None if _is_azure(endpoint) else names_in(bytes(answer.content))
    return Listing(names, answer.status_code, "" if names else "the answer lists none")


def _is_azure(endpoint: Endpoint) -> bool:
    """Whether the address is Azure's, which lists models, while requests name deployments."""
    host = urlsplit(endpoint.base_url or "").hostname or ""
    return host.endswith(".azure.com") or endpoint.api_version is not None


def names_in(content: bytes) -> tuple[str, ...] | None:
    """The names of models in the body of an answer; None where it is no list of them, or an empty one."""
    try:
        body: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    found = body.get("data") or body.get("models") if isinstance(body, dict) else body
    if not isinstance(found, list):
        return None
    names = [one.get("id") or one.get("name") for one in found if isinstance(one, dict)]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name)) or None


def sent_name(endpoint: Endpoint) -> str:
    """The name that requests carry."""
    return endpoint.served_as or endpoint.model


def where(endpoint: Endpoint) -> str:
    """What messages call an endpoint."""
    return f"model {sent_name(endpoint)!r} at {endpoint.url}"


def is_listed(model: str, names: Sequence[str]) -> bool:
    """Whether a server that lists `names` knows `model`, by the ways in which servers shorten and extend names."""
    forms = {model, f"models/{model}", f"{model}:latest", model.rpartition(":")[0] if "/" in model else model}
    return any(name in forms or ("*" in name and fnmatch.fnmatchcase(model, name)) for name in names)


def releases(model: str, names: Sequence[str]) -> list[str]:
    """The names that say which release of a model is meant, which `model` itself does not say."""
    stem = re.sub(r"[-:]latest$", "", model)
    plain = [name.removeprefix("models/") for name in names]
    return sorted(name for name in plain if name.startswith(stem) and DATE.fullmatch(name[len(stem) :]))


def check_known(endpoint: Endpoint, names: Sequence[str]) -> None:
    """See that an endpoint lists the model.

    Raises:
        CallError: it lists others; names them, the nearest first.
    """
    model = sent_name(endpoint)
    if is_listed(model, names) or releases(model, names):
        return
    near = heapq.nlargest(SHOWN, names, key=lambda name: difflib.SequenceMatcher(None, model, name).ratio())
    told = ", ".join(_told(near, endpoint)) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")
    hint = "correct the endpoint's model or base_url; no question was sent"
    raise CallError(where(endpoint), "no such model there", f"one of those it lists: {told}", hint)


def _told(names: Sequence[str], endpoint: Endpoint) -> Iterator[str]:
    for name in names:
        printable = "".join(character if character.isprintable() else "?" for character in name)
        yield redact(printable[:NAME_LIMIT], endpoint.secret())


def alias_warning(endpoint: Endpoint, names: Sequence[str] = ()) -> str | None:
    """What is to be said against a name that may come to mean another model; None for others."""
    model = sent_name(endpoint)
    dated = releases(model, names)
    moving = model == "latest" or re.search(r"[-:/]latest$", model) or model.rpartition("/")[2] in MOVING
    if not dated and not moving:
        return None
    hint = f"one of {', '.join(_told(dated[-SHOWN:], endpoint))}" if dated else "one with a date or version"
    told = "a name that may come to mean another model; expected one that stays the same"
    return f"{where(endpoint)}: {told}. Hint: before paying, set the endpoint's model to {hint}."


def end_warning(endpoint: Endpoint, today: date) -> str | None:
    """What is to be said about an announced end that is near; None where there is none.

    Raises:
        CallError: the end is past.
    """
    if (end := endpoint.retires) is None:
        return None
    if end < today:
        hint = "name another model, or correct the date where the provider gave more time"
        found = f"retired on {end} (the endpoint's retires)"
        raise CallError(where(endpoint), found, "a model that is still served", hint)
    left = (end - today).days
    found = f"retires on {end}, {f'in {left} days' if left else 'today'}"
    return (
        f"{where(endpoint)}: {found}; what is to be asked of it is to be asked by then." if left < SOON_DAYS else None
    )


async def preflight(api: "AsyncOpenAI", endpoint: Endpoint, today: date | None = None) -> None:
    """The checks before an endpoint's first request; what is no reason to stop is told on stderr.

    Raises:
        CallError: the model is past its announced end, or not among those that the endpoint lists.
    """
    warnings = [end_warning(endpoint, today or date.today())]
    names = (await listing(api, endpoint)).names or ()
    if names:
        check_known(endpoint, names)
    for warning in (*warnings, alias_warning(endpoint, names)):
        if warning:
            tell(f"warning: {warning}")


class Preflight:
    """The checks of one endpoint, made once: whoever comes while they are made waits for them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._checks: asyncio.Task[None] | None = None

    async def passed(self, api: "AsyncOpenAI") -> None:
        """Wait for the checks; answers from this process need none.

        Raises:
            CallError: as `preflight`.
        """
        if self._endpoint.provider != "openai":
            return
        if self._checks is None:
            self._checks = asyncio.create_task(preflight(api, self._endpoint))
            # Those who wait may be gone when it fails: an exception that nobody fetches is no error.
            self._checks.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._checks)
