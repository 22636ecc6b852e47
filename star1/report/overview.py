"""Overview: what was run, by which models, at what cost, and what of it is a stand-in."""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from star1 import presets, runs
from star1.params import as_list, read_yaml
from star1.records import Row, read_json
from star1.report import standins
from star1.report.results import LOWER
from star1.report.run import Run, commit
from star1.tables import POOLED
from star1.workflow.lookups import canonical

OWN = ("base_url", "mirror")
CALLS = (
    "label",
    "rows",
    "replies",
    "quarantined",
    "prompt_tokens",
    "reply_tokens",
    "usd",
    "mean_seconds",
    "failed_attempts",
)
# Stages with costs, in running order; what is made several times has a name behind a hyphen.
ORDER = (
    *("collect", "categorize", "reason", "score", "benign_rewrite", "benign_reason", "benign_score"),
    *("finetune", "judge", "ladder_judge"),
)
TRAINING = ("seconds", "cpu_hours", "gpu_hours", "tokens_per_second", "peak_memory", "energy", "devices")


def page(run: Run) -> Row:
    """What every section shows: the banner, the marks, and the line at the foot."""
    items, at = standins.found(run), commit(run.root)
    told = f"commit {at['commit'][:12]}" if at["commit"] else "no commit known"
    return {
        "banner": standins.banner(items),
        "standIn": standins.marks(items),
        "made": f"Made by STAR-1 at {told}, from the artifacts of one run. No request leaves this page.",
    }


def data(run: Run) -> dict[str, object]:
    """Data files of the section."""
    main = run.json("results/tables/main.json")
    told = {
        "commit": commit(run.root),
        "presets": in_place(run),
        "params": shown(run.params),
        "params_digest": hashlib.sha256(canonical(run.params).encode()).hexdigest()[:16],
        "pack": run.json("release/datasets/star-1/release.json")["policy"],
        "models": _models(run),
        "judges": _judges(run.params),
        "roles": _roles(run.params),
        "costs": list(costs(run)),
        "images": _images(run.root),
        "stand_ins": standins.found(run),
        "releases": standins.released(run),
        "confidence": main["confidence"],
        "figures": _figures(run, main["cells"]),
        "lower_is_better": [LOWER],
        "measures": list(dict.fromkeys(one["measure"] for one in main["cells"])),
        "headline": _headline(main["cells"]),
    }
    return {"overview": told}


def in_place(run: Run) -> list[str]:
    """The presets all of whose values are those of the run, in the order of their names."""
    found, present = [], canonical(run.params)
    for name in run.names("presets/*.yaml"):
        values = copy.deepcopy(dict(run.params))
        presets.merge(values, {key: value for key, value in read_yaml(run.path(name)).items() if key in values})
        if canonical(values) == present:
            found.append(Path(name).stem)
    return found


def shown(params: Mapping[str, Any]) -> Row:
    """The values of params.yaml without the addresses of servers and folders, which are the site's own affair."""
    return {
        key: shown(value) if isinstance(value, Mapping) else value for key, value in params.items() if key not in OWN
    }


def _images(root: Path) -> Row | None:
    """Which images made what. Noted when a run has ended, so this is no input, and tells of the runs before this one."""
    path = root / "results/metrics/images.json"
    return read_json(path) if path.is_file() else None


def _models(run: Run) -> list[Row]:
    """The models that answered, with what each was made from."""
    table, bases = run.params["finetune"]["runs"], run.params["fetch"]["models"]
    found = []
    for name in runs.expand(run.params["generate"]["models"], table):
        if name in bases:
            entry = {key: bases[name].get(key) for key in ("kind", "repository", "revision")}
            found.append({"name": name, **entry})
        else:
            found.append({"name": name, **runs.entry_of(name, table)})
    return found


def _judges(params: Mapping[str, Any]) -> list[Row]:
    """The judges in use, and who is the primary one for which purpose."""
    judge, found = params["judge"], []
    for name in dict.fromkeys(name for names in judge["use"].values() for name in names):
        entry = judge["judges"][name]
        asked = [params["llm"]["endpoints"][one] for one in as_list(entry["endpoint"])]
        places = [
            f"{purpose} prompts ({'primary' if names[0] == name else 'second opinion'})"
            for purpose, names in judge["use"].items()
            if name in names
        ]
        found.append({"name": name, "kind": entry["kind"], "view": entry["view"], "used": places, **_endpoint(asked)})
    return found


def _roles(params: Mapping[str, Any]) -> list[Row]:
    found = []
    for role, does in standins.ROLES.items():
        asked = [params["llm"]["endpoints"][one] for one in as_list(params["llm"]["roles"][role])]
        found.append({"role": role, "does": does, **_endpoint(asked)})
    return found


def _endpoint(asked: Sequence[Mapping[str, Any]]) -> Row:
    """Who answers, for one endpoint or several that take each other's place."""
    return {
        "label": ", ".join(dict.fromkeys(one["label"] for one in asked)),
        "model": ", ".join(dict.fromkeys(one["model"] for one in asked)),
        "provider": ", ".join(dict.fromkeys(one["provider"] for one in asked)),
        "retires": min((str(one["retires"]) for one in asked if one.get("retires")), default=None),
        "stand_in": any(one["provider"] in standins.PROVIDERS for one in asked),
    }


def costs(run: Run) -> Iterator[Row]:
    """What each stage took and cost, a row each; judges and steps of one stage are rows of their own."""
    for name in sorted(run.names("results/costs/*.json"), key=_running_order):
        found, stage = run.json(name), Path(name).stem
        if "replies" in found:
            yield {"stage": stage, "part": None, **_calls(found)}
        elif "training_seconds" in found:
            yield {"stage": stage, "part": None, **{key: found.get(key) for key in TRAINING}}
        else:
            for part, one in found.items():
                yield {"stage": stage, "part": part, **(_calls(one) if "replies" in one else _step(one))}


def _running_order(name: str) -> tuple[int, str]:
    stage = Path(name).stem
    word = stage.partition("-")[0]
    return (ORDER.index(word) if word in ORDER else len(ORDER), stage)


def _figures(run: Run, cells: Sequence[Row]) -> Row:
    """The size of the run in a few numbers."""
    funnel, quality = run.json("results/metrics/funnel.json"), run.json("results/metrics/quality.json")
    made, single = run.params["finetune"]["runs"], [one for one in cells if one["benchmark"] != POOLED]
    answering = runs.expand(run.params["generate"]["models"], made)
    return {
        "read": sum(one["read"] for one in funnel["fetched"].values()),
        "chosen": quality["star1"]["rows"],
        "look_alikes": quality["benign"]["rows"],
        "tuned": len(set(answering) - set(run.params["fetch"]["models"])),
        "answers": sum(one["total"] for one in single),
        "verdicts": sum(one["n"] for one in single),
    }


def _calls(found: Row) -> Row:
    return {key: found.get(key) for key in CALLS}


def _step(found: Row) -> Row:
    return {"seconds": found.get("seconds"), "peak_mb": found.get("peak_mb")}


def _headline(cells: Sequence[Row]) -> list[Row]:
    """Rates over all benchmarks of a measure, model by model; of a measure with one benchmark, its own."""
    found: dict[str, dict[str, Row]] = {}
    for one in cells:
        rates = found.setdefault(one["model"], {})
        if one["benchmark"] == POOLED or one["measure"] not in rates:
            rates[one["measure"]] = one
    return [{"model": model, "rates": rates} for model, rates in found.items()]
