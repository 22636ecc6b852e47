"""Rows as examples: rendered with the model's own template, tokenised once, with what is not learnt masked."""

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from star1 import chat
from star1.errors import InputError, SettingError
from star1.recipe import Settings
from star1.records import Row, read_rows

IGNORED = -100  # label of a token that is read but not learnt
TEXTS = ("question", "response")


@dataclasses.dataclass(frozen=True)
class Example:
    """One sequence: token ids and labels of equal length; a label is the token's own id, or `IGNORED`."""

    ids: list[int]
    labels: list[int]


def training_rows(path: str | Path) -> list[Row]:
    """Rows of a file to train on.

    Raises:
        InputError: it cannot be read, or question or response of a row is no text.
    """
    rows = read_rows(path, TEXTS)
    for number, row in enumerate(rows, 1):
        if wrong := [name for name in TEXTS if not isinstance(row[name], str)]:
            raise InputError(f"{path}: row {number}", f"{wrong[0]} {row[wrong[0]]!r}"[:80], "text")
    return rows


def target_text(response: str, think: bool, opened: bool, thinks: bool) -> str | None:
    """What the model shall write after the prompt, or None when `response` has no complete think block or no answer.

    Args:
        response: `<think>...</think>` and the answer.
        think: keep the thinking.
        opened: the prompt already ends with the opening tag.
        thinks: the model was made to think, so that without thinking it still gets an empty block.
    """
    thinking, answer = chat.split_thinking(response, opened=False)
    if not answer or (think and not thinking):
        return None
    if not think and not thinks:
        return answer
    block = f"{chat.OPEN}\n{thinking if think else ''}\n{chat.CLOSE}\n\n"
    return (block.removeprefix(f"{chat.OPEN}\n") if opened else block) + answer


def render(tokenizer: Any, row: Row, settings: Settings) -> Example | str:
    """One row as an example with the prompt masked and the end of sequence learnt, or the reason why it is dropped."""
    text = target_text(row["response"], settings.think, chat.opens_thinking(tokenizer), chat.knows_thinking(tokenizer))
    if text is None:
        return "no complete think block and answer"
    prompt = chat.prompt_ids(tokenizer, row["question"])
    # Prompt and response are tokenised apart, as generation sees them: no merge can cross the border.
    target = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if len(prompt) + len(target) > settings.max_tokens:
        return f"longer than {settings.max_tokens} tokens"
    if _marked(tokenizer, target[:-1]) or _marked(tokenizer, prompt) > _marked(
        tokenizer, chat.prompt_ids(tokenizer, "?")
    ):
        return "sequence start or end within its text"
    return Example(prompt + target, [IGNORED] * len(prompt) + target)


def _marked(tokenizer: Any, ids: Sequence[int]) -> int:
    """How many sequence starts and ends are among some tokens: a text that spells one out is tokenised to it."""
    return sum(one in (tokenizer.bos_token_id, tokenizer.eos_token_id) for one in ids)


def render_all(tokenizer: Any, rows: Sequence[Row], settings: Settings) -> tuple[list[Example], Counter[str]]:
    """Examples of all rows that can be used, and how many were dropped for which reason.

    Raises:
        InputError: no row is left.
    """
    rendered = [render(tokenizer, row, settings) for row in rows]
    dropped = Counter(item for item in rendered if isinstance(item, str))
    examples = [item for item in rendered if isinstance(item, Example)]
    if not examples:
        raise InputError("training rows", f"{len(rows)} rows, none usable ({dict(dropped)})", "at least one row")
    return examples, dropped


def plan(count: int, settings: Settings) -> list[list[int]]:
    """Row numbers of each update: every epoch in an order drawn from (seed, epoch) alone, epochs joined, then cut.

    Raises:
        SettingError: the last incomplete batch is dropped and there is no other.
    """
    order: list[int] = []
    for epoch in range(settings.epochs):
        numbers = list(range(count))
        random.Random(f"{settings.seed}-{epoch}").shuffle(numbers)
        order += numbers
    size = settings.batch_size
    updates = [order[start : start + size] for start in range(0, len(order), size)]
    if settings.drop_last and len(updates[-1]) < size:
        updates.pop()
    if not updates:
        raise SettingError(
            "training settings: batch_size",
            f"{size} samples per update, {len(order)} samples in all",
            "at least one full batch",
            "lower batch_size or set drop_last to false",
        )
    return updates


def target_count(examples: Sequence[Example]) -> int:
    """Number of target tokens."""
    return sum(label != IGNORED for example in examples for label in example.labels[1:])
