"""What a stage stands on besides its input files: code, and values of params.yaml, in one small file for DVC.

DVC parses params.yaml once for each stage that names a key of it, and looks at every module of code for every stage that
imports it: with 150 stages most of what `dvc status` took. So one stage, `in_step`, depends on all of both and writes a
file for each rule (or for each job, where the keys hang on the job) with the digests of its code and its values; the
other stages depend on theirs. A change makes `in_step` stale, which rewrites the files, and those stages run again whose
file came out different.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from star1.errors import Star1Error
from star1.records import write_text
from star1.workflow.dag import jobs, parameter_names, stage_name
from star1.workflow.lookups import LookUp, canonical, find
from star1.workflow.stamps import Stamped

FOLDER = Path("results/basis")
DIGESTS = Path(".snakemake/star1/md5.json")
CODE = ("star1/", "scripts/")


def is_code(path: str) -> bool:
    """Whether an input is of this project's own code."""
    return path.startswith(CODE)


def path_of(job: Any) -> str | None:
    """The file of a job, or None when it reads neither code nor values. Which it is hangs on its rule alone."""
    look_ups = [value for value in job.rule.params if isinstance(value, LookUp)]
    if not look_ups and not any(is_code(str(file)) for file in job.input):
        return None
    name = stage_name(job) if any(one.of_job for one in look_ups) else job.rule.name
    return (FOLDER / f"{name}.json").as_posix()


class Current:
    """The files as they would be written now.

    Args:
        values: params.yaml as those read it who ask; as it is on disk if not given.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.values: Mapping[str, Any] = _params() if values is None else values
        self._digests = Stamped(DIGESTS)
        self._found: dict[str, str | None] = {}

    def text(self, code: Iterable[str], names: Iterable[str]) -> str:
        """A file: digests of code, and values by key."""
        digests = {path: self._digests.of(path, _md5) for path in sorted(code)}
        values = {name: orjson.loads(canonical(find(self.values, name))) for name in sorted(names)}
        return orjson.dumps({"code": digests, "values": values}, option=orjson.OPT_INDENT_2).decode() + "\n"

    def of(self, path: str) -> str | None:
        """What a file that is there should be, for the names in it; None when it cannot be told.

        That names are missing in it is no loss: it takes a change of a module that is in it to import another one.
        """
        if path not in self._found:
            self._found[path] = self._renewed(path)
        return self._found[path]

    def _renewed(self, path: str) -> str | None:
        with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            said = orjson.loads(Path(path).read_bytes())
            return self.text(said["code"], said["values"])
        return None

    def holds(self, path: str) -> bool:
        """Whether a file is there and says what is so now."""
        return self.of(path) is not None and Path(path).read_text("utf-8") == self.of(path)

    def save(self) -> None:
        """Keep what was read for the next start."""
        self._digests.save()


def _params() -> Mapping[str, Any]:
    """params.yaml, unchecked; nothing where it cannot be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(Path("params.yaml").read_bytes(), loader)  # noqa: S506
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def digest(text: str) -> str:
    """The digest by which DVC names a content."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def of_jobs(workflow: Any, dag: Any) -> dict[str, str]:
    """The files of all jobs of a planned DAG, by path, with the values that it was planned with.

    Raises:
        Star1Error: jobs of one rule read different code.
    """
    current, texts = Current(workflow.globals["P"].values), dict[str, str]()
    for job in jobs(dag):
        path = path_of(job)
        if path is None:
            continue
        text = current.text((str(file) for file in job.input if is_code(str(file))), parameter_names(job))
        if texts.setdefault(path, text) != text:
            raise Star1Error(
                job.rule.name, "jobs that read different code", "one list of modules for all jobs of a rule"
            )
    current.save()
    return texts


def write(texts: Mapping[str, str], *, whole: bool = True) -> None:
    """Write the files that changed.

    Args:
        texts: what is to be in them, by path.
        whole: whether these are all there are; others are removed then.
    """
    for path, text in texts.items():
        if not Path(path).exists() or Path(path).read_text("utf-8") != text:
            write_text(path, text)
    for other in FOLDER.glob("*.json") if whole else ():
        if other.as_posix() not in texts:
            other.unlink()


def stale() -> set[str]:
    """The files that are there and do not say what is so now."""
    current = Current()
    found = {path.as_posix() for path in FOLDER.glob("*.json") if not current.holds(path.as_posix())}
    current.save()
    return found
