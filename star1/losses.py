"""Cross-entropy of a pack, from hidden states and the output matrix: the logits of all its tokens are never there at once."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as functional

from star1.packing import collate
from star1.rendering import Example

# Logits that are there at once: what a CPU keeps near, and what keeps a GPU busy.
CHUNK = {"cpu": 2**19}
CHUNK_ELSEWHERE = 2**27
FEWEST = 128  # rows of a chunk: for each chunk the gradient of the whole output matrix is read and written


def rows_at_once(kind: str, vocabulary: int) -> int:
    """Rows of logits that are there at once on a device of this kind."""
    return max(FEWEST, CHUNK.get(kind, CHUNK_ELSEWHERE) // vocabulary)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of `hidden @ weight.T`, by chunks of rows; the gradients are made on the way.

    Products are taken in the type of autocast, as a linear layer's are; softmax and sums in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """Loss [nats] of hidden states [n, h], weight [v, h], bias [v] or None, and targets [n]."""
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        pairs = zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        made = [torch.zeros_like(one, dtype=torch.float32) if on and one is not None else None for one, on in pairs]
        narrow, rows = weight.to(dtype), rows_at_once(kind, weight.shape[0])
        room = _Room(min(rows, len(targets)), weight.shape[0], dtype, hidden.device)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(targets), rows):
                some, wanted = hidden[start : start + rows].to(dtype), targets[start : start + rows, None]
                logits = room.logits(some, narrow, bias)
                top = logits.amax(1, keepdim=True)
                loss += (top - logits.gather(1, wanted)).sum()
                # In place on a CPU: fresh pages cost more than the softmax.
                slope = torch.softmax(logits, 1, out=logits) if kind == "cpu" else logits.softmax(1)
                # The largest logit's share is never 0, as the target's may be: the loss is exact however large it is.
                loss -= slope.amax(1).log_().sum()
                if any(one is not None for one in made):
                    slope.scatter_add_(1, wanted, torch.full_like(wanted, -1.0, dtype=torch.float32))
                    _add_gradients(made, slope, room.narrow(slope), some, narrow, start)
        ctx.save_for_backward(*made)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return loss

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of hidden states, weight and bias; none of the targets."""
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *(None if one is None else (one * above[0]).to(dtype) for one, dtype in pairs), None


def _add_gradients(
    made: list[torch.Tensor | None],
    slope: torch.Tensor,
    narrow: torch.Tensor,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    start: int,
) -> None:
    """Add what a chunk brings to the gradients of hidden states, weight and bias.

    Args:
        made: these gradients.
        slope: gradient of the chunk's logits, float32.
        narrow: the same in the type of `weight`.
        hidden: the chunk's hidden states.
        weight: the output matrix.
        start: first row of the chunk.
    """
    if made[0] is not None:
        made[0][start : start + len(hidden)] = narrow @ weight
    if made[1] is not None:
        made[1] += narrow.T @ hidden
    if made[2] is not None:
        made[2] += slope.sum(0)


