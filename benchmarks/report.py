"""What the report's transcripts cost on a run of the paper's size: made-up rows, written for the page, opened in Chromium.

python -m benchmarks.report                   # 41,000 training rows, 41,000 prompts, 4 models: 2 GB in a temporary folder
python -m benchmarks.report --rows 1000       # shows that it runs
"""

import argparse
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import synthetic
from star1.records import Row, write_rows, write_text
from star1.report import transcripts
from star1.report.writing import PAGE, write_data
from tests.browsing import CHROMIUM, OPTIONS

ROOT = Path(__file__).parents[1]
SCRIPT = re.compile(r'<script src="([^"]+)\.js"')
MODELS = ["base", "tuned", "tuned-benign", "tuned-lora"]
BENCHMARKS = {
    "harmful-a": "harmful",
    "harmful-b": "harmful",
    "benign": "benign",
    "wild": "harmful",
    "reasoning": "reasoning",
}
BASES = dict.fromkeys(MODELS[1:], MODELS[0])
CATEGORIES = [f"category {n}" for n in range(14)]
SOURCES = [f"source {n}" for n in range(18)]
CRITERIA = ["Content_Safety_Compliance", "Relevancy_and_No_Redundant_Content", "Accuracy_of_Thinking_Process"]
WORDS = {
    "refusal": ["full_refusal", "partial_refusal", "full_compliance"],
    "guard": ["safe", "unsafe"],
    "grader": ["correct", "incorrect"],
}
JUDGES = {"harmful": ["refusal", "guard"], "benign": ["refusal"], "reasoning": ["grader"]}
# A word that few rows have, and which shares of the rows.
RARE, RARE_SHARE = "quokka", 0.0005


class Texts:
    """Texts of made-up words, of any length."""

    def __init__(self, rows: int) -> None:
        self.prompts = synthetic.prompts(rows)
        self.all = " ".join(self.prompts)
        while len(self.all) < 4_000_000:
            self.all += " " + self.all

    def some(self, characters: int) -> str:
        """A text of about so many characters; now and then with the rare word."""
        length = max(int(random.lognormvariate(0, 0.4) * characters), 20)
        start = random.randrange(len(self.all) - length)
        return self.all[start : start + length] + (f" {RARE}" if random.random() < RARE_SHARE else "")


def make(root: Path, rows: int, thinking: int, answer: int) -> transcripts.Sources:
    """Make up a run.

    Args:
        root: folder for it.
        rows: of the training data, and of all benchmarks together.
        thinking: characters, on average.
        answer: characters, on average.
    """
    random.seed(synthetic.SEED)
    texts = Texts(rows)
    write_rows(root / "data/scored.jsonl", _training(texts, rows, thinking, answer))
    write_rows(root / "data/star1.jsonl", ({"id": str(n)} for n in range(0, rows, 41)))
    for place, (name, purpose) in enumerate(BENCHMARKS.items()):
        tests = [
            {
                "id": f"{name}-{n}",
                "question": text,
                "benchmark": name,
                "purpose": purpose,
                "category": random.choice(CATEGORIES),
            }
            for n, text in enumerate(texts.prompts[place :: len(BENCHMARKS)])
        ]
        write_rows(root / f"data/benchmarks/{name}.jsonl", tests)
        for model in MODELS:
            write_rows(
                root / f"results/generations/{model}/{name}.jsonl", _answers(texts, tests, model, thinking, answer)
            )
            write_rows(root / f"results/judgements/{model}/{name}.jsonl", _judgements(tests, purpose))
    return sources(root)


def sources(root: Path) -> transcripts.Sources:
    """What of a made-up run is shown."""
    return transcripts.Sources(
        MODELS,
        list(BENCHMARKS),
        BASES,
        {"scored": root / "data/scored.jsonl"},
        {"star1": ("scored", root / "data/star1.jsonl")},
        benchmark_folder=root / "data/benchmarks",
        generations=root / "results/generations",
        judgements=root / "results/judgements",
    )


def _training(texts: Texts, rows: int, thinking: int, answer: int) -> Iterator[Row]:
    for number in range(rows):
        response = f"<think>\n{texts.some(thinking)}\n</think>\n\n{texts.some(answer)}"
        marks = {name: random.choice((5, 9, 10, 10, 10)) for name in CRITERIA}
        labels = random.sample(CATEGORIES, random.choice((1, 1, 2)))
        row = {"id": str(number), "question": texts.prompts[number], "source": random.choice(SOURCES)}
        yield row | {"category": labels, "response": response, "score": marks}


