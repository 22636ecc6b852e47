"""The protocol ladder as the rules see it: its variants, and the values of params.yaml that hold for each."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from star1 import ladder
from star1.workflow.inputs import Inputs
from star1.workflow.lookups import LookUp, Params, Setting, find


class Changed(LookUp):
    """A value of params.yaml as it is at the step of a variant, which the wildcard `model` names."""

    def __init__(self, params: Mapping[str, Any], path: str) -> None:
        super().__init__(params, path)

    def names(self, _: Any) -> list[str]:
        """The value itself, and what changes it."""
        return [self.path, "ladder.steps"]

    def __call__(self, wildcards: Any) -> Setting:
        """The value for one job."""
        _, step = ladder.parts(str(wildcards.model))
        return Setting(self.path, find(ladder.changed(self.params, self.params["ladder"]["steps"], step), self.path))


class Ladder:
    """Variants by name.

    Args:
        params: params.yaml as the rules see it.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.models = params.names("ladder.models")
        self.benchmarks = params.names("ladder.benchmarks")
        self.steps = [step["name"] for step in params.value("ladder.steps")]
        self.variants = [ladder.variant(model, step) for model in self.models for step in self.steps]

    def __call__(self, path: str) -> Changed:
        """A look-up of the value at `path`, as it is at the step."""
        return Changed(self.params.values, path)

    def model(self, wildcards: Any) -> str:
        """The model that is evaluated."""
        return ladder.parts(str(wildcards.model))[0]

    def generated(self, wildcards: Any) -> str:
        """The variant whose answers are judged."""
        model, step = ladder.parts(str(wildcards.model))
        return ladder.variant(model, ladder.generated_at(self.params.values["ladder"]["steps"], step))

    def judged(self, what: Callable[[Inputs], Iterable[str]]) -> list[str]:
        """What the judges of any step need: files, endpoints."""
        steps = self.params.values["ladder"]["steps"] if self.models else []
        at_steps = [Inputs(Params(ladder.changed(self.params.values, steps, step["name"]))) for step in steps]
        return list(dict.fromkeys(name for one in at_steps for name in what(one)))
