"""The table of an audit as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from star1.records import Row

HEADS = {
    "strata": ("stratum", "answers", "drawn", "labelled"),
    "judges": ("on", "judge", "question", "labelled of", "kappa", "sensitivity", "specificity"),
    "people": ("on", "question", "people", "labelled by both", "agree", "kappa"),
    "rates": ("on", "judge", "question", "model", "benchmark", "n", "raw", "corrected"),
}


def markdown(result: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    share = f"{100 * result['confidence']:g} %"
    parts = [f"# {result['title']}"]
    parts += [f"**{result['notice']}**"] if result["notice"] else []
    parts.append(
        f"Sample {result['sample']!r}, labelled by {len(result['annotators'])}. Each answer is weighted by the inverse of its "
        f"chance to be drawn. In brackets: {share} intervals ({result['resamples']:,} draws). Sensitivity: of what people "
        "call the first word, the share that the judge does; specificity: the same of the second word."
    )
    parts.append(_lines("strata", [[one["stratum"], *_counts(one)] for one in result["strata"]]))
    parts.append(_lines("judges", [_judge_line(one) for one in result["judges"]]))
    if result["people"]:
        parts.append(_lines("people", [_people_line(one) for one in result["people"]]))
    parts.append("Rates by the judge alone, and corrected for its errors (Rogan-Gladen):")
    parts.append(_lines("rates", [_rate_line(one, result) for one in result["rates"]]))
    return "\n\n".join(parts) + "\n"


def _counts(one: Row) -> list[str]:
    return [f"{one['population']:,}", f"{one['sampled']:,}", f"{one['labelled']:,}"]


def _lines(name: str, rows: Sequence[Sequence[object]]) -> str:
    head = HEADS[name]
    return "\n".join(
        [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
    )


def _judge_line(one: Row) -> list[str]:
    question = f"{one['yes']} or {one['no']}"
    count = f"{one['labelled']:,} of {one['population']:,}" + (f" ({one['unclear']} unclear)" if one["unclear"] else "")
    figures = [_percent(one[name]) for name in ("sensitivity", "specificity")]
    return [one["purpose"], one["judge"], question, count, _plain(one["kappa"]), *figures]


def _people_line(one: Row) -> list[str]:
    pair = f"{one['first']}, {one['second']}"
    return [one["purpose"], one["question"], pair, str(one["n"]), str(one["agree"]), _plain(one["kappa"])]


def _rate_line(one: Row, result: Mapping[str, Any]) -> list[str]:
    word = next(
        row["yes"] for row in result["judges"] if row["judge"] == one["judge"] and row["question"] == one["question"]
    )
    return [
        one["purpose"],
        one["judge"],
        word,
        one["model"],
        one["benchmark"],
        f"{one['n']:,}",
        _percent(one["raw"]),
        _percent(one["corrected"]),
    ]


def _plain(one: Row) -> str:
    if one["value"] is None:
        return f"- ({one['note']})"
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" + (f" ({one['note']})" if one["note"] else "")


def _percent(one: Row) -> str:
    if one["value"] is None:
        return f"- ({one['note']})"
    low, high = (100 * one[end] for end in ("low", "high"))
    return f"{100 * one['value']:.1f} % [{low:.1f}, {high:.1f}]" + (f" ({one['note']})" if one["note"] else "")
