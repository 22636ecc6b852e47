"""params.yaml as types: every section is checked before the first job, and all mistakes are told at once."""

import contextlib
import copy
import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from star1 import ladder, runs
from star1.datasets import OWN_DATA, OWN_SETS, Noise, Selection
from star1.decoding import Bos, sampling_for
from star1.endpoints import POOL_EXPECTED, Endpoint, Sampling, pool_mistake
from star1.errors import SettingError
from star1.judge_settings import PLACED, Grader, Judge, Use
from star1.packs import known_packs
from star1.policies import pack_mistakes
from star1.recipe import four_bits_mistake, spread_mistake
from star1.resources import Resources
from star1.sandbox import Sandbox
from star1.sources import COMMIT, Benchmark, Located, Published, Source
from star1.yaml_files import fields, near

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
# Keys of earlier versions, and what took their place.
MOVED = {
    "llm.roles.judge": "each judge names its own endpoint: judge.judges.NAME.endpoint",
    "judge.prompts": "judges have names: their kind, view and cut_off stand in judge.judges, who judges what in judge.use",
    "judge.sampling": "each judge has its own: judge.judges.NAME.sampling",
}
TRIED = re.compile(r"str|int|float|bool|(list|dict)\[.*\]")

Name = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no guessing at types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Policy(Section):
    """The policy pack."""

    pack: Name


# One endpoint, or a pool: several of the same model, which take each other's place.
Pool = Name | Annotated[list[Name], Field(min_length=1)]


def as_list(names: str | list[str]) -> list[str]:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else names


class Roles(Section):
    """Which endpoint answers in which role."""

    classifier: Pool
    teacher: Pool
    scorer: Pool
    rewriter: Pool


class Llm(Section):
    """Endpoints by name, and their roles."""

    endpoints: dict[Name, Endpoint]
    roles: Roles
    # Usual length of a stage's replies, for `star1 estimate`; decides no result.
    reply_tokens: dict[Name, Count] = {}

    def pool(self, role: str) -> dict[str, Endpoint]:
        """The endpoints that answer in a role, by name."""
        return self.named(as_list(getattr(self.roles, role)))

    def named(self, names: list[str]) -> dict[str, Endpoint]:
        """Endpoints by name."""
        return {name: self.endpoints[name] for name in names}


class TinyModel(Section):
    """A base model that is pre-trained on the machine; fields as in `star1.tiny.Settings`."""

    kind: Literal["tiny"]
    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    kv_heads: Count
    vocabulary: Annotated[int, Field(ge=300)]
    context: Count
    docstring_characters: Annotated[int, Field(ge=0)]
    dialogues: Annotated[int, Field(ge=0)]
    update_tokens: Count
    epochs: Count
    learning_rate: Rate
    seed: int


class HubModel(Section):
    """A base model on the hub.

    Attributes:
        revision: a commit; a branch or tag only where `pinned` is false.
        licence: of the weights, an SPDX name where there is one; stands in the record and on cards.
        remote_code: whether Python files of the repository are fetched and run; only at a commit.
    """

    kind: Literal["hub"]
    repository: str
    revision: str
    pinned: bool = True
    licence: str | None = None
    remote_code: Literal["never", "trusted"] = "never"

    @model_validator(mode="after")
    def _fixed(self) -> "HubModel":
        fixed = COMMIT.fullmatch(self.revision) is not None
        if fixed != self.pinned:
            raise ValueError(
                "no `pinned: false` beside a commit" if fixed else "a commit as its revision, or pinned: false"
            )
        if self.remote_code == "trusted" and not fixed:
            raise ValueError("a commit as its revision, since code of a branch can become any other code")
        return self


class MirrorModel(Section):
    """A base model in the mirror folder."""

    kind: Literal["mirror"]
    path: str


class Fetch(Section):
    """Everything that comes from outside."""

    mirror: str | None
    sources: dict[Name, Source]
    benchmarks: dict[Name, Benchmark]
    published: dict[Name, Published]
    models: dict[Name, Annotated[TinyModel | HubModel | MirrorModel, Field(discriminator="kind")]]


class Collect(Section):
    """Deduplication and decontamination."""

    sources: Annotated[list[Name], Field(min_length=1)]
    benchmarks: dict[Name, Literal["drop", "flag"]]
    shards: Count
    pool_ngram: Count
    tfidf_threshold: Annotated[float, Field(gt=0, le=1)]
    embedding_threshold: Annotated[float, Field(gt=0, le=1)]
    ngram_survivor: Literal["first", "as_published"]


