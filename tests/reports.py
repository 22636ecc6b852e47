"""For tests: a run to report on.

Its counts are those of the default run (tables, metrics and plots are in git); its rows are made to fit them, and hold
whatever could harm a page.
"""

import itertools
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from star1 import quality
from star1.params import read_yaml
from star1.records import Row, read_json, text_digest, write_json, write_rows
from star1.report.run import Run
from tests.conftest import ROOT

# Each would leave a trace in the page, or break it, if it were taken for more than text.
HOSTILE = (
    "<script>window.harmed = 1</script>",
    "</script><script>window.harmed = 1</script>",
    '</textarea><img src="x" onerror="window.harmed = 1">',
    '{{constructor.constructor("window.harmed = 1")()}} ${window.harmed = 1}',
    "\u202ereversed\u202c and \u2066isolated\u2069 marks",
    "a line\u2028and a paragraph\u2029between",
    "a long line " * 9000,
    "\ud83d\ude00 \x07 \x00 bell and null".encode("utf-16", "surrogatepass").decode("utf-16"),
)
LONG = 10_000
DAY = "2031-05-17"
HOSTED: Mapping[str, Any] = {"provider": "openai", "base_url": "http://secret.example:9/v1", "key": "A_KEY", "slots": 4}
# Criteria of the rubric for scored rows.
MARKED = ("Content_Safety_Compliance", "Relevancy_and_No_Redundant_Content", "Accuracy_of_Thinking_Process")
LADDER_STEPS = ("as it was", "as it is")
MATCHED = re.compile(r" (source|benchmark) (\S+)$")