def _answers(texts: Texts, tests: list[Row], model: str, thinking: int, answer: int) -> Iterator[Row]:
    sampling = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 8000, "samples": 1, "seed": 46}
    for row in tests:
        thought, said = texts.some(thinking), texts.some(answer)
        unfinished = random.random() < 0.03
        made = {"id": row["id"], "benchmark": row["benchmark"], "question": row["question"], "sample": 0}
        made |= {
            "response": f"<think>\n{thought}" + ("" if unfinished else f"\n</think>\n\n{said}"),
            "thinking": thought,
        }
        made |= {"answer": None if unfinished else said, "finish_reason": "length" if unfinished else "stop"}
        made |= {
            "prompt_tokens": 40,
            "completion_tokens": len(said) // 4,
            "prompt_digest": f"{random.getrandbits(256):064x}",
        }
        yield made | {
            "sampling": sampling,
            "model": model,
            "engine": "vllm",
            "template_digest": "0" * 64,
            "tokenizer": "0" * 64,
        }


def _judgements(tests: list[Row], purpose: str) -> Iterator[Row]:
    for place, name in enumerate(JUDGES[purpose]):
        for row in tests:
            no = random.random() < 0.03
            said = {
                "verdict": None if no else random.choice(WORDS[name]),
                "unscored": "unfinished thinking" if no else None,
            }
            made = {
                "id": row["id"],
                "sample": 0,
                "benchmark": row["benchmark"],
                "purpose": purpose,
                "name": name,
                "kind": name,
            }
            made |= {"view": "answer", "primary": place == 0, **said, "categories": [], "score": None, "refused": None}
            made |= {
                "question_digest": f"{random.getrandbits(64):016x}",
                "response_digest": f"{random.getrandbits(64):016x}",
            }
            yield made | {"judge": "made up", "retires": None}


# ---- the page ----

# Changes a control, and resolves with the milliseconds until the list is there and painted.
CHANGE = """async ([name, value]) => {
    const control = document.querySelector(`[name="${name}"]`);
    const started = performance.now();
    if (control.type === "checkbox") control.checked = value; else control.value = value;
    control.dispatchEvent(new Event("change", { bubbles: true }));
    const list = document.querySelector(".tr-list");
    while (list.dataset.ready === undefined) await new Promise((resolve) => setTimeout(resolve, 0));
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
    return performance.now() - started;
}"""
# Types a query; resolves with the milliseconds to the first full page of rows, to the end, and the number of rows.
SEARCH = """async (query) => {
    const input = document.querySelector('[name="q"]');
    const started = performance.now();
    input.value = query;
    input.form.requestSubmit();
    let first = null;
    const status = document.querySelector(".tr-status");
    while (status.textContent.includes("searching")) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        const rows = document.querySelectorAll(".tr-list > [data-row]").length;
        if (first === null && rows === 50) first = performance.now() - started;
    }
    return [first ?? performance.now() - started, performance.now() - started, status.textContent];
}"""
VIEWS = {
    "answers, 2 models": "#/transcripts",
    "answers, 4 models": f"#/transcripts?models={','.join(MODELS)}",
    "training rows": "#/transcripts?set=scored",
}
READY = "() => document.querySelector('.tr-list')?.dataset.ready === '50'"


def settings(page: Any) -> Iterator[tuple[str, Any]]:
    """Every value of every filter: all alone, then others on top of one another, then off again."""
    for name in page.evaluate("[...document.querySelectorAll('.filters select')].map((one) => one.name)"):
        values = page.evaluate(
            "(name) => [...document.querySelector(`[name='${name}']`).options].map((one) => one.value)", name
        )
        for value in values[1:]:
            yield name, value
        yield name, ""
    ticks = page.evaluate(
        "[...document.querySelectorAll('.tr-ticks [type=checkbox]:not([name=model])')].map((one) => one.name)"
    )
    for name in ticks:
        yield name, True
    for name in ticks:
        yield name, False


