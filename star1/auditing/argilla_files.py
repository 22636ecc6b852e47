"""Sheets for Argilla 2: a folder as `rg.Dataset.from_disk` reads it, and as `to_disk` of the labelled data set writes it.

Source: docs.argilla.io/latest/how_to_guides/import_export; the fields are those that its SDK 2.8 serialises.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from star1.auditing.questions import QUESTIONS, UNCLEAR
from star1.auditing.sheets import QUESTION, Given, Sheet
from star1.records import Row, write_json

SETTINGS, DATASET, RECORDS = ".argilla/settings.json", ".argilla/dataset.json", "records.json"


def write(folder: Path, name: str, sheet: Sheet, guidelines: str) -> None:
    """Write settings and records of a data set, to be read by `rg.Dataset.from_disk(folder)`."""
    overlap = {"strategy": "overlap", "min_submitted": 1}
    write_json(
        folder / DATASET,
        {"name": name, "guidelines": guidelines, "allow_extra_metadata": False, "distribution": overlap},
    )
    write_json(
        folder / SETTINGS,
        {
            "guidelines": guidelines,
            "questions": [_question(one) for one in sheet.asked],
            "fields": [_field(one) for one in (QUESTION, *sheet.shown)],
            "vectors": [],
            "metadata": [],
            "allow_extra_metadata": False,
            "distribution": overlap,
            "mapping": None,
        },
    )
    write_json(folder / RECORDS, [_record(row) for row in sheet.rows])


def _question(name: str) -> Row:
    question = QUESTIONS[name]
    options = [{"text": label.replace("_", " "), "value": label} for label in (*question.labels, UNCLEAR)]
    settings = {"type": "label_selection", "options": options, "visible_options": None}
    told = "; ".join(f"{label}: {meaning}" for label, meaning in question.labels.items())
    return {"name": name, "title": question.title, "description": told, "required": True, "settings": settings}


def _field(name: str) -> Row:
    return {
        "name": name,
        "title": name.capitalize(),
        "required": True,
        "settings": {"type": "text", "use_markdown": False},
    }


def _record(row: Mapping[str, str]) -> Row:
    fields = {name: text for name, text in row.items() if name != "item"}
    return {"id": row["item"], "fields": fields, "metadata": {}, "suggestions": {}, "responses": {}, "vectors": {}}


def is_export(content: Any) -> bool:
    """Whether a JSON document is the records of an Argilla data set."""
    return isinstance(content, list) and all(isinstance(one, dict) and "responses" in one for one in content)


def read(path: Path, content: Sequence[Mapping[str, Any]], asked: Sequence[str]) -> Iterator[Given]:
    """Read records; each person's responses to an item are one."""
    for number, record in enumerate(content):
        where, item = f"{path}, record {number}", str(record.get("id", ""))
        given: dict[str, dict[str, str]] = {}
        for name, responses in (record["responses"] or {}).items():
            for one in responses or ():
                if name in asked:
                    given.setdefault(str(one.get("user_id")), {})[name] = str(one.get("value") or "")
        for who, labels in given.items():
            yield Given(where, item, who, labels, (record.get("fields") or {}).get(QUESTION))
