"""Benign look-alikes of harmful prompts, answered without refusing: what keeps a safety-trained model helpful.

Source: section 4.3 and appendix E of the paper. Differs: rows that drop out on the way carry their reason.
"""

from collections.abc import Sequence

from star1.calls import Calls, Outcome, ask_rows
from star1.deliberation import split_response
from star1.errors import InputError
from star1.llm import Client, user_request
from star1.parsing import ReplyError, parse_line, parse_scores, parse_thinking
from star1.policies import Pack
from star1.records import Row


def rewrite(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Give each harmful question's harmless look-alike, with the harmful one as `original`."""

    async def handle(client: Client, row: Row) -> Row:
        text = pack.render("benign_rewrite", question=row["question"])
        request = user_request(row["id"], "benign_rewrite", text, pack.prompts["benign_rewrite"].digest)
        question = await client.read(request, parse_line, lambda problem: pack.repair("benign_rewrite", problem))
        if question.casefold().split() == row["question"].casefold().split():
            raise ReplyError("unchanged", "the rewritten question is the harmful one", question)
        return {
            "id": row["id"],
            "question": question,
            "source": row["source"],
            "category": row["category"],
            "original": row["question"],
        }

    return ask_rows("benign rewrite", rows, handle, calls)


def row_limit(text: str) -> int | None:
    """A number of rows as it stands on a command line: `null`, as in params.yaml, means all.

    Raises:
        ValueError: neither null nor a positive whole number.
    """
    if text in ("null", "None"):
        return None
    if (limit := int(text)) < 1:
        raise ValueError(text)
    return limit


def reason(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Add `response`: the model's thinking and answer to the bare question, no policy shown."""

    async def handle(client: Client, row: Row) -> Row:
        text = pack.render("benign_reason", question=row["question"])
        request = user_request(row["id"], "benign_reason", text, pack.prompts["benign_reason"].digest)
        thought = await client.read(request, parse_thinking)
        return {**row, "response": thought.response()}

    return ask_rows("benign reason", rows, handle, calls)


def score(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Add `score`, an integer for each criterion of the rubric for answers to benign questions."""
    rubric = pack.rubrics["benign"]

    async def handle(client: Client, row: Row) -> Row:
        thought = split_response(row)
        text = pack.render(
            "benign_score",
            rubric=rubric.text(),
            question=row["question"],
            thinking=thought.thinking,
            answer=thought.answer,
            reply_format=rubric.reply_format(),
        )
        request = user_request(row["id"], "benign_score", text, pack.prompts["benign_score"].digest)
        scores = await client.read(
            request,
            lambda reply: parse_scores(reply, list(rubric.criteria), rubric.minimum, rubric.maximum),
            lambda problem: pack.repair("benign_score", problem),
        )
        return {**row, "score": scores}

    return ask_rows("benign score", rows, handle, calls)


def keep(rows: Sequence[Row], pack: Pack) -> list[Row]:
    """The rows with full marks on every criterion of the benign rubric, order kept.

    Raises:
        InputError: a row without a score on every criterion.
    """
    rubric = pack.rubrics["benign"]
    for row in rows:
        if set(row["score"]) != set(rubric.criteria):
            raise InputError(f"row {row['id']}", f"scores on {sorted(row['score'])}", f"on {sorted(rubric.criteria)}")
    return [row for row in rows if all(mark == rubric.maximum for mark in row["score"].values())]
