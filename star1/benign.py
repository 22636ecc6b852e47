"""Benign look-alikes of harmful prompts, answered without refusing: what keeps a safety-trained model helpful.

Source: section 4.3 and appendix E of the paper. Differs: rows that drop out on the way carry their reason.
"""

from collections.abc import Sequence

from star1.calls import Calls, Outcome, ask_rows
from star1.deliberation import answered, prompt_request, scored
from star1.llm import Client
from star1.marks import check_scores
from star1.parsing import Parsed, ReplyError, parse_line
from star1.policies import Pack
from star1.records import Row


def rewrite(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Give each harmful question's harmless look-alike, with the harmful one as `original`."""

    async def handle(client: Client, row: Row) -> Row:
        request = prompt_request(pack, "benign_rewrite", row)
        question = await client.read(
            request,
            lambda reply: _changed(parse_line(reply), row["question"]),
            lambda problem: pack.repair("benign_rewrite", problem),
        )
        return {
            "id": row["id"],
            "question": question,
            "source": row["source"],
            "category": row["category"],
            "original": row["question"],
        }

    return ask_rows("benign rewrite", rows, handle, calls)


def _changed(rewritten: Parsed[str], original: str) -> Parsed[str]:
    if rewritten.value.casefold().split() == original.casefold().split():
        raise ReplyError("unchanged", "the rewritten question is the harmful one", rewritten.value, repairable=False)
    return rewritten


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
        return await answered(client, row, prompt_request(pack, "benign_reason", row))

    return ask_rows("benign reason", rows, handle, calls)


def score(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Add `score`, an integer for each criterion of the rubric for answers to benign questions."""

    async def handle(client: Client, row: Row) -> Row:
        return await scored(client, row, pack, "benign_score")

    return ask_rows("benign score", rows, handle, calls)


def keep(rows: Sequence[Row], pack: Pack) -> list[Row]:
    """The rows with full marks on every criterion of the benign rubric, order kept.

    Raises:
        InputError: a row without a score on every criterion and on nothing else, or an id that comes twice.
    """
    rubric = pack.rubric("benign_score")
    check_scores("benign keep", rows, rubric)
    return [row for row in rows if all(mark == rubric.maximum for mark in row["score"].values())]