class Calls(Section):
    """A stage of model calls."""

    sampling: Sampling
    coverage: Share


class Curate(Section):
    """Selection of the final data set, and of others."""

    size: Count
    selections: dict[Name, Selection]
    stability: Noise


class Benign(Section):
    """Harmless look-alikes."""

    limit: Count | None
    rewrite: Calls
    reason: Calls
    score: Calls


class Training(Section):
    """Settings that all runs share; fields as in `star1.sft.Settings`."""

    epochs: Count
    batch_size: Count
    drop_last: bool
    learning_rate: Rate
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup: Share
    schedule: Literal["cosine", "constant"]
    gradient_norm: Annotated[float, Field(ge=0)]
    precision: Literal["bf16", "float32"]
    pack_tokens: Count
    max_tokens: Count
    gradient_checkpointing: bool
    gather_every: Count
    diverged_factor: Annotated[float, Field(ge=0)]
    diverged_updates: Count
    checkpoint_minutes: Annotated[float, Field(ge=0)]
    nodes: Count
    processes: Count
    sharding: Literal["none", "zero2", "zero3", "fsdp"]
    offload: Literal["none", "optimizer", "all"]


class Lora(Section):
    """Low-rank adapters, for runs of tier lora or qlora; fields as in `star1.adapters.Settings`."""

    rank: Count
    alpha: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)]


def _partial(section: type[Section]) -> Any:
    """The section with no field required: what a run may set otherwise, checked in the same way."""
    optional = {name: (field.annotation, copy.copy(field)) for name, field in section.model_fields.items()}
    for _, field in optional.values():
        field.default = None
    made: Any = create_model(f"Some{section.__name__}", __base__=Section, **optional)  # type: ignore[call-overload]
    return made


if TYPE_CHECKING:
    SomeTraining = Training
    SomeLora = Lora
else:
    SomeTraining = _partial(Training)
    SomeLora = _partial(Lora)


class Run(Section):
    """One fine-tuning run, or with a list of seeds several that differ in nothing else.

    Attributes:
        base: name of the base model.
        data: names of the training sets, in order.
        think: whether the thinking is learnt.
        seed: of the order of the rows, and of what is drawn.
        seeds: several of them; one model each (`star1.runs`).
        tier: all weights (full), adapters beside them (lora), or beside weights of four bits (qlora).
        settings: what differs from finetune.settings.
        lora: what differs from finetune.lora.
    """

    base: Name
    data: Annotated[list[Name], Field(min_length=1)]
    think: bool
    seed: int | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    tier: Literal["full", "lora", "qlora"] = "full"
    settings: SomeTraining | None = None
    lora: SomeLora | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Run":
        if (self.seed is None) == (self.seeds is None):
            raise ValueError("seed (a number) or seeds (a list), one of the two")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"each seed once, not {self.seeds}")
        if self.lora is not None and self.tier == "full":
            raise ValueError("tier lora or qlora beside lora: there are no adapters in tier full")
        return self


class Finetune(Section):
    """Fine-tuning."""

    runs: dict[Name, Run]
    settings: Training
    lora: Lora
    trackers: list[Literal["tensorboard", "wandb", "trackio"]]

    def table(self) -> dict[str, dict[str, Any]]:
        """The runs as plain values, without what is not set, for the functions of `star1.runs`."""
        return {name: run.model_dump(exclude_unset=True) for name, run in self.runs.items()}


class Decoding(Section):
    """How answers are decoded; fields as in `star1.decoding.Sampling`."""

    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    repetition_penalty: Rate
    max_tokens: Count
    samples: Count = 1
    seed: int
    batch_size: Count


