"""Cards and Croissant metadata: read by those who will read them, and true to the rows."""

import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from star1 import cards, checkpoints
from star1.modelreleases import release_model
from star1.publications import release_data
from star1.records import read_json, read_rows, write_json
from star1.releases import PARQUET
from tests.made import LICENCES, artifacts, make_run

NAMES = ("star-41k", "star-1", "star-benign")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    release_data(make_run(folder), folder / "release")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_data_card_header_is_what_the_hub_reads(made: Path, name: str) -> None:
    card = DatasetCard.load(made / "release" / name / "README.md")
    data: dict[str, Any] = card.data.to_dict()
    assert data["task_categories"] == ["text-generation"]
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    # Several licences together: the hub takes `other` with a name and where the terms stand.
    assert (data["license"], data["license_link"]) == ("other", "LICENSE.md")
    assert (made / "release" / name / data["license_link"]).is_file()
    assert "stand-in" in data["tags"]


def test_data_card_tells_the_counts_of_the_run(made: Path) -> None:
    text = (made / "release/star-41k/README.md").read_text()
    rows = read_rows(made / "data/scored.jsonl")
    for source in LICENCES:
        assert f"| {source} | {sum(row['source'] == source for row in rows)} |" in text
    quarantined = read_rows(made / "data/quarantine/reason.jsonl")
    assert f"| {quarantined[0]['reason']} {len(quarantined)} |" in text
    marks = [row["score"]["Accuracy_of_Thinking_Process"] for row in rows]
    line = next(line for line in text.splitlines() if line.startswith("| Accuracy_of_Thinking_Process"))
    assert line.split(" | ")[1] == str(marks.count(10))
    assert f"{cards.STAND_IN_BANNER}:** the stand-in was classifier and teacher and scorer of {len(rows)}" in text
    assert "| asked | HEx-PHI Dataset License Agreement | the \\| authors |" in text
    assert "| xstest |" not in text
    assert "| xstest | 2 | 0 | 1 | 0 | 2 |" in (made / "release/star-1/README.md").read_text()


def test_funnel_adds_up(made: Path) -> None:
    text = (made / "release/star-1/README.md").read_text()
    counts = {
        line.split(" | ")[0][2:]: int(line.split(" | ")[1])
        for line in text.splitlines()
        if "[" in line and " | " in line and line.split(" | ")[1].isdigit()
    }
    assert counts["score"] == len(read_rows(made / "data/scored.jsonl"))
    assert counts["full marks"] == len(read_rows(made / "data/full_score.jsonl"))
    assert counts["balance sources and categories"] == 12


def test_a_run_of_language_models_bears_no_banner(made: Path) -> None:
    assert cards.banner([]) == []
    assert cards.STAND_IN_BANNER in cards.banner(["x"])[0]


@pytest.mark.parametrize("name", NAMES)
def test_croissant_validates_and_reads_the_rows(made: Path, name: str) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    path = made / "release" / name / "croissant.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = mlcroissant.Dataset(str(path))
        assert dataset.metadata.issues.errors == set()
        assert dataset.metadata.ctx.is_v1_1()
        records = list(dataset.records("rows"))
    table = pl.read_parquet(path.parent / PARQUET)
    assert len(records) == len(table)
    for record, row in zip(records, table.to_dicts(), strict=True):
        assert set(record) == {f"rows/{column}" for column in table.columns}
        assert record["rows/id"].decode() == row["id"]
        assert [one.decode() for one in record["rows/category"]] == row["category"]
        assert record["rows/teacher_reply_tokens"] == row["teacher_reply_tokens"]
        assert record["rows/selected"] == row["selected"]


def test_croissant_names_files_by_their_digests(made: Path) -> None:
    folder = made / "release/star-1"
    described = read_json(folder / "croissant.json")
    sealed = read_json(folder / "release.json")["files"]
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert {one["contentUrl"]: one["sha256"] for one in described["distribution"]} == {
        name: sealed[name]["sha256"] for name in (PARQUET, "STAR-1.json")
    }


def checkpoint(folder: Path, kind: str, record: dict[str, Any]) -> Path:
    staging = folder.parent / f"{folder.name}.staging"
    staging.mkdir(parents=True)
    (staging / "model.safetensors").write_bytes(folder.name.encode())
    checkpoints.publish(staging, folder, kind, record)
    return folder / "manifest.json"


