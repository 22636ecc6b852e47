"""Charts as Vega-Lite specifications, written through Altair; colours and type come from the page, for light and dark.

Each is `{"spec", "title", "note", "says"}`: `says` tells in words what it shows, for those who do not see it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from star1.records import Row

# Beyond this ratio of the largest to the smallest, bars of one scale hide the small ones.
HIDDEN = 60
# Series that are told apart by colour.
COLOURS = 6
# Columns of a heatmap that leave room for numbers.
MOST_NUMBERED = 9


def chart(made: Any, title: str, says: str, note: str | None = None) -> Row:
    """A chart with its texts."""
    spec = made.properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding")).to_dict()
    for key in ("config", "$schema"):  # the page has its own
        spec.pop(key, None)
    return {"spec": spec, "title": title, "note": note, "says": says}


def funnel(steps: Sequence[Row]) -> Row:
    """Rows left after each step, from all that was read to the final data set."""
    counts = [one["rows"] for one in steps if one["rows"]]
    far = max(counts) > HIDDEN * min(counts) if counts else False
    rows = [{key: one[key] for key in ("step", "short", "name", "rows", "dropped")} for one in steps]
    tips = [
        alt.Tooltip("name:N", title="step"),
        alt.Tooltip("rows:Q", format=","),
        alt.Tooltip("dropped:Q", format=","),
    ]
    base = alt.Chart(alt.InlineData(rows)).encode(y=alt.Y("short:N", sort=None, title=None))
    # Room for the numbers behind the bars.
    widest = 1.2 * max(counts, default=1)
    scale = alt.Scale(type="symlog", domain=[0, widest**1.2]) if far else alt.Scale(domain=[0, widest], nice=False)
    x = alt.X(
        "rows:Q", scale=scale, title="rows" + (", on a logarithmic scale" if far else ""), axis=alt.Axis(tickCount=5)
    )
    bars = base.mark_bar(height={"band": 0.7}, cursor="pointer").encode(x=x, tooltip=tips)
    labels = base.mark_text(align="left", dx=4).encode(x=x, text=alt.Text("rows:Q", format=","))
    said = f"From {rows[0]['rows']:,} rows read to {rows[-1]['rows']:,} in the final data set, step by step."
    made = (bars + labels).properties(width="container", height=26 * len(rows))
    return chart(made, "Rows left after each step", said)


def percent(**options: Any) -> alt.Axis:
    """An axis of shares, in percent."""
    return alt.Axis(format=".0%", tickCount=5, **options)


def heatmap(rows: Sequence[Row], categories: Sequence[str], sources: Sequence[str], name: str) -> Row:
    """How many labels each category has in each prompt set."""
    tips = [alt.Tooltip("category:N"), alt.Tooltip("source:N", title="prompt set"), alt.Tooltip("labels:Q", format=",")]
    bare = {"domain": False, "ticks": False}
    base = alt.Chart(alt.InlineData(list(rows))).encode(
        x=alt.X("source:N", sort=list(sources), title=None, axis=alt.Axis(labelAngle=-40, orient="top", **bare)),
        y=alt.Y("category:N", sort=list(categories), title=None, axis=alt.Axis(**bare)),
        tooltip=tips,
    )
    color = alt.Color("labels:Q", legend=None, scale=alt.Scale(domainMin=0))
    layers = [base.mark_rect(strokeWidth=0).encode(color=color)]
    if len(sources) <= MOST_NUMBERED:
        layers.append(base.mark_text().encode(text=alt.Text("labels:Q", format=",")))
    # To the right the last column's name leans out of the plot, which the fitted width does not count.
    padding = {"left": 5, "top": 5, "bottom": 5, "right": 16}
    made = alt.layer(*layers).properties(width="container", height=28 * len(categories), padding=padding)
    top = max(rows, key=lambda row: row["labels"], default=None)
    said = f"{len(categories)} categories in {len(sources)} prompt sets"
    said += f"; the largest cell is {top['category']} in {top['source']} with {top['labels']:,} labels." if top else "."
    note = "A row with several categories counts in each."
    return chart(made, f"Categories by prompt set: {name}", said, note) | {"columns": len(sources)}


def marks(rows: Sequence[Row], criterion: str, scale: range) -> Row:
    """How often each mark of the scale was given on one criterion."""
    tips = [alt.Tooltip("mark:O"), alt.Tooltip("rows:Q", format=","), alt.Tooltip("share:Q", format=".1%")]
    made = (
        alt.Chart(alt.InlineData(list(rows)))
        .mark_bar()
        .encode(
            x=alt.X("mark:O", scale=alt.Scale(domain=list(scale)), title="mark", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("share:Q", axis=percent(), scale=alt.Scale(domain=[0, 1]), title="share of rows"),
            tooltip=tips,
        )
        .properties(width="container", height=150)
    )
    said = ", ".join(f"{row['mark']}: {row['rows']:,} rows" for row in rows)
    return chart(made, criterion.replace("_", " "), f"Marks on {criterion.replace('_', ' ')}. {said}.")


def lengths(rows: Sequence[Row], part: str, width: int) -> Row:
    """Words of one part of the rows, as shares."""
    tips = [alt.Tooltip("range:N", title="words"), alt.Tooltip("share:Q", format=".1%")]
    made = (
        alt.Chart(alt.InlineData(list(rows)))
        .mark_bar(binSpacing=1)
        .encode(
            x=alt.X("words:Q", bin="binned", title="words", scale=alt.Scale(domainMin=0), axis=alt.Axis(tickCount=6)),
            x2="end:Q",
            y=alt.Y("share:Q", axis=percent(), title="share of rows"),
            tooltip=tips,
        )
        .properties(width="container", height=150)
    )
    said = ", ".join(f"{row['range']} words: {100 * row['share']:.0f} %" for row in rows[:12])
    return chart(made, part.capitalize(), f"Lengths of the {part}, in steps of {width} words. {said}.")


def coloured(field: str, names: Sequence[str], shown: Sequence[str]) -> alt.Color:
    """A colour for each of all `names`, so that it is the same in every chart; the legend has those that are shown."""
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(names)), title=None, legend=legend(names, shown))


def legend(names: Sequence[str], shown: Sequence[str]) -> alt.Legend | None:
    """The legend of a chart, where there is something to be told apart."""
    # How many stand beside each other depends on the width, which the page knows.
    return alt.Legend(orient="top", values=list(shown)) if 1 < len(shown) <= 2 * COLOURS else None


def dots(
    rows: Sequence[Row],
    *,
    y: str,
    order: Sequence[str],
    series: str,
    names: Sequence[str],
    title: str,
    said: str,
    note: str | None = None,
) -> Row:
    """Shares with their intervals.

    Args:
        rows: value, low and high; and who they are about.
        y: field with a line of the chart for each of its values.
        order: these values.
        series: field with a colour for each of its values.
        names: these values, also those that have no row here.
        title: of the chart.
        said: what it shows, in words.
        note: what is to be known about it.
    """
    shown = [name for name in names if any(row[series] == name for row in rows)]
    offset = {"yOffset": alt.YOffset(f"{series}:N", sort=shown)} if len(shown) > 1 else {}
    axis = alt.Axis(grid=False, ticks=False, domain=False, offset=8)  # a point at 0 % keeps clear of the names
    base = alt.Chart(alt.InlineData(list(rows))).encode(
        y=alt.Y(f"{y}:N", sort=list(order), title=None, axis=axis, scale=alt.Scale(paddingInner=0.4, paddingOuter=0.2)),
        color=coloured(series, names, shown),
        **offset,
    )
    x = alt.X("low:Q", axis=percent(), scale=alt.Scale(domain=[0, 1]), title=None)
    lines = base.mark_rule(strokeWidth=2, opacity=0.55).encode(x=x, x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("value:Q", title=None), tooltip=_tips(rows, (series, y))
    )
    height = len(order) * max(26, 11 * len(shown) + 14)
    return chart((lines + points).properties(width="container", height=height), title, said, note)


def _tips(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[alt.Tooltip]:
    tips = [alt.Tooltip(f"{name}:N") for name in names]
    tips += [alt.Tooltip("value:Q", format=".1%", title="rate"), alt.Tooltip("low:Q", format=".1%", title="from")]
    tips.append(alt.Tooltip("high:Q", format=".1%", title="to"))
    return tips + ([alt.Tooltip("scored:N")] if rows and "scored" in rows[0] else [])


def frontier(
    rows: Sequence[Row], names: Sequence[str], titles: tuple[str, str], said: str, title: str, note: str
) -> Row:
    """Two rates of each model against each other, both with their intervals; `names` are all models of the run."""
    shown = [row["model"] for row in rows]
    base = alt.Chart(alt.InlineData(list(rows))).encode(color=coloured("model", names, shown))
    x, y = (
        kind(f"{axis}:Q", axis=percent(), scale=alt.Scale(domain=[0, 1]), title=two_lines(told))
        for kind, axis, told in ((alt.X, "x", titles[0]), (alt.Y, "y", titles[1]))
    )
    across = base.mark_rule(strokeWidth=2, opacity=0.5).encode(
        x=alt.X("x_low:Q", title=two_lines(titles[0])), x2="x_high:Q", y=y
    )
    along = base.mark_rule(strokeWidth=2, opacity=0.5).encode(
        x=x, y=alt.Y("y_low:Q", title=two_lines(titles[1])), y2="y_high:Q"
    )
    tips = [
        alt.Tooltip("model:N"),
        alt.Tooltip("x:Q", format=".1%", title=titles[0]),
        alt.Tooltip("y:Q", format=".1%", title=titles[1]),
    ]
    shape = alt.Shape("model:N", scale=alt.Scale(domain=list(names)), title=None, legend=legend(names, shown))
    points = base.mark_point(filled=True, size=110, opacity=1).encode(x=x, y=y, shape=shape, tooltip=tips)
    layers = [across, along, points]
    if len(names) > COLOURS:  # more than colours tell apart
        layers.append(base.mark_text(align="left", dx=8, dy=-6).encode(x=x, y=y, text="model:N"))
    return chart(alt.layer(*layers).properties(width="container", height=300), title, said, note)


def two_lines(title: str) -> list[str]:
    """The title of an axis in two lines: the measure, and where it was measured."""
    measure, comma, where = title.rpartition(", ")
    return [f"{measure},", where] if comma else [title]


def losses(rows: Sequence[Row], names: Sequence[str], said: str, note: str | None) -> Row:
    """Loss over the updates of each run; `names` are all models."""
    there = {row["run"] for row in rows}
    shown = [name for name in names if name in there]
    made = (
        alt.Chart(alt.InlineData(list(rows)))
        .mark_line(strokeWidth=1.5, clip=True)
        .encode(
            x=alt.X("update:Q", title="update", axis=alt.Axis(tickCount=6, grid=False)),
            y=alt.Y("loss:Q", title="loss [nats a token]", scale=alt.Scale(domainMin=0)),
            color=coloured("run", names, shown),
            tooltip=[alt.Tooltip("run:N"), alt.Tooltip("update:Q"), alt.Tooltip("loss:Q", format=".3f")],
        )
        .properties(width="container", height=260)
    )
    return chart(made, "Loss while fine-tuning", said, note)


def ladder(rows: Sequence[Row], steps: Sequence[str], benchmarks: Sequence[str], model: str, said: str) -> Row:
    """Rates of one model at each step of the protocol ladder."""
    base = alt.Chart(alt.InlineData(list(rows))).encode(
        x=alt.X("step:N", sort=list(steps), title=None, axis=alt.Axis(labelAngle=-30)),
        color=coloured("benchmark", benchmarks, benchmarks),
        xOffset=alt.XOffset("benchmark:N", sort=list(benchmarks)),
    )
    y = alt.Y("low:Q", axis=percent(), scale=alt.Scale(domain=[0, 1]), title=None)
    lines = base.mark_rule(strokeWidth=2, opacity=0.55).encode(y=y, y2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=alt.Y("value:Q", title=None), tooltip=_tips(rows, ("step", "benchmark"))
    )
    return chart((lines + points).properties(width="container", height=260), model, said)
