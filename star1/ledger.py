"""The stores of all stages together: what is in them, whether it can be read, and as one plain file."""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from star1.columns import columns
from star1.errors import InputError
from star1.prices import Price
from star1.records import Row, write_rows
from star1.replies import GIVEN_UP, REOPENED, Reply, Store, usage_tokens
from star1.segments import Block, Place, is_zipped, lines, segments

KEY = re.compile(r"[0-9a-f]{64}")
FOLDER = Path("data/replies")


class DamagedLineError(Exception):
    """A line that is no record of an attempt."""


@dataclass
class Use:
    """What one stage had from one model in one role.

    Attributes:
        answered: replies, those that were later asked anew included.
        failed: attempts without a reply, by reason.
        prompt_tokens: of the replies whose server told [tokens].
        reply_tokens: the same for what was answered.
        uncounted: replies whose server did not tell.
        seconds: that all replies took together, where that was kept [s].
        reopened: requests that are to be asked again: their replies are not given back any more.
        given_up: requests that are not to be asked again.
    """

    stage: str
    role: str
    label: str
    model: str
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    reply_tokens: int = 0
    uncounted: int = 0
    seconds: float = 0.0
    reopened: int = 0
    given_up: int = 0

    def add(self, record: Row) -> None:
        """Count one attempt."""
        if record["status"] == REOPENED:
            self.reopened += 1
            return
        if record["status"] == GIVEN_UP:
            self.given_up += 1
            return
        if record["status"] != "ok":
            self.failed[str(record.get("reason"))] += 1
            return
        self.answered += 1
        self.seconds += float(record.get("seconds") or 0.0)
        tokens = usage_tokens(record.get("usage"))
        self.uncounted += tokens is None
        prompt, reply = tokens or (0, 0)
        self.prompt_tokens, self.reply_tokens = self.prompt_tokens + prompt, self.reply_tokens + reply


def stores(names: Sequence[str] = (), folder: Path = FOLDER) -> dict[str, Path]:
    """The stores of stages by name; those of `names`, or all.

    Raises:
        InputError: no such store.
    """
    files = {re.sub(r"\.jsonl(\.[0-9]{3,}\.gz)?", "", one.name) for one in folder.glob("*.jsonl*") if _is_store(one)}
    for name in names:
        if name not in files:
            raise InputError(folder / f"{name}.jsonl", "no such store", f"one of {', '.join(sorted(files)) or 'none'}")
    return {name: folder / f"{name}.jsonl" for name in sorted(names or files)}


def _is_store(path: Path) -> bool:
    return re.fullmatch(r"[^.].*\.jsonl(\.[0-9]{3,}\.gz)?", path.name) is not None


def read_record(line: bytes) -> Row:
    """One attempt.

    Raises:
        DamagedLineError: says what is wrong with the line.
    """
    try:
        record: Any = orjson.loads(line)
        if not KEY.fullmatch(record["key"]):
            raise DamagedLineError(f"a key of another form ({record['key'][:80]!r})")
        if record["status"] == "ok":
            Reply(**record["reply"], note=record["note"])
    except orjson.JSONDecodeError as error:
        raise DamagedLineError(f"not JSON ({error})" if line else "a block that cannot be unzipped") from None
    except (KeyError, TypeError) as error:
        raise DamagedLineError(f"no record of an attempt ({type(error).__name__}: {error})") from None
    return dict(record)


def records(path: Path) -> Iterator[Row]:
    """The readable records of a store, in order."""
    for _, line in lines(path):
        try:
            yield read_record(line)
        except DamagedLineError:
            continue


def uses(stage: str, path: Path) -> list[Use]:
    """What is in a store, by role and model."""
    found: dict[tuple[str, str, str], Use] = {}
    for record in records(path):
        who = (str(record.get("role", "")), str(record.get("label", "")), str(record.get("model", "")))
        found.setdefault(who, Use(stage, *who)).add(record)
    return list(found.values())


def size(path: Path) -> int:
    """What a store takes on disk [bytes]."""
    return sum(one.stat().st_size for one in (path, *segments(path)) if one.exists())


