"""Addresses of rows, answers, cells and checkpoints: what they are called, and which one a reader means."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from star1.errors import InputError
from star1.passport.finding import answers_of, row_of
from star1.records import read_json
from star1.tables import POOLED

FORMS = (
    "ROW, SET-NUMBER, BENCHMARK/ROW, MODEL/BENCHMARK/ROW, TABLE:MODEL/BENCHMARK or model:NAME; "
    "benign:ROW and published:SET/ID name rows of other sets"
)
KINDS = ("row", "fetched", "benign", "published", "test", "answer", "model")
TABLES = Path("results/tables")


@dataclass(frozen=True)
class Address:
    """A thing that has a passport; `kind` is one of `KINDS`, or the name of a table for its cells."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    def parts(self, count: int) -> list[str]:
        """The name in its parts; what stands in the last one may hold slashes."""
        return [*self.name.split("/", count - 1), *[""] * count][:count]


class Places:
    """What is there to be asked about.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tables: dict[str, Any] = {}

    def names(self, folder: str, pattern: str = "*.jsonl") -> list[str]:
        """Names of files in a folder, without what follows the first full stop."""
        return sorted(path.name.partition(".")[0] for path in (self.root / folder).glob(pattern))

    @property
    def benchmarks(self) -> list[str]:
        """Benchmarks that were fetched."""
        return self.names("data/benchmarks")

    @property
    def sources(self) -> list[str]:
        """Prompt sets that were fetched."""
        return self.names("data/sources")

    @property
    def models(self) -> list[str]:
        """Models that answered, and checkpoints."""
        found = {path.parent.name for path in self.root.glob("models/**/manifest.json")}
        return sorted({*found, *self.names("results/judgements", "*/"), *self.names("results/generations", "*/")})

    @property
    def tables(self) -> list[str]:
        """Tables whose cells have passports."""
        return [name for name in self.names(str(TABLES), "*.json") if self.cells(name)]

    def cells(self, table: str) -> list[dict[str, Any]]:
        """The cells of a table; none where it is another kind of table, or there is none."""
        if table not in self._tables:
            path = self.root / TABLES / f"{table}.json"
            found = read_json(path) if path.is_file() else {}
            self._tables[table] = found if isinstance(found, dict) else {}
        cells = self._tables[table].get("cells")
        return [one for one in cells or () if isinstance(one, dict) and {"model", "benchmark", "purpose"} <= {*one}]

    def confidence(self, table: str) -> float:
        """Confidence of a table's intervals, in (0, 1)."""
        self.cells(table)
        return float(self._tables[table].get("confidence", 0.95))


def cell_name(cell: dict[str, Any]) -> str:
    """A cell's name within its table, as in the metrics: pooled ones are told apart by their purpose."""
    pooled = cell["benchmark"] == POOLED
    return f"{cell['model']}/{POOLED} {cell['purpose']}" if pooled else f"{cell['model']}/{cell['benchmark']}"


def resolve(text: str, places: Places) -> Address:
    """The address that a text means.

    Raises:
        InputError: nothing or several things are called so.
    """
    meant = list(dict.fromkeys(_meant(text.strip(), places)))
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise InputError(text, "the name of several things", f"one of {', '.join(map(str, meant))}")
    parts = [_absent(places), _near(text, places), "`star1 passport --help` explains the forms"]
    hint = "; ".join(filter(None, parts))
    raise InputError(text, "no such row, answer, cell or checkpoint", FORMS, hint)


def _meant(text: str, places: Places) -> Iterator[Address]:
    kind, colon, name = text.partition(":")
    if colon and kind in KINDS:
        address = Address(kind, name)
        if _exists(address, places):
            yield address
        return
    if colon and kind in places.tables:
        yield from _cells(kind, name, places)
        return
    for kind in KINDS:
        # Numbers name rows; their benign look-alikes and released rows are asked for by their full address.
        address = Address(kind, text)
        if kind not in ("benign", "published") and _exists(address, places):
            yield address
    for table in places.tables:
        yield from _cells(table, text, places)


