"""What the stages with model calls will still cost: their own code goes through their own rows, and nothing is sent.

What the stores hold is answered from there; the rest is counted. Where a stage's rows are not made yet, those of an
earlier stage stand for them, with texts of the usual length in place of what is missing. A repair turn, or a reply that
has to be asked for anew, is known only once the first reply is there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from star1 import benign, deliberation, runs
from star1.calls import Calls, Outcome
from star1.columns import columns
from star1.decoding import sampling_for
from star1.endpoints import Endpoint, Sampling
from star1.errors import SettingError
from star1.judges import Benchmark, judge
from star1.ledger import FOLDER, records
from star1.llm import CHARACTERS_PER_TOKEN, Client, Request
from star1.params import Params
from star1.parsing import NoReplyError
from star1.policies import Pack, load_pack
from star1.prices import REPLY_TOKENS
from star1.records import Row, read_rows
from star1.replies import Reply, Store, usage_tokens
from star1.spending import Spending

# The stand-in is brief, and counts words. Source: means of the default run.
STAND_IN_TOKENS = {"categorize": 2, "reason": 87, "score": 6, "judge": 1}
STAND_IN_TOKENS |= {"benign_rewrite": 10, "benign_reason": 49, "benign_score": 6}
# Artifacts in running order: rows of an earlier one stand for those of a later one that is not made yet.
CHAIN = ("collection", "categorized", "cot", "star1", "benign/rewritten", "benign/cot")
# Begins what is told of benchmarks that are left out.
FEWER = "of fewer benchmarks"
HEADER = ("stage", "model", "rows", "stored", "calls", "tokens in", "tokens out", "USD", "hours")
STAGES: Mapping[str, tuple[str, str, Callable[..., Outcome]]] = {
    "categorize": ("classifier", "collection", deliberation.categorize),
    "reason": ("teacher", "categorized", deliberation.reason),
    "score": ("scorer", "cot", deliberation.score),
    "benign_rewrite": ("rewriter", "star1", benign.rewrite),
    "benign_reason": ("teacher", "benign/rewritten", benign.reason),
    "benign_score": ("scorer", "benign/cot", benign.score),
}


class Counting(Client):
    """Answers from the store, and counts what is not there.

    Attributes:
        missing: foreseen tokens of each request that would be sent, by key.
        known: tokens by the same measure of the prompts in the store, and by the endpoint's own count.
    """

    asks = False

    def __init__(self, calls: Calls, store: Store, counted: Mapping[str, int]) -> None:
        # No key is needed to count.
        super().__init__(calls.endpoint.model_copy(update={"key": None, "max_usd": None}), calls.sampling, store)
        self.pool = (calls.endpoint, *calls.others)
        self.missing: dict[str, float] = {}
        self.known = (0.0, 0)
        self._counted = counted

    async def ask(self, request: Request) -> Reply:
        """The stored reply.

        Raises:
            NoReplyError: it is not stored; counted.
        """
        key, texts = self.key(request), [turn["content"] for turn in request.messages]
        # The stand-in counts words.
        remote = self.endpoint.provider == "openai"
        tokens = sum(len(text) / CHARACTERS_PER_TOKEN if remote else len(text.split()) for text in texts)
        if (closed := self.store.given_up(key)) is not None:
            raise NoReplyError(*closed)
        if (reply := self.store.get(key)) is None:
            self.missing[key] = tokens
            raise NoReplyError("not asked yet", "no reply in the store")
        self.answered += 1
        if key in self._counted:
            self.known = self.known[0] + tokens, self.known[1] + self._counted[key]
        return reply


@dataclass(frozen=True)
class Dry(Calls):
    """Calls of a stage that are only counted."""

    counted: Mapping[str, int] = field(default_factory=dict)
    clients: list[Counting] = field(default_factory=list)

    def store(self) -> Store:
        """The stage's store, only to be read."""
        return Store(self.replies, look=True)

    def client(self, store: Store) -> Client:
        """Who counts."""
        self.clients.append(Counting(self, store, self.counted))
        return self.clients[-1]


