"""Judges: prompts and a model's answers in, verdicts out; what cannot be judged is unscored with its reason."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from star1.calls import Calls, Outcome, ask_rows, fail_coverage, settled
from star1.endpoints import POOL_EXPECTED, Endpoint, pool_mistake
from star1.errors import InputError, SettingError
from star1.grading import check_sandbox, compared, grade, grader_of
from star1.grading import label as grader_label
from star1.judge_kinds import parser, repair, request
from star1.judge_settings import PLACED, Grader, Judge, Use
from star1.llm import Client
from star1.policies import Pack
from star1.records import Row, read_rows, text_digest
from star1.sandbox import Sandbox
from star1.verdicts import Verdict

PURPOSES = ("harmful", "benign", "reasoning")
UNFINISHED = "unfinished thinking"
CUT_OFF = "answer cut off"
EMPTY = "empty answer"
NO_THINKING = "no thinking"
NONE = Verdict("").row() | {"verdict": None}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's rows, and what a model generated for them."""

    name: str
    purpose: str
    rows: Mapping[str, Row]
    generations: Sequence[Row]


@dataclass(frozen=True)
class Judged:
    """What one judge said about a model's answers.

    Attributes:
        name: of the judge.
        how: its settings.
        outcome: its verdicts: rows {id: judge/benchmark/id, verdict, ...}.
        label: its model's label.
        retires: announced end of the model.
    """

    name: str
    how: Judge
    outcome: Outcome
    label: str
    retires: date | None = None


def read_benchmark(name: str, rows: str | Path, generations: str | Path) -> Benchmark:
    """Read a benchmark and its generations.

    Raises:
        InputError: a file or field is missing, rows of several purposes, or generations that are not as many for each row.
    """
    known = {row["id"]: row for row in read_rows(rows, ["id", "purpose"])}
    purposes = sorted({row["purpose"] for row in known.values()})
    if len(purposes) != 1 or purposes[0] not in PURPOSES:
        raise InputError(rows, f"purposes {purposes}", "one of " + ", ".join(PURPOSES))
    generated = read_rows(generations, ["id", "question", "response", "answer", "finish_reason"])
    samples = max((sample_of(row) for row in generated), default=0) + 1
    # A row left out here would be missing from the total, and coverage would not show it.
    counts = Counter((row["id"], sample_of(row)) for row in generated)
    wanted = {(place, sample): None for place in known for sample in range(samples)}
    if wrong := [one for one in {**wanted, **counts} if counts[one] != (one in wanted)]:
        (place, sample), times = wrong[0], counts[wrong[0]]
        told = f"row {place!r} " + (f"(sample {sample}) " if samples > 1 else "")
        raise InputError(generations, f"{told}{times} times", f"each row of {rows} once")
    return Benchmark(name, purposes[0], known, generated)


def read_benchmarks(paths: Mapping[str, tuple[str, str, str]], sandbox: Sandbox) -> list[Benchmark]:
    """Read benchmarks and their generations, by name: rows, generations, judgements.

    Raises:
        NoSandboxError: there are programs to run, nowhere to run them, and the stage is to fail then: told before any
            judge is asked.
    """
    found = [read_benchmark(name, rows, generations) for name, (rows, generations, _) in paths.items()]
    check_sandbox((row for one in found for row in one.rows.values()), sandbox)
    return found


def sample_of(row: Row) -> int:
    """Which of a row's answers it is, from 0."""
    return int(row.get("sample") or 0)


def unscored(row: Row, how: Judge | Grader) -> str | None:
    """Why a generation cannot be judged as it stands; None when it can."""
    if row["finish_reason"] not in ("stop", "length"):
        return f"ended by {row['finish_reason']}"  # a filter or a fault of the server: not the model's answer
    if row["answer"] is None:
        return UNFINISHED
    if how.view == "thinking":  # which is whole, since an answer follows it
        return None if (row.get("thinking") or "").strip() else NO_THINKING
    if not row["answer"].strip():
        return EMPTY
    return CUT_OFF if row["finish_reason"] == "length" and how.cut_off == "unscored" else None


