"""Where a row's fields come from: the stored replies behind its labels, reasoning and marks.

The stages' own code goes over the finished rows once more, answered from the stores alone. So the replies found are the
very ones that made the row, whatever else a store holds, and a row that its replies do not give is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from star1 import benign, deliberation
from star1.calls import Calls, Outcome
from star1.endpoints import Endpoint, Sampling, read_pool, read_settings
from star1.errors import InputError
from star1.ledger import records
from star1.llm import Client, Request
from star1.parsing import NoReplyError
from star1.policies import Pack
from star1.records import Row, file_digest, text_digest
from star1.replay import PUBLISHED
from star1.replies import Reply, Store, usage_tokens
from star1.standin import FINGERPRINT

MODEL, STAND_IN, RELEASED = "model", "stand-in", "released row"


@dataclass(frozen=True)
class Step:
    """One field of a row, and the stage that asked a model for it.

    Attributes:
        role: who was asked, as in `llm.roles`.
        stage: name of the stage and of its store.
        field: what the reply gave.
        go: the stage's own way through its rows.
        asked_about: gives the row as the stage saw it, from the finished one.
    """

    role: str
    stage: str
    field: str
    go: Callable[[Sequence[Row], Pack, Calls], Outcome]
    asked_about: Callable[[Row], Row] = dict


DELIBERATED = (
    Step("classifier", "categorize", "category", deliberation.categorize),
    Step("teacher", "reason", "response", deliberation.reason),
    Step("scorer", "score", "score", deliberation.score),
)
BENIGN = (
    Step("rewriter", "benign_rewrite", "question", benign.rewrite, lambda row: {**row, "question": row["original"]}),
    Step("teacher", "benign_reason", "response", benign.reason),
    Step("scorer", "benign_score", "score", benign.score),
)


@dataclass
class Recalled:
    """The replies behind one field of one row.

    Attributes:
        keys: of the replies in the store, in the order of the turns.
        templates: digests of the prompt's file, and after `+` of the repair prompt's, of the last turn.
        models: names that the servers gave, one each.
        origins: what answered: a language model, the stand-in, or a released row.
        prompt_tokens: of all turns together; None where a server did not tell.
        reply_tokens: the same for what was answered.
    """

    keys: list[str] = field(default_factory=list)
    templates: str = ""
    models: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    prompt_tokens: int | None = 0
    reply_tokens: int | None = 0

    def add(self, key: str, template: str, record: Row) -> None:
        """Count one turn."""
        self.keys.append(key)
        self.templates = template
        for known, found in ((self.models, str(record["served"])), (self.origins, origin(record["note"]))):
            if found not in known:
                known.append(found)
        prompt, reply = record["tokens"] or (None, None)
        self.prompt_tokens = _sum(self.prompt_tokens, prompt)
        self.reply_tokens = _sum(self.reply_tokens, reply)


def origin(note: str) -> str:
    """What gave a stored reply, from its note."""
    if FINGERPRINT in note:
        return STAND_IN
    return RELEASED if PUBLISHED in note else MODEL


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


class Recalling(Client):
    """Answers from the store alone, and remembers what answered each row."""

    asks = False

    def __init__(self, calls: Calls, store: Store, known: Mapping[str, Row]) -> None:
        # No key is needed to look, and nothing is spent.
        endpoint = calls.endpoint.model_copy(update={"key": None, "max_usd": None})
        super().__init__(endpoint, calls.sampling, store)
        self.found: dict[str, Recalled] = {}
        self._known = known

    async def ask(self, request: Request) -> Reply:
        """The stored reply.

        Raises:
            NoReplyError: it is not stored.
        """
        key = self.key(request)
        if (reply := self.store.get(key)) is None or key not in self._known:
            raise NoReplyError("not stored", "no reply in the store")
        self.found.setdefault(request.item, Recalled()).add(key, request.template, self._known[key])
        return reply


@dataclass(frozen=True)
class Look(Calls):
    """Calls of a stage that are only looked up."""

    clients: list[Recalling] = field(default_factory=list)

    def store(self) -> Store:
        """The stage's store, only to be read."""
        return Store(self.replies, look=True)

    def client(self, store: Store) -> Client:
        """Who looks."""
        self.clients.append(Recalling(self, store, _told(self.replies)))
        return self.clients[-1]