def question(name: str, row: int) -> str:
    """The text of a row of a set: a plain one, or something hostile now and then."""
    harm = HOSTILE[row // 3 % len(HOSTILE)] if row % 3 == 1 else ""
    if len(harm) > LONG and row > 3 * len(HOSTILE):  # one in each set will do
        harm = ""
    return f"{name} asks about thing {row} {harm}".rstrip(" ")


def make_run(root: Path, changes: Mapping[str, Any] | None = None) -> Run:
    """Write all artifacts of a run into `root`; gives the run.

    Args:
        root: an empty folder.
        changes: sections of params.yaml that replace the default ones.
    """
    for kind in ("metrics", "tables", "plots"):
        shutil.copytree(ROOT / "results" / kind, root / "results" / kind)
    shutil.copytree(ROOT / "presets", root / "presets")
    shutil.copytree(ROOT / "policies/star1", root / "policies/star1")
    params = {**read_yaml(ROOT / "params.yaml"), **(changes or {})}
    funnel = read_json(root / "results/metrics/funnel.json")
    _sets(root, params, funnel)
    _drops(root, funnel)
    _rows(root, funnel)
    _contamination(root)
    _costs(root)
    _releases(root)
    kept = root.rglob("*")
    return Run(root, params, frozenset(path.relative_to(root).as_posix() for path in kept if path.is_file()))


def _sets(root: Path, params: Mapping[str, Any], funnel: Row) -> None:
    for name, counts in funnel["sources"].items():
        rows = [{"question": question(name, row), "source": name, "row": row} for row in range(counts["rows"])]
        write_rows(root / f"data/sources/{name}.jsonl", rows)
    for name in {*params["generate"]["benchmarks"], *params["collect"]["benchmarks"]}:
        about = {"benchmark": name, "purpose": params["fetch"]["benchmarks"][name]["purpose"]}
        rows = [{"id": f"{name}-{row}", "question": question(name, row), **about} for row in range(80)]
        write_rows(root / f"data/benchmarks/{name}.jsonl", rows)
        if name in params["generate"]["benchmarks"]:
            _answers(root, params["generate"]["models"], rows[:4])


def _answers(root: Path, models: Sequence[str], rows: Sequence[Row]) -> None:
    """Answers of all models to a few rows of a benchmark, and a judge's word on each."""
    for model in models:
        made = {"sample": 0, "response": "No.", "thinking": None, "answer": "No.", "finish_reason": "stop"}
        judged = {
            "sample": 0,
            "name": "refusal",
            "kind": "refusal",
            "view": "answer",
            "primary": True,
            "unscored": None,
        }
        judged |= {"verdict": "full_refusal", "judge": "Model <b>M</b>", "retires": None}
        place = f"{model}/{rows[0]['benchmark']}.jsonl"
        write_rows(root / f"results/generations/{place}", [row | made for row in rows])
        write_rows(root / f"results/judgements/{place}", [row | judged for row in rows])


def _reference(kind: str, name: str, row: int) -> Row:
    return {kind: name, "id": f"{name}-{row}", "row": row, "question_digest": text_digest(question(name, row))}


def _drops(root: Path, funnel: Row) -> None:
    """Dropped rows in the numbers that the funnel counts."""
    steps = ["rows", *funnel["reasons"]]
    queue = {
        (step, name): counts[before] - counts[step]
        for name, counts in funnel["sources"].items()
        for before, step in itertools.pairwise(steps)
    }
    rows, at = [], dict.fromkeys(funnel["sources"], 0)
    for step, reasons in funnel["reasons"].items():
        for reason, count in reasons.items():
            for _ in range(count):
                source = next(name for name in funnel["sources"] if queue[step, name])
                queue[step, source] -= 1
                row, at[source] = at[source], at[source] + 1
                match = MATCHED.search(reason)
                assert match is not None
                told = {"source": source, "id": f"{source}-{row}", "row": row, "step": step, "reason": reason}
                told |= {"question_digest": text_digest(question(source, row))}
                measure = {"ngram": "about thing"} if "gram" in step else {"similarity": 0.8125}
                rows.append({**told, "matched": _reference(match[1], match[2], 10 + row), **measure})
    write_rows(root / "data/dropped.jsonl", rows)


def _rows(root: Path, funnel: Row) -> None:
    """Rows that went on, and why others did not."""
    names = list(funnel["sources"])
    kept = funnel["total"]["test_embedding"]
    rows = [{"id": str(n), "question": question("kept", n), "source": names[n % len(names)]} for n in range(kept)]
    write_rows(root / "data/collection.jsonl", rows)
    write_rows(root / "data/categorized.jsonl", rows)
    left = {"reason": rows[:10], "score": rows[10:12]}
    for stage in ("categorize", "reason", "score", "benign_rewrite", "benign_reason", "benign_score"):
        out = [
            {"id": row["id"], "stage": stage, "reason": "no policy applies", "detail": HOSTILE[0], "reply": ""}
            for row in left.get(stage, [])
        ]
        write_rows(root / f"data/quarantine/{stage}.jsonl", out)
    write_rows(root / "data/cot.jsonl", rows[10:])
    write_rows(root / "data/scored.jsonl", rows[12:])
    low = [{**_marked(row), "reason": "score 6 on Relevancy"} for row in rows[12:32]]
    out = [
        {**_marked(row), "reason": f"balanced out at step {n} (source {row['source']})"}
        for n, row in enumerate(rows[32:50], 1)
    ]
    write_rows(root / "data/curate_dropped.jsonl", [*low, *out])
    write_rows(root / "data/star1.jsonl", rows[50:])
    benign = [
        {**row, "original": row["question"], "score": {"Help": 5 if n > 3 else 2}} for n, row in enumerate(rows[50:70])
    ]
    write_rows(root / "data/benign/rewritten.jsonl", benign)
    write_rows(root / "data/benign/scored.jsonl", benign)
    write_rows(root / "data/benign/benign.jsonl", benign[4:])


def _marked(row: Row) -> Row:
    return {"id": row["id"], "source": row["source"], "category": ["Privacy/Personal Data"], "score": {"Relevancy": 6}}


def _contamination(root: Path) -> None:
    pairs = []
    for training, benchmarks in read_json(root / "results/metrics/contamination.json").items():
        for benchmark, counts in benchmarks.items():
            for row in range(counts["any"]):
                told = {"training": training, "row": row, "source": training, "benchmark": benchmark, "embedding": 0.9}
                digests = {
                    "question_digest": text_digest(question(training, row)),
                    "benchmark_digest": text_digest(question(benchmark, row)),
                }
                pairs.append({**told, **digests, "benchmark_row": f"{benchmark}-{row}"})
    write_rows(root / "data/contamination.jsonl", pairs)


def _costs(root: Path) -> None:
    calls = {"model": "m", "label": "Model <b>M</b>", "rows": 9, "quarantined": 1, "replies": 8, "prompt_tokens": 12345}
    calls |= {"reply_tokens": 678, "replies_without_count": 0, "usd": 1.25, "mean_seconds": 0.5, "failed_attempts": 2}
    training: Row = {
        "seconds": 12.5,
        "cpu_hours": 0.25,
        "gpu_hours": None,
        "training_seconds": 10.0,
        "tokens_per_second": 1234.5,
    }
    training |= {"peak_memory": {"resident_mib": 1000}, "energy": {"kwh": None}, "devices": ["cpu"]}
    write_json(root / "results/costs/reason.json", calls)
    write_json(root / "results/costs/judge-star1.json", {"refusal": calls, "guard": calls})
    write_json(root / "results/costs/collect.json", {"encode": {"seconds": 1.5, "cpu_seconds": 1.0, "peak_mb": 200}})
    write_json(root / "results/costs/finetune-star1.json", training)


def _releases(root: Path) -> None:
    release = {
        "kind": "dataset",
        "name": "star-1",
        "rows": 160,
        "stand_in": ["the stand-in was teacher of 160 of 160 rows"],
    }
    write_json(
        root / "release/datasets/star-1/release.json",
        release | {"policy": {"pack": "star1", "digest": "0123456789abcdef"}},
    )


def hosted(params: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of params.yaml in which nothing stands in for anything, and a judge's model ends on `DAY`."""
    endpoint = {**HOSTED, "model": "some-model", "label": "Some <i>model</i>"}
    fetch = params["fetch"]
    return {
        "llm": {
            "endpoints": {"hosted": endpoint, "ending": {**endpoint, "label": "Ending", "retires": DAY}},
            "roles": dict.fromkeys(params["llm"]["roles"], "hosted"),
        },
        "fetch": {
            **fetch,
            "sources": {name: {**one, "kind": "hub"} for name, one in fetch["sources"].items()},
            "benchmarks": {name: {**one, "kind": "hub"} for name, one in fetch["benchmarks"].items()},
            "models": {"tiny": {"kind": "hub", "repository": "someone/model", "revision": "main"}},
        },
        "judge": {
            **params["judge"],
            "judges": {name: {**one, "endpoint": "ending"} for name, one in params["judge"]["judges"].items()},
        },
    }


def add_ladder(root: Path) -> None:
    """A table of a protocol ladder, of two steps, made of cells of the main table."""
    cells = [
        one for one in read_json(root / "results/tables/main.json")["cells"] if one["benchmark"] in ("jbb", "xstest")
    ]
    rungs = []
    for one in cells:
        if one["model"] == "star1":
            rungs.append({"step": LADDER_STEPS[0], **one, "before": None, "difference": None})
            difference = {
                "value": -0.25,
                "low": -0.4,
                "high": -0.1,
                "p": 0.012,
                "test": "t",
                "gained": 1,
                "lost": 5,
                "n": 20,
                "total": 24,
                "coverage": 0.8,
            }
            rungs.append({"step": LADDER_STEPS[1], **one, "before": LADDER_STEPS[0], "difference": difference})
    write_json(
        root / "results/tables/ladder.json",
        {"title": "Protocol ladder", "notice": None, "confidence": 0.95, "rungs": rungs},
    )


def add_published(run: Run, name: str, rows: int) -> Run:
    """The run with a data set that others released, of so many rows, described as the stage `describe` does."""
    made = [
        {
            "id": f"r{n}",
            "question": question(name, n),
            "response": f"<think>\nI think about {n}.\n</think>\n\nI cannot help with {n}.",
            "category": ["Privacy/Personal Data"],
            "source": "theirs",
            "score": dict.fromkeys(MARKED, 10 if n else 7),
        }
        for n in range(rows)
    ]
    write_rows(run.root / f"data/published/{name}.jsonl", made)
    path = run.root / "results/metrics/quality.json"
    write_json(path, {**read_json(path), name: quality.describe(made, 0.95)})
    for plot, lines in (
        ("categories", quality.category_lines),
        ("marks", quality.mark_lines),
        ("lengths", quality.length_lines),
    ):
        with open(run.root / f"results/plots/{plot}.csv", "a", encoding="utf-8", newline="") as file:
            file.write(quality.csv_text(lines({name: made})[1:]))
    fetch = {**run.params["fetch"], "published": {name: {"kind": "hub"}}}
    return made_again(Run(run.root, {**run.params, "fetch": fetch}, run.artifacts))


def made_again(run: Run) -> Run:
    """The run with the files that have come to it since."""
    files = (path for path in run.root.rglob("*") if path.is_file())
    return Run(run.root, run.params, frozenset(path.relative_to(run.root).as_posix() for path in files))
