"""How much these settings will write, and how many files: by what the tables say, and by sizes seen in earlier runs.

It is to be right within a factor of two, and rather too much than too little: rows are counted where params.yaml says how many
there are, texts are as long as usual, weights are two bytes each.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from star1 import images, prefetched, prefetching, runs
from star1.decoding import sampling_for
from star1.doctor.about import About
from star1.doctor.prefetch import manifest
from star1.errors import InputError
from star1.estimate import STAGES, STAND_IN_TOKENS
from star1.params import HubModel, MirrorModel, used_files
from star1.prices import REPLY_TOKENS
from star1.sources import Located

GB = 1e9
HUB = "downloads from the hub"
TWICE = "the same again in DVC's cache"
CHARACTERS = 4  # of a token
# Sizes [bytes] of a raw row, a prompt with its fields, a stored reply without its text, a verdict. Source: means of earlier runs.
RAW, ROW, REPLY, VERDICT = 1200, 700, 700, 900
UNKNOWN_SET = 50e6
# Sets of this many rows keep most of them; of larger ones about an eighth is left. Source: 530K rows became 41K.
KEPT_WHOLE, LEFT = 50_000, 8
# Tokens of an answer, where more are allowed: few answers are as long as they may be.
USUAL_ANSWER = 2500
# What a training state holds of each weight: the weight and two moments, float32.
STATE = 12
TINY = 2.5e6
# Sizes of images. The CUDA ones are guesses by the wheels that go in.
IMAGE_GB = {"data": 0.6, "finetune": 0.5, "vllm": 0.9, "finetune-cuda": 5.0, "vllm-cuda": 9.0}
FEW, MANY = 12, 20_000


@dataclass(frozen=True)
class Part:
    """Something that will be written: where, how much [bytes], and in how many files."""

    name: str
    folder: str
    bytes: float
    files: int = 0


def billions(name: str) -> float | None:
    """Weights of a model [billions], as its name tells."""
    found = re.findall(r"(\d+(?:\.\d+)?)[Bb](?![a-z])", name)
    return float(found[-1]) if found else None


def parts(about: About) -> list[Part]:
    """What will be written, part by part; what is there already is taken off."""
    found = [one for one in _parts(about) if one.bytes >= 1]
    written = sum(one.bytes for one in found if one.folder in ("data", "data/replies", "results", "models", "release"))
    files = sum(one.files for one in found)
    if written and not links(about):
        found.append(Part(TWICE, str(cache_folder()), written, files))
    return found


def _parts(about: About) -> Iterator[Part]:
    rows, raw, hub = _sources(about)
    collected = min(rows, max(KEPT_WHOLE, rows // LEFT))
    yield Part("downloads", ".cache", raw, 2 * len(list(prefetching.wanted(about.params))))
    yield Part(HUB, str(about.hub_cache), hub, 4 * len(about.remote_files))
    yield Part(
        "prompt sets and training data",
        "data",
        max(0.0, _rows(about, rows, collected) - size("data")),
        60 + 2 * _entries(about),
    )
    yield Part(
        "model replies",
        "data/replies",
        max(0.0, _replies(about, collected) - size("data/replies")),
        len(STAGES) + _models(about),
    )
    pairs = _models(about) * len(about.params.generate.benchmarks)
    yield Part(
        "answers and verdicts",
        "results",
        max(0.0, _answers(about) - size("results")),
        4 * pairs + 4 * _models(about) + 80,
    )
    yield from _weights(about)
    yield Part(
        "released data sets and cards",
        "release",
        max(0.0, collected * (ROW + _text(about, "reason")) - size("release")),
        60,
    )
    yield from _images(about)
    yield Part("records of the engines", ".snakemake", 3000.0 * pairs + 2e6, 3 * pairs + 200)


def _models(about: About) -> int:
    return len(runs.expand(about.params.generate.models, about.params.finetune.table()))


def _entries(about: About) -> int:
    return len(list(used_files(about.params)))


def _sources(about: About) -> tuple[int, float, float]:
    """Rows of all prompt sets, and bytes to download: from the hub, and from elsewhere before it."""
    rows, there = 0, manifest()
    raw = {"hub": 0.0, "github": 0.0, "url": 0.0}
    for name, entry in used_files(about.params):
        count, size_of = _entry(about, entry, there)
        rows += count if name.startswith("fetch.sources") else 0
        if entry.kind in raw and not prefetched.has(prefetched.key_of(entry)):
            raw[entry.kind] += size_of
    return rows, raw["github"] + raw["url"], raw["hub"]


def _entry(about: About, entry: Located, there: dict[str, list[dict[str, int]]]) -> tuple[int, float]:
    """Rows and raw size of an entry."""
    folders = {"bundled": Path(), "mirror": Path(about.params.fetch.mirror or ".")}
    if entry.kind in folders:
        files = [folders[entry.kind] / path for path in entry.paths]
        raw = float(sum(path.stat().st_size for path in files if path.is_file()))
    elif files_there := there.get(prefetched.key_of(entry)):
        raw = float(sum(one["bytes"] for one in files_there))
    else:
        raw = float(RAW * entry.rows) if entry.rows else UNKNOWN_SET
    return entry.rows or int(raw / (RAW / 4)), raw


def _text(about: About, stage: str) -> float:
    """Usual size of a stage's reply [bytes]."""
    role = STAGES[stage][0] if stage in STAGES else "classifier"
    endpoint = next(iter(about.params.llm.pool(role).values()))
    usual = {**(STAND_IN_TOKENS if endpoint.provider == "stand-in" else REPLY_TOKENS), **about.params.llm.reply_tokens}
    return float(CHARACTERS * usual[stage])


