"""The stage `summarize` on a few judgements, with the settings of params.yaml."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from star1.params import Summarize
from star1.records import write_json, write_rows
from star1.summaries import settings_from
from tests.conftest import ROOT
from tests.test_tables_means import marks

HOW = ("confidence", "power", "averages", "pass_at", "bootstrap", "pairs")


def test_every_table_is_written(tmp_path: Path) -> None:
    for model, letters in (("base", "uuuus"), ("run", "sssu-"), ("several-seed1", "sssss"), ("several-seed2", "uusss")):
        write_rows(tmp_path / f"judgements/{model}/jbb.jsonl", marks("jbb", *letters))
        write_rows(tmp_path / f"judgements/{model}/xstest.jsonl", marks("xstest", *"ss"))
    write_json(tmp_path / "near.json", {"star1": {}})
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    given = {
        "models": ["base", "run", "several-seed1", "several-seed2"],
        "benchmarks": ["xstest", "jbb"],
        "entries": {"jbb": {"kind": "bundled"}, "xstest": {"kind": "bundled"}},
        "runs": {"run": {"base": "base", "seed": 1}, "several": {"base": "base", "seeds": [1, 2]}},
        "settings": {name: params["summarize"][name] for name in HOW},
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", json.dumps(value))]
    paths = {"judgements": "judgements", "contamination": "near.json", "tables": "tables", "metrics": "metrics"}
    flags += [part for name, path in paths.items() for part in (f"--{name}", str(tmp_path / path))]
    flags += ["--published", "published/paper_results.csv", "--published-rows", "published/paper_rows.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.summarize", *flags], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "summarize: 4 models on 2 benchmarks, 27 of 28 answers scored; 4 paired comparisons\n"
    names = ("main", "published", "quality", "think", "over-refusal", "paired")
    found = {path.name for path in (tmp_path / "tables").iterdir()}
    assert found == {f"{name}.{kind}" for name in names for kind in ("json", "md", "tex")}
    # Only the main table has cells with passports.
    assert [name for name in names if "cells" in json.loads((tmp_path / f"tables/{name}.json").read_text())] == ["main"]
    # Benchmarks stand in the order of generate.benchmarks; what rules pass as an object is sorted.
    assert "| Safety | xstest | jbb | all |" in (tmp_path / "tables/main.md").read_text()
    paired = json.loads((tmp_path / "metrics/paired.json").read_text())
    assert paired["run - base"]["jbb"]["difference"] == 0.75
    assert paired["several - base"]["jbb"]["difference"] == pytest.approx(0.6)


def test_settings_are_those_of_params() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["summarize"]
    assert {*HOW} <= set(Summarize.model_fields)
    settings = settings_from(json.dumps({name: params[name] for name in HOW}))
    assert (settings.seed, settings.averages) == (params["bootstrap"]["seed"], params["averages"])