class OtherDecoding(Decoding):
    """What is decoded otherwise for a benchmark or a model. Only what is said counts; no default here is read."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Rate = 1.0
    max_tokens: Count = 1
    seed: int = 0
    batch_size: Count = 1


class Generate(Section):
    """Answers to benchmarks."""

    models: Annotated[list[Name], Field(min_length=1)]
    benchmarks: Annotated[list[Name], Field(min_length=1)]
    engine: Literal["transformers", "vllm", "openai"]
    bos: Bos
    options: dict[str, Any]
    sampling: Decoding
    # By `benchmark`, `model` or `model/benchmark`, as in `star1.decoding.sampling_for`.
    sampling_of: dict[str, OtherDecoding] = {}

    @model_validator(mode="after")
    def _rendered_here(self) -> "Generate":
        if self.bos != "one" and self.engine == "openai":
            raise ValueError("bos: one with engine openai, whose server renders the prompt itself")
        return self


class Verdicts(Section):
    """Verdicts: judges by name, and which of them judge what."""

    judges: dict[Name, Judge]
    use: Use
    grader: Grader
    coverage: Share
    sandbox: Sandbox


class Agree(Section):
    """How far judges agree."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    seed: int


class Step(Section):
    """A step of the ladder: keys under generate or judge, and the values that they have from here on."""

    name: Name
    set: dict[str, Any]


class Ladder(Section):
    """An evaluation taken from one protocol to another."""

    models: list[Name]
    benchmarks: list[Name]
    steps: list[Step]


class Bootstrap(Section):
    """Resampling of items."""

    resamples: Annotated[int, Field(ge=100)]
    seed: int


class Summarize(Section):
    """Tables; fields as in `star1.tables_means.Settings`."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    power: Annotated[float, Field(gt=0, lt=1)]
    averages: dict[Name, Annotated[list[Name], Field(min_length=2)]]
    pass_at: list[Count]
    bootstrap: Bootstrap
    # Comparisons beside that of every run with its base model.
    pairs: list[Annotated[list[Name], Field(min_length=2, max_length=2)]]


class Images(Section):
    """Container images."""

    variant: Literal["cpu", "cuda"]


class Release(Section):
    """Released data sets and models; a source in `redistribute` is given on, or not, whatever its licence is."""

    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")]
    redistribute: dict[Name, bool]


class Params(Section):
    """The whole of params.yaml."""

    policy: Policy
    llm: Llm
    fetch: Fetch
    collect: Collect
    categorize: Calls
    reason: Calls
    score: Calls
    curate: Curate
    benign: Benign
    finetune: Finetune
    generate: Generate
    judge: Verdicts
    agree: Agree
    ladder: Ladder
    summarize: Summarize
    release: Release
    images: Images
    resources: Resources


class ParamsError(SettingError):
    """All mistakes in a params file, a line each."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("params.yaml", f"{len(lines)} mistakes", "a file without")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping in which both engines see the same values.

    Raises:
        ParamsError: not YAML, a key twice, or a value that YAML 1.1 (Snakemake) and YAML 1.2 (DVC) read differently.
    """
    try:
        text = Path(path).read_text("utf-8")
        new, old = _by_both(text)
    except FileNotFoundError:
        raise ParamsError([f"{path}: no such file; expected YAML. Hint: run from the project's folder."]) from None
    except (YAMLError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError([f"{path}{_not_yaml(error)}; expected a mapping of sections."]) from None
    if not isinstance(new, dict):
        found = "empty" if new is None else f"a {type(new).__name__}"
        raise ParamsError(
            [f"{path}: {found}; expected a mapping of sections. Hint: `git checkout {path}` brings it back."]
        )
    if lines := [f"{path}: {line}" for line in _differences("", old, new)]:
        raise ParamsError(lines)
    return new


def _by_both(text: str) -> tuple[Any, Any]:
    """A YAML text as YAML 1.2 and as YAML 1.1, by readers in C where they are there: each start of Snakemake reads it."""
    with contextlib.suppress(YAMLError, yaml.YAMLError):  # the readers in Python say better where a mistake is
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return YAML(typ="safe").load(text), yaml.load(text, loader)  # noqa: S506
    return YAML(typ="safe", pure=True).load(text), yaml.safe_load(text)


def _not_yaml(error: Exception) -> str:
    """Line and problem, without the excerpts and advice that the YAML libraries add."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{where}: not YAML ({problem or ' '.join(str(error).split())})"


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    """Values that the two versions of YAML read differently, such as 1e-3 (a text, a number) and yes (true, a text)."""
    if isinstance(new, dict) and isinstance(old, dict) and list(old) == list(new):
        for key in new:
            yield from _differences(f"{path}.{key}".lstrip("."), old[key], new[key])
    elif isinstance(new, list) and isinstance(old, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}[{place}]", one, other)
    elif type(old) is not type(new) or repr(old) != repr(new):  # by repr, since nan is not equal to itself
        yield (
            f"{path}: a value that reads as {new!r} or as {old!r}, depending on the version of YAML; expected one meaning. "
            "Hint: write 0.001 for 1e-3, true for yes, and quote what is meant as text."
        )


