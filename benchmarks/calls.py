"""What the model calls cost beside the bare client, and what is left of a run that is killed; benchmarks/README.md says more.

python -m benchmarks.calls [--quick] [SECTION...]
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import stages
from benchmarks.dedup import table
from star1.records import write_rows
from star1.replies import Reply, Store
from tests.faultserver import SENTENCE, running

ROOT = Path(__file__).parents[1]
REPLY_CHARACTERS = 6000
TOKENS = 1500
WAIT_S = ("0.05", "0.2")


@dataclass
class Bench:
    """A run of sections: where files lie, how large the runs are, and what went wrong."""

    folder: Path
    quick: bool
    failed: list[str] = field(default_factory=list)

    def size(self, full: int, quick: int) -> int:
        """How many rows to take."""
        return quick if self.quick else full

    def new(self, name: str) -> Path:
        """An empty folder."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir(parents=True)
        return self.folder / name

    def measure(self, job: str, url: str, slots: int, count: int, folder: Path | None = None) -> dict[str, float]:
        """Figures of a client in a process of its own: CPU and wall time [s], peak memory [MB]."""
        place = folder or self.new("client")
        write_rows(place / "in.jsonl", stages.rows(count, f"{job}-{slots}-{count}"))
        command = [sys.executable, "-m", "benchmarks.clients", job, url, str(slots), str(place)]
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"benchmarks: {job} ended with {done.returncode}\n{done.stderr[-2000:]}")
        return dict(json.loads(done.stdout))

    def verdict(self, text: str, met: bool) -> str:
        """A target and whether it is met, which a quick run cannot tell."""
        return "" if self.quick else f"{text}: {'met' if met else 'MISSED'}"

    def must(self, what: str, met: bool) -> str:
        """A promise, which holds in a quick run too: where it is broken, the benchmark fails."""
        if not met:
            self.failed.append(what)
        return f"{what}: {'kept' if met else 'BROKEN'}"


# --- sections ---------------------------------------------------------------------------------------------------------


COST = ("slots", "rows", "ms of CPU each", "target", "bare client", "times bare", "target", "requests/s", "target")


def cost(bench: Bench) -> None:
    """CPU per request, beside the bare client on the same server; requests a second; memory."""
    sizes, lines = (100,) if bench.quick else (1_000, 10_000, 40_000), []
    flags = ("--size", str(REPLY_CHARACTERS), "--wait", *WAIT_S, "--pieces", str(TOKENS))
    with running(bench.folder / "cost.log", *flags) as server:
        runs = [("", slots, count) for slots in (64, 256) for count in sizes] + [(" streamed", 64, sizes[0])]
        for way, slots, count in runs:
            bare, ours = (bench.measure(f"{job}{way}", server.url, slots, count) for job in ("bare", "ours"))
            cells = costs(bench, slots, count, bare, ours)
            if way:  # costs by its pieces, and has no target but the bare client
                cells[1] = ""
            lines.append([f"{slots}{way}", f"{count:,}", *cells])
    title = f"cost: the reason stage, replies of {REPLY_CHARACTERS:,} characters after {'-'.join(WAIT_S)} s"
    table(title, (*COST, "peak MB", "target"), lines)


def costs(bench: Bench, slots: int, count: int, bare: dict[str, float], ours: dict[str, float]) -> list[str]:
    """The cells of one comparison; what hangs on the number of requests in flight has its target at 256."""
    one, other, rate = ours["cpu"] / count * 1000, bare["cpu"] / count * 1000, count / ours["wall"]
    cells = [f"{one:.2f}", bench.verdict("<= 1.5", one <= 1.5), f"{other:.2f}", f"{one / other:.2f}"]
    cells += [bench.verdict("<= 1.5", one / other <= 1.5), f"{rate:.0f}"]
    cells += [bench.verdict(">= 400", rate >= 400) if slots == 256 else "", f"{ours['peak']:.0f}"]
    return [*cells, bench.verdict("<= 150", ours["peak"] <= 150) if slots == 256 else ""]


