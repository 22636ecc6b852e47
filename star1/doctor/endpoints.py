"""Endpoints of model calls: keys, addresses, models; nothing is asked of any model."""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from star1 import runs
from star1.doctor.about import About
from star1.doctor.findings import Finding, Outcome, Seen, Unknown, finding, of_error
from star1.doctor.network import ahead, clock
from star1.endpoints import Endpoint, connect
from star1.errors import CallError, SettingError
from star1.params import Params, Roles
from star1.preflight import Listing, alias_warning, check_known, end_warning, listing, sent_name, where

# How servers answer that have no list of models, or give it to nobody without a key.
NO_LIST = (401, 404, 405, 501)


def chosen(params: Params, names: tuple[str, ...] | list[str], whole: bool) -> dict[str, Endpoint]:
    """Endpoints by how they are called in findings: those of `names`, or with a role, or with `whole` all.

    Raises:
        SettingError: no endpoint of such a name.
    """
    endpoints, roles = params.llm.endpoints, {role: params.llm.pool(role) for role in Roles.model_fields}
    judges = {f"judge {name}": params.judge.judges[name].endpoints for name in params.judge.use.names}
    roles |= {judge: params.llm.named(names) for judge, names in judges.items()}
    for name in names:
        if name not in endpoints:
            raise SettingError("doctor", repr(name), f"an endpoint of params.yaml: {', '.join(endpoints)}")
    in_use = [name for name in endpoints if any(name in pool for pool in roles.values())]
    found = {}
    for name in names or (endpoints if whole else in_use):
        played = [role for role, pool in roles.items() if name in pool]
        found[f"endpoint {name} ({', '.join(played) or 'no role'})"] = endpoints[name]
    return found if names else found | _generating(params)


def _generating(params: Params) -> dict[str, Endpoint]:
    """The server that answers benchmarks, where one does: each model by the name that it is asked for."""
    options, found = params.generate.options, {}
    if params.generate.engine != "openai":
        return {}
    key = options.get("key_variable") or "OPENAI_API_KEY"
    for model in runs.expand(params.generate.models, params.finetune.table()):
        served = options.get("served_model") or model
        about = {"model": served, "label": served, "base_url": options.get("base_url")}
        # There the key is optional.
        about["key"] = key if os.environ.get(key) and re.fullmatch("[A-Z][A-Z0-9_]*", key) else None
        found[f"generate.options ({served})"] = Endpoint(provider="openai", **about)
    return found


def check(about: About) -> Iterator[Outcome]:
    """Each endpoint, all at once."""
    wanted = chosen(about.params, list(about.names), about.whole)
    clocks: dict[str, float] = {}
    yield from asyncio.run(_all(wanted, about, clocks))
    yield from clock(clocks)


async def _all(wanted: Mapping[str, Endpoint], about: About, clocks: dict[str, float]) -> list[Outcome]:
    groups = await asyncio.gather(*(_endpoint(name, one, about, clocks) for name, one in wanted.items()))
    return [outcome for group in groups for outcome in group]


class _Watching:
    """A client that is asked for its models, and the date of the answer."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.ahead: float | None = None

    async def get(self, path: str, **named: Any) -> Any:
        """As the client's own."""
        import openai

        try:
            answer = await self._api.get(path, **named)
        except openai.APIStatusError as error:
            self.ahead = ahead(error.response.headers)
            raise
        self.ahead = ahead(answer.headers)
        return answer


async def _endpoint(name: str, endpoint: Endpoint, about: About, clocks: dict[str, float]) -> list[Outcome]:
    if endpoint.provider != "openai":
        rows = endpoint.rows
        if rows is not None and not Path(rows).is_file():
            return [
                finding(
                    "endpoint-rows",
                    name,
                    f"no file {rows}; expected the rows that are replayed",
                    "star1 import-published",
                )
            ]
        return [Seen("endpoint-down", f"{name}: {endpoint.label!r} answers in this process")]
    if endpoint.batch is not None and endpoint.batch.kind == "vllm":
        told = (
            "the command is here" if shutil.which("vllm") else "no command vllm here: its files are for another machine"
        )
        return [Seen("endpoint-down", f"{name}: files for vllm run-batch, model {endpoint.model!r}; {told}")]
    key = _key(name, endpoint)
    if about.offline:
        return [key, Unknown("endpoint-down", f"{name}: --offline"), *_ends(name, endpoint, about.today)]
    # Whether somebody answers there can be seen without the key.
    asked = endpoint.model_copy(update={"key": None}) if isinstance(key, Finding) else endpoint
    api = connect(asked)
    watching = _Watching(api)
    try:
        found = await listing(watching, asked)  # type: ignore[arg-type]
    finally:
        await api.close()
    if watching.ahead is not None:
        clocks[urlsplit(endpoint.url).hostname or name] = watching.ahead
    address = _denied(name, endpoint, found) or _address(name, asked, found)
    return [key, address, *_model(name, asked, found), *_ends(name, endpoint, about.today)]


