"""Funnel: how many rows were left after each step, why the others went, and which training rows are near a benchmark."""

from collections.abc import Iterator

from star1.records import Row
from star1.report import charts, drops
from star1.report.run import Run

READ = "read"
# What `fetch` counts, in words.
FETCHED = {
    "filtered": "not of the chosen part of the set",
    "empty": "empty",
    "absent": "no question in the row",
    "not_text": "the question is no text",
    "not_utf8": "not UTF-8",
    "too_long": "too long",
    "long_row": "a row that is too long",
    "not_chosen": "not among the chosen rows",
    "duplicates": "an exact duplicate",
}


def data(run: Run) -> dict[str, object]:
    """Data files of the section: one with all counts, and pages of examples."""
    funnel = run.json("results/metrics/funnel.json")
    left = drops.groups(run)
    steps, files = list(_steps(run, funnel)), dict(_examples(run, left))
    near, near_files = _contamination(run)
    told = {
        "steps": steps,
        "sources": _by_source(funnel),
        "fetched": list(_fetched(funnel)),
        "chart": charts.funnel(steps),
        "groups": [_told(number, one) for number, one in enumerate(left)],
        "contamination": near,
        "most": drops.MOST,
        "page_rows": drops.PAGE_ROWS,
    }
    return {"funnel": told, **files, **near_files}


def _steps(run: Run, funnel: Row) -> Iterator[Row]:
    """Rows left after each step."""
    read = sum(one["read"] for one in funnel["fetched"].values())
    before = read

    def step(key: str, short: str, name: str, rows: int) -> Row:
        nonlocal before
        before, dropped = rows, before - rows
        return {"step": key, "short": short, "name": name, "rows": rows, "dropped": dropped}

    yield step(READ, "Read", "Read from the files of the sets", read)
    yield step("fetched", "Usable", "Usable, and no exact duplicate within the set", funnel["total"]["rows"])
    for key, (short, name) in drops.NAMES.items():
        yield step(key, short, name, funnel["total"][key])
    for key, (short, name, path) in drops.CALLED.items():
        yield step(key, short, name, len(run.rows(path)))
    scored, out = before, run.rows("data/curate_dropped.jsonl")
    balanced = sum(drops.POSITION.fullmatch(row["reason"]) is not None for row in out)
    yield step("full marks", "Full marks", "Full marks on every criterion", scored - (len(out) - balanced))
    yield step("balanced", "Chosen", "Chosen, balanced over sources and categories", len(run.rows("data/star1.jsonl")))


def _by_source(funnel: Row) -> list[Row]:
    """Rows of each set after each step of the collection."""
    return [
        {"source": name, READ: funnel["fetched"][name]["read"], "fetched": counts["rows"], **counts}
        for name, counts in funnel["sources"].items()
    ]


def _fetched(funnel: Row) -> Iterator[Row]:
    """Why rows of the raw files were not taken; only their number is known."""
    for name, counts in funnel["fetched"].items():
        for key, count in counts.items():
            if count and key not in (READ, "kept"):
                yield {"source": name, "reason": FETCHED.get(key, key), "rows": count}


def _told(number: int, one: drops.Group) -> Row:
    shown = min(len(one.rows), drops.MOST)
    return {
        "number": number,
        "step": one.step,
        "reason": one.reason,
        "harmful": one.harmful,
        "rows": len(one.rows),
        "shown": shown,
        "pages": -(-shown // drops.PAGE_ROWS),
        "sources": one.sources,
    }


def _examples(run: Run, left: list[drops.Group]) -> Iterator[tuple[str, object]]:
    chosen = [one.examples() for one in left]
    drops.with_texts(run, (row for rows in chosen for row in rows))
    for number, rows in enumerate(chosen):
        for page, part in enumerate(drops.pages([_shown(row) for row in rows])):
            yield f"funnel/dropped-{number}-{page}", part


def _shown(row: Row) -> Row:
    """A row as the page needs it."""
    told: Row = {
        key: row[key]
        for key in ("source", "question", "ngram", "similarity", "detail", "category", "score")
        if key in row
    }
    told["id"] = row["id"] if "id" in row else f"{row['source']}-{row['row']}"
    if "matched" in row:
        at = row["matched"]
        set_name = at.get("benchmark") or at.get("source")
        told["matched"] = {
            "set": set_name,
            "benchmark": "benchmark" in at,
            "id": at["id"],
            "question": row["matched_question"],
        }
    return told


def _contamination(run: Run) -> tuple[Row, dict[str, object]]:
    """The matrix of training sets and benchmarks, and pages of the pairs behind its cells."""
    matrix, pairs = run.json("results/metrics/contamination.json"), _pairs(run)
    cells: list[Row] = []
    files: dict[str, object] = {}
    for training, benchmarks in matrix.items():
        for benchmark, counts in benchmarks.items():
            found = pairs.get((training, benchmark), [])
            parts = drops.pages(found)
            files |= {f"funnel/near-{len(cells)}-{page}": part for page, part in enumerate(parts)}
            told = {"training": training, "benchmark": benchmark, "pairs": len(found), "pages": len(parts)}
            cells.append({**told, **counts})
    names = list(dict.fromkeys(one["benchmark"] for one in cells))
    return {"training": list(matrix), "benchmarks": names, "cells": cells}, files


def _pairs(run: Run) -> dict[tuple[str, str], list[Row]]:
    """Pairs of a training row and a benchmark's row, by the two sets; of each cell some, evenly spread."""
    by_cell: dict[tuple[str, str], list[Row]] = {}
    for row in run.rows("data/contamination.jsonl"):
        by_cell.setdefault((row["training"], row["benchmark"]), []).append(row)
    chosen = {cell: drops.spread(rows, drops.MOST) for cell, rows in by_cell.items()}
    sides = {cell: (_training_file(run, cell[0]), f"data/benchmarks/{cell[1]}.jsonl") for cell in chosen}
    wanted = (
        place
        for cell, rows in chosen.items()
        for row in rows
        for place in zip(sides[cell], (row["question_digest"], row["benchmark_digest"]), strict=True)
    )
    known = drops.texts(run, wanted)
    return {cell: [_pair(row, known, sides[cell]) for row in rows] for cell, rows in chosen.items()}


def _training_file(run: Run, name: str) -> str:
    """Where a training set lies."""
    places = (f"data/sources/{name}.jsonl", f"data/published/{name}.jsonl", f"data/benign/{name}.jsonl")
    return next((path for path in places if path in run.artifacts), f"data/{name}.jsonl")


def _pair(row: Row, known: dict[tuple[str, str], str], files: tuple[str, str]) -> Row:
    told: Row = {key: row[key] for key in ("ngram", "tfidf", "embedding", "exact") if key in row}
    return {
        "source": row["training"],
        "id": str(row["row"]),
        "question": known.get((files[0], row["question_digest"])),
        "matched": {
            "set": row["benchmark"],
            "benchmark": True,
            "id": row["benchmark_row"],
            "question": known.get((files[1], row["benchmark_digest"])),
        },
        **told,
    }
