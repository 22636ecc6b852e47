"""Generation in this process with transformers, batch by batch; on the GPU where there is one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from star1 import chat, checkpoints
from star1.decoding import Emit, Model, Output, Request, Sampling, options_from
from star1.errors import SettingError


def run_transformers(
    model: Model, requests: Sequence[Request], todo: Sequence[int], options: dict[str, Any], emit: Emit
) -> None:
    """Generate for `requests[i]`, i in `todo`; an engine as in `star1.decoding.Engine`.

    Raises:
        SettingError: an unknown option, or a batch that does not fit on the GPU.
    """
    import torch

    options = options_from(options, {"precision": None}, "transformers")
    network = load(model, options["precision"])
    left = set(todo)
    for batch in batches(requests):
        if not left & set(batch):
            continue
        chosen = [requests[position] for position in batch]
        try:
            outputs = run_batch(model, network, decoding_config(model, network, chosen[0].sampling), chosen)
        except torch.OutOfMemoryError:
            size = chosen[0].sampling.batch_size
            found = f"no memory for {len(batch)} prompts at once"
            raise SettingError("batch_size", f"{size}: {found}", "a smaller batch", "lower batch_size") from None
        emit([pair for pair in zip(batch, outputs, strict=True) if pair[0] in left])


def batches(requests: Sequence[Request]) -> list[list[int]]:
    """Positions of the requests in batches of equal sampling, by length.

    Made over all requests, done or not: a batch is then the same after a restart, and so are its logits.
    """
    groups: dict[Sampling, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(request.sampling, []).append(number)
    made = []
    for sampling, numbers in groups.items():
        order = sorted(numbers, key=lambda number: (len(requests[number].ids or ()), number))
        made += [order[start : start + sampling.batch_size] for start in range(0, len(order), sampling.batch_size)]
    return made


def load(model: Model, precision: str | None) -> Any:
    """The network, where and in the precision that it generates in.

    Raises:
        SettingError: a precision that is not known.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kinds = {"bf16": torch.bfloat16, "float32": torch.float32}
    if precision not in (None, *kinds):
        raise SettingError("options of engine transformers: precision", repr(precision), " or ".join(kinds))
    dtype = kinds[precision or ("bf16" if device == "cuda" else "float32")]
    return checkpoints.load_model(model.folder or "", dtype).to(device).eval()


def decoding_config(model: Model, network: Any, sampling: Sampling) -> Any:
    """The generation config of greedy decoding; what is drawn, `Draws` has chosen before."""
    from transformers import GenerationConfig

    ends = end_tokens(network, model.tokenizer)
    config = GenerationConfig(
        do_sample=False,
        repetition_penalty=sampling.repetition_penalty,
        max_new_tokens=sampling.max_tokens,
        eos_token_id=ends,
        pad_token_id=model.tokenizer.eos_token_id,
    )
    # In place of the checkpoint's own defaults, which would fill what is not said here.
    network.generation_config = config
    return config


def end_tokens(network: Any, tokenizer: Any) -> list[int]:
    """All tokens that end a turn: the tokenizer's, and what the checkpoint's generation config adds."""
    named = network.generation_config.eos_token_id
    named = named if isinstance(named, list) else [] if named is None else [named]
    return sorted({tokenizer.eos_token_id, *named})


class Draws:
    """Draws each row's next token with random numbers of its own, and leaves no other to choose.

    The library draws a whole batch from one generator, so that a row's tokens hang on the rows beside it. A logits
    processor: called after the repetition penalty, with scores [b, v].
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self.sampling, self.generators = sampling, [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Scores that are -inf but for the token drawn, by the inverse of the cumulated probabilities."""
        import torch

        shares, tokens = (
            (scores.double() / self.sampling.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        )
        reached = shares.cumsum(-1)
        kept = (reached - shares < self.sampling.top_p).sum(-1, keepdim=True)  # the fewest tokens that reach top_p
        numbers = torch.tensor([[one.random()] for one in self.generators], dtype=reached.dtype, device=reached.device)
        place = (reached <= numbers * reached.gather(-1, kept - 1)).sum(-1, keepdim=True)
        drawn = tokens.gather(-1, torch.minimum(place, kept - 1))
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


def run_batch(model: Model, network: Any, config: Any, requests: Sequence[Request]) -> list[Output]:
    """Outputs of one forward batch, whose sampling is the same."""
    import torch

    prompts = [request.ids or [] for request in requests]
    width = max(map(len, prompts))
    # Padding repeats the row's first token: were it the end token, the repetition penalty would act on padded rows.
    ids = torch.tensor([[row[0]] * (width - len(row)) + row for row in prompts], device=network.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=network.device)
    sampling = requests[0].sampling
    draws = [Draws(sampling, [request.seed for request in requests])] if sampling.temperature else []
    with torch.inference_mode():
        written = network.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=draws
        )[:, width:].tolist()
    return [_output(model, config.eos_token_id, row, tokens) for row, tokens in zip(prompts, written, strict=True)]


def _output(model: Model, ends: Sequence[int], prompt: Sequence[int], tokens: Sequence[int]) -> Output:
    stop = next((at for at, token in enumerate(tokens) if token in ends), None)
    kept = tokens if stop is None else tokens[: stop + 1]
    text = chat.response_text(model.tokenizer, kept)
    return Output(text, "length" if stop is None else "stop", len(prompt), len(kept))
