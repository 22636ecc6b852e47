"""Sheets for spreadsheets: CSV that opens in Excel and LibreOffice, and is read back as they save it.

A cell that a spreadsheet would run as a formula gets an apostrophe in front of it, which is taken away when it is read.
"""

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from star1.errors import InputError
from star1.records import write_text

# With the wide forms that spreadsheets of East Asian locales take for the same.
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
BOM = "\ufeff"
DELIMITERS = ",;\t"
# What a sheet is called when it is given out: the name of no person.
DEFAULT = "sheet"
ITEM, QUESTION, ANNOTATOR = "item", "question", "annotator"


@dataclass(frozen=True)
class Sheet:
    """What people get to see of one purpose.

    Attributes:
        asked: names of the questions.
        rows: {item, question, answer, and for reasoning reference}, in the order of the sheet.
    """

    purpose: str
    asked: Sequence[str]
    rows: Sequence[Mapping[str, str]]

    @property
    def shown(self) -> list[str]:
        """The fields that are shown beside the question."""
        return [name for name in self.rows[0] if name not in (ITEM, QUESTION)] if self.rows else ["answer"]


@dataclass(frozen=True)
class Given:
    """What one person said about one item.

    Attributes:
        where: file and line, for messages.
        labels: by question, as written; an empty one was not given.
        question: the text beside it, where there is one.
    """

    where: str
    item: str
    annotator: str
    labels: Mapping[str, str]
    question: str | None = field(default=None)


def harmless(text: str) -> str:
    """A cell that no spreadsheet runs; `restored` gives the text again."""
    return f"'{text}" if text.startswith("'") or text.lstrip(" ").startswith(FORMULA) else text


def restored(cell: str) -> str:
    """The text of a cell."""
    return cell.removeprefix("'")


def write_csv(path: Path, sheet: Sheet) -> None:
    """Write a sheet, with the mark by which Excel knows UTF-8."""
    columns = [ITEM, QUESTION, *sheet.shown, *sheet.asked, ANNOTATOR]
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(columns)
    for row in sheet.rows:
        writer.writerow([harmless(row.get(name, "")) for name in columns])
    write_text(path, BOM + text.getvalue())


def read_csv(path: Path, asked: Sequence[str]) -> Iterator[Given]:
    """Read a filled sheet. Who filled it stands in its column `annotator`, or else in the file's name.

    Args:
        path: the file; in UTF-8 or UTF-16, with commas, semicolons or tabs.
        asked: names of all questions that there are.

    Raises:
        InputError: another encoding, or columns that are missing.
    """
    text = _decoded(path)
    head = text.split("\n", 1)[0]
    if head.lower().startswith("sep="):  # Excel's own line about what is between cells
        text = text.split("\n", 1)[1]
        head = text.split("\n", 1)[0]
    csv.field_size_limit(sys.maxsize)  # an answer of 32,768 tokens is longer than Python's limit of a cell
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=head.count), strict=True)
    try:
        columns = [cell.strip().lower() for cell in next(rows, [])]
        questions = [name for name in asked if name in columns]
        if ITEM not in columns or not questions:
            raise InputError(path, f"columns {columns}"[:200], f"{ITEM} and one of {', '.join(asked)}")
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield _given(f"{path}:{rows.line_num}", path, dict(zip(columns, cells, strict=False)), questions)
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}", str(error), "CSV with quotes around texts") from None


def _given(where: str, path: Path, row: Mapping[str, str], questions: Sequence[str]) -> Given:
    labels = {name: restored(row.get(name, "")) for name in questions}
    annotator = restored(row.get(ANNOTATOR, "")).strip() or path.stem
    if annotator.lower() == DEFAULT and any(label.strip() for label in labels.values()):
        # Two people who leave the name as it was would be one, and the second's labels take the place of the first's.
        raise InputError(where, "labels of nobody", f"who filled it, in the column {ANNOTATOR} or as the file's name")
    text = row.get(QUESTION)
    return Given(where, restored(row.get(ITEM, "")).strip(), annotator, labels, text and restored(text))


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(path, "no such file", "a filled sheet") from None
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(coding)
    except UnicodeDecodeError:
        hint = "save it as 'CSV UTF-8'."
        raise InputError(path, "bytes that are not UTF-8", "CSV in UTF-8 or UTF-16", hint) from None
