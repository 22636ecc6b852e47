"""One client, measured in a process of its own: `python -m benchmarks.clients JOB URL SLOTS FOLDER` prints figures."""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import stages
from star1.calls import Calls, settle
from star1.deliberation import prompt_request, reason, row_policies
from star1.endpoints import Endpoint, Sampling, connect
from star1.policies import load_pack
from star1.records import Row, read_rows
from star1.replies import Store

# Rows on which each client is tried before the clock starts: that loads libraries and opens connections once.
TRIED = 64
SAMPLING = Sampling(**stages.SAMPLING["reason"])


def ours(rows: Sequence[Row], asked: Endpoint, folder: Path) -> float:
    """The whole stage: prompts, requests, store, parsing, output. Gives when all replies were there."""
    outcome = reason(rows, load_pack(stages.PACK), Calls(asked, SAMPLING, folder / "replies.jsonl"))
    answered = time.perf_counter()
    if len(outcome.kept) < len(rows):
        raise SystemExit(f"benchmarks: {outcome.summary()}")
    settle(outcome, folder / "cot.jsonl", folder / "quarantine.jsonl", 1.0)
    return answered


def opened(folder: Path) -> float:
    """How long it takes to open the store [s]."""
    started = time.perf_counter()
    with Store(folder / "replies.jsonl"):
        return time.perf_counter() - started


def bodies(rows: Sequence[Row], asked: Endpoint) -> list[dict[str, Any]]:
    """The same requests, for the bare client."""
    pack = load_pack(stages.PACK)
    prompts = (prompt_request(pack, "reason", row, policies=row_policies(row, pack)) for row in rows)
    return [{"model": asked.model, "messages": list(one.messages), **SAMPLING.sent()} for one in prompts]


async def ask(requests: list[dict[str, Any]], asked: Endpoint) -> None:
    """Ask with the library alone: whole answers are not even read as JSON."""
    client, waiting = connect(asked), iter(requests)

    async def work() -> None:
        for request in waiting:
            if asked.stream:
                stream = await client.chat.completions.create(**request, stream=True)
                length = sum([len(one.choices[0].delta.content or "") async for one in stream if one.choices])
            else:
                length = len((await client.chat.completions.with_raw_response.create(**request)).content)
            if length < 100:
                raise SystemExit("benchmarks: an answer is missing")

    async with asyncio.TaskGroup() as group:
        for _ in range(asked.slots):
            group.create_task(work())
    await client.close()


def bare(rows: Sequence[Row], asked: Endpoint, _folder: Path) -> None:
    """`openai` with the same transport and nothing around it."""
    asyncio.run(ask(bodies(rows, asked), asked))


def peak_mb() -> float:
    """The most memory that this process had [MB]; the system's `maxrss` would be its parent's, if that had more."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measured(job: str, url: str, slots: int, folder: Path) -> dict[str, float]:
    """CPU and wall time of a job over the rows of `in.jsonl` [s], and the most memory it had [MB]."""
    job, _, way = job.partition(" ")
    asked, rows = stages.endpoint(url, slots, stream=way == "streamed"), read_rows(folder / "in.jsonl")
    if job != "resume":  # that is to find everything as a new process does
        tried = [{**row, "question": f"again: {row['question']}"} for row in rows[:TRIED]]
        (folder / "tried").mkdir()
        (ours if job == "ours" else bare)(tried, asked, folder / "tried")
    made = bodies(rows, asked) if job == "bare" else []
    spent = {"opened": opened(folder)} if job == "resume" else {}
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    if job == "bare":
        asyncio.run(ask(made, asked))
    else:
        spent["asked"] = ours(rows, asked, folder) - wall
    spent |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return {**spent, "peak": peak_mb()}


def main() -> None:
    """Run one job."""
    job, url, slots, folder = sys.argv[1:]
    print(json.dumps(measured(job, url, int(slots), Path(folder))))


if __name__ == "__main__":
    main()
