"""Presets: what differs from the default params.yaml, written into it with its comments kept."""

import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from star1 import params
from star1.errors import SettingError
from star1.records import write_text

# Section and key are merged; what stands under a key of a table (a source, an endpoint, a run) is replaced whole.
MERGED_LEVELS = 2


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1_000_000  # nothing that was not changed is wrapped anew
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml.representer.add_representer(float, _written_out)
    return yaml


def _written_out(writer: Any, value: float) -> Any:
    """A float without exponent: 1e-05, as Python writes 0.00001, is a text in YAML 1.1."""
    if not math.isfinite(value):
        return writer.represent_float(value)
    text = f"{Decimal(repr(value)):f}"
    return writer.represent_scalar("tag:yaml.org,2002:float", text if "." in text else f"{text}.0")


def merge(values: Any, changes: Mapping[str, Any], level: int = 0) -> None:
    """Put `changes` into `values`, in place; an entry of a table that is null in `changes` is taken out."""
    for key, change in changes.items():
        if isinstance(change, Mapping) and isinstance(values.get(key), Mapping) and level < MERGED_LEVELS:
            merge(values[key], change, level + 1)
        elif change is None and level == MERGED_LEVELS:
            values.pop(key, None)
        else:
            values[key] = change


def assign(values: Any, text: str) -> None:
    """Put one value where `section.key=value` says, in place; the value is YAML, and null takes out an entry of a table.

    Raises:
        SettingError: it has no `=`, the value is not YAML, or the path leads through something that is no mapping.
    """
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise SettingError("--set", repr(text), "section.key=value")
    *parents, last = path.split(".")
    for key in parents:
        values = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(values, dict):
        raise SettingError(
            "--set", f"{path!r}, and there is no {'.'.join(parents)}", "the path of a value in params.yaml"
        )
    try:
        found = YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        told = str(getattr(error, "problem", None) or error)
        raise SettingError("--set", f"{text!r}, whose value is not YAML ({told})", "section.key=value") from None
    if found is None and len(parents) == MERGED_LEVELS:
        values.pop(last, None)
    else:
        values[last] = found


def apply(preset: str | None, assignments: Sequence[str], path: Path = Path("params.yaml")) -> list[str]:
    """Write a preset and single values into the params file; gives the keys that changed.

    Nothing is written unless the result passes every check.

    Raises:
        SettingError: no such preset, or the result has mistakes.
    """
    before = params.read_yaml(path)
    text, after = _tried([preset] if preset else [], assignments, path)
    changed = list(differences("", before, after))
    if changed:
        write_text(path, text)
    return changed


def planned(names: Sequence[str], assignments: Sequence[str], path: Path = Path("params.yaml")) -> dict[str, Any]:
    """The values that `apply` would write for presets, one after the other; nothing is written.

    Raises:
        SettingError: as `apply`.
    """
    return _tried(names, assignments, path)[1]


def _tried(names: Sequence[str], assignments: Sequence[str], path: Path) -> tuple[str, dict[str, Any]]:
    """The params file with presets and single values in it, as text and as checked values."""
    yaml, out = _yaml(), io.StringIO()
    values = yaml.load(path.read_text("utf-8"))
    for name in names:
        merge(values, _read_preset(name, path.parent / "presets"))
    for text in assignments:
        assign(values, text)
    yaml.dump(values, out)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        try:
            trial.write_text(out.getvalue(), "utf-8")
            return out.getvalue(), params.load(trial, path.parent)
        except params.ParamsError as error:
            lines = [
                line.replace(str(trial), f"{path} with {' and '.join(names) or 'the new values'}")
                for line in error.lines
            ]
            raise params.ParamsError(lines) from None


def _read_preset(name: str, folder: Path) -> dict[str, Any]:
    file = folder / f"{name}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(one.stem for one in folder.glob("*.yaml")))
        raise SettingError(f"preset {name!r}", f"no file {file}", f"one of {names}")
    return params.read_yaml(file)


def differences(path: str, before: Any, after: Any) -> list[str]:
    """The keys whose values differ, joined by dots."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = list(dict.fromkeys([*before, *after]))
        return [
            one for key in keys for one in differences(f"{path}.{key}".lstrip("."), before.get(key), after.get(key))
        ]
    return [] if before == after and type(before) is type(after) else [path]
