"""Reasons of planned jobs: the first files by name, and nothing else is cut."""

from star1.workflow.reasons import shortened


def test_long_lists_of_files_are_cut_and_other_reasons_are_not() -> None:
    """One line of `star1 plan` was longer than a screen, in another order each time."""
    files = ", ".join(f"results/{name}.json" for name in "edcba")
    params = "Params have changed since last execution: before: a='1, 2, 3, 4, 5' now: a='[]'"
    assert shortened(f"Missing output files: x, y; Input files updated by another job: {files}; {params}") == (
        "Missing output files: x, y; Input files updated by another job: "
        f"results/a.json, results/b.json, results/c.json and 2 more; {params}"
    )
    assert shortened("Code has changed since last execution") == "Code has changed since last execution"
