"""Rows out of raw files: every layout that a prompt set comes in, with a clear error for what is not what the table says."""

import csv
import gzip
import io
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from star1.errors import InputError
from star1.records import Row
from star1.sources import Benchmark, Located, Prompts, Published, PublishedRow, Scalar, Source


def read_source(name: str, entry: Source, files: Sequence[Path]) -> tuple[list[Row], dict[str, int]]:
    """Read a prompt set.

    Returns:
        Rows `{"question", "source", "licence", "row"}`, where `row` is the 0-based number of the data row in the raw
        file (running on over several files), and counts: `read`, `filtered` (by keep), `empty`, `kept`.

    Raises:
        InputError: a file cannot be read, lacks a column, or nothing is left; or not `entry.rows` rows are left.
    """
    records, counts = _read_prompts(name, entry, files, ())
    rows = [
        {"question": question, "source": name, "licence": entry.licence, "row": number}
        for number, question, _ in records
    ]
    _expect_rows(name, entry, len(rows))
    return rows, counts


def read_benchmark(name: str, entry: Benchmark, files: Sequence[Path]) -> tuple[list[Row], dict[str, int]]:
    """Read a test set.

    Returns:
        Rows `{"id", "question", "benchmark", "purpose"}` with `category` and `answer` where the entry names their fields, and
        counts as in `read_source`. Without an id field a row is called `{benchmark}-{row number in the raw file}`.

    Raises:
        InputError: as in `read_source`; also an id that comes twice, or a row without id or answer.
    """
    records, counts = _read_prompts(name, entry, files, ("id", "answer", "category"))
    rows = [_benchmark_row(name, entry, *record) for record in records]
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise InputError(name, f"the id {row['id']!r} twice", "an id for each row", "name another id field")
        seen.add(row["id"])
    rows = _pick(rows, entry.shuffle_seed, entry.limit)
    _expect_rows(name, entry, len(rows))
    return rows, counts | {"kept": len(rows)}


def _benchmark_row(name: str, entry: Benchmark, number: int, question: str, record: Row) -> Row:
    row = {"id": f"{name}-{number}", "question": question, "benchmark": name, "purpose": entry.purpose}
    for key, field in (("id", entry.id), ("answer", entry.answer), ("category", entry.category)):
        if field is None:
            continue
        if record.get(field) is None or (value := str(record[field])) == "":
            raise InputError(f"{name} row {number}", f"nothing in {field!r}", f"a value for {key}")
        row[key] = value
    return row


def _pick(rows: list[Row], seed: int | None, limit: int | None) -> list[Row]:
    """The first `limit` rows, in the order that the `datasets` library gives them when shuffled with `seed`."""
    if seed is not None:
        import numpy as np

        rows = [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))]
    return rows[:limit]


def _expect_rows(name: str, entry: Located, count: int) -> None:
    if entry.rows is not None and count != entry.rows:
        raise InputError(name, f"{count} rows", f"{entry.rows}", "the file changed, or `rows` or `keep` is wrong")


def _read_prompts(
    name: str, entry: Prompts, files: Sequence[Path], roles: Sequence[str]
) -> tuple[list[tuple[int, str, Row]], dict[str, int]]:
    """Rows that pass `keep` and have a question, with their numbers; `roles` are attributes that name more fields."""
    field = entry.question or "text"
    fields = [field, *(key.removeprefix("not ") for key in entry.keep or ())]
    fields += [value for role in roles if (value := getattr(entry, role)) is not None]
    records = [record for file in files for record in _read_file(entry, file, fields)]
    kept, counts = [], {"read": len(records), "filtered": 0, "empty": 0, "kept": 0}
    for number, record in enumerate(records):
        if not _passes(record, entry.keep or {}):
            counts["filtered"] += 1
        elif (question := _question(name, number, record.get(field), entry.strip)) is None:
            counts["empty"] += 1
        else:
            kept.append((number, question, record))
    if not kept:
        raise InputError(name, f"no question in {len(records)} rows", "at least one", "look at question and keep")
    counts["kept"] = len(kept)
    return kept, counts


