"""Data sets that a run can be trained on by name, and how those are chosen that params.yaml calls for."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from star1.errors import SettingError

# What the pipeline makes in any case; beside these there are the selections, and the sets of fetch.published.
OWN_DATA = {"star1": "data/star1.jsonl", "benign": "data/benign/benign.jsonl"}

# What the report calls other sets of its own.
OWN_SETS = ("scored", "evaluation")

Count = Annotated[int, Field(ge=1)]


class Selection(BaseModel):
    """A choice of scored rows, under a name.

    Attributes:
        kind: balanced (the published procedure), random, or per_category (as many rows of each category, in turn).
        size: rows wanted at most.
        marks: lowest and highest value that the lowest of a row's marks may have; all: any; None: full marks.
        seed: of the order in which rows are drawn; for all kinds but balanced, where nothing is drawn.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["balanced", "random", "per_category"]
    size: Count
    marks: Literal["all"] | Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Selection":
        if (self.seed is None) != (self.kind == "balanced"):
            raise ValueError(f"seed is {'not allowed' if self.kind == 'balanced' else 'required'} for kind {self.kind}")
        if isinstance(self.marks, list) and self.marks[0] > self.marks[1]:
            raise ValueError(f"marks {self.marks} must be the lower one, then the higher one")
        return self


class Noise(BaseModel):
    """How the final data set is tried for its stability.

    Attributes:
        lowered: probabilities that a mark is one lower than it is.
        repeats: trials for each.
        seed: of the trials.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    lowered: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    repeats: Annotated[int, Field(ge=2)]
    seed: int


def read_selection(name: str, text: str) -> Selection:
    """A selection as it stands on a command line, as JSON.

    Raises:
        SettingError: not a selection.
    """
    try:
        return Selection.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["curate.selections", name, *map(str, first["loc"])])
        raise SettingError(place, first["msg"].removeprefix("Value error, "), "a selection") from None


def data_file(name: str, selections: Collection[str]) -> str:
    """Where the rows of a data set lie."""
    if name in OWN_DATA:
        return OWN_DATA[name]
    return f"data/{'selections' if name in selections else 'published'}/{name}.jsonl"
