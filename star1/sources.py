"""Prompt sets and benchmarks as tables: where each lies, on what terms, and how its file becomes rows."""

import json
import re
from pathlib import PurePosixPath
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from star1.errors import SettingError

REPOSITORIES = ("github", "hub")
REMOTE = (*REPOSITORIES, "url")
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")

Scalar = str | int | float | bool | None
Entry = TypeVar("Entry", bound=BaseModel)


class Located(BaseModel):
    """Where a file lies, and on what terms it may be used.

    Attributes:
        kind: bundled with the project, in the mirror folder, in a GitHub repository, on the Hugging Face hub, or at an address.
        path: file or files, relative to the project root, the mirror folder or the repository; on the hub, globs too; for url,
            whole addresses.
        repository: `owner/name`, for github and hub.
        revision: commit, for github and hub; a branch or tag only where `pinned` is false.
        pinned: the content cannot change: by its commit, or for url by its digests. An entry that cannot be pinned says false.
        sha256: digest of each raw file, in the order of the files; null for one skips its check.
        licence: licence of the content, an SPDX name where there is one.
        attribution: who made it, as it is to be cited.
        gated: the hub shows it only to accounts that accepted its terms.
        rows: how many rows must come out; None skips the check.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["bundled", "mirror", "github", "hub", "url"]
    path: str | list[str]
    repository: str | None = None
    revision: str | None = None
    pinned: bool = True
    sha256: str | list[str | None] | None = None
    licence: str
    attribution: str
    gated: bool = False
    rows: int | None = Field(default=None, ge=1)

    @property
    def paths(self) -> list[str]:
        """The paths as a list."""
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def digests(self) -> list[str | None]:
        """The digests as a list, empty when none are given."""
        return [self.sha256] if isinstance(self.sha256, str) else self.sha256 or []

    def digest_of(self, position: int) -> str | None:
        """The digest of the file at `position`, if it is given."""
        return self.digests[position] if self.digests else None

    @model_validator(mode="after")
    def _whole(self) -> "Located":
        if not self.paths:
            raise ValueError("path is empty")
        for name in ("repository", "revision"):
            if (getattr(self, name) is not None) != (self.kind in REPOSITORIES):
                raise ValueError(
                    f"{name} is {'required' if self.kind in REPOSITORIES else 'not allowed'} for kind {self.kind}"
                )
        for path in self.paths:
            _check_path(self.kind, path)
        if self.digests and self.kind != "hub" and len(self.digests) != len(self.paths):
            raise ValueError(f"{len(self.digests)} sha256 for {len(self.paths)} paths")
        for digest in self.digests:
            if digest is not None and not DIGEST.fullmatch(digest):
                raise ValueError(f"sha256 {digest!r} is not 64 hexadecimal digits")
        self._check_pinned()
        return self

    def _check_pinned(self) -> None:
        by_digest = self.kind == "url" and bool(self.digests) and None not in self.digests
        fixed = self.kind not in REMOTE or by_digest or COMMIT.fullmatch(self.revision or "") is not None
        if fixed and not self.pinned:
            raise ValueError("pinned is false, though the content cannot change: take that line out")
        if self.pinned and not fixed:
            lacks = (
                "no sha256 for each file" if self.kind == "url" else f"revision {self.revision!r}, which is no commit"
            )
            raise ValueError(f"{lacks}: the content may change; give a fixed one, or say pinned: false")


def _check_path(kind: str, path: str) -> None:
    """Refuse a path that leads out of its folder; a mirror is the user's own folder, and what lies beside it is too."""
    if kind == "url":
        if urlsplit(path).scheme not in ("http", "https") or not urlsplit(path).netloc:
            raise ValueError(f"path {path!r} must be an address that starts with https://")
        return
    outside = ".." in PurePosixPath(path).parts and kind != "mirror"
    if not path or PurePosixPath(path).is_absolute() or outside:
        raise ValueError(f"path {path!r} must be relative and stay in its folder")


class Prompts(Located):
    """A located file of prompts and how its rows are read.

    A field is the name of a column, or a path into it such as `conversation.0.content` (keys, and places of lists, -1 the last).

    Attributes:
        format: layout of the file; a name that ends in .gz or .xz is unpacked first. A JSON list of plain strings, and
            plain text, have one field `text`. A JSON object of lists is read as columns. A file called json that holds one
            object a line is read as jsonl.
        header: whether the first line of a csv or tsv names its columns; if not, they are named "0", "1", …
        question: field that holds the prompt; None only where the rows are plain strings.
        keep: only rows whose fields equal these values; a list means any of them, a field written `not name` the
            opposite. A csv field, which is always text, equals a number or truth value that is written like it.
        strip: literal markers taken off the question in turn, and then white space around it.
        longest: a question of more characters is dropped, and counted.
    """

    format: Literal["jsonl", "json", "csv", "tsv", "txt", "parquet"]
    header: bool = True
    question: str | None = None
    keep: dict[str, Scalar | list[Scalar]] | None = None
    strip: list[str] = Field(default_factory=list)
    longest: int = Field(default=100_000, ge=1)

    @model_validator(mode="after")
    def _question_named(self) -> "Prompts":
        if self.question is None and self.format not in ("txt", "json"):
            raise ValueError(f"question is required for format {self.format}")
        return self


