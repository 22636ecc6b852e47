"""What of a run no language model said, and what of it is a sample or a toy: told on every figure of the page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from star1.params import as_list
from star1.records import Row
from star1.report.run import Run

TITLE = "Stand-in results."
SAID = {
    "rules": "rules stood in for language models",
    "toy": "a toy stood in for the base model",
    "sample": "mild samples stood in for public prompt sets and benchmarks",
}
ENDING = "No figure on this page says anything about the safety of any model."
ROLES = {
    "classifier": "named the categories of each prompt",
    "teacher": "wrote the reasoning and the answer",
    "scorer": "gave the marks",
    "rewriter": "wrote the harmless look-alikes",
}
# Which provider is no language model, or not always one.
PROVIDERS = {"stand-in": "rules, no language model", "replay": "released rows, and rules where there is none"}


def found(run: Run) -> list[Row]:
    """Everything that stands in for something else.

    A row has `about` (data or results: which figures rest on it), `kind` (rules, toy or sample), `place` and `what` is in it.
    """
    return [*_roles(run.params), *_judges(run.params), *_models(run.params), *_sets(run.params)]


def released(run: Run) -> list[Row]:
    """What the releases say of their rows, from the stored replies behind each of them."""
    releases = (run.json(name) for name in run.names("release/*/*/release.json"))
    return [
        {"kind": one["kind"], "name": one["name"], "rows": one.get("rows"), "stand_in": one["stand_in"]}
        for one in releases
    ]


def banner(items: Sequence[Row]) -> Row | None:
    """What stands across the page; None where nothing stands in for anything."""
    said = [text for kind, text in SAID.items() if any(one["kind"] == kind for one in items)]
    return {"title": TITLE, "text": f"Here {', '.join(said)}. {ENDING}"} if said else None


def marks(items: Sequence[Row]) -> dict[str, str]:
    """Why figures about data, and about results, are marked; nothing for those that are not."""
    told = {
        about: [f"{one['place']}: {one['what']}" for one in items if one["about"] == about]
        for about in ("data", "results")
    }
    return {about: "Stand-in. " + "; ".join(lines) for about, lines in told.items() if lines}


def _endpoints(params: Mapping[str, Any], names: str | list[str]) -> Iterator[str]:
    """The labels of those endpoints that are no language model."""
    table = params["llm"]["endpoints"]
    for name in as_list(names):
        if table[name]["provider"] in PROVIDERS:
            label, told = table[name]["label"], PROVIDERS[table[name]["provider"]]
            yield label if "no language model" in label else f"{label} ({told})"


def _roles(params: Mapping[str, Any]) -> Iterator[Row]:
    for role, does in ROLES.items():
        for who in _endpoints(params, params["llm"]["roles"][role]):
            yield {"about": "data", "kind": "rules", "place": f"The {role}, who {does}", "what": who}


def _judges(params: Mapping[str, Any]) -> Iterator[Row]:
    used = dict.fromkeys(name for names in params["judge"]["use"].values() for name in names)
    for name in used:
        for who in _endpoints(params, params["judge"]["judges"][name]["endpoint"]):
            yield {"about": "results", "kind": "rules", "place": f"The judge {name}", "what": who}


def _models(params: Mapping[str, Any]) -> Iterator[Row]:
    bases = {run["base"] for run in params["finetune"]["runs"].values()}
    for name in sorted({*bases, *params["generate"]["models"]} & set(params["fetch"]["models"])):
        if params["fetch"]["models"][name]["kind"] == "tiny":
            what = "a toy, pre-trained on the spot, and so are the runs made from it"
            yield {"about": "results", "kind": "toy", "place": f"The base model {name}", "what": what}


def _sets(params: Mapping[str, Any]) -> Iterator[Row]:
    """Bundled samples: prompts written for this project under the names of public sets."""
    for about, table, names in (
        ("data", "sources", params["collect"]["sources"]),
        ("results", "benchmarks", params["generate"]["benchmarks"]),
    ):
        own = [name for name in names if params["fetch"][table][name]["kind"] == "bundled"]
        if own:
            place = "Prompt sets" if about == "data" else "Benchmarks"
            what = f"mild samples written for this project ({', '.join(own)})"
            yield {"about": about, "kind": "sample", "place": place, "what": what}
