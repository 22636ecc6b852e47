"""A model's own chat template: prompts rendered once, and responses taken apart into thinking and answer."""

from collections.abc import Sequence
from typing import Any

from star1 import checkpoints
from star1.decoding import Bos
from star1.errors import InputError, SettingError

OPEN, CLOSE = "<think>", "</think>"


def load_tokenizer(folder: str) -> Any:
    """The tokenizer of a checkpoint folder.

    Raises:
        InputError: it cannot be read, or has no chat template or no end-of-sequence token.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading and writing weights: logs are for what takes time
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=checkpoints.trusts_code(folder)
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(folder, f"tokenizer not readable ({reason})", "a checkpoint with its tokenizer") from None
    if not tokenizer.chat_template:
        raise InputError(folder, "no chat template", "a chat model", "add chat_template.jinja to the checkpoint")
    if tokenizer.eos_token_id is None:
        raise InputError(folder, "no end-of-sequence token", "a tokenizer with eos_token")
    return tokenizer


def prompt_text(tokenizer: Any, question: str) -> str:
    """One user turn as the model's template renders it, up to where the assistant starts to write."""
    turns = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def prompt_ids(tokenizer: Any, question: str, bos: Bos = "one") -> list[int]:
    """Token ids of the rendered prompt, tokenised once, with the sequence start in it exactly once.

    A template that writes the start token itself is left as it is; where it does not and the tokenizer would add one,
    it is added. (Rendering to text and tokenising that text with the defaults would write it twice.)

    Args:
        tokenizer: of the model.
        question: the user's turn.
        bos: `doubled` is that fault, as published: two start tokens exactly, in families whose template and tokenizer both
            write one. For the others the prompt is the same.

    Raises:
        SettingError: the ids do not start with exactly so many start tokens though the tokenizer has one to add.
    """
    text, start = prompt_text(tokenizer, question), tokenizer.bos_token_id
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    written, added = ids[:1] == [start], start is not None and list(tokenizer("")["input_ids"])[:1] == [start]
    if added and not written:
        ids = [start, *ids]
    if start is not None and ids[:2] == [start, start]:
        raise SettingError("chat template", "two sequence start tokens", "exactly one", "look at chat_template")
    return _tokenised_again(tokenizer, text, [start, *ids]) if bos == "doubled" and added and written else ids


def _tokenised_again(tokenizer: Any, text: str, expected: list[int]) -> list[int]:
    """A rendered prompt as the tokenizer reads any text, which adds what it adds; a second start token and no more.

    Raises:
        SettingError: it adds anything else.
    """
    ids = list(tokenizer(text)["input_ids"])
    if ids != expected:
        found = f"{len(ids)} tokens where the rendered prompt with a second start has {len(expected)}"
        raise SettingError("generate.bos: doubled", found, "one start token more and nothing else", "use bos: one")
    return ids


def starts(tokenizer: Any, ids: Sequence[int]) -> int:
    """How many start tokens a prompt begins with."""
    others = (place for place, token in enumerate(ids) if token != tokenizer.bos_token_id)
    return next(others, len(ids))


def opens_thinking(tokenizer: Any) -> bool:
    """Whether the template's assistant start already holds the opening think tag, so that responses lack it."""
    return prompt_text(tokenizer, "?").rstrip().endswith(OPEN)


def response_text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Generated tokens as text, with the opening think tag put back where the template had written it into the prompt."""
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return f"{OPEN}\n{text}" if opens_thinking(tokenizer) else text


def knows_thinking(tokenizer: Any) -> bool:
    """Whether the template was written for a model that thinks: it opens think blocks, or drops them from old turns."""
    return opens_thinking(tokenizer) or CLOSE in tokenizer.chat_template


def split_thinking(text: str, opened: bool) -> tuple[str | None, str | None]:
    """Take a response apart into thinking and answer; both stripped of white space around them.

    Args:
        text: what the model wrote.
        opened: the prompt ended with the opening tag, so that `text` starts inside the think block.

    Returns:
        (thinking, answer). A block that is not closed gives no answer (None), wherever it opens; text without a block
        is all answer. Only the first closing tag counts: what follows it is the answer, as a reader would see it.
    """
    body = text.lstrip()
    if body.startswith(OPEN):
        body, opened = body[len(OPEN) :], True
    thinking, closed, answer = body.partition(CLOSE)
    if closed:
        return thinking.strip(), answer.strip()
    return (body.strip(), None) if opened or OPEN in body else (None, body.strip())