class Source(Prompts):
    """A prompt set that is collected from; `ngram` is the length in words for its comparison with itself."""

    ngram: int = Field(ge=1)


class Top(BaseModel):
    """Only the rows with the highest scores of each category, best first, category by category in the order of their names.

    Attributes:
        scores: field that holds an object of scores by category; a row is of its highest category (the first, if several are).
        each: rows of each category.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    scores: str
    each: int = Field(ge=1)


class Benchmark(Prompts):
    """A test set.

    Attributes:
        id: field that names a row; None names rows by benchmark and row number.
        answer: field of the expected answer, for reasoning.
        category: field of a row's kind.
        purpose: what is measured on it.
        top: take the rows with the highest scores only; their category is that of the score.
        shuffle_seed: seed of the order in which rows are taken; None keeps the file's order.
        limit: take this many rows; None takes all.
        grader: who grades the answers to a reasoning set; none where no grader here knows how, and the set is only compared with.
        choices: for the grader of choices, the field that holds the list of them, with the right one's letter in `answer`; or the
            fields of one choice each, of which `answer` is one.
        choice_seed: seed of the order of the choices, of each row on its own; None keeps the file's order.
        tests: for the grader of programs, the field of the row's tests, which define `check(candidate)`.
        entry_point: for the grader of programs, the field that names the function.
        manifest_sha256: what the manifest of the rows must give (`star1.manifests`); None where it is not known.
        title: the set's name; says so where it stands in for another.
        paper: address of the paper.
        link: address of the set, where `repository` does not say it.
        example: a row's question, in words of our own where the set's must not be repeated; None for harmful ones.
        note: what has to be known about it.
    """

    id: str | None = None
    answer: str | None = None
    category: str | None = None
    purpose: Literal["harmful", "benign", "reasoning"]
    top: Top | None = None
    shuffle_seed: int | None = None
    limit: int | None = Field(default=None, ge=1)
    grader: Literal["math", "choice", "code", "none"] | None = None
    choices: str | list[str] | None = None
    choice_seed: int | None = None
    tests: str | None = None
    entry_point: str | None = None
    manifest_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    title: str | None = None
    paper: str | None = None
    link: str | None = None
    example: str | None = None
    note: str | None = None

    @property
    def graded_by(self) -> str | None:
        """The grader of a reasoning set, mathematics where none is named; None for other sets."""
        return self.grader or ("math" if self.purpose == "reasoning" else None)

    @property
    def fields(self) -> list[str]:
        """The fields that a row must have besides its question."""
        choices = [self.choices] if isinstance(self.choices, str) else self.choices or []
        single = (self.id, self.answer, self.category, self.tests, self.entry_point, self.top and self.top.scores)
        return list(dict.fromkeys([*(field for field in single if field), *choices]))

    @model_validator(mode="after")
    def _one_category(self) -> "Benchmark":
        if self.top is not None and self.category is not None:
            raise ValueError(
                "category and top: the category of a row is that of its highest score; give one of the two"
            )
        return self

    @model_validator(mode="after")
    def _gradable(self) -> "Benchmark":
        needed = {"math": ["answer"], "choice": ["answer", "choices"], "code": ["tests", "entry_point"]}
        if self.grader is not None and self.purpose != "reasoning":
            raise ValueError(f"grader is not allowed for purpose {self.purpose}")
        if lacking := [name for name in needed.get(self.graded_by or "", []) if getattr(self, name) is None]:
            raise ValueError(f"{' and '.join(lacking)} is required for grader {self.graded_by}")
        for name, grader in (
            ("choices", "choice"),
            ("choice_seed", "choice"),
            ("tests", "code"),
            ("entry_point", "code"),
        ):
            if getattr(self, name) is not None and self.graded_by != grader:
                raise ValueError(f"{name} is not allowed for grader {self.graded_by}")
        if isinstance(self.choices, list) and (len(self.choices) < 2 or self.answer not in self.choices):
            raise ValueError("choices as fields must be two or more, with the field of the answer among them")
        return self


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


def read_entries(model: type[Entry], text: str) -> dict[str, Entry]:
    """Read several table entries by name, from one JSON object.

    Raises:
        SettingError: as `read_entry`.
    """
    return {name: read_entry(model, name, json.dumps(entry)) for name, entry in json.loads(text).items()}
