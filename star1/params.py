"""params.yaml as types: every section is checked before the first job, and all mistakes are told at once."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from star1 import ladder
from star1.datasets import OWN_DATA, Noise, Selection
from star1.endpoints import POOL_EXPECTED, Endpoint, Sampling, pool_mistake
from star1.errors import SettingError
from star1.packs import known_packs
from star1.policies import pack_mistakes
from star1.sources import Benchmark, Located, Published, Source
from star1.yaml_files import fields, near

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
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
    judge: Pool


class Llm(Section):
    """Endpoints by name, and their roles."""

    endpoints: dict[Name, Endpoint]
    roles: Roles
    # Usual length of a stage's replies, for `star1 estimate`; decides no result.
    reply_tokens: dict[Name, Count] = {}

    def pool(self, role: str) -> dict[str, Endpoint]:
        """The endpoints that answer in a role, by name."""
        return {name: self.endpoints[name] for name in as_list(getattr(self.roles, role))}


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
    """A base model on the hub."""

    kind: Literal["hub"]
    repository: str
    revision: str


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


class Run(Section):
    """One fine-tuning run."""

    base: Name
    data: Annotated[list[Name], Field(min_length=1)]
    think: bool
    seed: int


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


class Finetune(Section):
    """Fine-tuning."""

    runs: dict[Name, Run]
    settings: Training


class Decoding(Section):
    """How answers are decoded; fields as in `star1.engines.Sampling`."""

    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    repetition_penalty: Rate
    max_tokens: Count
    seed: int
    batch_size: Count


class Generate(Section):
    """Answers to benchmarks."""

    models: Annotated[list[Name], Field(min_length=1)]
    benchmarks: Annotated[list[Name], Field(min_length=1)]
    engine: Literal["transformers", "vllm", "openai"]
    options: dict[str, Any]
    sampling: Decoding


class Prompts(Section):
    """The judge's prompt by purpose of the benchmark; fields as in `star1.judges.Prompts`."""

    harmful: Literal["refusal", "guard"]
    benign: Literal["refusal", "guard"]
    shown: Literal["answer", "response"]
    cut_off: Literal["unscored", "judged"]


class Judge(Section):
    """Verdicts."""

    prompts: Prompts
    sampling: Sampling
    coverage: Share


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
    judge: Judge
    ladder: Ladder
    summarize: Summarize
    release: Release


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
        new = YAML(typ="safe", pure=True).load(text)
        old = yaml.safe_load(text)
    except FileNotFoundError:
        raise ParamsError([f"{path}: no such file; expected YAML. Hint: run from the project's folder."]) from None
    except (YAMLError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError([f"{path}{_not_yaml(error)}; expected a mapping of sections."]) from None
    if not isinstance(new, dict):
        raise ParamsError([f"{path}: a {type(new).__name__}; expected a mapping of sections."])
    if lines := [f"{path}: {line}" for line in _differences("", old, new)]:
        raise ParamsError(lines)
    return new


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
            lines.append(f"{key}: unknown key; expected one of {', '.join(allowed)}.{hint}")
        else:
            # What stands in place of a variable's name may be the key itself, and an address may hold a password.
            hidden = place[-1] in ("key", "base_url")
            found = one["input"]
            message = one["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            if "dictionary" in message:
                names = fields(Params, place) if one["type"] == "model_type" else []
                message = "a mapping" + (f" with the keys {', '.join(names)}" if names else "")
            shown = f"{found!r} ({type(found).__name__})" if not isinstance(found, dict | BaseModel) else "a mapping"
            shown = "a value that is not repeated here" if hidden else shown
            lines.append(f"{key}: {shown}; expected {message}.")
    return lines


def _mismatches(params: Params, root: Path) -> Iterator[str]:
    """Mistakes between sections: names that nothing has, files that are not there."""
    fetch = params.fetch
    selections = params.curate.selections
    data = {**OWN_DATA, **dict.fromkeys(fetch.published), **dict.fromkeys(selections)}
    yield from _unknown("collect.sources", params.collect.sources, fetch.sources)
    yield from _unknown("collect.benchmarks", list(params.collect.benchmarks), fetch.benchmarks)
    yield from _unknown("generate.benchmarks", params.generate.benchmarks, fetch.benchmarks)
    yield from _unknown("generate.models", params.generate.models, {**fetch.models, **params.finetune.runs})
    for name, members in params.summarize.averages.items():
        yield from _unknown(f"summarize.averages.{name}", members, fetch.benchmarks)
    for place, pair in enumerate(params.summarize.pairs):
        yield from _unknown(f"summarize.pairs[{place}]", pair, dict.fromkeys(params.generate.models))
    yield from _role_mistakes(params.llm)
    yield from _unknown("release.redistribute", list(params.release.redistribute), fetch.sources)
    for name, run in params.finetune.runs.items():
        yield from _unknown(f"finetune.runs.{name}.base", [run.base], fetch.models)
        yield from _unknown(f"finetune.runs.{name}.data", run.data, data)
        if name == "base" or name in fetch.models:
            yield f"finetune.runs.{name}: a name that a base model has, or `base`; expected one of its own."
    for name in sorted(set(fetch.published) & set(OWN_DATA)):
        yield f"fetch.published.{name}: a name that the pipeline's own data has; expected another one."
    for name in sorted(set(selections) & {*OWN_DATA, *fetch.published}):
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
        names = getattr(getattr(params, section), field)
        if len(set(names)) < len(names):
            yield f"{key}: a name twice; expected each once."


def _ladder_mistakes(params: Params, values: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes of the ladder, and of the values that hold at its steps."""
    chosen = params.ladder
    if not chosen.models:  # its steps may be about judges that are not there
        return
    yield from _unknown("ladder.models", chosen.models, {**params.fetch.models, **params.finetune.runs})
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
        unknown = list(_unknown(f"llm.roles.{role}", as_list(names), llm.endpoints))
        yield from unknown
        if not unknown and (mistake := pool_mistake(llm.pool(role))):
            yield f"llm.roles.{role}: {mistake}; expected {POOL_EXPECTED}."
        if len(set(as_list(names))) < len(as_list(names)):
            yield f"llm.roles.{role}: a name twice; expected each once."


def _unknown(key: str, names: list[str], table: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        if name not in table:
            near = difflib.get_close_matches(name, table, 1)
            hint = f" Hint: did you mean {near[0]}?" if near else ""
            yield f"{key}: {name!r}, which nothing is called; expected one of {', '.join(sorted(table))}.{hint}"


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
