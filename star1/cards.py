"""What the cards of a release share: Markdown under the YAML header that the Hugging Face hub reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from star1 import licences
from star1.stats import rate

STAND_IN_BANNER = "Made with a rule-based stand-in; says nothing about any model"
TAGS = ["safety", "alignment", "reasoning", "chain-of-thought", "policy-deliberation"]
CITATION = """@misc{star1paper,
  title = {STAR-1: Safer Alignment of Reasoning LLMs with 1K Data},
  author = {{The STAR-1 authors}},
  year = {2025},
  eprint = {2504.01903},
  archivePrefix = {arXiv}
}"""
ABOUT = {
    "star-41k": "Prompts of harm from several public sets, deduplicated and decontaminated, each with its categories, an "
    "answer that was reasoned over a written policy, and marks for that answer.",
    "star-1": "A small set for safety tuning of reasoning models: the rows of the scored set with full marks, balanced over "
    "sources and categories.",
    "star-benign": "Harmless look-alikes of the prompts of the final data set, with helpful answers, against over-refusal.",
}
LIMITS = {
    "data": (
        "The prompts ask for harm, by purpose. The answers are a model's, not a person's: nobody has read them all.",
        "Marks come from one judge under one rubric. Full marks say that this judge found nothing, and a judge that finds "
        "nothing anywhere is saturated.",
        "Categories and policies are those of one policy pack, in English; what it does not name is not in the data.",
        "Near-duplicates are removed down to the thresholds in params.yaml, which leaves paraphrases.",
    ),
    "model": (
        "A rate of refusal on a few benchmarks is no proof of safety. The intervals tell chance alone, not what the "
        "benchmarks leave out.",
        "Fine-tuning on refusals teaches refusal: look at the over-refusal beside it.",
        "Verdicts are those of one judge. What it could not score is left out of the rates, and counted in the coverage.",
    ),
}


@dataclass(frozen=True)
class Stage:
    """One narrowing of the rows: how many went in and stayed, and why others did not."""

    name: str
    came: int
    stayed: int
    reasons: Mapping[str, int]


def header(values: Mapping[str, Any]) -> str:
    """The card's YAML header."""
    return "---\n" + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=1000) + "---"


def grid(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    text = f"{value:,}" if type(value) is int else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def licence_fields(names: Sequence[str]) -> dict[str, str]:
    """The licence fields of a header: one word of the hub, or `other` with a name and where the terms stand."""
    word = licences.combined(names)
    return (
        {"license": word}
        if word != licences.OTHER
        else {"license": word, "license_name": "by-part", "license_link": "LICENSE.md"}
    )


def banner(reasons: Sequence[str]) -> list[str]:
    """The warning of a release in which rules stood in for language models; nothing where none did."""
    return [f"> **{STAND_IN_BANNER}:** {'; '.join(reasons)}."] if reasons else []


def percent(count: int, n: int, confidence: float) -> str:
    """A rate with its interval, in percent."""
    found = rate(count, n, confidence)
    if found.value is None or found.low is None or found.high is None:
        return "-"
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def limits(kind: str) -> str:
    """What the release does not say."""
    return "## Limits\n\n" + "\n".join(f"- {one}" for one in LIMITS[kind])


def citation() -> str:
    """What is to be cited."""
    return (
        "## Citation\n\nThe paper whose pipeline this follows; and please name the authors of the prompt sets as well.\n\n"
        f"```bibtex\n{CITATION}\n```"
    )