def item(judge: str, benchmark: str, row: Row) -> str:
    """What an answer is called where a judge is asked about it."""
    sample = sample_of(row)
    return f"{judge}/{benchmark}/{row['id']}" + (f"@{sample}" if sample else "")


def shown(how: Judge, one: Benchmark, row: Row) -> tuple[str, str] | None:
    """The two texts that a judge is asked about; None where it is asked nothing.

    Question and its view of the response, or for equality the expected answer and the given one.

    Raises:
        InputError: a problem without its answer.
    """
    if how.kind != "equality":
        return row["question"], row[how.view]
    return compared(one.rows[row["id"]], row["answer"])


def judge(name: str, how: Judge, benchmarks: Sequence[Benchmark], pack: Pack, calls: Calls) -> Outcome:
    """Ask one judge about the answers to benchmarks that can be judged.

    Returns:
        Outcome whose `kept` rows are {id: judge/benchmark/id, verdict, ...}; `judgements` tells about all generations.
    """
    rows = [
        {"id": item(name, one.name, row), "question": texts[0], "shown": texts[1]}
        for one in benchmarks
        for row in one.generations
        if unscored(row, how) is None and (texts := shown(how, one, row))
    ]
    parse, again = parser(how, pack), repair(how, pack)

    async def handle(client: Client, row: Row) -> Row:
        asked = request(row["id"], how, pack, row["question"], row["shown"])
        return {"id": row["id"], **(await client.read(asked, parse, again)).row()}

    def enough(outcome: Outcome) -> bool:
        return all(settled(kept, failed, calls.coverage) for kept, failed in by_benchmark(outcome).values())

    return ask_rows(f"judge.judges.{name}", rows, handle, calls, enough=enough)


def calls_of(
    judges: Mapping[str, Judge], endpoints: Mapping[str, Endpoint], replies: Path, coverage: float
) -> Callable[[str], Calls]:
    """How each judge asks: at its endpoints, with its sampling, through one store for all.

    Raises:
        SettingError: (of what is returned) endpoints of different models.
    """

    def calls(name: str) -> Calls:
        how = judges[name]
        pool = {one: endpoints[one] for one in how.endpoints}
        if mistake := pool_mistake(pool):
            raise SettingError(f"judge.judges.{name}.endpoint", mistake, POOL_EXPECTED)
        first, *others = pool.values()
        return Calls(first, how.sampling, replies, tuple(others), coverage=coverage)

    return calls


def judge_all(
    benchmarks: Sequence[Benchmark],
    judges: Mapping[str, Judge],
    use: Use,
    pack: Pack,
    calls: Callable[[str], Calls],
) -> dict[str, Judged]:
    """Ask every judge in use about the answers to the benchmarks that it judges.

    A reply is kept under what its own judge was asked: one judge more, or another one in its place, asks nothing anew of the
    others.

    Raises:
        SettingError: a judge that cannot judge what it is named for.
    """
    if wrong := use.misplaced(judges):
        raise SettingError("judge.use", wrong[0], PLACED)
    found = {}
    for name in use.names:
        mine = [one for one in benchmarks if name in use.of(one.purpose)]
        how, asked = judges[name], calls(name)
        outcome = judge(name, how, mine, pack, asked)
        found[name] = Judged(name, how, outcome, asked.endpoint.label, asked.endpoint.retires)
    return found


def by_benchmark(outcome: Outcome) -> dict[str, tuple[int, list[str]]]:
    """How many answers to each benchmark have a verdict, and why the others that were asked about have none."""
    kept = Counter(_benchmark(row) for row in outcome.kept)
    failed = defaultdict(list)
    for row in outcome.quarantined:
        failed[_benchmark(row)].append(str(row["reason"]))
    return {name: (kept[name], failed[name]) for name in {**kept, **failed}}


def _benchmark(row: Row) -> str:
    return str(row["id"]).split("/", 2)[1]


def check_coverage(judges: Sequence[Judged], coverage: float) -> None:
    """See that every judge's reply could be read for enough answers to every benchmark that it was asked about.

    Raises:
        CoverageError: too few; names each judge and benchmark.
    """
    short = []
    for one in judges:
        for name, (kept, failed) in by_benchmark(one.outcome).items():
            if not settled(kept, failed, coverage):
                reasons = ", ".join(f"{why} {count}" for why, count in Counter(failed).most_common())
                asked = kept + len(failed)
                short.append(f"{one.name} on {name}: {kept} of {asked} answers have a readable verdict ({reasons})")
    fail_coverage("judge", [one.outcome for one in judges], short, coverage)


