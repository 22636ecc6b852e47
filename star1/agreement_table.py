"""The table of agreement: pairs of judges with kappa, its interval, and how many answers both have judged."""

from collections.abc import Mapping, Sequence
from typing import Any

from star1.agreement import ALL, Answer, Options, judges, pairs
from star1.records import Row
from star1.tables import NOTICE, STAND_IN

HEADER = (
    "judges",
    "on",
    "model",
    "benchmark",
    "category",
    "kappa",
    "agreement",
    "n of all",
    "first only",
    "second only",
)


def table(found: Sequence[Answer], options: Options) -> dict[str, Any]:
    """Everything about the agreement of judges."""
    known = judges(found)
    labels = sorted({one["judge"] for one in known if STAND_IN in one["judge"]})
    notice = NOTICE.format(labels=f"verdicts by {', '.join(labels)}") if labels else None
    return {
        "title": "Agreement of judges",
        "notice": notice,
        "confidence": options.confidence,
        "resamples": options.resamples,
        "seed": options.seed,
        "judges": known,
        "pairs": pairs(found, options),
    }


def markdown(result: Mapping[str, Any], disagreeing: int) -> str:
    """The table as Markdown.

    Args:
        result: as `table` gives it.
        disagreeing: how many answers judges disagree on.
    """
    share = f"{100 * result['confidence']:g} %"
    parts = [f"# {result['title']}"]
    parts += [f"**{result['notice']}**"] if result["notice"] else []
    parts.append(
        f"Cohen's kappa [{share} interval by {result['resamples']:,} draws over prompts], and the share of answers that both "
        "judge alike. Only answers that both have judged count; n stands beside all there are."
    )
    parts.append("\n".join(f"- {_judge(one)}" for one in result["judges"]) or "Nothing was judged.")
    if not result["pairs"]:
        return "\n\n".join([*parts, "No two judges judged the same answers."]) + "\n"
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|", *map(_line, result["pairs"])]
    parts.append("\n".join(lines))
    parts.append(f"{disagreeing:,} answers on which judges disagree: results/disagreements.jsonl.")
    return "\n\n".join(parts) + "\n"


def _judge(one: Row) -> str:
    ends = f"; served until {one['retires']}" if one["retires"] else ""
    return f"{one['name']}: {one['kind']} by {one['judge']}, shown the {one['view']}{ends}"


def _line(one: Row) -> str:
    place = [ALL if one[name] is None else one[name] for name in ("model", "benchmark", "category")]
    figures = [_kappa(one), _percent(one["agreement"]), f"{one['n']} of {one['total']}"]
    cells = [f"{one['first']}, {one['second']}", one["question"], *place, *figures]
    return f"| {' | '.join(map(str, [*cells, one['first_only'], one['second_only']]))} |"


def _kappa(one: Row) -> str:
    if one["kappa"] is None:
        return "-"
    return f"{one['kappa']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
