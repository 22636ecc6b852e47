"""The real workflow end to end, with everything made small; and the released artifacts of the default run."""

import json
import re
import shutil
import subprocess
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.passports import check_walk

SMALL = [
    "fetch.models.tiny.dialogues=300",
    "fetch.models.tiny.docstring_characters=4000",
    "fetch.models.tiny.context=512",
    "collect.sources=[neighbourhood, school]",
    "collect.benchmarks={strongreject: drop, xstest: flag}",
    "curate.size=24",
    "curate.selections.medium={kind: balanced, size: 40, marks: [5, 8]}",
    "finetune.settings.epochs=1",
    "generate.benchmarks=[strongreject, xstest, math500]",
    "generate.sampling.max_tokens=48",
    "judge.judges.refusal.cut_off=judged",
    "judge.judges.guard.cut_off=judged",
    "judge.grader.cut_off=judged",
]
# A module goes to one worker, so the small run is made once.
STAGES_AFTER_CURATE = {
    "curate",
    "curate_perturb",
    "describe",
    "screen",
    *(f"benign_{step}" for step in ("rewrite", "reason", "score", "keep")),
    "finetune/star1",
    "finetune/star1+benign",
    "generate/star1",
    "generate/star1+benign",
    "judge/star1",
    "judge/star1+benign",
    "agree",
    "summarize",
    "release",
    "release_model/star1",
    "release_model/star1+benign",
    "report",
}


def tracked_files() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def copy_project(target: Path) -> None:
    """The project as a fresh clone of it would be."""
    for name in tracked_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "c"],
    ):
        subprocess.run(["git", *command], cwd=target, check=True)


def run(folder: Path, *command: str, ok: bool = True) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert (done.returncode == 0) is ok, f"{' '.join(command)} ended with {done.returncode}:\n{text[-6000:]}"
    return text


def ran(folder: Path, *command: str) -> set[str]:
    """Run a command; gives the stages that ran under it, by the logs they wrote."""
    started = time.time()
    run(folder, *command)
    logs = (path for path in (folder / "logs").rglob("*.log") if path.stat().st_mtime >= started)
    return {path.relative_to(folder / "logs").with_suffix("").as_posix() for path in logs}


def asked(folder: Path, stage: str) -> int:
    """How many requests a stage sent in its last run."""
    found = re.findall(r"(\d+) answered from the store, (\d+) asked", (folder / "logs" / f"{stage}.log").read_text())
    assert found, stage
    return sum(int(count) for _, count in found)


def clean(folder: Path) -> None:
    assert "Nothing to be done" in run(folder, "snakemake", "-n")
    assert "up to date" in run(folder, "dvc", "status")


