"""Model folders: weights, config, tokenizer and chat template, named by a manifest that is written last.

A folder without `manifest.json` is unfinished. The manifest holds the digest of every file and the record of how the
weights came about, and nothing that changes from run to run: two equal runs on one machine write equal manifests.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from star1.errors import InputError
from star1.records import file_digest, read_json, write_json

MANIFEST = "manifest.json"
# In the record of a model whose own code may be run (`remote_code` of its entry in params.yaml).
TRUSTED = "trusted"
# Weights are what training changes; every other file of a checkpoint is handed on byte for byte.
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth")


def describe(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Digest and size [bytes] of every file below `folder` but its manifest, by path, sorted."""
    return {
        name: {"sha256": file_digest(Path(folder) / name), "bytes": (Path(folder) / name).stat().st_size}
        for name in _names(Path(folder))
    }


def _names(folder: Path) -> list[str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return [path.relative_to(folder).as_posix() for path in paths]


def versions(packages: Iterable[str] = ("torch", "transformers")) -> dict[str, str]:
    """Installed versions of the packages that decide what the weights are."""
    return {package: importlib.metadata.version(package) for package in packages}


def publish(staging: str | Path, target: str | Path, kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Move the finished folder `staging` to `target` and write its manifest last.

    The old manifest goes first, so that at no moment a manifest stands beside files that are not its own.

    Args:
        staging: folder with all files of the checkpoint; it is gone afterwards.
        target: the checkpoint's folder; files of an earlier checkpoint in it are removed.
        kind: what made it: "tiny", "hub", "mirror" or "sft".
        record: the facts of its making; no times, no paths of this machine.

    Raises:
        InputError: `staging` holds no file.
    """
    staging, target = Path(staging), Path(target)
    manifest = {"kind": kind, "files": describe(staging), "record": record}
    if not manifest["files"]:
        raise InputError(staging, "no file", "the files of a checkpoint")
    target.mkdir(parents=True, exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)
    _clear(target)
    for name in manifest["files"]:
        _move(staging / name, target / name)
    shutil.rmtree(staging)
    write_json(target / MANIFEST, manifest)
    return manifest


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _move(source: Path, target: Path) -> None:
    """Rename, or copy where the two lie on different file systems; on disk before it returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def staging(stage: str, name: str) -> Path:
    """Folder, outside all declared outputs, in which a stage builds the checkpoint `name`."""
    folder = Path(".work") / stage / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder_of(manifest: str | Path) -> Path:
    """The checkpoint folder that a manifest path names.

    Raises:
        InputError: the path does not end with `manifest.json`.
    """
    path = Path(manifest)
    if path.name != MANIFEST:
        raise InputError(path, f"a file called {path.name}", f"a path that ends with {MANIFEST}")
    return path.parent


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder.

    Raises:
        InputError: the folder has none, or it is not a manifest.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise InputError(
            folder, f"no {MANIFEST}", "a finished checkpoint", f"`snakemake {path}` or `dvc pull` brings it"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InputError(path, "not a checkpoint manifest", "an object with 'files', 'kind' and 'record'")
    return manifest


def verify(folder: str | Path, contents: bool = True) -> dict[str, Any]:
    """Check a checkpoint folder against its manifest and give the manifest.

    Args:
        folder: the checkpoint.
        contents: compare digests too; False compares names and sizes alone, for large weights read often.

    Raises:
        InputError: a file is missing, differs from what the manifest says, or is not in it (hidden ones apart): an
            adapter or a generation config that somebody puts there changes what the model does.
    """
    manifest = read_manifest(folder)
    if extra := [name for name in _names(Path(folder)) if name not in manifest["files"] and not _hidden(name)]:
        raise InputError(Path(folder) / extra[0], f"a file that {MANIFEST} does not name", "none", "move it elsewhere")
    for name, expected in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            raise InputError(path, "no such file", f"the file that {MANIFEST} names", "fetch or train it again")
        if path.stat().st_size != expected["bytes"]:
            raise InputError(path, f"{path.stat().st_size} bytes", f"{expected['bytes']} bytes, as {MANIFEST} says")
        if contents and (found := file_digest(path)) != expected["sha256"]:
            raise InputError(path, f"SHA-256 {found[:16]}…", f"{expected['sha256'][:16]}…, as {MANIFEST} says")
    return manifest


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def load_model(folder: str | Path, dtype: Any, **options: Any) -> Any:
    """A checkpoint's causal language model with weights of type `dtype` ("auto": their own), on the CPU.

    Args:
        folder: the checkpoint.
        dtype: type of its weights in memory.
        options: what else transformers is told.

    Raises:
        InputError: transformers cannot read the folder, or would draw weights that are not in it at random.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trusts_code(folder),
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(folder, f"model not readable ({reason})", "a checkpoint of a causal language model") from None
    if lacking := sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]])):
        raise InputError(folder, f"{len(lacking)} weights missing or misshapen ({lacking[0]})", "all of the model's")
    return model


def trusts_code(folder: str | Path) -> bool:
    """Whether code that lies in a checkpoint may be run: only where params.yaml said so when its base was fetched.

    Said as False, transformers refuses; left open, it would ask on the terminal.
    """
    path = Path(folder) / MANIFEST
    record = read_json(path).get("record") if path.is_file() else None
    return isinstance(record, dict) and record.get("remote_code") == TRUSTED


def carry_over(base: str | Path, staging: str | Path) -> None:
    """Copy tokenizer, original chat template and other files of `base` that training does not change."""
    for name in read_manifest(base)["files"]:
        if name.endswith(WEIGHTS) or name == "config.json":
            continue
        target = Path(staging) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(base) / name, target)


def empty(folder: str | Path) -> Path:
    """Make `folder` an empty folder, whatever an earlier run left in it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    return folder
