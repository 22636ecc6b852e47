"""What is written down about the run: dvc.lock, the commit, images, and whether the files are still those."""

import configparser
import contextlib
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from star1.errors import InputError
from star1.records import Row, file_digest
from star1.workflow.basis import FOLDER
from star1.workflow.containers import read_recorded
from star1.workflow.trust import record_file

LOCK = Path("dvc.lock")
# Larger files are told by size alone: to read them takes longer than an answer should.
HASHED_BYTES = 8 * 2**20
CODE = (".py", ".sh")
NOTHING = hashlib.md5(b"", usedforsecurity=False).hexdigest()


def md5(path: Path) -> str:
    """The digest by which DVC names a file's content; links and copies are the same to it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class Books:
    """The books of one project.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[str, str | None] = {}
        self._bases: dict[str, Row] = {}

    @cached_property
    def params(self) -> Row:
        """params.yaml as it is now."""
        return _yaml(self.root / "params.yaml")

    @cached_property
    def _stages(self) -> dict[str, tuple[str, Row]]:
        """Name and record of the stage that made each output."""
        if not (self.root / LOCK).is_file():
            return {}
        stages = _yaml(self.root / LOCK).get("stages") or {}
        return {out["path"]: (name, one) for name, one in stages.items() for out in one.get("outs") or ()}

    def stage(self, output: str) -> Row:
        """What dvc.lock says about the stage that made an output; empty where it says nothing."""
        return self._stages.get(output, ("", {}))[1]

    def recorded(self, output: str) -> Row:
        """Values of params.yaml by key, as the stage that made `output` had them; empty where that is not recorded."""
        said: Row = (self.stage(output).get("params") or {}).get("params.yaml") or {}
        return {**said, **self._basis(output).get("values", {})}

    def _basis(self, output: str) -> Row:
        """The code and values that the stage of an output stood on (`star1.workflow.basis`): here, or in DVC's cache."""
        for path, digest in self._deps(output).items():
            if path.startswith(f"{FOLDER}/"):
                if digest not in self._bases:
                    self._bases[digest] = self._read_basis(path, digest)
                return self._bases[digest]
        return {}

    def _read_basis(self, path: str, digest: str) -> Row:
        for place in (self.root / path, self._cache / "files/md5" / digest[:2] / digest[2:]):
            if place.is_file() and md5(place) == digest:
                found: Row = json.loads(place.read_bytes())
                return found
        return {}

    @cached_property
    def _cache(self) -> Path:
        """DVC's cache, as the project's settings name it, those of this machine first."""
        for name in ("config.local", "config"):
            said = configparser.ConfigParser(interpolation=None)
            with contextlib.suppress(configparser.Error):
                said.read(self.root / ".dvc" / name, "utf-8")
                if place := said.get("cache", "dir", fallback=""):
                    return self.root / ".dvc" / place
        return self.root / ".dvc/cache"

    def _lost(self, output: str) -> list[str]:
        """The file that says what the stage of an output stood on, where it is another one now and the old one not at hand."""
        named = [path for path in self._deps(output) if path.startswith(f"{FOLDER}/")]
        return named if named and not self._basis(output) else []

    def _deps(self, output: str) -> dict[str, str]:
        return {one["path"]: str(one.get("md5", "")) for one in self.stage(output).get("deps") or ()}

    def setting(self, output: str, name: str) -> Any:
        """A value of params.yaml: as the stage that made `output` had it, or as it is now where that is not recorded."""
        recorded = self.recorded(output)
        if name in recorded:
            return recorded[name]
        value: Any = self.params
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def inputs(self, output: str) -> dict[str, str]:
        """MD5 of each input of the stage that made an output, code among them."""
        files = {path: digest for path, digest in self._deps(output).items() if not path.startswith(f"{FOLDER}/")}
        return {**files, **self._basis(output).get("code", {})}

    def told(self, output: str) -> Row:
        """A stage as a passport shows it: its record, and what differs from it now."""
        name, one = self._stages.get(output, ("", {}))
        if not one:
            return {
                "output": output,
                "recorded": False,
                "hint": "not in dvc.lock: run it with `snakemake` or `dvc repro`",
            }
        inputs = self.inputs(output)
        code = {path: digest for path, digest in inputs.items() if path.endswith(CODE)}
        policy = {path: digest for path, digest in inputs.items() if path.startswith("policies/")}
        found: Row = {"stage": name, "output": output, "md5": self._out(one, output).get("md5")}
        found |= {"parameters": self.recorded(output)}
        found |= {"code": _together(code), "code_files": len(code)}
        found |= {
            "policy": policy,
            "policy_digest": _together(policy),
            "changed_since": self.changed(output),
            "image": self.image(output),
        }
        return found

    def fault(self, output: str) -> str | None:
        """How an output differs from what dvc.lock says of it; None where it does not, or nothing is said."""
        said, path = self._out(self.stage(output), output), self.root / output
        if not said or not path.is_file():
            return None
        size = path.stat().st_size
        if size != said.get("size"):
            return f"{output}: {size:,} bytes; dvc.lock says {said.get('size'):,}"
        if size <= HASHED_BYTES and md5(path) != said.get("md5"):
            return f"{output}: other content than dvc.lock says"
        return None

    def changed_input(self, output: str, path: str) -> bool:
        """Whether a small file that a stage read is another one now; larger ones are compared by nobody here."""
        said, here = self.inputs(output).get(path), self.root / path
        return bool(said) and here.stat().st_size <= HASHED_BYTES and md5(here) != said

    def _out(self, stage: Row, output: str) -> Row:
        return next((one for one in stage.get("outs") or () if one["path"] == output), {})

    def changed(self, output: str) -> list[str]:
        """Code, policies and templates that are not what they were for the stage that made an output."""
        found = [
            path for path, digest in self.inputs(output).items() if _is_text(path) and self._digest(path) != digest
        ]
        return [*self._lost(output), *found]

    def _digest(self, path: str) -> str | None:
        if path not in self._digests:
            self._digests[path] = md5(self.root / path) if (self.root / path).is_file() else None
        return self._digests[path]

    @cached_property
    def _images(self) -> Row:
        return read_recorded(self.root)

    def image(self, output: str) -> Row:
        """The container image of a stage, as it was noted at the end of its run, else as Snakemake recorded it."""
        noted = (self._images.get("stages") or {}).get(self._stages.get(output, ("", {}))[0])
        if noted:
            about = self._images["images"].get(noted, {})
            return {"ran_in": noted, "named": noted, "sha256": about.get("sha256"), "parts": about.get("parts")}
        record = self.root / record_file(output)
        if not record.is_file():
            return {"ran_in": "not recorded here"}
        said = json.loads(record.read_text("utf-8"))
        image = str(said.get("container_img_url") or "")
        if said.get("software_stack_hash") in (None, "", NOTHING) or not image:
            return {"ran_in": "the environment that Snakemake ran in", "named": image}
        return {"ran_in": image, "named": image, "sha256": self.image_digest(image)}

    def image_digest(self, image: str) -> str | None:
        """Digest of an image that is a file here; it is read once, and kept until the file changes."""
        path = self.root / image
        if not path.is_file():
            return image.partition("@sha256:")[2] or None
        about = path.stat()
        kept = self.root / ".cache/images" / f"{path.name}-{about.st_size}-{about.st_mtime_ns}"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(file_digest(path), "utf-8")
        return kept.read_text("utf-8")

    @cached_property
    def commit(self) -> Row:
        """The commit that is checked out, the one that recorded dvc.lock, and whether that file has changed since."""
        status = self._git("status", "--porcelain=v2", "--branch", "--", str(LOCK))
        if status is None:
            return {"commit": None, "hint": "no git repository here"}
        head = re.search(r"^# branch\.oid ([0-9a-f]{40,})$", status, re.MULTILINE)
        changed = any(not line.startswith("#") for line in status.splitlines())
        recorded = (self._git("log", "-1", "--format=%H", "--", str(LOCK)) or "").strip()
        return {
            "commit": head[1] if head else None,
            "lock_commit": recorded or None,
            "lock_changed_since": changed,
            "environment": self._environment(),
        }

    def _git(self, *words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout

    def _environment(self) -> Row | None:
        locked = self.root / "envs/local.lock"
        return {"path": "envs/local.lock", "sha256": file_digest(locked)} if locked.is_file() else None


def _is_text(path: str) -> bool:
    """Whether an input is code or a text of a policy pack: small, and not made by another stage."""
    return path.endswith(CODE) or path.startswith("policies/")


def _together(digests: Mapping[str, str]) -> str | None:
    """One digest for several files; None for none."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16] if lines else None


def _yaml(path: Path) -> Row:
    """A YAML document, by the C reader where there is one: the other takes seconds for dvc.lock."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with open(path, "rb") as file:
            found = yaml.load(file, loader)  # noqa: S506 (both are safe loaders)
    except FileNotFoundError:
        raise InputError(path, "no such file", "the project's") from None
    except yaml.YAMLError as error:
        raise InputError(path, f"not YAML ({' '.join(str(error).split())})", "YAML") from None
    return found if isinstance(found, dict) else {}
