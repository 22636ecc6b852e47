"""What model calls are foreseen to cost, against the limits that endpoints have."""

import sys
from collections.abc import Iterator

import orjson

from star1.doctor import commands
from star1.doctor.about import About
from star1.doctor.findings import Outcome, Seen, Unknown, finding

LIMIT_S = 12.0
# In a process of its own, which can be ended: with many rows it takes long.
PROGRAM = """
import orjson, sys
from star1 import estimate
from star1.params import Params
params = Params.model_validate(orjson.loads(sys.argv[1]))
found = estimate.estimates(params, [])
print(orjson.dumps([[one.stage, one.label, one.calls, one.usd] for one in found]).decode())
"""


def check(about: About) -> Iterator[Outcome]:
    """The estimate of each label with a price, where one has a limit."""
    priced = {one.label: one for one in about.params.llm.endpoints.values() if one.price}
    if not priced:
        return
    told = commands.ask([sys.executable, "-c", PROGRAM, orjson.dumps(about.values).decode()], LIMIT_S)
    if told.status != 0:
        yield Unknown("endpoint-limit", f"no estimate: {told.last}")
        return
    for label, endpoint in priced.items():
        usd = sum(one[3] or 0.0 for one in orjson.loads(told.out) if one[1] == label)
        if endpoint.max_usd is not None and usd > endpoint.max_usd:
            what = f"{usd:,.2f} USD foreseen; max_usd is {endpoint.max_usd:,.2f}"
            yield finding("endpoint-limit", label, what, "star1 estimate  # then raise max_usd, or take fewer rows")
        else:
            yield Seen("endpoint-limit", f"{label}: {usd:,.2f} USD foreseen by what lies here now (`star1 estimate`)")
