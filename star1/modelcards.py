"""The card of a fine-tuned model: what it was made from, how, and what was measured on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from star1 import tables
from star1.cards import TAGS, banner, citation, grid, header, limits


@dataclass(frozen=True)
class ModelFacts:
    """What a model card tells.

    Attributes:
        run: name of the run.
        manifest: of its checkpoint.
        base: name of the base model, and the manifest of its checkpoint.
        licence: the card's licence fields.
        data: names of the training sets.
        result: the main table.
        stand_in: what no language model made, in words.
    """

    run: str
    manifest: Mapping[str, Any]
    base: tuple[str, Mapping[str, Any]]
    licence: Mapping[str, str]
    data: Sequence[str]
    result: Mapping[str, Any]
    stand_in: Sequence[str]


def model_card(facts: ModelFacts) -> str:
    """The card of a model."""
    parts = [
        header(_header(facts)),
        f"# {facts.run}",
        *banner(facts.stand_in),
        f"{facts.base[0]}, fine-tuned on {' and '.join(facts.data)} to reason over a written policy before it answers.",
        _training(facts),
        _results(facts),
        _files(facts.manifest),
        limits("model"),
        citation(),
    ]
    return "\n\n".join(parts) + "\n"


def _header(facts: ModelFacts) -> dict[str, Any]:
    record = facts.base[1].get("record", {})
    base = {"base_model": record["repository"], "base_model_relation": "finetune"} if "repository" in record else {}
    return {
        **facts.licence,
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*TAGS, *(["stand-in"] if facts.stand_in else [])],
        **base,
    }


def _training(facts: ModelFacts) -> str:
    record, base = facts.manifest["record"], facts.base[1]
    revision = base.get("record", {}).get("commit")
    origin = f"{facts.base[0]} ({base['kind']}" + (f", commit {revision})" if revision else ")")
    rows: list[tuple[str, object]] = [
        ("base", origin),
        ("manifest of the base, SHA-256", f"`{record['base']['manifest_sha256']}`"),
        *((f"data: {one['file']}", f"{one['rows']:,} rows, SHA-256 `{one['sha256']}`") for one in record["data"]),
        ("rows used", record["rows"]["used"]),
        ("rows left out", ", ".join(f"{why} {count}" for why, count in record["rows"]["dropped"].items()) or "none"),
        ("updates", record["updates"]),
        ("tokens that count for the loss", record["target_tokens"]),
        ("loss, first and last update", f"{record['loss']['first']:.3f}, {record['loss']['last']:.3f}"),
        *((name, str(value).lower()) for name, value in record["settings"].items()),
        ("what is trained", _tier(record.get("adapter"))),
        ("made with", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]
    return "## Training\n\n" + grid(["", ""], rows)


def _tier(adapter: Mapping[str, Any] | None) -> str:
    """What of the model is trained, in words."""
    if adapter is None:
        return "all weights"
    own = ", ".join(f"{name} {value}" for name, value in adapter.items() if name != "tier")
    base = "a base of four bits" if adapter["tier"] == "qlora" else "the base"
    return f"adapters beside {base} ({own}), added to its weights at the end; they lie in `adapter/`, too"


def _results(facts: ModelFacts) -> str:
    """The rows of the main table about the model and its base, each rate with its interval, n and coverage."""
    models = (facts.base[0], facts.run)
    cells = [one for one in facts.result["cells"] if one["model"] in models]
    if not any(one["model"] == facts.run for one in cells):
        return "## Results\n\nThis model was not evaluated in the run that made it."
    judges = sorted({name for one in cells for name in one["judges"]})
    text = tables.markdown({**facts.result, "title": "Results", "cells": cells}).strip()
    return f"#{text}\n\nJudged by: {', '.join(judges)}."


def _files(manifest: Mapping[str, Any]) -> str:
    rows = [[f"`{name}`", one["bytes"], f"`{one['sha256']}`"] for name, one in manifest["files"].items()]
    return "## Files\n\n" + grid(["file", "bytes", "SHA-256"], rows)
