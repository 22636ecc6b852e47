"""Stages with model calls as processes: started, measured, and killed on the way."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from star1.endpoints import Endpoint
from star1.policies import load_pack
from star1.records import Row, write_rows
from star1.segments import lines

if TYPE_CHECKING:
    from tests.faultserver import Running

ROOT = Path(__file__).parents[1]
PACK = ROOT / "policies" / "star1"
SAMPLING = {"reason": {"temperature": 0.6, "top_p": 0.7, "max_tokens": 8000}}
OUTPUTS = {"categorize": "categorized", "reason": "cot", "score": "scored"}
INPUTS = {"categorize": "collection", "reason": "categorized", "score": "cot"}


def rows(count: int, mark: str = "") -> list[Row]:
    """Made-up prompts with two categories each; with `mark`, the item's name stands in them for the fault server.

    Nine in ten also hold words from the definition of a category, for the stand-in to find one.
    """
    # What measures memory reads its rows from a file: these take some to make.
    from benchmarks import synthetic

    pack, generator = load_pack(PACK), random.Random(synthetic.SEED)
    words = [one.definition.strip(".").replace(",", "").split() for one in pack.categories.values()]
    made = []
    for n, text in enumerate(synthetic.prompts(count)):
        chosen = generator.sample(range(len(words)), 2)
        subject = " ".join(generator.sample(words[chosen[0]], 4)) if generator.random() < 0.9 else ""
        name = f"[[{mark}-{n}]]" if mark else f"({n})"
        names = [list(pack.categories)[number] for number in sorted(chosen)]
        made.append({"id": str(n), "question": f"{text} {subject} {name}", "category": names})
    return made


def endpoint(url: str, slots: int, stream: bool | None = None) -> Endpoint:
    """Where the stages ask."""
    return Endpoint(provider="openai", model="m", label="m", base_url=url, slots=slots, retries=2, stream=stream)


def start(stage: str, folder: Path, asked: Endpoint, **options: Any) -> subprocess.Popen[str]:
    """A stage as users start it, in a folder with its input."""
    paths = {"input": f"{INPUTS[stage]}.jsonl", "output": f"{OUTPUTS[stage]}.jsonl"}
    paths |= {"quarantine": f"quarantine_{stage}.jsonl", "replies": f"replies/{stage}.jsonl", "policy": str(PACK)}
    flags = [word for name, path in paths.items() for word in (f"--{name}", path)]
    flags += ["--endpoint", asked.model_dump_json(exclude_none=True), "--coverage", "0.5"]
    flags += ["--sampling", orjson.dumps(SAMPLING.get(stage, {})).decode()]
    command = [sys.executable, "-m", f"scripts.{stage}", *flags]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=folder, env=variables, text=True, **pipes)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a stage's end; gives what it told.

    Raises:
        SystemExit: it failed.
    """
    told, complaint = process.communicate()
    if process.returncode:
        raise SystemExit(f"benchmarks: a stage ended with {process.returncode}\n{complaint[-2000:]}")
    return told


def stored(folder: Path, stage: str, mark: str) -> set[str]:
    """Items whose replies are whole on disk, by the fault server's names of them."""
    found = set()
    for _, line in lines(folder / "replies" / f"{stage}.jsonl"):
        if line.endswith(b"\n") and (record := orjson.loads(line))["status"] == "ok":
            found.add(f"{mark}-{record['item']}")
    return found


@dataclass
class Interrupted:
    """What a stage that was interrupted again and again came to.

    Attributes:
        lost: replies that had been kept, and were not in the store later on.
        repeated: items that were asked for although their reply had been kept.
        in_flight: items whose reply was on its way at each interruption.
        same: whether the output is that of an undisturbed run.
        requests: requests in all.
    """

    lost: int
    repeated: int
    in_flight: list[int]
    same: bool
    requests: int


def interrupt(
    stage: str,
    made: Sequence[Row],
    mark: str,
    served: "Running",
    folder: Path,
    slots: int,
    moments: Sequence[int],
    number: signal.Signals = signal.SIGKILL,
) -> Interrupted:
    """Run a stage, interrupted after so many requests since it was last started, then to its end, and once undisturbed."""
    begun, kept, repeated, lost = len(served.lines()), set[str](), 0, 0
    in_flight = []
    (folder / "disturbed").mkdir(parents=True)
    write_rows(folder / "disturbed" / f"{INPUTS[stage]}.jsonl", made)
    for moment in (*moments, None):
        before = len(served.lines())
        process = start(stage, folder / "disturbed", endpoint(served.url, slots))
        if moment is not None:
            wait_for(served, before + moment, process)
            process.send_signal(number)
            process.communicate()
        else:
            finish(process)
        asked = Counter(item for _, item, _, _ in served.lines(before))
        repeated += sum(count for item, count in asked.items() if item in kept)
        now = stored(folder / "disturbed", stage, mark)
        lost += len(kept - now)
        in_flight.append(len(set(asked) - now))
        kept = now
    requests = len(served.lines()) - begun
    (folder / "undisturbed").mkdir()
    write_rows(folder / "undisturbed" / f"{INPUTS[stage]}.jsonl", made)
    finish(start(stage, folder / "undisturbed", endpoint(served.url, slots)))
    same = all(
        (folder / "disturbed" / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()
        for name in (f"{OUTPUTS[stage]}.jsonl", f"quarantine_{stage}.jsonl")
    )
    return Interrupted(lost, repeated, in_flight, same, requests)


def moments(seed: int, times: int, requests: int) -> list[int]:
    """After how many requests of its own each run is interrupted; together most of the way."""
    generator = random.Random(seed)
    return [1 + int(generator.uniform(0.1, 1.7) * requests / (times + 1)) for _ in range(times)]


def wait_for(served: "Running", requests: int, process: subprocess.Popen[str]) -> None:
    """Until the server was asked so often, or the stage has ended."""
    with served.log.open("rb") as log:
        seen, end = 0, time.monotonic() + 600
        while seen < requests and process.poll() is None:
            if time.monotonic() > end:
                raise SystemExit("benchmarks: a stage sends nothing")
            seen += log.read().count(b"\n")
            time.sleep(0.001)