def trained(base: str = "0" * 64) -> dict[str, Any]:
    return {
        "base": {"kind": "hub", "manifest_sha256": base},
        "data": [{"file": "star1.jsonl", "sha256": "1" * 64, "rows": 12}],
        "rows": {"used": 11, "dropped": {"longer than 512 tokens": 1}},
        "settings": {"learning_rate": 0.002, "betas": [0.9, 0.95], "think": True, "seed": 2002},
        "updates": 7,
        "target_tokens": 1234,
        "loss": {"first": 6.36, "last": 0.27},
        "versions": {"torch": "2.13.0"},
    }


def cell(model: str, judge: str) -> dict[str, Any]:
    return {
        "model": model, "benchmark": "xstest", "purpose": "benign", "measure": "Refusal", "count": 1, "n": 4,
        "value": 0.25, "low": 0.05, "high": 0.7, "total": 5, "coverage": 0.8, "verdicts": {}, "unscored": {"cut off": 1},
        "judges": [judge],
    }  # fmt: skip


def model_release(folder: Path, judge: str, kind: str, released: list[Path]) -> dict[str, Any]:
    base = checkpoint(folder / "base/small", kind, {"repository": "them/small", "commit": "c" * 40})
    run = checkpoint(folder / "models/star1+benign", "sft", trained())
    cells = [cell("small", judge), cell("star1+benign", judge), cell("other", "x")]
    write_json(folder / "main.json", {"title": "Main", "notice": None, "confidence": 0.95, "cells": cells})
    release_model("star1+benign", ["star1"], (run, base, folder / "main.json"), released, "MIT", folder / "out")
    return dict(read_json(folder / "out/release.json"))


def test_model_card_of_a_real_model(tmp_path: Path) -> None:
    seal = model_release(tmp_path, "Llama-Guard-3-8B", "hub", [])
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.base_model == "them/small"
    assert card.data.license == "other"
    assert card.data.to_dict()["license_link"] == "https://huggingface.co/them/small"
    assert seal["stand_in"] == []
    text = card.text
    assert cards.STAND_IN_BANNER not in text
    assert "| star1+benign | 25.0 [5.0, 70.0], 4/5 (80%) |" in text
    assert "| small | 25.0" in text
    assert "| other |" not in text
    assert "Judged by: Llama-Guard-3-8B." in text
    assert "longer than 512 tokens 1" in text
    assert "| what is trained | all weights |" in text


def test_model_card_says_what_was_made_without_a_language_model(made: Path, tmp_path: Path) -> None:
    seal = model_release(tmp_path, "stand-in (no language model)", "tiny", [made / "release/star-1/release.json"])
    text = (tmp_path / "out/README.md").read_text()
    assert len(seal["stand_in"]) == 3
    assert all(reason in text for reason in seal["stand_in"])
    assert cards.STAND_IN_BANNER in text
    assert yaml.safe_load(text.split("---")[1])["license"] == "mit"


def test_model_that_was_not_evaluated_says_so(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base/small", "hub", {})
    run = checkpoint(tmp_path / "models/new", "sft", trained())
    write_json(tmp_path / "main.json", {"title": "", "notice": None, "confidence": 0.95, "cells": [cell("small", "x")]})
    release_model("new", ["STAR-1"], (run, base, tmp_path / "main.json"), [], "MIT", tmp_path / "out")
    assert "not evaluated in the run that made it" in (tmp_path / "out/README.md").read_text()


def test_a_model_card_tells_of_adapters_and_the_licence_of_the_base(tmp_path: Path) -> None:
    origin = {"repository": "them/small", "commit": "c" * 40, "licence": "MIT"}
    base = checkpoint(tmp_path / "base/small", "hub", origin)
    adapter = {"tier": "qlora", "rank": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}
    run = checkpoint(tmp_path / "models/new-seed1", "sft", trained() | {"adapter": adapter})
    write_json(tmp_path / "main.json", {"title": "", "notice": None, "confidence": 0.95, "cells": []})
    release_model("new-seed1", ["STAR-1"], (run, base, tmp_path / "main.json"), [], "Apache-2.0", tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "mit"
    assert "adapters beside a base of four bits (rank 16, alpha 32, dropout 0.0, targets all-linear)" in text


def test_leave_for_all_sources_is_told(made: Path, tmp_path: Path) -> None:
    release_data(artifacts(made, {"asked": True, "open": False}), tmp_path)
    text = (tmp_path / "star-1/README.md").read_text()
    assert "| withheld: withheld by release.redistribute |" in text
    assert "rows are ids only" in text
