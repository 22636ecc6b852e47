"""`star1 push`: releases to the Hugging Face hub, through its own library. Without `--yes` nothing leaves the machine.

HF_TOKEN is the token, and no other is used; HF_ENDPOINT names another hub. The library reads the second.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from star1 import checkpoints
from star1.endpoints import redact
from star1.errors import InputError, SettingError, Star1Error
from star1.records import file_digest, read_json
from star1.seals import RELEASE

FOLDER = Path("release")
KINDS = ("datasets", "models")
NAMESPACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
PRIVATE, PUBLIC = "private", "public"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Item:
    """A file of an upload: its name in the repository, where it lies, digest and size [bytes]."""

    name: str
    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Upload:
    """One release on its way to one repository.

    Attributes:
        repository: `owner/name`.
        kind: dataset or model.
        items: files, sorted by name.
        stand_in: what of it no language model made.
    """

    repository: str
    kind: str
    items: Sequence[Item]
    stand_in: Sequence[str]

    def lines(self, visibility: str) -> Iterator[str]:
        """What is uploaded, for people."""
        size = sum(item.bytes for item in self.items)
        yield f"{self.kind} {self.repository} ({visibility}): {len(self.items)} files, {size:,} bytes"
        for item in self.items:
            yield f"  {item.name}  {item.bytes:,} bytes  SHA-256 {item.sha256}"
        for reason in self.stand_in:
            yield f"  stand-in: {reason}"


def find(names: Sequence[str], owner: str, folder: Path = FOLDER) -> list[Upload]:
    """The releases of those names, or all, each checked against the digests in its `release.json`.

    Raises:
        SettingError: an owner's name that no hub takes.
        InputError: no such release, a file that is not the recorded one, or two of one name.
    """
    if not NAMESPACE.fullmatch(owner):
        raise SettingError("--to", repr(owner), "the name of an account or organisation on the hub")
    seals = [path for kind in KINDS for path in sorted(folder.glob(f"{kind}/*/{RELEASE}"))]
    known = [path.parent.name for path in seals]
    for name in names:
        if name not in known:
            told = ", ".join(known) or "none"
            raise InputError(name, "no such release", f"one of {told}", "`snakemake` makes the releases of a run")
    if not seals:
        raise InputError(folder, "no release", "the releases of a finished run", "`snakemake` makes them")
    found = [_upload(path, owner) for path in seals if not names or path.parent.name in names]
    places = [(one.kind, one.repository) for one in found]
    for place in places:
        if places.count(place) > 1:
            raise InputError(place[1], "two releases of this name", "names that differ in letters, digits and - _ .")
    return found


def _upload(seal: Path, owner: str) -> Upload:
    facts, folder = read_json(seal), seal.parent
    items = [_item(folder, name, entry) for name, entry in facts["files"].items()]
    items.append(Item(RELEASE, seal, file_digest(seal), seal.stat().st_size))
    if facts["kind"] == "model":
        items += _weights(facts)
    # A run may be called star1+benign; a repository may not.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", facts["name"])
    items.sort(key=lambda item: item.name)
    return Upload(f"{owner}/{name}", facts["kind"], items, facts["stand_in"])


def _weights(facts: dict[str, Any]) -> Iterator[Item]:
    """The files of a checkpoint, which are not copied into the release, and its manifest."""
    folder = Path(facts["checkpoint"]["folder"])
    manifest = checkpoints.verify(folder, contents=False)
    path = folder / checkpoints.MANIFEST
    if (digest := file_digest(path)) != facts["checkpoint"]["manifest_sha256"]:
        found = f"SHA-256 {digest[:16]}…"
        raise InputError(path, found, f"{facts['checkpoint']['manifest_sha256'][:16]}…", "release the model again")
    yield Item(path.name, path, digest, path.stat().st_size)
    for name, entry in manifest["files"].items():
        yield _item(folder, name, entry)


def _item(folder: Path, name: str, entry: dict[str, Any]) -> Item:
    path = folder / name
    if not path.is_file():
        raise InputError(path, "no such file", f"the file that {RELEASE} names", "release it again")
    if (digest := file_digest(path)) != entry["sha256"]:
        raise InputError(path, f"SHA-256 {digest[:16]}…", f"{entry['sha256'][:16]}…, as recorded", "release it again")
    return Item(name, path, digest, path.stat().st_size)


def push(
    uploads: Sequence[Upload], *, yes: bool, public: bool, update: bool, stand_in_too: bool, say: Callable[[str], None]
) -> None:
    """Tell what would be uploaded, and with `yes` upload it.

    Args:
        uploads: releases.
        yes: really upload.
        public: make new repositories public.
        update: add a commit to a repository that is there already.
        stand_in_too: upload what no language model made, too.
        say: prints a line.

    Raises:
        SettingError: made by the stand-in, no token, or one that the hub refuses.
        InputError: a repository that is there already, a request that the hub refuses, or no connection.
    """
    for upload in uploads:
        for line in upload.lines(PUBLIC if public else PRIVATE):
            say(line)
    marked = [upload for upload in uploads if upload.stand_in]
    if marked and not stand_in_too:
        told = f"{marked[0].repository}: {marked[0].stand_in[0]}"
        if yes:
            hint = "--stand-in-too uploads it all the same, marked as it is"
            raise SettingError(told, "no language model made this", "a release by language models", hint)
        say(f"--yes would refuse {', '.join(one.repository for one in marked)}: made by the stand-in (--stand-in-too)")
    if not yes:
        say(f"dry run: {len(uploads)} repositories would be created or written to; --yes uploads")
        return
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise SettingError("HF_TOKEN", "not set", "a token of the hub that may write", "no other token is used")
    for upload in uploads:
        say(f"{upload.kind} {upload.repository}: {_send(upload, token, public, update)}")


def _send(upload: Upload, token: str, public: bool, update: bool) -> str:
    """Create the repository and commit all files at once; gives the commit's address."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api, name, kind = HfApi(os.environ.get("HF_ENDPOINT"), token=token), upload.repository, upload.kind
    _ask(upload, token, lambda: api.create_repo(name, repo_type=kind, private=not public, exist_ok=update))
    additions = [CommitOperationAdd(item.name, item.path) for item in upload.items]
    seal = next(item for item in upload.items if item.name == RELEASE)
    message = f"Release {seal.sha256[:12]}"
    done = _ask(upload, token, lambda: api.create_commit(name, additions, commit_message=message, repo_type=kind))
    return str(done.commit_url)


