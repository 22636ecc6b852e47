"""Generation engines: one call, three ways to run a model.

An engine is a function `(model, prompts, todo, sampling, options, emit) -> None`: it generates for `prompts[i]`, i in
`todo`, and hands finished outputs to `emit` as they come, so that a killed job loses little. `ENGINES` names them.
"""

import asyncio
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from star1 import chat, checkpoints
from star1.errors import CallError, InputError, SettingError, Star1Error
from star1.progress import Progress
from star1.records import Row, file_digest, read_rows, write_rows


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 is greedy.
        top_p: share of probability that is drawn from.
        repetition_penalty: divides (multiplies, below 0) the logits of tokens seen in prompt or output; 1: none.
        max_tokens: longest output [tokens].
        seed: of the draws.
        batch_size: prompts per forward pass of the transformers engine; it can change the last digits of the logits.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = 8000
    seed: int = 46
    batch_size: int = 32


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A question, and its rendered token ids (None where the server renders it)."""

    question: str
    ids: list[int] | None


@dataclasses.dataclass(frozen=True)
class Output:
    """What a model wrote. `text` has the opening think tag put back where the template had written it."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclasses.dataclass(frozen=True)
class Model:
    """A model to generate with: its name in results, its checkpoint folder and tokenizer (None: behind a server)."""

    name: str
    folder: Path | None
    tokenizer: Any
    digest: str


Emit = Callable[[list[tuple[int, Output]]], None]
Engine = Callable[[Model, Sequence[Prompt], Sequence[int], Sampling, dict[str, Any], Emit], None]


def sampling_from(values: dict[str, Any]) -> Sampling:
    """Make sampling settings from a JSON object.

    Raises:
        SettingError: an unknown name, or a value out of range.
    """
    names = [field.name for field in dataclasses.fields(Sampling)]
    if unknown := sorted(set(values) - set(names)):
        raise SettingError("sampling", f"unknown name {unknown[0]!r}", "one of " + ", ".join(names))
    made = Sampling(**values)
    if (
        made.max_tokens < 1
        or made.batch_size < 1
        or made.temperature < 0
        or not 0 < made.top_p <= 1
        or made.repetition_penalty <= 0
    ):
        raise SettingError(
            "sampling",
            str(values),
            "max_tokens, batch_size >= 1, temperature >= 0, 0 < top_p <= 1, repetition_penalty > 0",
        )
    return made


def _options(found: dict[str, Any], allowed: dict[str, Any], engine: str) -> dict[str, Any]:
    if unknown := sorted(set(found) - set(allowed)):
        names = ", ".join(sorted(allowed))
        raise SettingError(f"options of engine {engine}", f"unknown name {unknown[0]!r}", f"one of {names}")
    return allowed | found


# ---------------------------------------------------------------- transformers


def batches(prompts: Sequence[Prompt], size: int) -> list[list[int]]:
    """Positions of the prompts in batches of `size`, by length.

    Made over all prompts, done or not: a batch is then the same after a restart, and so is what it draws.
    """
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number].ids or ()), number))
    return [order[start : start + size] for start in range(0, len(order), size)]


def run_transformers(
    model: Model,
    prompts: Sequence[Prompt],
    todo: Sequence[int],
    sampling: Sampling,
    options: dict[str, Any],
    emit: Emit,
) -> None:
    """Generate in this process, batch by batch; on the GPU where there is one."""
    import torch

    options = _options(options, {"precision": None}, "transformers")
    network, config = _load(model, sampling, options["precision"])
    left = set(todo)
    for number, batch in enumerate(batches(prompts, sampling.batch_size)):
        if not left & set(batch):
            continue
        torch.manual_seed(sampling.seed * 1_000_003 + number)
        outputs = _run_batch(model, network, config, [prompts[position].ids or [] for position in batch])
        emit([pair for pair in zip(batch, outputs, strict=True) if pair[0] in left])


