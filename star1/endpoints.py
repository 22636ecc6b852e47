"""Where a model is asked: the settings of an endpoint, its client, and what may be told about it in messages."""

import json
import os
import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, field_validator, model_validator

from star1.batch_settings import Batch
from star1.errors import SettingError
from star1.prices import Price
from star1.records import file_digest

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Settings = TypeVar("Settings", bound=BaseModel)

DEFAULT_BASE_URL = "https://api.openai.com/v1"
IN_PROCESS_URL = "http://in-process/v1"
# Shorter fragments of a key are ordinary words too often to be struck out of a message.
KEY_FRAGMENT = 4
# Fields of a request that the client decides on: one reply, whole, to these messages.
NOT_EXTRA = ("model", "messages", "stream", "stream_options", "n", "response_format")
CONNECT_S = 30.0
POOL_EXPECTED = "endpoints over the network of the same model, label and extra_body"


class Endpoint(BaseModel):
    """One model behind one OpenAI-compatible address, or in place of it a rule-based app in this process.

    Attributes:
        provider: `openai` sends requests over the network; `stand-in` answers by rules, with no language model;
            `replay` answers from published rows and falls back on the stand-in.
        model: name of the model, which is sent.
        label: name under which replies are kept and verdicts are reported.
        served_as: name that is sent in place of `model`, such as that of an Azure deployment; decides no reply.
        base_url: address up to and with the version part; None is the provider's own. For Azure's older interface (with
            `api_version`), the resource's address.
        api_version: `api-version` of Azure's older interface; None for every other.
        key: name of the environment variable that holds the key, never the key; None where no key is needed.
        slots: requests in flight at a time, at most: a busy endpoint is asked less at a time.
        requests_per_minute: the endpoint's limit, kept on our side; None where there is none.
        tokens_per_minute: the same for prompts and replies together.
        max_wait_s: longest wait that an endpoint may ask for; a longer one ends the run, to be started again later [s].
        price: what it charges; None where nothing is known or charged.
        max_usd: most that may be spent at this label and model, over all stages and runs in the store; None for no limit.
        timeout_s: longest wait for one reply [s]; for a streamed one, for its beginning.
        stream: whether replies come in pieces; None does so where the model reasons, which takes long.
        idle_timeout_s: longest silence within a streamed reply [s].
        extra_body: further fields of every request, beside those of a stage's sampling, which come before them.
        rows: path of the published rows; `replay` only.
        retires: announced end of the model: near, it is told; past, nothing is asked any more.
        retries: further attempts after the first, for faults that pass.
        batch: how requests are gathered into files in place of being sent one by one; None sends them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    provider: Literal["stand-in", "replay", "openai"]
    model: str = Field(min_length=1)
    label: str = Field(min_length=1)
    served_as: str | None = Field(default=None, min_length=1)
    base_url: str | None = None
    api_version: str | None = Field(default=None, pattern=r"^[0-9A-Za-z.-]+$")
    key: str | None = None
    slots: int = Field(default=8, ge=1, le=1024)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    max_wait_s: float = Field(default=120.0, gt=0)
    price: Price | None = None
    max_usd: float | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=600.0, gt=0)
    stream: bool | None = None
    idle_timeout_s: float = Field(default=120.0, gt=0)
    extra_body: dict[str, Any] | None = None
    rows: str | None = None
    retries: int = Field(default=5, ge=0, le=20)
    batch: Batch | None = None
    retires: date | None = None

    @field_validator("retires", mode="before")
    @classmethod
    def _quoted(cls, day: object) -> object:
        if isinstance(day, date):  # as YAML reads a bare one; JSON, which stages are given, has no dates
            raise ValueError(f"a date in quotes ('{day:%Y-%m-%d}')")
        return day

    @field_validator("key")
    @classmethod
    def _names_a_variable(cls, key: str | None) -> str | None:
        if key is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            raise ValueError("must be the name of an environment variable in capitals, never the key itself")
        return key

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError("must start with http:// or https:// and name a host")
            if parts.username or parts.password or parts.query:
                raise ValueError("must not hold a user name, a password or a query: keys come from the environment")
        return url

    @model_validator(mode="after")
    def _declared(self) -> "Endpoint":
        # A number made without a language model must never pass for one made with it.
        if self.provider != "openai" and self.provider not in self.label:
            raise ValueError(f"label must say {self.provider!r}, since no language model answers")
        if (self.provider == "replay") != (self.rows is not None):
            raise ValueError("rows (the published rows to answer from) goes with provider 'replay' and with no other")
        if self.max_usd is not None and self.price is None:
            raise ValueError("max_usd goes with a price, without which nobody knows what is spent")
        if self.batch is not None and self.provider != "openai":
            raise ValueError("batch goes with provider 'openai' and with no other")
        if self.api_version is not None and self.base_url is None:
            raise ValueError("api_version (Azure's older interface) goes with the resource's base_url")
        return self

    @field_validator("extra_body")
    @classmethod
    def _beside_the_request(cls, extra: dict[str, Any] | None) -> dict[str, Any] | None:
        return own_fields(extra)

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.base_url or DEFAULT_BASE_URL if self.provider == "openai" else IN_PROCESS_URL

    def identity(self) -> str:
        """Who answers: label and model, and for in-process answers the label and what they are made from."""
        if self.provider == "openai":
            return json.dumps([self.label, self.model])
        from star1 import replay, standin, standin_judges, standin_rules, standin_wording

        # A changed rule or wording gives other answers: what was answered by the old ones must not be served for them.
        sources = [str(module.__file__) for module in (standin, standin_judges, standin_rules, standin_wording)]
        replayed = [str(replay.__file__), self.rows] if self.rows else []
        made_from = [file_digest(path)[:12] for path in [*sources, *replayed]]
        return f"{self.label} [{standin.RULES} {' '.join(made_from)}]"

    def secret(self) -> str | None:
        """The key, read from the environment.

        Raises:
            SettingError: the variable is unset or empty, or holds what no HTTP header can.
        """
        if self.provider != "openai" or self.key is None:
            return None
        secret = os.environ.get(self.key, "").strip()
        if not re.fullmatch(r"[!-~]+", secret):
            fault = "holds blanks or characters beyond ASCII" if secret else "is not set"
            raise SettingError(
                f"endpoint {self.label!r}",
                f"environment variable {self.key} {fault}",
                "the endpoint's key in it",
                f"export {self.key}=… in the shell, or use the stand-in",
            )
        return secret


class Sampling(BaseModel):
    """Decoding settings of a request; a field that is not set is not sent.

    Attributes:
        samples: replies that are asked for at most, one after the other, until one can be read. It is not sent, and
            decides nothing about the replies themselves: raised later, it asks anew for the unreadable ones alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    reasoning_effort: str | None = None
    # What only some servers know (top_k, repetition_penalty, ...): sent as further fields of the request body.
    extra_body: dict[str, Any] | None = None
    samples: int = Field(default=1, ge=1, le=20)

    @field_validator("extra_body")
    @classmethod
    def _beside_the_others(cls, extra: dict[str, Any] | None) -> dict[str, Any] | None:
        return own_fields(extra)

    def sent(self) -> dict[str, Any]:
        """The fields of the request's body that are set; those of `extra_body` stand beside the others."""
        fields = self.model_dump(exclude_none=True, exclude={"samples"})
        return {**fields.pop("extra_body", {}), **fields}


