"""What `judge` in params.yaml holds: judges by name, and which of them judge what."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from star1.endpoints import Sampling

Kind = Literal["refusal", "guard", "llama_guard", "wildguard", "qwen3guard", "policy", "rubric", "equality"]
View = Literal["answer", "thinking", "response"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")]
# Kinds with a prompt of their authors', which was not ours to write.
NATIVE = ("llama_guard", "wildguard", "qwen3guard", "rubric")
# Kinds that are asked with a prompt of the policy pack. The other two are sent the conversation, which their server renders.
PROMPTED = ("refusal", "guard", "wildguard", "policy", "rubric", "equality")
THRESHOLD = 0.5
PLACED = "kind equality for reasoning, and other kinds for the rest"


class Judge(BaseModel):
    """One judge.

    Attributes:
        kind: what it is asked, and how its reply is read (`star1.judge_kinds`).
        endpoint: name in `llm.endpoints`, or several that take each other's place.
        view: what it is shown of a response: the answer, the thinking, or the whole as the model wrote it.
        cut_off: whether an answer that ran into the token limit is judged as far as it goes, or left unscored.
        sampling: decoding settings.
        template: file with the exact prompt of a model that has one, in place of ours; holds {{question}} and {{response}}.
        threshold: score at and above which an answer is unsafe; `rubric` only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    endpoint: Name | Annotated[list[Name], Field(min_length=1)]
    view: View = "answer"
    cut_off: Literal["unscored", "judged"] = "unscored"
    sampling: Sampling = Sampling()
    template: str | None = Field(default=None, min_length=1)
    threshold: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _of_its_kind(self) -> "Judge":
        if self.template is not None and self.kind not in NATIVE:
            raise ValueError(
                f"template goes with {', '.join(NATIVE)}; the prompts of other kinds are the policy pack's"
            )
        if self.threshold is not None and self.kind != "rubric":
            raise ValueError("threshold goes with kind 'rubric', the one that gives a score")
        if self.kind == "equality" and self.view != "answer":
            raise ValueError("view: answer with kind 'equality', which is shown the final answer alone")
        return self

    @property
    def endpoints(self) -> list[str]:
        """Names of its endpoints."""
        return [self.endpoint] if isinstance(self.endpoint, str) else self.endpoint


class Grader(BaseModel):
    """The grader of reasoning benchmarks, by rule; `cut_off` as for judges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cut_off: Literal["unscored", "judged"] = "unscored"

    @property
    def view(self) -> View:
        """What is graded: the answer."""
        return "answer"


class Judges(RootModel[dict[Name, Judge]]):
    """Judges by name."""


class Use(BaseModel):
    """Who judges answers, by purpose of the benchmark; the first is the primary one, whose verdicts make the tables.

    Attributes:
        reasoning: judges of kind `equality`, for mathematics; without one, and for all else, the grader's verdicts do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    harmful: list[Name] = Field(min_length=1)
    benign: list[Name] = Field(min_length=1)
    reasoning: list[Name] = []

    def of(self, purpose: str) -> list[str]:
        """The judges of a purpose."""
        return {"harmful": self.harmful, "benign": self.benign, "reasoning": self.reasoning}[purpose]

    def misplaced(self, judges: Mapping[str, Judge]) -> list[str]:
        """Judges that cannot judge what they are named for."""
        placed = [(purpose, name) for purpose in ("harmful", "benign", "reasoning") for name in self.of(purpose)]
        return [
            f"{name!r}, of kind {judges[name].kind}, for {purpose}"
            for purpose, name in placed
            if name in judges and (judges[name].kind == "equality") != (purpose == "reasoning")
        ]

    @property
    def names(self) -> list[str]:
        """All judges in use, each once."""
        return list(dict.fromkeys([*self.harmful, *self.benign, *self.reasoning]))
