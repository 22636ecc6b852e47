"""Places that files come from: do they answer, give what is asked for, let us in, and know what time it is?"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import quote, urlsplit

import httpx

from star1.doctor.about import About
from star1.doctor.findings import Finding, Outcome, Seen, Unknown, finding
from star1.doctor.prefetch import from_network
from star1.fetching import GITHUB
from star1.params import HubModel
from star1.sources import Located

HUB = "https://huggingface.co"
LIMIT_S = 8.0
AT_ONCE = 16
SKEW_S, FAR_S = 60.0, 900.0
SHOWN = 5
CLOCK = "sudo chronyc makestep || sudo timedatectl set-ntp true"


@dataclass(frozen=True)
class Place:
    """Something to be fetched: its name in params.yaml, address, page for people, and whether the hub has it."""

    name: str
    url: str
    page: str
    hub: bool
    gated: bool


@dataclass(frozen=True)
class Asked:
    """What came of asking: a status, or a problem; and how far the server's clock is ahead of ours [s]."""

    place: Place
    status: int | None
    problem: str = ""
    ahead: float | None = None


def hub_address() -> str:
    """The hub, or the mirror of it that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def check(about: About) -> Iterator[Outcome]:
    """Everything that is still to be fetched, each with one small question."""
    wanted = [_place(name, entry) for name, _, entry in from_network(about)]
    if not wanted:
        yield Seen("unreachable", "nothing is to be fetched over the network")
        return
    if about.hub_offline:
        yield Unknown("unreachable", "offline: nobody is asked, prefetched files are looked at in place of it")
        return
    token = os.environ.get("HF_TOKEN", "").strip()
    gated = [one for one in wanted if one.gated]
    if gated and not token:
        what = f"not set; {len(gated)} gated: {_names(gated)}"
        fix = "export HF_TOKEN=hf_...  # https://huggingface.co/settings/tokens, read access"
        yield finding("hf-token", "HF_TOKEN", what, fix)
    found = asyncio.run(_ask_all([one for one in wanted if token or not one.gated], token))
    yield from judge(found, token)
    yield from clock({urlsplit(one.place.url).hostname or "": one.ahead for one in found if one.ahead is not None})


def _place(name: str, entry: Located | HubModel) -> Place:
    """Where a file of an entry lies."""
    if isinstance(entry, HubModel):
        page = f"{hub_address()}/{entry.repository}"
        # Which models are gated is seen when they are asked for.
        return Place(name, f"{page}/resolve/{quote(entry.revision, safe='')}/config.json", page, hub=True, gated=False)
    if entry.kind == "url":
        return Place(name, entry.paths[0], entry.paths[0], hub=False, gated=False)
    path, revision = entry.paths[0], str(entry.revision)
    if entry.kind == "github":
        page = f"{GITHUB}/{entry.repository}/{revision}/{quote(path)}"
        return Place(name, page, f"https://github.com/{entry.repository}", hub=False, gated=False)
    page, api = f"{hub_address()}/datasets/{entry.repository}", f"{hub_address()}/api/datasets/{entry.repository}"
    pattern = any(mark in path for mark in "*?[")
    url = (
        f"{api}/revision/{quote(revision, safe='')}"
        if pattern
        else f"{page}/resolve/{quote(revision, safe='')}/{quote(path)}"
    )
    return Place(name, url, page, hub=True, gated=entry.gated)


def _names(places: list[Place]) -> str:
    names = [one.name.rpartition(".")[2] for one in places]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


async def _ask_all(places: list[Place], token: str) -> list[Asked]:
    limit = asyncio.Semaphore(AT_ONCE)
    # A redirect leads to where the file lies, and says that it may be had; the token goes to the hub alone.
    async with httpx.AsyncClient(timeout=LIMIT_S, follow_redirects=False) as client:
        return await asyncio.gather(*(_ask(client, limit, place, token) for place in places))


async def _ask(client: httpx.AsyncClient, limit: asyncio.Semaphore, place: Place, token: str) -> Asked:
    headers = {"Authorization": f"Bearer {token}"} if token and place.hub else {}
    async with limit:
        try:
            answer = await asyncio.wait_for(client.head(place.url, headers=headers), LIMIT_S)
        except TimeoutError:
            return Asked(place, None, f"no answer within {LIMIT_S:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return Asked(place, None, f"{type(error).__name__} ({error})")
    return Asked(place, answer.status_code, ahead=ahead(answer.headers))


def ahead(headers: Mapping[str, str]) -> float | None:
    """How far a server's clock is ahead of this machine's [s], by its Date; None where it sends none that can be read."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() - time()
    except (KeyError, ValueError, TypeError):
        return None


def judge(found: list[Asked], token: str) -> Iterator[Finding | Seen]:
    """What the answers mean: a finding for each server that is silent, and for each set that is refused or not there."""
    silent: dict[str, Asked] = {}
    good = 0
    for one in found:
        host = urlsplit(one.place.url).netloc
        if one.status is None or one.status >= 500:
            silent.setdefault(host, one)
        elif one.status in (401, 403) and one.place.hub:
            what = f"status {one.status}" + ("" if token else ", and HF_TOKEN is not set")
            fix = f"open {one.place.page}, accept the terms; then: export HF_TOKEN=hf_..."
            yield finding("hub-refused", one.place.name, what, fix)
        elif one.status in (404, 410, 401, 403):
            what = f"status {one.status} at {one.place.url}"
            yield finding(
                "remote-file",
                one.place.name,
                what,
                f"curl -sIL {one.place.url}; star1 pin {one.place.name.partition('.')[2]}",
            )
        else:
            good += 1
    for host, one in silent.items():
        fix = "star1 prefetch  # where there is a connection; then here: export HF_HUB_OFFLINE=1"
        yield finding("unreachable", host, one.problem or f"status {one.status}", fix)
    if good:
        yield Seen("unreachable", f"{good} of {len(found)} entries to be fetched are where they should be")


def clock(found: Mapping[str, float]) -> Iterator[Outcome]:
    """This machine's clock against that of servers: the one with the smallest difference is believed."""
    if not found:
        return
    host, skew = min(found.items(), key=lambda one: abs(one[1]))
    if abs(skew) <= SKEW_S:
        yield Seen("clock", f"within {max(1.0, abs(skew)):.0f} s of {host}")
        return
    what = f"this machine is {abs(skew):,.0f} s {'behind' if skew > 0 else 'ahead of'} {host}"
    yield finding("clock", "clock", what, CLOCK, "error" if abs(skew) > FAR_S else "warning")
