"""What jobs ask for: memory, time, CPUs, GPUs and partition of each rule, by the rules' own text and the profile."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from star1.doctor.about import About

RULE = re.compile(r"^\s*rule (\w+):$(.*?)(?=^\s*rule \w+:$|\Z)", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"^\s*(mem_mb|runtime|threads)\s*[=:]\s*(\d+),?$", re.MULTILINE)
# What a setting is called in a profile, and here.
NAMES = {"mem_mb": "mem_mb", "runtime": "runtime", "gpu": "gpu", "gpus": "gpu", "slurm_partition": "partition"}


@dataclass(frozen=True)
class Asked:
    """What a job of a rule asks for at most: MiB, minutes, CPUs and GPUs; 0 where nobody says."""

    rule: str
    mem_mb: int = 0
    runtime: int = 0
    threads: int = 1
    gpu: int = 0
    partition: str = ""


def asked(about: About) -> list[Asked]:
    """Every rule's wishes, those of the profile over those of the rules."""
    defaults = _settings(about.settings.get("default-resources"))
    given = {rule: _settings(one) for rule, one in _mapping(about.settings.get("set-resources")).items()}
    threads = {rule: int(count) for rule, count in _mapping(about.settings.get("set-threads")).items()}
    found = []
    for one in _of_rules(about):
        own = replace(one, **{key: value for key, value in defaults.items() if not getattr(one, key)})
        own = replace(own, **given.get(one.rule, {}))
        found.append(replace(own, threads=threads.get(one.rule, own.threads)))
    return found


def _of_rules(about: About) -> Iterator[Asked]:
    """What the rules themselves say in plain numbers, and what hangs on the table of runs."""
    for path in sorted(Path("rules").glob("*.smk")):
        for name, body in RULE.findall(path.read_text("utf-8")):
            numbers: dict[str, Any] = {key: int(value) for key, value in NUMBER.findall(body)}
            yield _with_runs(about, Asked(name, **numbers))


def _with_runs(about: About, one: Asked) -> Asked:
    """Fine-tuning asks by run: for the largest."""
    if one.rule != "finetune" or not about.trained:
        return one
    jobs = [_Run(model) for model in about.trained]
    processes = max(about.inputs.processes(job) for job in jobs)
    return replace(one, threads=processes, gpu=max(about.inputs.gpus(job) for job in jobs), mem_mb=4000 * processes)


@dataclass(frozen=True)
class _Run:
    """What functions of wildcards read."""

    run: str


def _mapping(value: Any) -> dict[str, Any]:
    """A setting of a profile as a mapping: it may be one, or a list of `key=value`."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    pairs = [str(one).partition("=") for one in value] if isinstance(value, list) else []
    found: dict[str, Any] = {}
    for key, _, one in pairs:
        rule, colon, resource = key.partition(":")
        if colon:  # set-resources: ["finetune:mem_mb=1000"]
            found.setdefault(rule, {})[resource] = one
        else:
            found[key] = one
    return found


def _settings(value: Any) -> dict[str, Any]:
    """Those resources of a profile that are looked at; what is computed when a job starts is not known."""
    found: dict[str, Any] = {}
    for name, one in _mapping(value).items():
        if name == "slurm_partition":
            found["partition"] = str(one)
        elif name in NAMES and re.fullmatch(r"\d+", str(one)):
            found[NAMES[name]] = int(one)
        elif name == "gres" and (count := re.fullmatch(r"gpu(?::[A-Za-z]\w*)?(?::(\d+))?", str(one))):
            found["gpu"] = int(count[1] or 1)
    return found
