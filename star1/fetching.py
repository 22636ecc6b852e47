"""Raw files of the tables, brought onto this machine: resumed, tried again, verified, and only then given their name."""

import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, urlsplit

import httpx

from star1 import hub, prefetched
from star1.errors import InputError, SettingError
from star1.layouts import look_at
from star1.progress import Progress
from star1.records import file_digest, text_digest
from star1.sources import REMOTE, Located

GITHUB = "https://raw.githubusercontent.com"
ATTEMPTS = 5
TIMEOUT = httpx.Timeout(60.0, connect=15.0)
LONGEST_PAUSE_S = 60.0


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
        cache: folder that keeps downloads from GitHub and other addresses; the hub's library keeps its own.
        root: folder of the project.
        github: address in place of GitHub's raw files.
        pause_s: first pause between attempts [s]; it doubles.

    Raises:
        SettingError: no mirror folder or no token where one is needed.
        InputError: a file is missing, cannot be fetched, or is not the one expected.
    """
    if files := prefetched.find(entry):
        return _verified(files, entry)
    if entry.kind in REMOTE and not entry.pinned:
        place = f"{entry.repository} at {entry.revision}" if entry.repository else ", ".join(entry.paths)
        tell(f"warning: {place} is not pinned, its content may change; `star1 pin` records what it is now")
    return bring(entry, mirror, cache, root=root, github=github, pause_s=pause_s)


def bring(
    entry: Located, mirror: Path | None, cache: Path, *, root: Path = Path(), github: str = GITHUB, pause_s: float = 1.0
) -> list[Path]:
    """As `fetch_files`, without a word about an entry that is not pinned."""
    if entry.kind in ("github", "url"):
        return [
            download(url, target, entry.digest_of(position), pause_s, fresh=not entry.pinned)
            for position, (url, target) in enumerate(_places(entry, cache, github))
        ]
    return _verified(hub.fetch(entry, pause_s) if entry.kind == "hub" else _local(entry, mirror, root), entry)


def _verified(files: list[Path], entry: Located) -> list[Path]:
    if entry.digests and len(entry.digests) != len(files):
        raise SettingError(entry.repository, f"{len(entry.digests)} sha256 for {len(files)} files", "one for each file")
    for position, file in enumerate(files):
        _verify(file, entry.digest_of(position), file)
    return files


def tell(line: str) -> None:
    """Say something beside the results."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _places(entry: Located, cache: Path, github: str) -> list[tuple[str, Path]]:
    """Addresses, and where in the cache their files lie."""
    if entry.kind == "url":
        # The name stays at the end, since its ending says how it is packed.
        return [
            (url, cache / "url" / text_digest(url) / Path(urlsplit(url).path or "index").name) for url in entry.paths
        ]
    folder = Path(f"{entry.repository}") / f"{entry.revision}"
    base = f"{github}/{entry.repository}/{entry.revision}"
    return [(f"{base}/{quote(path)}", cache / folder / path) for path in entry.paths]


def _local(entry: Located, mirror: Path | None, root: Path) -> list[Path]:
    if entry.kind == "mirror" and mirror is None:
        raise SettingError(", ".join(entry.paths), "no mirror folder", "a folder", "give --mirror")
    folder = mirror if entry.kind == "mirror" and mirror is not None else root
    return [folder / path for path in entry.paths]


def _verify(file: Path, digest: str | None, where: object) -> None:
    if not file.is_file():
        raise InputError(where, "no such file", "the raw file of the table entry")
    if digest is not None and (found := file_digest(file)) != digest.lower():
        hint = "the file changed, or the entry names another; `star1 pin` records what is there now"
        raise InputError(where, f"sha256 {found}", f"sha256 {digest}", hint)


