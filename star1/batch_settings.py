"""How an endpoint is asked in batches: the part of its settings that says so."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ProviderBatch(BaseModel):
    """The provider's own batch interface: files of requests go up, files of replies come back.

    Attributes:
        requests: in one file, at most.
        file_mb: size of one file, at most [10^6 bytes].
        poll_s: between two looks at how far the batches are [s].
        completion_window: how long the provider may take; what it has not answered by then is asked again.
        path: what each request is for; Azure's older interface has it without the version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["provider"]
    requests: int = Field(default=50_000, ge=1, le=50_000)
    file_mb: float = Field(default=200.0, gt=0, le=200)
    poll_s: float = Field(default=60.0, gt=0, le=3600)
    completion_window: str = Field(default="24h", pattern=r"^[0-9]+[hd]$")
    path: Literal["/v1/chat/completions", "/chat/completions"] = "/v1/chat/completions"


class VllmBatch(BaseModel):
    """Files for `vllm run-batch`, on this machine or on another one.

    Attributes:
        arguments: of the command, beside its files and the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["vllm"]
    arguments: list[str] = []


Batch = Annotated[ProviderBatch | VllmBatch, Field(discriminator="kind")]
