"""What lies between the products of a layer, in fewer and cheaper steps: RMS norms, and the types of what is added up.

The library's norm is ten small operations with as many tensors kept for the backward pass, and under autocast each of the
layers that share its output makes a narrow copy of its own. Where a narrow tensor meets a wide one, as at each residual
sum, a CPU takes several times as long as for two wide ones.
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
        # Its sums by columns are the weight's gradient; by rows, with the weight, what the norm takes from the slope.
        product = (slope * normed).flatten(0, -2)
        of_weight = product.sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None, None
        inner = product.mv(weight.float()).div_(-x.shape[-1]).view(scale.shape)
        slope = torch.mul(slope, weight, out=product.view(x.shape)).addcmul_(normed, inner)
        return slope.mul_(scale).to(x.dtype), of_weight, None, None


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


class WideLinear(torch.nn.Linear):
    """What a linear layer becomes whose output only meets float32 (`use_wide_outputs`): under autocast on a CPU it gives that.

    The values are the same, since a sum or product of the two types is made in float32 anyway.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The product, widened on a CPU."""
        found = super().forward(hidden)
        return found.float() if found.device.type == "cpu" else found


# What is added to the residual stream, and what is turned by cosines and sines of positions.
WIDE = ("o_proj", "down_proj", "q_proj", "k_proj")


def use_wide_outputs(causal: Any) -> int:
    """Exchange the linear layers whose outputs only meet float32, as the residual stream is; gives their number."""
    made = 0
    if causal.config.model_type not in FEEDING or causal.get_input_embeddings().weight.dtype != torch.float32:
        return 0
    for parent in causal.modules():
        for name, module in parent.named_children():
            # Qwen3 norms queries and keys first, in the type that they come in.
            if name in WIDE and type(module) is torch.nn.Linear and not hasattr(parent, f"{name[0]}_norm"):
                module.__class__ = WideLinear
                made += 1
    return made


class GatedProduct(torch.autograd.Function):
    """`silu(gate) * up`, both [..., i]; the library's two steps, to the bit, that keep one tensor of three less."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """The product."""
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of both."""
        gate, up = ctx.saved_tensors
        slope = above[0] * up
        torch.ops.aten.silu_backward.grad_input(slope, gate, grad_input=slope)
        return slope, torch.nn.functional.silu(gate).mul_(above[0])


class GatedFeed(torch.nn.Module):
    """What a gated feed-forward layer becomes (`use_gated_products`): its linear layers, names and hooks stay."""

    gate_proj: torch.nn.Module
    up_proj: torch.nn.Module
    down_proj: torch.nn.Module

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """down(silu(gate(hidden)) * up(hidden))."""
        product = GatedProduct.apply(self.gate_proj(hidden), self.up_proj(hidden))  # type: ignore[no-untyped-call]
        found: torch.Tensor = self.down_proj(product)
        return found


def use_gated_products(causal: Any) -> int:
    """Exchange the feed-forward layers of a model that are gated by SiLU and nothing else; gives their number."""
    made = 0
    for module in causal.modules() if causal.config.model_type in FEEDING else ():
        names = {name for name, _ in module.named_children()} - {"act_fn"}
        plain = type(module).__name__.lower() == f"{causal.config.model_type}mlp"
        if plain and names == {"gate_proj", "up_proj", "down_proj"} and causal.config.hidden_act in ("silu", "swish"):
            module.__class__ = GatedFeed
            made += 1
    return made


def use_feeding_norms(causal: Any) -> int:
    """Exchange the norms of hidden states of a model in which they feed linear layers alone; gives their number.

    That a norm is the plain one is tried, not guessed from its name: some add 1 to their weight.
    """
    config, made = causal.config, 0
    if config.model_type not in FEEDING:
        return 0
    for name, module in causal.named_modules():
        of_heads = name.endswith(("q_norm", "k_norm"))  # they feed attention
        if type(module).__name__.endswith("RMSNorm") and not of_heads and _is_plain(module, config.hidden_size):
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
