"""What jobs read and need, by who answers in a role."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from star1.workflow import engine
from star1.workflow.inputs import Inputs
from star1.workflow.lookups import Params
from tests.conftest import ROOT

REMOTE = {"provider": "openai", "model": "m", "label": "m", "base_url": "http://127.0.0.1:9/v1"}


def inputs(used: list[str] | None = None, **roles: str | list[str]) -> Inputs:
    """Inputs of a project with two remote endpoints and the stand-in."""
    endpoints = {"stand-in": {"provider": "stand-in"}, "a+b": REMOTE, "c": REMOTE}
    judges = {"one": {"kind": "guard", "endpoint": "stand-in"}, "two": {"kind": "policy", "endpoint": ["a+b", "c"]}}
    judges["spare"] = {"kind": "wildguard", "endpoint": "c", "template": "w.md"}
    section = {"judges": judges, "use": {"harmful": used or ["one"], "benign": ["one"]}}
    llm = {"endpoints": endpoints, "roles": roles}
    return Inputs(Params({"policy": {"pack": "p"}, "llm": llm, "judge": section}))


def test_the_endpoints_of_a_role_stand_on_its_command_line() -> None:
    """One as it is, several by name; for DVC, each is a parameter of its own."""
    found = inputs(scorer="c", teacher=["a+b", "c"])
    assert json.loads(found.endpoint("scorer")({})) == REMOTE
    assert json.loads(found.endpoint("teacher")({})) == {"a+b": REMOTE, "c": REMOTE}
    assert found.endpoint("teacher").names({}) == ["llm.endpoints.a+b", "llm.endpoints.c"]


def test_jobs_that_share_a_remote_endpoint_take_turns() -> None:
    """Its limits are kept within a job; what is answered in the job's own process waits for nobody."""
    found = inputs(rewriter="stand-in", teacher=["a+b", "c"], scorer="c")
    assert (found.turns("rewriter"), found.turns("teacher")) == ({}, {"endpoint_a_b": 1, "endpoint_c": 1})
    assert found.turns("scorer") == {"endpoint_c": 1}
    assert found.endpoints() == {"endpoint_a_b": 1, "endpoint_c": 1}


def test_a_judges_job_reads_and_asks_what_the_judges_in_use_need() -> None:
    """Those that are only in the table cost nothing: no file, no endpoint, no turn."""
    found = inputs()
    assert found.judge_endpoints().names({}) == ["llm.endpoints.stand-in"]
    assert (found.judge_turns(), found.endpoints()) == ({}, {})
    assert found.judge_files() == [
        f"policies/p/{name}" for name in ("policy.yaml", "prompts/judge_guard.md", "prompts/repair.md")
    ]
    found = inputs(["two", "one", "spare"])
    assert found.judge_endpoints().names({}) == ["llm.endpoints.a+b", "llm.endpoints.c", "llm.endpoints.stand-in"]
    assert found.endpoints() == {"endpoint_a_b": 1, "endpoint_c": 1}
    assert "policies/p/prompts/judge_policy.md" in found.judge_files()
    assert found.judge_files()[-1] == "w.md"


def test_the_command_line_decides_how_many_may_ask() -> None:
    """`--resources` comes before what the endpoints say."""

    class Workflow:
        def __init__(self) -> None:
            self.global_resources: dict[str, Any] = {"endpoint_c": 3}

        def register_resource(self, name: str, value: int) -> None:
            self.global_resources[name] = value

    workflow = Workflow()
    engine.limit(workflow, {"endpoint_c": 1, "endpoint_a_b": 1})
    assert workflow.global_resources == {"endpoint_c": 3, "endpoint_a_b": 1}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's rules with a remote judge and rows for it, and nothing else to do."""
    for name in ("Snakefile", "rules", "scripts", "star1", "policies", "bundled", "published", "profiles"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["llm"]["endpoints"]["far"] = REMOTE
    params["judge"]["judges"]["guard"]["endpoint"] = "far"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return tmp_path


def test_snakemake_knows_the_turns_of_a_remote_endpoint(project: Path) -> None:
    """The plan names the resource of each job that asks it, and of no other."""
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "snakemake", "-n", "--forceall"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    blocks = (done.stdout + done.stderr).split("\n\n")
    with_turn = [block for block in blocks if "endpoint_far=1" in block]
    assert len(with_turn) == len([block for block in blocks if "rule judge:" in block]) > 0
    assert all("rule judge:" in block for block in with_turn)


def test_tables_are_shown_after_a_whole_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a part of the workflow had run with other settings, it ended with the tables of the settings before."""
    shown: list[Any] = []
    monkeypatch.delenv(engine.INSIDE_DVC, raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *command, **_: shown.append(command))
    for targets, until in (({"data/star1.jsonl"}, set()), (set(), {"curate"}), (set(), set())):
        assert not shown
        settings = SimpleNamespace(targets=targets, until=until, omit_from=set())
        engine.show_results(SimpleNamespace(dag_settings=settings))
    assert len(shown) == 1
