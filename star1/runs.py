"""The table of runs (`finetune.runs`): which models a run makes, one for each of its seeds, and what each is trained with.

A run with `seed` makes one model of its own name; one with `seeds: [1, 2]` makes `NAME-seed1` and `NAME-seed2`, also where
the list has one entry, so that a second seed renames nothing. Functions take the table as it stands in params.yaml.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
Table = Mapping[str, Entry]

# What of an entry is no matter of one model alone.
SEEDS = ("seed", "seeds")


def models_of(name: str, entry: Entry) -> list[str]:
    """The models of a run, in the order of its seeds."""
    seeds = entry.get("seeds")
    return [name] if seeds is None else [f"{name}-seed{seed}" for seed in seeds]


def by_model(table: Table) -> dict[str, str]:
    """All models of the table and the run of each, in file order."""
    return {model: name for name, entry in table.items() for model in models_of(name, entry)}


def expand(names: Sequence[str], table: Table) -> list[str]:
    """Names of models, with those of runs that have several seeds replaced by their models; others stay as they are."""
    return [model for name in names for model in (models_of(name, table[name]) if name in table else [name])]


def seeds_of(table: Table, models: Sequence[str] | None = None) -> dict[str, list[str]]:
    """The runs with a list of seeds, and the models that belong together: those of `models`, or all.

    This is what puts the seeds of a run together again in a table: rates of these models are repetitions of one run.
    """
    found = {name: models_of(name, entry) for name, entry in table.items() if entry.get("seeds") is not None}
    if models is not None:
        found = {name: [model for model in own if model in models] for name, own in found.items()}
    return {name: own for name, own in found.items() if own}


def entry_of(model: str, table: Table) -> dict[str, Any]:
    """The entry of a model's run as this model reads it: with its one seed, and the run's name where it has several."""
    name = by_model(table)[model]
    entry = table[name]
    own = {key: value for key, value in entry.items() if key not in SEEDS}
    if entry.get("seeds") is None:
        return {**own, "seed": entry["seed"]}
    return {**own, "seed": entry["seeds"][models_of(name, entry).index(model)], "run": name}


def paths_of(model: str, table: Table) -> list[str]:
    """What of params.yaml decides a model: the run's entry; where it lists seeds, all of it but the list.

    So that a seed that is added to the list trains one more model, and none anew.
    """
    name = by_model(table)[model]
    if table[name].get("seeds") is None:
        return [f"finetune.runs.{name}"]
    return [f"finetune.runs.{name}.{key}" for key in table[name] if key not in SEEDS]


def settings_of(shared: Entry, entry: Entry) -> dict[str, Any]:
    """Settings of a run: the shared ones, what the run sets otherwise, and what it alone has."""
    own = {key: entry[key] for key in ("think", "seed") if key in entry}
    return {**shared, **(entry.get("settings") or {}), **own}


def adapter_of(shared: Entry | None, entry: Entry) -> dict[str, Any] | None:
    """Settings of a run's adapter (fields of `star1.adapters.Settings`); None where all weights are trained."""
    tier = entry.get("tier", "full")
    return None if tier == "full" else {"tier": tier, **(shared or {}), **(entry.get("lora") or {})}
