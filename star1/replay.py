"""Replay: published rows in place of the models that wrote them; what they do not hold, the stand-in answers."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from star1.errors import InputError
from star1.parsing import ReplyError, Thought, parse_thinking
from star1.records import Row, read_json, read_rows
from star1.replies import Reply
from star1.standin import FINGERPRINT, Answer, App, Messages, answer, make_app, read_prompt, role_of
from star1.standin_rules import Shown

PUBLISHED = "replay: published row"
STOOD_IN = f"replay: {FINGERPRINT}"


def name_key(name: str) -> str:
    """A category's name as it is compared: published rows put blanks around the slash, a pack need not."""
    return re.sub(r"\s*/\s*", "/", name.strip()).casefold()


def read_published(path: str | Path) -> dict[str, Row]:
    """Published rows (one JSON list, or JSON Lines) by question; the first of equal questions stays.

    Raises:
        InputError: the file is missing or a row lacks question, response, category or score.
    """
    rows = read_json(path) if Path(path).suffix == ".json" else read_rows(path)
    published: dict[str, Row] = {}
    for place, row in enumerate(rows, start=1):
        if missing := {"question", "response", "category", "score"} - set(row):
            raise InputError(f"{path}, row {place}", f"no field {min(missing)!r}", "a published row of the STAR-1 form")
        published.setdefault(row["question"], row)
    return published


def replay_app(path: str | Path) -> App:
    """An endpoint that gives a published row's own categories, response and score where the question is one of them."""
    published = read_published(path)

    def reply(messages: Messages, model: str = "") -> Answer:
        shown = read_prompt(messages[0]["content"])
        row = published.get(shown.fields.get("question", ""))
        text = published_reply(row, shown) if row is not None else None
        if text is not None:
            return Answer(text, PUBLISHED)
        return Answer(answer(messages, model).text, STOOD_IN)

    return make_app(reply)


def published_reply(row: Row, shown: Shown) -> str | None:
    """What a published row says to a prompt about its question; None where it does not say.

    A score is given back only for the very response that was scored.
    """
    role = role_of(shown)
    if role == "categorize":
        return _categories(row, shown.definitions)
    if role in ("reason", "benign_reason"):
        return str(row["response"])
    if role in ("score", "benign_score") and set(row["score"]) == set(shown.marks):
        same = _same_response(row, Thought(shown.fields["thinking"], shown.fields["answer"]))
        return json.dumps(row["score"]) if same else None
    return None


def _categories(row: Row, definitions: Mapping[str, str]) -> str | None:
    names = {name_key(name): name for name in definitions}
    keys = [name_key(name) for name in row["category"]]
    return json.dumps([names[key] for key in keys]) if all(key in names for key in keys) else None


def _same_response(row: Row, thought: Thought) -> bool:
    try:
        return parse_thinking(Reply(row["response"], finish_reason="stop")).value == thought
    except ReplyError:
        return False
