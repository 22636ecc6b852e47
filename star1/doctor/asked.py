"""What jobs ask for: memory, time, CPUs, GPUs and partition of each rule, by params.yaml and the profile."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from star1.doctor.about import About
from star1.resources import need

RULE = re.compile(r"^\s*rule (\w+):$(.*?)(?=^\s*rule \w+:$|\Z)", re.MULTILINE | re.DOTALL)
THREADS = re.compile(r"^\s*threads:\s*(\d+)$", re.MULTILINE)
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
    """What params.yaml says of each rule; of rules with a job for each model, the largest job counts."""
    for path in sorted(Path("rules").glob("*.smk")):
        for name, body in RULE.findall(path.read_text("utf-8")):
            threads = THREADS.search(body)
            yield _largest(about, name, int(threads[1]) if threads else 1)


def _largest(about: About, rule: str, threads: int) -> Asked:
    jobs = {"finetune": about.trained, "generate": about.answering}.get(rule, [""])
    most = Asked(rule, threads=threads)
    for model in jobs:
        found = need(rule, model, about.values["resources"])
        processes = about.inputs.processes(_Run(model)) if rule == "finetune" else 1
        on_gpu = rule in ("finetune", "generate") and about.inputs.model_on_gpu(model)
        most = Asked(
            rule,
            max(most.mem_mb, processes * found["mem_mb"]),
            max(most.runtime, found["runtime"]),
            max(most.threads, processes),
            max(most.gpu, processes * found["gpu"] * on_gpu),
        )
    return most


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
        elif name == "gres" and (count := re.fullmatch(r"gpu(?::[\w.-]+?)??(?::(\d+))?", str(one))):
            found["gpu"] = int(count[1] or 1)
    return found