def status(chosen: dict[str, Path], prices: Mapping[tuple[str, str], Price]) -> list[str]:
    """A table of what each stage had from each model, what that cost, how long a reply took, and the room on disk.

    Args:
        chosen: the stores.
        prices: by label and model.
    """
    rows = [("stage", "role", "label", "model", "replies", "tokens in", "tokens out", "USD", "seconds", "remarks")]
    total = 0.0
    for stage, path in chosen.items():
        for use in uses(stage, path):
            failed = ", ".join(f"{reason} {count}" for reason, count in use.failed.most_common())
            price = prices.get((use.label, use.model))
            cost = price.cost(use.prompt_tokens, use.reply_tokens) if price else 0.0
            total += cost
            told_cost = f"{cost:,.2f}" if price else "-"
            took = f"{use.seconds / use.answered:.2f}" if use.seconds else "-"
            counts = (f"{use.answered:,}", f"{use.prompt_tokens:,}", f"{use.reply_tokens:,}", told_cost, took)
            untold = f"{use.uncounted:,} replies without a count of tokens" if use.uncounted else ""
            again = f"{use.reopened:,} re-opened" if use.reopened else ""
            closed = f"{use.given_up:,} given up" if use.given_up else ""
            remarks = "; ".join(filter(None, [failed and f"without a reply: {failed}", closed, untold, again]))
            rows.append((stage, use.role, use.label, use.model, *counts, remarks))
    sizes = {stage: size(path) for stage, path in chosen.items()}
    told = ", ".join(f"{stage} {count:,}" for stage, count in sizes.items())
    return [
        *columns(rows),
        f"bytes: {told}" if told else "no replies",
        f"total: {total:,.2f} USD, {sum(sizes.values()):,} bytes",
    ]


def verify(stage: str, path: Path) -> tuple[list[str], bool]:
    """What a store holds and what is wrong with it, in lines; whether nothing is damaged.

    Half-written ends of killed runs are told and are no damage: no reply was used before its line was whole.
    """
    count, faults, torn = 0, [], False
    for place, line in lines(path):
        torn = place.block is None and not line.endswith(b"\n")
        if torn:
            continue
        count += 1
        try:
            read_record(line)
        except DamagedLineError as fault:
            where = path if place.block is None else f"{place.block.path}, block at {place.block.start}"
            faults.append(f"{where}, byte {place.start}: {fault}")
    told = [f"{stage}: {count:,} lines, {len(faults)} damaged, {len(segments(path))} zipped segments", *faults]
    if torn:
        told.append(f"{path}: a half-written last line: a run is writing, or was killed; the next one cuts it off")
    if (aside := Path(f"{path}.torn")).exists():
        told.append(f"{aside}: {aside.stat().st_size:,} bytes of half-written lines that were cut off")
    if path.exists() and is_zipped(path):
        told.append(f"{path}: all of it is zipped as well: `compact` was killed; the next run empties it")
    return told, not faults


def export(chosen: dict[str, Path], out: Path) -> int:
    """Write the replies that a run would find, one line each, sorted by stage and key; gives their number."""
    return write_rows(out, (row for stage, path in chosen.items() for row in _served(stage, path)))


def _served(stage: str, path: Path) -> Iterator[Row]:
    places: dict[str, Place] = {}
    for place, line in lines(path):
        try:
            record = read_record(line)
        except DamagedLineError:
            continue
        if record["status"] == "ok":
            places[record["key"]] = place
        elif record["status"] == REOPENED:
            places.pop(record["key"], None)
    read = functools.lru_cache(maxsize=256)(Block.read)
    for key in sorted(places):
        record = read_record(_line_at(path, places[key], read))
        yield dict(sorted({"stage": stage, **record}.items()))


def _line_at(path: Path, place: Place, read: Any) -> bytes:
    if place.block is not None:
        return bytes(read(place.block)[place.start : place.start + place.length])
    with open(path, "rb") as file:
        return os.pread(file.fileno(), place.length, place.start)


def compact(stage: str, path: Path) -> str:
    """Zip a store's closed lines; tells what became of them.

    Raises:
        InputError: a run is writing to the store, or files cannot be locked here.
    """
    before = size(path)
    with Store(path) as store:
        segment = store.compact()
    told = f"{before:,} bytes, now {size(path):,} ({segment.name})" if segment else "nothing to zip"
    return f"{stage}: {told}"
