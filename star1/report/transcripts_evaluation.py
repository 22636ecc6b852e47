"""Answers of all models to all benchmarks for the page, each with what the judges say about it.

Rows of one prompt come from several files that are each read from the start to the end once, and then by place: what is in
memory is a number for each answer and judge, never the texts.
"""

import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from star1.agreement import question, side
from star1.errors import InputError
from star1.records import Row
from star1.report.parts import Parts, stream

# Characters of a prompt in the list.
HEAD = 240
# Flags of an answer.
THERE, UNFINISHED, CUT_OFF, DISAGREED = 1, 2, 4, 8
NOWHERE = -1
PROMPT = ("question", "answer", "choices", "tests", "entry_point", "grader")
ABOUT_SAMPLE = ("finish_reason", "prompt_tokens", "completion_tokens", "prompt_digest")
ABOUT_SETUP = ("engine", "sampling", "template_digest", "tokenizer")
ABOUT_JUDGE = ("name", "kind", "view", "judge", "retires", "primary")
ABOUT_VERDICT = ("categories", "score", "refused", "graded", "question_digest", "response_digest")


class Files(NamedTuple):
    """Folders: rows of benchmarks, generations by model, judgements by model."""

    benchmarks: Path
    generations: Path
    judgements: Path


class Names(dict[str, int]):
    """Texts that come again and again, by number."""

    def number(self, name: str) -> int:
        """A text's number; the next one where it is new."""
        return self.setdefault(name, len(self))


class Answers:
    """A model's answers to one benchmark, as columns: an entry for each prompt and sample, prompts in the benchmark's order.

    Attributes:
        samples: k, the largest number of answers to a prompt.
        places: where each answer begins in its file [bytes], `[rows * k]`.
        flags: what is known of each answer, `[rows * k]`.
        judges: what is known of each judge; `codes` has a number for what it said of each answer, `[rows * k]`, and `places`.
    """

    def __init__(self, samples: int, rows: int) -> None:
        self.samples = samples
        self.places = array("q", [NOWHERE]) * (rows * samples)
        self.flags = array("B", [0]) * (rows * samples)
        self.judges: dict[str, Row] = {}


def head(text: str) -> str:
    """The beginning of a prompt, for the list."""
    return text if len(text) <= HEAD else text[:HEAD] + "…"


def write(folder: Path, place: str, files: Files, models: Sequence[str], benchmarks: Sequence[str]) -> Row:
    """Write prompts and answers.

    Args:
        folder: of the page.
        place: what the names of their files begin with.
        files: where rows are read.
        models: names.
        benchmarks: names.

    Returns:
        The columns that the page filters by.

    Raises:
        InputError: a file is missing or damaged, or has an answer to a row that is not in the benchmark.
    """
    categories, words = Names(), Names()
    heads, prompts = Parts(folder, f"{place}/heads"), Parts(folder, f"{place}/prompts")
    ids: list[str] = []
    category: list[int] = []
    groups: list[dict[str, Any]] = []
    for name in benchmarks:
        start = len(ids)
        purpose = _prompts(files.benchmarks / f"{name}.jsonl", ids, category, categories, heads, prompts)
        groups.append({"benchmark": name, "purpose": purpose, "start": start, "count": len(ids) - start})
    told = {"kind": "evaluation", "ids": ids, "groups": groups, "category": category}
    parts: dict[str, Row] = {"heads": heads.close(), "prompts": prompts.close()}
    found = {}
    for number, model in enumerate(models):
        texts = {kind: Parts(folder, f"{place}/{kind}-{number}") for kind in ("answers", "thinking")}
        found[model] = [_model(files, model, group, ids, words, texts) for group in groups]
        parts |= {f"{kind}/{model}": one.close() for kind, one in texts.items()}
    told |= {"categories": list(categories), "words": [orjson.loads(word) for word in words]}
    return told | {"models": found, "parts": parts}


def _prompts(
    path: Path, ids: list[str], category: list[int], categories: Names, heads: Parts, prompts: Parts
) -> str | None:
    """Take in the prompts of a benchmark; gives its purpose."""
    purpose, known = None, set[str]()
    for _, row in stream(path):
        if row["id"] in known:
            raise InputError(path, f"the id {row['id']!r} twice", "each id once")
        known.add(row["id"])
        ids.append(row["id"])
        category.append(categories.number(row["category"]) if row.get("category") else NOWHERE)
        heads.add(head(row["question"]))
        prompts.add({name: row[name] for name in PROMPT if row.get(name) is not None})
        purpose = row["purpose"]
    return purpose