@dataclass(frozen=True)
class Estimate:
    """What a stage would still send: calls, their tokens, what they cost [USD] and take [hours]; None where unknown."""

    stage: str
    label: str
    model: str
    rows: int
    stored: int
    calls: int
    prompt_tokens: float
    reply_tokens: float
    usd: float | None
    hours: float | None
    stands_for: str


@dataclass(frozen=True)
class Seen:
    """What the store says about an endpoint's replies: tokens of prompts by key, and means of length and time."""

    counted: Mapping[str, int]
    reply_tokens: float | None
    seconds: float | None


def seen(path: Path, endpoint: Endpoint) -> Seen:
    """What a store says about an endpoint's replies."""
    counted: dict[str, int] = {}
    lengths, times = [], []
    for record in records(path):
        if record["status"] != "ok" or (record.get("label"), record.get("model")) != (endpoint.label, endpoint.model):
            continue
        if tokens := usage_tokens(record.get("usage")):
            counted[record["key"]] = tokens[0]
            lengths.append(tokens[1])
        times.append(float(record.get("seconds") or 0))
    return Seen(counted, _mean(lengths), _mean(times))


def _mean(values: list[int] | list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def estimates(params: Params, names: list[str], root: Path = Path()) -> list[Estimate]:
    """What stages would still send; those of `names`, or all.

    Raises:
        SettingError: no such stage.
    """
    judges = [f"judge-{model}" for model in runs.expand(params.generate.models, params.finetune.table())]
    for name in names:
        if name not in (*STAGES, *judges):
            raise SettingError("estimate", repr(name), f"one of {', '.join([*STAGES, *judges])}")
    found: list[Estimate] = []
    for name in names or [*STAGES, *judges]:
        found += [_stage(params, name, root)] if name in STAGES else _judging(params, name, root)
    return found


def _stage(params: Params, name: str, root: Path) -> Estimate:
    role, _, follow = STAGES[name]
    counting = _Counting(params, root, name, name, list(params.llm.pool(role)), sampling_of(params, name))
    rows, stands_for = plain_rows(params, name, root, counting.filler)
    follow(rows, counting.filler.pack, counting.calls)
    return counting.told(name, len(rows), stands_for)


def _judging(params: Params, name: str, root: Path) -> list[Estimate]:
    """What each judge would still be asked about a model's answers."""
    found = []
    for who in params.judge.use.names:
        how = params.judge.judges[who]
        counting = _Counting(params, root, name, "judge", how.endpoints, how.sampling)
        benchmarks, stands_for = judged_rows(params, name.partition("-")[2], root, counting.filler)
        mine = [one for one in benchmarks if who in params.judge.use.of(one.purpose)]
        outcome = judge(who, how, mine, counting.filler.pack, counting.calls)
        count = len(outcome.kept) + len(outcome.quarantined)
        found.append(counting.told(f"{name}/{who}", count, stands_for))
    return found


class _Counting:
    """Calls that are counted: with what a stage or a judge asks, and what the store says about those before."""

    def __init__(
        self, params: Params, root: Path, store: str, kind: str, endpoints: list[str], sampling: Sampling
    ) -> None:
        endpoint, *others = params.llm.named(endpoints).values()
        path = root / FOLDER / f"{store}.jsonl"
        self.known, self.sampling = seen(path, endpoint), sampling
        usual = {**(REPLY_TOKENS if endpoint.provider == "openai" else STAND_IN_TOKENS), **params.llm.reply_tokens}
        self.usual = usual[kind]
        self.calls = Dry(endpoint, sampling, path, tuple(others), self.known.counted)
        self.filler = Filler(load_pack(root / "policies" / params.policy.pack), usual)

    def told(self, name: str, rows: int, stands_for: str) -> Estimate:
        """The estimate, once everything was asked."""
        length = self.usual if self.known.reply_tokens is None else self.known.reply_tokens
        longest = self.sampling.max_tokens or self.sampling.max_completion_tokens or length
        return price(name, rows, self.calls.clients[0], min(length, longest), self.known.seconds, stands_for)


def price(
    name: str, rows: int, client: Counting, reply_tokens: float, seconds: float | None, stands_for: str
) -> Estimate:
    """What the missing requests of a stage cost, and how long they take at the endpoint's limits."""
    endpoint, calls = client.endpoint, len(client.missing)
    measured, counted = client.known
    prompt = sum(client.missing.values()) * (counted / measured if measured else 1.0)
    reply = calls * reply_tokens
    limits = [
        (calls, _together(client.pool, "requests_per_minute", 60)),
        (prompt + reply, _together(client.pool, "tokens_per_minute", 60)),
        (calls * (seconds or 0.0), seconds and _together(client.pool, "slots", 3600)),
    ]
    # How long a batch takes is up to who works on it.
    hours = [units / an_hour for units, an_hour in limits if an_hour and not endpoint.batch]
    usd = endpoint.price.cost(prompt, reply) if endpoint.price else None
    needed = max(hours) if hours else None
    counts = (rows, client.answered, calls)
    return Estimate(name, endpoint.label, endpoint.model, *counts, prompt, reply, usd, needed, stands_for)


def _together(pool: Sequence[Endpoint], limit: str, an_hour: float) -> float | None:
    """What endpoints bear together in an hour; None where one of them has no limit."""
    values = [getattr(endpoint, limit) for endpoint in pool]
    return None if None in values else an_hour * sum(values)


def sampling_of(params: Params, stage: str) -> Sampling:
    """Decoding settings of a stage."""
    whole = {"categorize": params.categorize, "reason": params.reason, "score": params.score}
    parts = {name: getattr(params.benign, name.removeprefix("benign_")) for name in STAGES if name not in whole}
    return Sampling.model_validate({**whole, **parts}[stage].sampling)


class Filler:
    """Texts of the usual length in place of those that are not made yet."""

    def __init__(self, pack: Pack, usual: Mapping[str, int]) -> None:
        by_length = sorted(pack.names, key=lambda name: (len(pack.policies[name]), name))
        self.pack, self.other = pack, pack.other
        self.known = {*pack.names, pack.other}
        self.category = [by_length[len(by_length) // 2]]
        words = "word " * (usual["reason"] * CHARACTERS_PER_TOKEN // 2 // len("word "))
        self.answer = words.strip() or "word"
        self.response = f"<think>\n{self.answer}\n</think>\n\n{self.answer}"

    def fill(self, row: Row) -> Row:
        """A row with all fields that any stage reads."""
        return {"source": "", "category": self.category, "response": self.response, **row}


def plain_rows(params: Params, stage: str, root: Path, filler: Filler) -> tuple[list[Row], str]:
    """The rows a stage reads, or those of the latest artifact before it, and which artifact that is instead."""
    wanted = STAGES[stage][1]
    for artifact in reversed(CHAIN[: CHAIN.index(wanted) + 1]):
        if (path := root / "data" / f"{artifact}.jsonl").is_file():
            rows = [filler.fill(row) for row in read_rows(path, ["id", "question"])]
            if not all(filler.known.issuperset(row["category"]) for row in rows):
                continue  # made with another pack, and will be made anew
            if stage not in ("categorize", "reason"):  # a row of no category goes no further
                rows = [row for row in rows if row["category"] != [filler.other]]
            if stage.startswith("benign") and CHAIN.index(artifact) < CHAIN.index("star1"):
                rows = rows[: params.curate.size]
            if stage == "benign_rewrite" or (stage.startswith("benign") and not artifact.startswith("benign")):
                rows = rows[: params.benign.limit]
            return rows, "" if artifact == wanted else str(path)
    return [], "nothing"


def judged_rows(params: Params, model: str, root: Path, filler: Filler) -> tuple[list[Benchmark], str]:
    """The benchmarks with a model's answers, or with answers of the usual length, and what stands for them."""
    found, stands_for = [], ""
    for name in params.generate.benchmarks:
        rows, answers = root / f"data/benchmarks/{name}.jsonl", root / f"results/generations/{model}/{name}.jsonl"
        if not rows.is_file():
            stands_for = stands_for or f"{FEWER}, since there is no {rows} yet"
            continue
        known = {row["id"]: row for row in read_rows(rows, ["id", "question", "purpose"])}
        if answers.is_file():
            generated = read_rows(answers, ["id", "question", "response", "answer", "finish_reason"])
        else:
            stands_for = stands_for or f"{rows.parent}/"
            told = {
                "response": filler.response,
                "thinking": filler.answer,
                "answer": filler.answer,
                "finish_reason": "stop",
            }
            of = {one: other.model_dump(exclude_unset=True) for one, other in params.generate.sampling_of.items()}
            samples = sampling_for(model, name, params.generate.sampling.model_dump(), of).samples
            generated = [{**row, **told, "sample": number} for row in known.values() for number in range(samples)]
        purpose = next(iter(known.values()))["purpose"] if known else "reasoning"
        found.append(Benchmark(name, purpose, known, generated))
    return found, stands_for


def _standing_in(found: Sequence[Estimate]) -> dict[str, list[str]]:
    """What stands for rows that are not made yet, and for which stages."""
    told: dict[str, list[str]] = {}
    for one in found:
        if one.stands_for and one.rows:
            fewer = one.stands_for.startswith(FEWER)
            told.setdefault(one.stands_for if fewer else f"by the rows of {one.stands_for}", []).append(one.stage)
    return told


def table(found: list[Estimate]) -> list[str]:
    """Estimates as lines of text, with their sum, and what is not exact about them."""
    rows: list[tuple[str, ...]] = [HEADER]
    for one in found:
        counts = [f"{count:,.0f}" for count in (one.rows, one.stored, one.calls, one.prompt_tokens, one.reply_tokens)]
        usd = "-" if one.usd is None else f"{one.usd:,.2f}"
        hours = "-" if one.hours is None else f"{one.hours:,.2f}"
        rows.append((one.stage, one.label, *counts, usd, hours))
    total = sum(one.usd or 0.0 for one in found)
    calls = sum(one.calls for one in found)
    unknown = [one.stage for one in found if one.stands_for and not one.rows]
    without = f", and what {', '.join(unknown)} will ask, whose rows are not made yet" if unknown else ""
    notes = [f"{', '.join(stages)}: {instead}" for instead, stages in _standing_in(found).items()]
    unpriced = sorted({one.label for one in found if one.usd is None and one.calls})
    if unpriced:
        notes.append(f"no price is set for {', '.join(unpriced)}")
    return [*columns(rows), f"total: {calls:,} calls, {total:,.2f} USD{without}", *notes]


def beyond(params: Params, found: Sequence[Estimate], root: Path = Path()) -> list[str]:
    """A line for each model whose limits in USD the estimates go beyond, what was spent already counted."""
    told, pools = [], dict[tuple[str, str], dict[str, Endpoint]]()
    for name, endpoint in params.llm.endpoints.items():
        pools.setdefault((endpoint.label, endpoint.model), {})[name] = endpoint
    for key, pool in pools.items():
        ahead = sum(one.usd or 0.0 for one in found if (one.label, one.model) == key)
        limits = [endpoint.max_usd for endpoint in pool.values() if endpoint.max_usd is not None]
        if not ahead or len(limits) < len(pool):
            continue
        spent = sum(Spending(endpoint, root / FOLDER / "none.jsonl").usd for endpoint in pool.values())
        if spent + ahead > sum(limits):
            before = f" beside {spent:,.2f} USD already spent" if spent else ""
            limit = f"more than max_usd, {sum(limits):g}: stages will end there"
            told.append(f"{', '.join(pool)}: {ahead:,.2f} USD{before} is {limit}")
    return told