def load(path: str | Path = "params.yaml", root: Path | None = None) -> dict[str, Any]:
    """Read and check the params file; gives its values as they stand in it.

    Args:
        path: the file.
        root: folder that bundled files and policies are looked for in; by default the working directory.

    Raises:
        ParamsError: names every mistake with its key, the value found and what is allowed.
    """
    values = read_yaml(path)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError([f"{path}: {line}" for line in _explain(error)]) from None
    found = [*_mismatches(params, Path() if root is None else root), *_ladder_mistakes(params, values)]
    if lines := [f"{path}: {line}" for line in found]:
        raise ParamsError(lines)
    return values


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for one in error.errors(include_url=False):
        # pydantic adds the type that it tried, where several are allowed.
        place = [part for part in one["loc"] if part != "[key]" and not TRIED.fullmatch(str(part))]
        key, parent = ".".join(map(str, place)), place[:-1]
        if one["type"] == "missing":
            lines.append(f"{key}: missing; expected a value. Hint: see the same key in the default params.yaml.")
        elif one["type"] == "extra_forbidden":
            allowed = fields(Params, parent)
            near = difflib.get_close_matches(str(place[-1]), allowed, 1)
            hint = f" Hint: did you mean {near[0]}?" if near else ""
            hint = f" Hint: {MOVED[key]}; see docs/judges.md." if key in MOVED else hint
            lines.append(f"{key}: unknown key; expected one of {', '.join(allowed)}.{hint}")
        else:
            # What stands in place of a variable's name may be the key itself, and an address may hold a password.
            hidden = place[-1] in ("key", "base_url")
            found = one["input"]
            message = _wanted(one)
            if "dictionary" in message:
                names = fields(Params, place) if one["type"] == "model_type" else []
                message = "a mapping" + (f" with the keys {', '.join(names)}" if names else "")
            shown = f"{found!r} ({type(found).__name__})" if not isinstance(found, dict | BaseModel) else "a mapping"
            shown = "a value that is not repeated here" if hidden else shown
            if re.search(r"\bmust\b", message):  # a sentence of its own
                told = f"it {message}" if message.startswith("must") else message
                lines.append(f"{key}: {told if shown == 'a mapping' else f'{shown}; {told}'}.")
            else:
                lines.append(f"{key}: {shown}; expected {message}.")
    return lines


