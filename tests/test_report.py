"""The report: what stands in its data, and what a browser makes of it."""

import itertools
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from star1 import dedup
from star1.errors import InputError
from star1.params import read_yaml
from star1.records import read_json, read_rows, write_json, write_rows
from star1.report import charts, datasets, drops, funnel, overview, results, standins, writing
from star1.report.run import Run, commit
from star1.workflow.lookups import code, page_files
from tests.conftest import ROOT
from tests.reports import DAY, HOSTILE, hosted, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


def taken(script: str) -> tuple[str, Any]:
    """Name and value that a data file hands over."""
    match = re.fullmatch(r'report\.put\("([^"]+)", (.*)\);\n', script)
    assert match is not None, script[:80]
    return match[1], json.loads(match[2])


# --- files ---


@pytest.mark.parametrize("text", HOSTILE)
def test_a_data_file_holds_strict_json_that_ends_no_script(text: str) -> None:
    written = writing.script("a/b", {"text": text, text[:50]: [1, None]})
    assert "<" not in written
    assert written.count("\n") == 1
    assert not {"\u2028", "\u2029"} & set(written)
    assert taken(written) == ("a/b", {"text": text, text[:50]: [1, None]})


def test_a_report_takes_the_place_of_an_older_one_and_of_nothing_else(tmp_path: Path) -> None:
    def page(*names: str) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            for name in names:
                (folder / name).touch()

        return fill

    writing.replace(tmp_path / "new", page("index.html"))
    writing.replace(tmp_path / "new", page("index.html", "more.js"))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["index.html", "more.js"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").touch()
    with pytest.raises(InputError, match="a folder with other files"):
        writing.replace(tmp_path / "other", page("index.html"))
    assert (tmp_path / "other/thesis.txt").exists()


def test_a_report_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.js").touch()
        raise InputError("x", "broken", "whole")

    writing.replace(tmp_path / "page", lambda folder: (folder / "index.html").touch())
    with pytest.raises(InputError):
        writing.replace(tmp_path / "page", fail)
    assert [path.name for path in tmp_path.rglob("*")] == ["page", "index.html"]


def test_only_declared_artifacts_are_read(run: Run) -> None:
    (run.root / "results/costs/old-stage.json").write_text("{}")  # of a run that is no more
    assert "results/costs/old-stage.json" not in run.names("results/costs/*.json")
    assert run.names("tables/*.json") == []
    with pytest.raises(InputError, match="not among the artifacts"):
        run.json("results/costs/old-stage.json")


def test_files_of_the_page_and_their_code_are_inputs_of_the_rule() -> None:
    shown = {name.rpartition("/")[2] for name in page_files()}
    named = re.findall(r'(?:src|href)="([\w.-]+)"', (ROOT / "star1/report/page/index.html").read_text())
    assert set(named) < shown
    assert {"index.html"} | set(named) == shown
    assert {"star1/report/charts.py", "star1/report/funnel.py"} < set(code("report", ROOT))


# --- overview ---


def test_stand_ins_are_found_and_told_once() -> None:
    params = read_yaml(ROOT / "params.yaml")
    items = standins.found(Run(ROOT, params, frozenset()))
    assert {one["place"].split(",")[0] for one in items} == {
        *("The classifier", "The teacher", "The scorer", "The rewriter", "The judge refusal", "The judge guard"),
        *("The base model tiny", "Prompt sets", "Benchmarks"),
    }
    told = standins.banner(items)
    assert told is not None
    assert "rules stood in" in told["text"]
    assert set(standins.marks(items)) == {"data", "results"}


def test_a_run_without_stand_ins_has_no_banner_and_no_marks() -> None:
    params = read_yaml(ROOT / "params.yaml")
    items = standins.found(Run(ROOT, {**params, **hosted(params)}, frozenset()))
    assert (items, standins.banner(items), standins.marks(items)) == ([], None, {})


def test_one_bundled_benchmark_among_real_ones_is_enough_for_a_mark() -> None:
    params = read_yaml(ROOT / "params.yaml")
    changed = {**params, **hosted(params)}
    changed["fetch"]["benchmarks"]["jbb"]["kind"] = "bundled"
    items = standins.found(Run(ROOT, changed, frozenset()))
    assert set(standins.marks(items)) == {"results"}
    assert "(jbb)" in standins.marks(items)["results"]


def test_replayed_rows_count_as_stand_ins_since_rules_fill_their_gaps() -> None:
    params = read_yaml(ROOT / "params.yaml")
    changed = {**params, **hosted(params)}
    changed["llm"]["endpoints"]["hosted"] = {"provider": "replay", "label": "R1", "model": "r1"}
    assert {one["kind"] for one in standins.found(Run(ROOT, changed, frozenset()))} == {"rules"}


def test_presets_in_place_are_those_whose_every_value_holds(tmp_path: Path) -> None:
    for name, text in {
        "one": "curate: {size: 160}",
        "two": "curate: {size: 7}",
        "both": "curate: {size: 160.0}\nextra: {a: 1}",
    }.items():
        (tmp_path / f"presets/{name}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"presets/{name}.yaml").write_text(text)
    names = frozenset(f"presets/{name}.yaml" for name in ("one", "two", "both"))
    assert overview.in_place(Run(tmp_path, {"curate": {"size": 160, "x": 1}}, names)) == ["both", "one"]


def test_addresses_of_servers_and_folders_are_left_out() -> None:
    params = {
        "llm": {"endpoints": {"a": {"base_url": "http://secret.example", "key": "K"}}},
        "fetch": {"mirror": "/home/me"},
    }
    assert overview.shown(params) == {"llm": {"endpoints": {"a": {"key": "K"}}}, "fetch": {}}


def test_costs_of_every_kind_of_stage(run: Run) -> None:
    found = {(one["stage"], one["part"]): one for one in overview.costs(run)}
    assert set(found) == {
        ("collect", "encode"),
        ("finetune-star1", None),
        ("judge-star1", "guard"),
        ("judge-star1", "refusal"),
        ("reason", None),
    }
    assert found["reason", None]["usd"] == 1.25
    assert found["collect", "encode"] == {"stage": "collect", "part": "encode", "seconds": 1.5, "peak_mb": 200}
    assert found["finetune-star1", None]["cpu_hours"] == 0.25


@pytest.mark.parametrize("how", ["branch", "packed", "detached", "worktree"])
def test_the_commit_is_read_without_git_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    root = tmp_path / "project"

    def git(*words: str) -> str:
        made = subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@x", *words],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
        return made.stdout.strip()

    root.mkdir()
    git("init", "-q", "-b", "main")
    (root / "Snakefile").write_text("x")
    git("add", "-A")
    git("commit", "-q", "-m", "m")
    if how == "packed":
        git("pack-refs", "--all")
    elif how == "detached":
        git("checkout", "-q", "--detach")
    elif how == "worktree":
        git("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
        root = tmp_path / "side"
    head = git("rev-parse", "HEAD")
    assert commit(root) == {"commit": head, "changed": False}
    (root / "Snakefile").write_text("y")
    assert commit(root) == {"commit": head, "changed": True}
    monkeypatch.setenv("PATH", "")
    assert commit(root) == {"commit": head, "changed": None}


def test_no_repository_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit(tmp_path) == {"commit": None, "changed": None}


# --- funnel ---


def test_steps_and_counts_have_their_words() -> None:
    assert tuple(drops.NAMES) == dedup.STEPS
    assert set(funnel.FETCHED) | {"read", "kept"} == set(
        read_json(ROOT / "results/metrics/funnel.json")["fetched"]["online"]
    )


def test_every_row_that_left_is_in_one_group(run: Run) -> None:
    groups = drops.groups(run)
    by_step: dict[str, int] = {}
    for one in groups:
        by_step[one.step] = by_step.get(one.step, 0) + len(one.rows)
        assert sum(one.sources.values()) == len(one.rows)
    total = run.json("results/metrics/funnel.json")["total"]
    steps = ["rows", *drops.NAMES]
    assert [by_step[step] for step in drops.NAMES] == [total[a] - total[b] for a, b in itertools.pairwise(steps)]
    assert {step: by_step[step] for step in ("reason", "score", "full marks", "balanced", "benign")} == {
        **{"reason": 10, "score": 2, "full marks": 20, "balanced": 18, "benign": 4}
    }
    assert {one.reason for one in groups if one.step == "balanced"} == {
        f"balanced out (source {name})" for name in run.params["collect"]["sources"]
    }


def test_rows_left_after_the_steps_end_with_the_final_set(run: Run) -> None:
    steps = funnel.data(run)["funnel"]["steps"]  # type: ignore[index]
    counts = [one["rows"] for one in steps]
    assert counts[0] == sum(one["read"] for one in run.json("results/metrics/funnel.json")["fetched"].values())
    assert counts[-1] == len(run.rows("data/star1.jsonl"))
    assert [one["dropped"] for one in steps] == [0, *(a - b for a, b in itertools.pairwise(counts))]


def test_texts_are_those_of_the_digests_and_nothing_else(run: Run) -> None:
    rows = [row for one in drops.groups(run) for row in one.rows]
    rows[0]["question_digest"] = "0" * 16
    drops.with_texts(run, rows)
    assert rows[0]["question"] is None
    assert all(row["question"] for row in rows[1:])
    assert all(row["matched_question"] for row in rows if "matched" in row)


def test_a_look_alike_that_went_is_shown_and_not_the_row_it_was_made_from(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (row, *_) = run.rows("data/benign/rewritten.jsonl")
    write_rows(tmp_path / "data/benign/rewritten.jsonl", [{**row, "question": "a mild one"}])
    stages = ("benign_rewrite", "benign_reason", "benign_score")
    for stage in stages:
        gone = {"id": row["id"], "stage": stage, "reason": "refused", "detail": "", "reply": ""}
        write_rows(tmp_path / f"data/quarantine/{stage}.jsonl", [gone])
    found = {one.reason: one for one in drops.groups(run) if one.step == "benign"}
    groups = [found[f"{stage}: refused"] for stage in stages]
    drops.with_texts(run, [shown for one in groups for shown in one.rows])
    assert [one.rows[0]["question"] for one in groups] == [row["original"], "a mild one", "a mild one"]
    assert [one.harmful for one in groups] == [True, False, False]


@pytest.mark.parametrize(("rows", "most"), [(0, 5), (4, 5), (5, 5), (6, 5), (1003, 200)])
def test_examples_are_spread_evenly_and_in_order(rows: int, most: int) -> None:
    found = [row["n"] for row in drops.spread([{"n": n} for n in range(rows)], most)]
    assert len(found) == min(rows, most)
    assert found == sorted(set(found))
    gaps = {b - a for a, b in itertools.pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_large_run_has_capped_pages_and_says_so(tmp_path: Path) -> None:
    root = tmp_path / "run"
    run = make_run(root)
    few = read_rows(root / "data/dropped.jsonl")
    write_rows(root / "data/dropped.jsonl", few * 1000)
    found = funnel.data(run)
    told: Any = found["funnel"]
    first = told["groups"][0]
    assert first["rows"] > drops.MOST == first["shown"] == 200
    pages = [name for name in found if name.startswith("funnel/dropped-0-")]
    assert len(pages) == first["pages"] == 8
    assert all(len(found[name]) <= drops.PAGE_ROWS for name in pages)  # type: ignore[arg-type]
    assert max(len(writing.script(name, value)) for name, value in found.items()) < 400_000


def test_a_long_text_is_cut_and_says_how_much_is_missing() -> None:
    assert drops.clipped("a" * 4000) == "a" * 4000
    assert drops.clipped("a" * 5234) == "a" * 4000 + "… (1,234 more characters)"


# --- data and results ---


def test_the_heatmap_has_a_cell_for_nothing_too(run: Run) -> None:
    shown: Any = datasets.data(run)["data/scored"]
    rows = [row for rows in shown["heatmap"]["spec"]["datasets"].values() for row in rows]
    assert len(rows) == len({row["category"] for row in rows}) * len({row["source"] for row in rows})
    written = run.csv("results/plots/categories.csv")
    assert sum(row["labels"] for row in rows) == sum(int(row["labels"]) for row in written if row["set"] == "scored")


def test_the_axis_of_marks_ends_with_the_scale_of_the_policies(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with (tmp_path / "results/plots/marks.csv").open("a") as file:
        file.write("random,Care,3,4\nrandom,Care,4,6\n")
    path = tmp_path / "results/metrics/quality.json"
    quality = read_json(path)
    quality["random"]["mean_marks"] = {"Care": 3.6}  # of no rubric: up to the highest mark that was given
    write_json(path, quality)
    with (tmp_path / "results/plots/marks.csv").open() as file:
        lines = [line for line in file if not line.startswith("random,") or "Care" in line]
    (tmp_path / "results/plots/marks.csv").write_text("".join(lines))
    shown: Any = datasets.data(run)
    axes = {
        name: [one["spec"]["encoding"]["x"]["scale"]["domain"] for one in shown[f"data/{name}"]["marks"]]
        for name in ("scored", "benign", "random")
    }
    assert axes == {"scored": [[*range(11)]] * 3, "benign": [[*range(1, 6)]] * 3, "random": [[*range(5)]]}
    assert {one["name"]: one["highest"] for one in shown["data"]["sets"]}["random"] == {"Care": 4}


def test_an_average_stands_for_its_purpose_before_the_pool() -> None:
    cell = {"purpose": "harmful", "measure": "Safety", "low": 0.0, "high": 1.0, "n": 1, "total": 1}
    cells = [
        {**cell, "model": model, "benchmark": name, "value": value}
        for model, name, value in (("a", "x", 0.1), ("a", "all", 0.2), ("b", "x", 0.3))
    ]
    averages = [
        {**cell, "model": "a", "average": "safety", "value": 0.4},
        {"model": "b", "average": "safety", "value": None, "why": "w"},
        {**cell, "model": "a (3 seeds)", "average": "safety", "value": 0.5},
    ]

    def best(averages: list[Any]) -> dict[str, tuple[float, str]]:
        found = results.best({"cells": cells, "averages": averages}, "harmful")
        return {model: (one["value"], one["of"]) for model, one in found.items()}

    assert best(averages) == {
        "a": (0.4, "Safety, average safety")
    }  # b has none, and nothing else stands on the same axis
    assert best(averages[1:]) == {"a": (0.2, "Safety, all benchmarks together"), "b": (0.3, "Safety, x")}


def test_a_loss_curve_keeps_its_ends() -> None:
    curve = [(n, 1.0 / n) for n in range(1, 5001)]
    found = results.thin(curve)
    assert (len(found), found[0], found[-1]) == (results.MOST_POINTS, curve[0], curve[-1])
    assert results.thin(curve[:7]) == curve[:7]


def test_judges_whose_model_ends_are_named() -> None:
    params = read_yaml(ROOT / "params.yaml")
    found = list(results.ends({**params, **hosted(params)}))
    assert [(one["judge"], one["retires"], one["purposes"]) for one in found] == [
        ("refusal", DAY, ["harmful", "benign"]),
        ("guard", DAY, ["harmful"]),
    ]
    assert list(results.ends(params)) == []


def test_steps_far_apart_are_drawn_on_a_logarithmic_scale() -> None:
    steps = [
        {"step": "read", "short": "a", "name": "A", "rows": 530_000, "dropped": 0},
        {"step": "pool_ngram", "short": "b", "name": "B", "rows": 1000, "dropped": 529_000},
    ]
    scales = json.dumps(charts.funnel(steps)["spec"])
    assert '"symlog"' in scales
    assert '"symlog"' not in json.dumps(charts.funnel(steps[:1])["spec"])
