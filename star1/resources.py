"""What a job asks of a cluster's scheduler: memory, time and GPUs, by rule. No result hangs on it."""

import fnmatch
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
SCALED = ("mem_mb", "runtime")


class Need(BaseModel):
    """What one job asks for: memory [MB], longest time [min], GPUs. Unset is as said before it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mem_mb: Count | None = None
    runtime: Count | None = None
    gpu: Annotated[int, Field(ge=0)] | None = None


class Ceiling(BaseModel):
    """The most that any job may ask for, however often it is tried; null where there is no limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mem_mb: Count | None
    runtime: Count | None


class Resources(BaseModel):
    """What jobs ask for. Keys of `jobs` are patterns of a rule's name, or of `rule/name`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    more: Annotated[float, Field(ge=0)]
    most: Ceiling
    jobs: dict[str, Need]


def need(rule: str, name: str, values: Mapping[str, Any], attempt: int = 1) -> dict[str, int]:
    """What a job asks for.

    Args:
        rule: its rule.
        name: what it is about: a model, a run, a set; empty where there is only one.
        values: the section `resources` of params.yaml. What fits the rule counts first, then what fits `rule/name`, each in
            the file's order.
        attempt: the how-manieth, from 1.
    """
    found: dict[str, int] = {"mem_mb": 4000, "runtime": 60, "gpu": 0}
    for asked in (rule, f"{rule}/{name}"):
        for pattern, one in values["jobs"].items():
            if pattern.count("/") == asked.count("/") and fnmatch.fnmatchcase(asked, pattern):
                found |= {key: value for key, value in one.items() if value is not None}
    factor = 1 + values["more"] * (attempt - 1)
    return found | {key: math.ceil(found[key] * factor) for key in SCALED}


def at_most(key: str, asked: int, values: Mapping[str, Any]) -> int:
    """No more than there is."""
    most = values["most"][key]
    return asked if most is None else min(asked, int(most))