def without_network() -> list[str]:
    """What runs a command in a network namespace of its own, in which nothing can be reached; empty where that is not allowed."""
    command = ["unshare", "--map-root-user", "--net"]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return command if done.returncode == 0 else []


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, from a clone without any artifact."""
    folder = tmp_path_factory.mktemp("small") / "project"
    copy_project(folder)
    run(folder, "star1", "preset", *(part for one in SMALL for part in ("--set", one)))
    # By `test_small_run_needs_no_network` nothing is reached from in there.
    text = run(folder, *without_network(), "snakemake", "--quiet", "rules", "host", "reason")
    assert "NOT A SAFETY RESULT" in text  # the tables stand at the end of a run
    return folder


@pytest.mark.slow
def test_small_run_needs_no_network(small: Path) -> None:
    if not (command := without_network()):
        pytest.skip("no network namespaces here (unshare --map-root-user --net)")
    interfaces = run(small, *command, "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]  # the fixture's run was made in such a place
    assert (small / "results/tables/main.json").is_file()


@pytest.mark.slow
def test_small_run_end_to_end(small: Path) -> None:
    clean(small)
    assert "Nothing to be done" in run(small, "snakemake")
    table = json.loads((small / "results/tables/main.json").read_text())
    assert {one["model"] for one in table["cells"]} == {"tiny", "star1", "star1+benign"}
    assert all(one["total"] in (30, 60, 20) for one in table["cells"])
    assert "stand-in (no language model)" in table["notice"]
    replies = [json.loads(line) for path in (small / "data/replies").glob("*.jsonl") for line in path.open()]
    assert replies
    assert all("no language model" in reply["note"] for reply in replies)
    card = (small / "release/datasets/star-1/README.md").read_text()
    assert "says nothing about any model" in card
    seal = json.loads((small / "release/models/star1+benign/release.json").read_text())
    assert len(seal["stand_in"]) == 4
    funnel = json.loads((small / "results/metrics/funnel.json").read_text())
    rows = sum(1 for _ in (small / "data/collection.jsonl").open())
    dropped = sum(1 for _ in (small / "data/dropped.jsonl").open())
    assert rows + dropped == funnel["total"]["rows"] == 70 + 81
    assert "results/metrics/main.json" in run(small, "dvc", "metrics", "show")
    assert "collect" in run(small, "dvc", "dag")
    scored = [json.loads(line) for line in (small / "data/scored.jsonl").open()]
    for name, lowest in (("random", range(11)), ("medium", range(5, 9))):
        chosen = [json.loads(line) for line in (small / f"data/selections/{name}.jsonl").open()]
        assert chosen == [row for row in scored if row in chosen]
        assert all(min(row["score"].values()) in lowest for row in chosen)
    agreed = json.loads((small / "results/tables/agreement.json").read_text())
    assert {(one["first"], one["second"], one["benchmark"]) for one in agreed["pairs"]} == {
        ("refusal", "guard", "strongreject")
    }
    assert "NOT A SAFETY RESULT" in (small / "results/tables/agreement.md").read_text()
    assert (small / "results/disagreements.jsonl").is_file()
    assert "rows in another order" in (small / "results/tables/stability.md").read_text()
    quality = json.loads((small / "results/metrics/quality.json").read_text())
    assert [quality[name]["rows"] for name in ("scored", "star1")] == [len(scored), 24]
    report = [path for path in (small / "results/report").rglob("*") if path.is_file()]
    assert {"index.html", "vega.js", "page.js", "results.js"} <= {path.name for path in report}
    assert sum(path.stat().st_size for path in report) < 5e6


@pytest.mark.slow
def test_snakemakes_own_report_carries_the_page(small: Path, tmp_path: Path) -> None:
    run(small, "snakemake", "--report", str(tmp_path / "carried.zip"))
    with zipfile.ZipFile(tmp_path / "carried.zip") as carried:
        (index,) = (name for name in carried.namelist() if name.endswith("/index.html"))
        for path in (small / "results/report").rglob("[!.]*.*"):
            name = f"{index.removesuffix('index.html')}{path.relative_to(small / 'results/report').as_posix()}"
            assert carried.read(name) == path.read_bytes()


@pytest.mark.slow
def test_every_cell_of_the_small_run_has_its_passport(small: Path) -> None:
    kinds = check_walk(small)
    assert kinds["cell of a table"] == 9
    assert kinds["judged answer"] == 3 * (30 + 60 + 20)
    assert kinds["checkpoint"] == 3
    assert kinds["benign look-alike"] == 24
    assert kinds["training row"] >= 24  # and rows that one of them was found near to
    assert json.loads(run(small, "star1", "passport", "--json", "main:star1/xstest"))["problems"] == []


@pytest.mark.slow
def test_one_changed_value_runs_the_same_stages_with_either_engine(small: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "snakemake", tmp_path / "dvc"]
    commands = [["snakemake", "--quiet", "rules", "host", "reason"], ["dvc", "repro", "--no-run-cache"]]
    for folder, command in zip(folders, commands, strict=True):
        shutil.copytree(small, folder, symlinks=True)
        run(folder, "star1", "preset", "--set", "curate.size=20")
        assert ran(folder, *command) == STAGES_AFTER_CURATE
        assert [asked(folder, f"benign_{step}") for step in ("rewrite", "reason", "score")] == [0, 0, 0]
        clean(folder)
    tables = [json.loads((folder / "results/tables/main.json").read_text()) for folder in folders]
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "first", "count"),
    [
        ("collect.tfidf_threshold=0.55", "collect", 26),
        ("score.coverage=0.9", "score", 23),
        ("finetune.settings.learning_rate=0.001", "finetune-star1", 11),
        ("summarize.confidence=0.9", "summarize", 7),
        ("prompt", "categorize", 25),
    ],
)
def test_plans_agree_on_one_changed_value(small: Path, tmp_path: Path, change: str, first: str, count: int) -> None:
    shutil.copytree(small, tmp_path / "copy", symlinks=True)
    if change == "prompt":
        prompt = tmp_path / "copy/policies/star1/prompts/categorize.md"
        prompt.write_text(prompt.read_text().replace("You sort", "You carefully sort"))
    else:
        run(tmp_path / "copy", "star1", "preset", "--set", change)
    plans = json.loads(run(tmp_path / "copy", "star1", "plan", "--json"))
    assert plans["snakemake"] == plans["dvc"]
    assert first in plans["dvc"]
    assert len(plans["dvc"]) == count


@pytest.mark.slow
def test_mirror_preset_plans_the_whole_dag(tmp_path: Path, shared: Path) -> None:
    copy_project(tmp_path)
    run(tmp_path, "star1", "preset", "mirror", "--set", f"fetch.mirror={shared / 'sources'}")
    plans = json.loads(run(tmp_path, "star1", "plan", "--json"))
    assert plans["snakemake"] == plans["dvc"]
    assert len(plans["dvc"]) == 46
    assert "fetch_source-HarmBench" in plans["dvc"]
    assert "fetch_published-STAR_1" in plans["dvc"]


@pytest.mark.slow
@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_released_artifacts_are_complete_after_a_bare_pull(tmp_path: Path, link: str) -> None:
    """Fails when code, rules or parameters changed without a new release: run `make release` and commit."""
    copy_project(tmp_path)
    run(tmp_path, "dvc", "config", "cache.type", link)
    run(tmp_path, "dvc", "pull")
    clean(tmp_path)
    replies = sorted((tmp_path / "data/replies").glob("*.jsonl"))
    assert len(replies) >= 9
    before = [path.read_bytes() for path in replies]
    run(tmp_path, "dvc", "checkout")
    assert [path.read_bytes() for path in replies] == before
    table = json.loads((tmp_path / "results/tables/main.json").read_text())
    harmful, benign = (
        {
            one["model"]: one
            for one in table["cells"]
            if one["purpose"] == what and one["benchmark"] in ("all", "xstest")
        }
        for what in ("harmful", "benign")
    )
    for run_name in ("star1", "star1+benign"):
        assert harmful[run_name]["value"] - harmful["tiny"]["value"] >= 0.5
    assert benign["star1+benign"]["high"] < benign["star1"]["low"]
    if link == "copy":
        kinds = check_walk(tmp_path)
        assert kinds["cell of a table"] == len(table["cells"]) == 39
        assert kinds["training row"] == 160


def test_the_readme_shows_the_released_figures() -> None:
    cells = json.loads((ROOT / "results/tables/main.json").read_text())["cells"]
    text = (ROOT / "README.md").read_text()
    for purpose, row in (("harmful", "| 104 harmful prompts"), ("benign", "| 70 benign look-alikes")):
        found = {one["model"]: one for one in cells if one["purpose"] == purpose and one["benchmark"] == "all"}
        told = [
            f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}], {one['n']}/{one['total']}"
            for one in (found[model] for model in ("tiny", "star1", "star1+benign"))
        ]
        (line,) = (line for line in text.splitlines() if line.startswith(row))
        assert line.split(" | ", 1)[1] == " | ".join(told) + " |"
    rates = {one["benchmark"]: f"{100 * one['value']:.1f} %" for one in cells if one["model"] == "star1+benign"}
    assert f"refuses {rates['xstest_unsafe']} of the harmful prompts and {rates['xstest']} of the benign ones" in text


def test_released_store_is_small() -> None:
    """What a clone has to carry for it: git compresses each file by itself."""
    files = [path.read_bytes() for path in (ROOT / "dvc-store").rglob("*") if path.is_file()]
    assert 0 < sum(map(len, files)) < 16e6
    assert sum(len(zlib.compress(content)) for content in files) < 7e6
