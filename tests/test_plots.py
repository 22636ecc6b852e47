"""Outputs that a rule says are plots: dvc.yaml names their axes, and wildcards do not lose them."""

from typing import Any

from snakemake.io import IOFile

from star1.workflow import dvcfile
from star1.workflow.plots import axes_of, plot


def test_axes_outlive_wildcards() -> None:
    file: Any = IOFile(plot("results/plots/finetune-{run}.csv", x="update", y="loss"))
    made = file.apply_wildcards({"run": "star1"})
    assert str(made) == "results/plots/finetune-star1.csv"
    assert axes_of(made) == {"x": "update", "y": "loss"}
    assert axes_of(IOFile("results/plots/funnel.csv")) is None


def test_a_plot_has_the_axes_of_its_rule_else_the_template_of_its_name() -> None:
    path = "results/plots/finetune-star1.csv"
    assert dvcfile._out(path, False, {"x": "update", "y": "loss"}) == {
        path: {"cache": False, "x": "update", "y": "loss"}
    }
    funnel = dvcfile._out("results/plots/funnel.csv", False, None)
    assert isinstance(funnel, dict)
    assert funnel["results/plots/funnel.csv"] == {"cache": False, "template": "funnel"}
    assert dvcfile._out("results/costs/finetune-star1.json", False, None) == "results/costs/finetune-star1.json"
