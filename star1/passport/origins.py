"""Where rows were fetched, on what terms, and what was dropped for them; and passports of fetched rows themselves."""

from collections.abc import Iterator
from pathlib import Path

from star1.passport.desk import Desk, picked
from star1.passport.finding import lines_with, needle, parsed, row_of, rows_with
from star1.records import Row, read_json, text_digest

TERMS = ("kind", "format", "licence", "attribution", "repository", "revision", "pinned", "gated", "keep")


def fetched_of(desk: Desk, row: Row) -> Row | None:
    """The fetched row that a row of the collection is: of several with its text, the one that was not dropped."""
    path = f"data/sources/{row['source']}.jsonl"
    if not desk.there(path):
        return None
    same = list(rows_with(desk.root / path, "question", row["question"]))
    kept = same if len(same) == 1 else [one for one in same if _drop(desk, row["source"], one["row"]) is None]
    if len(kept) != 1:
        desk.page.problems.append(
            f"{path}: {len(kept)} rows that were kept have the text of row {row['id']}; expected 1"
        )
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
    for line in lines_with(path, needle("id", wanted)):
        row = parsed(line)
        matched = row.get("matched") or {}
        if matched.get(kind) == name and matched.get("id") == wanted:
            yield row


def source(desk: Desk, name: str, fetched: Row | None) -> Row:
    """Where a row was fetched, and on what terms."""
    output = f"data/sources/{name}.jsonl"
    told = entry(desk, output, f"fetch.sources.{name}", name)
    return told | (
        {"fetched": {"passport": f"fetched:{name}-{fetched['row']}", "row": fetched["row"]}} if fetched else {}
    )


def entry(desk: Desk, output: str, setting: str, name: str) -> Row:
    """A table entry, as the fetch stage was run with, and its raw files."""
    one = desk.books.setting(output, setting)
    if not one:
        desk.page.problems.append(f"{name}: no entry {setting} in dvc.lock or params.yaml")
        return {"name": name}
    paths, digests = (value if isinstance(value, list) else [value] for value in (one["path"], one.get("sha256")))
    folder = {"bundled": "", "mirror": f"{desk.books.setting(output, 'fetch.mirror')}/"}.get(one["kind"])
    known = dict(zip(paths, [*digests, *[None] * len(paths)], strict=False))
    raw = [_raw(desk, output, folder, path, digest) for path, digest in known.items()]
    return {"name": name, "pinned": True} | picked(one, *TERMS) | {"raw_files": raw, "rows_file": output}


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


def near_benchmarks(desk: Desk, question: str) -> list[Row]:
    """Rows of benchmarks that the screen found near, by text: sets without ids among them."""
    if not desk.there("data/contamination.jsonl"):
        return []
    found = rows_with(desk.root / "data/contamination.jsonl", "question_digest", text_digest(question))
    return [
        {"passport": f"test:{one['benchmark']}/{one['benchmark_row']}"}
        | picked(one, "training", "exact", "ngram", "tfidf", "embedding")
        for one in found
    ]


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
            desk.page.problems.append(
                f"{name}: not dropped, and {len(kept)} times in data/collection.jsonl; expected once"
            )
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
    told |= {"source": entry(desk, output, f"fetch.published.{set_name}", set_name) | {"of": row.get("source")}}
    told |= picked(row, "category", "score") | {"response_digest": text_digest(str(row.get("response")))}
    return told | {"trained": list(desk.trained(row_name, row["question"])), "stages": desk.stages(output)}
