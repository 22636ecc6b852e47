"""For tests: a small finished run, its replies given by the stand-in through the stages' own code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from star1 import benign, deliberation
from star1.calls import Calls, Outcome
from star1.curation import curate
from star1.endpoints import Sampling
from star1.policies import load_pack
from star1.provenance import Roles
from star1.publications import Artifacts
from star1.records import Row, write_json, write_rows
from star1.sources import Source
from tests.conftest import ROOT
from tests.loopback import stand_in

POLICY = ROOT / "policies" / "star1"
LICENCES = {"open": "CC0-1.0", "asked": "HEx-PHI Dataset License Agreement", "silent": "not stated"}
STAGES = ("categorize", "reason", "score", "benign_rewrite", "benign_reason", "benign_score")
SAMPLING = {"temperature": 0.6, "max_tokens": 800}


def questions(count: int) -> list[Row]:
    """Mild prompts of the project's own, of three sources in turn."""
    lines = (ROOT / "bundled/sources/school.txt").read_text("utf-8").splitlines()[:count]
    return [{"id": str(n), "question": text, "source": list(LICENCES)[n % 3]} for n, text in enumerate(lines)]


def make_run(folder: Path, count: int = 45, redistribute: Mapping[str, bool] | None = None) -> Artifacts:
    """Make all artifacts of a run that its data sets are released from."""
    pack, data = load_pack(POLICY), folder / "data"

    def calls(stage: str) -> Calls:
        return Calls(stand_in(), Sampling.model_validate(SAMPLING), data / f"replies/{stage}.jsonl")

    def settle(stage: str, outcome: Outcome, name: str) -> list[Row]:
        write_rows(data / f"quarantine/{stage}.jsonl", outcome.quarantined)
        write_rows(data / f"{name}.jsonl", outcome.kept)
        return list(outcome.kept)

    rows = questions(count)
    write_rows(data / "collection.jsonl", rows)
    rows = settle("categorize", deliberation.categorize(rows, pack, calls("categorize")), "categorized")
    rows = settle("reason", deliberation.reason(rows, pack, calls("reason")), "cot")
    rows = settle("score", deliberation.score(rows, pack, calls("score")), "scored")
    full, kept, dropped = curate(rows, pack.rubric("score"), pack.other, 12)
    for name, chosen in (("full_score", full), ("star1", kept), ("curate_dropped", dropped)):
        write_rows(data / f"{name}.jsonl", chosen)
    rows = settle("benign_rewrite", benign.rewrite(kept, pack, calls("benign_rewrite")), "benign/rewritten")
    rows = settle("benign_reason", benign.reason(rows, pack, calls("benign_reason")), "benign/cot")
    rows = settle("benign_score", benign.score(rows, pack, calls("benign_score")), "benign/scored")
    write_rows(data / "benign/benign.jsonl", benign.keep(rows, pack))
    near = {"rows": 12, "exact": 0, "ngram": 1, "tfidf": 0, "embedding": 2, "any": 2, "benchmark_rows": 2}
    write_json(folder / "metrics/funnel.json", {"total": {"rows": count + 3, "self_ngram": count}})
    write_json(folder / "metrics/contamination.json", {"star1": {"xstest": near}})
    return artifacts(folder, redistribute)


def artifacts(folder: Path, redistribute: Mapping[str, bool] | None = None) -> Artifacts:
    """What a release reads of such a run."""
    endpoint, sampling = stand_in().model_dump_json(exclude_none=True), orjson.dumps(SAMPLING).decode()
    entry: dict[str, Any] = {"kind": "bundled", "path": "a.txt", "format": "txt", "ngram": 8}
    terms: dict[str, dict[str, Any]] = {
        name: {"licence": licence, "attribution": "the | authors"} for name, licence in LICENCES.items()
    }
    sources = {name: Source(**entry, **own) for name, own in terms.items()}
    return Artifacts(
        data=folder / "data",
        metrics=folder / "metrics",
        policy=POLICY,
        roles=Roles(
            dict.fromkeys(("classifier", "teacher", "scorer", "rewriter"), endpoint),
            dict.fromkeys(STAGES, sampling),
            folder / "data/replies",
        ),
        sources=sources,
        redistribute=redistribute or {},
        licence="Apache-2.0",
        confidence=0.95,
    )
