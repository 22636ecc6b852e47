"""What a rule reads besides its files, visible to both engines: values of params.yaml and the code behind its script."""

import ast
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from star1.errors import SettingError
from star1.workflow.stamps import Stamped

# What each module imports, from one start to the next.
IMPORTS = ".snakemake/star1/imports.json"


def canonical(value: Any) -> str:
    """A value as JSON, the same text for equal values: keys sorted, and 1.0 written as 1, since YAML readers differ there."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


class Setting(str):
    """A value of params.yaml as it stands on a command line: text as it is, everything else as JSON.

    Snakemake compares the *set* of recorded parameter values, without their names: two values that change places, or one
    that takes a value which another has already, would pass unseen. It records `repr`, so that is where the name stands.
    """

    path: str

    def __new__(cls, path: str, value: Any) -> "Setting":
        """Make the setting that stands at `path`, for example `collect.tfidf_threshold`."""
        setting = super().__new__(cls, value if isinstance(value, str) else canonical(value))
        setting.path = path
        return setting

    def __repr__(self) -> str:
        return f"{self.path}={str(self)!r}"


def find(params: Mapping[str, Any], path: str) -> Any:
    """The value at `path`, keys joined by dots.

    Raises:
        SettingError: nothing is called so, as when a target names a run that is in no table.
    """
    value: Any = params
    keys = path.split(".")
    for place, key in enumerate(keys):
        if not isinstance(value, Mapping) or key not in value:
            from star1.yaml_files import near  # slow to load; passports do without

            known = sorted(map(str, value)) if isinstance(value, Mapping) else []
            where = f"params.yaml: {'.'.join(keys[:place])}"
            raise SettingError(where, f"no {key!r}", f"one of {', '.join(known) or 'none'}", near(key, known))
        value = value[key]
    return value


class LookUp:
    """Values of params.yaml, looked up when a job is planned.

    Args:
        params: the whole of params.yaml.
        path: keys joined by dots; wildcards may stand in it, for example `finetune.runs.{run}`.
        names: if given, `path` has a `{}` for each of these names in turn, and the value is a mapping from name to value.
    """

    def __init__(self, params: Mapping[str, Any], path: str, names: Sequence[str] | None = None) -> None:
        self.params, self.path, self.of_names = params, path, names

    @property
    def of_job(self) -> bool:
        """Whether which keys are read may hang on the job."""
        return self.of_names is None and "{" in self.path

    def names(self, wildcards: Any) -> list[str]:
        """The paths with wildcards filled in: the names of the parameters for DVC."""
        if self.of_names is None:
            return [self.path.format(**dict(wildcards.items()))]
        return [self.path.format(name) for name in self.of_names]

    def __call__(self, wildcards: Any) -> Setting:
        """The value for one job."""
        paths = self.names(wildcards)
        if self.of_names is None:
            return Setting(paths[0], find(self.params, paths[0]))
        values = (find(self.params, path) for path in paths)
        return Setting(self.path, dict(zip(self.of_names, values, strict=True)))


class Derived(LookUp):
    """A value that is made of values of params.yaml, where which ones they are hangs on the job.

    Args:
        params: the whole of params.yaml.
        path: what the value is called in records.
        paths: the keys that it is made of, by wildcards.
        value: what is made of them, by wildcards.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        path: str,
        paths: Callable[[dict[str, str]], list[str]],
        value: Callable[[dict[str, str]], Any],
    ) -> None:
        super().__init__(params, path)
        self._paths, self._value = paths, value

    @property
    def of_job(self) -> bool:
        """Whether which keys are read may hang on the job."""
        return True

    def names(self, wildcards: Any) -> list[str]:
        """The keys for one job."""
        return self._paths(dict(wildcards.items()))

    def __call__(self, wildcards: Any) -> Setting:
        """The value for one job."""
        return Setting(self.path, self._value(dict(wildcards.items())))


class Params:
    """params.yaml as the rules see it.

    Calling it gives a look-up for one job's parameter; `value` and `names` give what shapes the DAG itself, and remember
    that it does.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.values = params
        self.shaping: set[str] = set()

    def __call__(self, path: str) -> LookUp:
        """A look-up of the value at `path`."""
        return LookUp(self.values, path)

    def each(self, path: str, names: Sequence[str]) -> LookUp:
        """A look-up of one value for each of `names`."""
        return LookUp(self.values, path, names)

    def value(self, path: str) -> Any:
        """A value that shapes the DAG."""
        self.shaping.add(path)
        return find(self.values, path)

    def names(self, path: str) -> list[str]:
        """The list, or the keys of the mapping, at `path`, in file order."""
        return list(self.value(path))


@functools.cache
def _memory(root: Path) -> Stamped:
    return Stamped(root / IMPORTS, root)


def _names(path: Path) -> list[str]:
    """The names in the imports of a module, also inside functions, that may be modules of this project."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return sorted(name for name in names if name.split(".")[0] in ("star1", "scripts"))


@functools.cache
def _imports(path: Path, root: Path) -> frozenset[Path]:
    """The project's own modules that a module names in an import."""
    names = _memory(root).of(path.relative_to(root).as_posix(), _names)
    if names is None:
        raise FileNotFoundError(path)
    return frozenset(file for name in names if (file := root / (name.replace(".", "/") + ".py")).is_file())


def code(script: str, root: Path | None = None) -> list[str]:
    """The files of `scripts/{script}.py` and of every module of this project that it imports, directly or not, sorted.

    Neither engine sees what a `shell:` command runs, so a rule names these files as inputs.
    """
    root = Path.cwd() if root is None else root
    todo, found = [root / "scripts" / f"{script}.py"], set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo.extend(_imports(path, root))
    if (root / IMPORTS).parent.parent.is_dir():  # only where Snakemake has its own books
        _memory(root).save()
    return sorted(path.relative_to(root).as_posix() for path in found)


def page_files() -> list[str]:
    """The files that the report's page is made of: scripts and styles, which no import names."""
    return sorted(path.as_posix() for path in Path("star1/report/page").iterdir() if path.is_file())
