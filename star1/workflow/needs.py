"""The resources of rules: memory, time and GPUs from params.yaml, more at each further attempt."""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

from star1.errors import SettingError
from star1.resources import at_most, need
from star1.yaml_files import near

# A resource that a profile sets for all jobs (`default-resources`): how this site's Slurm is asked for GPUs.
GPU_AS = "gpu_as"


class Needs:
    """What rules ask a scheduler for.

    Args:
        values: the section `resources` of params.yaml.
        workflow: Snakemake's, whose default resources tell how GPUs are asked for.
    """

    def __init__(self, values: Mapping[str, Any], workflow: Any) -> None:
        self.values = values
        self.kind, self.model = gpu_as(workflow)

    def __call__(
        self,
        rule: str,
        name: Callable[[Any], str] | None = None,
        processes: Callable[[Any], int] | None = None,
        on_gpu: Callable[[Any], bool] | None = None,
        nodes: Callable[[Any], int] | None = None,
    ) -> dict[str, Callable[..., Any]]:
        """The resources of a rule's jobs, as functions of wildcards and attempt.

        Args:
            rule: its name in the table.
            name: what a job is about; its first wildcard unless told.
            processes: how many processes a job starts, each with the memory and the GPUs of the table.
            on_gpu: whether a job can use a GPU; without it, none of them can.
            nodes: how many machines a job is over, with this memory and these GPUs on each; without it, one.
        """

        def asked(wildcards: Any, key: str, attempt: int = 1) -> int:
            about = name(wildcards) if name else str(next(iter(wildcards), ""))
            times = processes(wildcards) if processes and key != "runtime" else 1
            return times * need(rule, about, self.values, attempt)[key]

        def mem_mb(wildcards: Any, attempt: int) -> int:
            return at_most("mem_mb", asked(wildcards, "mem_mb", attempt), self.values)

        def runtime(wildcards: Any, attempt: int) -> int:
            return at_most("runtime", asked(wildcards, "runtime", attempt), self.values)

        def gpus(wildcards: Any) -> int:
            return asked(wildcards, "gpu") if on_gpu and on_gpu(wildcards) else 0

        needs: dict[str, Callable[..., Any]] = {"mem_mb": mem_mb, "runtime": runtime}
        needs |= self._gpus(gpus) if on_gpu else {}
        return needs | (self._several(nodes, gpus, needs) if nodes else {})

    def _gpus(self, count: Callable[[Any], int]) -> dict[str, Callable[..., Any]]:
        """GPUs by the name under which this site has them. None is no resource for Snakemake, where 0 would be one."""
        model = self.model
        # All on one machine: --gpus alone may be given in parts, and then the job's step cannot start.
        one: dict[str, Callable[..., Any]] = {"nodes": lambda wildcards: 1 if count(wildcards) else None}
        if self.kind == "gres":
            middle = f":{model}" if model else ""
            return one | {"gres": lambda wildcards: f"gpu{middle}:{found}" if (found := count(wildcards)) else None}
        asked = one | {"gpu": lambda wildcards: count(wildcards) or None}
        return asked | ({"gpu_model": lambda wildcards: model if count(wildcards) else None} if model else {})

    def _several(
        self, nodes: Callable[[Any], int], count: Callable[[Any], int], needs: dict[str, Callable[..., Any]]
    ) -> dict[str, Callable[..., Any]]:
        """What jobs over several machines ask for besides; None, which is nothing, for jobs on one.

        `mpi`: the executor starts the job's script once and leaves srun to it. GPUs are asked for by machine, since those
        of all machines in one number may come to lie unevenly.
        """

        def where(several: Callable[[Any], Any], one: Callable[[Any], Any] = lambda _: None) -> Callable[[Any], Any]:
            return lambda wildcards: several(wildcards) if nodes(wildcards) > 1 else one(wildcards)

        middle = f":{self.model}" if self.model else ""
        gres = {"gres": lambda wildcards: f"gpu{middle}:{found}" if (found := count(wildcards)) else None}
        found = {"gres": where(gres["gres"], needs.get("gres", lambda _: None))}
        found |= {name: where(lambda _: None, needs[name]) for name in ("gpu", "gpu_model") if name in needs}
        found |= {"nodes": where(nodes, needs.get("nodes", lambda _: None))}
        asked = {"tasks": where(nodes), "tasks_per_gpu": where(lambda _: 0)}
        return found | asked | {"mpi": where(lambda _: "srun")}

    def check(self, rules: list[str]) -> None:
        """Every pattern of the table fits a rule that there may be.

        Raises:
            SettingError: one does not.
        """
        for pattern in self.values["jobs"]:
            if not fnmatch.filter(rules, pattern.split("/")[0]):
                hint = near(pattern.split("/")[0], rules) or "`snakemake --list-rules` has them"
                raise SettingError(f"resources.jobs.{pattern}", "a name that no rule has", "a rule, or a pattern", hint)


def gpu_as(workflow: Any) -> tuple[str, str]:
    """How GPUs are asked for, and of what model: `gpu` (--gpus=N) or `gres` (--gres=gpu:N), each with `:MODEL` behind it or not.

    Raises:
        SettingError: neither of them.
    """
    settings = getattr(workflow, "resource_settings", None)
    given = settings._parsed_default_resources.get(GPU_AS) if settings is not None else None
    text = str(getattr(given, "raw", given) or "gpu").strip("'\"")
    kind, _, model = text.partition(":")
    if kind not in ("gpu", "gres"):
        hint = "see profiles/slurm/config.yaml"
        raise SettingError(f"default-resources: {GPU_AS}", repr(text), "gpu, gres, gpu:MODEL or gres:MODEL", hint)
    return kind, model
