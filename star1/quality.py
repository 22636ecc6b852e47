"""Figures about the quality of data sets: what they are made of, their marks, lengths and wording. Counted, not judged."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from star1 import responses
from star1.parsing import Thought
from star1.records import Row
from star1.stats import rate

# Width of a bin of the length histograms [words], and the bin that takes all that is longer.
BIN, LAST_BIN = 20, 600
PARTS = ("question", "thinking", "answer")
Lines = list[list[Any]]


def describe(rows: Sequence[Row], confidence: float) -> dict[str, Any]:
    """The figures of one data set.

    Args:
        rows: with `question`, `response` and `category`; `score` where there is one.
        confidence: of the intervals around rates.
    """
    thoughts = [found for row in rows if (found := responses.split(row["response"]))]
    n = len(thoughts)
    styles = Counter(responses.style(one.answer) for one in thoughts)

    def share(count: int) -> dict[str, Any]:
        return asdict(rate(count, n, confidence))

    return {
        "rows": len(rows),
        # Neither lengths nor wording are known of these.
        "responses_not_in_two_parts": len(rows) - n,
        "labels": dict(Counter(name for row in rows for name in row["category"]).most_common()),
        "labels_per_row": {str(k): v for k, v in sorted(Counter(len(row["category"]) for row in rows).items())},
        "sources": dict(Counter(row["source"] for row in rows).most_common()),
        "mean_marks": _mean_marks(rows),
        "words": {part: responses.spread(values) for part, values in lengths(rows, thoughts).items()},
        "policy_in_thinking": share(sum(responses.cites(one.thinking) for one in thoughts)),
        "policy_in_answer": share(sum(responses.cites(one.answer) for one in thoughts)),
        "offers_something": share(sum(responses.offers(one.answer) for one in thoughts)),
        "refusal_style": {name: share(styles[name]) for name in responses.STYLES},
    }


def lengths(rows: Sequence[Row], thoughts: Sequence[Thought]) -> dict[str, list[int]]:
    """Words of the questions, and of the thinking and the answer of the responses."""
    return {
        "question": [responses.words(row["question"]) for row in rows],
        "thinking": [responses.words(one.thinking) for one in thoughts],
        "answer": [responses.words(one.answer) for one in thoughts],
    }


def _marks(rows: Sequence[Row]) -> dict[str, Counter[int]]:
    """How often each mark was given, by criterion."""
    found: dict[str, Counter[int]] = {}
    for row in rows:
        for criterion, mark in (row.get("score") or {}).items():
            found.setdefault(criterion, Counter())[mark] += 1
    return found


def _mean_marks(rows: Sequence[Row]) -> dict[str, float]:
    return {
        criterion: sum(mark * count for mark, count in marks.items()) / marks.total()
        for criterion, marks in _marks(rows).items()
    }


def category_lines(sets: Mapping[str, Sequence[Row]]) -> Lines:
    """Table for a plot: how many labels each set has, by category and source."""
    found = Counter(
        (name, category, row["source"]) for name, rows in sets.items() for row in rows for category in row["category"]
    )
    return [["set", "category", "source", "labels"], *([*key, count] for key, count in sorted(found.items()))]


def mark_lines(sets: Mapping[str, Sequence[Row]]) -> Lines:
    """Table for a plot: how often each mark was given, by set and criterion."""
    lines: Lines = [["set", "criterion", "mark", "rows"]]
    for name, rows in sets.items():
        for criterion, marks in _marks(rows).items():
            lines += [[name, criterion, mark, count] for mark, count in sorted(marks.items())]
    return lines


def length_lines(sets: Mapping[str, Sequence[Row]]) -> Lines:
    """Table for a plot: how many texts are how long, by set and part; `words` is where a bin begins."""
    lines: Lines = [["set", "part", "words", "share"]]
    for name, rows in sets.items():
        thoughts = [found for row in rows if (found := responses.split(row["response"]))]
        for part, values in lengths(rows, thoughts).items():
            bins = Counter(min(value // BIN * BIN, LAST_BIN) for value in values)
            lines += [[name, part, start, round(count / len(values), 4)] for start, count in sorted(bins.items())]
    return lines


def wording_lines(figures: Mapping[str, Mapping[str, Any]]) -> Lines:
    """Table for a plot: the shares of responses with certain words, with their intervals."""
    lines: Lines = [["set", "measure", "share", "low", "high"]]
    for name, one in figures.items():
        shares = {
            "policy in the thinking": one["policy_in_thinking"],
            "policy in the answer": one["policy_in_answer"],
            "answer apologises": one["refusal_style"]["apologises"],
            "answer declines": one["refusal_style"]["declines"],
            "answer offers something": one["offers_something"],
        }
        lines += [[name, what, *(share[key] for key in ("value", "low", "high"))] for what, share in shares.items()]
    return lines


def csv_text(lines: Lines) -> str:
    """Lines as CSV."""
    csv.writer(out := io.StringIO(newline=""), lineterminator="\n").writerows(lines)
    return out.getvalue()


def summary(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures in one line."""
    parts = []
    for name, one in figures.items():
        cites, leaks = (100 * (one[f"policy_in_{part}"]["value"] or 0) for part in ("thinking", "answer"))
        parts.append(f"{name} {one['rows']} rows, {cites:.0f} % cite a policy, in {leaks:.0f} % it is in the answer")
    return "; ".join(parts)
