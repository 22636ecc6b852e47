"""`star1 audit sample`: the sheets of a sample, with the texts that people are to read, and its key."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from star1.agreement import Answer, read_answers
from star1.auditing import argilla_files, design, label_studio, sheets
from star1.auditing.design import PURPOSES, Drawn, How, Place, place
from star1.auditing.questions import QUESTIONS, UNCLEAR
from star1.auditing.sheets import Sheet
from star1.errors import InputError, SettingError
from star1.judged import see_judged
from star1.records import Row, read_rows, text_digest, write_text

# Sheets hold texts that may not be passed on: not in git.
FOLDER = Path("results/audit")
JUDGEMENTS, GENERATIONS, ROWS = Path("results/judgements"), Path("results/generations"), Path("data/benchmarks")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
ORDER = "Go through the rows in their order, by yourself, and label each one as it stands. Leave the other columns as they are."


def answers(models: Sequence[str], benchmarks: Sequence[str], root: Path = Path()) -> list[Answer]:
    """All judged answers that there are.

    Raises:
        InputError: a file is missing, or no benchmark or judged model has such a name.
    """
    for benchmark in benchmarks:
        if not (root / ROWS / f"{benchmark}.jsonl").is_file():
            known = ", ".join(sorted(path.stem for path in (root / ROWS).glob("*.jsonl")))
            expected = f"one of {known}" if known else "the benchmarks of a finished run"
            hint = "`snakemake` makes what params.yaml names, `dvc pull` fetches it"
            raise InputError(root / ROWS, f"no {benchmark}.jsonl", expected, hint)
    for model in models:
        see_judged(model, root)
    return read_answers(root / JUDGEMENTS, root / ROWS, models, benchmarks)


def sample(found: Iterable[Answer], purposes: Sequence[str], how: How, root: Path = Path()) -> list[str]:
    """Draw a sample and write sheets and key; gives lines about them.

    Args:
        found: all judged answers.
        purposes: those of the benchmarks whose answers are drawn.
        how: how it is drawn.
        root: the project's folder.

    Raises:
        InputError: a sample of this name is there already, or there is nothing to draw from.
        SettingError: a name, share or count that cannot be used.
    """
    _check(how, key := root / design.FOLDER / how.name, root / FOLDER / how.name)
    frame = design.scored(one for one in found if one.purpose in purposes)
    if not frame:
        raise InputError(root / JUDGEMENTS, f"no verdict on {', '.join(purposes)} prompts", "judged answers")
    drawn = design.draw(frame, how)
    texts = _texts(drawn, root)
    told = design.write(key, how, frame, drawn, {at: text["question"] for at, text in texts.items()})
    lines = []
    for purpose in PURPOSES:
        mine = [one for one in drawn if one.answer.purpose == purpose]
        if mine:
            asked = told["questions"][purpose]
            rows = [{"item": one.item, **texts[place(one.answer)]} for one in mine]
            lines.append(write_sheet(root / FOLDER / how.name, how.name, Sheet(purpose, asked, rows)))
    strata = [f"{name}: {one['sampled']:,} of {one['population']:,}" for name, one in told["strata"].items()]
    return [*strata, *lines, f"{key}/: the key, for git; keep it from whoever labels"]


def _check(how: How, key: Path, given: Path) -> None:
    if not NAME.fullmatch(how.name):
        raise SettingError("--name", repr(how.name), "letters, digits, - and _, beginning with a letter or digit")
    if (key / "labels.jsonl").exists():
        raise InputError(
            key, "labels of a sample of this name", "none", "take another --name: what people did is kept."
        )
    if (key / "design.json").exists():  # without it, nobody knows what the sheets that people have are about
        hint = f"take another --name, or remove both folders, {key} and {given}."
        raise InputError(key, "the key of a sample of this name, whose sheets people may have", "none", hint)
    if not 0 < how.share <= 1:
        raise SettingError("--share", f"{how.share:g}", "above 0, at most 1")
    if how.least < 0 or (how.most or 0) < 0:
        raise SettingError("--least, --most", f"{how.least}, {how.most}", "counts")


def write_sheet(folder: Path, name: str, sheet: Sheet) -> str:
    """Write a sheet in all its forms; gives a line about it."""
    at = folder / sheet.purpose
    guidelines = guidelines_of(sheet)
    sheets.write_csv(at / "sheet.csv", sheet)
    write_text(at / "guidelines.md", guidelines)
    label_studio.write(at / "label-studio-tasks.json", at / "label-studio-config.xml", sheet)
    argilla_files.write(at / "argilla", f"audit-{name}-{sheet.purpose}", sheet, guidelines)
    return f"{at}/: {len(sheet.rows):,} rows for people, as sheet.csv, for Label Studio and for Argilla"


def guidelines_of(sheet: Sheet) -> str:
    """What people are told who label a sheet."""
    parts = ["# How to label", ORDER]
    for name in sheet.asked:
        question = QUESTIONS[name]
        labels = {**question.labels, UNCLEAR: "it cannot be told; use it where you would have to guess"}
        parts.append(f"## `{name}`: {question.title}")
        parts.append("\n".join(f"- `{label}`: {meaning}" for label, meaning in labels.items()))
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- texts


def _texts(drawn: Sequence[Drawn], root: Path) -> dict[Place, dict[str, str]]:
    """What is shown of each answer: what its primary judge was shown.

    Raises:
        InputError: the generations are not those that were judged.
    """
    found, rows = {}, {}
    for model, benchmark in sorted({place(one.answer)[:2] for one in drawn}):
        path = root / GENERATIONS / model / f"{benchmark}.jsonl"
        made = {(row["id"], row.get("sample") or 0): row for row in read_rows(path, ["id", "question", "response"])}
        if benchmark not in rows:
            rows[benchmark] = {row["id"]: row for row in read_rows(root / ROWS / f"{benchmark}.jsonl", ["id"])}
        for one in drawn:
            if place(one.answer)[:2] == (model, benchmark):
                row = made.get((one.answer.id, one.answer.sample))
                found[place(one.answer)] = _text(path, one.answer, row, rows[benchmark].get(one.answer.id, {}))
    return found


def _text(path: Path, one: Answer, made: Row | None, benchmark: Mapping[str, object]) -> dict[str, str]:
    judged = next((row for row in one.rows.values() if row["primary"]), next(iter(one.rows.values())))
    if made is None or text_digest(made["response"]) != judged["response_digest"]:
        raise InputError(
            path, f"another answer to {one.id} than was judged", "the judged one", "run the stage judge first."
        )
    shown = made.get(judged.get("view") or "answer") or made["response"]
    text = {"question": made["question"], "answer": shown}
    if one.purpose == "reasoning":
        choices = benchmark.get("choices")
        listed = [f"{chr(65 + at)}) {choice}" for at, choice in enumerate(choices)] if isinstance(choices, list) else []
        text["reference"] = "\n".join([str(benchmark.get("answer", "")), *listed])
    return text
