"""What a scored row must be before its marks decide anything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from star1.errors import InputError
from star1.policies import Rubric
from star1.records import Row


def score_flaw(score: Any, rubric: Rubric) -> str | None:
    """What keeps a score from being one whole number on each criterion of the rubric, and on nothing else."""
    if not isinstance(score, Mapping):
        return f"score {_shown(score)}; expected marks on {', '.join(rubric.criteria)}"
    if missing := [name for name in rubric.criteria if name not in score]:
        return f"no mark on {missing[0]}; expected one on each of {', '.join(rubric.criteria)}"
    if strange := [name for name in score if name not in rubric.criteria]:
        return f"a mark on {strange[0]!r}; expected only {', '.join(rubric.criteria)}"
    for name, mark in score.items():
        if isinstance(mark, bool) or not isinstance(mark, int) or not rubric.minimum <= mark <= rubric.maximum:
            return f"mark {_shown(mark)} on {name}; expected a whole number from {rubric.minimum} to {rubric.maximum}"
    return None


def row_flaw(row: Row, rubric: Rubric) -> str | None:
    """What is wrong with the fields of a row that selection reads; an empty list of categories is not."""
    for name in ("id", "source"):
        if not isinstance(row.get(name), str) or not row[name]:
            return f"{name} {_shown(row.get(name))}; expected text"
    names = row.get("category")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        return f"category {_shown(names)}; expected a list of names"
    if len(set(names)) < len(names):
        return f"category {_shown(names)}; expected each name once"
    return score_flaw(row.get("score"), rubric)


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_rows(where: str, rows: Sequence[Row], rubric: Rubric) -> None:
    """Refuse rows that selection cannot read: fields or marks that are not what they should be, an id that comes twice.

    Raises:
        InputError: names the first such row, what is wrong with it, and how many rows are like that.
    """
    _refuse(where, rows, [row_flaw(row, rubric) for row in rows])
    check_ids(where, rows)


def check_scores(where: str, rows: Sequence[Row], rubric: Rubric) -> None:
    """As `check_rows`, for rows of which only id and score are read."""
    _refuse(where, rows, [score_flaw(row["score"], rubric) for row in rows])
    check_ids(where, rows)


def _refuse(where: str, rows: Sequence[Row], flaws: Sequence[str | None]) -> None:
    if flawed := [(row, flaw) for row, flaw in zip(rows, flaws, strict=True) if flaw]:
        found, _, expected = flawed[0][1].partition("; expected ")
        more = f" ({len(flawed)} such rows of {len(rows)})" if len(flawed) > 1 else ""
        raise InputError(
            f"{where}, row {flawed[0][0].get('id')}", found + more, expected, "was it scored with this policy pack?"
        )


def check_ids(where: str, rows: Sequence[Row]) -> None:
    """Refuse rows that share an id.

    Raises:
        InputError: names the first id that comes more than once.
    """
    counts = Counter(str(row["id"]) for row in rows)
    if twice := [name for name, count in counts.items() if count > 1]:
        more = f" ({len(twice)} such ids)" if len(twice) > 1 else ""
        raise InputError(f"{where}, row {twice[0]}", f"the id comes {counts[twice[0]]} times{more}", "each once")
