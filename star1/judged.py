"""Which models' answers were judged, for commands that are given names."""

from pathlib import Path

from star1.errors import InputError

FOLDER = Path("results/judgements")


def see_judged(model: str, root: Path = Path()) -> list[Path]:
    """The files with verdicts on a model's answers, one a benchmark, sorted.

    Raises:
        InputError: there are none; names the models that have some.
    """
    folder = root / FOLDER / model
    if files := sorted(folder.glob("*.jsonl")):
        return files
    known = sorted(path.name for path in (root / FOLDER).glob("*/"))
    expected = f"one of {', '.join(known)}" if known else "the verdicts of a finished run"
    raise InputError(
        folder, "no judgements", expected, "`snakemake` makes what params.yaml names, `dvc pull` fetches it"
    )
