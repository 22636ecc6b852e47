"""Passports as text: sections with aligned fields, tables where all entries are alike."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from star1.columns import columns
from star1.records import Row

INDENT = "  "
# A table of wider rows than this is told entry by entry.
WIDEST = 170
SHORT = 12


def lines(passport: Row, everything: bool = False) -> Iterator[str]:
    """A passport, line by line; what does not agree comes first, as it would be overlooked below.

    Args:
        passport: what is told.
        everything: with all parameters and policies of the stages, and whole digests.
    """
    yield f"{passport['address']} ({passport['kind']})"
    for name, title in (("problems", "DOES NOT AGREE"), ("missing", "missing")):
        yield from (f"{title}: {line}" for line in passport.get(name) or ())
    told = {name: value for name, value in passport.items() if name not in ("address", "kind", "problems", "missing")}
    if not everything and "stages" in told:
        told["stages"] = [_stage(one) for one in told["stages"]]
    yield from _fields(told, "")


def _stage(one: Row) -> Row:
    """A stage in a line."""
    if not one.get("stage"):
        return {"stage": "-", "output": one["output"], "code": one.get("hint")}
    changed = len(one["changed_since"])
    told = {"stage": one["stage"], "output": one["output"], "md5": str(one["md5"])[:SHORT], "code": one["code"]}
    told |= {"policy": one["policy_digest"], "changed_since": f"{changed} files" if changed else "nothing"}
    return told | {"ran_in": one["image"].get("sha256", "")[:SHORT] or one["image"]["ran_in"]}


def _fields(row: Mapping[str, Any], indent: str) -> Iterator[str]:
    plain = {name: _plain(value) for name, value in row.items() if _plain(value) is not None}
    width = max((len(name) for name in plain), default=0)
    for name, value in row.items():
        if name in plain:
            told = f"{indent}{name:<{width}}{INDENT}{plain[name]}".replace("\n", f"\n{indent}{INDENT}")
            yield from (line.rstrip() for line in told.split("\n"))
        else:
            yield from _block(name, value, indent)


def _block(title: str, value: Any, indent: str) -> Iterator[str]:
    if not indent:
        yield ""
    yield f"{indent}{title}:"
    if isinstance(value, Mapping):
        yield from _fields(value, indent + INDENT)
        return
    if (table := _table(value, indent + INDENT)) is not None:
        yield from table
        return
    for entry in value:
        body = list(_fields(entry, indent + INDENT * 2))
        yield f"{indent}{INDENT}- {body[0].strip()}" if body else f"{indent}{INDENT}-"
        yield from body[1:]


def _table(rows: Sequence[Any], indent: str) -> list[str] | None:
    """Entries as a table, if all of their fields are plain and it is not too wide."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_plain(row[name]) if name in row else "" for name in names] for row in rows]
    if any(cell is None or "\n" in cell for row in cells for cell in row):
        return None
    told = [indent + line for line in columns([names, *[[cell or "" for cell in row] for row in cells]])]
    return told if max(map(len, told)) <= WIDEST else None


def _plain(value: Any) -> str | None:
    """A value that fits on a line, as text; None for what takes a block."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, Mapping):
        if not value:
            return "none"
        if list(value) == ["passport"]:
            return str(value["passport"])
        return (
            None if any(isinstance(one, Mapping | list) for one in value.values()) or len(value) > 4 else _pairs(value)
        )
    if not value:
        return "none"
    if all(isinstance(one, str | int | float) for one in value):
        return ", ".join(map(str, value))
    if all(list(one) == ["passport"] for one in value):
        return ", ".join(one["passport"] for one in value)
    if all(list(one) == ["path", "sha256"] for one in value):
        return ", ".join(f"{one['path']} (SHA-256 {str(one['sha256'])[:SHORT]})" for one in value)
    return None


def _pairs(value: Mapping[str, Any]) -> str | None:
    told = ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    return told if len(told) <= WIDEST else None