def download(url: str, target: Path, digest: str | None, pause_s: float = 1.0, fresh: bool = False) -> Path:
    """Fetch `url` to `target`, going on where an earlier try stopped; `target` appears only whole and verified.

    Several processes may want the same file: one fetches it, the others wait.

    Args:
        url: its address.
        target: where it goes.
        digest: its SHA-256, if that is known.
        pause_s: first pause between attempts [s].
        fresh: fetch it even if it is there, since what lies at the address may have changed.

    Raises:
        InputError: the server refuses, does not answer after several tries, or sends another file; or the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if target.is_file() and not fresh and (digest is None or file_digest(target) == digest.lower()):
                return target
            if prefetched.offline():
                raise InputError(url, "offline mode (HF_HUB_OFFLINE)", "a connection", prefetched.HINT)
            target.unlink(missing_ok=True)
            return _whole(url, target, digest, pause_s).rename(target)
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(
            error.filename or target, found, "a folder with room, that can be written", "--cache names it"
        ) from None


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other processes from the same target until the block ends."""
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        with contextlib.suppress(OSError):  # some network file systems know no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _whole(url: str, target: Path, digest: str | None, pause_s: float) -> Path:
    """The part file of `target`, whole and verified."""
    part = target.with_name(target.name + ".part")
    resumed = _size(part) > 0
    if digest is None or not resumed or file_digest(part) != digest.lower():
        _stream_with_retries(url, part, digest is not None, pause_s)
    try:
        look_at(part, url)
        _verify(part, digest, url)
    except InputError:
        _forget(part)
        if resumed:  # the two halves may be of different versions
            return _whole(url, target, digest, pause_s)
        raise
    _validator(part).unlink(missing_ok=True)
    return part


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _validator(part: Path) -> Path:
    """Where the server's name for the version of a part is kept."""
    return part.with_name(part.name + ".etag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _stream_with_retries(url: str, part: Path, verified: bool, pause_s: float) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        asked_s = 0.0
        try:
            return _stream(url, part, verified)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                _forget(part)  # longer than the file is now: begin again
            elif status not in (408, 429) and status < 500:
                _refused(url, status)
            problem = f"status {status}"
            after = error.response.headers.get("Retry-After", "")
            asked_s = float(after) if after.isdecimal() else 0.0
        except httpx.TransportError as error:
            problem = f"{type(error).__name__} ({error})"
        except (httpx.RequestError, httpx.InvalidURL, ImportError, ValueError) as error:
            # Circular redirects, or a proxy setting that cannot be used.
            hint = "are address and proxy settings (HTTPS_PROXY) right?"
            raise InputError(url, f"{type(error).__name__} ({error})", "the file", hint) from None
        if attempt < ATTEMPTS:
            wait_s = max(pause_s * 2 ** (attempt - 1), min(asked_s, LONGEST_PAUSE_S))
            tell(f"fetch {part.stem}: {problem}, try {attempt + 1} of {ATTEMPTS} in {wait_s:.3g} s")
            time.sleep(wait_s)
    raise InputError(url, f"{problem} after {ATTEMPTS} tries", "the file", "what came so far is kept; run again")


def _refused(url: str, status: int) -> NoReturn:
    hint = "check repository, revision and path" if status == httpx.codes.NOT_FOUND else "is access restricted there?"
    raise InputError(url, f"status {status}", "the file", hint) from None


def _stream(url: str, part: Path, verified: bool) -> None:
    """Append what is missing of `url` to `part`; a server that does not know ranges sends all of it again."""
    validator = _validator(part)
    known = validator.read_text("utf-8") if validator.is_file() else ""
    # Without the server's name for the version, only a digest can tell whether two halves belong together.
    have = _size(part) if known or verified else 0
    # Unpacked by the client, a compressed reply could not be resumed by byte position.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known} if known else {})
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as reply:
        reply.raise_for_status()
        resumed = reply.status_code == httpx.codes.PARTIAL_CONTENT
        if resumed and not reply.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-"):
            _forget(part)
            raise httpx.RemoteProtocolError("another range than asked for")
        if not resumed:
            etag = reply.headers.get("ETag", "")
            validator.write_text("" if etag.startswith("W/") else etag, "utf-8")
        _write(reply, part, have if resumed else 0)


def _write(reply: httpx.Response, part: Path, have: int) -> None:
    length = reply.headers.get("Content-Length")
    progress = Progress(f"fetch {part.stem}", have + int(length) if length else None, "bytes", have)
    with part.open("ab" if have else "wb") as file:
        for piece in reply.iter_bytes():
            file.write(piece)
            progress.add(len(piece))
    progress.close()
