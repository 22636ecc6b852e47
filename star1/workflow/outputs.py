"""Outputs whose content DVC need not keep, since it can be fetched again as it was."""

from collections.abc import Callable
from typing import Any

FLAG = "star1_fetched_again"


def fetched_again(output: str, when: Callable[[Any], bool]) -> Any:
    """Say of an output that DVC is to record it and not to store it, for the wildcards where `when` holds.

    The weights of a base model at a commit are large, and the commit names them: DVC's cache would hold them a second
    time, and every push would carry them.
    """
    from snakemake.io import flag

    return flag(output, FLAG, when)


def is_fetched_again(output: Any, wildcards: Any) -> bool:
    """Whether `fetched_again` said so of a job's output."""
    when: Callable[[Any], bool] | None = getattr(output, "flags", {}).get(FLAG)
    return when is not None and when(wildcards)
