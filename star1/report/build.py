"""The page as a whole: every section's data, and the files that show them."""

from pathlib import Path

from star1.report import datasets, funnel, overview, results, transcripts
from star1.report.run import Run
from star1.report.writing import replace, write_data, write_page

SECTIONS = (overview.data, funnel.data, datasets.data, results.data)


def build(run: Run, output: Path) -> str:
    """Write the report of a run; gives one line about it.

    Args:
        run: artifacts and settings.
        output: folder of the page; what was in it goes.

    Raises:
        InputError: an artifact is missing or cannot be read, or `output` holds something else.
    """
    replace(output, lambda folder: _fill(folder, run))
    files = [path.stat().st_size for path in output.rglob("*") if path.is_file()]
    return f"report: {output / 'index.html'}, {len(files)} files, {sum(files) / 1e6:.1f} MB"


def _fill(folder: Path, run: Run) -> None:
    write_page(folder)
    write_data(folder, "page", overview.page(run))
    for section in SECTIONS:
        for name, value in section(run).items():
            write_data(folder, name, value)
    transcripts.write(folder, transcripts.sources(run))
