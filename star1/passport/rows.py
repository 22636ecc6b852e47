"""Passports of training rows: where they were fetched, what was dropped for them, what was asked, where they ended."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from star1.passport.asked import STAGES, asked
from star1.passport.desk import Desk, picked
from star1.passport.finding import row_of, rows_with
from star1.records import Row, read_json, text_digest
from star1.sources import Published, Source

FUNNEL = {"categorize": "data/categorized.jsonl", "reason": "data/cot.jsonl", "score": "data/scored.jsonl"}
BENIGN = {
    "benign_rewrite": "data/benign/rewritten.jsonl",
    "benign_reason": "data/benign/cot.jsonl",
    "benign_score": "data/benign/scored.jsonl",
}
ROLES = {"categorize": "classifier", "reason": "teacher", "score": "scorer"}
ROLES |= {"benign_rewrite": "rewriter", "benign_reason": "teacher", "benign_score": "scorer"}


def training_row(desk: Desk, name: str) -> Row:
    """A row of the collection, from its source to the models trained on it."""
    row = row_of(desk.root / "data/collection.jsonl", name) or {}
    found = {stage: desk.row(path, name) for stage, path in FUNNEL.items()}
    fetched = fetched_of(desk, row)
    return {
        "outcome": _outcome(desk, name, found),
        "question": row["question"],
        "source": source(desk, row["source"], fetched),
        "near_duplicates_dropped": dropped_for(desk, "source", row["source"], fetched) if fetched else [],
        "near_benchmarks": _near_benchmarks(desk, row["question"]),
        **_funnel(desk, row, found),
        "curation": _curation(desk, name, found["score"]),
        "benign_look_alike": _benign_of(desk, name),
        "trained": list(_trained(desk, name, row["question"])),
        "stages": desk.stages("data/collection.jsonl", *FUNNEL.values(), "data/star1.jsonl"),
    }


def fetched_of(desk: Desk, row: Row) -> Row | None:
    """The fetched row that a row of the collection is: of several with its text, the one that was not dropped."""
    path = f"data/sources/{row['source']}.jsonl"
    if not desk.there(path, f"fetch ({row['source']})"):
        return None
    same = list(rows_with(desk.root / path, "question", row["question"]))
    kept = same if len(same) == 1 else [one for one in same if _drop(desk, row["source"], one["row"]) is None]
    if len(kept) != 1:
        desk.page.problems.append(f"{path}: {len(kept)} rows that were kept have the text of row {row['id']}; expected 1")
    return kept[0] if kept else None


def _drop(desk: Desk, name: str, number: int) -> Row | None:
    """What data/dropped.jsonl says about a fetched row."""
    if not desk.there("data/dropped.jsonl"):
        return None
    found = rows_with(desk.root / "data/dropped.jsonl", "id", f"{name}-{number}")
    return next((one for one in found if one.get("source") == name and one.get("row") == number), None)


def dropped_for(desk: Desk, kind: str, name: str, row: Row) -> list[Row]:
    """The rows that were dropped because they are near to a row of a source or a benchmark."""
    if not desk.there("data/dropped.jsonl"):
        return []
    wanted = row["id"] if kind == "benchmark" else f"{name}-{row['row']}"
    near = _matched(desk.root / "data/dropped.jsonl", kind, name, wanted)
    return [
        {"passport": f"fetched:{one['id']}"} | picked(one, "step", "reason", "similarity", "ngram", "question_digest")
        for one in near
    ]


def _matched(path: Path, kind: str, name: str, wanted: str) -> Iterator[Row]:
    from star1.passport.finding import lines_with, needle, parsed

    for line in lines_with(path, needle("id", wanted)):
        row = parsed(line)
        matched = row.get("matched") or {}
        if matched.get(kind) == name and matched.get("id") == wanted:
            yield row


def source(desk: Desk, name: str, fetched: Row | None) -> Row:
    """Where a row was fetched, and on what terms."""
    output = f"data/sources/{name}.jsonl"
    told = entry(desk, output, f"fetch.sources.{name}", Source, name)
    return told | ({"fetched": {"passport": f"fetched:{name}-{fetched['row']}", "row": fetched["row"]}} if fetched else {})


def entry(desk: Desk, output: str, setting: str, model: Any, name: str) -> Row:
    """A table entry, as the fetch stage was run with, and its raw files."""
    value = desk.books.setting(output, setting)
    if not value:
        desk.page.problems.append(f"{name}: no entry {setting} in dvc.lock or params.yaml")
        return {"name": name}
    one = model.model_validate(value)
    told = {"name": name, "licence": one.licence, "attribution": one.attribution, "kind": one.kind, "format": one.format}
    told |= {key: getattr(one, key) for key in ("repository", "revision") if getattr(one, key)} | {"pinned": one.pinned}
    mirror = desk.books.setting(output, "fetch.mirror")
    folder = {"bundled": "", "mirror": f"{mirror}/"}.get(one.kind)
    raw = [_raw(desk, output, folder, path, one.digest_of(place)) for place, path in enumerate(one.paths)]
    return told | {"raw_files": raw, "rows_file": output}


def _raw(desk: Desk, output: str, folder: str | None, path: str, digest: str | None) -> Row:
    """A raw file; one on this machine is compared with what the stage read."""
    if folder is None:
        return {"at": path, "sha256": digest}
    local = f"{folder}{path}"
    if not (desk.root / local).is_file():
        desk.page.missing.append(f"{local}: the raw file is not here any more")
        return {"at": local, "sha256": digest}
    told = desk.file(local)
    if digest and digest.lower() != told["sha256"]:
        desk.page.problems.append(f"{local}: SHA-256 {told['sha256'][:16]}…; its entry says {digest[:16]}…")
    if desk.books.changed_input(output, local):
        desk.page.problems.append(f"{local}: changed since it was read")
    return told


def _near_benchmarks(desk: Desk, question: str) -> list[Row]:
    """Rows of benchmarks that the screen found near, by text: sets without ids among them."""
    if not desk.there("data/contamination.jsonl"):
        return []
    found = rows_with(desk.root / "data/contamination.jsonl", "question_digest", text_digest(question))
    return [
        {"passport": f"test:{one['benchmark']}/{one['benchmark_row']}"}
        | picked(one, "training", "exact", "ngram", "tfidf", "embedding")
        for one in found
    ]


def _funnel(desk: Desk, row: Row, found: dict[str, Row | None]) -> Row:
    """Category, trace and score, each with its calls."""
    told: Row = {}
    before = row
    for stage, after in found.items():
        name = {"categorize": "category", "reason": "trace", "score": "score"}[stage]
        if after is None:
            told[name] = _quarantined(desk, stage, row["id"])
            if told[name] is None:
                del told[name]
            continue
        told[name] = _added(desk, stage, FUNNEL[stage], before, after)
        before = after
    return told


def _added(desk: Desk, stage: str, output: str, before: Row, after: Row) -> Row:
    """What a stage added to a row, and the calls that gave it."""
    field, _ = STAGES[stage]
    section = stage.replace("_", ".")
    calls = asked(stage, before, desk.pack, desk.trace(stage, output, section, ROLES[stage]))
    told: Row = {"file": output, "calls": desk.calls(stage, calls, after[field])}
    if field == "response":
        thinking, _, answer = after[field].partition("</think>")
        words = {"thinking_words": len(thinking.split()) - 1, "answer_words": len(answer.split())}
        shown = {"response": after[field]} if desk.replies else {}
        return {"response_digest": text_digest(after[field])} | words | shown | told
    if field == "category":
        return {"names": after[field], "policies": desk.policies(after[field])} | told
    return {"question": after[field]} | told if field == "question" else {"marks": after[field]} | told


def _quarantined(desk: Desk, stage: str, name: str) -> Row | None:
    path = f"data/quarantine/{stage}.jsonl"
    if not (desk.root / path).is_file():
        return None
    row = row_of(desk.root / path, name)
    return None if row is None else {"quarantined": picked(row, "reason", "detail"), "file": path}


def _outcome(desk: Desk, name: str, found: dict[str, Row | None]) -> str:
    """What became of a row, in a sentence."""
    for stage, path in FUNNEL.items():
        if found[stage] is None:
            row = _quarantined(desk, stage, name)
            if row:
                return f"set aside by {stage}: {row['quarantined']['reason']}"
            return f"not in {path}" if (desk.root / path).is_file() else f"came as far as before {stage}, which is not run"
    if desk.row("data/star1.jsonl", name):
        return "in the final data set (data/star1.jsonl)"
    dropped = desk.row("data/curate_dropped.jsonl", name)
    return f"not in the final data set: {dropped['reason']}" if dropped else "not curated"


def _curation(desk: Desk, name: str, scored: Row | None) -> Row | None:
    if scored is None or not desk.there("data/star1.jsonl"):
        return None
    full, kept = desk.row("data/full_score.jsonl", name), desk.row("data/star1.jsonl", name)
    dropped = desk.row("data/curate_dropped.jsonl", name)
    if (kept is None) == (dropped is None) or (kept is not None and full is None):
        where = [path for path, row in (("star1", kept), ("full_score", full), ("curate_dropped", dropped)) if row]
        desk.page.problems.append(f"row {name}: in {', '.join(where) or 'none'} of star1, full_score and curate_dropped")
    for path, row in (("data/full_score.jsonl", full), ("data/star1.jsonl", kept)):
        if row and any(row.get(key) != value for key, value in scored.items()):
            desk.page.problems.append(f"{path}: row {name} differs from data/scored.jsonl")
    return {"full_marks": full is not None, "selected": kept is not None} | ({"reason": dropped["reason"]} if dropped else {})


def _benign_of(desk: Desk, name: str) -> Row | None:
    if row_of(desk.root / "data/benign/rewritten.jsonl", name):
        kept = row_of(desk.root / "data/benign/benign.jsonl", name) is not None
        return {"passport": f"benign:{name}", "kept": kept}
    return _quarantined(desk, "benign_rewrite", name)


def _trained(desk: Desk, name: str, question: str) -> Iterator[Row]:
    """The runs with a data file that holds a row: by its id and its text, since benign rows have the same ids."""
    for run, files in desk.training_files().items():
        for file in files:
            row = row_of(desk.root / file, name)
            if row and row.get("question") == question:
                yield {"passport": f"model:{run}", "file": file}


def benign_row(desk: Desk, name: str) -> Row:
    """A benign look-alike: the harmful row it came from, and its own calls."""
    files = list(BENIGN.items())
    found = {stage: desk.row(path, name) for stage, path in files}
    row, before = found["benign_rewrite"] or {}, row_of(desk.root / "data/star1.jsonl", name) or {}
    if row.get("original") != before.get("question"):
        desk.page.problems.append(f"benign row {name}: made from another question than that of row {name} in data/star1.jsonl")
    told: Row = {"question": row["question"], "made_from": {"passport": f"row:{name}"}}
    for (stage, path), section in zip(files, ("rewritten", "trace", "score"), strict=True):
        after = found[stage]
        if after is None:
            told[section] = _quarantined(desk, stage, name)
            break
        told[section], before = _added(desk, stage, path, before, after), after
    kept = desk.row("data/benign/benign.jsonl", name) is not None
    low = {key: mark for key, mark in ((found["benign_score"] or {}).get("score") or {}).items()}
    told["outcome"] = "kept (data/benign/benign.jsonl)" if kept else f"not kept: {json.dumps(low) if low else 'set aside'}"
    told["trained"] = list(_trained(desk, name, row["question"]))
    return told | {"stages": desk.stages(*BENIGN.values(), "data/benign/benign.jsonl")}


def fetched_row(desk: Desk, name: str) -> Row:
    """A fetched prompt, kept or dropped: where it is from, and where and why it ended."""
    set_name, _, number = name.rpartition("-")
    output = f"data/sources/{set_name}.jsonl"
    row = next(rows_with(desk.root / output, "row", int(number)), None)
    told: Row = {"source": source(desk, set_name, None), "row": int(number)}
    if row is None:
        return {"outcome": _not_read(desk, set_name, int(number))} | told | {"stages": desk.stages(output)}
    told |= {"question": row["question"]}
    drop = _drop(desk, set_name, row["row"])
    if drop:
        told = {"outcome": f"dropped at {drop['step']}: {drop['reason']}"} | told | {"dropped": _near(desk, drop)}
    else:
        kept = [one for one in _collected(desk, row) if one["source"] == set_name]
        if len(kept) != 1:
            desk.page.problems.append(f"{name}: not dropped, and {len(kept)} times in data/collection.jsonl; expected once")
        ids = [{"passport": f"row:{one['id']}"} for one in kept]
        told = {"outcome": "kept" if kept else "neither kept nor dropped"} | told | {"collected": ids}
    told["near_duplicates_dropped"] = dropped_for(desk, "source", set_name, row)
    return told | {"stages": desk.stages(output, "data/collection.jsonl")}


def _collected(desk: Desk, row: Row) -> list[Row]:
    path = "data/collection.jsonl"
    return list(rows_with(desk.root / path, "question", row["question"])) if desk.there(path) else []


def _near(desk: Desk, drop: Row) -> Row:
    """Why a row was dropped, and the row it is near to."""
    matched = drop["matched"]
    benchmark = matched.get("benchmark")
    to = f"test:{benchmark}/{matched['id']}" if benchmark else f"fetched:{matched['id']}"
    return picked(drop, "step", "reason", "similarity", "ngram") | {"near_to": {"passport": to}}


def _not_read(desk: Desk, name: str, number: int) -> str:
    """Why a raw row did not become a prompt."""
    counts = desk.root / f"data/sources/{name}.counts.json"
    if counts.is_file():
        for reason, rows in (read_json(counts).get("dropped") or {}).items():
            if number in rows:
                return f"dropped at fetch: {reason.replace('_', ' ')}"
    return "left out at fetch: by the entry's `keep`"


def published_row(desk: Desk, name: str) -> Row:
    """A row of a released data set: it was made elsewhere, and only its file can be told."""
    set_name, _, row_name = name.partition("/")
    output = f"data/published/{set_name}.jsonl"
    row = row_of(desk.root / output, row_name) or {}
    told = {"outcome": "released by others; its calls are theirs", "question": row["question"]}
    told |= {"source": entry(desk, output, f"fetch.published.{set_name}", Published, set_name) | {"of": row.get("source")}}
    told |= picked(row, "category", "score") | {"response_digest": text_digest(str(row.get("response")))}
    return told | {"trained": list(_trained(desk, row_name, row["question"])), "stages": desk.stages(output)}
