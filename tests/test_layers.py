"""Layers in fewer steps are the library's, in value and gradients, and stay away from models in which they would not be."""

import copy
from typing import Any

import pytest

from star1 import layers
from tests.micro import tokenizer_and_model

torch = pytest.importorskip("torch")
WIDTH = 48


def norm(kind: str = "qwen2", dtype: Any = None) -> Any:
    """A norm whose weight is not flat."""
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    torch.manual_seed(3)
    made: Any = Qwen2RMSNorm(WIDTH) if kind == "qwen2" else GemmaRMSNorm(WIDTH)
    with torch.no_grad():
        made.weight.copy_(torch.randn(WIDTH))
    return made.to(dtype) if dtype else made


def fed(norm: Any) -> Any:
    made = copy.deepcopy(norm)
    made.__class__ = layers.FeedingNorm
    return made


def slopes(module: Any, hidden: Any, top: Any) -> tuple[Any, Any, Any]:
    hidden = hidden.clone().requires_grad_()
    found = module(hidden)
    (found.float() * top).sum().backward()
    return found, hidden.grad, module.weight.grad


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_value_and_gradients(size: float) -> None:
    """float32: also where epsilon counts, and where squares are large."""
    torch.manual_seed(1)
    hidden, top, plain = torch.randn(2, 7, WIDTH) * size, torch.randn(2, 7, WIDTH), norm()
    for one, other in zip(slopes(plain, hidden, top), slopes(fed(plain), hidden, top), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6 * float(one.abs().max()))


def test_autocast_gives_what_the_layers_take_in() -> None:
    """Under autocast a linear layer rounds what it gets: here it is rounded once for all of them, to the same bits."""
    torch.manual_seed(1)
    hidden, plain = torch.randn(1, 9, WIDTH), norm()
    with torch.autocast("cpu", torch.bfloat16):
        assert fed(plain)(hidden).dtype == torch.bfloat16
        layer = torch.nn.Linear(WIDTH, 5)
        assert torch.allclose(layer(fed(plain)(hidden)), layer(plain(hidden)), rtol=1e-2, atol=1e-2)
    assert torch.allclose(fed(plain)(hidden), plain(hidden), rtol=1e-6, atol=1e-6)


def test_frozen_weight_has_no_gradient() -> None:
    """As with adapters, which train nothing of the base."""
    module = fed(norm()).requires_grad_(False)
    hidden = torch.randn(1, 3, WIDTH, requires_grad=True)
    module(hidden).sum().backward()
    assert module.weight.grad is None
    assert hidden.grad is not None


@pytest.mark.filterwarnings("ignore:Input #")
def test_gradcheck() -> None:
    """Against finite differences, in float32 as the function computes: hence the tolerance."""
    torch.manual_seed(2)
    hidden, weight = torch.randn(3, 6, requires_grad=True), torch.randn(6, requires_grad=True)
    given = (hidden, weight, 1e-6, torch.float32)
    assert torch.autograd.gradcheck(layers.RootMeanSquare.apply, given, eps=1e-3, atol=1e-2, rtol=1e-2)


def test_a_model_is_changed_whole() -> None:
    """Two norms a layer and the last one; what the checkpoint is made of stays."""
    model = tokenizer_and_model()[1]
    before = {name: one.clone() for name, one in model.state_dict().items()}
    ids = torch.arange(12)[None]
    expected = model(input_ids=ids).logits
    assert layers.use_feeding_norms(model) == 2 * model.config.num_hidden_layers + 1
    assert layers.use_feeding_norms(model) == 0  # they are changed already
    assert torch.allclose(model(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-6)
    assert {name: one.tolist() for name, one in model.state_dict().items()} == {
        name: one.tolist() for name, one in before.items()
    }


def test_other_norms_are_left_alone() -> None:
    """Gemma's adds 1 to its weight; an architecture that is not known may add a norm's output to the residual."""
    model = tokenizer_and_model()[1]
    model.model.norm = norm("gemma").requires_grad_(True)
    model.config.hidden_size = WIDTH
    assert layers.use_feeding_norms(model) == 0
    other = tokenizer_and_model()[1]
    other.config.model_type = "olmo2"
    assert layers.use_feeding_norms(other) == 0


def narrow_pass(model: Any, ids: Any) -> tuple[Any, list[Any]]:
    """Logits under autocast, and the gradients of all weights."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids).logits
    logits.float().square().mean().backward()
    return logits, [one.grad.clone() for one in model.parameters()]


def test_wide_outputs_change_no_bit_of_what_a_model_says() -> None:
    """Products with float32 are made in float32 anyway; only roundings on the way back are fewer."""
    model = tokenizer_and_model()[1]
    ids = torch.arange(12)[None]
    logits, before = narrow_pass(model, ids)
    assert layers.use_wide_outputs(model) == 4 * model.config.num_hidden_layers
    assert layers.use_wide_outputs(model) == 0  # they are changed already
    wide, after = narrow_pass(model, ids)
    assert torch.equal(logits, wide)
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, rtol=0.05, atol=0.01 * float(one.abs().max()))


def test_narrow_models_and_unknown_ones_keep_their_outputs() -> None:
    """A residual stream in bfloat16 would become one in float32."""
    assert layers.use_wide_outputs(tokenizer_and_model()[1].bfloat16()) == 0
    other = tokenizer_and_model()[1]
    other.config.model_type = "olmo2"
    assert layers.use_wide_outputs(other) == 0
    other = tokenizer_and_model()[1]
    for layer in other.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()
    assert layers.use_wide_outputs(other) == 2 * other.config.num_hidden_layers


@pytest.mark.parametrize("narrow", [True, False])
def test_gated_products_are_the_library_s_to_the_bit(narrow: bool) -> None:
    """Values and gradients; attention off the way, whose own sums hang on the order."""
    mlp = tokenizer_and_model()[1].model.layers[0].mlp
    other = copy.deepcopy(mlp)
    other.__class__ = layers.GatedFeed
    torch.manual_seed(4)
    hidden, found = torch.randn(2, 9, mlp.hidden_size), []
    for one in (mlp, other):
        given = hidden.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            made = one(given)
        made.float().square().sum().backward()
        found.append([made, given.grad, *(weight.grad for weight in one.parameters())])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_feeds_of_other_kinds_are_left_alone() -> None:
    """One more layer in it, another gate, another architecture."""
    model = tokenizer_and_model()[1]
    model.model.layers[0].mlp.extra = torch.nn.Identity()
    assert layers.use_gated_products(model) == model.config.num_hidden_layers - 1
    model = tokenizer_and_model()[1]
    model.config.hidden_act = "gelu"
    assert layers.use_gated_products(model) == 0