def filled(bench: Bench, count: int, folder: Path) -> None:
    """A store with the replies that the reason stage over `count` rows asks for."""
    from benchmarks.clients import SAMPLING
    from star1.deliberation import prompt_request, row_policies
    from star1.llm import Client
    from star1.policies import load_pack

    pack, asked = load_pack(stages.PACK), stages.endpoint("http://127.0.0.1:9/v1", 256)
    generator = random.Random(1)
    words = sorted({"".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(4000)})
    with Store(folder / "replies.jsonl") as store:
        client = Client(asked, SAMPLING, store)
        for row in stages.rows(count, f"resume-256-{count}"):
            request = prompt_request(pack, "reason", row, policies=row_policies(row, pack))
            thinking = " ".join(generator.choices(words, k=REPLY_CHARACTERS // 7)) + SENTENCE
            about = {"key": client.key(request), "item": row["id"], "role": "reason", "label": "m", "model": "m"}
            usage = {"prompt_tokens": 900, "completion_tokens": 1500, "total_tokens": 2400}
            about |= {"attempt": 1, "served_model": "m", "fingerprint": "", "usage": usage, "seconds": 9.1}
            store.keep(about, Reply(f"<think>\n{thinking}\n</think>\n\nNo.", finish_reason="stop", note="endpoint"))


def resume(bench: Bench) -> None:
    """A run that finds all its replies in the store, plain and zipped."""
    count, lines = bench.size(41_000, 200), []
    folder = bench.new("resume")
    filled(bench, count, folder)
    for kind in ("plain", "zipped"):
        if kind == "zipped":
            with Store(folder / "replies.jsonl") as store:
                store.compact()
        size = sum(path.stat().st_size for path in folder.glob("replies.jsonl*")) / 2**20
        # What is read is in memory after the first, and other work on the machine slows one more than another.
        runs = [bench.measure("resume", "http://127.0.0.1:9/v1", 256, count, folder) for _ in range(3)]
        best = {name: min(run[name] for run in runs) for name in runs[0]}
        met = bench.verdict("<= 2", best["asked"] <= 2)
        times = [f"{best[name]:.2f}" for name in ("opened", "asked")]
        lines.append([kind, f"{size:.0f}", *times, met, f"{best['wall']:.2f}", f"{best['cpu']:.2f}"])
    header = ("store", "MB", "s to open it", "s to find all replies", "target", "s with the output", "CPU-s")
    table(f"resume: the reason stage over {count:,} rows, all of which are in the store", header, lines)


def kill(bench: Bench) -> None:
    """Stages that are killed at random moments, and stages that are told to stop."""
    count, lines = bench.size(6_000, 400), []
    for name, number, times in (("SIGKILL", signal.SIGKILL, 10), ("SIGTERM", signal.SIGTERM, 3)):
        times = times if not bench.quick else 2
        log = bench.folder / f"{name}.log"
        log.touch()
        with running(log, "--size", "3000", "--wait", "0.01", "0.08") as server:
            made, at = stages.rows(count, name), stages.moments(7, times, count)
            found = stages.interrupt("reason", made, name, server, bench.new(name), 64, at, number)
        promised = max(found.in_flight) <= (64 if number == signal.SIGKILL else 0)
        promised = promised and found.requests == count + sum(found.in_flight)
        promised = promised and found.lost == found.repeated == 0 and found.same
        told = ", ".join(map(str, found.in_flight[:-1]))
        cells = [f"{times} x {name}", f"{found.requests:,}", told, f"{found.lost}", f"{found.repeated}"]
        lines.append([*cells, "same bytes" if found.same else "OTHER", bench.must(f"{name}", promised)])
    header = ("", "requests", "asked without a reply", "kept and lost", "kept and asked again", "output", "")
    table(f"kill: the reason stage over {count:,} rows at 64 slots", header, lines)


def endurance(bench: Bench) -> None:
    """The three stages over the paper's number of rows, killed twice on the way, and undisturbed."""
    count, lines = bench.size(41_000, 100), []
    collection = [{"id": row["id"], "question": row["question"]} for row in stages.rows(count)]
    log = bench.folder / "endurance.log"
    log.touch()
    with running(log, "--stand-in") as server:
        for name, kills in (("undisturbed", {}), ("killed", {"reason": 0.4, "score": 0.7})):
            folder = bench.new(name)
            write_rows(folder / "collection.jsonl", collection)
            before, started = len(server.lines()), time.perf_counter()
            for stage in stages.OUTPUTS:
                if stage in kills:
                    process = stages.start(stage, folder, stages.endpoint(server.url, 64))
                    stages.wait_for(server, len(server.lines()) + int(kills[stage] * count), process)
                    process.kill()
                    process.communicate()
                print(stages.finish(stages.start(stage, folder, stages.endpoint(server.url, 64))).strip(), flush=True)
            requests = len(server.lines()) - before
            lines.append([name, f"{requests:,}", f"{time.perf_counter() - started:.0f}", ""])
    names = [f"{stage}.jsonl" for stage in stages.OUTPUTS.values()]
    names += [f"quarantine_{stage}.jsonl" for stage in stages.OUTPUTS]
    one, other = (
        {name: (bench.folder / kind / name).read_bytes() for name in names} for kind in ("undisturbed", "killed")
    )
    lines[1][-1] = bench.must("the same files, byte for byte", one == other)
    table(f"endurance: {count:,} rows x (categorize, reason, score)", ("", "requests", "s", ""), lines)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    section.__name__: section for section in (cost, resume, kill, endurance)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run sections; exit with an error if a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__.splitlines()[0])
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="a few hundred rows: shows that it runs, measures nothing")
    flags = parser.parse_args(arguments)
    if unknown := sorted({*flags.sections} - {*SECTIONS}):
        parser.error(f"section {unknown[0]!r}; expected one of {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), flags.quick)
        for name in flags.sections or SECTIONS:
            SECTIONS[name](bench)
    if bench.failed:
        raise SystemExit("benchmarks: broken: " + "; ".join(bench.failed))


if __name__ == "__main__":
    main()
