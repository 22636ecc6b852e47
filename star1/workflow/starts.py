"""What a job started with, held against what is put on record when it has ended.

Snakemake takes the digests of a job's inputs when the job has ended: a module, or a data file, that was edited while it ran
would pass for what the output was made from. So the digests are noted right before the job's command starts, in the process
that starts it: in memory where that is the process that keeps the records, else (a job of Slurm) in a file. A record
whose digests are not those is written with a mark in the place of its values. Nobody knows then which of the two contents
the job read, so the mark stays until the job has run again, whatever the files hold later.
"""

import functools
import json
from pathlib import Path
from typing import Any, TypedDict

from star1.errors import Star1Error, tell
from star1.records import file_digest, write_text
from star1.workflow.dag import digest, jobs, stage_name
from star1.workflow.stamps import Stamped
from star1.workflow.trust import DIGESTS, MARK, MIXED, UNNOTED

FOLDER = Path(".snakemake/star1/starts")


class Note(TypedDict, total=False):
    """What a job started with: digests by path; from another process also the job's digest and its parameters."""

    files: dict[str, str]
    job: str
    params: list[Any]


class Starts:
    """The notes of one process."""

    def __init__(self) -> None:
        self._mixed: dict[str, tuple[Any, int]] = {}
        self._notes: dict[str, Note] = {}
        self._jobs: dict[str, Any] = {}
        self._digests = Stamped(DIGESTS)

    def expect(self, dag: Any) -> None:
        """Before jobs start: from now on, a record of one of them takes a note."""
        for job in jobs(dag):
            if dag.needrun(job):
                self._jobs.update((str(file), job) for file in job.output)
                _file(job).unlink(missing_ok=True)

    def note(self, job: Any) -> None:
        """A job is about to start."""
        files = {str(file): found for file in job.input if (found := self._digest(str(file)))}
        if job.dag.workflow.is_main_process:
            self._notes[stage_name(job)] = {"files": files}
            return
        params = job.dag.workflow.persistence._params(job)
        write_text(_file(job), json.dumps(Note(files=files, job=digest(job), params=params)))

    def _digest(self, path: str) -> str | None:
        found = self._digests.now(path, _content)
        return f"sha256:{found}" if found else None

    def check(self, output: str, record: Any) -> None:
        """A record is about to be written: mark it if it is not about what the job started with."""
        job = self._jobs.get(output)
        if job is None:  # not run here: taken over from DVC, or touched
            return
        if reason := self._reason(job, record):
            record.params = [MARK + reason]
            self._tell(job, reason)

    def look_again(self) -> None:
        """Before DVC takes its own digests: what jobs started with is still there."""
        for job in {stage_name(job): job for job in self._jobs.values()}.values():
            if (note := self._note(job)) and (reason := self._changed(note, {})):
                self._tell(job, reason)

    def _tell(self, job: Any, reason: str) -> None:
        stage = stage_name(job)
        if stage not in self.mixed():
            self._mixed[stage] = job, job.attempt
            hint = "it is not recorded and runs again; edit while nothing runs, or in another clone."
            tell(f"not recorded: {Star1Error(stage, reason, 'what it started with', hint)}")

    def mixed(self) -> set[str]:
        """The stages that ended and are not recorded; a later attempt of a job is another matter."""
        return {name for name, (job, attempt) in self._mixed.items() if job.attempt == attempt}

    def _reason(self, job: Any, record: Any) -> str | None:
        if (note := self._note(job)) is None:
            return UNNOTED
        if reason := self._changed(note, record.input_checksums):
            return reason
        if "job" in note and (note["job"] != digest(job) or note["params"] != record.params):
            return f"{MIXED}its rule, or values of params.yaml"
        return None

    def _note(self, job: Any) -> Note | None:
        return self._notes.get(stage_name(job)) or _read(job)

    def _changed(self, note: Note, ended: dict[str, str]) -> str | None:
        """Which files are not those of the note; `ended` are digests that are known already, by path."""
        begun = note["files"]
        if begun == ended:
            return None
        files = {path: ended.get(path) or self._digest(path) for path in {*begun, *ended}}
        changed = sorted(path for path, found in files.items() if found != begun.get(path))
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        return f"{MIXED}{changed[0]}{more}" if changed else None

    def save(self) -> None:
        """Keep the digests for the next start."""
        self._digests.save()


def _content(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


def _file(job: Any) -> Path:
    """Where another process notes what a job started with."""
    return FOLDER / f"{stage_name(job)}.json"


def _read(job: Any) -> Note | None:
    try:
        found: Note = json.loads(_file(job).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found


@functools.cache
def here() -> Starts:
    """The notes of this process."""
    return Starts()


def watch() -> None:
    """Have Snakemake note what each job starts with, and hold it against the record that it writes."""
    from snakemake.jobs import Job
    from snakemake.persistence.file import FilePersistence

    prepare, write = Job.prepare, FilePersistence._write_record
    if hasattr(prepare, "of_star1"):
        return

    async def noted(job: Any) -> None:
        await prepare(job)
        here().note(job)

    def checked(persistence: Any, key: str, record: Any) -> None:
        here().check(key, record)
        write(persistence, key, record)

    noted.of_star1 = True  # type: ignore[attr-defined]
    Job.prepare, FilePersistence._write_record = noted, checked
