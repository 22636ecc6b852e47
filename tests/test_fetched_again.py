"""Base models at a commit of the hub: DVC records their files and stores none of them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from star1.workflow.inputs import Inputs
from star1.workflow.lookups import Params
from tests.test_workflow import Project, make

COMMIT = "0" * 40
FETCH = """
from star1.workflow.outputs import fetched_again

rule fetch_model:
    input: code=code("weights")
    output: fetched_again("models/base/{model}/manifest.json", lambda wildcards: wildcards.model == "hub")
    shell: "python -m scripts.weights {output}"

rule split:"""
WEIGHTS = """
import hashlib, json, pathlib, sys
out = pathlib.Path(sys.argv[1])
with open("ran.txt", "a") as log:
    log.write(f"{out}\\n")
(out.parent / "weights.bin").write_bytes(b"weights" * 1000)
digest = hashlib.sha256((out.parent / "weights.bin").read_bytes()).hexdigest()
out.write_text(json.dumps({"files": {"weights.bin": {"sha256": digest, "bytes": 7000}}}))
"""
TRAINED = ["results/models/a.txt", "results/models/b.txt"]


def test_weights_at_a_commit_are_fetched_again_and_others_kept() -> None:
    models = {
        "tiny": {"kind": "tiny"},
        "hub": {"kind": "hub", "revision": COMMIT},
        "branch": {"kind": "hub", "revision": "main", "pinned": False},
        "mirror": {"kind": "mirror", "path": "m"},
    }
    params = Params({"policy": {"pack": "p"}, "fetch": {"models": models}})
    pinned = Inputs(params).pinned_models()
    assert [name for name in models if pinned(SimpleNamespace(model=name))] == ["hub"]
    assert {"fetch.models.tiny.kind", "fetch.models.hub.kind", "fetch.models.branch.revision"} <= params.shaping


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A workflow whose models are made of a base model of the hub, after one run, pushed and committed."""
    project = make(tmp_path / "project")
    (project.path / "scripts/weights.py").write_text(WEIGHTS)
    project.edit("Snakefile", "\nrule split:", FETCH)
    project.edit(
        "Snakefile", 'data="results/split.txt"', 'data="results/split.txt", base="models/base/hub/manifest.json"'
    )
    project.edit(".gitignore", "/results/\n", "/results/\n/models/\n")
    project.run("star1", "dvc-yaml")
    project.snakemake("--quiet", "all")
    project.run("dvc", "push", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "finished")
    return project


def test_weights_are_neither_stored_nor_missed_until_they_are_needed(project: Project, tmp_path: Path) -> None:
    assert project.clean()
    for store in (".dvc/cache", "dvc-store"):
        sizes = [path.stat().st_size for path in (project.path / store).rglob("*") if path.is_file()]
        assert sizes
        assert 7000 not in sizes
    project.run("git", "clone", "-q", str(project.path), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "-q")
    assert not (clone.path / "models").exists()
    assert clone.plans() == ([], [])
    assert clone.snakemake() == []
    # Something needs them now, so they are fetched; what was made of them before is made anew.
    clone.edit("params.yaml", "alpha: 0.1", "alpha: 0.5")
    planned = ["fetch_model-hub", "summary", "train-a", "train-b"]
    assert clone.plans() == (planned, planned)
    assert clone.snakemake() == ["models/base/hub/manifest.json", *TRAINED, "results/summary.txt"]
    assert clone.clean()
    # Weights that are not the ones on record are not trusted.
    (clone.path / "models/base/hub/weights.bin").write_bytes(b"others")
    assert "fetch_model-hub" in clone.plans()[0]
    assert "fetch_model-hub" in clone.plans()[1]
