"""Prompt sets and benchmarks as tables: where each lies, on what terms, and how its file becomes rows."""

from pathlib import PurePosixPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from star1.errors import SettingError

REMOTE = ("github", "hub")

Scalar = str | int | float | bool | None
Entry = TypeVar("Entry", bound=BaseModel)


class Located(BaseModel):
    """Where a file lies, and on what terms it may be used.

    Attributes:
        kind: bundled with the project, in the mirror folder, in a GitHub repository, or on the Hugging Face hub.
        path: file or files, relative to the project root, the mirror folder or the repository; on the hub, globs too.
        repository: `owner/name`, for github and hub.
        revision: commit or tag, for github and hub.
        sha256: digest of each raw file, in the order of the files; None skips the check.
        licence: licence of the content, an SPDX name where there is one.
        attribution: who made it, as it is to be cited.
        gated: the hub shows it only to accounts that accepted its terms.
        rows: how many rows must come out; None skips the check.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["bundled", "mirror", "github", "hub"]
    path: str | list[str]
    repository: str | None = None
    revision: str | None = None
    sha256: str | list[str] | None = None
    licence: str
    attribution: str
    gated: bool = False
    rows: int | None = Field(default=None, ge=1)

    @property
    def paths(self) -> list[str]:
        """The paths as a list."""
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def digests(self) -> list[str]:
        """The digests as a list, empty when none are given."""
        return [self.sha256] if isinstance(self.sha256, str) else self.sha256 or []

    def digest_of(self, position: int) -> str | None:
        """The digest of the file at `position`, if digests are given."""
        return self.digests[position] if self.digests else None

    @model_validator(mode="after")
    def _whole(self) -> "Located":
        remote = self.kind in REMOTE
        for name in ("repository", "revision"):
            if (getattr(self, name) is not None) != remote:
                raise ValueError(f"{name} is {'required' if remote else 'not allowed'} for kind {self.kind}")
        for path in self.paths:
            # A mirror is the user's own folder, and what lies beside it is too.
            outside = ".." in PurePosixPath(path).parts and self.kind != "mirror"
            if not path or PurePosixPath(path).is_absolute() or outside:
                raise ValueError(f"path {path!r} must be relative and stay in its folder")
        if self.digests and self.kind != "hub" and len(self.digests) != len(self.paths):
            raise ValueError(f"{len(self.digests)} sha256 for {len(self.paths)} paths")
        if not self.paths:
            raise ValueError("path is empty")
        return self


class Prompts(Located):
    """A located file of prompts and how its rows are read.

    Attributes:
        format: layout of the file; a name that ends in .gz or .xz is unpacked first. A JSON list of plain strings, and
            plain text, have one field `text`. A JSON object of lists is read as columns.
        header: whether the first line of a csv or tsv names its columns; if not, they are named "0", "1", …
        question: field that holds the prompt; None only where the rows are plain strings.
        keep: only rows whose fields equal these values; a list means any of them, a field written `not name` the
            opposite. A csv field, which is always text, equals a number or truth value that is written like it.
        strip: literal markers taken off the question, and then white space around it.
    """

    format: Literal["jsonl", "json", "csv", "tsv", "txt", "parquet"]
    header: bool = True
    question: str | None = None
    keep: dict[str, Scalar | list[Scalar]] | None = None
    strip: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _question_named(self) -> "Prompts":
        if self.question is None and self.format not in ("txt", "json"):
            raise ValueError(f"question is required for format {self.format}")
        return self


class Source(Prompts):
    """A prompt set that is collected from; `ngram` is the length in words for its comparison with itself."""

    ngram: int = Field(ge=1)


class Benchmark(Prompts):
    """A test set.

    Attributes:
        id: field that names a row; None names rows by benchmark and row number.
        answer: field of the expected answer, for reasoning.
        category: field of a row's kind.
        purpose: what is measured on it.
        shuffle_seed: seed of the order in which rows are taken; None keeps the file's order.
        limit: take this many rows; None takes all.
    """

    id: str | None = None
    answer: str | None = None
    category: str | None = None
    purpose: Literal["harmful", "benign", "reasoning"]
    shuffle_seed: int | None = None
    limit: int | None = Field(default=None, ge=1)


class Published(Located):
    """A released data set whose rows have the fields of STAR-1."""

    format: Literal["jsonl", "json"]


class PublishedRow(BaseModel):
    """The fields every released row has; further ones are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    response: str = Field(min_length=1)
    category: list[str] = Field(min_length=1)
    score: dict[str, int] = Field(min_length=1)
    source: str


def read_entry(model: type[Entry], name: str, text: str) -> Entry:
    """Read one table entry from JSON text.

    Raises:
        SettingError: it is not JSON, or a field is missing, unknown or of another type.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise SettingError(where, first["msg"], f"an entry of the {model.__name__} table") from None
