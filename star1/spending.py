"""What all stages spend at an endpoint, also those that run at the same time: the stores are read on as they grow."""

import time
from pathlib import Path

import orjson

from star1.endpoints import Endpoint
from star1.ledger import stores
from star1.replies import usage_tokens
from star1.segments import lines

LOOK_EVERY_S = 5.0


class Spending:
    """What was spent at an endpoint when this was made, and since, by the stores in a folder.

    Between two looks, `LOOK_EVERY_S` apart, stages that run at the same time do not know of each other's last replies.

    Args:
        endpoint: with a price.
        own: the store whose later lines do not count here: who writes them counts them.

    Attributes:
        usd: spent before, in all stores [USD].
    """

    def __init__(self, endpoint: Endpoint, own: Path) -> None:
        self.endpoint, self.own = endpoint, own
        self._ends: dict[Path, int] = {}
        self.usd = sum(self._before(path) for path in stores(folder=own.parent).values())
        self._looked = time.monotonic()

    def news(self) -> float:
        """What other stages spent since the last look; looks at most every few seconds [USD]."""
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return 0.0
        self._looked = time.monotonic()
        others = [path for path in stores(folder=self.own.parent).values() if path != self.own]
        return sum(self._since(path) for path in others if path.exists())

    def _before(self, path: Path) -> float:
        usd, self._ends[path] = 0.0, 0
        for place, line in lines(path):
            if line.endswith(b"\n"):
                usd += self._cost(line)
                if place.block is None:
                    self._ends[path] = place.start + place.length
        return usd

    def _since(self, path: Path) -> float:
        """The cost of the whole lines that were added since the last look."""
        usd, end = 0.0, self._ends.get(path, 0)
        with open(path, "rb") as file:
            end = end if path.stat().st_size >= end else 0  # zipped meanwhile, and begun anew
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                usd, end = usd + self._cost(line), end + len(line)
        self._ends[path] = end
        return usd

    def _cost(self, line: bytes) -> float:
        """What one attempt cost at this endpoint [USD]; lines from before endpoints were recorded count for each."""
        try:
            record = orjson.loads(line)
            here = record.get("endpoint") in (None, self.endpoint.url)
            ours = here and (record["label"], record["model"]) == (self.endpoint.label, self.endpoint.model)
            tokens = usage_tokens(record.get("usage")) if ours and record["status"] == "ok" else None
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return 0.0
        price = self.endpoint.price
        return price.cost(*tokens) if price and tokens else 0.0
