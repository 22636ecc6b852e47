"""The data sets that a run releases, each a folder with a card, put together from the artifacts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from star1 import cards, croissant, datacards, licences, releases
from star1.errors import InputError
from star1.policies import Pack, load_pack
from star1.provenance import BENIGN, DELIBERATED, Roles, pack_digest, trace
from star1.records import Row, read_json, read_rows, write_json, write_text
from star1.releases import PARQUET, Release, Terms
from star1.seals import describe, seal, version
from star1.sources import Source

# Folder of each data set, and its published title.
TITLES = {"star-41k": "STAR-41K", "star-1": "STAR-1", "star-benign": "STAR-benign"}
# What `screen` calls them.
SCREENED = {"star-41k": "collection", "star-1": "star1", "star-benign": "benign"}
FIELDS = ("id", "question", "source", "category", "response", "score")
URL = "https://arxiv.org/abs/2504.01903"


@dataclass(frozen=True)
class Artifacts:
    """The finished artifacts of a run that data sets are released from.

    Attributes:
        data: folder of the rows.
        metrics: folder of the funnel and the contamination report.
        policy: folder of the policy pack.
        roles: who was asked, and the stored replies.
        sources: entries of the prompt sets.
        redistribute: sources for which params.yaml says whether their texts are given on.
        licence: of what the pipeline added.
        confidence: of the intervals.
    """

    data: Path
    metrics: Path
    policy: Path
    roles: Roles
    sources: Mapping[str, Source]
    redistribute: Mapping[str, bool]
    licence: str
    confidence: float

    def rows(self, name: str, fields: Sequence[str] = FIELDS) -> list[Row]:
        """Rows of `data/{name}.jsonl`."""
        return read_rows(self.data / f"{name}.jsonl", fields)

    def set_aside(self, stage: str) -> Counter[str]:
        """Rows that a stage could not keep, by reason."""
        return Counter(row["reason"] for row in self.rows(f"quarantine/{stage}", ("reason",)))


def release_data(run: Artifacts, out: Path) -> list[str]:
    """Release the three data sets of a run into folders of `out`; gives a line about each.

    Raises:
        InputError: an artifact is missing, or a row that the stored replies do not give.
    """
    pack = load_pack(run.policy)
    by_source = releases.terms(run.sources, run.redistribute)
    everything = _scored(run, pack)
    chosen = [row for row in everything.rows if row["id"] in everything.selected]
    final = Release("star-1", TITLES["star-1"], chosen, *_of(everything))
    digest = pack_digest(run.policy)
    stages = {"star-41k": _deliberation(run), "star-1": _curation(run, pack), "star-benign": _look_alikes(run, pack)}
    return [
        _write(run, one, stages[one.name], by_source, (pack, digest), out / one.name)
        for one in (everything, final, _benign(run, pack))
    ]


def _of(whole: Release) -> tuple[Any, ...]:
    """What a part of a data set has in common with the whole."""
    return whole.selection, whole.selected, whole.steps, whole.rubric, whole.trace


def _scored(run: Artifacts, pack: Pack) -> Release:
    """All scored rows, with why each is in the final data set or not."""
    rows, kept = run.rows("scored"), {row["id"] for row in run.rows("star1")}
    full = len(run.rows("full_score", ("id",)))
    why = {row["id"]: row["reason"] for row in run.rows("curate_dropped", ("id", "reason"))}
    why |= dict.fromkeys(kept, f"full marks; kept as one of {len(kept)} of {full} that balance sources and categories")
    for row in rows:
        if row["id"] not in why:
            raise InputError(f"row {row['id']} of scored.jsonl", "neither kept nor dropped by curate", "one of the two")
    if lost := kept - {row["id"] for row in rows}:
        raise InputError(f"row {min(lost)} of star1.jsonl", "not in scored.jsonl", "rows that were scored")
    traced = trace(DELIBERATED, rows, pack, run.roles)
    return Release(
        "star-41k", TITLES["star-41k"], rows, why, frozenset(kept), DELIBERATED, pack.rubrics["score"], traced
    )


def _benign(run: Artifacts, pack: Pack) -> Release:
    rows, rubric = run.rows("benign/benign", (*FIELDS, "original")), pack.rubrics["benign"]
    why = {row["id"]: f"full marks: {rubric.maximum} on every criterion" for row in rows}
    traced = trace(BENIGN, rows, pack, run.roles)
    return Release("star-benign", TITLES["star-benign"], rows, why, frozenset(why), BENIGN, rubric, traced)


def _narrowed(run: Artifacts, came: int, stages: Sequence[tuple[str, str]]) -> list[cards.Stage]:
    """Stages of model calls as (name told, name of the stage), from the number of rows that came to the first."""
    told = []
    for name, stage in stages:
        reasons = run.set_aside(stage)
        told.append(cards.Stage(name, came, came - reasons.total(), dict(reasons.most_common())))
        came = told[-1].stayed
    return told


def _deliberation(run: Artifacts) -> list[cards.Stage]:
    came = len(run.rows("collection", ("id",)))
    names = ("categorize", "reason", "score")
    return _narrowed(run, came, [(name, name) for name in names])


def _curation(run: Artifacts, pack: Pack) -> list[cards.Stage]:
    scored, full, kept = (len(run.rows(name, ("id",))) for name in ("scored", "full_score", "star1"))
    low = {f"a mark below {pack.rubrics['score'].maximum}, or no category of the pack": scored - full}
    balanced = {"balanced out": full - kept}
    return [
        *_deliberation(run),
        cards.Stage("full marks", scored, full, low if scored > full else {}),
        cards.Stage("balance sources and categories", full, kept, balanced if full > kept else {}),
    ]


def _look_alikes(run: Artifacts, pack: Pack) -> list[cards.Stage]:
    rewritten, scored, kept = (len(run.rows(f"benign/{name}", ("id",))) for name in ("rewritten", "scored", "benign"))
    came = rewritten + run.set_aside("benign_rewrite").total()
    names = [(f"benign: {name}", f"benign_{name}") for name in ("rewrite", "reason", "score")]
    low = {f"a mark below {pack.rubrics['benign'].maximum}": scored - kept} if scored > kept else {}
    return [*_narrowed(run, came, names), cards.Stage("full marks", scored, kept, low)]


def _write(
    run: Artifacts,
    release: Release,
    stages: Sequence[cards.Stage],
    by_source: Mapping[str, Terms],
    policy: tuple[Pack, str],
    out: Path,
) -> str:
    """All files of one data set, its seal last; gives a line about it."""
    table = releases.flat(release, by_source, *policy)
    used = {name: own for name, own in by_source.items() if name in set(table["source"])}
    published = f"{release.title}.json"
    releases.write_parquet(out / PARQUET, table)
    given = releases.write_published(out / published, release.rows, by_source)
    facts = _facts(run, release, stages, used, given, releases.stand_in(table, release.steps))
    write_text(out / "README.md", datacards.data_card(release, table, facts))
    parts = [(name, own.licence, own.attribution, own.withheld) for name, own in used.items()]
    write_text(out / "LICENSE.md", licences.text(release.title, run.licence, parts))
    write_json(out / "croissant.json", _croissant(run, release, facts, describe(out, [PARQUET, published])))
    about = {
        "kind": "dataset",
        "name": release.name,
        "version": version(),
        "rows": len(table),
        "ids_only": len(table) - given,
        "policy": {"pack": policy[0].name, "digest": policy[1]},
        "origins": releases.origins(table, release.steps),
        "stand_in": facts.stand_in,
    }
    seal(out, about, [PARQUET, published, "README.md", "LICENSE.md", "croissant.json"])
    held = f", {len(table) - given} of them ids only" if given < len(table) else ""
    return f"{release.name}: {len(table)} rows{held}"


def _facts(
    run: Artifacts,
    release: Release,
    stages: Sequence[cards.Stage],
    used: Mapping[str, Terms],
    given: int,
    stand_in: Sequence[str],
) -> datacards.DataFacts:
    collected = {} if release.steps is BENIGN else read_json(run.metrics / "funnel.json")["total"]
    near = read_json(run.metrics / "contamination.json").get(SCREENED[release.name], {})
    return datacards.DataFacts(used, run.licence, stages, collected, near, run.confidence, stand_in, given)


def _croissant(
    run: Artifacts, release: Release, facts: datacards.DataFacts, files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    about = cards.ABOUT[release.name]
    return croissant.metadata(
        name=release.title,
        description=f"{cards.STAND_IN_BANNER}. {about}" if facts.stand_in else about,
        version=version(),
        terms=[run.licence, *(own.licence for own in facts.terms.values())],
        files=files,
        columns=releases.schema(release),
        cite=cards.CITATION,
        url=URL,
    )