def _told(path: Path) -> dict[str, Row]:
    """What the servers told with each reply, by key."""
    return {
        record["key"]: {
            "served": record.get("served_model") or record.get("model"),
            "note": record.get("note") or "",
            "tokens": usage_tokens(record.get("usage")),
        }
        for record in records(path)
        if record["status"] == "ok"
    }


def recall(step: Step, rows: Sequence[Row], pack: Pack, look: Look) -> dict[str, Recalled]:
    """The replies behind one field of all rows, by row id.

    Raises:
        InputError: the stored replies do not give a row, or are not there.
    """
    outcome = step.go([step.asked_about(row) for row in rows], pack, look)
    made = {row["id"]: row[step.field] for row in outcome.kept}
    hint = f"`dvc checkout data/replies.dvc` brings stored replies back; `snakemake --force {step.stage}` makes the rows anew"
    for row in rows:
        if row["id"] not in made:
            raise InputError(f"row {row['id']}", f"no stored reply of {step.stage}", f"one in {look.replies}", hint)
        if made[row["id"]] != row[step.field]:
            found = f"a {step.field} that its stored reply of {step.stage} does not give"
            raise InputError(f"row {row['id']}", found, f"what {look.replies} holds", hint)
    return look.clients[0].found


@dataclass(frozen=True)
class Roles:
    """Who was asked, by role: endpoint and sampling of each stage, and the folder of the stores."""

    endpoints: Mapping[str, str]
    sampling: Mapping[str, str]
    replies: Path

    def look(self, step: Step) -> Look:
        """The way to a step's stored replies."""
        endpoint, *others = read_pool(step.role, self.endpoints[step.role])
        sampling = read_settings(step.stage, self.sampling[step.stage], Sampling)
        return Look(endpoint, sampling, self.replies / f"{step.stage}.jsonl", tuple(others))


def read_roles(endpoints: str, roles: str, sampling: str, replies: Path) -> Roles:
    """Roles from the command line: JSON objects of endpoints by name, names by role, sampling by section of params.yaml."""
    by_name, names = orjson.loads(endpoints), orjson.loads(roles)
    pools = {role: [one] if isinstance(one, str) else one for role, one in names.items()}
    given: dict[str, Any] = {
        role: {name: by_name[name] for name in pool} if len(pool) > 1 else by_name[pool[0]]
        for role, pool in pools.items()
    }
    settings = {name.replace(".", "_"): orjson.dumps(one).decode() for name, one in orjson.loads(sampling).items()}
    return Roles({role: orjson.dumps(one).decode() for role, one in given.items()}, settings, replies)


def columns(step: Step, found: Recalled, endpoint: Endpoint, settings: str) -> Row:
    """The flat columns about one step of one row, each named by the role."""
    values = {
        "label": endpoint.label,
        "model": endpoint.model,
        "served_model": " ".join(found.models),
        "sampling": settings,
        "template": found.templates,
        "prompt_tokens": found.prompt_tokens,
        "reply_tokens": found.reply_tokens,
        "origin": " ".join(found.origins),
        "replies": found.keys,
    }
    return {f"{step.role}_{name}": value for name, value in values.items()}


def trace(steps: Sequence[Step], rows: Sequence[Row], pack: Pack, roles: Roles) -> dict[str, Row]:
    """The flat columns about all steps of all rows, by row id.

    Raises:
        InputError: as `recall`.
    """
    traced: dict[str, Row] = {row["id"]: {} for row in rows}
    for step in steps:
        look = roles.look(step)
        found = recall(step, rows, pack, look)
        sent = {**(look.endpoint.extra_body or {}), **look.sampling.sent()}
        settings = orjson.dumps(sent, option=orjson.OPT_SORT_KEYS).decode()
        for key, values in traced.items():
            values.update(columns(step, found[key], look.endpoint, settings))
    return traced


def pack_digest(folder: str | Path) -> str:
    """What names the content of a policy pack: a digest over the names and digests of its files."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    return text_digest("".join(f"{path.relative_to(folder).as_posix()} {file_digest(path)}\n" for path in files))
