"""Passports of what comes out: cells of tables, judged answers, rows of benchmarks, checkpoints."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from star1 import tables
from star1.errors import InputError
from star1.passport.address import TABLES, Address, cell_name
from star1.passport.desk import Desk, picked
from star1.passport.finding import answers_of, row_of, rows_with
from star1.passport.origins import dropped_for, entry
from star1.records import Row, file_digest, primary, read_json, read_rows, text_digest
from star1.runs import by_model

EXACT = ("purpose", "measure", "count", "n", "total", "coverage", "verdicts", "unscored", "judges")
INTERVAL = ("value", "low", "high")
# An interval may differ in its last digits with the version of a library.
TOLERANCE = 1e-9
BENIGN = "data/benign/benign.jsonl"


def cell(desk: Desk, address: Address) -> Row:
    """A cell of a table, counted again from the judgements."""
    known = desk.places.cells(address.kind)
    shown = next(one for one in known if cell_name(one) == address.name)
    model, output = shown["model"], str(TABLES / f"{address.kind}.json")
    desk.there(output)
    names = _benchmarks(known, shown)
    judged = {name: _judgements(desk, model, name) for name in names}
    rows = [row for found in judged.values() for row in found]
    _compare(desk, shown, rows, desk.places.confidence(address.kind))
    answers = [
        {"passport": _address(model, name, row)} | picked(row, "verdict", "unscored")
        for name, found in judged.items()
        for row in found
    ]
    files = [_path(model, name) for name in names]
    told: Row = {
        "file": output,
        "confidence": desk.places.confidence(address.kind),
        **picked(shown, "measure", *INTERVAL, *EXACT[2:]),
    }
    told |= {"answers": len(answers), "of_them": desk.some(answers), "judgements": files}
    told |= {"benchmarks": names, "checkpoint": _checkpoint_link(desk, model)}
    return told | {"stages": desk.stages(output, *files[:1], _path(model, names[0], "generations"))}


def _address(model: str, benchmark: str, row: Row) -> str:
    return f"answer:{model}/{benchmark}/{row['id']}" + (f"@{row['sample']}" if row.get("sample") else "")


def _path(model: str, benchmark: str, kind: str = "judgements") -> str:
    return f"results/{kind}/{model}/{benchmark}.jsonl"


def _benchmarks(known: list[Row], shown: Row) -> list[str]:
    """The benchmarks that a cell is about: of a pooled one, those of its measure."""
    if shown["benchmark"] != tables.POOLED:
        return [shown["benchmark"]]
    same = [one for one in known if (one["model"], one["measure"]) == (shown["model"], shown["measure"])]
    return [one["benchmark"] for one in same if one["benchmark"] != tables.POOLED]


def _judgements(desk: Desk, model: str, benchmark: str) -> list[Row]:
    path = _path(model, benchmark)
    return primary(read_rows(desk.root / path, ["id"])) if desk.there(path) else []


def _compare(desk: Desk, shown: Row, rows: list[Row], confidence: float) -> None:
    """Note every figure of a cell that the judgements do not give."""
    if not rows:
        return
    try:
        counted = tables.cell(shown["model"], shown["benchmark"], rows, confidence)
    except (InputError, KeyError) as error:
        desk.page.problems.append(f"the judgements cannot be counted: {error}")
        return
    differing = [name for name in EXACT if shown.get(name) != counted[name]]
    differing += [name for name in INTERVAL if not _close(shown.get(name), counted[name])]
    for name in differing:
        desk.page.problems.append(f"{name}: the table says {shown.get(name)}; the judgements give {counted[name]}")


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE)


def _checkpoint_link(desk: Desk, model: str) -> Row:
    """The checkpoint that answered, and what it was trained on."""
    folder = _folder(desk, model)
    if folder is None:
        # One of a run of this project is told among what is missing.
        hint = "" if _is_run(desk, model) else "no checkpoint of this name here; was it asked behind a server?"
        return {"model": model} | ({"hint": hint} if hint else {})
    told: Row = {"passport": f"model:{model}", "manifest_sha256": _manifest_digest(desk, folder)}
    record = _manifest(desk, folder).get("record") or {}
    told |= picked(record.get("settings") or {}, "seed")
    if data := record.get("data"):
        told |= {"training_rows": sum(one["rows"] for one in data), "data": [one["file"] for one in data]}
        told |= {"ask_for_each": f"star1 passport model:{model} --all"}
    return told


def _folder(desk: Desk, model: str) -> str | None:
    """The folder of a checkpoint; None for a model that was asked behind a server, or whose checkpoint is not there."""
    for folder in (f"models/{model}", f"models/base/{model}"):
        if (desk.root / folder / "manifest.json").is_file():
            return folder
    if _is_run(desk, model):
        desk.there(f"models/{model}/manifest.json")
    return None


def _is_run(desk: Desk, model: str) -> bool:
    return model in by_model((desk.books.params.get("finetune") or {}).get("runs") or {})


def _manifest(desk: Desk, folder: str) -> Row:
    found = read_json(desk.root / folder / "manifest.json")
    return found if isinstance(found, dict) else {}


def _manifest_digest(desk: Desk, folder: str) -> str | None:
    path = desk.root / folder / "manifest.json"
    return file_digest(path) if path.is_file() else None


def answer(desk: Desk, address: Address) -> Row:
    """A model's answer to a row of a benchmark, its verdict, and the judge's calls."""
    model, benchmark, called = address.parts(3)
    files = {kind: _path(model, benchmark, kind) for kind in ("generations", "judgements")}
    own, samples = (
        answers_of(desk.root / files["generations"], called) if desk.there(files["generations"]) else ([], [])
    )
    verdicts, others = (
        answers_of(desk.root / files["judgements"], called) if desk.there(files["judgements"]) else ([], [])
    )
    if not own:
        raise InputError(
            files["generations"], f"no row {called}", "the answer", "`snakemake` makes it, `dvc pull` fetches it"
        )
    generated, name, judged = own[0], str(own[0]["id"]), next(iter(verdicts), None)  # the primary judge's
    test = desk.row(f"data/benchmarks/{benchmark}.jsonl", name)
    told: Row = {"outcome": _verdict(judged), "test": {"passport": f"test:{benchmark}/{name}"}}
    told |= {"question": generated["question"]}
    if len(samples) > 1:
        words = {row.get("sample") or 0: _verdict(row) for row in reversed(primary(others))}
        told["sample"] = generated.get("sample") or 0
        told["samples"] = [
            {"passport": _address(model, benchmark, row), "outcome": words.get(row.get("sample") or 0, "not judged")}
            for row in samples
        ]
    sections = ("response", "thinking", "answer") if desk.replies else ("answer",)
    told["generation"] = {"file": files["generations"], "response_digest": text_digest(generated["response"])} | picked(
        generated, *sections, "finish_reason", "prompt_tokens", "completion_tokens", "engine", "sampling"
    )
    told["checkpoint"] = _checkpoint_link(desk, model)
    if judged:
        shown = [
            picked(one, "name", "verdict", "unscored", "kind", "view", "judge", "categories", "score")
            | {"calls": _judge_calls(desk, model, benchmark, test, generated, one)}
            for one in verdicts
        ]
        told["judgement"] = {"file": files["judgements"]} | shown[0]
        if shown[1:]:
            told["other_judgements"] = shown[1:]
        _same_texts(desk, test, generated, judged)
        told["cells"] = [{"passport": str(one)} for one in _cells_of(desk, model, benchmark, judged["purpose"])]
    return told | {"stages": desk.stages(files["generations"], files["judgements"])}


def _verdict(judged: Row | None) -> str:
    if judged is None:
        return "not judged"
    return str(judged["verdict"]) if judged["verdict"] else f"unscored: {judged['unscored']}"


def _same_texts(desk: Desk, test: Row | None, generated: Row, judged: Row) -> None:
    """Note where question and answer are not those that were judged."""
    texts = (("question", generated["question"]), ("response", generated["response"]))
    for kind, text in texts:
        if judged.get(f"{kind}_digest") not in (None, text_digest(text)):
            desk.page.problems.append(f"the judged {kind} is not the one in results/generations: run judge again")
    if test and test["question"] != generated["question"]:
        desk.page.problems.append("the model answered another question than the benchmark asks now: run generate again")


def _judge_calls(desk: Desk, model: str, benchmark: str, test: Row | None, generated: Row, judged: Row) -> list[Row]:
    """What the judge model was asked about an answer; nothing where a rule decided."""
    by_rule = judged["verdict"] is None and not str(judged["unscored"]).startswith("judge: ")
    if judged["kind"] == "grader" or test is None or by_rule:
        return []
    from star1.judges import Benchmark, shown
    from star1.passport.asked import asked_of_judge

    output = _path(model, benchmark)
    who = str(judged["name"])
    how = desk.judge(output, who)
    if shown(how, Benchmark(benchmark, str(test["purpose"]), {str(test["id"]): test}, [generated]), generated) is None:
        return []  # nothing was given that could be compared
    trace = desk.judge_trace(f"judge-{model}", output, who, how)
    found = asked_of_judge(who, how, benchmark, test, generated, desk.pack, trace)
    return desk.calls(f"judge-{model}", output, found, judged["verdict"])


def _cells_of(desk: Desk, model: str, benchmark: str = "", purpose: str = "") -> Iterator[Address]:
    """A model's cells in all tables; given a benchmark and its purpose, those in which it counts."""
    for table in desk.places.tables:
        for one in desk.places.cells(table):
            counts = one["benchmark"] == benchmark or (one["benchmark"] == tables.POOLED and one["purpose"] == purpose)
            if one["model"] == model and (counts or not benchmark):
                yield Address(table, cell_name(one))


