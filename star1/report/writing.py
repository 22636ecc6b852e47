"""The folder of the page: its own files, the charting library, and a script for each piece of data.

A page that was opened from disk cannot fetch files beside it, but may load them as scripts: `data/NAME.js` holds
`report.put("NAME", value);`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import orjson

from star1.errors import InputError

PAGE = Path(__file__).parent / "page"
DATA = "data"
INDEX = "index.html"
# What ends a script element, or a line within one, for some reader or other.
ESCAPES = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def script(name: str, value: object) -> str:
    """A value as the script that hands it to the page: strict JSON in it, and nothing that could end a script element."""
    # Lone surrogates, which no UTF-8 file can hold, cannot come here: rows are read from UTF-8.
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    for character, escaped in ESCAPES.items():
        text = text.replace(character, escaped)
    return f"report.put({orjson.dumps(name).decode()}, {text});\n"


def write_data(folder: Path, name: str, value: object) -> None:
    """Write one piece of data into the page's folder.

    Args:
        folder: of the page.
        name: of the data, parts joined by `/`; the file is `data/{name}.js`.
        value: what JSON can hold.
    """
    write(folder / DATA / f"{name}.js", script(name, value))


def write(path: Path, text: str) -> None:
    """Write a file of a folder that takes its name as a whole, so that thousands need not each wait for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))


def write_page(folder: Path) -> None:
    """Write the files that are the same in every report: page, styles, scripts, and Vega with all that it needs."""
    import vl_convert

    for path in sorted(PAGE.iterdir()):
        if path.suffix in (".html", ".css", ".js"):
            write(folder / path.name, path.read_text("utf-8"))
    write(folder / "vega.js", vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def replace(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder, and put it in the place of the old one when it is complete.

    Raises:
        InputError: what lies there is no report, and stays.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX).is_file():
        raise InputError(folder, "a folder with other files", "a report, or nothing", "name another folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        fill(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
