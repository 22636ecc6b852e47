"""What people labelled: sheets read in any of their forms, held against the key, and kept."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from star1.auditing import argilla_files, label_studio
from star1.auditing.design import Sample, question_digest
from star1.auditing.questions import QUESTIONS, UNCLEAR, normal
from star1.auditing.sheets import Given, read_csv
from star1.errors import InputError
from star1.records import Row, read_rows, text_digest, write_rows

# So many of each kind of fault are named.
NAMED = 5
FILE = "labels.jsonl"
ASKED = tuple(QUESTIONS)

# Labels by item, person and question.
Labels = dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True)
class Checked:
    """Sheets that are as they should be.

    Attributes:
        labels: what each person said.
        missing: items of the same sheets on which nobody said everything; none unless they may be missing.
    """

    labels: Labels
    missing: Sequence[str]


def read(path: Path) -> list[Given]:
    """Read a sheet: CSV, an export of Label Studio, or a data set or its records from Argilla.

    Raises:
        InputError: none of these.
    """
    if path.is_dir():
        path /= argilla_files.RECORDS
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return list(read_csv(path, ASKED))
    expected = "a filled sheet as CSV, an export of Label Studio (JSON or JSON-MIN), or Argilla's records.json"
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(path, "no such file", expected) from None
    except orjson.JSONDecodeError as error:
        raise InputError(path, f"neither CSV nor JSON ({error})", expected) from None
    for form in (argilla_files, label_studio):
        if content and form.is_export(content):
            return list(form.read(path, content, ASKED))
    raise InputError(path, "JSON of another form", expected)


def check(sample: Sample, given: Sequence[Given], before: Labels, partial: bool) -> Checked:
    """See that sheets have the items of the sample, each once a person, with labels that there are.

    Args:
        sample: whose sheets they are.
        given: what they say.
        before: what others said before.
        partial: items without a label may be missing.

    Raises:
        InputError: they do not; all faults in one.
    """
    labels = {item: dict(people) for item, people in before.items()}
    faults: dict[str, list[str]] = {}
    seen = Counter((one.item, one.annotator) for one in given)
    for one in given:
        for kind, told in _faults(sample, one, seen):
            faults.setdefault(kind, []).append(told)
        if said := {name: normal(label) for name, label in one.labels.items() if label.strip()}:
            people, who = labels.setdefault(one.item, {}), person(one.annotator)
            people[who] = {**people.get(who, {}), **said}  # an empty cell takes nothing back
    missing = _missing(sample, given, labels)
    if missing and not partial:
        faults["without a label"] = missing
    if not given:
        faults["rows"] = ["none"]
    if faults:
        raise _error(sample, given, faults, only_missing=set(faults) == {"without a label"})
    return Checked({item: people for item, people in labels.items() if any(people.values())}, missing)


def person(name: str) -> str:
    """What a person is called in what is kept: names and addresses of people are not for git."""
    return f"annotator-{text_digest(name.strip().lower())[:6]}"


def _faults(sample: Sample, one: Given, seen: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, str]]:
    told = f"{one.item!r} ({one.where})"
    if (row := sample.key.get(one.item)) is None:
        yield "not of this sample", told
        return
    if seen[one.item, one.annotator] > 1:
        yield "there more than once", told
    if one.question and row["question"] != question_digest(one.question):
        yield "beside the question of another row", told
    asked = sample.design["questions"][row["purpose"]]
    for name, label in one.labels.items():
        if label.strip() and name not in asked:
            yield "with a question that was not asked about them", f"{name} of {told}"
        elif label.strip() and normal(label) not in (*QUESTIONS[name].labels, UNCLEAR):
            yield "with another label", f"{label[:40]!r} as {name} of {told}"


def _missing(sample: Sample, given: Sequence[Given], labels: Labels) -> list[str]:
    """Items of the sheets' purposes that nobody labelled in full."""
    purposes = {sample.key[one.item]["purpose"] for one in given if one.item in sample.key}
    return [
        item
        for item, row in sample.key.items()
        if row["purpose"] in purposes and not _whole(labels.get(item, {}), sample.design["questions"][row["purpose"]])
    ]


def _whole(people: Mapping[str, Mapping[str, str]], asked: Sequence[str]) -> bool:
    return any(all(said.get(name) for name in asked) for said in people.values())


def _error(
    sample: Sample, given: Sequence[Given], faults: Mapping[str, Sequence[str]], only_missing: bool
) -> InputError:
    parts = []
    for kind, told in faults.items():
        more = f" and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
        parts.append(f"{len(told):,} {kind}: {', '.join(told[:NAMED])}{more}")
    words = "; ".join(f"{name}: {', '.join((*QUESTIONS[name].labels, UNCLEAR))}" for name in _asked(sample))
    files = ", ".join(
        dict.fromkeys(one.where.split(",")[0].rpartition(":")[0] or one.where.split(",")[0] for one in given)
    )
    hint = "--partial takes what is there." if only_missing else "mend the sheet; nothing was imported."
    return InputError(
        files or sample.folder, "; ".join(parts), f"each item of the sample once a person, with labels of {words}", hint
    )


def _asked(sample: Sample) -> list[str]:
    return list(dict.fromkeys(name for asked in sample.design["questions"].values() for name in asked))


# ---------------------------------------------------------------- kept


def kept(sample: Sample) -> Labels:
    """Labels that were imported before."""
    path = sample.folder / FILE
    found: Labels = {}
    for row in read_rows(path, ["item", "annotator", "labels"]) if path.exists() else ():
        found.setdefault(row["item"], {})[row["annotator"]] = row["labels"]
    return found


def keep(sample: Sample, labels: Labels) -> Path:
    """Write labels, in an order that does not hang on that of the sheets."""
    path = sample.folder / FILE
    rows: list[Row] = [
        {"item": item, "annotator": who, "labels": dict(sorted(said.items()))}
        for item, people in sorted(labels.items())
        for who, said in sorted(people.items())
    ]
    write_rows(path, rows)
    return path


def sides(people: Mapping[str, Mapping[str, str]], question: str) -> dict[str, bool]:
    """On which side each person put an item; people who could not tell are left out."""
    found = {who: said[question] for who, said in people.items() if said.get(question, UNCLEAR) != UNCLEAR}
    return {who: label in QUESTIONS[question].yes for who, label in found.items()}


def verdict(people: Mapping[str, Mapping[str, str]], question: str) -> float | None:
    """What people say together: 1 or 0 by majority, a half where they are even, None where nobody can tell."""
    said = list(sides(people, question).values())
    if not said:
        return None
    yes = 2 * sum(said) - len(said)
    return 0.5 if yes == 0 else float(yes > 0)
