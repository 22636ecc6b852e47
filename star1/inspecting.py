"""What a fine-tuning run reads and learns, token by token, from the very rows, tokenizer and settings that it trains on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from star1 import chat, checkpoints, runs
from star1.errors import InputError
from star1.recipe import Settings, settings_from
from star1.records import Row
from star1.rendering import IGNORED, Example, render, training_rows

READ, LEARNT = "read  ", "learnt"


def parts_of(example: Example) -> Iterator[tuple[bool, list[int]]]:
    """The example cut where it changes between learnt and read: (whether it is learnt, token ids)."""
    start = 0
    learnt = [label != IGNORED for label in example.labels]
    for at in range(1, len(learnt) + 1):
        if at == len(learnt) or learnt[at] != learnt[start]:
            yield learnt[start], example.ids[start:at]
            start = at


def marked(tokenizer: Any, example: Example) -> list[str]:
    """The example as lines, each with what becomes of it; special tokens are shown."""
    lines = []
    for learnt, ids in parts_of(example):
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        pieces = text.split("\n")
        # A line end is a token too, or part of one: it is shown as such.
        shown = [piece + "⏎" for piece in pieces[:-1]] + pieces[-1:]
        lines += [f"{LEARNT if learnt else READ} | {piece}" for piece in shown if piece]
    return lines


def marks(tokenizer: Any, example: Example) -> str:
    """How often sequence start and end stand in an example, and whether they are learnt."""
    found = []
    for name, token in (("BOS", tokenizer.bos_token_id), ("EOS", tokenizer.eos_token_id)):
        if token is None:
            found.append(f"{name} none (the tokenizer has none)")
            continue
        learnt = sum(label == token for label in example.labels)
        found.append(f"{name} {tokenizer.convert_ids_to_tokens(token)!r} x {example.ids.count(token)}, {learnt} learnt")
    return "; ".join(found)


def overview(tokenizer: Any, rows: Sequence[Row], settings: Settings) -> list[str]:
    """Rows, tokens, and what is dropped with the rows' numbers, over all rows of a run."""
    rendered = [render(tokenizer, row, settings) for row in rows]
    examples = [one for one in rendered if isinstance(one, Example)]
    tokens = sum(len(one.ids) for one in examples)
    learnt = sum(label != IGNORED for one in examples for label in one.labels)
    longest = max((len(one.ids) for one in examples), default=0)
    lines = [
        f"{len(rows):,} rows, {len(examples):,} used: {tokens:,} tokens, {learnt:,} of them learnt, longest {longest:,}"
    ]
    for number, count in sorted(Counter(marks(tokenizer, one) for one in examples).items()):
        lines.append(f"{count:,} rows with {number}")
    reasons: dict[str, list[int]] = {}
    for at, one in enumerate(rendered):
        if isinstance(one, str):
            reasons.setdefault(one, []).append(at)
    for reason, places in sorted(reasons.items()):
        more = ", ..." if len(places) > 10 else ""
        lines.append(f"{len(places):,} dropped, {reason}: rows {', '.join(map(str, places[:10]))}{more}")
    return lines


def one_row(tokenizer: Any, rows: Sequence[Row], number: int, settings: Settings) -> list[str]:
    """What is read and what is learnt of row `number` (from 0).

    Raises:
        InputError: there is no such row.
    """
    if not rows:
        raise InputError(
            "train inspect",
            "no training rows",
            "rows in the run's data",
            "`snakemake` makes them, `dvc pull` fetches them",
        )
    if not 0 <= number < len(rows):
        raise InputError("--row", str(number), f"0 to {len(rows) - 1}")
    example = render(tokenizer, rows[number], settings)
    name = f"row {number} (id {rows[number].get('id', 'none')})"
    if isinstance(example, str):
        return [f"{name}: dropped, {example}"]
    learnt = sum(label != IGNORED for label in example.labels)
    told = f"{name}: {len(example.ids)} tokens, {learnt} learnt; {marks(tokenizer, example)}"
    return [told, *marked(tokenizer, example)]


def inspect(values: dict[str, Any], run: str, row: int | None, identity: str | None) -> list[str]:
    """Lines about a run of params.yaml and one of its rows; the first used one if none is named.

    Raises:
        InputError: no such run or row, or base model or data are not there yet.
    """
    from star1.workflow.inputs import Inputs
    from star1.workflow.lookups import Params

    table = values["finetune"]["runs"]
    # The seeds of a run read the same rows; the first stands for all.
    model = runs.expand([run], table)[0]
    if model not in runs.by_model(table):
        raise InputError(
            f"run {run!r}",
            "not in finetune.runs",
            "one of " + ", ".join(dict.fromkeys([*table, *runs.by_model(table)])),
        )
    inputs, job = Inputs(Params(values)), SimpleNamespace(run=model)
    shared = values["finetune"]["settings"]
    settings: Settings = settings_from(runs.settings_of(shared, runs.entry_of(model, table)))
    base = checkpoints.folder_of(inputs.base(job))
    checkpoints.read_manifest(base)
    tokenizer = chat.load_tokenizer(str(base))
    rows = [one for path in inputs.training_data(job) for one in training_rows(path)]
    if identity is not None:
        row = next((at for at, one in enumerate(rows) if str(one.get("id")) == identity), None)
        if row is None:
            raise InputError("--id", identity, f"the id of one of the {len(rows)} rows")
    if row is None:
        row = next((at for at, one in enumerate(rows) if isinstance(render(tokenizer, one, settings), Example)), 0)
    return [*overview(tokenizer, rows, settings), "", *one_row(tokenizer, rows, row, settings)]
