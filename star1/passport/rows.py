"""Passports of training rows: where they were fetched, what was dropped for them, what was asked, where they ended."""

import json
from typing import Any

from star1.passport.asked import STAGES, asked
from star1.passport.desk import Desk, picked
from star1.passport.finding import row_of
from star1.passport.origins import dropped_for, fetched_of, near_benchmarks, source
from star1.records import Row, text_digest

FUNNEL = {"categorize": "data/categorized.jsonl", "reason": "data/cot.jsonl", "score": "data/scored.jsonl"}
BENIGN = {
    "benign_rewrite": "data/benign/rewritten.jsonl",
    "benign_reason": "data/benign/cot.jsonl",
    "benign_score": "data/benign/scored.jsonl",
}
BENIGN_ROWS = "data/benign/benign.jsonl"
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
        "near_benchmarks": near_benchmarks(desk, row["question"]),
        **_funnel(desk, row, found),
        "curation": _curation(desk, name, found["score"]),
        "benign_look_alike": _benign_of(desk, name),
        "trained": list(desk.trained(name, row["question"])),
        "stages": desk.stages("data/collection.jsonl", *FUNNEL.values(), "data/star1.jsonl"),
    }


def _funnel(desk: Desk, row: Row, found: dict[str, Row | None]) -> Row:
    """Category, trace and score, each with its calls, as far as the row came."""
    told: Row = {}
    for (stage, after), name in zip(found.items(), ("category", "trace", "score"), strict=True):
        if (section := _section(desk, stage, FUNNEL[stage], row, after)) is not None:
            told[name] = section
        if after is None:
            break
        row = after
    return told


def _section(desk: Desk, stage: str, output: str, before: Row, after: Row | None) -> Row | None:
    """What a stage did with a row, and the calls for that; None where it never had it."""
    if after is None and (aside := quarantined(desk, stage, before["id"])) is None:
        return None
    section = stage.replace("_", ".")
    found = asked(stage, before, desk.pack, desk.trace(stage, output, section, ROLES[stage]))
    if after is None:
        return (aside or {}) | {"calls": desk.calls(stage, output, found, None)}
    value = after[STAGES[stage][0]]
    return _added(desk, STAGES[stage][0], value) | {"file": output, "calls": desk.calls(stage, output, found, value)}


def _added(desk: Desk, field: str, value: Any) -> Row:
    """What a stage added to a row."""
    if field == "response":
        thinking, _, answer = value.partition("</think>")
        words = {"thinking_words": len(thinking.split()) - 1, "answer_words": len(answer.split())}
        return {"response_digest": text_digest(value)} | words | ({"response": value} if desk.replies else {})
    if field == "category":
        return {"names": value, "policies": desk.policies(value)}
    return {"question" if field == "question" else "marks": value}


def quarantined(desk: Desk, stage: str, name: str) -> Row | None:
    """Why a stage set a row aside; None where it did not."""
    path = f"data/quarantine/{stage}.jsonl"
    row = row_of(desk.root / path, name)
    return None if row is None else {"quarantined": picked(row, "reason", "detail"), "file": path}


def _outcome(desk: Desk, name: str, found: dict[str, Row | None]) -> str:
    """What became of a row, in a sentence."""
    for stage, path in FUNNEL.items():
        if found[stage] is None:
            row = quarantined(desk, stage, name)
            if row:
                return f"set aside by {stage}: {row['quarantined']['reason']}"
            return (
                f"not in {path}" if (desk.root / path).is_file() else f"came as far as before {stage}, which is not run"
            )
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
        desk.page.problems.append(
            f"row {name}: in {', '.join(where) or 'none'} of star1, full_score and curate_dropped"
        )
    for path, row in (("data/full_score.jsonl", full), ("data/star1.jsonl", kept)):
        if row and any(row.get(key) != value for key, value in scored.items()):
            desk.page.problems.append(f"{path}: row {name} differs from data/scored.jsonl")
    told: Row = {"full_marks": full is not None, "selected": kept is not None}
    told |= {"reason": dropped["reason"]} if dropped else {}
    others = desk.places.names("data/selections")
    chosen = [one for one in others if row_of(desk.root / f"data/selections/{one}.jsonl", name)]
    return told | ({"selections": chosen} if others else {})


def _benign_of(desk: Desk, name: str) -> Row | None:
    if row_of(desk.root / "data/benign/rewritten.jsonl", name):
        kept = row_of(desk.root / BENIGN_ROWS, name) is not None
        return {"passport": f"benign:{name}", "kept": kept}
    return quarantined(desk, "benign_rewrite", name)


def benign_row(desk: Desk, name: str) -> Row:
    """A benign look-alike: the harmful row it came from, and its own calls."""
    found = {stage: desk.row(path, name) for stage, path in BENIGN.items()}
    row, before = found["benign_rewrite"] or {}, row_of(desk.root / "data/star1.jsonl", name) or {}
    if row["original"] != before.get("question"):
        desk.page.problems.append(f"made from another question than that of row {name} in data/star1.jsonl")
    told: Row = {"outcome": _benign_outcome(desk, name, found), "question": row["question"]}
    told["made_from"] = {"passport": f"row:{name}"} if before else "no row of data/star1.jsonl any more"
    for (stage, path), section in zip(BENIGN.items(), ("rewritten", "trace", "score"), strict=True):
        after = found[stage]
        told[section] = _section(desk, stage, path, before or {"id": name, "question": row["original"]} | row, after)
        if after is None:
            break
        before = after
    told["trained"] = list(desk.trained(name, row["question"]))
    return told | {"stages": desk.stages(*BENIGN.values(), BENIGN_ROWS)}


def _benign_outcome(desk: Desk, name: str, found: dict[str, Row | None]) -> str:
    if desk.row(BENIGN_ROWS, name):
        return f"kept ({BENIGN_ROWS})"
    for stage in BENIGN:
        if found[stage] is None:
            aside = quarantined(desk, stage, name)
            return f"set aside by {stage}: {aside['quarantined']['reason']}" if aside else f"not in {BENIGN[stage]}"
    return f"not kept: {json.dumps((found['benign_score'] or {}).get('score'))}"
