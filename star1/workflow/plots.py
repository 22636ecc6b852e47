"""Outputs that are plots: what `dvc plots show` draws of them."""

from typing import Any

FLAG = "star1_plot"


def plot(output: str, x: str, y: str) -> Any:
    """Say of an output, a table below `results/plots/`, that its column `y` is drawn over its column `x`.

    Without it the template of the output's name in `.dvc/plots` draws it.
    """
    from snakemake.io import flag

    return flag(output, FLAG, {"x": x, "y": y})


def axes_of(output: Any) -> dict[str, str] | None:
    """The columns that `plot` named, as DVC wants them."""
    found: dict[str, str] | None = getattr(output, "flags", {}).get(FLAG)
    return found
