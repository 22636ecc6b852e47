"""RMS norms in one step forward and one back, which hand on what the linear layers after them take in.

The library's norm is ten small operations with as many tensors kept for the backward pass, and under autocast each of the
layers that share its output makes a narrow copy of its own.
"""

from typing import Any

import torch

# Architectures in which what a norm of hidden states gives goes into linear layers and nowhere else.
FEEDING = ("llama", "mistral", "qwen2", "qwen3")


class RootMeanSquare(torch.autograd.Function):
    """`x / sqrt(mean(x ** 2) + epsilon) * weight`, in float32 inside; x [..., h], weight [h]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype) -> torch.Tensor:
        """The normed `x` in `dtype`."""
        wide = x.float()
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(wide.shape[-1])
        scale = mean.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        found: torch.Tensor = (wide * scale).mul_(weight).to(dtype)
        return found

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `x` and of the weight, where each is asked for."""
        x, weight, scale = ctx.saved_tensors
        slope, normed = above[0].float(), x.float() * scale
        of_weight = (slope * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None, None
        slope = slope * weight
        inner = (slope * normed).mean(-1, keepdim=True)
        return slope.sub_(normed.mul_(inner)).mul_(scale).to(x.dtype), of_weight, None, None


class FeedingNorm(torch.nn.Module):
    """What a norm becomes (`use_feeding_norms`): its weight, epsilon, name and hooks stay."""

    weight: torch.nn.Parameter
    variance_epsilon: float

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normed hidden states: in the type of the products that follow."""
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        found: torch.Tensor = RootMeanSquare.apply(hidden, self.weight, self.variance_epsilon, dtype)  # type: ignore[no-untyped-call]
        return found


def use_feeding_norms(causal: Any) -> int:
    """Exchange the norms of hidden states of a model in which they feed linear layers alone; gives their number.

    That a norm is the plain one is tried, not guessed from its name: some add 1 to their weight.
    """
    config, made = causal.config, 0
    if config.model_type not in FEEDING:
        return 0
    for module in causal.modules():
        if type(module).__name__.endswith("RMSNorm") and _is_plain(module, config.hidden_size):
            module.__class__ = FeedingNorm
            made += 1
    return made


def _is_plain(norm: Any, width: int) -> bool:
    weight, epsilon = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if weight is None or epsilon is None or weight.is_meta or weight.shape != (width,):
        return False
    tried = torch.linspace(-2, 3, 2 * width, dtype=torch.float32, device=weight.device).view(1, 2, width)
    with torch.no_grad():
        expected = norm(tried.to(weight.dtype)).float()
        found = RootMeanSquare.apply(tried.to(weight.dtype), weight, epsilon, weight.dtype).float()  # type: ignore[no-untyped-call]
    return torch.allclose(expected, found, rtol=1e-2 if weight.dtype == torch.bfloat16 else 1e-5, atol=1e-6)
