"""What `star1 doctor` is asked about: the settings, the profile by which Snakemake would run, and how far it may look."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from star1 import prefetched, runs
from star1.params import HubModel, Params, used_files
from star1.sources import REMOTE, Located
from star1.workflow.inputs import Inputs
from star1.workflow.lookups import Params as Values

if TYPE_CHECKING:
    from star1.doctor.sizes import Part

PROFILE_VARIABLES = ("SNAKEMAKE_PROFILE", "SNAKEMAKE_WORKFLOW_PROFILE")
DEFAULT_PROFILE = "profiles/default"


@dataclass(frozen=True)
class About:
    """What is checked.

    Attributes:
        values: of params.yaml, with the preset in it, as plain values.
        preset: what was put into them for this check alone; None: they are what params.yaml says.
        profile: a profile's folder in place of those that the environment names.
        names: endpoints that alone are looked at; none means those with a role.
        whole: also endpoints without a role.
        offline: nobody is asked over the network.
        full: files are read however large they are.
        environment: variables.
        today: for announced ends of models.
    """

    values: dict[str, Any]
    preset: str | None = None
    profile: str | None = None
    names: Sequence[str] = ()
    whole: bool = False
    offline: bool = False
    full: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    today: date = field(default_factory=date.today)

    @cached_property
    def params(self) -> Params:
        """The settings as types."""
        return Params.model_validate(self.values)

    @cached_property
    def profiles(self) -> list[str]:
        """Folders of the profiles by which Snakemake, started from here as it is, would run."""
        if self.profile is not None:
            return [self.profile]
        named = [self.environment.get(name, "") for name in PROFILE_VARIABLES]
        return list(dict.fromkeys(one for one in [*named, DEFAULT_PROFILE] if one))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the profiles say together; earlier ones win."""
        found: dict[str, Any] = {}
        for folder in self.profiles:
            found = {**read_profile(folder), **found}
        return found

    @property
    def hub_offline(self) -> bool:
        """Whether the hub and other places of files are not to be asked."""
        return self.offline or prefetched.offline()

    @property
    def containers(self) -> bool:
        """Whether rules run in images."""
        methods = [self.settings.get(key) for key in ("software-deployment-method", "sdm")]
        return "apptainer" in " ".join(str(one) for one in methods)

    @property
    def slurm(self) -> bool:
        """Whether jobs go to Slurm."""
        return str(self.settings.get("executor")) == "slurm"

    @cached_property
    def inputs(self) -> Inputs:
        """What the rules derive from the settings."""
        return Inputs(Values(self.values))

    @cached_property
    def hub_models(self) -> dict[str, HubModel]:
        """Base models of the hub that the DAG uses, by name."""
        used = {run.base for run in self.params.finetune.runs.values()} | set(self.params.generate.models)
        models = self.params.fetch.models
        return {name: one for name, one in models.items() if isinstance(one, HubModel) and name in used}

    @cached_property
    def trained(self) -> list[str]:
        """The models that fine-tuning makes."""
        return list(runs.by_model(self.params.finetune.table()))

    @cached_property
    def answering(self) -> list[str]:
        """The models that answer benchmarks."""
        return runs.expand(self.params.generate.models, self.params.finetune.table())

    @cached_property
    def remote_files(self) -> list[tuple[str, Located]]:
        """Entries of prompt sets, benchmarks and released data that lie on the network, with their keys."""
        return [(name, entry) for name, entry in used_files(self.params) if entry.kind in REMOTE]

    @property
    def hub_cache(self) -> Path:
        """Where the hub's library keeps data sets; in images that is in the project."""
        if self.containers:
            return Path(self.environment.get("APPTAINERENV_HF_HOME") or ".cache/huggingface")
        default = Path(self.environment.get("XDG_CACHE_HOME") or self.home / ".cache") / "huggingface"
        return Path(self.environment.get("HF_HOME") or default)

    @cached_property
    def parts(self) -> "list[Part]":
        """What will be written, part by part."""
        from star1.doctor import sizes

        return sizes.parts(self)

    @property
    def home(self) -> Path:
        """The home folder."""
        return Path(self.environment.get("HOME") or Path.home())


def profile_file(folder: str) -> Path | None:
    """The file with a profile's settings; None where there is none."""
    files = (Path(folder) / name for name in ("config.yaml", "config.v8+.yaml"))
    return next((path for path in files if path.is_file()), None)


def read_profile(folder: str) -> dict[str, Any]:
    """The settings of a profile; none where it has no file that can be read."""
    path = profile_file(folder)
    found = yaml.safe_load(path.read_text("utf-8")) if path else None
    return found if isinstance(found, dict) else {}


def nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
