"""The files of a policy pack: read whole, and every mistake told with its file and line."""

import difflib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from star1.errors import InputError
from star1.records import write_text
from star1.templates import PLACEHOLDERS, Marks, Terms, heading_mistakes, template_mistakes
from star1.yaml_files import Marked, explain, near, read_marked, repeated_keys

# A text is sent with every call; one beyond this [characters] is a file that lies in the wrong place.
LONGEST = 40_000
GOLDEN = "golden.yaml"
SLUG = re.compile(r"[a-z][a-z0-9_]*")
TOP = ("policy.yaml", GOLDEN, "README.md", "policies", "prompts")
Text = Annotated[str, Field(pattern=r"\S")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Category(_Strict):
    """One category of harm; its policy text stands in `policies/<slug>.md`."""

    name: str
    slug: str
    definition: Text

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name or name != name.strip() or re.search(r'["\[\]\x00-\x1f]', name):
            raise ValueError("a name on one line, without double quotes, brackets or blanks at its ends")
        return name

    @field_validator("slug")
    @classmethod
    def _file_name(cls, slug: str) -> str:
        if not SLUG.fullmatch(slug):
            raise ValueError("small letters, digits and _ alone, since it names a file")
        return slug


class Rubric(_Strict):
    """Criteria that a response is scored on, and the range of the scores."""

    minimum: int
    maximum: int
    criteria: dict[str, Text] = Field(min_length=1)

    @field_validator("criteria")
    @classmethod
    def _keys(cls, criteria: dict[str, str]) -> dict[str, str]:
        if wrong := [name for name in criteria if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)]:
            raise ValueError(f"letters, digits and _ alone in {wrong[0]!r}, since it is a key of the reply")
        return criteria

    def text(self) -> str:
        """The criteria as the scorer reads them."""
        lines = (f"- {name}: {' '.join(meaning.split())}" for name, meaning in self.criteria.items())
        return "\n".join(lines)

    def reply_format(self) -> str:
        """The form of the scorer's reply."""
        marks = ", ".join(f'"{name}": <integer from {self.minimum} to {self.maximum}>' for name in self.criteria)
        return "{" + marks + "}"


class Rubrics(_Strict):
    """What answers to harmful prompts are scored on, and what answers to benign ones."""

    score: Rubric
    benign: Rubric


class PackFile(_Strict):
    """What `policy.yaml` holds."""

    name: Text
    title: Text
    categories: list[Category] = Field(min_length=1)
    other: Text
    rubrics: Rubrics


@dataclass(frozen=True)
class Files:
    """A pack's files as they are; `file` is None where policy.yaml has a mistake.

    Attributes:
        file: policy.yaml.
        texts: what the other files hold, by their path within the pack.
        terms: names, and marks of the rubrics, as far as they could be read.
        mistakes: all of them, golden examples aside.
    """

    file: PackFile | None
    texts: Mapping[str, str]
    terms: Terms
    mistakes: Sequence[InputError]


def read_files(folder: Path) -> Files:
    """Read a policy pack, and gather its mistakes."""
    mistakes: list[InputError] = []
    file, marked = _read_pack_file(folder / "policy.yaml", mistakes)
    terms = read_terms(marked.value if marked else None)
    slugs = [slug for _, slug in _texts_of(marked.value if marked else None, "slug") if SLUG.fullmatch(slug)]
    texts: dict[str, str] = {}
    wanted = {
        "policies": [f"{slug}.md" for slug in dict.fromkeys(slugs)],
        "prompts": [f"{name}.md" for name in PLACEHOLDERS],
    }
    for part, names in wanted.items():
        for path in (folder / part / name for name in names):
            try:
                text = texts[f"{part}/{path.name}"] = read_text(path)
            except InputError as error:
                mistakes.append(error)
            else:
                mistakes += template_mistakes(path, text, terms) if part == "prompts" else heading_mistakes(path, text)
    # A text of a category whose slug is wrong is no second mistake.
    if len(wanted["policies"]) < max(1, len(terms.names)):
        del wanted["policies"]
    mistakes += _needless(folder, {".": TOP, **wanted})
    return Files(file, texts, terms, mistakes)


