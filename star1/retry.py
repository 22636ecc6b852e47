"""`star1 calls retry`: ask anew about quarantined rows, which no run does by itself.

Each of their replies is taken back by a record of its own; it stays on disk, and counts as paid. The stage's quarantine is
put aside, so that an output is missing and both engines run the stage again: it asks for what was taken back, and for
nothing else.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from star1.calls import ASIDE
from star1.columns import columns
from star1.deliberation import NO_POLICY
from star1.errors import InputError, SettingError
from star1.ladder import JOIN
from star1.ledger import FOLDER, records
from star1.records import Row, read_rows, write_rows
from star1.replies import GIVEN_UP, REOPENED, Store
from star1.segments import segments

# Answers of models, and of a ladder's variants, whose names have `JOIN` in them.
JUDGED, LADDER = Path("results/quarantine"), Path("results/ladder/quarantine")
LOCKS = Path(".snakemake/locks")
# Rows that no model was asked about, in a stage that an earlier one decides for.
NEVER_ASKED = frozenset({NO_POLICY})
NONE = "no row is in quarantine for want of a usable reply"


@dataclass(frozen=True)
class Quarantine:
    """The quarantined rows of a stage.

    Attributes:
        stage: name of its store, such as reason or judge-tiny.
        file: where the rows are.
        output: the stage's output, which is another file where that is not there.
        rows: {id, stage, reason, ...}; those that no model was asked about are left out.
    """

    stage: str
    file: Path
    output: Path
    rows: list[Row]

    def chosen(self, reasons: Sequence[str]) -> dict[str, str]:
        """Reason by id of the rows with one of `reasons`."""
        return {str(row["id"]): row["reason"] for row in self.rows if row["reason"] in reasons}


def quarantines(root: Path = Path()) -> dict[str, Quarantine]:
    """The quarantines that hold rows, by stage; of a stage that failed or is to run again, what was put aside."""
    outputs = {path.stem: path for path in sorted((root / "data/quarantine").glob("*.jsonl"))}
    for folder in (JUDGED, LADDER):
        outputs |= {f"judge-{path.stem}": path for path in sorted((root / folder).glob("*.jsonl"))}
    files = {path.stem: path for path in sorted((root / ASIDE).glob("*.jsonl"))} | outputs
    found = {}
    for stage, file in sorted(files.items()):
        if rows := [row for row in read_rows(file, ["id", "reason"]) if row["reason"] not in NEVER_ASKED]:
            found[stage] = Quarantine(stage, file, outputs.get(stage, _output(stage, root)), rows)
    return found


def _output(stage: str, root: Path) -> Path:
    judged = stage.removeprefix("judge-")
    if judged == stage:
        return root / f"data/quarantine/{stage}.jsonl"
    return root / (LADDER if JOIN in judged else JUDGED) / f"{judged}.jsonl"


def select(found: Mapping[str, Quarantine], stages: Sequence[str], reasons: Sequence[str]) -> list[Quarantine]:
    """The quarantines of `stages` (or all) that have rows with one of `reasons` (or any).

    Raises:
        SettingError: a stage or a reason that no quarantined row has; names those there are.
    """
    for stage in stages:
        if stage not in found:
            raise SettingError("--stage", f"no quarantined row of {stage!r}", _one_of(list(found)))
    chosen = [found[stage] for stage in stages or found]
    known = sorted({row["reason"] for one in chosen for row in one.rows})
    for reason in reasons:
        if reason not in known:
            raise SettingError("--reason", f"no quarantined row with {reason!r}", _one_of(list(map(repr, known))))
    return [one for one in chosen if not reasons or one.chosen(reasons)]


def _one_of(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}" if names else f"nothing at all, since {NONE}"


def table(found: Sequence[Quarantine]) -> list[str]:
    """Reasons with their counts, stage by stage."""
    counts = [(one.stage, Counter(row["reason"] for row in one.rows)) for one in found]
    rows = [("stage", "reason", "rows")]
    rows += [(stage, reason, f"{count:,}") for stage, counter in counts for reason, count in counter.most_common()]
    return columns(rows) if found else [NONE]


def served(path: Path, items: Mapping[str, str]) -> dict[str, dict[str, Row]]:
    """What a store would give back for some items: by item its requests' last records, of the model last asked about it.

    All turns and samples of an item are among them, and none of an item whose replies were taken back before. Replies of
    another model were not those that were put in quarantine.
    """
    found: dict[str, dict[str, Row]] = {}
    for record in records(path):
        item, key = str(record.get("item")), record["key"]
        if item in items and record["status"] in ("ok", REOPENED, GIVEN_UP):
            kept = found.setdefault(item, {})
            kept.pop(key, None)  # the last record counts, in its place
            if record["status"] != REOPENED:
                kept[key] = {name: record.get(name) for name in ("item", "role", "label", "model")}
    return {item: _last_model(kept) for item, kept in found.items()}


def _last_model(kept: dict[str, Row]) -> dict[str, Row]:
    who = [(about["label"], about["model"]) for about in kept.values()]
    return {key: about for (key, about), one in zip(kept.items(), who, strict=True) if one == who[-1]}


def reopen(found: Sequence[Quarantine], reasons: Sequence[str], root: Path = Path(), dry: bool = False) -> list[str]:
    """Take back the replies of rows with one of `reasons`; tells what was done.

    Args:
        found: the quarantines of the stages.
        reasons: as they stand there.
        root: the project's folder.
        dry: only tell.

    Raises:
        InputError: a run is at work, and a store in use.
    """
    if not dry:
        _see_that_nobody_works(root)
    with contextlib.ExitStack() as stack:
        # All of them before the first record: a store in use leaves the others as they are.
        stores = {} if dry else _open(stack, found, root)
        done = "would be re-opened" if dry else "re-opened"
        return [_reopen(one, reasons, _store(one.stage, root), stores.get(one.stage), done) for one in found]


def put_aside(found: Sequence[Quarantine], root: Path = Path()) -> None:
    """Make the stages stale for both engines by a missing output; its rows go where those of failed stages are."""
    from star1.workflow import sync

    outputs = [one for one in found if one.file == one.output]
    # First: killed here, DVC runs the stage again, and Snakemake once this is called again.
    sync.forget({one.output.relative_to(root).as_posix() for one in outputs})
    for one in outputs:
        write_rows(root / ASIDE / f"{one.stage}.jsonl", read_rows(one.output))
        one.output.unlink()


def _see_that_nobody_works(root: Path) -> None:
    if (root / LOCKS).is_dir() and any((root / LOCKS).iterdir()):
        hint = "wait until the run has ended; after one that was killed, `snakemake --unlock`"
        raise InputError(root / LOCKS, "a run of Snakemake holds this folder", "no run", hint)


def _open(stack: contextlib.ExitStack, found: Sequence[Quarantine], root: Path) -> dict[str, Store]:
    """The stores of some stages; a stage that never got a reply has none, and is given none."""
    paths = {one.stage: _store(one.stage, root) for one in found}
    there = {stage: path for stage, path in paths.items() if path.exists() or segments(path)}
    return {stage: stack.enter_context(Store(path)) for stage, path in there.items()}


def _store(stage: str, root: Path) -> Path:
    return root / FOLDER / f"{stage}.jsonl"


def _reopen(one: Quarantine, reasons: Sequence[str], path: Path, store: Store | None, done: str) -> str:
    items = one.chosen(reasons)
    replies = served(path, items)
    if store is not None:
        for item, key, about in _each(replies):
            store.reopen(key, {**about, "reason": items[item]})
    counts = ", ".join(f"{reason} {count}" for reason, count in Counter(items.values()).most_common())
    told = [f"{one.stage}: {len(items):,} rows ({counts}), {sum(map(len, replies.values())):,} requests {done}"]
    if before := sum(not kept for kept in replies.values()):
        told.append(f"{before:,} rows were re-opened before")
    if without := len(items) - len(replies):
        told.append(f"{without:,} rows have no reply of their own: none came, or another row asks the same")
    return "; ".join(told)


def _each(replies: Mapping[str, Mapping[str, Row]]) -> Iterator[tuple[str, str, Row]]:
    for item, kept in replies.items():
        for key, about in kept.items():
            yield item, key, about
