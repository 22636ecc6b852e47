"""The container images: which file is the one for a kind of work, and what is known of it.

A file's name carries a key of all that goes into it, so another lock, definition or base is another file.
"""

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from star1.errors import InputError, SettingError
from star1.records import Row

KINDS = ("data", "finetune", "vllm")
# What may compute on a GPU: runs with `--nv` where there is one.
GPU_KINDS = ("finetune", "vllm")
FOLDER = "containers"
SHARED = ("containers/install.sh", "containers/check.py", "envs/installer.lock")
# A base that was made here of Debian's packages, in place of the one that the definitions name.
BASE = f"{FOLDER}/base.json"
KEY_LENGTH = 12
NAMED = re.compile(rf"{FOLDER}/(?P<kind>[a-z]+)(-cuda)?-[0-9a-f]{{{KEY_LENGTH}}}\.sif")


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        kind: of work, as rules name it.
        variant: cpu, or cuda for the builds of torch and vLLM that use GPUs.
        root: the project's folder.
    """

    kind: str
    variant: str = "cpu"
    root: Path = Path()

    @property
    def label(self) -> str:
        """Kind and, where there is a choice, variant."""
        return f"{self.kind}-cuda" if self.variant == "cuda" and self.kind in GPU_KINDS else self.kind

    @property
    def definition(self) -> str:
        """Path of the definition, from the project's folder."""
        return f"{FOLDER}/{self.kind}.def"

    @property
    def lock(self) -> str:
        """Path of the locked packages, from the project's folder."""
        return f"envs/{self.label}.lock"

    def parts(self) -> dict[str, str]:
        """SHA-256 of each file that goes into the image, and what names its base.

        Raises:
            InputError: a file is not there.
        """
        found = {name: self._digest(name) for name in (self.definition, self.lock, *SHARED)}
        base = read_base(self.root)
        return found | {"base": base["sha256"] if base else "as defined"}

    def _digest(self, name: str) -> str:
        try:
            return hashlib.sha256((self.root / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            hint = "`git checkout` brings it back; `make lock` writes the locks"
            raise InputError(name, "no such file", f"a part of the image {self.label}", hint) from None

    @property
    def file(self) -> str:
        """Path of the image, from the project's folder."""
        text = "".join(f"{name} {digest}\n" for name, digest in sorted(self.parts().items()))
        return f"{FOLDER}/{self.label}-{hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]}.sif"

    @property
    def path(self) -> Path:
        """Where the image lies."""
        return self.root / self.file


def read_base(root: Path = Path()) -> Row | None:
    """The base that was made here, if one was: its file and digest."""
    try:
        found: Row = orjson.loads((root / BASE).read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError:
        raise InputError(BASE, "not JSON", "what `make images OFFLINE=1` writes", f"rm {BASE}, then do so") from None
    return found


def variant(params: Mapping[str, Any]) -> str:
    """Which builds of torch and vLLM params.yaml asks for."""
    return str((params.get("images") or {}).get("variant", "cpu"))


def chosen(kinds: Sequence[str]) -> Sequence[str]:
    """Those kinds of work, or all where none is named.

    Raises:
        SettingError: there is no such kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise SettingError("images", repr(kind), f"one of {', '.join(KINDS)}")
    return kinds or KINDS


def names(params: Mapping[str, Any], root: Path = Path()) -> dict[str, str]:
    """The image file of each kind of work, whether it is there or not; without a key where a part of it is not there."""
    found = {}
    for kind in KINDS:
        found[kind] = f"{FOLDER}/{kind}.sif"
        with contextlib.suppress(InputError):
            found[kind] = Image(kind, variant(params), root).file
    return found


def kind_of(name: str) -> str | None:
    """The kind of work that an image file is for; None for another file."""
    found = NAMED.fullmatch(name)
    return found["kind"] if found else None


def without_key(name: str) -> str:
    """An image's name as it is for every lock and site: neither engine runs a stage again for another image."""
    kind = kind_of(name)
    return f"{FOLDER}/{kind}.sif" if kind else name


def record_file(image: Path) -> Path:
    """Where the record of an image lies: beside it."""
    return image.with_suffix(".json")


def read_record(image: Path) -> Row | None:
    """What was written down when an image was built: its digest, parts and the tool's version."""
    try:
        found: Row = orjson.loads(record_file(image).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return found
