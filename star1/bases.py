"""Base models: made on the spot, fetched from the hub, or copied from a mirror folder."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from star1 import checkpoints, prefetched
from star1.errors import CallError, InputError, SettingError
from star1.records import write_text

# Weights in safetensors, and everything small that transformers reads; never pickled weights, nor code unless it is trusted.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt", "LICENSE*")
CODE = ("*.py",)
NEEDED = ("config.json", "*.safetensors", "tokenizer*")


def obtain(entry: dict[str, Any], mirror: str | None, staging: Path) -> dict[str, Any]:
    """Bring the files of a base model to the folder `staging`.

    Args:
        entry: its entry in the settings; `kind` is "tiny", "hub" or "mirror".
        mirror: folder that the paths of mirror entries are relative to.
        staging: where the files go.

    Returns:
        record: facts for the manifest; for "tiny", history: one entry per update.

    Raises:
        SettingError: an unknown kind, or a mirror entry without a mirror.
        InputError: the model's folder lacks files that it needs.
    """
    entry = dict(entry)
    kind = entry.pop("kind", None)
    if kind == "tiny":
        return _tiny(entry, staging)
    if kind == "hub":
        trusted = entry.get("remote_code") == checkpoints.TRUSTED
        record = _hub(entry["repository"], entry["revision"], staging, trusted)
        record |= {"remote_code": checkpoints.TRUSTED} if trusted else {}
        record |= {"licence": entry["licence"]} if entry.get("licence") else {}
    elif kind == "mirror":
        record = _mirror(entry["path"], mirror, staging)
    else:
        raise SettingError("base model: kind", repr(kind), "tiny, hub or mirror")
    _check(staging)
    return {"record": record}


def _tiny(values: dict[str, Any], staging: Path) -> dict[str, Any]:
    from star1 import sft, tiny

    own = {field.name for field in dataclasses.fields(tiny.Settings)}
    shared = {field.name for field in dataclasses.fields(sft.Optimisation)} - {"learning_rate"}
    if missing := sorted(own - shared - set(values)):
        raise SettingError("base model of kind tiny", f"no value for {missing[0]!r}", "all settings of the tiny model")
    return tiny.make(sft.settings_from(values, tiny.Settings), staging)


def _hub(repository: str, revision: str, staging: Path, code: bool) -> dict[str, Any]:
    """A snapshot: prefetched, or downloaded; files that an interrupted run left in `staging` are not downloaded again."""
    key = prefetched.model_key(repository, revision, code)
    if prefetched.has(key):
        checkpoints.empty(staging)
        if record := prefetched.find_model(key, staging):
            return record
    return download(repository, revision, staging, code)


def download(repository: str, revision: str, staging: Path, code: bool = False) -> dict[str, Any]:
    """Download a snapshot of a model from the hub, with `code` its Python files, too.

    Raises:
        CallError: the hub cannot be reached, or refuses it.
        SettingError: no name of a repository.
    """
    from huggingface_hub import snapshot_download

    patterns = [*PATTERNS, *(CODE if code else ())]
    found = commit(repository, revision)
    with _hub_told(repository, revision):
        _keep_only(f"{repository} @ {found}", staging)
        snapshot_download(repository, revision=found, local_dir=staging, allow_patterns=patterns)
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    return {"repository": repository, "revision": revision, "commit": found}


def commit(repository: str, revision: str) -> str:
    """The commit that a revision of a model on the hub means now.

    Raises:
        CallError, SettingError: as `download`.
    """
    from huggingface_hub import HfApi

    with _hub_told(repository, revision):
        return str(HfApi().model_info(repository, revision=revision).sha)


@contextlib.contextmanager
def _hub_told(repository: str, revision: str) -> Iterator[None]:
    """Tell in one line what the hub's library found."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    where = f"hub model {repository} @ {revision}"
    try:
        yield
    except HFValidationError as error:
        raise SettingError(where, str(error), "a repository name") from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx.HTTPError, HfHubHTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "check name, access (HF_TOKEN) and connection, or use kind mirror with a local folder"
        hint = prefetched.HINT if prefetched.offline() else hint
        raise CallError(where, reason, "a reachable repository", hint) from None


def _keep_only(source: str, staging: Path) -> None:
    """Empty `staging` unless what lies there is a part of `source`: files of another model would be published with it."""
    mark = staging / ".cache" / "source"
    if not mark.is_file() or mark.read_text("utf-8") != source:
        checkpoints.empty(staging)
        write_text(mark, source)


def _mirror(path: str, mirror: str | None, staging: Path) -> dict[str, Any]:
    if mirror is None:
        raise SettingError("base model of kind mirror", "no mirror folder", "fetch.mirror in params.yaml")
    source = Path(mirror) / path
    if not source.is_dir():
        raise InputError(source, "no such folder", "a model's folder")
    checkpoints.empty(staging)
    _copy(source, staging, lambda name: any(fnmatch(name, pattern) for pattern in PATTERNS))
    return {"path": path}


def _copy(source: Path, target: Path, wanted: Callable[[str], bool]) -> None:
    for file in sorted(source.iterdir()):
        if file.is_file() and wanted(file.name) and file.name != checkpoints.MANIFEST:
            shutil.copyfile(file, target / file.name)


def _check(folder: Path) -> None:
    names = [path.name for path in folder.iterdir()]
    for pattern in NEEDED:
        if not any(fnmatch(name, pattern) for name in names):
            raise InputError(folder, f"no {pattern}", "a model with config, safetensors weights and tokenizer")