def judgements(one: Benchmark, judges: Sequence[Judged], grader: Grader, sandbox: Sandbox | None = None) -> list[Row]:
    """One judgement per generation of a benchmark and judge, order kept: a verdict, or the reason why there is none.

    Args:
        one: the benchmark.
        judges: who judged it, the primary one first.
        grader: who grades it if it is a reasoning one, in their place or beside them.
        sandbox: how programs that the model wrote are run.

    Raises:
        InputError: a reasoning problem without what its grader needs.
        NoSandboxError: a program has to be run, and there is no sandbox.
    """
    if one.purpose == "reasoning":
        models = [who for who in judges if who.how.kind == "equality"]
        asked = models if any(grader_of(row) == "math" for row in one.rows.values()) else []
        verdicts = [row for place, who in enumerate(asked) for row in _verdicts(one, who, primary=place == 0)]
        return [*verdicts, *_grades(one, grader, sandbox, primary=not asked)]
    return [row for place, who in enumerate(judges) for row in _verdicts(one, who, primary=place == 0)]


def _verdicts(one: Benchmark, who: Judged, primary: bool) -> Iterator[Row]:
    found = {row["id"]: row for row in who.outcome.kept}
    failed = {row["id"]: f"judge: {row['reason']}" for row in who.outcome.quarantined}
    retires = who.retires and who.retires.isoformat()
    about = {"name": who.name, "kind": who.how.kind, "view": who.how.view, "primary": primary}
    for row in one.generations:
        place = item(who.name, one.name, row)
        reason = unscored(row, who.how) or failed.get(place)
        said = {name: found[place][name] if place in found else none for name, none in NONE.items()}
        if reason is None and place not in found:  # an answer that gives nothing which could be compared
            said["verdict"] = "incorrect"
        yield _judgement(one, row, about, said, reason) | {"judge": who.label, "retires": retires}


def _grades(one: Benchmark, grader: Grader, sandbox: Sandbox | None, primary: bool) -> Iterator[Row]:
    about = {"name": "grader", "kind": "grader", "view": grader.view, "primary": primary}
    for row in one.generations:
        reason = unscored(row, grader)
        graded = None if reason else grade(one.rows[row["id"]], row["answer"], sandbox)
        said = NONE | ({"verdict": graded.verdict} if graded else {})
        made = _judgement(one, row, about, said, reason or (graded.reason if graded else None))
        made |= {"judge": grader_label(one.rows[row["id"]]), "retires": None}
        yield made | ({"graded": {"reason": graded.reason, **graded.detail}} if graded else {})


def _judgement(one: Benchmark, row: Row, about: Row, said: Row, reason: str | None) -> Row:
    return {
        "id": row["id"],
        "sample": sample_of(row),
        "benchmark": one.name,
        "purpose": one.purpose,
        **about,
        **said,
        "unscored": None if said["verdict"] else reason,
        "question_digest": text_digest(row["question"]),
        "response_digest": text_digest(row["response"]),
    }


def tally(judged: Sequence[Row]) -> str:
    """Verdicts and reasons of a benchmark with their counts, judge by judge."""
    told = []
    for name in dict.fromkeys(row["name"] for row in judged):
        counts = Counter(row["verdict"] or f"unscored: {row['unscored']}" for row in judged if row["name"] == name)
        told.append(f"{name}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return "; ".join(told)


def read_paths(flag: str, values: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Read `NAME=ROWS:GENERATIONS:JUDGEMENTS` values of a flag.

    Raises:
        SettingError: a value of another form, or a name twice.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for value in values:
        name, _, rest = value.partition("=")
        paths = rest.split(":")
        if not name or name in found or len(paths) != 3 or not all(paths):
            raise SettingError(flag, repr(value), "NAME=ROWS:GENERATIONS:JUDGEMENTS, each name once")
        found[name] = (paths[0], paths[1], paths[2])
    return found
