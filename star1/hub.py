"""Raw files from the Hugging Face hub, through its own library, which resumes, tries again and keeps a cache.

HF_ENDPOINT names a mirror of the hub, HF_TOKEN the token, HF_HUB_OFFLINE=1 leaves it to the cache; the library reads them.
"""

import fnmatch
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from star1.errors import InputError, SettingError, Star1Error
from star1.progress import Progress
from star1.sources import Located

PAGE = "https://huggingface.co/datasets"
# Beside the library's own tries, which pass over a hub that is busy just when a download begins.
ATTEMPTS = 3

Found = TypeVar("Found")


def fetch(entry: Located, pause_s: float = 1.0) -> list[Path]:
    """Download the files of an entry, globs expanded in sorted order; what is pinned and in the cache needs no network.

    Raises:
        SettingError: the set is gated and there is no token, or the hub refuses it; tells the page to visit.
        InputError: there is no such file, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_download

    if files := _cached(entry):
        return files
    place = _place(entry)
    paths = entry.paths
    if any(mark in path for path in paths for mark in "*?["):
        names = _ask(entry, pause_s, partial(HfApi().list_repo_files, str(entry.repository), **place))
        paths = _expand(paths, names, f"{PAGE}/{entry.repository}")
    download = partial(hf_hub_download, str(entry.repository), tqdm_class=_Bar, **place)
    return [Path(_ask(entry, pause_s, partial(download, path))) for path in paths]


def commit(entry: Located, pause_s: float = 1.0) -> str:
    """The commit that the revision of an entry means now.

    Raises:
        SettingError, InputError: as `fetch`.
    """
    from huggingface_hub import HfApi

    place = _place(entry)
    kept = {key: place[key] for key in ("revision", "token")}
    info = _ask(entry, pause_s, partial(HfApi().dataset_info, str(entry.repository), **kept))
    return str(info.sha)


def _place(entry: Located) -> dict[str, Any]:
    """What all calls of the library are told; only the token of the environment is used, not that of a login."""
    token = os.environ.get("HF_TOKEN") or False
    if entry.gated and not token:
        hint = f"accept the terms at {PAGE}/{entry.repository}, then set HF_TOKEN"
        raise SettingError(entry.repository, "a gated set, and HF_TOKEN is not set", "a token", hint)
    return {"repo_type": "dataset", "revision": entry.revision, "token": token}


def _cached(entry: Located) -> list[Path]:
    """The files, if all of them are in the cache at a commit."""
    from huggingface_hub import try_to_load_from_cache

    if not entry.pinned:
        return []
    place = {"revision": entry.revision, "repo_type": "dataset"}
    found = [try_to_load_from_cache(str(entry.repository), path, **place) for path in entry.paths]
    files = [Path(one) for one in found if isinstance(one, str)]
    return files if len(files) == len(found) else []


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


def _ask(entry: Located, pause_s: float, call: Callable[[], Found]) -> Found:
    """Call the library, again where the hub is busy."""
    from huggingface_hub.errors import HfHubHTTPError

    # The library changed its HTTP client between versions; what it raises without a reply derives from the same class.
    http_error = HfHubHTTPError.__mro__[1]
    for pause in (*(pause_s * 2**attempt for attempt in range(ATTEMPTS - 1)), None):
        try:
            return call()
        except (http_error, OSError) as error:
            if pause is None or not (isinstance(error, HfHubHTTPError) and _is_busy(error.response.status_code)):
                raise _told(entry, error) from None
            time.sleep(pause)
        except (ImportError, ValueError) as error:
            raise SettingError(
                entry.repository, _first_line(error), "owner/name, and proxy settings that work"
            ) from None
    raise AssertionError("every turn returns, raises or is followed by another")


def _is_busy(status: int) -> bool:
    return status in (408, 429) or status >= 500


def _told(entry: Located, error: Exception) -> Star1Error:
    """What an error of the library means."""
    from huggingface_hub import errors

    page = f"{PAGE}/{entry.repository}"
    if isinstance(error, errors.GatedRepoError):
        hint = f"ask for it at {page}" + ("" if os.environ.get("HF_TOKEN") else ", then set HF_TOKEN")
        return SettingError(entry.repository, "the hub refused access", "accepted terms", hint)
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(page, f"no revision {entry.revision}", "a commit, branch or tag")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            page, "no such data set, or a private one", "one that can be read", "is HF_TOKEN of the right account?"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _offline(page) if _is_offline() else _unreachable(page, error)
    if isinstance(error, errors.EntryNotFoundError):
        return InputError(page, f"no {', '.join(entry.paths)} at {entry.revision}", "the files of the entry")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return InputError(page, f"status {status}", "the files of the entry at its revision")
    if isinstance(error, OSError) and error.errno is not None:
        hint = "HF_HOME names another one"
        return InputError(
            error.filename or "the hub's cache",
            error.strerror or str(error),
            "a folder with room, that can be written",
            hint,
        )
    return _unreachable(page, error)


def _is_offline() -> bool:
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def _offline(page: str) -> InputError:
    found = "offline mode (HF_HUB_OFFLINE), and not all files are in the cache"
    return InputError(page, found, "a connection", "unset it, or fetch once with a connection")


def _unreachable(page: str, error: Exception) -> InputError:
    found = f"not reachable, tried several times ({type(error).__name__}: {_first_line(error)})"
    return InputError(page, found, "a connection to the hub", "HF_ENDPOINT names a mirror of it")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


class _Bar(tqdm):  # type: ignore[type-arg]
    """The progress of a download, told as everywhere else."""

    def __init__(self, *_: Any, total: float | None = None, initial: float = 0, desc: str = "", **__: Any) -> None:
        super().__init__(disable=True)
        self.progress = Progress(f"fetch {Path(desc).name}", int(total) if total else None, "bytes", int(initial))

    def update(self, n: float | None = 1) -> bool | None:
        """Count bytes."""
        self.progress.add(int(n or 0))
        return None

    def close(self) -> None:
        """Leave it as it stands."""
        if hasattr(self, "progress"):
            self.progress.close()
