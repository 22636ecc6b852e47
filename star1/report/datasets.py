"""Data: what the sets are made of. Every figure is one of the stage `describe`; here they only find their place."""

from collections.abc import Collection, Iterator

from star1.params import read_yaml
from star1.quality import BIN, LAST_BIN
from star1.records import Row
from star1.report import charts
from star1.report.run import Run

PARTS = ("question", "thinking", "answer")
ABOUT = {
    "scored": "all rows with marks",
    "star1": "the final data set",
    "benign": "harmless look-alikes",
}
WORDING = {
    "policy_in_thinking": "policy cited in the thinking",
    "policy_in_answer": "policy leaks into the answer",
    "offers_something": "answer offers something",
}


def data(run: Run) -> dict[str, object]:
    """Data files of the section: figures of all sets together, and the charts of each in a file of its own."""
    quality, published = run.json("results/metrics/quality.json"), run.params["fetch"]["published"]
    categories = run.csv("results/plots/categories.csv")
    names = list(quality)
    scales = {name: _scale(run, name, quality[name]) for name in names}
    wording = list(_wording(quality))
    order = list(dict.fromkeys(row["measure"] for row in wording))
    told = {
        "sets": [
            {"name": name, "published": name in published, "about": _about(name, published), **_counts(quality[name])}
            | {"highest": dict.fromkeys(quality[name]["mean_marks"], scales[name].stop - 1)}
            for name in names
        ],
        "confidence": run.params["summarize"]["confidence"],
        "wording": wording,
        "chart": charts.dots(
            wording,
            y="measure",
            order=order,
            series="set",
            names=names,
            title="Wording of thinking and answers",
            said=f"Shares of rows by wording, in the sets {', '.join(names)}.",
            note="Key words decide, not a language model.",
        ),
    }
    files: dict[str, object] = {"data": told}
    for name in names:
        files[f"data/{name}"] = {
            "heatmap": _heatmap(run, name, [row for row in categories if row["set"] == name]),
            "categories": [row for row in _labels(categories) if row["set"] == name],
            "marks": _marks(run, name, quality[name], scales[name]),
            "lengths": _lengths(run, name),
        }
    return files


def _about(name: str, published: Collection[str]) -> str:
    return "released by others" if name in published else ABOUT.get(name, f"selection {name}")


def _scale(run: Run, name: str, about: Row) -> range:
    """The marks that can be given: of the rubric with these criteria, or else up to the highest that was."""
    pack = read_yaml(run.path(f"policies/{run.params['policy']['pack']}/policy.yaml"))
    for rubric in pack["rubrics"].values():
        if set(rubric["criteria"]) == set(about["mean_marks"]):
            return range(rubric["minimum"], rubric["maximum"] + 1)
    given = [int(row["mark"]) for row in run.csv("results/plots/marks.csv") if row["set"] == name]
    return range(max(given, default=0) + 1)


def _counts(one: Row) -> Row:
    kept = ("rows", "responses_not_in_two_parts", "mean_marks", "words", "labels_per_row", "sources")
    return {key: one[key] for key in kept}


def _wording(quality: Row) -> Iterator[Row]:
    """Shares of rows in which something is said, set by set."""
    for name, one in quality.items():
        shares = [(told, one[key]) for key, told in WORDING.items()]
        shares += [(f"refusal: {style}", share) for style, share in one["refusal_style"].items()]
        for told, share in shares:
            yield {"set": name, "measure": told, **share, "scored": f"{share['count']:,} of {share['n']:,}"}


def _labels(rows: list[dict[str, str]]) -> list[Row]:
    return [{**row, "labels": int(row["labels"])} for row in rows]


def _heatmap(run: Run, name: str, rows: list[dict[str, str]]) -> Row:
    counts = {(row["category"], row["source"]): row["labels"] for row in _labels(rows)}
    totals: dict[str, int] = {}
    for (category, _), labels in counts.items():
        totals[category] = totals.get(category, 0) + labels
    categories = sorted(totals, key=lambda one: (-totals[one], one))
    there = {source for _, source in counts}
    sources = [one for one in run.params["collect"]["sources"] if one in there]
    sources += sorted(there - set(sources))
    cells = [
        {"category": category, "source": source, "labels": counts.get((category, source), 0)}
        for category in categories
        for source in sources
    ]
    return charts.heatmap(cells, categories, sources, name)


def _marks(run: Run, name: str, about: Row, scale: range) -> list[Row]:
    """Charts of the marks, one a criterion."""
    found: dict[str, list[Row]] = {}
    for row in run.csv("results/plots/marks.csv"):
        if row["set"] == name:
            count = int(row["rows"])
            told = {"mark": int(row["mark"]), "rows": count, "share": count / about["rows"]}
            found.setdefault(row["criterion"], []).append(told)
    made = []
    for criterion, rows in found.items():
        one = charts.marks(rows, criterion, scale)
        mean = about["mean_marks"].get(criterion)
        made.append(one | {"note": None if mean is None else f"mean {mean:.2f} of {scale.stop - 1}", "rows": rows})
    return made


def _lengths(run: Run, name: str) -> list[Row]:
    """Charts of the lengths, one a part of the rows."""
    lines = [row for row in run.csv("results/plots/lengths.csv") if row["set"] == name]
    made = []
    for part in PARTS:
        own = sorted((int(row["words"]), float(row["share"])) for row in lines if row["part"] == part)
        rows = [
            {
                "words": start,
                "end": start + BIN,
                "share": share,
                "range": f"{start} or more" if start >= LAST_BIN else f"{start} to {start + BIN - 1}",
            }
            for start, share in own
        ]
        if rows:
            made.append(charts.lengths(rows, part, BIN) | {"rows": rows})
    return made
