"""Rows out of raw files: what is malformed in them is dropped and counted by rule, or told before anything is written.

The rules stand as a table in docs/data.md.
"""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from pydantic import ValidationError

from star1 import layouts
from star1.errors import InputError
from star1.layouts import value
from star1.records import Row
from star1.sources import Benchmark, Located, Prompts, Published, PublishedRow, Scalar, Source, Top

# Why a row is dropped, other than by `keep`: the question is empty; the row has no such field; it is no text; undecodable bytes
# where text is needed; over `longest` characters; a csv row with more fields than columns.
REASONS = ("empty", "absent", "not_text", "not_utf8", "too_long", "long_row")
ABSENT = object()

# What became of the rows of a set: read = filtered + the number of each reason + not_chosen (by `top` or `limit`) + kept;
# duplicates, rows whose question an earlier good row has to the letter (deduplication decides about them); dropped, row numbers
# by reason.
Counts = dict[str, Any]


def read_source(name: str, entry: Source, files: Sequence[Path]) -> tuple[list[Row], Counts]:
    """Read a prompt set.

    Returns:
        Rows `{"question", "source", "licence", "row"}`, where `row` is the 0-based number of the data row in the raw
        file (running on over several files), and what became of all rows.

    Raises:
        InputError: a file cannot be read, lacks a column, or nothing is left; or not `entry.rows` rows are left.
    """
    counts = _no_counts()
    rows = [
        {"question": question, "source": name, "licence": entry.licence, "row": number}
        for number, question, _ in _kept(name, entry, files, (), counts)
    ]
    _expect_rows(name, entry, len(rows), counts)
    return rows, counts


def read_benchmark(name: str, entry: Benchmark, files: Sequence[Path]) -> tuple[list[Row], Counts]:
    """Read a test set.

    Returns:
        Rows `{"id", "question", "benchmark", "purpose"}` with `category` and `answer` where the entry names their fields, for
        reasoning `grader` and what that needs (`choices`, with a letter as `answer`; `tests` and `entry_point`); and counts as
        in `read_source`. Without an id field a row is called `{benchmark}-{row number in the raw file}`.

    Raises:
        InputError: as in `read_source`; also an id that comes twice, a row without a field that is needed, or an answer that is
            none of the choices.
    """
    counts = _no_counts()
    kept = list(_kept(name, entry, files, entry.fields, counts))
    rows = [_benchmark_row(name, entry, *one) for one in kept]
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise InputError(name, f"the id {row['id']!r} twice", "an id for each row", "name another id field")
        seen.add(row["id"])
    if entry.top is not None:
        rows = _best(name, entry.top, rows, kept)
    rows = _pick(rows, entry.shuffle_seed, entry.limit)
    _expect_rows(name, entry, len(rows), counts)
    counts |= {"kept": len(rows), "not_chosen": len(kept) - len(rows)}
    return rows, counts


def summary(name: str, counts: Counts) -> str:
    """One line about a set that was read."""
    parts = [f"{counts['filtered']} filtered out", f"{counts['empty']} empty"]
    others = (*REASONS[1:], "not_chosen")
    parts += [f"{counts[reason]} {reason.replace('_', ' ')}" for reason in others if counts[reason]]
    parts += [f"{counts['duplicates']} of the kept are duplicates"] if counts["duplicates"] else []
    return f"fetch: {name}: {counts['read']} rows read, {counts['kept']} kept ({', '.join(parts)})"


def _no_counts() -> Counts:
    return dict.fromkeys(("read", "filtered", *REASONS, "not_chosen", "duplicates", "kept"), 0) | {"dropped": {}}


