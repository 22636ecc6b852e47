"""Which answers people get to see: a stratified random sample, whose probabilities are kept.

All answers on which judges disagree are taken, and of the others a share at random, split by what the primary judge says, so
that both of its sides are looked at. What an answer stands for is the inverse of its probability.
"""

import hashlib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from star1.agreement import Answer, disagreements
from star1.auditing.questions import QUESTIONS, asked_about, questions_of, said
from star1.errors import InputError
from star1.records import Row, read_json, read_rows, write_json, write_rows

# Ids and labels; texts are in the sheets alone, which are not in git.
FOLDER = Path("data/audit")
PURPOSES = ("harmful", "benign", "reasoning")
# So much of a question names it, where a sheet is checked for rows that were torn apart [characters].
NAMED_BY = 200

Place = tuple[str, str, str, int]  # model, benchmark, id, sample


@dataclass(frozen=True)
class How:
    """How a sample is drawn.

    Attributes:
        name: of the sample.
        share: of the answers on which judges agree, in (0, 1].
        least: answers of each stratum, where there are as many.
        most: answers on which judges disagree; None: all.
        seed: of the draw.
    """

    name: str
    share: float
    least: int
    most: int | None
    seed: int


@dataclass(frozen=True)
class Drawn:
    """One answer of the sample.

    Attributes:
        item: what it is called on the sheet; says nothing about it.
    """

    item: str
    answer: Answer
    stratum: str
    probability: float


def place(one: Answer) -> Place:
    """What names an answer."""
    return one.model, one.benchmark, one.id, one.sample


def scored(answers: Iterable[Answer]) -> list[Answer]:
    """The answers that any judge has a verdict on."""
    return [one for one in answers if any(row["verdict"] is not None for row in one.rows.values())]


def strata(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers by stratum, in an order that does not hang on that of the rows."""
    apart = {(one["model"], one["benchmark"], one["id"], one["sample"]) for one in disagreements(answers)}
    found: dict[str, list[Answer]] = {}
    for one in sorted(answers, key=place):
        found.setdefault(_stratum(one, place(one) in apart), []).append(one)
    return dict(sorted(found.items()))


def _stratum(one: Answer, disagrees: bool) -> str:
    if disagrees:
        return f"{one.purpose}/judges disagree"
    row = next((row for row in one.rows.values() if row["primary"]), next(iter(one.rows.values())))
    question = questions_of(one.purpose, row["kind"])[0]
    side = said(row, question)
    if side is None:
        return f"{one.purpose}/unscored by the primary judge"
    return f"{one.purpose}/{QUESTIONS[question].sides[0 if side else 1]}"


def draw(answers: Sequence[Answer], how: How) -> list[Drawn]:
    """The sample, in an order that says nothing."""
    found = []
    for stratum, members in strata(answers).items():
        number = _number(stratum, len(members), how)
        chosen = random.Random(f"{how.seed}/{stratum}").sample(members, number)
        found += [Drawn(_item(how, one), one, stratum, number / len(members)) for one in chosen]
    random.Random(f"{how.seed}/order").shuffle(found)
    if len({one.item for one in found}) < len(found):
        raise InputError("audit sample", "two answers with one id", "an id for each", "take another --seed.")
    return found


def _number(stratum: str, members: int, how: How) -> int:
    if stratum.endswith("/judges disagree"):
        return members if how.most is None else min(members, how.most)
    return min(members, max(how.least, math.ceil(how.share * members)))


def _item(how: How, one: Answer) -> str:
    digest = next(iter(one.rows.values()))["response_digest"]
    parts = (how.name, how.seed, *place(one), digest)
    # Begins with letters: spreadsheets take 12e45678 for a number.
    return "item-" + hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:10]


def question_digest(text: str) -> str:
    """Names a question as it comes back from a sheet: blanks, and a mark in front of it, may have changed."""
    plain = " ".join(text.lstrip("'").split())[:NAMED_BY]
    return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()[:16]


# ---------------------------------------------------------------- on disk


def write(
    folder: Path, how: How, answers: Sequence[Answer], drawn: Sequence[Drawn], questions: Mapping[Place, str]
) -> Row:
    """Write the key of a sample: how it was drawn, from what, and which answer each item is.

    Args:
        folder: of the sample, in `FOLDER`.
        how: how it was drawn.
        answers: all that could have been drawn.
        drawn: the sample.
        questions: what the models were asked, by place.
    """
    design = _design(how, answers, drawn)
    write_json(folder / "design.json", design)
    write_rows(folder / "frame.jsonl", _frame(answers))
    write_rows(folder / "key.jsonl", [_key(one, questions) for one in sorted(drawn, key=lambda one: one.item)])
    return design


def _design(how: How, answers: Sequence[Answer], drawn: Sequence[Drawn]) -> Row:
    told = {}
    for stratum, members in strata(answers).items():
        number = sum(one.stratum == stratum for one in drawn)
        told[stratum] = {"population": len(members), "sampled": number, "probability": number / len(members)}
    purposes = [name for name in PURPOSES if any(one.purpose == name for one in answers)]
    asked = {name: asked_about([one for one in answers if one.purpose == name]) for name in purposes}
    models, benchmarks = (sorted({getattr(one, name) for one in answers}) for name in ("model", "benchmark"))
    return {**vars(how), "models": models, "benchmarks": benchmarks, "questions": asked, "strata": told}


def _frame(answers: Sequence[Answer]) -> list[Row]:
    """All answers by set and stratum: what a stratum is must not change when a judge is asked anew."""
    found: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for stratum, members in strata(answers).items():
        for one in members:
            ids = found.setdefault((one.model, one.benchmark), {}).setdefault(stratum, {})
            ids.setdefault(str(one.sample), []).append(one.id)
    return [{"model": model, "benchmark": name, "strata": one} for (model, name), one in sorted(found.items())]


def _key(one: Drawn, questions: Mapping[Place, str]) -> Row:
    row = next(iter(one.answer.rows.values()))
    return {
        "item": one.item,
        **dict(zip(("model", "benchmark", "id", "sample"), place(one.answer), strict=True)),
        "purpose": one.answer.purpose,
        "stratum": one.stratum,
        "probability": one.probability,
        "question": question_digest(questions[place(one.answer)]),
        "response_digest": row["response_digest"],
    }


@dataclass(frozen=True)
class Sample:
    """A sample as it lies on disk: how it was drawn, the stratum of every answer, and the key by item."""

    folder: Path
    design: Row
    frame: Mapping[Place, str]
    key: Mapping[str, Row]


def read(name: str, root: Path = FOLDER) -> Sample:
    """Read a sample.

    Raises:
        InputError: there is none of that name, or its files are damaged.
    """
    folder = root / name
    if not (folder / "design.json").is_file():
        there = sorted(one.parent.name for one in root.glob("*/design.json"))
        hint = f"there is {', '.join(there)}: --name." if there else "`star1 audit sample` draws one."
        raise InputError(folder, "no sample", "the key of a sample", hint)
    design: Any = read_json(folder / "design.json")
    frame: dict[Place, str] = {}
    for row in read_rows(folder / "frame.jsonl", ["model", "benchmark", "strata"]):
        for stratum, samples in row["strata"].items():
            for sample, ids in samples.items():
                frame |= {(row["model"], row["benchmark"], one, int(sample)): stratum for one in ids}
    key = {row["item"]: row for row in read_rows(folder / "key.jsonl", ["item", "purpose", "stratum"])}
    return Sample(folder, design, frame, key)