class _Room:
    """Memory for the logits of one chunk, used for all: on a CPU, fresh pages for each would cost more than the softmax."""

    def __init__(self, rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
        self._wide = torch.empty(rows, vocabulary, dtype=torch.float32, device=device)
        self._narrow = self._wide if dtype == torch.float32 else torch.empty_like(self._wide, dtype=dtype)

    def logits(self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Logits [rows, v] in float32, from products in the type of `weight`."""
        made = torch.mm(hidden, weight.T, out=self._narrow[: len(hidden)])
        if bias is not None:
            made += bias.to(weight.dtype)
        return made if made.dtype == torch.float32 else self._wide[: len(hidden)].copy_(made)

    def narrow(self, slope: torch.Tensor) -> torch.Tensor:
        """`slope` in the type of the products."""
        return slope if self._narrow is self._wide else self._narrow[: len(slope)].copy_(slope)


class SummingLinear(torch.nn.Linear):
    """What a linear layer with the output matrix becomes, so that the loss is made while the layer is called.

    Where weights are spread over processes, whatever wraps a layer puts its weight together when it is called, and then
    alone.
    """

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """Logits; with `targets` [n], the summed loss of hidden states [n, h]."""
        if targets is None:
            return super().forward(hidden)
        found: torch.Tensor = ChunkedCrossEntropy.apply(hidden, self.weight, self.bias, targets)  # type: ignore[no-untyped-call]
        return found


class Scored(torch.nn.Module):
    """A causal language model whose forward pass gives the summed loss of a pack.

    It is this module that is handed to accelerate, so that whatever wraps it sees hidden states and output matrix used in
    one forward pass.

    Args:
        causal: the model; its output layer learns to give losses.
        precision: "bf16" takes products in bfloat16 (autocast), "float32" does not.
    """

    def __init__(self, causal: Any, precision: str = "float32") -> None:
        super().__init__()
        self.causal, self.narrow = causal, precision == "bf16"
        self.chunked = is_plain(causal)
        if self.chunked:
            causal.get_output_embeddings().__class__ = SummingLinear  # weight, name and ties stay as they are

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Loss [nats] of what `packing.collate` made."""
        # Each weight is used once: a cache of narrow copies would serve nothing, and keep all of them where weights are spread.
        with torch.autocast(batch["ids"].device.type, torch.bfloat16, enabled=self.narrow, cache_enabled=False):
            return pack_loss(self.causal, batch, self.chunked)


def pack_loss(causal: Any, batch: dict[str, Any], chunked: bool) -> torch.Tensor:
    """Cross-entropy summed over the target tokens of a pack [nats].

    There is no padding and no attention mask: attention goes by `ends` (ours) or by the positions, which restart with
    every sequence (the library's). An all-ones mask would silently let sequences see each other.
    """
    given = {"input_ids": batch["ids"], "position_ids": batch["positions"], "use_cache": False, "ends": batch["ends"]}
    if not chunked:
        logits = causal(**given, logits_to_keep=batch["at"]).logits[0].float()
        return functional.cross_entropy(logits, batch["targets"], reduction="sum")
    hidden = causal.base_model(**given).last_hidden_state[0, batch["at"]]
    head: Any = causal.get_output_embeddings()
    loss: torch.Tensor
    if isinstance(head, SummingLinear):
        loss = head(hidden, batch["targets"])
    else:
        loss = ChunkedCrossEntropy.apply(hidden, head.weight, head.bias, batch["targets"])  # type: ignore[no-untyped-call]
    return loss


def is_plain(causal: Any) -> bool:
    """Whether the logits are hidden states times output matrix and nothing else: neither scaled nor capped.

    It is tried on a few tokens, since there are as many names for such settings as architectures; with large logits, since
    a cap leaves small ones as they are.
    """
    head = causal.get_output_embeddings()
    if type(head) not in (torch.nn.Linear, SummingLinear) or head.weight.is_meta or causal.base_model is causal:
        return False
    ids = torch.arange(min(8, head.weight.shape[0]), device=head.weight.device)[None]
    training, given = causal.training, {"input_ids": ids, "use_cache": False, "ends": [0, ids.shape[1]]}
    causal.eval()
    enlarged = head.register_forward_hook(lambda _module, _given, found: found * 1024)  # exact in any type
    try:
        with torch.no_grad():
            expected = causal(**given).logits.float() / 1024
            found = head(causal.base_model(**given).last_hidden_state).float() / 1024
    finally:
        enlarged.remove()
        causal.train(training)
    return expected.shape == found.shape and torch.allclose(expected, found, rtol=1e-3, atol=1e-4)


def loss_sum(causal: Any, examples: Sequence[Example], device: Any = "cpu") -> torch.Tensor:
    """Loss of one pack [nats] under a model that nothing wraps."""
    return pack_loss(causal, collate(examples, device), is_plain(causal))
