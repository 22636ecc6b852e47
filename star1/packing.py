"""Sequences packed without padding, and attention that keeps them apart."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as functional

from star1.rendering import IGNORED, Example

PACKED = "star1_packed"  # name of our attention function in transformers' table
# On the CPU, torch's fused attention takes several times as long for short sequences as a few matrix products do; these
# keep the scores for the backward pass, so that the fused one takes the long ones.
SHORT = 2048
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


def shares(packs: list[list[Example]], rank: int, world: int) -> Iterator[tuple[list[Example], float]]:
    """Packs of one process with their weight; all processes get the same number, the missing ones at weight 0."""
    for start in range(0, len(packs), world):
        number = start + rank
        yield (packs[number], 1.0) if number < len(packs) else (packs[0], 0.0)


def collate(examples: Sequence[Example], device: Any = "cpu") -> dict[str, Any]:
    """One pack as the tensors of a forward pass; all that needs a look at values is done before they reach the device.

    Returns:
        ids, positions: [1, tokens]; positions restart with every sequence.
        at, targets: [targets], the position before each target token, and the token.
        ends: where sequences start and end, [sequences + 1] numbers.
    """
    ids = torch.tensor([[token for example in examples for token in example.ids]])
    positions = torch.cat([torch.arange(len(example.ids)) for example in examples])[None]
    # The token at p is predicted at p - 1. The first token of a sequence has nothing before it and is no target.
    labels = torch.tensor([label for example in examples for label in (IGNORED, *example.labels[1:])])
    found = (labels != IGNORED).nonzero().squeeze(1)
    tensors = {"ids": ids, "positions": positions, "at": found - 1, "targets": labels[found]}
    ends = [*itertools.accumulate((len(example.ids) for example in examples), initial=0)]
    return {**{name: to_device(tensor, device) for name, tensor in tensors.items()}, "ends": ends}


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
        return _short(query, key, value, ends, scale).transpose(1, 2).contiguous(), None
    parts = [
        _short(query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], [0, end - start], scale)
        if not dropout and not query.is_cuda and end - start <= SHORT
        else functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            dropout_p=dropout,
            is_causal=True,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, end in itertools.pairwise(ends)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _short(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: list[int], scale: float | None
) -> torch.Tensor:
    """Causal attention of sequences by plain matrix products; shapes as in `packed_attention`, [1, heads, tokens, d]."""
    _, heads, tokens, width = query.shape
    groups = key.shape[1]
    # The heads that share keys stand side by side as further queries: no key is copied.
    query = query.reshape(groups, heads // groups, tokens, width) * (width**-0.5 if scale is None else scale)
    found: torch.Tensor = _Causal.apply(query, key[0], value[0], ends)  # type: ignore[no-untyped-call]
    return found.reshape(1, heads, tokens, width)


class _Causal(torch.autograd.Function):
    """softmax(query @ key.T) @ value, each token seeing itself and what comes before it in its sequence, by blocks of queries.

    One function for the whole pack: the gradient of a slice would be as long as the pack, for each sequence.

    Shapes: query [groups, shared, tokens, d], key and value [groups, tokens, d].
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: list[int]) -> torch.Tensor:
        (groups, _, _, width), found, saved = query.shape, torch.empty_like(query), []
        for first, start, end in _blocks(ends):
            some = query[:, :, start:end].reshape(groups, -1, width)
            scores = (some @ key[:, first:end].transpose(1, 2)).view(groups, -1, end - start, end - first)
            scores[..., start - first :] += _later(end - start, scores.dtype)
            saved.append(scores.softmax(-1).view(groups, -1, end - first))
            found[:, :, start:end] = (saved[-1] @ value[:, first:end]).view(groups, -1, end - start, width)
        ctx.save_for_backward(query, key, value, found, *saved)
        ctx.ends = ends
        return found

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, found, *saved = ctx.saved_tensors
        slopes = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        groups, _, _, width = query.shape
        inner, done = (above[0] * found).sum(-1, keepdim=True), -1
        # From the last block of a sequence, which sees all its keys, to the first: what it writes the others add to.
        for (first, start, end), weights in zip(reversed(_blocks(ctx.ends)), reversed(saved), strict=True):
            parts = (
                tensor[:, :, start:end].reshape(groups, -1, tensor.shape[-1]) for tensor in (query, above[0], inner)
            )
            some, top, mean = parts
            beta, done = int(first == done), first
            slopes[2][:, first:end].baddbmm_(weights.transpose(1, 2), top, beta=beta)
            slope = (top @ value[:, first:end].transpose(1, 2)).sub_(mean).mul_(weights)
            slopes[0][:, :, start:end] = (slope @ key[:, first:end]).view(groups, -1, end - start, width)
            slopes[1][:, first:end].baddbmm_(slope.transpose(1, 2), some, beta=beta)
        return *slopes, None


def _later(tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """What to add to scores [tokens, tokens] so that no query sees later keys; on the CPU, as all of this is."""
    return _triangle(QUERIES, dtype)[:tokens, :tokens]


@functools.cache
def _triangle(size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((size, size), -torch.inf, dtype=dtype).triu_(1)


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


def use_packed_attention(model: Any) -> None:
    """Switch `model` to `packed_attention`; one with sliding windows keeps its own (exact in packs too, but slower)."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if getattr(model.config, "sliding_window", None):
        return
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)
    model.set_attn_implementation(PACKED)
