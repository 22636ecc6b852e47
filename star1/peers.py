"""The processes that train one model together: which of them this one is, and what they tell each other."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch.distributed as distributed

from star1.errors import Star1Error, tell

# What gloo and NCCL say when the process at the other end is gone.
GONE = re.compile(
    r"connection closed by peer|connection reset|broken pipe|connection refused|remote process exited", re.I
)


# Whether this process lost another one.
LOST: list[str] = []


class PeerError(Star1Error):
    """Another process of this run has ended."""


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def main() -> bool:
    """Whether this is the process that tells, saves and publishes."""
    return rank() == 0


def tell_once(line: str) -> None:
    """Print a line on stderr, in one process alone."""
    if main():
        tell(line)


def wait() -> None:
    """Wait until every process is here."""
    if world() > 1:
        distributed.barrier()


def agreed(value: Any) -> Any:
    """The main process's value, in every process; any object that can be pickled."""
    if world() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def merged(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mappings of all processes as one, by key."""
    if world() == 1:
        return dict(values)
    found: list[Any] = [None] * world()
    distributed.all_gather_object(found, dict(values))
    return dict(sorted((key, value) for one in found for key, value in one.items()))


@contextlib.contextmanager
def told(stage: str) -> Iterator[None]:
    """Tell in one line that another process has ended, which a process learns when it waits for that one.

    Raises:
        PeerError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not (isinstance(error, distributed.DistError) or GONE.search(str(error))):
            raise
        found = f"process {rank() + 1} of {world()} lost another one"
        LOST.append(found)
        raise PeerError(
            stage, found, "all to go on to the last update", "what ended that one stands in its line"
        ) from None
