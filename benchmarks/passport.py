"""How long `star1 passport` takes on a run of the paper's size, made up through the stages' own code with made-up replies.

python -m benchmarks.passport                   # 41,000 rows: minutes to make, 2 GB in a temporary folder
python -m benchmarks.passport --rows 2000       # shows that it runs
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from benchmarks import synthetic
from star1 import checkpoints, deliberation, judges, tables
from star1.calls import Calls
from star1.curation import curate
from star1.endpoints import Endpoint, Sampling
from star1.judge_settings import Grader, Judges, Use
from star1.llm import Client, Request
from star1.passport.books import md5
from star1.policies import Pack, load_pack
from star1.records import Row, file_digest, primary, text_digest, write_json, write_rows
from star1.replies import Reply, Store
from star1.workflow import dvcfile

ROOT = Path(__file__).parents[1]
# The collection's rows come out of this many fetched ones (41K of 529K), most of them of the last and largest set.
FETCHED = 13
REPLY_CHARACTERS = 6000
TESTS = 313
FOLDER = "data/replies"


class Making(Client):
    """Makes replies up, of the length that reasoning models give, and keeps them as a run does."""

    text = " ".join(word for row in synthetic.prompts(20_000) for word in row.split())

    async def ask(self, request: Request) -> Reply:
        """A reply that can be read."""
        start = random.randrange(len(self.text) - REPLY_CHARACTERS)
        thinking = self.text[start : start + REPLY_CHARACTERS]
        reply = Reply(f"<think>\n{thinking}\n</think>\n\nI will not help with that.", finish_reason="stop")
        if request.role != "reason":
            reply = Reply(_short_reply(request.role), reasoning_content=thinking, finish_reason="stop", note="endpoint")
        about = {"key": self.key(request), "item": request.item, "role": request.role, "attempt": 1}
        about |= {"label": self.endpoint.label, "model": self.endpoint.model, "endpoint": self.endpoint.url}
        usage = {"prompt_tokens": 900, "completion_tokens": REPLY_CHARACTERS // 4, "total_tokens": 900}
        self.store.keep({**about, "served_model": "made-up", "usage": usage, "seconds": 12.3}, reply)
        return reply


def _short_reply(role: str) -> str:
    if role == "categorize":
        return orjson.dumps(random.sample(NAMES, random.choice((1, 1, 1, 2)))).decode()
    if role == "score":
        return orjson.dumps({name: random.choice((9, 10, 10, 10, 10)) for name in CRITERIA}).decode()
    return random.choice(("full_refusal", "full_compliance"))


NAMES: list[str] = []
CRITERIA: list[str] = []


@dataclass(frozen=True)
class Made(Calls):
    """Calls whose replies are made up."""

    def client(self, store: Store) -> Client:
        """Who makes them up."""
        return Making(self.endpoint, self.sampling, store)


def make(root: Path, rows: int) -> None:
    """A finished run, with everything that a passport reads."""
    random.seed(synthetic.SEED)
    for name in ("policies", "bundled", "params.yaml", "Snakefile", "envs", "star1", "scripts"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    params = yaml.safe_load((root / "params.yaml").read_text("utf-8"))
    params["llm"]["endpoints"] = {"made-up": ENDPOINT}
    params["llm"]["roles"] = dict.fromkeys(params["llm"]["roles"], "made-up")
    (root / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    pack = load_pack(root / "policies/star1")
    NAMES[:], CRITERIA[:] = pack.names, list(pack.rubrics["score"].criteria)
    _collect(root, rows, list(params["collect"]["sources"]))
    _funnel(root, pack, params)
    _results(root, pack, params)
    _lock(root)


ENDPOINT = {"provider": "openai", "model": "made-up", "label": "made-up", "base_url": "http://127.0.0.1:9/v1"}


def _collect(root: Path, rows: int, sources: list[str]) -> None:
    """Prompt sets, the collection out of them, and what was dropped."""
    texts = [f"{text} {number}" for number, text in enumerate(synthetic.prompts(rows * FETCHED))]
    bounds = [0, len(texts) // 100, len(texts) // 20, len(texts) // 10, len(texts)]
    kept: list[Row] = []
    dropped: list[Row] = []
    for name, start, end in zip(sources, bounds, bounds[1:], strict=False):
        own: list[Row] = [
            {"question": text, "source": name, "licence": "CC0-1.0", "row": row}
            for row, text in enumerate(texts[start:end])
        ]
        write_rows(root / f"data/sources/{name}.jsonl", own)
        write_json(root / f"data/sources/{name}.counts.json", {"read": len(own), "dropped": {}})
        for row in own:
            if row["row"] % FETCHED == 0:
                kept.append({"id": str(len(kept)), "question": row["question"], "source": name})
            else:
                dropped.append(_dropped(name, row["row"], row["question"]))
    write_rows(root / "data/collection.jsonl", kept)
    write_rows(root / "data/dropped.jsonl", dropped)


def _dropped(name: str, row: int, text: str) -> Row:
    near = row - row % FETCHED
    matched = {"source": name, "id": f"{name}-{near}", "row": near, "question_digest": text_digest(str(near))}
    told = {
        "source": name,
        "id": f"{name}-{row}",
        "row": row,
        "question_digest": text_digest(text),
        "step": "self_embedding",
    }
    return told | {"reason": f"embedding cosine >= 0.7 with source {name}", "matched": matched, "similarity": 0.8123}


def _funnel(root: Path, pack: Pack, params: Row) -> None:
    rows = [orjson.loads(line) for line in (root / "data/collection.jsonl").read_bytes().splitlines()]
    stages = {"categorize": deliberation.categorize, "reason": deliberation.reason, "score": deliberation.score}
    for (stage, follow), artifact in zip(stages.items(), ("categorized", "cot", "scored"), strict=True):
        outcome = follow(rows, pack, _calls(root, stage, params[stage]["sampling"]))
        write_rows(root / f"data/{artifact}.jsonl", outcome.kept)
        write_rows(root / f"data/quarantine/{stage}.jsonl", outcome.quarantined)
        rows = list(outcome.kept)
    full, kept, dropped = curate(rows, pack.rubrics["score"], pack.other, min(1000, len(rows) // 10))
    for name, found in (("full_score", full), ("star1", kept), ("curate_dropped", dropped), ("contamination", [])):
        write_rows(root / f"data/{name}.jsonl", found)


def _calls(root: Path, stage: str, sampling: Row) -> Made:
    replies = root / FOLDER / f"{stage}.jsonl"
    return Made(Endpoint.model_validate(ENDPOINT), Sampling.model_validate(sampling), replies)


def _results(root: Path, pack: Pack, params: Row) -> None:
    """A checkpoint trained on the final rows, its answers to a benchmark, verdicts and the table."""
    staging = root / ".work/model"
    write_json(staging / "config.json", {})
    data = root / "data/star1.jsonl"
    about = {"file": data.name, "sha256": file_digest(data), "rows": data.read_bytes().count(b"\n")}
    checkpoints.publish(staging, root / "models/star1", "sft", {"data": [about], "settings": {"seed": 2002}})
    tests = [
        {"id": str(n), "question": text, "benchmark": "strongreject", "purpose": "harmful"}
        for n, text in enumerate(synthetic.prompts(TESTS))
    ]
    write_rows(root / "data/benchmarks/strongreject.jsonl", tests)
    made = {"response": "No.", "thinking": None, "answer": "No.", "finish_reason": "stop", "engine": "vllm"}
    answers = [{**row, **made, "model": "star1"} for row in tests]
    write_rows(root / "results/generations/star1/strongreject.jsonl", answers)
    one = judges.Benchmark("strongreject", "harmful", {row["id"]: row for row in tests}, answers)
    table = Judges.model_validate(params["judge"]["judges"]).root
    use = Use.model_validate(params["judge"]["use"])

    def calls(name: str) -> Calls:
        return _calls(root, "judge-star1", table[name].sampling.model_dump(exclude_none=True))

    found = judges.judge_all([one], table, use, pack, calls)
    judged = judges.judgements(one, [found[name] for name in use.harmful], Grader())
    write_rows(root / "results/judgements/star1/strongreject.jsonl", judged)
    write_json(root / "results/tables/main.json", tables.table({"star1": {"strongreject": primary(judged)}}, 0.95))


def _lock(root: Path) -> None:
    """dvc.lock of the project, as it would be after this run: its size is what costs."""
    with contextlib.chdir(ROOT):
        planned, bases = dvcfile.planned()
    for name, text in bases.items():
        said = orjson.loads(text)
        said["values"] |= {key: ENDPOINT for key in said["values"] if key.startswith("llm.endpoints.")}
        write_json(root / name, said)
    stages = {
        name: {"cmd": one["cmd"], "deps": _entries(root, one["deps"]), "outs": _entries(root, _outs(one))}
        for name, one in yaml.safe_load(planned)["stages"].items()
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False), "utf-8")


def _outs(stage: Row) -> list[str]:
    found = [one for kind in ("outs", "metrics", "plots") for one in stage.get(kind, ())]
    return [one if isinstance(one, str) else next(iter(one)) for one in found]


def _entries(root: Path, paths: list[str]) -> list[Row]:
    """What dvc.lock says of files; something, for those that this run did not make."""
    made = {path: (root / path).is_file() for path in paths}
    return [
        {
            "path": path,
            "hash": "md5",
            "md5": md5(root / path) if made[path] else text_digest(path)[:32],
            "size": (root / path).stat().st_size if made[path] else 1,
        }
        for path in paths
    ]


def addresses(root: Path) -> dict[str, str]:
    """What is asked for, and what that is."""
    rows = (root / "data/collection.jsonl").read_bytes().count(b"\n")
    selected = (root / "data/star1.jsonl").read_bytes().splitlines()
    kept = orjson.loads(selected[len(selected) // 2])["id"]
    gone = orjson.loads((root / "data/curate_dropped.jsonl").read_bytes().splitlines()[-1])["id"]
    source = yaml.safe_load((root / "params.yaml").read_text("utf-8"))["collect"]["sources"][-1]
    return {
        "row:0": "first row",
        f"row:{gone}": "row that was balanced out",
        f"row:{kept}": "row of the final data set",
        f"fetched:{source}-{rows // 3 * FETCHED + 1}": "fetched prompt",
        "answer:star1/strongreject/7": "judged answer",
        "main:star1/strongreject": "cell",
        "model:star1": "checkpoint",
    }


def ask(root: Path, address: str, cold: bool) -> tuple[float, float, int]:
    """Ask for a passport in a process of its own: seconds on the clock, CPU-seconds, length of the answer.

    Raises:
        SystemExit: something in it does not agree.
    """
    if cold:
        forget(root)
    before, started = _children(), time.perf_counter()
    command = [sys.executable, "-m", "star1.cli", "passport", "--json", address]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    seconds, cpu = time.perf_counter() - started, _children() - before
    if done.returncode:
        sys.exit(f"{address}: {done.stderr.decode() or orjson.loads(done.stdout)['problems']}")
    return seconds, cpu, len(done.stdout)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def forget(root: Path) -> None:
    """Have the system forget the content of all artifacts: the next reader gets it from the disk."""
    os.sync()
    for path in (*root.glob("data/**/*"), *root.glob("results/**/*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(root: Path, title: str) -> Iterator[str]:
    """A table of times."""
    stores = sorted((root / FOLDER).glob("*.jsonl*"))
    yield f"\n### {title}: stores of " + ", ".join(f"{path.stat().st_size / 1e6:,.0f} MB" for path in stores)
    yield "| address | | from the disk [s] | again [s] | CPU [s] | bytes |"
    yield "|---|---|---|---|---|---|"
    for address, what in addresses(root).items():
        cold = ask(root, address, cold=True)
        warm = min(ask(root, address, cold=False) for _ in range(3))
        yield f"| {address} | {what} | {cold[0]:.2f} | {warm[0]:.2f} | {warm[1]:.2f} | {warm[2]:,} |"


def main() -> None:
    """Make the run, and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=41_000, help="rows of the collection")
    parser.add_argument("--keep", type=Path, help="make the run here and leave it; used as it is where there is one")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = flags.keep or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "results").is_dir():
            make(root, flags.rows)
        for line in measure(root, f"{flags.rows:,} rows, stores as they are written"):
            print(line, flush=True)
        for stage in ("categorize", "reason", "score", "judge-star1"):
            with Store(root / FOLDER / f"{stage}.jsonl") as store:
                store.compact()
        for line in measure(root, f"{flags.rows:,} rows, stores zipped"):
            print(line, flush=True)


if __name__ == "__main__":
    main()