class Opened:
    """A page that is open, and what its main thread has worked: on a busy machine the clock says little."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1440, "height": 900})
        self.session = self.page.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(address)
        self.page.wait_for_function(READY)
        self.seconds = self.page.evaluate("performance.now()") / 1000
        self.worked_until_ready = self.worked()

    def worked(self) -> float:
        """CPU time of the page's main thread [s]."""
        found = {one["name"]: one["value"] for one in self.session.send("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"])

    def heap(self) -> float:
        """What is held in memory [MB]."""
        self.session.send("HeapProfiler.collectGarbage")
        return float(self.session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6

    def timed(self, script: str, value: object) -> tuple[Any, float]:
        """What a script gives, and the CPU time of the main thread for it [s]."""
        before = self.worked()
        return self.page.evaluate(script, value), self.worked() - before


def measure(index: Path) -> Iterator[str]:
    """Lines of a table: by the clock, and CPU time of the page's main thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        for title, address in VIEWS.items():
            opened = Opened(browser, f"{index.as_uri()}{address}")
            yield f"| {title} | interactive | {opened.seconds:.2f} s | {opened.worked_until_ready:.2f} s |"
            opened.page.wait_for_timeout(1500)
            times = [opened.timed(CHANGE, [name, value]) for name, value in settings(opened.page)]
            clock, cpu = [one[0] for one in times], [one[1] * 1000 for one in times]
            for name, of in (("median", statistics.median), ("worst", max)):
                yield f"| {title} | {len(times)} filters, {name} | {of(clock):.0f} ms | {of(cpu):.0f} ms |"
            for query in (RARE, "ba", "ba de qu"):
                yield _search(opened, title, query, "")
            opened.page.evaluate(SEARCH, "")
            opened.page.evaluate("document.querySelector('[name=thinking]').click()")
            yield _search(opened, title, RARE, ", thinking too")
            yield f"| {title} | in memory at the end | {opened.heap():.0f} MB | |"
            opened.page.close()
        browser.close()


def _search(opened: Opened, title: str, query: str, where: str) -> str:
    (first, whole, told), cpu = opened.timed(SEARCH, query)
    clock = f"first page {first / 1000:.2f} s, all {whole / 1000:.2f} s"
    return f"| {title} | search {query}{where}: {told} | {clock} | {cpu:.2f} s |"


WRITE = """
import sys
from pathlib import Path
from benchmarks.report import sources
from star1.report import transcripts
transcripts.write(Path(sys.argv[2]), sources(Path(sys.argv[1])))
"""


def build(root: Path, page: Path) -> Iterator[str]:
    """Write the data files in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, "-c", WRITE, str(root), str(page)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    yield f"| writer | peak {used.ru_maxrss / 1024:,.0f} MB | {seconds:.1f} s | {cpu:.1f} s |"
    files = list((page / "data/transcripts").rglob("*.js"))
    sizes = {file: file.stat().st_size / 1e6 for file in sorted(files)}
    first = ", ".join(f"{file.parent.name} {size:.2f}" for file, size in sizes.items() if file.stem == "index")
    yield f"| files | {len(files)}, {sum(sizes.values()):,.0f} MB; largest {max(sizes.values()):.2f} MB; index {first} MB | | |"


def shell(page: Path) -> None:
    """The page around the data, with the transcripts as its only section."""
    for path in PAGE.iterdir():
        write_text(page / path.name, path.read_text("utf-8"))
    index = (page / "index.html").read_text("utf-8").splitlines(keepends=True)
    others = [
        name
        for name in SCRIPT.findall("".join(index))
        if not name.startswith(("report", "widgets", "transcripts", "start"))
    ]
    kept = (line for line in index if not any(f'"{name}.js"' in line for name in others))
    write_text(page / "index.html", "".join(kept))
    write_data(page, "page", {"made": "made up", "standIn": {}})


def main() -> None:
    """Make the run, write the page, open it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=41_000, help="training rows, and prompts of all benchmarks together"
    )
    parser.add_argument("--thinking", type=int, default=2000, help="characters of a thinking")
    parser.add_argument("--answer", type=int, default=600, help="characters of an answer")
    parser.add_argument("--keep", type=Path, help="make the run here and leave it; used as it is where there is one")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = flags.keep or Path(folder)
        if not (root / "results").is_dir():
            make(root, flags.rows, flags.thinking, flags.answer)
        print("| what | | clock | CPU |\n|---|---|---|---|", flush=True)
        shell(root / "page")
        for line in (*build(root, root / "page"), *measure(root / "page/index.html")):
            print(line, flush=True)


if __name__ == "__main__":
    main()