def _cells(table: str, name: str, places: Places) -> Iterator[Address]:
    for cell in places.cells(table):
        if name in (cell_name(cell), f"{cell['model']}/{cell['benchmark']}"):
            yield Address(table, cell_name(cell))


def _exists(address: Address, places: Places) -> bool:
    root, name = places.root, address.name
    if address.kind == "row":
        return "/" not in name and row_of(root / "data/collection.jsonl", name) is not None
    if address.kind == "fetched":
        return _fetched(name, places)
    if address.kind == "benign":
        return row_of(root / "data/benign/rewritten.jsonl", name) is not None
    if address.kind == "model":
        return name in places.models
    folder, row = address.parts(2)
    if address.kind in ("published", "test"):
        file = root / "data" / {"published": "published", "test": "benchmarks"}[address.kind] / f"{folder}.jsonl"
        return folder != "" and row_of(file, row) is not None
    model, benchmark, row = address.parts(3)
    file = root / "results/generations" / model / f"{benchmark}.jsonl"
    return bool(row) and bool(answers_of(file, row)[0])


def _fetched(name: str, places: Places) -> bool:
    """Whether a prompt set was read that has a row of this number, kept or not."""
    source, _, number = name.rpartition("-")
    counts = places.root / "data/sources" / f"{source}.counts.json"
    if not re.fullmatch(r"[0-9]+", number) or source not in places.sources:
        return False
    return not counts.is_file() or int(number) < read_json(counts)["read"]


def _absent(places: Places) -> str:
    """What to do where nothing but the tables is here: they are in git, and rows are not."""
    if (places.root / "data/collection.jsonl").is_file() or not places.tables:
        return ""
    return "only tables are here: `dvc pull` fetches rows, answers and checkpoints, `snakemake` makes them"


def _near(text: str, places: Places) -> str:
    """Names that are like a text, nearest first, or what is missing altogether."""
    if not (places.root / "data/collection.jsonl").is_file() and not places.tables:
        return "nothing is made yet: run `snakemake`, or fetch what was released with `dvc pull`"
    kind = text.partition(":")[0]
    if kind == "model" and places.models:
        return f"there are {', '.join(f'model:{model}' for model in places.models)}"
    if kind == "published":
        sets = sorted(path.stem for path in (places.root / "data/published").glob("*.jsonl"))
        missing = "no published set is here: `star1 import-published` fetches them, and a run that names one reads it"
        return f"the published sets here are {', '.join(sets)}" if sets else missing
    names = [f"{table}:{cell_name(cell)}" for table in places.tables for cell in places.cells(table)]
    names += [f"model:{model}" for model in places.models]
    names += [f"{benchmark}/..." for benchmark in places.benchmarks] + [f"{source}-N" for source in places.sources]
    bare = {name.partition(":")[2] or name: name for name in names}
    near = difflib.get_close_matches(text.partition(":")[2] or text, bare, n=3, cutoff=0.5)
    ids = _near_ids(text, places)
    told = [*(bare[one] for one in near), *ids]
    return f"near names: {', '.join(told)}" if told else f"there are {', '.join(names[:6])}, ..."


def _near_ids(text: str, places: Places) -> list[str]:
    """Ids like the last part of an address of a benchmark's row or answer, and the last row of the collection."""
    parts = text.partition(":")[2] or text
    for benchmark in places.benchmarks:
        start = f"{benchmark}/"
        if start in parts:
            from star1.records import read_rows

            before, _, name = parts.partition(start)
            known = [row["id"] for row in read_rows(places.root / f"data/benchmarks/{benchmark}.jsonl", ["id"])]
            return [f"{before}{start}{one}" for one in difflib.get_close_matches(name, known, n=3, cutoff=0.3)]
    if parts.isdecimal() and (last := _last_id(places.root / "data/collection.jsonl")):
        return [f"rows are called 0 to {last}"]
    return []


def _last_id(path: Path) -> str:
    if not path.is_file() or not (size := path.stat().st_size):
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, size - 2**17))
        found = re.findall(rb'\{"id":"([0-9]+)"', file.read())
    return found[-1].decode() if found else ""