def _key(name: str, endpoint: Endpoint) -> Finding | Seen:
    try:
        endpoint.secret()
    except SettingError as error:
        return finding("endpoint-key", name, error.found, f"export {endpoint.key}=...")
    told = f"environment variable {endpoint.key} is set" if endpoint.key else "no key is named, and none is sent"
    return Seen("endpoint-key", f"{name}: {told}")


def _denied(name: str, endpoint: Endpoint, found: Listing) -> Finding | None:
    """Whether somebody wants a key, and none is named."""
    if found.status != 401 or endpoint.key:
        return None
    kind, _, rest = name.partition(" ")
    fix = f"star1 preset --set llm.endpoints.{rest.partition(' ')[0]}.key=VARIABLE"
    if kind != "endpoint":
        fix = "export OPENAI_API_KEY=...  # or the variable of generate.options.key_variable"
    return finding("endpoint-denied", name, f"{where(endpoint)}: status 401, and no key is named", fix)


def _address(name: str, endpoint: Endpoint, found: Listing) -> Outcome:
    """Whether somebody answers there, and takes the key."""
    if found.status is None:
        host = urlsplit(endpoint.url).hostname
        local = host in ("localhost", "127.0.0.1", "::1")
        fix = (
            f"vllm serve {endpoint.model} --port {urlsplit(endpoint.url).port or 8000}"
            if local
            else f"curl -sI {endpoint.url}/models"
        )
        return finding("endpoint-down", name, f"{where(endpoint)}: {found.problem}", fix)
    if found.status == 401 and endpoint.key:
        what = f"{where(endpoint)}: status 401, the key in {endpoint.key} is not accepted"
        return finding("endpoint-denied", name, what, f"export {endpoint.key}=...")
    told = f"answers with status {found.status}" if found.status >= 400 else "answers"
    if found.status >= 400 and found.status not in NO_LIST:
        return finding(
            "endpoint-answer", name, f"{where(endpoint)}: {told} ({found.problem})", f"curl -sI {endpoint.url}/models"
        )
    return Seen("endpoint-down", f"{name}: {where(endpoint)}: {told}")


def _model(name: str, endpoint: Endpoint, found: Listing) -> Iterator[Outcome]:
    model, short = sent_name(endpoint), _short(name)
    if found.names is None:
        yield Unknown(
            "endpoint-model", f"{name}: not listed: whether there is a model {model!r} is seen at the first call"
        )
    else:
        try:
            check_known(endpoint, found.names)
            yield Seen(
                "endpoint-model", f"{name}: model {model!r} is one of the {len(found.names)} that the endpoint offers"
            )
        except CallError as error:
            yield of_error(
                "endpoint-model",
                name,
                error,
                f"star1 preset --set {short}={error.expected.partition(': ')[2].split(', ')[0]}",
            )
    if alias := alias_warning(endpoint, found.names or ()):
        what, _, hint = alias.partition(" Hint: before paying, ")
        dated = re.search(r"one of ([^ ,]+)", hint)
        yield finding(
            "endpoint-alias",
            name,
            what,
            f"star1 preset --set {short}={dated[1].rstrip('.') if dated else 'NAME-WITH-DATE'}",
        )


def _short(name: str) -> str:
    """Where an endpoint's model stands in params.yaml."""
    kind, _, rest = name.partition(" ")
    return f"llm.endpoints.{rest.partition(' ')[0]}.model" if kind == "endpoint" else "generate.options.served_model"


def _ends(name: str, endpoint: Endpoint, today: date) -> Iterator[Outcome]:
    fix = f"star1 preset --set {_short(name)}=ANOTHER_MODEL"
    try:
        if near := end_warning(endpoint, today):
            yield finding("endpoint-ends", name, near, fix)
        elif endpoint.retires:
            yield Seen("endpoint-ends", f"{name}: model {sent_name(endpoint)!r} is served until {endpoint.retires}")
    except CallError as error:
        yield of_error("endpoint-retired", name, error, fix)
