"""Layouts of raw files: one record after the other out of csv, tsv, txt, jsonl, json and Parquet, plain or packed.

A file is read as a stream where its layout allows it. Bytes that are not UTF-8 stay in the text as lone surrogates, for the
reader to find in the fields that it needs; a byte order mark is dropped, and UTF-16 and UTF-32 are decoded by theirs.
"""

import codecs
import csv
import difflib
import gzip
import io
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from star1.errors import InputError
from star1.records import Row
from star1.sources import Prompts

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
# The longer marks first: that of UTF-32 begins like that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html)[\s>]", re.I | re.S)
POINTER = b"version https://git-lfs.github.com/spec/"
HEAD_BYTES = 1024
INTEGER = re.compile(r"-?\d+")
BATCH_ROWS = 10_000
# Behind the last line of a csv: a record of its own, unless a quote is still open there.
END = "\0end\0"


def records(entry: Prompts, file: Path, fields: Sequence[str]) -> Iterator[Row | None]:
    """Records of a file of prompts, each with the columns of `fields` only; None for a csv row of too many fields.

    Raises:
        InputError: the file is not of its layout, cut off, or lacks a column; names the line.
    """
    if entry.format == "parquet":
        return _parquet(file, fields)
    if entry.format in ("csv", "tsv"):
        return _table(file, "\t" if entry.format == "tsv" else ",", entry.header, fields)
    if entry.format == "txt":
        return _pick(
            file, ({"text": line.removesuffix("\n").removesuffix("\r")} for line in _lines(file, "\n")), fields
        )
    return _pick(file, objects(file, entry.format, fields[0]), fields)


def objects(file: Path, layout: str, field: str) -> Iterator[Row]:
    """Whole rows of a jsonl or json file; `field` is the one that must be there where a JSON object of columns is read.

    Raises:
        InputError: the file is not of its layout or cut off; names the line.
    """
    return _json_lines(file) if layout == "jsonl" else _document(file, field)


def value(row: Row, field: str, absent: Any = None) -> Any:
    """What stands in a field: under its name, or where the path `column.key.place` leads; `absent` if that is nowhere."""
    if field in row or "." not in field:
        return row.get(field, absent)
    found: Any = row
    for part in field.split("."):
        if isinstance(found, dict):
            found = found.get(part, absent)
        elif isinstance(found, list) and INTEGER.fullmatch(part) and -len(found) <= int(part) < len(found):
            found = found[int(part)]
        else:
            return absent
    return found


def look_at(file: Path, where: object = None) -> None:
    """Refuse what a server sends in place of data: a web page (of a login, an error), or a pointer to a file kept elsewhere.

    Raises:
        InputError: it is one of these; tells `where` it came from, or the file.
    """
    head = _head(file)
    if PAGE.match(head):
        hint = "log in there, accept the terms, or correct the address; then fetch again"
        raise InputError(where or file, "an HTML page", "data", hint)
    if head.startswith(POINTER):
        hint = "fetch the file itself, for example from the hub"
        raise InputError(where or file, "a Git LFS pointer", "the data it points to", hint)


def _head(file: Path) -> bytes:
    """The first bytes, unpacked if they can be."""
    try:
        with _open(file) as raw:
            return raw.read(HEAD_BYTES)
    except InputError:
        with file.open("rb") as packed:
            return packed.read(HEAD_BYTES)


