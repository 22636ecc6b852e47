"""`vllm run-batch` on files: here where the command is at hand, else on any machine that sees the files."""

import asyncio
import contextlib
import fcntl
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from star1.batch_journal import Sent
from star1.batch_lines import CUSTOM_ID, FOLDER, Ended, outcomes, scratch
from star1.batch_settings import VllmBatch
from star1.batches import BatchClient
from star1.endpoints import Endpoint, Sampling
from star1.errors import CallError, tell
from star1.llm import Request
from star1.progress import LINE_EVERY_S
from star1.records import atomic
from star1.replies import Store

LOGS = Path("logs/batches")
# For vLLM to end in order when it is told to stop [s].
GRACE_S = 20.0


class VllmClient(BatchClient):
    """Asks by files, one at a time."""

    most_open = 1

    def __init__(self, endpoint: Endpoint, sampling: Sampling, store: Store, others: Sequence[Endpoint] = ()) -> None:
        super().__init__(endpoint, sampling, store, others)
        settings = endpoint.batch
        assert isinstance(settings, VllmBatch)  # noqa: S101 (chosen by it)
        self.arguments = settings.arguments
        self._process: asyncio.subprocess.Process | None = None
        self._told_at = 0.0

    @property
    def left(self) -> str:
        """What is there without this run."""
        return "start it again: replies that vllm run-batch wrote are kept" if self._open else ""

    async def _start(self, sent: Sent, file: IO[bytes]) -> None:
        with file, atomic(_input(sent)) as out:
            file.seek(0)
            shutil.copyfileobj(file, out)
        await self._launch(sent)

    async def _launch(self, sent: Sent) -> None:
        if shutil.which("vllm") is None:
            raise self._elsewhere(sent, 0)
        LOGS.mkdir(parents=True, exist_ok=True)
        # The child holds the lock as well: a run that is started while it still works will wait for it.
        lock = _locked(sent)
        assert lock is not None, "looked at before"  # noqa: S101
        with open(_log(sent), "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(sent), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock]
            )
        os.close(lock)
        tell(f"{self.stage}: vllm run-batch on {_input(sent)}, with {len(sent.requests):,} requests; log: {_log(sent)}")

    def _command(self, sent: Sent) -> list[str]:
        files = ["-i", str(_input(sent)), "-o", str(_output(sent))]
        return ["vllm", "run-batch", *files, "--model", self.endpoint.model, *self.arguments]

    async def _goes_on(self, sent: Sent) -> bool:
        return True

    async def _ended(self, sent: Sent) -> Ended | None:
        if self._process is not None:
            return await self._own(sent, self._process)
        if (lock := _locked(sent)) is None:
            self._tell(sent)  # vLLM of an earlier run, which was killed, still works
            return None
        os.close(lock)
        named = _named(sent)
        complete = named >= sent.requests.keys()
        if not complete and _input(sent).exists() and shutil.which("vllm") is None:
            with _lines(sent) as lines:
                self._keep_all(sent, outcomes(lines))
            raise self._elsewhere(sent, len(named))
        return Ended("completed" if complete else "cut off", _lines(sent))

    async def _own(self, sent: Sent, process: asyncio.subprocess.Process) -> Ended | None:
        if process.returncode is None:
            self._tell(sent)
            return None
        self._process = None
        if process.returncode == 0:
            return Ended("completed", _lines(sent))
        told = [line for line in _log(sent).read_text("utf-8", "replace").splitlines() if line.strip()] or ["nothing"]
        found = f"it ended with status {process.returncode}: {self._clean(told[-1])[:300]}"
        hint = f"look into {_log(sent)}, and start the stage again; replies that came are kept"
        return Ended("failed", _lines(sent), CallError(self._where, found, "a reply to each request", hint))

    async def _leave(self) -> None:
        if (process := self._process) is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _about(self, key: str, request: Request, attempt: int, endpoint: Endpoint) -> dict[str, Any]:
        return {**super()._about(key, request, attempt, endpoint), "endpoint": "vllm run-batch"}

    @property
    def _where(self) -> str:
        return f"vllm run-batch, model {self.endpoint.model!r}"

    def _elsewhere(self, sent: Sent, there: int) -> CallError:
        """The error for a machine without vLLM: what to do on another one."""
        command, total = shlex.join(self._command(sent)), len(sent.requests)
        if there:
            found = f"{_output(sent)} has {there:,} of {total:,} replies, which are kept"
            expected = "all of them, or vLLM on this machine"
            hint = (
                f"wait until `{command}` has ended where it runs, and start the stage again;"
                f" where it was cut off, remove {_input(sent)}: the others are then written to a new file"
            )
            return CallError(self._where, found, expected, hint)
        found = f"no command vllm on this machine; {total:,} requests are in {_input(sent)}"
        hint = f"run `{command}` where vLLM is, in this folder, and start the stage again: it collects {_output(sent)}"
        return CallError(self._where, found, "vLLM, or the file of its replies", hint)

    def _tell(self, sent: Sent) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= LINE_EVERY_S:
            self._told_at = now
            tell(f"{self.stage}: vllm run-batch: {len(_named(sent)):,} of {len(sent.requests):,} requests")


def _input(sent: Sent) -> Path:
    return FOLDER / f"{sent.name}.jsonl"


def _output(sent: Sent) -> Path:
    return FOLDER / f"{sent.name}.out.jsonl"


def _log(sent: Sent) -> Path:
    return LOGS / f"{sent.name}.log"


def _lines(sent: Sent) -> IO[bytes]:
    try:
        return open(_output(sent), "rb")
    except FileNotFoundError:
        return scratch()


def _named(sent: Sent) -> set[str]:
    """The requests that have a line in the output so far."""
    with _lines(sent) as lines:
        found = (CUSTOM_ID.search(line) for line in lines if line.endswith(b"\n"))
        return {match[1].decode() for match in found if match is not None}


def _locked(sent: Sent) -> int | None:
    """A lock on a file of requests, to be closed; None while vLLM holds it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    lock = os.open(FOLDER / f".{sent.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
