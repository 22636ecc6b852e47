"""Is the file that lies there the one that its record is about?

Snakemake decides from a record per output (`.snakemake/metadata`) and never looks at the output's content. Alone it would
take a hand-edited output, an old file put back by `dvc checkout`, or the record that a *failed* job leaves, for a finished
job's work. So a record carries the SHA-256 of the output it was written for, and each start compares: an output is trusted
if its content is the recorded one, or (no digest yet) if it still has the very modification time at which Snakemake saw
its job end, and if the content of every input is the recorded one, whatever the file times say. The record of an output
that is not trusted gets a marked parameter, so that Snakemake plans the job again and says why; the mark goes when the
right content is back.
"""

import contextlib
import hashlib
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import yaml

from star1.records import file_digest, write_text
from star1.workflow.dag import CHECKPOINT_MANIFEST
from star1.workflow.stamps import Stamped

METADATA = Path(".snakemake/metadata")
DIGESTS = Path(".snakemake/star1/digests.json")
OUTPUTS = Path(".snakemake/star1/outputs.json")
MARK = "NOT TRUSTED: "
INPUT = "its input "
# Marks that stay, whatever the files hold later (star1.workflow.starts).
MIXED = "what it was made from changed while its job ran: "
UNNOTED = "nobody noted what its job started with"
RECORD_FORMAT = 6
NAME_MAX = 254
# What Snakemake puts into an output that is a folder: its modification time is when the job ended.
TIMESTAMP = ".snakemake_timestamp"


def record_file(output: str) -> Path:
    """Where Snakemake keeps the record of an output: its path in base64, in pieces that file systems take."""
    name = urlsafe_b64encode(output.encode()).decode()
    pieces = [name[start : start + NAME_MAX] for start in range(0, len(name), NAME_MAX)]
    return METADATA.joinpath(*(f"@{piece}" for piece in pieces[:-1]), pieces[-1])


def recorded_outputs() -> list[str]:
    """Every output that has a record, sorted."""
    files = (path for path in METADATA.rglob("*") if path.is_file())
    names = ("".join(part.removeprefix("@") for part in path.relative_to(METADATA).parts) for path in files)
    return sorted(urlsafe_b64decode(name).decode() for name in names)


def read_record(output: str) -> dict[str, Any]:
    """The record of an output, or {} when there is none or it cannot be read."""
    try:
        record = json.loads(record_file(output).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(output: str, record: dict[str, Any]) -> None:
    """Write the record of an output, atomically."""
    write_text(record_file(output), json.dumps(record))


class Digests:
    """SHA-256 of files, remembered so that nothing is read twice."""

    def __init__(self) -> None:
        self._stamped = Stamped(DIGESTS)

    def of(self, path: str) -> str | None:
        """Digest of a file, or None when it is not there."""
        found: str | None = self._stamped.of(path, file_digest)
        return found

    def of_output(self, output: str) -> str | None:
        """Digest of an output; for a checkpoint also says whether every file is the one its manifest lists."""
        if os.path.isdir(output):
            return self._of_folder(Path(output))
        digest = self.of(output)
        if digest is None or Path(output).name != CHECKPOINT_MANIFEST:
            return digest
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError, AttributeError):
            files = json.loads(Path(output).read_bytes())["files"]
            for name, entry in files.items():
                if self.of(str(Path(output).parent / name)) != entry["sha256"]:
                    return f"{digest}, but {name} is not the file it lists"
            return digest
        return f"{digest}, but it lists no files"

    def _of_folder(self, folder: Path) -> str:
        """Digest over the names and digests of all files in a folder."""
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != TIMESTAMP)
        lines = (f"{self.of(str(path))}  {path.relative_to(folder).as_posix()}\n" for path in files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def save(self) -> None:
        """Keep what was learnt for the next start."""
        self._stamped.save()


def made_at(output: str) -> float:
    """When an output was written, as Snakemake records it."""
    stamp = os.path.join(output, TIMESTAMP)
    return os.lstat(stamp if os.path.isfile(stamp) else output).st_mtime


def distrust(output: str, record: dict[str, Any], digests: Digests) -> str | None:
    """Why an output that lies there is not what its record says, or None."""
    if record.get("endtime") is None:
        return "there is no record of how it was made"
    if reason := _lasting(record):
        return reason
    content = digests.of_output(output)
    if "digest" in record:
        if content != record["digest"]:
            return "it changed after it was made"
    elif made_at(output) != record["endtime"]:
        return "it was not written by the job on record"
    for path, checksum in (record.get("input_checksums") or {}).items():
        now = digests.of(path)
        if now is not None and f"sha256:{now}" != checksum:
            return f"{INPUT}{path} changed"
    return None


def _lasting(record: dict[str, Any]) -> str | None:
    """The reason in a mark that was written with the record itself, by the run that made it."""
    marks = (text for text in record.get("params") or [] if isinstance(text, str) and text.startswith(MARK))
    return next((text.removeprefix(MARK) for text in marks), None)


def unmarked(record: dict[str, Any]) -> dict[str, Any]:
    """The record without the mark that `mark_untrusted` put on it."""
    record = dict(record)
    if "trusted_params" in record:
        record["params"] = record.pop("trusted_params")
    return record


def survey(outputs: list[str], digests: Digests) -> dict[str, str]:
    """The outputs that lie there and are not trusted, with the reason."""
    found = {}
    for output in outputs:
        if os.path.lexists(output) and (reason := distrust(output, unmarked(read_record(output)), digests)):
            found[output] = reason
    return found


def outputs_of_dvc() -> list[str]:
    """Every output in dvc.yaml, as Snakemake names it (it stands in the command of its stage)."""
    stamped = Stamped(OUTPUTS)
    found: list[str] | None = stamped.of("dvc.yaml", _outputs_in)
    stamped.save()
    return found or []


def _outputs_in(path: Path) -> list[str]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
    stages = yaml.load(path.read_bytes(), loader)["stages"]  # noqa: S506
    return sorted(name for stage in stages.values() for name in stage["cmd"].replace("'", "").split()[4:])


def mark_untrusted(outputs: list[str], untrusted: dict[str, str]) -> None:
    """Mark the records of untrusted outputs, take marks off the others, and keep the digest of each trusted output."""
    digests = Digests()
    for output in outputs:
        before = read_record(output)
        record = unmarked(before)
        if output in untrusted:
            record.setdefault("record_format_version", RECORD_FORMAT)
            record["trusted_params"] = record.get("params")
            record["params"] = [MARK + untrusted[output]]
        elif record and os.path.lexists(output) and "digest" not in record:
            record["digest"] = digests.of_output(output)
        if record != before:
            write_record(output, record)
    digests.save()


def seal() -> set[str]:
    """Give every trusted record the digest of its output: when jobs have ended, before anything can touch the files.

    Gives the outputs that are not trusted.
    """
    outputs, digests = recorded_outputs(), Digests()
    untrusted = survey(outputs, digests)
    digests.save()
    mark_untrusted(outputs, untrusted)
    return set(untrusted)