class _Unpacked(io.RawIOBase):
    """A packed file as bytes, with a clear error where it is cut off or damaged."""

    def __init__(self, file: Path) -> None:
        self.file, self.stream = file, OPENERS[file.suffix](file, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self.stream.readinto(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            hint = "fetch it again" if isinstance(error, EOFError) else "is it what its name says?"
            expected = f"a whole {self.file.suffix} file"
            raise InputError(self.file, f"it cannot be unpacked ({error})", expected, hint) from None

    def close(self) -> None:
        self.stream.close()
        super().close()


def _open(file: Path) -> IO[bytes]:
    return io.BufferedReader(_Unpacked(file), 1 << 16) if file.suffix in OPENERS else file.open("rb")


def _encoding(file: Path) -> tuple[str, str]:
    """Encoding and how to treat what is not of it."""
    head = _head(file)
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding, "surrogatepass"
    return "utf-8-sig", "surrogateescape"


def _lines(file: Path, newline: str) -> Iterator[str]:
    """Lines with their ends: of any kind where `newline` is empty, else of that kind only."""
    look_at(file)
    encoding, errors = _encoding(file)
    with _open(file) as raw, io.TextIOWrapper(raw, encoding, errors, newline) as text:
        try:
            yield from text
        except UnicodeDecodeError as error:
            raise InputError(
                file, f"bytes that are not {encoding} ({error.reason})", f"whole {encoding} text"
            ) from None


def _check_columns(file: Path, columns: Iterable[str], fields: Sequence[str]) -> list[str]:
    """The columns that the fields stand in, each once."""
    known = list(columns)
    needed = [field if field in known else field.partition(".")[0] for field in fields]
    for column, field in zip(needed, fields, strict=True):
        if column not in known:
            found = f"columns {', '.join(known) or '(none)'}"
            raise InputError(file, found, f"a column {field!r}", _meant(field, known))
    return list(dict.fromkeys(needed))


def _meant(field: str, known: Sequence[str]) -> str:
    """A hint at the column that was meant, or at the format; empty where neither is to be seen."""
    if not known:
        return "is it empty?"
    if len(known) == 1 and field.casefold() in known[0].casefold():
        return "all columns stand in one; is `format` right?"
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(field.casefold(), list(folded), 1)
    return f"did you mean {folded[near[0]]!r}?" if near else ""


def _pick(file: Path, rows: Iterable[Row], fields: Sequence[str]) -> Iterator[Row]:
    """Only what the fields need of each row. That a column is nowhere is known, and told, at the end of the file."""
    wanted = dict.fromkeys(name for field in fields for name in (field, field.partition(".")[0]))
    columns: dict[str, Any] = {}
    for row in rows:
        columns.update(row)
        yield {name: row[name] for name in wanted if name in row}
    _check_columns(file, columns, fields)


def _table(file: Path, delimiter: str, header: bool, fields: Sequence[str]) -> Iterator[Row | None]:
    """Rows of a csv or tsv, every field as text. A shorter row than the first lacks fields; empty ones too many are nothing."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(itertools.chain(_lines(file, ""), [END]), delimiter=delimiter)
    places: dict[str, int] | None = None
    width = began = rows = 0
    for values in _csv_rows(file, reader):
        if values == [END]:
            break
        began = reader.line_num
        if not values:
            continue
        if places is None:
            columns = {name: place for place, name in enumerate(values if header else map(str, range(len(values))))}
            width, places = len(values), {name: columns[name] for name in _check_columns(file, columns, fields)}
            if header:
                continue
        rows += 1
        if any(values[width:]):
            yield None
        else:
            yield {name: values[place] for name, place in places.items() if place < len(values)}
    else:
        # It would have swallowed all rows that follow.
        raise InputError(f"{file}:{began + 1}", "a quote that is never closed", "well-quoted fields")
    if places is None:
        _check_columns(file, (), fields)
    if not rows:
        raise InputError(file, "a header and no rows", "rows")


def _csv_rows(file: Path, reader: Any) -> Iterator[list[str]]:
    """The reader's rows; a row that swallowed the end is not among them."""
    try:
        for values in reader:
            if values == [END] or not any(END in text for text in values):
                yield values
    except csv.Error as error:
        raise InputError(f"{file}:{reader.line_num}", str(error), "well-quoted fields") from None


def _json_lines(file: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(file, "\n"), start=1):
        if line.strip():
            record = _parse(f"{file}:{number}", line)
            if not isinstance(record, dict):
                raise InputError(f"{file}:{number}", f"a {type(record).__name__}", "a JSON object")
            yield record


def _document(file: Path, field: str) -> Iterator[Row]:
    """Rows of a JSON list of objects or strings, or of an object of columns (as long as the column `field`)."""
    document = _load(file)
    if document is None:
        yield from _json_lines(file)
    elif isinstance(document, dict):
        columns = {name: values for name, values in document.items() if isinstance(values, list)}
        _check_columns(file, columns, [field])
        for n in range(len(columns[field])):
            yield {name: values[n] for name, values in columns.items() if n < len(values)}
    elif isinstance(document, list):
        document.reverse()
        while document:  # taken off one by one, so that memory is given back on the way
            item = document.pop()
            yield item if isinstance(item, dict) else {"text" if isinstance(item, str) else field: item}
    else:
        raise InputError(file, f"a JSON {type(document).__name__}", "a list of rows, or an object of columns")


def _load(file: Path) -> Any:
    """The one JSON document of a file; None where the file holds an object on each line."""
    look_at(file)
    encoding, _ = _encoding(file)
    with _open(file) as raw:
        content = raw.read()
    content = content.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8-sig" else _recode(file, content, encoding)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    if _is_object(content.lstrip().partition(b"\n")[0]):
        return None
    return _parse(file, content.decode("utf-8", "surrogateescape"))


def _recode(file: Path, content: bytes, encoding: str) -> bytes:
    try:
        return content.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise InputError(file, f"bytes that are not {encoding} ({error.reason})", f"whole {encoding} text") from None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _parse(where: object, text: str) -> Any:
    """JSON; the strict parser is fast, the standard library's knows lone surrogates and NaN."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as strict:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            hint = "is the file cut off?" if text.lstrip()[:1] in ("{", "[") else "is `format` right?"
            raise InputError(where, f"not JSON ({strict})", "JSON", hint) from None


def _parquet(file: Path, fields: Sequence[str]) -> Iterator[Row]:
    import polars

    look_at(file)
    try:
        columns = _check_columns(file, polars.read_parquet_schema(file), fields)
        frame = polars.scan_parquet(file).select(columns)
        for batch in frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            yield from batch.iter_rows(named=True)
    except polars.exceptions.PolarsError as error:
        raise InputError(file, f"not Parquet ({str(error).splitlines()[0]})", "a whole Parquet file") from None
