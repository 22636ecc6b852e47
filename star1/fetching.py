"""Raw files of the tables, brought onto this machine: resumed, tried again, verified, and only then given their name."""

import fnmatch
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from star1.errors import InputError, SettingError
from star1.progress import Progress
from star1.records import file_digest
from star1.sources import Located

GITHUB = "https://raw.githubusercontent.com"
HUB_PAGE = "https://huggingface.co/datasets"
ATTEMPTS = 5
TIMEOUT_S = 60.0


def mirror_folder(text: str) -> Path | None:
    """The mirror's folder as it stands on a command line: `null`, as in params.yaml, means none."""
    return None if text in ("", "null") else Path(text)


def fetch_files(
    entry: Located, mirror: Path | None, cache: Path, *, root: Path = Path(), github: str = GITHUB, pause_s: float = 1.0
) -> list[Path]:
    """Give the raw files of `entry` on this machine, fetched if need be and checked against their digests.

    Args:
        entry: where they lie.
        mirror: folder of the mirror, for entries of that kind.
        cache: folder that keeps downloads from GitHub; the hub's library keeps its own.
        root: folder of the project.
        github: address in place of GitHub's raw files.
        pause_s: first pause between attempts [s]; it doubles.

    Raises:
        SettingError: no mirror folder or no token where one is needed.
        InputError: a file is missing, cannot be fetched, or is not the one expected.
    """
    if entry.kind == "hub":
        files = _hub_files(entry)
    elif entry.kind == "github":
        base = f"{github}/{entry.repository}/{entry.revision}"
        folder = cache / f"{entry.repository}" / f"{entry.revision}"
        return [
            download(f"{base}/{path}", folder / path, entry.digest_of(position), pause_s)
            for position, path in enumerate(entry.paths)
        ]
    else:
        files = [_local_folder(entry, mirror, root) / path for path in entry.paths]
    if entry.digests and len(entry.digests) != len(files):
        raise SettingError(entry.repository, f"{len(entry.digests)} sha256 for {len(files)} files", "one for each file")
    for position, file in enumerate(files):
        _verify(file, entry.digest_of(position), file)
    return files


def _local_folder(entry: Located, mirror: Path | None, root: Path) -> Path:
    if entry.kind == "bundled":
        return root
    if mirror is None:
        raise SettingError(", ".join(entry.paths), "no mirror folder", "a folder", "give --mirror")
    return mirror


def _verify(file: Path, digest: str | None, where: object) -> None:
    if not file.is_file():
        raise InputError(where, "no such file", "the raw file of the table entry")
    if digest is not None and (found := file_digest(file)) != digest.lower():
        raise InputError(where, f"sha256 {found}", f"sha256 {digest}", "the file changed, or the entry names another")


def download(url: str, target: Path, digest: str | None, pause_s: float = 1.0) -> Path:
    """Fetch `url` to `target`, going on where an earlier try stopped; `target` appears only whole and verified.

    Raises:
        InputError: the server refuses, does not answer after several tries, or sends another file.
    """
    if target.is_file() and (digest is None or file_digest(target) == digest.lower()):
        return target
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _stream_with_retries(url, part, pause_s)
    try:
        _verify(part, digest, url)
    except InputError:
        part.unlink(missing_ok=True)
        raise
    return part.rename(target)


def _stream_with_retries(url: str, part: Path, pause_s: float) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _stream(url, part)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)  # longer than the file is now: begin again
            elif status not in (408, 429) and status < 500:
                raise InputError(url, f"status {status}", "the file", "check repository, revision and path") from None
            problem = f"status {status}"
        except httpx.TransportError as error:
            problem = f"{type(error).__name__} ({error})"
        if attempt < ATTEMPTS:
            time.sleep(pause_s * 2 ** (attempt - 1))
    raise InputError(url, f"{problem} after {ATTEMPTS} tries", "the file", "what came so far is kept; run again")


def _stream(url: str, part: Path) -> None:
    """Append what is missing of `url` to `part`; a server that does not know ranges sends all of it again."""
    have = part.stat().st_size if part.is_file() else 0
    # Unpacked by the client, a compressed reply could not be resumed by byte position.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as reply:
        reply.raise_for_status()
        resumed = reply.status_code == httpx.codes.PARTIAL_CONTENT
        length = reply.headers.get("Content-Length")
        have = have if resumed else 0
        progress = Progress(f"fetch {part.stem}", have + int(length) if length else None, "bytes", have)
        with part.open("ab" if resumed else "wb") as file:
            for piece in reply.iter_bytes():
                file.write(piece)
                progress.add(len(piece))
        progress.close()


def _hub_files(entry: Located) -> list[Path]:
    """Download the files of a hub entry, globs expanded in sorted order, through the hub's own library."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    repository = str(entry.repository)
    page = f"{HUB_PAGE}/{repository}"
    token = os.environ.get("HF_TOKEN") or False
    if entry.gated and not token:
        raise SettingError(repository, "HF_TOKEN is not set", "a token", f"accept the terms at {page}")
    place: dict[str, Any] = {"repo_type": "dataset", "revision": entry.revision, "token": token}
    try:
        paths = entry.paths
        if any(mark in path for path in paths for mark in "*?["):
            paths = _expand(paths, HfApi().list_repo_files(repository, **place), page)
        return [Path(hf_hub_download(repository, path, **place)) for path in paths]
    except GatedRepoError:
        raise SettingError(repository, "the hub refused access", "accepted terms", f"ask for it at {page}") from None
    except LocalEntryNotFoundError as error:
        raise InputError(page, f"not reachable ({error})", "a connection to the hub") from None
    except (EntryNotFoundError, HfHubHTTPError) as error:
        raise InputError(page, str(error).splitlines()[0], "the files of the entry at its revision") from None


def _expand(patterns: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    files = []
    for pattern in patterns:
        found = sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))
        if not found:
            raise InputError(
                where, f"no file like {pattern!r}", "at least one", "the repository was listed at revision"
            )
        files += found
    return files
