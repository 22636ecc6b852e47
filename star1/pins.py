"""Pin table entries to what lies at their place now: the commit that a branch or tag means, and the digests of the files."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from star1 import bases, hub, params, presets
from star1.errors import InputError, SettingError
from star1.fetching import GITHUB, TIMEOUT, bring
from star1.records import file_digest
from star1.sources import COMMIT, REMOTE, Located

GITHUB_API = "https://api.github.com"
TABLES = ("sources", "benchmarks", "published")


def pin(
    names: Sequence[str] = (),
    write: bool = False,
    path: Path = Path("params.yaml"),
    cache: Path = Path(".cache/downloads"),
    *,
    github: str = GITHUB,
    api: str = GITHUB_API,
    pause_s: float = 1.0,
) -> list[str]:
    """Fetch entries of the params file and tell, or write into it, what pins them; gives a line about each.

    Args:
        names: entries, such as `AttaQ` or `sources.AttaQ`; none means all that are not pinned.
        write: put revision, pinned and sha256 into the file, its comments kept.
        path: the params file.
        cache: folder that keeps downloads.
        github: address in place of GitHub's raw files.
        api: address in place of GitHub's API.
        pause_s: first pause between attempts [s].

    Raises:
        SettingError: no entry of that name, or one that lies on this machine; nothing is written.
        InputError, CallError: an entry cannot be fetched; nothing is written.
    """
    values = params.Params.model_validate(params.load(path, path.parent))
    models, entries = dict(_chosen_models(values, names)), dict(_chosen(values, names))
    lines: list[str] = []
    assignments: list[str] = []
    for key, model in models.items():
        # Its files are large, and fetched when they are needed; a commit of the hub fixes them all.
        found = bases.commit(model.repository, model.revision)
        lines.append(f"{key}: {model.revision} is {found}")
        assignments += [f"{key}.revision={json.dumps(found)}", *([] if model.pinned else [f"{key}.pinned=true"])]
    for key, entry in entries.items():
        commit = _commit(entry, api, pause_s)
        digests = _digests(entry, commit, cache, github, pause_s)
        lines.append(f"{key}: {_told(entry, commit, digests)}")
        assignments += _assignments(key, entry, commit, digests)
    if write and assignments:
        presets.apply(None, assignments, path)
    return lines


def _chosen(values: params.Params, names: Sequence[str]) -> Iterator[tuple[str, Located]]:
    known: dict[str, Located] = {
        f"{table}.{name}": entry for table in TABLES for name, entry in getattr(values.fetch, table).items()
    }
    models = [f"models.{name}" for name in values.fetch.models]
    for name in names:
        found = [key for key in known if name in (key, key.partition(".")[2])]
        if not found and any(name in (key, key.partition(".")[2]) for key in models):
            continue
        if not found:
            raise SettingError(name, "no such entry", f"one of {', '.join(sorted(known))}")
        for key in found:
            if known[key].kind not in REMOTE:
                raise SettingError(f"fetch.{key}", f"kind {known[key].kind}", "an entry that comes over the network")
    for key, entry in known.items():
        named = any(name in (key, key.partition(".")[2]) for name in names)
        if named or (not names and not entry.pinned):
            yield f"fetch.{key}", entry


def _chosen_models(values: params.Params, names: Sequence[str]) -> Iterator[tuple[str, params.HubModel]]:
    """Base models of the hub that are named, or all that are not pinned."""
    for name, entry in values.fetch.models.items():
        named = name in names or f"models.{name}" in names
        if named and not isinstance(entry, params.HubModel):
            raise SettingError(f"fetch.models.{name}", f"kind {entry.kind}", "an entry that comes over the network")
        if isinstance(entry, params.HubModel) and (named or (not names and not entry.pinned)):
            yield f"fetch.models.{name}", entry


def _commit(entry: Located, api: str, pause_s: float) -> str | None:
    """The commit of an entry's revision; None for plain addresses."""
    if entry.kind == "url" or entry.revision is None or COMMIT.fullmatch(entry.revision):
        return entry.revision
    return hub.commit(entry, pause_s) if entry.kind == "hub" else _github_commit(entry, api)


def _github_commit(entry: Located, api: str) -> str:
    url = f"{api}/repos/{entry.repository}/commits/{entry.revision}"
    headers = {"Accept": "application/vnd.github.sha"}
    if token := os.environ.get("GITHUB_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    try:
        reply = httpx.get(url, headers=headers, timeout=TIMEOUT, follow_redirects=True)
    except httpx.HTTPError as error:
        raise InputError(url, f"{type(error).__name__} ({error})", "a commit", "is there a network here?") from None
    if reply.status_code in (403, 429):
        raise InputError(url, f"status {reply.status_code}", "a commit", "GitHub's limit of requests? set GITHUB_TOKEN")
    if reply.status_code != httpx.codes.OK or not COMMIT.fullmatch(reply.text.strip()):
        raise InputError(url, f"status {reply.status_code}", "a commit", "check repository and revision")
    return reply.text.strip()


def _digests(entry: Located, commit: str | None, cache: Path, github: str, pause_s: float) -> list[str]:
    """Digests of the files as they are at the commit, whatever the entry said of them."""
    trial = entry.model_copy(update={"revision": commit, "pinned": commit is not None, "sha256": None})
    return [file_digest(file) for file in bring(trial, None, cache, github=github, pause_s=pause_s)]


def _told(entry: Located, commit: str | None, digests: Sequence[str]) -> str:
    parts = [f"{entry.revision} is {commit}"] if commit != entry.revision else []
    before = entry.digests
    changed = sum(old is not None and old.lower() != new for old, new in zip(before, digests, strict=False))
    parts.append(f"{len(digests)} files, sha256 {', '.join(digest[:12] + '…' for digest in digests)}")
    parts += [f"{changed} of them other than before"] if changed else []
    return "; ".join(parts)


def _assignments(key: str, entry: Located, commit: str | None, digests: Sequence[str]) -> Iterator[str]:
    """What `presets.apply` is told; texts in quotes, so that no digest is taken for a number."""
    if commit is not None:
        yield f"{key}.revision={json.dumps(commit)}"
    if not entry.pinned:
        yield f"{key}.pinned=true"
    yield f"{key}.sha256={json.dumps(list(digests) if len(digests) > 1 else digests[0])}"
