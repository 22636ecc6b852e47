"""Which files a job reads, where that depends on params.yaml: functions of wildcards and parameters only, for both engines."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from star1 import runs
from star1.datasets import data_file
from star1.errors import SettingError
from star1.judge_settings import PROMPTED
from star1.params import as_list
from star1.workflow.lookups import Derived, LookUp, Params, find
from star1.yaml_files import near

# The released data set that holds the rows of each of the pipeline's own; every other own one is part of the scored rows.
RELEASED = {"star1": "star-1", "benign": "star-benign"}
SCORED = "star-41k"

InputFunction = Callable[[Any], list[str]]


class Inputs:
    """The input files of rules, from params.yaml.

    Args:
        params: params.yaml as the rules see it.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.pack = Path("policies") / str(params.value("policy.pack"))

    def local_files(self, table: str) -> InputFunction:
        """The files of a table entry that lie on this machine; what comes over the network is pinned instead."""

        def files(wildcards: Any) -> list[str]:
            fetch = self.params.values["fetch"]
            entry = find(self.params.values, f"fetch.{table}.{wildcards[0]}")
            folder = {"bundled": ".", "mirror": fetch["mirror"]}.get(entry["kind"])
            if folder is None:
                return []
            paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            return [os.path.normpath(os.path.join(folder, path)) for path in paths]

        return files

    def _pool(self, role: str) -> list[str]:
        return as_list(self.params.value(f"llm.roles.{role}"))

    def endpoint(self, role: str) -> LookUp:
        """The endpoint of a role, or the several that take each other's place, by name."""
        first, *others = names = self._pool(role)
        return self.params.each("llm.endpoints.{}", names) if others else self.params(f"llm.endpoints.{first}")

    def _judges(self) -> list[dict[str, Any]]:
        """The judges in use."""
        used, table = self.params.value("judge.use"), self.params.value("judge.judges")
        return [table[name] for name in dict.fromkeys(name for names in used.values() for name in names)]

    def judging(self) -> list[str]:
        """The endpoints of the judges in use."""
        return list(dict.fromkeys(name for one in self._judges() for name in as_list(one["endpoint"])))

    def judge_endpoints(self) -> LookUp:
        """The endpoints of the judges in use, by name."""
        return self.params.each("llm.endpoints.{}", self.judging())

    def judge_files(self) -> list[str]:
        """What judges in use are asked with: the pack's prompts, and files that hold a model's own."""
        used = self._judges()
        prompts = [f"judge_{one['kind']}" for one in used if one["kind"] in PROMPTED and not one.get("template")]
        return [*self.prompts(*dict.fromkeys(prompts)), *(one["template"] for one in used if one.get("template"))]

    def judge_turns(self) -> dict[str, int]:
        """As `turns`, of the judges in use."""
        return self._turns(self.judging())

    def judge_rows(self) -> list[str]:
        """As `replayed_rows`, of the judges in use."""
        return self._replayed(self.judging())

    def answerers(self, *roles: str) -> LookUp:
        """The endpoints of several roles, by name."""
        names = dict.fromkeys(name for role in roles for name in self._pool(role))
        return self.params.each("llm.endpoints.{}", list(names))

    def replayed_rows(self, role: str) -> list[str]:
        """The released rows that a replay endpoint answers from; none for other endpoints."""
        return self._replayed(self._pool(role))

    def _replayed(self, names: list[str]) -> list[str]:
        endpoints = (self.params.values["llm"]["endpoints"][name] for name in names)
        return [endpoint["rows"] for endpoint in endpoints if endpoint["provider"] == "replay"]

    def turns(self, role: str) -> dict[str, int]:
        """The resources of a job that asks a role's remote endpoints: those that share an endpoint wait for each other.

        One job fills an endpoint's slots, and its limits (per minute, in USD) are kept within a job.
        """
        return self._turns(self._pool(role))

    def _turns(self, names: list[str]) -> dict[str, int]:
        return {f"endpoint_{re.sub('[^A-Za-z0-9]', '_', name)}": 1 for name in names if self._remote(name)}

    def endpoints(self) -> dict[str, int]:
        """How many jobs may ask each remote endpoint at a time."""
        roles = self.params.values["llm"]["roles"]
        return {name: 1 for turns in (*map(self.turns, roles), self.judge_turns()) for name in turns}

    def _remote(self, name: str) -> bool:
        endpoint = self.params.values["llm"]["endpoints"][name]
        # A provider queues batches by itself; vLLM takes the whole GPU.
        queued = (endpoint.get("batch") or {}).get("kind") == "provider"
        return bool(endpoint["provider"] == "openai") and not queued

    def prompts(self, *names: str) -> list[str]:
        """The files of the policy pack behind some prompts: categories and rubrics, the prompts, and policy texts where shown."""
        files = [self.pack / "policy.yaml", *(self.pack / "prompts" / f"{name}.md" for name in (*names, "repair"))]
        if {"reason", "score", "judge_policy"} & set(names):
            files += sorted((self.pack / "policies").glob("*.md"))
        return [str(path) for path in files]

    def whole_pack(self) -> list[str]:
        """Every file of the policy pack."""
        return sorted(str(path) for path in self.pack.rglob("*") if path.is_file() and not path.name.startswith("."))

    def checkpoint(self, model: str) -> str:
        """The manifest of a base model or of a run."""
        folder = "models/base" if model in self.params.values["fetch"]["models"] else "models"
        return f"{folder}/{model}/manifest.json"

    def pinned_models(self) -> Callable[[Any], bool]:
        """Which base models are fetched from the hub at a commit, so that DVC need not keep their files."""
        entries = self.params.values["fetch"]["models"]
        hub = [name for name in entries if self.params.value(f"fetch.models.{name}.kind") == "hub"]
        for name in hub:
            self.params.value(f"fetch.models.{name}.revision")  # a commit where it is pinned, and nowhere else
        pinned = {name for name in hub if entries[name].get("pinned", True)}
        return lambda wildcards: wildcards.model in pinned

    @property
    def _runs(self) -> dict[str, Any]:
        table: dict[str, Any] = self.params.values["finetune"]["runs"]
        return table

    def _of_run(self, model: str, key: str) -> Any:
        """A value of a run that shapes the DAG."""
        named = runs.by_model(self._runs)
        if model not in named:
            expected = f"one of {', '.join(named)}"
            raise SettingError("params.yaml: finetune.runs", f"no {model!r}", expected, near(model, list(named)))
        return self.params.value(f"finetune.runs.{named[model]}.{key}")

    def run(self) -> LookUp:
        """What the model of a job is trained with, from the table of runs."""
        return Derived(
            self.params.values,
            "finetune.runs",
            lambda wildcards: runs.paths_of(wildcards["run"], self._runs),
            lambda wildcards: runs.entry_of(wildcards["run"], self._runs),
        )

    def lora(self) -> LookUp:
        """Settings of adapters, for jobs that train some; null for others, which do not hang on them."""

        def used(wildcards: dict[str, str]) -> bool:
            return runs.adapter_of({}, runs.entry_of(wildcards["run"], self._runs)) is not None

        values = self.params.values
        return Derived(
            values,
            "finetune.lora",
            lambda wildcards: ["finetune.lora"] if used(wildcards) else [],
            lambda wildcards: values["finetune"]["lora"] if used(wildcards) else None,
        )

    def models(self) -> LookUp:
        """The models that answer benchmarks, one by one."""
        names, table = self.params.values["generate"]["models"], self._runs
        paths = [f"finetune.runs.{name}.seeds" for name in names if name in table and table[name].get("seeds")]
        return Derived(
            self.params.values,
            "generate.models",
            lambda _: ["generate.models", *paths],
            lambda _: runs.expand(names, table),
        )

    def base(self, wildcards: Any) -> str:
        """The base model of a run."""
        return self.checkpoint(str(self._of_run(wildcards.run, "base")))

    def processes(self, wildcards: Any) -> int:
        """How many processes a run's job starts on a machine; no shape of the DAG, and told to the job with its settings."""
        return int(self._settings_of_run(wildcards)["processes"])

    def nodes(self, wildcards: Any) -> int:
        """How many machines a run's job is over."""
        return int(self._settings_of_run(wildcards)["nodes"])

    def _settings_of_run(self, wildcards: Any) -> dict[str, Any]:
        entry = runs.entry_of(wildcards.run, self._runs)
        return runs.settings_of(self.params.values["finetune"]["settings"], entry)

    def run_on_gpu(self, wildcards: Any) -> bool:
        """Whether a run's job can use a GPU: not with a tiny base model."""
        return self._large(str(wildcards.run))

    def model_on_gpu(self, model: str) -> bool:
        """Whether the job that lets a model answer can use a GPU; a server has its own."""
        return self.params.values["generate"]["engine"] != "openai" and self._large(model)

    def _large(self, model: str) -> bool:
        models = self.params.values["fetch"]["models"]
        base = model if model in models else runs.entry_of(model, self._runs)["base"]
        return bool(models[base]["kind"] != "tiny")

    def training_data(self, wildcards: Any) -> list[str]:
        """The data sets of a run."""
        names = self._of_run(wildcards.run, "data")
        return [data_file(name, self.params.values["curate"]["selections"]) for name in names]

    def released_data(self, wildcards: Any) -> list[str]:
        """What the released data sets say about the pipeline's own rows that a run is trained on."""
        names = self._of_run(wildcards.run, "data")
        released = dict.fromkeys(
            RELEASED.get(name, SCORED) for name in names if name not in self.params.values["fetch"]["published"]
        )
        return [f"release/datasets/{name}/release.json" for name in released]