def _question(name: str, number: int, value: object, strip: Sequence[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{name} row {number}", f"a question of type {type(value).__name__}", "text")
    for marker in strip:
        value = value.replace(marker, "")
    return (value.strip() if strip else value) if value.strip() else None


def _passes(record: Row, keep: dict[str, Scalar | list[Scalar]]) -> bool:
    for key, wanted in keep.items():
        found = record.get(key.removeprefix("not "))
        equal = any(_equal(found, value) for value in (wanted if isinstance(wanted, list) else [wanted]))
        if equal == key.startswith("not "):
            return False
    return True


def _equal(found: object, wanted: Scalar) -> bool:
    if isinstance(found, str) and isinstance(wanted, bool | int | float):
        return found.strip().lower() == str(wanted).lower()
    # True == 1 in Python; as values of a field they differ.
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def _read_file(entry: Prompts, file: Path, fields: Sequence[str]) -> list[Row]:
    if entry.format == "parquet":
        return _read_parquet(file, fields)
    text = _decode(file)
    if entry.format in ("csv", "tsv"):
        records = _read_table(file, text, "\t" if entry.format == "tsv" else ",", entry.header)
    elif entry.format == "txt":
        lines = text.removesuffix("\n").split("\n")
        records = [{"text": line.removesuffix("\r")} for line in lines]
    elif entry.format == "jsonl":
        records = _read_lines(file, text)
    else:
        records = _read_document(file, text, fields[0])
    _check_fields(file, list(dict.fromkeys(name for record in records for name in record)), fields)
    return records


def _check_fields(file: Path, columns: Sequence[str], fields: Sequence[str]) -> None:
    for field in fields:
        if field not in columns:
            raise InputError(file, f"columns {', '.join(columns) or '(none)'}", f"a column {field!r}")


OPENERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".xz": lzma.decompress}


def _decode(file: Path) -> str:
    """The text of a file, unpacked if its name says so; a byte order mark is dropped."""
    content = file.read_bytes()
    try:
        content = OPENERS[file.suffix](content) if file.suffix in OPENERS else content
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise InputError(file, f"it cannot be unpacked ({error})", f"a whole {file.suffix} file") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{file}:{line}", f"bytes that are not UTF-8 ({error.reason})", "UTF-8 text") from None


def _read_table(file: Path, text: str, delimiter: str, header: bool) -> list[Row]:
    """Rows of a csv or tsv, every field as text. A longer row than the first is an error, a shorter one has nulls."""
    csv.field_size_limit(2**31 - 1)
    # Strict, since a quote left open would swallow the rows that follow.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[Row] = []
    columns: list[str] | None = None
    try:
        for values in reader:
            if not values:
                continue
            if columns is None:
                columns = values if header else [str(position) for position in range(len(values))]
                if header:
                    continue
            if len(values) > len(columns):
                found = f"{len(values)} fields"
                raise InputError(f"{file}:{reader.line_num}", found, f"{len(columns)}", "an unquoted delimiter?")
            records.append(dict(zip(columns, values, strict=False)))
    except csv.Error as error:
        raise InputError(f"{file}:{reader.line_num}", str(error), "well-quoted fields") from None
    if columns is not None and not records:
        raise InputError(file, "a header and no rows", "rows")
    return records


def _read_lines(file: Path, text: str) -> list[Row]:
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            record = _parse(f"{file}:{number}", line)
            if not isinstance(record, dict):
                raise InputError(f"{file}:{number}", f"a {type(record).__name__}", "a JSON object")
            records.append(record)
    return records


def _read_document(file: Path, text: str, field: str) -> list[Row]:
    """Rows of a JSON list of objects or strings, or of an object of columns (as long as the column `field`)."""
    document = _parse(file, text)
    if isinstance(document, dict):
        columns = {name: values for name, values in document.items() if isinstance(values, list)}
        _check_fields(file, list(columns), [field])
        numbers = range(len(columns[field]))
        return [{name: values[n] for name, values in columns.items() if n < len(values)} for n in numbers]
    if not isinstance(document, list):
        raise InputError(file, f"a JSON {type(document).__name__}", "a list of rows, or an object of columns")
    records = [{"text": item} if isinstance(item, str) else item for item in document]
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{file} row {number}", f"a {type(record).__name__}", "an object or a string")
    return records


def _parse(where: object, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(where, f"not JSON ({error})", "JSON") from None


def _read_parquet(file: Path, fields: Sequence[str]) -> list[Row]:
    import polars

    try:
        _check_fields(file, list(polars.read_parquet_schema(file)), fields)
        return polars.read_parquet(file, columns=list(dict.fromkeys(fields))).to_dicts()
    except polars.exceptions.PolarsError as error:
        raise InputError(file, f"not Parquet ({error})", "a Parquet file") from None


def read_published(name: str, entry: Published, files: Sequence[Path]) -> list[Row]:
    """Read a released data set; every row must have the fields of STAR-1.

    Raises:
        InputError: a file or a row is not as released; names the row.
    """
    rows: list[Row] = []
    for file in files:
        text = _decode(file)
        found = _read_lines(file, text) if entry.format == "jsonl" else _read_document(file, text, "question")
        for number, row in enumerate(found):
            try:
                PublishedRow.model_validate(row)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                raise InputError(f"{file} row {number}", f"{field}: {first['msg']}", "a row of STAR-1") from None
        rows += found
    if not rows:
        raise InputError(name, "no rows", "a released data set")
    _expect_rows(name, entry, len(rows))
    return rows
