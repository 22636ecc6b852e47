"""YAML files that people write: each mistake with its line, and no key that silently replaces an earlier one."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from star1.errors import InputError

TAB = "YAML is indented with spaces; replace the tab"
UNREAD = "a colon, quote or bracket within a text needs quotes around the text"


@dataclass(frozen=True)
class Marked:
    """A file's value, and the lines of its parts."""

    path: Path
    value: Any
    node: Any

    def where(self, *way: int | str) -> str:
        """File and line of the part that keys and places lead to, or of the last part on the way that is there."""
        node, line = self.node, 1
        for step in way:
            node, found = _part(node, step)
            if node is None:
                break
            line = found
        return f"{self.path}:{line}"


def _part(node: Any, step: int | str) -> tuple[Any, int]:
    """A part of a node, and the line it begins in; None where there is no such part."""
    if isinstance(node, yaml.MappingNode):
        pairs = {key.value: (key, value) for key, value in node.value}
        if step in pairs:
            return pairs[str(step)][1], pairs[str(step)][0].start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line + 1
    return None, 0


def read_marked(path: Path, text: str, what: str) -> Marked:
    """Read a document.

    Args:
        path: named in errors.
        text: what the file holds.
        what: what the file should be, for errors.

    Raises:
        InputError: not YAML, told with its line.
    """
    try:
        # Beside the value, the same document as nodes, which know their lines.
        return Marked(path, yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        lines = text.splitlines() or [""]
        hint = TAB if "\t" in lines[min(line, len(lines) - 1)] else UNREAD
        raise InputError(f"{path}:{line + 1}", f"not YAML ({error.problem})", what, hint) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}:{line}", f"not YAML ({error.reason})", what) from None
    except (ValueError, AttributeError, IndexError, TypeError, RecursionError) as error:
        # A date of the thirteenth month; a tag such as !!int before what is none, over which PyYAML trips.
        raise InputError(path, f"not YAML ({error})", what, "put quotes around what is meant as text") from None


def repeated_keys(marked: Marked) -> Iterator[InputError]:
    """Keys that stand twice in one mapping; PyYAML takes the last without a word."""
    todo, seen = [marked.node], set()
    while todo:
        node = todo.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))  # an alias may lead back to where it stands
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
            continue
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in first:
                found = f"key {key.value!r} a second time (first in line {first[key.value]})"
                yield InputError(f"{marked.path}:{line}", found, "each key once")
            first.setdefault(str(key.value), line)
            todo.append(value)


def explain(marked: Marked, error: ValidationError, model: type[BaseModel]) -> Iterator[InputError]:
    """What a model finds wrong with a document, each with its line."""
    for one in error.errors(include_url=False):
        place = [part for part in one["loc"] if part != "[key]"]
        where, name = marked.where(*place), ".".join(map(str, place)) or "the file"
        if one["type"] == "missing":
            yield InputError(where, f"no {name}", "a value for it")
        elif one["type"] == "extra_forbidden":
            allowed = fields(model, place[:-1])
            yield InputError(
                where, f"unknown key {name}", f"one of {', '.join(allowed)}", near(str(place[-1]), allowed)
            )
        else:
            yield InputError(where, f"{name}: {_shown(one['input'])}", *_expected(one, fields(model, place)))


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list" if value else "an empty list"
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"


def _expected(one: Any, names: Sequence[str]) -> tuple[str, str]:
    """What should stand there, and a hint."""
    message = one["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if one["type"] in ("model_type", "dict_type"):
        message = "a mapping" + (f" with the keys {', '.join(names)}" if names else "")
    quoted = one["type"] == "string_type" and isinstance(one["input"], bool | int | float)
    return message, "put quotes around it" if quoted else ""


def closest(word: str, words: Sequence[str]) -> list[str]:
    """The one of `words` that is most like `word`; none where none is."""
    folded = {other.casefold(): other for other in words}
    return [folded[found] for found in difflib.get_close_matches(word.casefold(), list(folded), 1)]


def near(word: str, words: Sequence[str]) -> str:
    """A hint at the word that was meant; empty where none is like it."""
    found = closest(word, words)
    return f"did you mean {found[0]}?" if found else ""


def fields(model: type[BaseModel], place: Sequence[Any]) -> list[str]:
    """The keys that are allowed at a place of a document, following the types of its model."""
    kinds: list[Any] = [model]
    for key in place:
        found: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
                found.extend(_flat(kind.model_fields[key].annotation))
        kinds = found or kinds  # the name of a table's entry is no field of it
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sorted({name for one in models for name in one.model_fields})


def _flat(annotation: Any) -> Iterator[Any]:
    arguments = getattr(annotation, "__args__", None)
    if arguments is None:
        yield annotation
    for argument in arguments or ():
        yield from _flat(argument)
