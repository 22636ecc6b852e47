"""Deliberation over the policies: name a prompt's categories, reason over their texts, score the reasoning.

Source: sections 2.2 and 2.3 of the paper. Differs: a prompt of no category is set aside with its reason instead of
ending the run; replies that were cut off or cannot be read are set aside and counted.
"""

from collections.abc import Sequence

from star1.calls import Calls, Outcome, ask_rows
from star1.errors import InputError
from star1.llm import Client, Request, user_request
from star1.parsing import ReplyError, Thought, parse_categories, parse_scores, parse_thinking
from star1.policies import Pack
from star1.records import Row
from star1.replies import Reply

NO_POLICY = "no policy of the pack applies"


def categorize(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Add `category`, a list of the pack's names or its word for none of them alone."""

    async def handle(client: Client, row: Row) -> Row:
        request = prompt_request(pack, "categorize", row, definitions=pack.definitions())
        names = await client.read(
            request,
            lambda reply: parse_categories(reply, pack.names, pack.other),
            lambda problem: pack.repair("categorize", problem),
        )
        return {**row, "category": names}

    return ask_rows("categorize", rows, handle, calls)


def reason(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Add `response`: the model's thinking over the policies of the row's categories, and its answer.

    A row of no category has no policy to reason over: it goes to quarantine, and does not count for coverage.
    """

    async def handle(client: Client, row: Row) -> Row:
        if row["category"] == [pack.other]:
            raise ReplyError(NO_POLICY, f"the classifier answered {pack.other!r}")
        return await answered(client, row, prompt_request(pack, "reason", row, policies=row_policies(row, pack)))

    return ask_rows("reason", rows, handle, calls, frozenset({NO_POLICY}))


async def answered(client: Client, row: Row, request: Request) -> Row:
    """The row with `response`, the thinking and answer that `request` asks for."""
    # Not repaired: a second turn would show the model its first attempt, which no trainee will see.
    thought = await client.read(request, parse_thinking)
    return {**row, "response": thought.response()}


def score(rows: Sequence[Row], pack: Pack, calls: Calls) -> Outcome:
    """Add `score`, an integer for each criterion of the rubric for policy reasoning."""

    async def handle(client: Client, row: Row) -> Row:
        return await scored(client, row, pack, "score", policies=row_policies(row, pack))

    return ask_rows("score", rows, handle, calls)


async def scored(client: Client, row: Row, pack: Pack, prompt: str, **values: str) -> Row:
    """The row with `score`, an integer for each criterion of the prompt's rubric."""
    rubric, thought = pack.rubric(prompt), split_response(row)
    request = prompt_request(
        pack,
        prompt,
        row,
        rubric=rubric.text(),
        thinking=thought.thinking,
        answer=thought.answer,
        reply_format=rubric.reply_format(),
        **values,
    )
    scores = await client.read(
        request,
        lambda reply: parse_scores(reply, list(rubric.criteria), rubric.minimum, rubric.maximum),
        lambda problem: pack.repair(prompt, problem),
    )
    return {**row, "score": scores}


def prompt_request(pack: Pack, prompt: str, row: Row, **values: str) -> Request:
    """A row's question within a prompt of the pack."""
    text = pack.render(prompt, question=row["question"], **values)
    return user_request(row["id"], prompt, text, pack.prompts[prompt].digest)


def row_policies(row: Row, pack: Pack) -> str:
    """The policy texts of a row's categories.

    Raises:
        InputError: a category that is not in the pack.
    """
    if unknown := [name for name in row["category"] if name not in pack.policies]:
        raise InputError(f"row {row['id']}", f"category {unknown[0]!r}", "the categories of the policy pack")
    return pack.policy_texts(row["category"])


def split_response(row: Row) -> Thought:
    """Thinking and answer of a row's `response`.

    Raises:
        InputError: a response that is not of the form `<think>…</think>` and an answer.
    """
    try:
        return parse_thinking(Reply(row["response"], finish_reason="stop")).value
    except ReplyError as error:
        raise InputError(
            f"row {row['id']}", f"a response with {error.detail}", "<think>…</think> and an answer"
        ) from None
