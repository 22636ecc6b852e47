"""The page of the main table: cells, averages, seeds, pass@k, other judges, and what is known of contamination."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from star1 import tables
from star1.records import Row
from star1.tables_pages import Block, latex_blocks, markdown_blocks

# Items from which on rates are covered as they should be, whatever they are from 0.05 to 0.95 (tests/test_stats_means.py).
ENOUGH = 164
FEWEST = 30
FEW = (
    f"{FEWEST} to {ENOUGH - 1} items with a verdict ({{names}}): a rate takes few values there, and nominal 95 % intervals hold "
    "the true one in 92 to 98 % of samples; with several samples of an item in 93 % or more (docs/statistics.md)."
)
# By enumeration over true rates from 0.05 to 0.95: at one item, and at 5.
FEWER = (
    f"Fewer than {FEWEST} items with a verdict ({{names}}): nominal 95 % intervals hold the true rate in as few as 79 % of "
    "samples, from 5 items on in 89 % or more."
)


def markdown(result: Mapping[str, Any]) -> str:
    """The main table as Markdown."""
    return (
        "\n\n".join([tables.markdown(result).rstrip(), *markdown_blocks([*_blocks(result)]), *footnotes(result)]) + "\n"
    )


def latex(result: Mapping[str, Any]) -> str:
    """The main table as LaTeX."""
    notes = [f"{tables.escape(note)}\\par" for note in footnotes(result)]
    return "\n\n".join([tables.latex(result).rstrip(), *latex_blocks([*_blocks(result)]), *notes]) + "\n"


def counts(one: Row) -> str:
    """How many of all are scored, and the coverage."""
    return f"{one['n']}/{one['total']} ({tables.whole_coverage(one)}%)"


def _blocks(result: Mapping[str, Any]) -> Iterator[Block]:
    level = f"{100 * result['confidence']:g} %"
    if result["averages"]:
        below = f"Unweighted means of the benchmarks' rates; {level} intervals from those of the rates (docs/statistics.md)."
        yield Block(["Average", "model", "mean", "scored"], [_average(one) for one in result["averages"]], below)
    if result["seeds"]:
        lines = [[one["model"], one["benchmark"], tables.interval(one), _spread(one)] for one in result["seeds"]]
        yield Block(["Seeds together", "benchmark", "mean", "seeds: lowest to highest"], lines, _about_seeds(level))
    if result["passes"]:
        lines = [
            [f"pass@{one['k']}", one["model"], one["benchmark"], tables.interval(one), counts(one)]
            for one in result["passes"]
        ]
        below = "n: problems with at least k scored samples."
        yield Block(["Any of k samples correct", "model", "benchmark", "chance", "problems"], lines, below)
    if result["others"]:
        lines = [
            [one["judge"], one["model"], one["benchmark"], one["measure"], tables.interval(one), counts(one)]
            for one in result["others"]
        ]
        yield Block(["Further judge", "model", "benchmark", "measure", "rate", "scored"], lines)


def _about_seeds(level: str) -> str:
    return f"{level} intervals over the benchmark's items, each the mean of its seeds; they say nothing of other seeds."


def _average(one: Row) -> list[str]:
    if one["value"] is None:
        return [one["average"], one["model"], "-", one["why"]]
    return [f"{one['average']} ({', '.join(one['benchmarks'])})", one["model"], tables.interval(one), counts(one)]


def _spread(one: Row) -> str:
    spread = one["spread"]
    told = f"{tables.percent(spread.get('lowest'))} to {tables.percent(spread.get('highest'))}"
    deviation = spread.get("standard_deviation")
    return f"{told} over {one['seeds']}" + ("" if deviation is None else f", deviation {100 * deviation:.1f}")


def footnotes(result: Mapping[str, Any]) -> list[str]:
    """What intervals of few items hold, and what `screen` found near each benchmark, a line each."""
    bounds = ((FEW, FEWEST, ENOUGH), (FEWER, 1, FEWEST))
    found = [told.format(names=", ".join(names)) for told, *ends in bounds if (names := _of_size(result, *ends))]
    known: Mapping[str, Mapping[str, Row]] = result["contamination"]
    if not known:
        return found
    lines = [f"- {name}: {_near(sets)}." for name, sets in known.items()]
    return [
        *found,
        "Contamination, rows of each training set near a row of the benchmark (of them the same text):",
        "\n".join(lines),
    ]


def _of_size(result: Mapping[str, Any], least: int, below: int) -> list[str]:
    """Benchmarks by how few of their items have a verdict at one model at least."""
    fewest: dict[str, int] = {}
    for one in result["cells"]:
        if one["n"] and one["benchmark"] != tables.POOLED:
            scored = min(one["items"], -(-one["n"] // one["samples"]))
            fewest[one["benchmark"]] = min(scored, fewest.get(one["benchmark"], scored))
    return [name for name, scored in fewest.items() if least <= scored < below]


def _near(sets: Mapping[str, Row]) -> str:
    if not sets:
        return "no training set has a row near to it"
    return "; ".join(
        f"{name} {one['any']} of {one['rows']} ({one['exact']}), near {one['benchmark_rows']} of its rows"
        for name, one in sets.items()
    )


def summary(result: Mapping[str, Any], paired: Sequence[Row]) -> str:
    """What was made, in a line."""
    return f"summarize: {tables.summary(result)}; {len(paired)} paired comparisons"
