"""The data sets that the authors released held against what is published about them, and the selection run on them.

No model is called.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from star1 import facts, responses
from star1.curation import balance
from star1.facts import BENIGN, STAR_1, STAR_41K
from star1.records import Row, text_digest
from star1.released import Released, recorded_md5

OK, DIFFERS, UNPUBLISHED, ELSEWHERE = "ok", "DIFFERS", "no published figure", "cannot be checked from here"
Overlaps = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Check:
    """A published figure beside the recomputed one.

    Attributes:
        of: data set.
        what: the figure.
        published: its value; None where none is published.
        found: what was recomputed; None where that needs what is not here.
        verdict: `OK`, `DIFFERS`, `UNPUBLISHED`, or `ELSEWHERE` and what is needed.
    """

    of: str
    what: str
    published: Any
    found: Any
    verdict: str


# --- the figures ------------------------------------------------------------------------------------------------------


def audit(sets: Mapping[str, Released], root: Path = Path()) -> tuple[list[Check], dict[str, dict[str, list[str]]]]:
    """Check every published figure.

    Args:
        sets: the data sets that are here, by name.
        root: the project's folder.

    Returns:
        The checks; and for each selection that was compared with STAR-1 the ids that `both` have, or one alone.
    """
    checks: list[Check] = []
    for name in facts.NAMES:
        md5 = recorded_md5(name, sets[name].path if name in sets else None, root)
        for what, value, measure in _figures(name, md5):
            checks.append(_check(name, what, value, measure, (name,), sets))
    overlaps: dict[str, dict[str, list[str]]] = {}
    if STAR_1 in sets and STAR_41K in sets:
        overlaps = {order: overlap(sets[STAR_41K], sets[STAR_1], order) for order in ORDERS}
    for what, value, measure in _across(overlaps):
        checks.append(_check(STAR_41K, what, value, measure, (STAR_1, STAR_41K), sets))
    ours = _check(BENIGN, "ids that are ids of STAR-1", None, _shared_ids, (STAR_1, BENIGN), sets)
    never = [Check("-", what, value, None, f"{ELSEWHERE}: needs {how}") for what, value, how in facts.NOT_RELEASED]
    return [*checks, ours, *never], overlaps


Measure = Callable[..., Any]
Figure = tuple[str, Any, Measure]


def _check(
    of: str, what: str, value: Any, measure: Measure, needs: Sequence[str], sets: Mapping[str, Released]
) -> Check:
    if missing := [name for name in needs if name not in sets]:
        return Check(of, what, value, None, f"{ELSEWHERE}: needs {' and '.join(missing)}")
    found = measure(*(sets[name] for name in needs))
    return Check(of, what, value, found, UNPUBLISHED if value is None else OK if found == value else DIFFERS)


def _figures(name: str, md5: str | None) -> Iterator[Figure]:
    """The figures that one data set alone tells."""
    rows, top = facts.ROWS[name], facts.BENIGN_RUBRIC.maximum if name == BENIGN else facts.RUBRIC.maximum
    yield "MD5 of the file", md5, lambda one: hashlib.md5(one.path.read_bytes(), usedforsecurity=False).hexdigest()
    yield "rows", rows, lambda one: len(one.rows)
    yield "rows of the schema", rows, lambda one: len(one.sound)
    yield "distinct ids", rows, lambda one: len({str(row.get("id")) for row in one.rows})
    full = None if name == STAR_41K else rows
    yield f"rows with {top} on every criterion", full, lambda one: len(one.full)
    if name != BENIGN:
        yield "sources", len(facts.SOURCES), lambda one: len(one.sources)
        yield "names of categories that are not the eight", 0, lambda one: len(set(one.labels) - {*facts.LABELS})
    if name == STAR_1:
        yield from _figures_of_star_1()


def _figures_of_star_1() -> Iterator[Figure]:
    for source, count in facts.SOURCES.items():
        yield f"rows of {source}", count, lambda one, source=source: one.sources[source]
    yield "fewest rows of a source", min(facts.SOURCES.values()), lambda one: min(one.sources.values())
    yield "most rows of a source", max(facts.SOURCES.values()), lambda one: max(one.sources.values())
    for label, count in facts.LABELS.items():
        yield f"labels {label}", count, lambda one, label=label: one.labels[label]
    for width, count in facts.LABELS_PER_ROW.items():
        yield f"rows with {width} label{'s' * (width > 1)}", count, lambda one, width=width: one.widths[width]
    for (part, measure), value in facts.WORDS.items():
        told = {"median": "median", "p90": "ninetieth percentile", "max": "longest"}[measure]
        yield f"words of the {part}, {told}", value, lambda one, part=part, measure=measure: one.words(part, measure)
    for size, digest in facts.KEPT.items():
        yield f"ids that curate keeps of {size}, digest", digest, lambda one, size=size: _kept_digest(one, size)
    yield 'answers with "polic" in them', facts.POLIC_ANSWERS, lambda one: _answers(one, _has_polic)
    yield "answers with the word policy or policies", None, lambda one: _answers(one, _has_policy)


def _kept_digest(one: Released, size: int) -> str:
    return text_digest(" ".join(row["id"] for row in balance(one.full, size)[0]))


def _answers(one: Released, holds: Callable[[str], bool]) -> int:
    return sum(holds(text) for text in one.texts["answer"])


def _has_polic(text: str) -> bool:
    return "polic" in text.lower()


def _has_policy(text: str) -> bool:
    return not {"policy", "policies"}.isdisjoint(responses.bare_words(text))


# --- the selection run on the released rows ---------------------------------------------------------------------------

# Told on the screen of ids and of faults; `--json` has all ids.
SHOWN = 10
ORDERS = ("in the file's order", "in the order of ids")


def overlap(pool: Released, chosen: Released, order: str) -> dict[str, list[str]]:
    """The ids that the selection run on `pool` shares with `chosen`, and those that one of them alone has."""
    rows = pool.full if order == ORDERS[0] else sorted(pool.full, key=_by_id)
    ours = {row["id"] for row in balance(rows, len(chosen.rows))[0]} if rows else set()
    theirs = {str(row.get("id")) for row in chosen.rows}
    parts = {"both": ours & theirs, "published_alone": theirs - ours, "ours_alone": ours - theirs}
    return {name: sorted(ids, key=lambda one: _by_id({"id": one})) for name, ids in parts.items()}


def _by_id(row: Row) -> tuple[int, str]:
    name = str(row["id"])
    return (int(name), "") if name.isdecimal() else (1 << 62, name)


def _across(overlaps: Overlaps) -> Iterator[Figure]:
    """The figures that STAR-1 and STAR-41K tell together."""
    count = facts.ROWS[STAR_1]
    yield "rows of STAR-1 in it, by question", count, _shared_questions
    yield "rows of STAR-1 in it, by id and question", count, lambda small, large: len(_pairs(small) & _pairs(large))
    yield "rows of STAR-1 with full marks in it, by id", count, _shared_full
    for order in ORDERS:
        # Ties go to the first row; that the released file has the authors' order is as good a guess as there is.
        published = count if order == ORDERS[0] else None
        yield (
            f"ids of STAR-1 that curate selects {order}",
            published,
            lambda *_, order=order: len(overlaps[order]["both"]),
        )


def _shared_questions(small: Released, large: Released) -> int:
    return len(_values(small, "question") & _values(large, "question"))


def _shared_full(small: Released, large: Released) -> int:
    return len(_values(small, "id") & {row["id"] for row in large.full})


def _values(one: Released, field: str) -> set[str]:
    return {str(row.get(field)) for row in one.rows}


def _pairs(one: Released) -> set[tuple[str, str]]:
    return {(str(row.get("id")), str(row.get("question"))) for row in one.rows}


def _shared_ids(small: Released, benign: Released) -> int:
    return len(_values(small, "id") & _values(benign, "id"))


# --- the report -------------------------------------------------------------------------------------------------------


def report(checks: Sequence[Check], overlaps: Overlaps, sets: Mapping[str, Released]) -> list[str]:
    """The checks as a table, what is wrong with rows, and how to get what is missing."""
    lines = _table(checks)
    for one in sets.values():
        counts = Counter(found.partition(";")[0] for found in one.flaws if found)
        lines += [f"{one.name}: {count} rows: {what}" for what, count in counts.most_common(SHOWN)]
    for order, ids in overlaps.items():
        lost, new = ids["published_alone"], ids["ours_alone"]
        if lost or new:
            lines.append(f"{order}: published and not selected: {_ids(lost)}; selected and not published: {_ids(new)}")
    if missing := [name for name in facts.NAMES if name not in sets]:
        lines.append(f"Not here: {', '.join(missing)}. `star1 import-published {' '.join(missing)}` fetches them.")
    verdicts = Counter(one.verdict.partition(":")[0] for one in checks).most_common()
    return [*lines, f"{len(checks)} figures: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts)]


def _table(checks: Sequence[Check]) -> list[str]:
    """The checks as a Markdown table."""
    cells = [[one.of, one.what, _shown(one.published), _shown(one.found), one.verdict] for one in checks]
    table = [["data set", "figure", "published", "recomputed", "verdict"], *cells]
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    table.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |" for line in table]


def _ids(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:SHOWN])
    return f"{len(ids)}" + (f" ({shown}{', ...' if len(ids) > SHOWN else ''})" if ids else "")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int | float) and float(value).is_integer() else str(value)


def as_json(checks: Sequence[Check], overlaps: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result, with every id of the overlaps."""
    return {"checks": [asdict(one) for one in checks], "overlaps": dict(overlaps)}