def _ask(upload: Upload, token: str, call: Callable[[], Found]) -> Found:
    from huggingface_hub.errors import HfHubHTTPError

    # The library changed its HTTP client between versions; what it raises without a reply derives from the same class.
    http_error = HfHubHTTPError.__mro__[1]
    try:
        return call()
    except (http_error, OSError, RuntimeError, ValueError) as error:
        # The library's words may quote what was sent.
        raise _told(upload, error, token) from None


def _told(upload: Upload, error: Exception, token: str) -> Star1Error:
    """What an error of the library means."""
    from huggingface_hub.errors import HfHubHTTPError

    where = f"{upload.kind} {upload.repository}"
    said = redact((str(error).strip().splitlines() or [type(error).__name__])[-1], token)
    if not isinstance(error, HfHubHTTPError):
        hint = "HF_ENDPOINT names the hub; what was committed stays, and the rest can be pushed again"
        return InputError(where, f"not uploaded ({type(error).__name__}: {said})", "a hub that answers", hint)
    status = error.response.status_code
    if status == 401:
        return SettingError(where, "the hub does not accept HF_TOKEN (401)", "a valid token")
    if status == 403:
        hint = f"is {upload.repository.split('/')[0]} yours, and may the token write there?"
        return SettingError(where, "the hub refuses to let HF_TOKEN write (403)", "a token that may write", hint)
    if status == 409:
        return InputError(where, "it is there already (409)", "a new name", "--update adds a commit to it")
    return InputError(where, f"status {status} ({said})", "an upload that the hub takes")
