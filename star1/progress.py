"""Progress with rate and time left: a bar on a terminal, a line every few seconds in a log, and a file for `star1 watch`."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from star1 import status
from star1.records import Row

T = TypeVar("T")

LINE_EVERY_S = 10.0


class Progress:
    """Counts finished units of one stage and tells about them on stderr.

    Args:
        stage: name that starts the bar or line.
        total: units to do, or None when it is not known.
        unit: what is counted, in the plural.
        done: units that are done from the start (a resumed job); they stay out of the rate.
        job: what `star1 watch` calls it; unless given, the stage.
        more: what else there is to tell, looked up from another thread.
        watches_gpus: whether the job uses GPUs.
    """

    def __init__(
        self,
        stage: str,
        total: int | None,
        unit: str = "rows",
        done: int = 0,
        *,
        job: str | None = None,
        more: Callable[[], Row] = dict,
        watches_gpus: bool = False,
    ) -> None:
        self.stage, self.total, self.unit, self.done, self.first = stage, total, unit, done, done
        self.started = self.told = time.monotonic()
        self.bar = (
            tqdm(total=total, initial=done, desc=stage, unit=f" {unit}", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        facts = {"stage": stage, "unit": unit, "total": total, "first": done}
        self.status = status.start(job or stage, lambda: {"done": self.done, **more()}, facts, watches_gpus)

    def add(self, units: int = 1) -> None:
        """Count `units` more as done."""
        self.done += units
        if self.bar is not None:
            self.bar.update(units)
        elif time.monotonic() - self.told >= LINE_EVERY_S:
            self.told = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)  # noqa: T201

    def line(self) -> str:
        """The state as one line of text."""
        rate = (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)
        share = f" of {self.total:,} ({self.done / self.total:.0%})" if self.total else ""
        left = f", {(self.total - self.done) / rate:,.0f} s left" if self.total and rate > 0 else ""
        return f"{self.stage}: {self.done:,}{share} {self.unit}, {rate:,.1f}/s{left}"

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
        if self.status is not None:
            self.status.close()


def track(items: Iterable[T], stage: str, total: int | None = None, unit: str = "rows") -> Iterator[T]:
    """Go through `items` and tell how far it is."""
    progress = Progress(stage, total, unit)
    try:
        for item in items:
            yield item
            progress.add()
    finally:
        progress.close()