def read_text(path: Path, longest: float = LONGEST) -> str:
    """What a file of a pack holds, blanks at its end left out.

    Raises:
        InputError: missing, empty, too long or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip()
    except FileNotFoundError:
        raise InputError(path, "no such file", "a file of the policy pack") from None
    except UnicodeDecodeError as error:
        raise InputError(path, f"not UTF-8 ({error.reason} at byte {error.start})", "text in UTF-8") from None
    if not text:
        raise InputError(path, "an empty file", "text")
    if len(text) > longest:
        raise InputError(path, f"{len(text):,} characters", f"at most {longest:,}", "it would be sent with every call")
    if text.startswith("\ufeff"):
        raise InputError(f"{path}:1", "a byte order mark", "text alone", "save it as UTF-8 without BOM")
    return text


def _read_pack_file(path: Path, mistakes: list[InputError]) -> tuple[PackFile | None, Marked | None]:
    try:
        marked = read_marked(path, read_text(path), "a policy pack's policy.yaml")
    except InputError as error:
        mistakes.append(error)
        return None, None
    mistakes += repeated_keys(marked)
    file = None
    try:
        file = PackFile.model_validate(marked.value)
    except ValidationError as error:
        mistakes += explain(marked, error, PackFile)
    mistakes += _contradictions(marked, read_terms(marked.value))
    return file, marked


def _contradictions(marked: Marked, terms: Terms) -> Iterator[InputError]:
    """Fields that are right by themselves and wrong beside others; of a document that may have other mistakes."""
    value = marked.value if isinstance(marked.value, dict) else {}
    folder, name, other = marked.path.absolute().parent.name, value.get("name"), value.get("other")
    if isinstance(name, str) and name.strip() and name != folder:
        yield InputError(marked.where("name"), f"name: {name!r}", f"{folder!r}, as the pack's folder is called")
    for key in ("name", "slug"):
        entries = [(("categories", place, key), text) for place, text in _texts_of(value, key)]
        yield from twice(marked, f"category {key}", entries)
    if isinstance(other, str) and (same := [one for one in terms.names if folded(one) == folded(other)]):
        found = f"other: {other!r}, and a category is called {same[0]!r}"
        yield InputError(marked.where("other"), found, "a word of its own")
    for key, marks in terms.marks.items():
        if marks.minimum >= marks.maximum:
            found = f"rubrics.{key}: maximum {marks.maximum} and minimum {marks.minimum}"
            yield InputError(marked.where("rubrics", key, "maximum"), found, "a maximum above the minimum")
        criteria = [(("rubrics", key, "criteria", criterion), criterion) for criterion in marks.criteria]
        yield from twice(marked, f"criterion of rubrics.{key}", criteria)


def folded(name: str) -> str:
    """A name by which two are told apart: neither case, nor the number of blanks, nor blanks around a slash count."""
    return re.sub(r"\s*/\s*", "/", " ".join(name.split())).casefold()


def twice(marked: Marked, what: str, entries: Sequence[tuple[Sequence[int | str], str]]) -> Iterator[InputError]:
    """Entries that are called as an earlier one is, case and blanks aside."""
    first: dict[str, tuple[str, str]] = {}
    for way, name in entries:
        where = marked.where(*way)
        if folded(name) in first:
            earlier, line = first[folded(name)]
            shown = f" as {earlier!r}" if earlier != name else ""
            found = f"{what} {name!r} a second time (first in line {line}{shown})"
            yield InputError(where, found, "names that differ by more than case and blanks")
        first.setdefault(folded(name), (name, where.rpartition(":")[2]))


def read_terms(value: Any) -> Terms:
    """Names and marks of a policy.yaml that may have mistakes."""
    value = value if isinstance(value, dict) else {}
    other, rubrics = value.get("other"), value.get("rubrics")
    found: dict[str, Marks] = {}
    for key, rubric in (rubrics if isinstance(rubrics, dict) else {}).items():
        try:
            checked = Rubric.model_validate(rubric)
        except ValidationError:
            continue
        found[key] = Marks(list(checked.criteria), checked.minimum, checked.maximum)
    names = [name for _, name in _texts_of(value, "name")]
    if not isinstance(other, str) or folded(other) in map(folded, names):
        other = None
    return Terms(names, other, found)


def _texts_of(value: Any, key: str) -> list[tuple[int, str]]:
    """A field of the categories where it is a text, with the category's place."""
    categories = value.get("categories") if isinstance(value, dict) else None
    entries = list(enumerate(categories)) if isinstance(categories, list) else []
    found = [(place, one.get(key)) for place, one in entries if isinstance(one, dict)]
    return [(place, text) for place, text in found if isinstance(text, str)]


def _needless(folder: Path, wanted: Mapping[str, Sequence[str]]) -> Iterator[InputError]:
    """Files that nothing reads, such as a prompt under a mistyped name."""
    for part, known in wanted.items():
        found = sorted((folder / part).iterdir()) if (folder / part).is_dir() else []
        for path in found:
            if path.name not in known and not path.name.startswith(".") and not path.name.endswith("~"):
                absent = [name for name in known if not (folder / part / name).exists()]
                yield InputError(path, "a file that nothing reads", f"only {', '.join(known)}", near(path.name, absent))


def known_packs(root: Path, like: str = "") -> list[str]:
    """The packs there are, those whose names are like `like` first."""
    names = sorted(path.parent.name for path in root.glob("policies/*/policy.yaml"))
    return sorted(names, key=lambda name: -difflib.SequenceMatcher(None, like.casefold(), name.casefold()).ratio())


def find_pack(root: Path, name: str) -> Path:
    """A pack's folder.

    Raises:
        InputError: there is none of this name.
    """
    name = name.removeprefix("policies/").rstrip("/")  # as a shell completes it
    folder = root / "policies" / name
    if not name.strip(".") or "/" in name or not folder.is_dir():
        packs = known_packs(root, name)
        raise InputError(folder, "no such policy pack", f"one of {', '.join(packs)}", near(name, packs))
    return folder


def new_pack(root: Path, name: str, source: str) -> Path:
    """Copy a pack under a new name; gives the new folder.

    Raises:
        InputError: there is no pack `source`, it has mistakes, or `name` is taken or is no name of a folder.
    """
    old, new = find_pack(root, source), root / "policies" / name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]*", name):
        raise InputError(
            "policy new", f"{name!r}", "a name of letters, digits and _ + -, which begins with one of the first two"
        )
    if new.exists():
        raise InputError(new, "something of this name", "a new name", "nothing was changed")
    files = read_files(old)
    if files.mistakes:
        raise InputError(
            old, f"{len(files.mistakes)} mistakes", "a pack without", f"star1 policy check {source} --schema-only"
        )
    text = (old / "policy.yaml").read_text("utf-8")
    marked = read_marked(old / "policy.yaml", text, "a policy pack's policy.yaml")
    lines = text.splitlines(keepends=True)
    # Only this line changes, so that comments and layout stay.
    lines[int(marked.where("name").rpartition(":")[2]) - 1] = f"name: {name}\n"
    with tempfile.TemporaryDirectory(dir=new.parent, prefix=".new-") as folder:
        copy = Path(folder) / name
        shutil.copytree(old, copy, ignore=shutil.ignore_patterns(".*", "*~"))
        write_text(copy / "policy.yaml", "".join(lines))
        copy.rename(new)
    return new
