"""Generation with vLLM in this process: on all visible GPUs, or by its build for CPUs."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from star1 import chat, checkpoints
from star1.decoding import Emit, Model, Output, Request, options_from
from star1.errors import SettingError, tell

# vLLM has its own versions of torch and transformers, hence an environment of its own; made by `make engines`.
PYTHON = Path(".venv-vllm/bin/python")
KV_CACHE_BYTES = 2**30  # on CPUs, unless VLLM_CPU_KVCACHE_SPACE [GiB] says otherwise
# Taken over from the user's environment where they stand there.
QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",  # the checkpoint is a local folder
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait actively for each other are 17 times slower on busy cores
}


def go_where_vllm_is(module: str) -> None:
    """Start the script `module` again in vLLM's environment, where this one lacks vLLM; to be called before torch is loaded."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    there = PYTHON.parent.parent.resolve()
    if importlib.util.find_spec("vllm") is None and PYTHON.exists() and Path(sys.prefix).resolve() != there:
        tell(f"{module}: vLLM is not in this environment; going on in {PYTHON.parent.parent}")
        os.execv(PYTHON, [str(PYTHON), "-m", module, *sys.argv[1:]])  # noqa: S606


def run_vllm(
    model: Model, requests: Sequence[Request], todo: Sequence[int], options: dict[str, Any], emit: Emit
) -> None:
    """Generate for `requests[i]`, i in `todo`; an engine as in `star1.decoding.Engine`.

    All requests are handed over at once, and each is emitted as it finishes. `options["llm"]` holds arguments of vLLM's `LLM`.

    Raises:
        SettingError: vLLM is not installed, or cannot start with these arguments.
    """
    import torch

    options = options_from(options, {"llm": {}}, "vllm")
    gpus = torch.cuda.device_count()
    arguments = {**_arguments(model, [requests[number] for number in todo], gpus), **options["llm"]}
    engine = _start(arguments)
    for number in todo:
        engine.add_request(str(number), {"prompt_token_ids": requests[number].ids}, _parameters(requests[number]))
    while engine.has_unfinished_requests():
        finished = [result for result in engine.step() if result.finished]
        if finished:
            emit([(int(result.request_id), _output(model, result)) for result in finished])


def _start(arguments: dict[str, Any]) -> Any:
    try:
        from vllm import LLM
    except ImportError as error:
        raise SettingError(
            "engine vllm",
            str(error),
            "an environment with vLLM",
            "`make engines`, or use its container or transformers",
        ) from None
    try:
        return LLM(**arguments).llm_engine
    except (TypeError, ValueError, RuntimeError) as error:
        found = " ".join(str(error).split())
        raise SettingError("engine vllm", found, "arguments that it starts with", "see generate.options.llm") from error


def _arguments(model: Model, requests: Sequence[Request], gpus: int) -> dict[str, Any]:
    """Arguments of `LLM` that fit model, requests and machine.

    The context is what the longest request needs: vLLM does not start where its cache cannot hold one of the model's full length.
    """
    longest = max(len(request.ids or ()) + request.sampling.max_tokens for request in requests)
    chosen = {
        "model": str(model.folder),
        "dtype": "bfloat16",
        "seed": requests[0].sampling.seed,
        "max_model_len": longest,
        "tensor_parallel_size": parallel_size(model.folder, gpus),
        "trust_remote_code": checkpoints.trusts_code(model.folder or ""),
    }
    return chosen if gpus else chosen | _on_cpu()


def _on_cpu() -> dict[str, Any]:
    """Settings without which the build for CPUs does not start, or only crawls, on a machine that does other things too."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    alone = os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    return {"enforce_eager": True, "kv_cache_memory_bytes": KV_CACHE_BYTES} | (
        {"distributed_executor_backend": "uni"} if alone else {}
    )


def parallel_size(folder: Path | None, gpus: int) -> int:
    """Over how many GPUs to spread a model: the largest power of two among the visible ones that divides its heads and layers."""
    config = orjson.loads((Path(folder or "") / "config.json").read_bytes())
    widths = [config.get(name, 1) for name in ("num_attention_heads", "intermediate_size")]
    size = 1
    while size * 2 <= gpus and not any(width % (size * 2) for width in widths):
        size *= 2
    return size


def _parameters(request: Request) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=sampling.max_tokens,
        seed=request.seed,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _output(model: Model, result: Any) -> Output:
    tokens = list(result.outputs[0].token_ids)
    reason = result.outputs[0].finish_reason or "stop"  # or "length"; "abort" and the like are told as they are
    return Output(chat.response_text(model.tokenizer, tokens), reason, len(result.prompt_token_ids), len(tokens))
