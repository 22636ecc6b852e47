"""`star1 policy check`: a pack's files, then its golden examples through the models that a run would ask."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from star1.calls import Calls
from star1.columns import columns
from star1.endpoints import Endpoint
from star1.errors import InputError
from star1.estimate import STAGES, sampling_of
from star1.golden import Answer, Example, ask, counts, read_golden, table
from star1.judge_settings import Judge, Kind
from star1.ledger import FOLDER
from star1.llm import Client
from star1.packs import GOLDEN, read_files
from star1.params import Params, as_list
from star1.policies import load_pack
from star1.replies import Store
from star1.spending import Spending

# Apart from the replies of runs: those are DVC's, and what was tried while a pack was written is no part of any artifact.
REPLIES = Path(".work/policy-check")
# Kinds of judges that examples have verdicts of.
KINDS: tuple[Kind, ...] = ("refusal", "guard")
# Of a check, what got no reply is asked again by the next one, however much did.
ALL = 1.1


class PackError(InputError):
    """All mistakes of a pack, a line each."""

    def __init__(self, folder: Path, mistakes: Sequence[InputError]) -> None:
        self.lines = [str(one) for one in mistakes]
        super().__init__(folder, f"{len(mistakes)} mistakes", "a pack without")

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class CheckCalls(Calls):
    """Calls about golden examples; what runs and earlier checks spent counts for the endpoint's limit."""

    def client(self, store: Store) -> Client:
        """Who asks."""
        client = super().client(store)
        for lane in client.lanes:
            if lane.endpoint.max_usd is not None:
                lane.budget.spent += Spending(lane.endpoint, FOLDER / "none").usd
        return client


def check_files(folder: Path, golden: bool) -> tuple[str, list[Example]]:
    """Check all files of a pack; gives a summary line, and its golden examples.

    Args:
        folder: the pack.
        golden: whether it must have golden examples.

    Raises:
        PackError: all mistakes.
    """
    files = read_files(folder)
    examples, wrong = read_golden(folder, files.terms) if golden or (folder / GOLDEN).exists() else ([], [])
    if mistakes := [*files.mistakes, *wrong]:
        raise PackError(folder, mistakes)
    parts = [f"{len(files.terms.names)} categories", f"{len(files.texts)} texts"]
    parts.append(f"{len(examples)} golden examples" if examples else f"no {GOLDEN}")
    return f"{folder}: {', '.join(parts)}; no mistakes", examples


def stage_calls(params: Params, endpoint: str | None, folder: Path) -> Callable[[str], Calls]:
    """How each stage asks: with its own settings, and the endpoint of its role or a named one."""

    def calls(stage: str) -> Calls:
        if stage in STAGES:
            names, sampling = as_list(getattr(params.llm.roles, STAGES[stage][0])), sampling_of(params, stage)
        else:
            names, sampling = (how := judges[stage.removeprefix("judge_")]).endpoints, how.sampling
        first, *others = _asked(params, names, endpoint)
        return CheckCalls(first, sampling, folder / f"{stage}.jsonl", tuple(others), coverage=ALL)

    judges = judges_of(params)
    return calls


def _asked(params: Params, names: list[str], endpoint: str | None) -> list[Endpoint]:
    """Endpoints by name, or the one that takes their place."""
    return list(params.llm.named([endpoint] if endpoint else names).values())


def judges_of(params: Params) -> dict[str, Judge]:
    """Who is asked with the pack's two prompts for verdicts: the first judge of each kind, else the primary one as that kind."""
    found: dict[str, Judge] = {}
    for kind in KINDS:
        known = [params.judge.judges[name] for name in params.judge.use.names] + list(params.judge.judges.values())
        plain = known[0].model_copy(update={"kind": kind, "template": None, "threshold": None})
        found[kind] = next((one for one in known if one.kind == kind), plain)
    return found


def check_golden(folder: Path, examples: Sequence[Example], params: Params, endpoint: str | None) -> list[Answer]:
    """Ask about golden examples.

    Raises:
        InputError: no such endpoint.
    """
    if endpoint is not None and endpoint not in params.llm.endpoints:
        raise InputError("--endpoint", repr(endpoint), f"one of {', '.join(params.llm.endpoints)} (llm.endpoints)")
    calls = stage_calls(params, endpoint, REPLIES)
    return ask(examples, load_pack(folder), calls, judges_of(params))


def report(answers: Sequence[Answer], params: Params, endpoint: str | None) -> Iterator[str]:
    """The table of answers, the counts, and who answered."""
    yield from columns(table(answers))
    yield f"as expected: {counts(answers)}"
    roles = {role: as_list(getattr(params.llm.roles, role)) for role in ("classifier", "scorer")}
    roles |= {f"judge {kind}": one.endpoints for kind, one in judges_of(params).items()}
    asked = {role: _asked(params, names, endpoint)[0] for role, names in roles.items()}
    yield "answered by: " + ", ".join(f"{role} {one.label}" for role, one in asked.items())
    if any(one.provider != "openai" for one in asked.values()):
        yield (
            "What no language model answered says whether the pack works with the pipeline; it says nothing about how a "
            "model would understand its texts."
        )
