"""The protocol ladder: a model's evaluation from one protocol to another, one change a step, each step against the one before.

A step says which values of params.yaml are changed, by their dotted keys; the changes of all steps up to it hold. An answer is
generated anew only from a step on that changes how answers are generated.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Between the names of a model and of a step.
JOIN = "--"
GENERATE = "generate."
# What the rules take from a step.
CHANGEABLE = (
    *(f"generate.{name}." for name in ("engine", "bos", "options", "sampling", "sampling_of")),
    *(f"judge.{name}." for name in ("judges", "use", "grader", "coverage", "sandbox")),
)

Steps = Sequence[Mapping[str, Any]]


def variant(model: str, step: str) -> str:
    """What a model's evaluation at a step is called."""
    return f"{model}{JOIN}{step}"


def parts(name: str) -> tuple[str, str]:
    """The model and the step of a variant."""
    model, _, step = name.rpartition(JOIN)
    return model, step


def changed(values: Mapping[str, Any], steps: Steps, name: str) -> dict[str, Any]:
    """The values of params.yaml at a step.

    Raises:
        KeyError: a key that is not there.
    """
    made = copy.deepcopy(dict(values))
    for step in _upto(steps, name):
        for key, value in step["set"].items():
            *folders, last = key.split(".")
            section = made
            for folder in folders:
                section = section[folder]
            if last not in section:
                raise KeyError(key)
            section[last] = copy.deepcopy(value)
    return made


def _upto(steps: Steps, name: str) -> list[Mapping[str, Any]]:
    names = [step["name"] for step in steps]
    return list(steps[: names.index(name) + 1])


def generated_at(steps: Steps, name: str) -> str:
    """The step whose answers are judged at a step: the last one up to it that changes how they are generated, or the first."""
    own = _upto(steps, name)
    asking = [step["name"] for step in own if any(key.startswith(GENERATE) for key in step["set"])]
    return str(asking[-1] if asking else own[0]["name"])


def mistakes(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the ladder of params.yaml, a line each."""
    ladder = values["ladder"]
    names = [step["name"] for step in ladder["steps"]]
    if len(names) < 2 or not ladder["benchmarks"]:
        yield "ladder: models, and no benchmarks or fewer than two steps; expected some of each, or no models."
    for name in {name for name in names if names.count(name) > 1}:
        yield f"ladder.steps: {name!r} twice; expected each name once."
    # Also of models that are not in the ladder: a variant's stores and quarantine are told from a model's by this.
    for name in dict.fromkeys(
        name for name in (*names, *ladder["models"], *values["generate"].get("models", [])) if JOIN in name
    ):
        yield f"ladder: the name {name!r}; expected one without {JOIN}."
    for place, step in enumerate(ladder["steps"]):
        yield from _step_mistakes(values, ladder["steps"], place, step)


def _step_mistakes(values: Mapping[str, Any], steps: Steps, place: int, step: Mapping[str, Any]) -> Iterator[str]:
    where = f"ladder.steps[{place}].set"
    if strange := [key for key in step["set"] if not f"{key}.".startswith(CHANGEABLE)]:
        yield f"{where}: {strange[0]!r}; expected keys under {', '.join(one[:-1] for one in CHANGEABLE)}."
        return
    try:
        changed(values, steps, step["name"])
    except (KeyError, TypeError):
        yield f"{where}: {', '.join(step['set'])}, of which one is not in params.yaml; expected keys that are there."
