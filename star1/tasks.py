"""What a model is asked about a row of a benchmark."""

from star1.records import Row


def prompt_of(row: Row) -> str:
    """The text of the user's turn: the question itself."""
    return str(row["question"])