def _benchmark_row(name: str, entry: Benchmark, number: int, question: str, record: Row) -> Row:
    row: Row = {"id": f"{name}-{number}", "question": question, "benchmark": name, "purpose": entry.purpose}
    for key in ("id", "answer", "category", "tests", "entry_point"):
        field = getattr(entry, key)
        if field is None:
            continue
        if (found := value(record, field)) is None or (text := str(found)) == "":
            raise InputError(f"{name} row {number}", f"nothing in {field!r}", f"a value for {key}")
        row[key] = text
    if entry.graded_by is not None:
        row["grader"] = entry.graded_by
    if entry.choices is not None:
        row |= _choices(f"{name} row {number}", entry, row, record)
    return row


def _choices(where: str, entry: Benchmark, row: Row, record: Row) -> Row:
    """The choices in the order in which they are shown, and the letter of the right one."""
    fields = entry.choices if isinstance(entry.choices, list) else None
    found = [value(record, field) for field in fields] if fields else value(record, str(entry.choices))
    if not isinstance(found, list) or not 2 <= len(found) <= len(ascii_uppercase):
        raise InputError(where, f"{found!r} in {entry.choices!r}"[:200], f"2 to {len(ascii_uppercase)} choices")
    texts = ["" if one is None else str(one).strip() for one in found]
    if not all(texts):
        raise InputError(where, "an empty choice", f"a text for each in {entry.choices!r}")
    right = fields.index(str(entry.answer)) if fields else ascii_uppercase[: len(texts)].find(row["answer"])
    if right < 0 or (len(row["answer"]) != 1 and not fields):
        raise InputError(
            where, f"answer {row['answer'][:60]!r}", f"a letter from A to {ascii_uppercase[len(texts) - 1]}"
        )
    order = list(range(len(texts)))
    if entry.choice_seed is not None:
        # By the row's own name: rows that come or go change the order in no other row.
        random.Random(f"{entry.choice_seed} {row['id']}").shuffle(order)
    return {"answer": ascii_uppercase[order.index(right)], "choices": [texts[place] for place in order]}


def _best(name: str, top: Top, rows: list[Row], kept: list[tuple[int, str, Row]]) -> list[Row]:
    """The rows with the highest scores of each category."""
    groups: dict[str, list[tuple[float, Row]]] = {}
    for row, (number, _, record) in zip(rows, kept, strict=True):
        found = value(record, top.scores)
        scores = (
            {key: one for key, one in found.items() if isinstance(one, int | float)} if isinstance(found, dict) else {}
        )
        if not scores:
            raise InputError(f"{name} row {number}", f"no scores in {top.scores!r}", "an object of numbers by category")
        category = max(scores, key=lambda key: scores[key])
        groups.setdefault(category, []).append((scores[category], row | {"category": category}))
    for group in groups.values():
        group.sort(key=lambda one: -one[0])
    return [row for category in sorted(groups) for _, row in groups[category][: top.each]]


def _pick(rows: list[Row], seed: int | None, limit: int | None) -> list[Row]:
    """The first `limit` rows, in the order that the `datasets` library gives them when shuffled with `seed`."""
    if seed is not None:
        import numpy as np

        rows = [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))]
    return rows[:limit]


def _expect_rows(name: str, entry: Located, count: int, counts: Counts | None = None) -> None:
    if entry.rows is not None and count != entry.rows:
        lost = ", ".join(f"{len(rows)} {reason}" for reason, rows in counts["dropped"].items()) if counts else ""
        found = f"{count} rows" + (f" (dropped: {lost})" if lost else "")
        raise InputError(name, found, f"{entry.rows}", "the file changed, or `rows` or `keep` is wrong")