def test(desk: Desk, address: Address) -> Row:
    """A row of a benchmark: where it is from, who answered it, and which training rows are near to it."""
    benchmark, name = address.parts(2)
    output = f"data/benchmarks/{benchmark}.jsonl"
    row = desk.row(output, name) or {}
    told: Row = {"question": row["question"], **picked(row, "purpose", "category", "answer")}
    told["source"] = entry(desk, output, f"fetch.benchmarks.{benchmark}", benchmark)
    told["near_duplicates_dropped"] = dropped_for(desk, "benchmark", benchmark, row)
    told["near_training_rows"] = _near_training(desk, benchmark, name)
    told["answers"] = [
        {"passport": f"answer:{model}/{benchmark}/{name}"}
        for model in desk.places.names("results/generations", "*/")
        if row_of(desk.root / _path(model, benchmark, "generations"), name)
    ]
    return told | {"stages": desk.stages(output)}


def _near_training(desk: Desk, benchmark: str, name: str) -> list[Row]:
    if not desk.there("data/contamination.jsonl"):
        return []
    found = rows_with(desk.root / "data/contamination.jsonl", "benchmark_row", name)
    measures = ("training", "exact", "ngram", "tfidf", "embedding")
    return [_training_link(desk, one) | picked(one, *measures) for one in found if one["benchmark"] == benchmark]