def _model(
    files: Files, model: str, group: Mapping[str, Any], ids: Sequence[str], words: Names, texts: Mapping[str, Parts]
) -> Row:
    """Take in a model's answers to a benchmark: texts into their parts; gives the columns."""
    benchmark, start, count = group["benchmark"], group["start"], group["count"]
    numbers = {ids[start + number]: number for number in range(count)}
    generated = files.generations / model / f"{benchmark}.jsonl"
    judged = files.judgements / model / f"{benchmark}.jsonl"
    answers = _find(generated, numbers)
    _judge(judged, numbers, answers, words)
    setups = Names()
    with open(generated, "rb") as rows, open(judged, "rb") as verdicts:
        for number in range(count):
            answer, thinking = [], []
            for one in range(number * answers.samples, (number + 1) * answers.samples):
                told, thought = _texts(rows, verdicts, answers, one, setups)
                answer.append(told)
                thinking.append(thought)
            texts["answers"].add(answer)
            texts["thinking"].add(thinking)
    return {
        "samples": answers.samples,
        "flags": list(answers.flags),
        "judges": [_told(judge) for judge in answers.judges.values()],
        "setups": [orjson.loads(one) for one in setups],
    }


def _find(path: Path, numbers: Mapping[str, int]) -> Answers:
    """Where each answer stands in its file, and its flags."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for place, row in stream(path):
        where = _number(path, row, numbers), int(row.get("sample") or 0)
        if where in found:
            raise InputError(path, f"row {row['id']!r}, sample {where[1]} twice", "each answer once")
        flags = THERE | (UNFINISHED if row["answer"] is None else 0)
        found[where] = place, flags | (CUT_OFF if row["finish_reason"] == "length" else 0)
    answers = Answers(max((sample for _, sample in found), default=0) + 1, len(numbers))
    for (number, sample), (place, flags) in found.items():
        one = number * answers.samples + sample
        answers.places[one], answers.flags[one] = place, flags
    return answers


def _number(path: Path, row: Row, numbers: Mapping[str, int]) -> int:
    if row.get("id") not in numbers:
        hint = "was the benchmark fetched anew? `snakemake` brings both in step"
        raise InputError(path, f"an answer to row {row.get('id')!r}", "answers to rows of the benchmark", hint)
    return numbers[row["id"]]


def _judge(path: Path, numbers: Mapping[str, int], answers: Answers, words: Names) -> None:
    """What each judge says about each answer, and on which answers they differ."""
    said: dict[int, list[tuple[str, str, str | None, bool | None]]] = {}
    for place, row in stream(path):
        one = _number(path, row, numbers) * answers.samples + int(row.get("sample") or 0)
        if int(row.get("sample") or 0) >= answers.samples or not answers.flags[one]:
            raise InputError(path, f"row {row['id']!r}: a judgement of no answer", "judgements of the generations")
        judge = answers.judges.get(row["name"]) or _new_judge(answers, row)
        code = {"verdict": row["verdict"]} if row["verdict"] is not None else {"unscored": row["unscored"]}
        judge["codes"][one] = words.number(orjson.dumps(code).decode()) + 1
        judge["places"][one] = place
        said.setdefault(one, []).append((row["purpose"], row["kind"], row["verdict"], row.get("refused")))
    for one, verdicts in said.items():
        if any(_differ(first, second) for first, second in itertools.combinations(verdicts, 2)):
            answers.flags[one] |= DISAGREED


def _new_judge(answers: Answers, row: Row) -> Row:
    columns = {name: array("q", [fill]) * len(answers.flags) for name, fill in (("codes", 0), ("places", NOWHERE))}
    answers.judges[row["name"]] = {name: row.get(name) for name in ABOUT_JUDGE} | columns
    return answers.judges[row["name"]]


def _differ(first: tuple[str, str, str | None, bool | None], second: tuple[str, str, str | None, bool | None]) -> bool:
    """Whether two judgements of an answer give two sides of a question that both answer, as `star1.agreement` has it."""
    asked = question(first[0], first[1], second[1])
    if asked is None:
        return False
    one, other = (side({"kind": kind, "verdict": word, "refused": no}, asked) for _, kind, word, no in (first, second))
    return one is not None and other is not None and one is not other


def _texts(rows: BinaryIO, verdicts: BinaryIO, answers: Answers, one: int, setups: Names) -> tuple[Any, str | None]:
    """What the page shows of an answer, and its thinking apart; nothing where there is no such answer."""
    if answers.places[one] == NOWHERE:
        return None, None
    row = _at(rows, answers.places[one])
    told = {"answer": row["answer"]} | {name: row.get(name) for name in ABOUT_SAMPLE}
    setup = orjson.dumps({name: row.get(name) for name in ABOUT_SETUP}).decode()
    told["setup"] = setups.number(setup)
    told["judged"] = list(_details(verdicts, answers, one))
    # Without an end of the thinking, and without its beginning, what there is stands in the response alone.
    return told, row.get("thinking") or (row.get("response") if row["answer"] is None else None)


def _details(verdicts: BinaryIO, answers: Answers, one: int) -> Iterator[Row | None]:
    """What each judge says beside its verdict."""
    for judge in answers.judges.values():
        row = _at(verdicts, judge["places"][one]) if judge["places"][one] != NOWHERE else None
        yield row and {name: row[name] for name in ABOUT_VERDICT if row.get(name) not in (None, [])}


def _at(file: BinaryIO, place: int) -> Row:
    file.seek(place)
    row: Row = orjson.loads(file.readline())
    return row


def _told(judge: Row) -> Row:
    return {name: judge[name] for name in ABOUT_JUDGE} | {"codes": list(judge["codes"])}
