"""Why Snakemake would run a job, in few words: with all of its files, the reason of a late stage fills a screen."""

import re

FILES = re.compile(r"((?:Missing output files|Updated input files|Input files updated by another job): )([^;]+)")
SHOWN = 3


def shortened(reason: str) -> str:
    """Snakemake's reason with the first files of each list, by name, and how many more there are."""
    return FILES.sub(lambda found: found[1] + _first(found[2].split(", ")), reason)


def _first(files: list[str]) -> str:
    more = len(files) - SHOWN
    return ", ".join(sorted(files)[:SHOWN]) + (f" and {more} more" if more > 0 else "")