def own_fields(extra: dict[str, Any] | None) -> dict[str, Any] | None:
    """Further fields of a request's body.

    Raises:
        ValueError: a field that has its own place in params.yaml, or that the client decides on.
    """
    if taken := sorted({*NOT_EXTRA, *Sampling.model_fields} & set(extra or ())):
        raise ValueError(f"must not hold {', '.join(taken)}, which has its own place or which replies rely on")
    return extra


def pool_mistake(pool: Mapping[str, Endpoint]) -> str | None:
    """Why endpoints cannot take each other's place, or None: their replies are to be those of one model."""
    first, *others = pool
    for name in others:
        for field in ("label", "model", "extra_body"):
            if getattr(pool[name], field) != getattr(pool[first], field):
                return f"{first!r} and {name!r} differ in {field}"
    if len(pool) > 1 and any(endpoint.batch for endpoint in pool.values()):
        return "an endpoint that is asked in batches stands beside others"
    if len(pool) > 1 and any(endpoint.provider != "openai" for endpoint in pool.values()):
        return "an in-process endpoint stands beside others"
    return None


class Endpoints(RootModel[dict[str, Endpoint]]):
    """Endpoints by name."""


def read_named(flag: str, text: str) -> dict[str, Endpoint]:
    """Read the JSON value of a flag: endpoints by name.

    Raises:
        SettingError: as `read_settings`.
    """
    return read_settings(flag, text, Endpoints).root