def _wanted(one: Any) -> str:
    """What pydantic expected, in words that go after `expected`."""
    if one["type"] == "string_pattern_mismatch" and one["ctx"]["pattern"] == f"^{NAME.pattern}$":
        return "a name of letters, digits and _ + -, which begins with one of the first two"
    if one["type"] == "string_pattern_mismatch":
        return f"text like {one['ctx']['pattern']}"
    if one["type"] == "too_short":
        return f"{one['ctx']['min_length']} or more in it"
    return str(one["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def _mismatches(params: Params, root: Path) -> Iterator[str]:
    """Mistakes between sections: names that nothing has, files that are not there."""
    fetch = params.fetch
    selections = params.curate.selections
    data = {**OWN_DATA, **dict.fromkeys(fetch.published), **dict.fromkeys(selections)}
    yield from _unknown("collect.sources", params.collect.sources, fetch.sources)
    yield from _unknown("collect.benchmarks", list(params.collect.benchmarks), fetch.benchmarks)
    yield from _unknown("generate.benchmarks", params.generate.benchmarks, fetch.benchmarks)
    for name in params.generate.benchmarks:
        if name in fetch.benchmarks and fetch.benchmarks[name].graded_by == "none":
            yield f"generate.benchmarks: {name}, which no grader here can grade; expected it in collect.benchmarks alone."
    table = params.finetune.table()
    models = {**fetch.models, **params.finetune.runs, **runs.by_model(table)}
    yield from _unknown("generate.models", params.generate.models, models)
    for name, members in params.summarize.averages.items():
        yield from _unknown(f"summarize.averages.{name}", members, fetch.benchmarks)
    for place, pair in enumerate(params.summarize.pairs):
        yield from _unknown(
            f"summarize.pairs[{place}]",
            pair,
            dict.fromkeys([*params.generate.models, *runs.expand(params.generate.models, table)]),
        )
    yield from _role_mistakes(params.llm)
    yield from _judge_mistakes(params, root)
    yield from _unknown("release.redistribute", list(params.release.redistribute), fetch.sources)
    if mistake := spread_mistake(params.finetune.settings):
        yield "finetune.settings.{}: {}; expected {}.".format(*mistake)
    for name, run in params.finetune.runs.items():
        yield from _spread_mistakes(params.finetune, name)
        yield from _unknown(f"finetune.runs.{name}.base", [run.base], fetch.models)
        yield from _unknown(f"finetune.runs.{name}.data", run.data, data)
        if name == "base" or name in fetch.models:
            yield f"finetune.runs.{name}: a name that a base model has, or `base`; expected one of its own."
        for model in runs.models_of(name, table[name]):
            if model != name and (model in fetch.models or model in table):
                yield f"finetune.runs.{name}.seeds: make a model {model}, which something else is called; expected another name."
    for name in sorted(set(fetch.published) & {*OWN_DATA, *OWN_SETS}):
        yield f"fetch.published.{name}: a name that the pipeline's own data has; expected another one."
    for name in sorted(set(selections) & {*OWN_DATA, *OWN_SETS, *fetch.published}):
        yield f"curate.selections.{name}: a name that another data set has; expected one of its own."
    if not (root / "policies" / params.policy.pack / "policy.yaml").is_file():
        packs = known_packs(root, params.policy.pack)
        hint = f" Hint: {told}" if (told := near(params.policy.pack, packs)) else ""
        yield f"policy.pack: no policies/{params.policy.pack}/policy.yaml; expected one of {', '.join(packs)}.{hint}"
    else:
        for line in pack_mistakes(root / "policies" / params.policy.pack):
            yield f"policy.pack: {line}"
    yield from _missing_files(params, root)
    for key in ("collect.sources", "generate.models", "generate.benchmarks"):
        section, field = key.split(".")
        names = runs.expand(getattr(getattr(params, section), field), table if field == "models" else {})
        if len(set(names)) < len(names):
            yield f"{key}: a name twice; expected each once."
    yield from _decoding_mistakes(params)


def _decoding_mistakes(params: Params) -> Iterator[str]:
    generate, table = params.generate, params.finetune.table()
    asked = runs.expand(generate.models, table)
    models, benchmarks = {*asked, *params.fetch.models, *runs.by_model(table)}, params.fetch.benchmarks
    for name in generate.sampling_of:
        model, slash, benchmark = name.partition("/")
        # A star may stand for models of which there are none at present.
        for part, known in ((model, models if slash else {*models, *benchmarks}), (benchmark, {*benchmarks})):
            yield from _unknown("generate.sampling_of", [part] * (part != "" and "*" not in part), dict.fromkeys(known))
    of = {name: other.model_dump(exclude_unset=True) for name, other in generate.sampling_of.items()}
    found = set()
    for model, benchmark in itertools.product(asked, generate.benchmarks):
        try:
            sampling_for(model, benchmark, generate.sampling.model_dump(), of)
        except SettingError as error:
            found.add(f"generate.sampling_of: {error.found} ({model} on {benchmark}); expected {error.expected}.")
    yield from sorted(found)[:1]  # one wrong value shows in every pair


def _spread_mistakes(finetune: Finetune, name: str) -> Iterator[str]:
    """What the settings of a run, together with the shared ones, do not go with."""
    run = finetune.runs[name]
    own = run.settings.model_dump(exclude_unset=True) if run.settings else {}
    settings = finetune.settings.model_copy(update=own)
    if own and (mistake := spread_mistake(settings)) and mistake != spread_mistake(finetune.settings):
        yield f"finetune.runs.{name}.settings.{mistake[0]}: {mistake[1]}; expected {mistake[2]}."
    if told := four_bits_mistake(run.tier, settings.sharding):
        yield "finetune.runs.{}.tier: {}; expected {}. Hint: {}.".format(name, *told)


def _ladder_mistakes(params: Params, values: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes of the ladder, and of the values that hold at its steps."""
    chosen = params.ladder
    if not chosen.models:  # its steps may be about judges that are not there
        return
    models = {**params.fetch.models, **runs.by_model(params.finetune.table())}
    yield from _unknown("ladder.models", chosen.models, models)
    yield from _unknown("ladder.benchmarks", chosen.benchmarks, params.fetch.benchmarks)
    if lines := list(ladder.mistakes(values)):
        yield from lines
        return
    for place, step in enumerate(chosen.steps):
        try:
            Params.model_validate(ladder.changed(values, values["ladder"]["steps"], step.name))
        except ValidationError as error:
            yield from (f"ladder.steps[{place}].set: {line}" for line in _explain(error))


def _role_mistakes(llm: Llm) -> Iterator[str]:
    for role, names in llm.roles:
        yield from _pool_mistakes(f"llm.roles.{role}", as_list(names), llm)


def _pool_mistakes(key: str, names: list[str], llm: Llm) -> Iterator[str]:
    unknown = list(_unknown(key, names, llm.endpoints))
    yield from unknown
    if not unknown and (mistake := pool_mistake(llm.named(names))):
        yield f"{key}: {mistake}; expected {POOL_EXPECTED}."
    if len(set(names)) < len(names):
        yield f"{key}: a name twice; expected each once."


def _judge_mistakes(params: Params, root: Path) -> Iterator[str]:
    judges, use = params.judge.judges, params.judge.use
    for purpose, names in use:
        yield from _unknown(f"judge.use.{purpose}", names, judges)
        if len(set(names)) < len(names):
            yield f"judge.use.{purpose}: a name twice; expected each once."
    yield from (f"judge.use: {one}; expected {PLACED}." for one in use.misplaced(judges))
    for name, one in judges.items():
        yield from _pool_mistakes(f"judge.judges.{name}.endpoint", one.endpoints, params.llm)
        if one.template is not None and not (root / one.template).is_file():
            yield f"judge.judges.{name}.template: no file {root / one.template}; expected the prompt of the judge's model."
    if "grader" in judges:
        yield "judge.judges.grader: the name of those who grade by rule; expected another one."


def _unknown(key: str, names: list[str], table: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        if name not in table:
            near = difflib.get_close_matches(name, table, 1)
            hint = f" Hint: did you mean {near[0]}?" if near else ""
            known = f"one of {', '.join(sorted(table))}" if table else "an entry of that name, and there is none at all"
            yield f"{key}: {name!r}, which nothing is called; expected {known}.{hint}"


def used_files(params: Params) -> Iterator[tuple[str, Located]]:
    """The file entries that the DAG reads, with their keys."""
    for name in params.collect.sources:
        yield f"fetch.sources.{name}", params.fetch.sources[name]
    for name in sorted({*params.collect.benchmarks, *params.generate.benchmarks}):
        yield f"fetch.benchmarks.{name}", params.fetch.benchmarks[name]
    for name, entry in params.fetch.published.items():
        yield f"fetch.published.{name}", entry


def _missing_files(params: Params, root: Path) -> Iterator[str]:
    fetch = params.fetch
    named = {*params.collect.sources} <= {*fetch.sources} and {
        *params.collect.benchmarks,
        *params.generate.benchmarks,
    } <= {*fetch.benchmarks}
    entries = list(used_files(params)) if named else []
    mirrored = [path for _, entry in entries if entry.kind == "mirror" for path in entry.paths]
    mirror = None if fetch.mirror is None else root / fetch.mirror
    # One wrong folder is one mistake, however many files are missed in it.
    lost = mirror is not None and len(mirrored) > 1 and not any((mirror / path).is_file() for path in mirrored)
    if lost:
        found = "holds none of" if mirror is not None and mirror.is_dir() else "is no folder; expected one with"
        yield f"fetch.mirror: {mirror} {found} {mirrored[0]} and {len(mirrored) - 1} more files. Hint: see docs/data.md."
    for key, entry in entries:
        if entry.kind == "mirror" and mirror is None:
            yield f"{key}: of kind mirror, and fetch.mirror is null; expected the mirror's folder. Hint: set fetch.mirror."
        elif entry.kind == "bundled" or (entry.kind == "mirror" and not lost):
            folder = root if entry.kind == "bundled" or mirror is None else mirror
            for path in entry.paths:
                if not (folder / path).is_file():
                    hint = " Hint: does fetch.mirror name the right folder?" if entry.kind == "mirror" else ""
                    yield f"{key}.path: no file {folder / path}; expected the {entry.kind} file.{hint}"