def _training_link(desk: Desk, one: Row) -> Row:
    """The address of a training row that the screen names: by id, or by its place in a prompt set's file."""
    training, row = one["training"], one["row"]
    if training in desk.places.sources and isinstance(row, int):
        known = rows_with(desk.root / f"data/sources/{training}.jsonl", "source", training)
        found = next((each for place, each in enumerate(known) if place == row), None)
        return {"passport": f"fetched:{training}-{found['row']}"} if found else {"row": row}
    if training in desk.places.names("data/published"):
        return {"passport": f"published:{training}/{row}"}
    return {"passport": f"benign:{row}" if training == "benign" else f"row:{row}"}


def checkpoint(desk: Desk, name: str) -> Row:
    """A checkpoint: its files, how it was made, its base, and the rows it was trained on."""
    folder = _folder(desk, name)
    links = {"cells": [{"passport": str(one)} for one in _cells_of(desk, name)]}
    if folder is None:
        return {"outcome": "no checkpoint here; was it asked behind a server?", **links}
    manifest = _manifest(desk, folder)
    record = manifest.get("record") or {}
    told: Row = {"kind_of_checkpoint": manifest.get("kind"), "manifest": desk.file(f"{folder}/manifest.json")}
    told["files"] = [{"path": f"{folder}/{path}", **about} for path, about in (manifest.get("files") or {}).items()]
    _check_sizes(desk, told["files"])
    data = record.get("data") or []
    told |= picked(record, "settings", "rows", "updates", "target_tokens", "loss", "versions", "text")
    told |= picked(record, "repository", "revision", "commit", "path")
    if record.get("base"):
        told["base"] = _base(desk, name, record["base"])
    told["data"] = [_data(desk, name, one) for one in data]
    return told | links | {"stages": desk.stages(folder)}


def _check_sizes(desk: Desk, files: list[Row]) -> None:
    for one in files:
        path = desk.root / one["path"]
        if not path.is_file():
            desk.page.missing.append(f"{one['path']}: not there; `dvc pull` brings it")
        elif path.stat().st_size != one["bytes"]:
            desk.page.problems.append(
                f"{one['path']}: {path.stat().st_size:,} bytes; its manifest says {one['bytes']:,}"
            )


def _base(desk: Desk, run: str, said: Mapping[str, Any]) -> Row:
    """The base model of a run, found by its manifest's digest."""
    digest = said.get("manifest_sha256")
    for path in sorted((desk.root / "models/base").glob("*/manifest.json")):
        if file_digest(path) == digest:
            return {"passport": f"model:{path.parent.name}", "manifest_sha256": digest, **_origin(path)}
    desk.page.problems.append(
        f"model {run}: no base model here has the manifest {str(digest)[:16]}… that it was trained from"
    )
    return dict(said)


def _origin(path: Path) -> Row:
    """What names a base model's weights beyond this project."""
    record = read_json(path).get("record") or {}
    return picked(record, "repository", "revision", "commit", "path")


def _data(desk: Desk, run: str, said: Mapping[str, Any]) -> Row:
    """A data file of a run, and the rows in it."""
    files = [path for path in desk.files_of(run) if Path(path).name == said["file"]]
    if not files or not desk.there(files[0]):
        return dict(said)
    path = files[0]
    if file_digest(desk.root / path) != said["sha256"]:
        desk.page.problems.append(f"{path}: other rows than model {run} was trained on")
    folder = Path(path).parent.name
    kinds = {"published": f"published:{Path(path).stem}/"} | {"benign": "benign:"}
    kind = kinds.get(folder, "row:")
    rows = [{"passport": f"{kind}{row['id']}"} for row in read_rows(desk.root / path, ["id"])]
    return {"path": path, **picked(said, "sha256", "rows"), "of_them": desk.some(rows)}