def _rows(about: About, rows: int, collected: int) -> float:
    """Sets as fetched, rows left and dropped, and those with their reasoning in four later artifacts."""
    reasoned = ROW + _text(about, "reason")
    chosen = about.params.curate.size + sum(one.size for one in about.params.curate.selections.values())
    return (
        rows * ROW * 2.0 + collected * (2 * ROW + 2.6 * reasoned) + (chosen + 3 * about.params.curate.size) * reasoned
    )


def _replies(about: About, collected: int) -> float:
    plain = sum(REPLY + _text(about, stage) for stage in ("categorize", "reason", "score"))
    benign = sum(REPLY + _text(about, stage) for stage in STAGES if stage.startswith("benign"))
    verdicts = sum(answers * judges for _, answers, judges in _asked(about)) * (REPLY + _text(about, "judge"))
    return collected * plain + (about.params.benign.limit or about.params.curate.size) * benign + verdicts


def _asked(about: About) -> Iterator[tuple[float, int, int]]:
    """Of each model and benchmark: tokens of an answer, answers, and judges."""
    params = about.params
    of = {name: other.model_dump(exclude_unset=True) for name, other in params.generate.sampling_of.items()}
    for model in runs.expand(params.generate.models, params.finetune.table()):
        for name in params.generate.benchmarks:
            entry = params.fetch.benchmarks[name]
            sampling = sampling_for(model, name, params.generate.sampling.model_dump(), of)
            rows = entry.limit or entry.rows or _entry(about, entry, {})[0]
            judges = 0 if entry.purpose == "reasoning" else len(params.judge.use.of(entry.purpose))
            yield min(sampling.max_tokens, USUAL_ANSWER), rows * sampling.samples, judges


def _answers(about: About) -> float:
    """Answers stand in their rows whole, and once more in their parts."""
    return sum(
        answers * (ROW + 2.0 * CHARACTERS * tokens + VERDICT * max(judges, 1))
        for tokens, answers, judges in _asked(about)
    )


def _weights(about: About) -> Iterator[Part]:
    """Base models, those made from them, and what a run keeps while it goes on."""
    sizes = {name: _base(about, name) for name in about.params.fetch.models}
    used = {run.base for run in about.params.finetune.runs.values()} | set(about.params.generate.models)
    new = [name for name in sizes if name in used and not Path(about.inputs.checkpoint(name)).is_file()]
    held = {name for name in new if name in about.hub_models and prefetched.has(_key(about.hub_models[name]))}
    yield Part("base models", "models", sum(sizes[name] for name in new if name not in held), FEW * len(new))
    table = about.params.finetune.table()
    todo = [name for name, run in runs.by_model(table).items() if not Path(f"models/{name}/manifest.json").is_file()]
    bases = {name: sizes[runs.entry_of(name, table)["base"]] for name in todo}
    yield Part("trained models", "models", sum(bases.values()), (FEW + 4) * len(todo))
    full = [
        size * STATE / 2 for name, size in bases.items() if runs.entry_of(name, table).get("tier", "full") == "full"
    ]
    # On one machine runs with GPUs follow each other; on a cluster they go on side by side.
    states = sum(full) if about.slurm else max(full, default=0.0)
    yield Part("states of runs at work", ".work", states, 6 * len(todo))


def _key(model: HubModel) -> str:
    return prefetched.model_key(model.repository, model.revision, model.remote_code == "trusted")


def _base(about: About, name: str) -> float:
    """Size of a base model's weights [bytes]."""
    model = about.params.fetch.models[name]
    if isinstance(model, HubModel):
        there = manifest().get(_key(model))
        return float(sum(one["bytes"] for one in there)) if there else 2 * GB * (billions(model.repository) or 7.0)
    if isinstance(model, MirrorModel):
        return float(size(str(Path(about.params.fetch.mirror or ".") / model.path)))
    return TINY


def _images(about: About) -> Iterator[Part]:
    if not about.containers:
        return
    missing = [label for kind in images.KINDS if (label := _missing(images.Image(kind, about.params.images.variant)))]
    yield Part("images", "containers", sum(IMAGE_GB[label] for label in missing) * GB, 2 * len(missing))


def _missing(image: images.Image) -> str | None:
    """The label of an image that is still to be built."""
    with contextlib.suppress(InputError):  # a part of it is not there: the check of images tells
        return None if image.path.is_file() else image.label
    return None


def size(folder: str) -> int:
    """What lies in a folder [bytes]; of a very large one, what was counted of it."""
    total, count, todo = 0, 0, [folder]
    while todo and count < MANY:
        try:
            entries = list(os.scandir(todo.pop()))
        except OSError:
            continue
        count += len(entries)
        todo += [one.path for one in entries if one.is_dir(follow_symlinks=False)]
        total += sum(one.stat(follow_symlinks=False).st_size for one in entries if one.is_file(follow_symlinks=False))
    return total


def cache_folder() -> Path:
    """DVC's cache."""
    from star1.doctor.project import dvc_settings

    return Path(dvc_settings().get(("cache", "dir"), ".dvc/cache"))


def links(about: About) -> bool:
    """Whether DVC links artifacts in place of copying them."""
    from star1.doctor.folders import working_links

    return bool(about) and working_links() not in ("copy", "")