def _kept(
    name: str, entry: Prompts, files: Sequence[Path], roles: Sequence[str], counts: Counts
) -> Iterator[tuple[int, str, Row]]:
    """Rows that pass `keep` and have a question, with their numbers; `roles` are further fields that are needed of them."""
    fields = [entry.question or "text", *(key.removeprefix("not ") for key in entry.keep or ()), *roles]
    seen: set[Any] = set()
    first_kind = ""
    for number, record in enumerate(row for file in files for row in layouts.records(entry, file, fields)):
        counts["read"] += 1
        question: Any = None if record is None else _question(value(record, fields[0], ABSENT), entry.strip)
        reason = "long_row" if record is None else _reason(entry, record, question, roles)
        if record is not None and not reason:
            counts["kept"] += 1
            counts["duplicates"] += question in seen
            seen.add(question)
            yield number, question, record if roles else {}
            continue
        counts[reason] += 1
        if reason != "filtered":
            counts["dropped"].setdefault(reason, []).append(number)
        if reason == "not_text":
            first_kind = first_kind or type(question).__name__
    if not counts["kept"]:
        raise _nothing_left(name, counts, first_kind)


def _question(found: Any, strip: Sequence[str]) -> Any:
    """The question without its markers; what is no text stays what it is, but a NaN is nothing."""
    if not isinstance(found, str):
        return None if isinstance(found, float) and math.isnan(found) else found
    for marker in strip:
        found = found.replace(marker, "")
    return found.strip() if strip else found


def _reason(entry: Prompts, record: Row, question: Any, roles: Sequence[str]) -> str:
    """Why a row goes: by the filter, by its question, or by what else is needed of it; empty if it stays."""
    keep = entry.keep or {}
    if not all(_is_utf8(value(record, key.removeprefix("not "))) for key in keep):
        return "not_utf8"
    if not _passes(record, keep):
        return "filtered"
    if question is ABSENT:
        return "absent"
    if question is None:
        return "empty"
    if not isinstance(question, str):
        return "not_text"
    if not question.strip():
        return "empty"
    if not (_is_utf8(question) and all(_is_utf8(value(record, role)) for role in roles)):
        return "not_utf8"
    return "too_long" if len(question) > entry.longest else ""


def _is_utf8(found: Any) -> bool:
    """Whether there is nothing in a text that UTF-8 cannot say: no undecodable byte, no lone surrogate."""
    if not isinstance(found, str) or found.isascii():
        return True
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nothing_left(name: str, counts: Counts, kind: str) -> InputError:
    dropped = counts["dropped"]
    if kind and list(dropped) == ["not_text"]:
        where = f"{name} row {dropped['not_text'][0]}"
        return InputError(where, f"a question of type {kind}, as in all rows", "text", "name another question field")
    lost = {"filtered": counts["filtered"]} | {reason: len(rows) for reason, rows in dropped.items()}
    why = ", ".join(f"{number} {reason}" for reason, number in lost.items() if number)
    found = f"no question in {counts['read']} rows" + (f" ({why})" if why else "")
    return InputError(name, found, "at least one", "look at question and keep")


def _passes(record: Row, keep: dict[str, Scalar | list[Scalar]]) -> bool:
    for key, wanted in keep.items():
        found = value(record, key.removeprefix("not "))
        equal = any(_equal(found, one) for one in (wanted if isinstance(wanted, list) else [wanted]))
        if equal == key.startswith("not "):
            return False
    return True


def _equal(found: object, wanted: Scalar) -> bool:
    if isinstance(found, str) and isinstance(wanted, bool | int | float):
        return found.strip().lower() == str(wanted).lower()
    # True == 1 in Python; as values of a field they differ.
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def read_published(name: str, entry: Published, files: Sequence[Path]) -> list[Row]:
    """Read a released data set; every row must have the fields of STAR-1.

    Raises:
        InputError: a file or a row is not as released; names the row.
    """
    rows: list[Row] = []
    for file in files:
        for number, row in enumerate(layouts.objects(file, entry.format, "question")):
            try:
                PublishedRow.model_validate(row)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                raise InputError(f"{file} row {number}", f"{field}: {first['msg']}", "a row of STAR-1") from None
            rows.append(row)
    if not rows:
        raise InputError(name, "no rows", "a released data set")
    _expect_rows(name, entry, len(rows))
    return rows
