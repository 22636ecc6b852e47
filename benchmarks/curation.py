"""What the balancing of sources and categories costs beside the published rule; benchmarks/README.md says more.

python -m benchmarks.curation [--quick] [--size N]
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.dedup import table
from star1.policies import Rubric
from star1.records import Row

ROOT = Path(__file__).parents[1]
ROWS, QUICK_ROWS = (2_000, 4_000, 8_000, 41_000), (200, 400, 800, 4_100)
RATIO, SECONDS = 100, 2.0
# Rows of each source and number of rows by how many labels they have, as in the released 1,000.
SOURCES = (2, 4, 1, 1, 1, 2, 1, 16, 31, 24, 2, 37, 19, 139, 298, 94, 67, 261)
LABELS = (381, 229, 165, 159, 152, 93, 85, 52)
WIDTHS = (700, 285, 14, 1)
RUBRIC = Rubric(minimum=0, maximum=10, criteria=dict.fromkeys(("safety", "relevance", "accuracy"), "meaning"))


def made_up(count: int, seed: int = 1) -> list[Row]:
    """Full-mark rows whose sources and labels are spread as in the released data."""
    random_ = random.Random(seed)
    sources = random_.choices(range(len(SOURCES)), SOURCES, k=count)
    widths = random_.choices(range(1, len(WIDTHS) + 1), WIDTHS, k=count)
    return [
        {
            "id": str(place),
            "source": f"source {source}",
            "category": [f"category {label}" for label in _labels(random_, width)],
            "score": dict.fromkeys(RUBRIC.criteria, RUBRIC.maximum),
        }
        for place, (source, width) in enumerate(zip(sources, widths, strict=True))
    ]


def _labels(random_: random.Random, width: int) -> list[int]:
    """So many different labels, the frequent ones more often."""
    chosen: dict[int, None] = {}
    while len(chosen) < width:
        chosen[random_.choices(range(len(LABELS)), LABELS)[0]] = None
    return list(chosen)


def literal(rows: Sequence[Row], size: int) -> list[str]:
    """The published rule as it reads: every row weighed anew for every row that goes; gives the ids that stay."""
    left = list(rows)
    while len(left) > size:
        sources = Counter(row["source"] for row in left)
        labels = Counter(name for row in left for name in row["category"])
        n_labels = sum(labels.values())
        by_source = {name: count / len(left) for name, count in sources.items()}
        by_label = {name: count / n_labels for name, count in labels.items()}
        heaviest, place = -1.0, -1
        for index, row in enumerate(left):
            total = 0.0
            for name in row["category"]:
                total += by_label[name]
            weight = by_source[row["source"]] * total
            if weight > heaviest:
                heaviest, place = weight, index
        del left[place]
    return [row["id"] for row in left]


def ours(rows: Sequence[Row], size: int) -> list[str]:
    """The whole of `curate`: checks, full marks, grouping, balancing."""
    from star1.curation import curate

    return [row["id"] for row in curate(rows, RUBRIC, "Other", size)[1]]


JOBS: dict[str, Callable[[Sequence[Row], int], list[str]]] = {"ours": ours, "literal": literal}


def measure(job: str, count: int, size: int) -> dict[str, Any]:
    """Run a job once in this process, after a try on few rows that loads what it needs."""
    rows = made_up(count)
    started = time.process_time()
    JOBS[job](rows[:20], 5)
    loaded = time.process_time() - started
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    kept = JOBS[job](rows, size)
    spent = time.process_time() - started
    over = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    return {"cpu": spent, "loaded": loaded, "over": over / 1024, "kept": kept}


def run(job: str, count: int, size: int) -> dict[str, Any]:
    """Measure a job in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.curation", "--job", job, "--rows", str(count), "--size", str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: {job} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def compare(sizes: Sequence[int], size: int, quick: bool) -> bool:
    """Print a line for each number of rows; gives whether both ways keep the same rows wherever both ran."""
    lines, same, loaded = [], True, 0.0
    for place, count in enumerate(sizes):
        mine = run("ours", count, size)
        loaded = max(loaded, mine["loaded"])
        line = [f"{count:,}", f"{mine['cpu']:.3f}", f"{mine['over']:.1f}"]
        if place + 1 == len(sizes):
            target = "" if quick else f"<= {SECONDS:g} s: {'met' if mine['cpu'] <= SECONDS else 'MISSED'}"
            lines.append([*line, "", "", target, "not run: quadratic"])
            continue
        way = run("literal", count, size)
        ratio = way["cpu"] / max(mine["cpu"], 1e-4)
        judged = not quick and place + 2 == len(sizes)
        target = f">= {RATIO}: {'met' if ratio >= RATIO else 'MISSED'}" if judged else ""
        same &= mine["kept"] == way["kept"]
        told = "same rows" if mine["kept"] == way["kept"] else "OTHER ROWS"
        lines.append([*line, f"{way['cpu']:.2f}", f"{ratio:,.0f}", target, told])
    header = ("full-mark rows", "ours, CPU-s", "MB over base", "literal rule, CPU-s", "times ours", "target", "")
    table(f"curate to {size:,} rows", header, lines)
    print(f"\nLoading or compiling the loop, once a process: {loaded:.2f} CPU-s, not in the table.")
    return same


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the table; exit with an error if the two ways keep different rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows: shows that it runs, measures nothing")
    parser.add_argument("--size", type=int, help="rows that stay; default 1,000, or 100 with --quick")
    parser.add_argument("--job", choices=JOBS, help="one measurement, as JSON; the table starts these")
    parser.add_argument("--rows", type=int, help="of the one measurement")
    flags = parser.parse_args(arguments)
    size = flags.size or (100 if flags.quick else 1_000)
    if flags.job:
        print(json.dumps(measure(flags.job, flags.rows, size)))
    elif not compare(QUICK_ROWS if flags.quick else ROWS, size, flags.quick):
        raise SystemExit("benchmarks: the two ways keep different rows")


if __name__ == "__main__":
    main()
