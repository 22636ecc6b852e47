"""Sequences packed without padding, and attention that keeps them apart."""

import contextlib
import functools
import heapq
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as functional

from star1.rendering import IGNORED, Example

PACKED = "star1_packed"  # name of our attention function in transformers' table
# Architectures whose packs are known to give what single sequences give; with others it is tried, with two sequences.
TRIED = (12, 9)
EXACT = ("llama", "mistral", "qwen2", "qwen3")
# On the CPU, torch's fused attention takes several times as long for short sequences as a few matrix products do; these
# keep the scores for the backward pass, so that the fused one takes the long ones.
SHORT = 2048
# A CPU makes a kernel for each new size of a matrix, which takes longer than its product, and keeps it: sizes are multiples.
STEP = 64
QUERIES = 256  # of a short sequence at a time: later keys are not even looked at; fewer would be more, smaller steps


def pack(examples: Sequence[Example], capacity: int) -> list[list[Example]]:
    """Distribute sequences over packs of at most `capacity` tokens, longest first, each into the first pack with room.

    A sequence longer than the capacity gets a pack of its own.
    """
    packs: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda example: -len(example.ids)):
        for number, left in enumerate(room):
            if left >= len(example.ids):
                packs[number].append(example)
                room[number] -= len(example.ids)
                break
        else:
            packs.append([example])
            room.append(capacity - len(example.ids))
    return packs