def _load(model: Model, sampling: Sampling, precision: str | None) -> tuple[Any, Any]:
    import torch
    from transformers import GenerationConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kinds = {"bf16": torch.bfloat16, "float32": torch.float32}
    if precision not in (None, *kinds):
        raise SettingError("options of engine transformers: precision", repr(precision), " or ".join(kinds))
    dtype = kinds[precision or ("bf16" if device == "cuda" else "float32")]
    network = checkpoints.load_model(model.folder or "", dtype).to(device).eval()
    config = GenerationConfig(
        do_sample=sampling.temperature > 0,
        **({"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if sampling.temperature else {}),
        repetition_penalty=sampling.repetition_penalty,
        max_new_tokens=sampling.max_tokens,
        eos_token_id=_ends(network, model.tokenizer),
        pad_token_id=model.tokenizer.eos_token_id,
    )
    # In place of the checkpoint's own defaults, which would fill what is not said here.
    network.generation_config = config
    return network, config


def _ends(network: Any, tokenizer: Any) -> list[int]:
    """All tokens that end a turn: the tokenizer's, and what the checkpoint's generation config adds."""
    named = network.generation_config.eos_token_id
    named = named if isinstance(named, list) else [] if named is None else [named]
    return sorted({tokenizer.eos_token_id, *named})


def _run_batch(model: Model, network: Any, config: Any, prompts: list[list[int]]) -> list[Output]:
    import torch

    width = max(map(len, prompts))
    # Padding repeats the row's first token: were it the end token, the repetition penalty would act on padded rows.
    ids = torch.tensor([[row[0]] * (width - len(row)) + row for row in prompts], device=network.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=network.device)
    with torch.inference_mode():
        written = network.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, width:].tolist()
    outputs = []
    for row, tokens in zip(prompts, written, strict=True):
        stop = next((at for at, token in enumerate(tokens) if token in config.eos_token_id), None)
        kept = tokens if stop is None else tokens[: stop + 1]
        reason = "length" if stop is None else "stop"
        outputs.append(Output(_decode(model.tokenizer, kept), reason, len(row), len(kept)))
    return outputs


def _decode(tokenizer: Any, tokens: list[int]) -> str:
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return f"{chat.OPEN}\n{text}" if chat.opens_thinking(tokenizer) else text


# ---------------------------------------------------------------- vLLM


def run_vllm(
    model: Model,
    prompts: Sequence[Prompt],
    todo: Sequence[int],
    sampling: Sampling,
    options: dict[str, Any],
    emit: Emit,
) -> None:
    """Generate with vLLM in this process, in chunks of `chunk` prompts; `llm` holds further arguments of its `LLM`.

    Raises:
        SettingError: vLLM is not installed.
    """
    try:
        from vllm import LLM, SamplingParams
    except ImportError as error:
        raise SettingError(
            "engine vllm", str(error), "an environment with vLLM", "use its container or environment, or transformers"
        ) from None
    options = _options(options, {"chunk": 512, "llm": {}}, "vllm")
    llm = LLM(model=str(model.folder), **{"dtype": "bfloat16", "seed": sampling.seed} | options["llm"])
    named = {name: value for name, value in dataclasses.asdict(sampling).items() if name != "batch_size"}
    parameters = SamplingParams(**named)
    for start in range(0, len(todo), options["chunk"]):
        chunk = list(todo[start : start + options["chunk"]])
        results = llm.generate([{"prompt_token_ids": prompts[number].ids} for number in chunk], parameters)
        emit([(number, _from_vllm(model, result)) for number, result in zip(chunk, results, strict=True)])


def _from_vllm(model: Model, result: Any) -> Output:
    tokens = list(result.outputs[0].token_ids)
    reason = result.outputs[0].finish_reason or "stop"  # or "length"; "abort" and the like are told as they are
    return Output(_decode(model.tokenizer, tokens), reason, len(result.prompt_token_ids), len(tokens))


# ---------------------------------------------------------------- OpenAI-compatible servers

SERVER_OPTIONS = {
    "base_url": None,  # of the server; without it, the client's own default
    "key_variable": "OPENAI_API_KEY",  # environment variable that holds the key
    "served_model": None,  # the model's name on the server, where it differs from its name in results
    "concurrency": 16,  # requests at once
    "timeout_s": 600.0,
    "retries": 5,
}


def run_openai(
    model: Model,
    prompts: Sequence[Prompt],
    todo: Sequence[int],
    sampling: Sampling,
    options: dict[str, Any],
    emit: Emit,
) -> None:
    """Ask an OpenAI-compatible server, which renders the chat template itself.

    Raises:
        CallError: the server refuses or cannot be reached after the client's retries.
    """
    asyncio.run(_ask_all(model, prompts, todo, sampling, _options(options, SERVER_OPTIONS, "openai"), emit))


async def _ask_all(
    model: Model,
    prompts: Sequence[Prompt],
    todo: Sequence[int],
    sampling: Sampling,
    options: dict[str, Any],
    emit: Emit,
) -> None:
    import openai

    key = os.environ.get(options["key_variable"]) or "none"
    client = openai.AsyncOpenAI(
        base_url=options["base_url"], api_key=key, timeout=options["timeout_s"], max_retries=options["retries"]
    )
    served, slots = options["served_model"] or model.name, asyncio.Semaphore(options["concurrency"])
    opened = model.tokenizer is not None and chat.opens_thinking(model.tokenizer)

    async def one(number: int) -> None:
        async with slots:
            try:
                output = await _ask(client, served, prompts[number].question, sampling, opened)
            except openai.OpenAIError as error:
                raise _call_error(error, options) from None
            emit([(number, output)])

    try:
        async with client, asyncio.TaskGroup() as group:
            for number in todo:
                group.create_task(one(number))
    except* (Star1Error, OSError) as failures:
        raise failures.exceptions[0] from None


async def _ask(client: Any, served: str, question: str, sampling: Sampling, opened: bool) -> Output:
    penalty = {"repetition_penalty": sampling.repetition_penalty} if sampling.repetition_penalty != 1 else {}
    reply = await client.chat.completions.create(
        model=served,
        messages=[{"role": "user", "content": question}],
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        extra_body=penalty or None,
    )
    if not reply.choices:
        raise CallError(served, "a reply without choices", "a completed chat request", "finished rows are kept")
    choice, usage = reply.choices[0], reply.usage
    counts = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    # "stop" or "length"; a server may also say "content_filter", which is told as it is.
    return Output(_whole(choice.message, choice.finish_reason, opened), choice.finish_reason or "stop", *counts)


def _whole(message: Any, finish_reason: str | None, opened: bool) -> str:
    """Thinking and answer as one text, with the tags that the server took away or the template had written."""
    text = message.content or ""
    fields = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    thinking = next((field for field in fields if field is not None), None)
    if thinking:
        # The server split the block off. It is closed when the model went on to an answer, or stopped by itself.
        closed = f"\n{chat.CLOSE}\n\n" if text or finish_reason != "length" else ""
        return f"{chat.OPEN}\n{thinking.strip()}{closed}{text.lstrip()}"
    # A server that splits nothing off starts within the block: without its tag, thinking that was cut off is an answer.
    inside = chat.CLOSE in text or (opened and thinking is None)
    return f"{chat.OPEN}\n{text}" if inside and chat.OPEN not in text else text


def _call_error(error: BaseException, options: dict[str, Any]) -> CallError:
    """What the server said, in one line; the request and its key are not in it."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    found = f"status {status}: {said or 'no message'}" if status else f"{type(error).__name__}: {error}"
    hint = {
        401: f"set {options['key_variable']}",
        403: f"check the rights of the key in {options['key_variable']}",
        404: "check served_model and base_url",
    }.get(status or 0, "finished rows are kept: start again to go on")
    return CallError(options["base_url"] or "OpenAI API", found, "a completed chat request", hint)


ENGINES: dict[str, Engine] = {"transformers": run_transformers, "vllm": run_vllm, "openai": run_openai}


# ---------------------------------------------------------------- generation with memory


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


def make_prompt(model: Model, engine: str, question: str) -> Prompt:
    """A question as this engine wants it: rendered to ids, or left to the server."""
    return Prompt(question, None if engine == "openai" else chat.prompt_ids(model.tokenizer, question))


def key_of(model: Model, engine: str, prompt: Prompt, sampling: Sampling, options: dict[str, Any]) -> str:
    """Digest of everything that decides an output: checkpoint, engine, its options, sampling and prompt."""
    parts = [model.digest, engine, options, dataclasses.asdict(sampling), prompt.ids or prompt.question]
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
    model: Model,
    engine: str,
    questions: Iterable[str],
    sampling: Sampling,
    options: dict[str, Any],
    work: Path,
) -> list[Output]:
    """One output per question, in their order; equal prompts are generated once.

    Every finished output is appended to the file `work` at once, and one found there is not generated again.

    Raises:
        SettingError: no such engine.
        InputError: a prompt and its output do not fit the model.
    """
    if engine not in ENGINES:
        raise SettingError("engine", repr(engine), "one of " + ", ".join(ENGINES))
    asked = [make_prompt(model, engine, question) for question in questions]
    keys = [key_of(model, engine, prompt, sampling, options) for prompt in asked]
    prompts = dict(zip(keys, asked, strict=True))
    _check_room(model, prompts.values(), sampling)
    done = remembered(work)
    unique = list(prompts)
    todo = [number for number, key in enumerate(unique) if key not in done]
    progress = Progress(f"generate {model.name}", len(unique), "outputs", len(unique) - len(todo))
    work.parent.mkdir(parents=True, exist_ok=True)
    with work.open("ab") as file:
        if file.tell():
            file.write(b"\n")  # ends a line that a kill cut off

        def emit(pairs: list[tuple[int, Output]]) -> None:
            for number, output in pairs:
                done[unique[number]] = output
                file.write(orjson.dumps({"key": unique[number]} | dataclasses.asdict(output)) + b"\n")
            file.flush()
            progress.add(len(pairs))

        if todo:
            ENGINES[engine](model, list(prompts.values()), todo, sampling, options, emit)
    progress.close()
    return [done[key] for key in keys]


def _check_room(model: Model, prompts: Iterable[Prompt], sampling: Sampling) -> None:
    if model.folder is None:
        return
    room = _context(model.folder)
    longest = max((len(prompt.ids or ()) for prompt in prompts), default=0)
    if longest + sampling.max_tokens > room:
        raise InputError(
            model.folder,
            f"a prompt of {longest} tokens and {sampling.max_tokens} new ones",
            f"at most {room} tokens, the model's context",
            "lower max_tokens",
        )


def _context(folder: Path) -> int:
    return int(orjson.loads((folder / "config.json").read_bytes()).get("max_position_embeddings", 2**31))


def parse_benchmark(text: str) -> tuple[str, str]:
    """Input and output file of `NAME=INPUT:OUTPUT`.

    Raises:
        SettingError: the text is not of that form.
    """
    name, _, paths = text.partition("=")
    source, _, target = paths.rpartition(":")
    if not (name and source and target):
        raise SettingError("--benchmarks", repr(text), "NAME=INPUT:OUTPUT")
    return source, target


def benchmark_rows(
    model: Model, engine: str, sampling: Sampling, rows: Sequence[Row], outputs: Sequence[Output]
) -> list[Row]:
    """Rows of one benchmark with what the model wrote, taken apart into thinking and answer."""
    made = []
    for row, output in zip(rows, outputs, strict=True):
        thinking, answer = chat.split_thinking(output.text, opened=False)
        made.append(
            {"id": row["id"], "benchmark": row["benchmark"], "question": row["question"]}
            | {"response": output.text, "thinking": thinking, "answer": answer, "finish_reason": output.finish_reason}
            | {"prompt_tokens": output.prompt_tokens, "completion_tokens": output.completion_tokens}
            | {"sampling": dataclasses.asdict(sampling), "model": model.name, "engine": engine}
        )
    return made


def generate_benchmarks(
    model: Model,
    engine: str,
    benchmarks: Sequence[tuple[str, str]],
    sampling: Sampling,
    options: dict[str, Any],
    work: Path,
) -> list[Row]:
    """Generate for every (input file, output file) with one load of the model; removes `work` when all are written."""
    inputs = [read_rows(path, ["id", "question", "benchmark"]) for path, _ in benchmarks]
    questions = [row["question"] for rows in inputs for row in rows]
    outputs = generate(model, engine, questions, sampling, options, work)
    made, start = [], 0
    for (_, target), rows in zip(benchmarks, inputs, strict=True):
        part = benchmark_rows(model, engine, sampling, rows, outputs[start : start + len(rows)])
        start += len(rows)
        write_rows(target, part)
        made += part
    work.unlink(missing_ok=True)
    return made
