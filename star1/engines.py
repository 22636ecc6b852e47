"""Generation engines: one call, three ways to run a model, and a memory of what is finished.

An engine is a function as in `star1.decoding.Engine`; `ENGINES` names them.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from star1 import chat, checkpoints, engine_openai, engine_transformers, engine_vllm
from star1.decoding import Bos, Engine, Model, Output, Request, Sampling
from star1.errors import InputError, SettingError
from star1.progress import Progress
from star1.records import file_digest

ENGINES: dict[str, Engine] = {
    "transformers": engine_transformers.run_transformers,
    "vllm": engine_vllm.run_vllm,
    "openai": engine_openai.run_openai,
}


def open_model(name: str, manifest: str | Path | None, engine: str) -> Model:
    """The model of a checkpoint's manifest, checked; or for a server without one, its name alone.

    Raises:
        InputError: the checkpoint is unfinished or damaged.
        SettingError: an engine that needs a checkpoint got none.
    """
    if manifest is None:
        if engine != "openai":
            raise SettingError(f"engine {engine}", "no checkpoint", "the manifest of a checkpoint")
        return Model(name, None, None, name)
    folder = checkpoints.folder_of(manifest)
    checkpoints.verify(folder)
    return Model(name, folder, chat.load_tokenizer(str(folder)), file_digest(manifest))


def requests_for(model: Model, engine: str, question: str, sampling: Sampling, bos: Bos = "one") -> list[Request]:
    """The outputs to generate for a question: its prompt rendered to ids, or left to the server, once for each sample."""
    ids = None if engine == "openai" else chat.prompt_ids(model.tokenizer, question, bos)
    return [Request(question, ids, sampling, sample) for sample in range(sampling.samples)]


def key_of(model: Model, engine: str, request: Request, options: dict[str, Any]) -> str:
    """Digest of everything that decides an output: checkpoint, engine, its options, sampling, prompt and draws."""
    deciding = {name: value for name, value in options.items() if name not in engine_openai.REACHING}
    sampling = dataclasses.asdict(dataclasses.replace(request.sampling, samples=1))  # one more sample changes no other
    parts = [model.digest, engine, deciding, sampling, request.sample, request.digest]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def remembered(path: Path) -> dict[str, Output]:
    """Outputs in a work file by key; a last line that was cut off by a kill is passed over."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        key = row.pop("key")
        found[key] = Output(**row)
    return found


def generate(
    model: Model, engine: str, requests: Iterable[Request], options: dict[str, Any], work: Path
) -> list[Output]:
    """One output per request, in their order; equal requests are generated once.

    Every finished output is appended to the file `work` at once, and one found there is not generated again.

    Raises:
        SettingError: no such engine.
        InputError: a prompt and its output do not fit the model.
    """
    if engine not in ENGINES:
        raise SettingError("engine", repr(engine), "one of " + ", ".join(ENGINES))
    asked = list(requests)
    keys = [key_of(model, engine, request, options) for request in asked]
    unique = dict(zip(keys, asked, strict=True))
    check_room(model, unique.values())
    done = remembered(work)
    todo = [number for number, key in enumerate(unique) if key not in done]
    if todo:
        _generate(model, engine, unique, todo, options, work, done)
    return [done[key] for key in keys]


def _generate(
    model: Model,
    engine: str,
    requests: dict[str, Request],
    todo: Sequence[int],
    options: dict[str, Any],
    work: Path,
    done: dict[str, Output],
) -> None:
    """Run the engine; what it emits goes into `done` and, flushed, into the file `work`."""
    keys = list(requests)
    done_before = len(keys) - len(todo)
    progress = Progress(f"generate {model.name}", len(keys), "outputs", done_before, watches_gpus=engine != "openai")
    work.parent.mkdir(parents=True, exist_ok=True)
    with work.open("ab") as file:
        if file.tell():
            file.write(b"\n")  # ends a line that a kill cut off

        def emit(pairs: list[tuple[int, Output]]) -> None:
            for number, output in pairs:
                done[keys[number]] = output
                file.write(orjson.dumps({"key": keys[number]} | dataclasses.asdict(output)) + b"\n")
            file.flush()
            progress.add(len(pairs))

        ENGINES[engine](model, list(requests.values()), todo, options, emit)
    progress.close()


def check_room(model: Model, requests: Iterable[Request]) -> None:
    """Check that every prompt and its longest output fit into the model's context.

    Raises:
        InputError: one does not.
    """
    if model.folder is None:
        return
    room = int(orjson.loads((model.folder / "config.json").read_bytes()).get("max_position_embeddings", 2**31))
    for request in requests:
        length, new = len(request.ids or ()), request.sampling.max_tokens
        if length + new > room:
            raise InputError(
                model.folder,
                f"a prompt of {length} tokens and {new} new ones",
                f"at most {room} tokens, the model's context",
                f"lower max_tokens, for this model alone in generate.sampling_of.{model.name}",
            )