def deal(examples: Sequence[Example], capacity: int, world: int) -> list[list[Example]]:
    """Packs for several processes: as many for each, and those that are computed side by side about as long as each other.

    A round takes as long as its longest pack. Where that cannot be had within the capacity, they are as `pack` makes them.
    """
    packs = pack(examples, capacity)
    if world == 1:
        return packs
    dealt: list[list[Example]] = [[] for _ in range(min(-(-len(packs) // world) * world, len(examples)))]
    tokens = [(0, number) for number in range(len(dealt))]  # of each pack, as a heap
    for example in sorted(examples, key=lambda example: -len(example.ids)):
        count, number = tokens[0]
        heapq.heapreplace(tokens, (count + len(example.ids), number))
        dealt[number].append(example)
    fits = max(tokens)[0] <= max(capacity, *(len(example.ids) for example in examples))
    return sorted(dealt if fits else packs, key=lambda one: -sum(len(example.ids) for example in one))


def shares(packs: list[list[Example]], rank: int, world: int) -> Iterator[tuple[list[Example], float]]:
    """Packs of one process with their weight; all processes get the same number, the missing ones at weight 0."""
    for start in range(0, len(packs), world):
        number = start + rank
        yield (packs[number], 1.0) if number < len(packs) else (packs[0], 0.0)


def collate(examples: Sequence[Example], device: Any = "cpu") -> dict[str, Any]:
    """One pack as the tensors of a forward pass; all that needs a look at values is done before they reach the device.

    Returns:
        ids, positions: [1, tokens], filled up on a CPU (`filled`); positions restart with every sequence.
        at, targets: [targets], the position before each target token, and the token.
        ends: where sequences start and end, [sequences + 1] numbers.
    """
    ids = torch.tensor([token for example in examples for token in example.ids])
    positions = [torch.arange(len(example.ids)) for example in examples]
    # The token at p is predicted at p - 1. The first token of a sequence has nothing before it and is no target.
    labels = torch.tensor([label for example in examples for label in (IGNORED, *example.labels[1:])])
    found = (labels != IGNORED).nonzero().squeeze(1)
    ends = [*itertools.accumulate((len(example.ids) for example in examples), initial=0)]
    if more := filled(len(ids), torch.device(device).type) - len(ids):
        ids = torch.cat([ids, ids[:1].expand(more)])
        positions.append(torch.arange(more))
        ends.append(len(ids))
    tensors = {"ids": ids[None], "positions": torch.cat(positions)[None], "at": found - 1, "targets": labels[found]}
    return {**{name: to_device(tensor, device) for name, tensor in tensors.items()}, "ends": ends}


def filled(tokens: int, kind: str = "cpu") -> int:
    """Positions of a pack of so many tokens on a device of this kind; what is more is a sequence without targets."""
    return -(-tokens // STEP) * STEP if kind == "cpu" else tokens


def to_device(tensor: torch.Tensor, device: Any) -> torch.Tensor:
    """Copy to `device` without waiting for it."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


# ---------------------------------------------------------------- attention


def packed_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a pack: no token sees another sequence, and no L x L mask is made.

    Args:
        module: the attention layer that calls.
        query: [1, heads, tokens, d].
        key: [1, kv_heads, tokens, d].
        value: as `key`.
        attention_mask: must be None.
        kwargs: `ends`, the numbers where sequences start and end; `scaling`, the scale of the scores.

    Returns:
        [1, tokens, heads, d] and None.
    """
    ends, scale, dropout = kwargs["ends"], kwargs.get("scaling"), kwargs.get("dropout", 0.0)
    if torch.is_autocast_enabled(query.device.type):  # positions were put into queries and keys in float32
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if query.is_cuda and not dropout and query.dtype in (torch.bfloat16, torch.float16) and (varlen := _varlen()):
        return varlen(query, key, value, ends, scale), None
    if not dropout and not query.is_cuda and max(end - start for start, end in itertools.pairwise(ends)) <= SHORT:
        return _short(query, key, value, ends, scale), None
    parts = []
    for start, end in itertools.pairwise(ends):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        if not dropout and not query.is_cuda and end - start <= SHORT:
            parts.append(_short(q, k, v, [0, end - start], scale))
            continue
        shared = q.shape[1] != k.shape[1]
        found = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=shared
        )
        parts.append(found.transpose(1, 2))
    return torch.cat(parts, dim=1), None


def _short(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: list[int], scale: float | None
) -> torch.Tensor:
    """Causal attention of sequences by plain matrix products; shapes as in `packed_attention`, gives [1, tokens, heads, d]."""
    _, heads, tokens, width = query.shape
    groups = key.shape[1]
    # The heads that share keys stand beside each other as further queries of a token: no key is copied.
    query = query * (width**-0.5 if scale is None else scale)
    query = query.view(groups, -1, tokens, width).transpose(1, 2).reshape(groups, tokens, -1)
    found: torch.Tensor = _Causal.apply(query, key[0], value[0], ends)  # type: ignore[no-untyped-call]
    return found.view(groups, tokens, -1, width).transpose(0, 1).reshape(1, tokens, heads, width)


class _Causal(torch.autograd.Function):
    """softmax(query @ key.T) @ value, each token seeing itself and what comes before it in its sequence, by blocks of queries.

    One function for the whole pack: the gradient of a slice would be as long as the pack, for each sequence. All products
    are of two matrices whose rows lie together, since others would be copied for each.

    Shapes: query and result [groups, tokens, shared * d], key and value [groups, tokens, d].
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: list[int]) -> torch.Tensor:
        layout = _Layout(ends)
        query, key, value = (layout.spread(tensor) for tensor in (query, key, value))
        width, saved, found = key.shape[2], [], torch.empty_like(query)
        for q, k, v, f in zip(query, key, value, found, strict=True):
            for first, start, end in layout.blocks:
                scores = q[start:end].view(-1, width) @ k[first:end].T
                scores.view(end - start, -1, end - first)[..., start - first :] += _later(end - start, scores.dtype)
                saved.append(torch.softmax(scores, -1, out=scores))
                torch.mm(scores, v[first:end], out=f[start:end].view(-1, width))
        ctx.save_for_backward(query, key, value, *saved)
        ctx.layout = layout
        return layout.gather(found)

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        layout, width, top = ctx.layout, key.shape[2], ctx.layout.spread(above[0])
        slopes = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for group in range(len(key)):
            q, k, v, t, of_q, of_k, of_v = (tensor[group] for tensor in (query, key, value, top, *slopes))
            done = -1
            # From the last block of a sequence, which sees all its keys, to the first: what it writes the others add to.
            for number in range(len(layout.blocks) - 1, -1, -1):
                first, start, end = layout.blocks[number]
                weights, rows = saved[group * len(layout.blocks) + number], t[start:end].view(-1, width)
                beta, done = int(first == done), first
                of_v[first:end].addmm_(weights.T, rows, beta=beta)
                slope = torch._softmax_backward_data(rows @ v[first:end].T, weights, -1, weights.dtype)
                torch.mm(slope, k[first:end], out=of_q[start:end].view(-1, width))
                of_k[first:end].addmm_(slope.T, q[start:end].view(-1, width), beta=beta)
        return *(layout.gather(slope) for slope in slopes), None


class _Layout:
    """Where the tokens of a pack stand for attention: each sequence with room after it (`roomy`).

    What stands there comes after all tokens of the sequence, so that none sees it, and no gradient reaches it.
    """

    def __init__(self, ends: list[int]) -> None:
        sizes = [end - start for start, end in itertools.pairwise(ends)]
        starts = [*itertools.accumulate(map(roomy, sizes), initial=0)]
        self.tokens, self.blocks = starts[-1], _blocks(starts)
        self.at = torch.cat([torch.arange(start, start + size) for start, size in zip(starts, sizes, strict=False)])

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        """[groups, tokens, n], with room between the sequences; zeros there."""
        return tensor.new_zeros(len(tensor), self.tokens, tensor.shape[2]).index_copy_(1, self.at, tensor)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same without the room."""
        return tensor.index_select(1, self.at)


def roomy(tokens: int) -> int:
    """Tokens of a sequence and the room after it: at most a quarter more."""
    step = min(STEP, 1 << max(0, tokens.bit_length() - 3))
    return -(-tokens // step) * step


def _later(tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """What to add to scores [tokens, shared, tokens] so that no query sees later keys; on the CPU, as all of this is."""
    return _triangle(QUERIES, dtype)[:tokens, :, :tokens]


@functools.cache
def _triangle(size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((size, size), -torch.inf, dtype=dtype).triu_(1)[:, None]


def _blocks(ends: list[int]) -> list[tuple[int, int, int]]:
    """First token of the sequence, first query and end of each block, in order."""
    pairs = itertools.pairwise(ends)
    return [(first, start, min(start + QUERIES, end)) for first, end in pairs for start in range(first, end, QUERIES)]


@functools.cache
def _varlen() -> Callable[..., torch.Tensor] | None:
    """Attention over a whole pack in one kernel, where this torch has it: [1, heads, tokens, d] -> [1, tokens, heads, d]."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    kernel: Any = varlen_attn  # its parameters differ between versions
    names = inspect.signature(kernel).parameters
    if "scale" not in names:
        return None
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in names else {"is_causal": True}

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: list[int], scale: Any
    ) -> torch.Tensor:
        shared = query.shape[1] // key.shape[1]
        if shared > 1 and "enable_gqa" not in names:
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        grouped = {"enable_gqa": True} if shared > 1 and "enable_gqa" in names else {}
        bounds = to_device(torch.tensor(ends, dtype=torch.int32), query.device)
        longest = max(end - start for start, end in itertools.pairwise(ends))
        flat = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
        found: torch.Tensor = kernel(*flat, bounds, bounds, longest, longest, scale=scale, **causal, **grouped)
        return found[None]

    return attend


def use_packed_attention(model: Any) -> bool:
    """Switch `model` to `packed_attention` where it gives what the model's own gives; one with windows keeps its own.

    Returns:
        Whether the sequences of a pack are kept apart. Recurrent layers, convolutions and positions that a model counts
        from the start of its input do not do that; then nothing but packs of one sequence is right.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)
    config = model.config
    kinds = {"sliding_attention"} if getattr(config, "sliding_window", None) else set()
    kinds |= set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if config.model_type in EXACT:
        if not kinds:
            model.set_attn_implementation(PACKED)
        return True
    own, expected = config._attn_implementation, _tried(model, False)
    # Sequences beside another one are the same to the bit, but for experts; alone they may be computed by other kernels.
    near, equal = (3e-2, 1e-3) if model.dtype in (torch.bfloat16, torch.float16) else (1e-4, 1e-5)
    for name in [own] if kinds else [PACKED, own]:
        model.set_attn_implementation(name)
        # The library's models may fail in any way with an attention that they were not made for.
        with contextlib.suppress(KeyError, RuntimeError, TypeError, ValueError):
            found, beside, largest = _tried(model, True), _tried(model, True, first=5), expected.abs().max()
            alike = (found - expected).abs().max() <= near * largest
            if alike and (found - beside)[TRIED[0] :].abs().max() <= equal * largest:
                return True
    return False


def _tried(model: Any, packed: bool, first: int = 3) -> torch.Tensor:
    """Logits of two short sequences, in one pack or each alone; `first` changes the first one [tokens, v]."""
    table, training, parts = model.get_input_embeddings().weight, model.training, TRIED
    every = torch.arange(sum(parts), device=table.device) * 7 + 3
    every[: parts[0]] += first - 3
    every %= table.shape[0]
    given: list[dict[str, Any]] = [
        {"input_ids": one[None], "ends": [0, len(one)]} for one in torch.split(every, list(TRIED))
    ]
    if packed:
        positions = torch.cat([torch.arange(count) for count in parts]).to(table.device)
        given = [{"input_ids": every[None], "position_ids": positions[None], "ends": [0, parts[0], sum(parts)]}]
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(**one, use_cache=False).logits[0].float() for one in given])
    finally:
        model.train(training)