def read_pool(flag: str, text: str) -> list[Endpoint]:
    """Read the JSON value of a flag: one endpoint, or several by name that take each other's place.

    Raises:
        SettingError: as `read_settings`, or endpoints of different models.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        values = None
    if (
        not isinstance(values, dict)
        or not values
        or "provider" in values
        or not all(isinstance(value, dict) for value in values.values())
    ):
        return [read_settings(flag, text, Endpoint)]
    pool = {name: read_settings(f"{flag}.{name}", json.dumps(value), Endpoint) for name, value in values.items()}
    if mistake := pool_mistake(pool):
        raise SettingError(flag, mistake, POOL_EXPECTED)
    return list(pool.values())


def read_settings(flag: str, text: str, model: type[Settings]) -> Settings:
    """Read the JSON value of a flag into its model.

    Raises:
        SettingError: not JSON, an unknown field, or a value that cannot be used; the value itself is not repeated.
    """
    try:
        return model.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise SettingError(flag, f"not JSON ({error.msg} at {error.pos})", f"a JSON {model.__name__}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join([flag, *map(str, first["loc"])])
        raise SettingError(where, first["msg"], f"the fields {', '.join(model.model_fields)}") from None


def connect(endpoint: Endpoint) -> "AsyncOpenAI":
    """A client for `endpoint`; in-process answers go through the same request and response code as remote ones.

    Raises:
        SettingError: the key's environment variable is not set.
    """
    secret = endpoint.secret() or "none"
    import httpx2
    import openai

    wait = httpx2.Timeout(endpoint.timeout_s, connect=min(CONNECT_S, endpoint.timeout_s))
    if endpoint.provider == "openai":
        try:  # a redirect is told, not followed: prompts go where the endpoint's settings say, and nowhere else
            http: httpx2.AsyncClient = openai.DefaultAioHttpClient(timeout=wait, follow_redirects=False)
        except RuntimeError:  # aiohttp is not installed: the default transport does the same, slower.
            http = openai.DefaultAsyncHttpxClient(timeout=wait, follow_redirects=False)
    else:
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=_app(endpoint)))
    url, version = endpoint.url, endpoint.api_version
    if version is not None:
        # The deployment is added to each request, by its model.
        url = f"{url.rstrip('/').removesuffix('/openai')}/openai"
        return openai.AsyncAzureOpenAI(
            api_key=secret, base_url=url, api_version=version, timeout=wait, max_retries=0, http_client=http
        )
    return openai.AsyncOpenAI(api_key=secret, base_url=url, timeout=wait, max_retries=0, http_client=http)


def _app(endpoint: Endpoint) -> Any:
    if endpoint.provider == "replay":
        from star1.replay import replay_app

        return replay_app(endpoint.rows or "")
    from star1.standin import app

    return app


def redact(text: str, secret: str | None) -> str:
    """Strike the key out of a text, and words that start or end as it does (providers echo keys in part)."""
    if not secret or len(secret) < KEY_FRAGMENT:
        return text
    text = text.replace(secret, "[key]")
    if len(secret) < 3 * KEY_FRAGMENT:
        return text
    start, end = re.escape(secret[:KEY_FRAGMENT]), re.escape(secret[-KEY_FRAGMENT:])
    return re.sub(rf"{start}[^\s\"',]*|[^\s\"',:]*{end}", "[key]", text)
