"""Weights, FLOP and peaks: against totals that are known, and against a model that is made."""

from typing import Any

import pytest

from star1 import flops
from star1.errors import InputError
from star1.shapes import shape_of

QWEN, LLAMA = {"model_type": "qwen2"}, {"model_type": "llama"}


def config(family: dict[str, Any], *sizes: int, tied: bool = False) -> dict[str, Any]:
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    return family | dict(zip(names, sizes, strict=True)) | {"tie_word_embeddings": tied}


# Shapes of the published bases, and the weights that their repositories count.
BASES = {
    "Qwen2.5-1.5B": (config(QWEN, 1536, 8960, 28, 12, 2, 151936, tied=True), 1_543_714_304),
    "R1-Distill-Qwen-1.5B": (config(QWEN, 1536, 8960, 28, 12, 2, 151936), 1_777_088_000),
    "R1-Distill-Qwen-7B": (config(QWEN, 3584, 18944, 28, 28, 4, 152064), 7_615_616_512),
    "R1-Distill-Llama-8B": (config(LLAMA, 4096, 14336, 32, 32, 8, 128256), 8_030_261_248),
    "R1-Distill-Qwen-14B": (config(QWEN, 5120, 13824, 48, 40, 8, 152064), 14_770_033_664),
    "R1-Distill-Qwen-32B": (config(QWEN, 5120, 27648, 64, 40, 8, 152064), 32_763_876_352),
}


@pytest.mark.parametrize("name", BASES)
def test_weights_of_known_models(name: str) -> None:
    told, weights = BASES[name]
    assert shape_of(told).weights == weights


@pytest.mark.parametrize("family", ["Qwen2", "Llama", "Qwen3", "Mistral"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_those_of_the_model_that_is_made(family: str, tied: bool) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    sizes = config({}, 64, 96, 3, 4, 2, 300, tied=tied)
    made = getattr(transformers, f"{family}Config")(**sizes, head_dim=16)
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(made)
    model.tie_weights()
    assert shape_of(made.to_dict()).weights == sum(one.numel() for one in model.parameters())


def test_a_family_that_is_not_counted_is_an_error() -> None:
    with pytest.raises(InputError, match="model_type: mamba; expected one of qwen2"):
        shape_of({"model_type": "mamba"})


def test_flop_of_a_step_counted_by_torch() -> None:
    """Forward and backward pass of one sequence as torch counts them, which takes all tokens and pairs."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Qwen2Config, Qwen2ForCausalLM

    made = Qwen2Config(**config({}, 64, 96, 3, 4, 2, 300), attn_implementation="eager")
    model, shape, length = Qwen2ForCausalLM(made), shape_of(made.to_dict()), 128
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(1, length, dtype=torch.long)).logits.sum().backward()
    ours = flops.model_flops(shape, [length], length)
    # Eager attention also takes the half above the diagonal.
    above = 12 * shape.layers * shape.heads * shape.head_width * (length**2 - length * (length + 1) / 2)
    # The rotations' angles are a product too, of nothing that is learnt.
    assert ours + above == pytest.approx(counter.get_total_flops(), rel=0.001)


def test_adapters_cost_two_thirds_of_a_full_step() -> None:
    shape = shape_of(BASES["R1-Distill-Qwen-7B"][0])
    full, adapters = flops.model_flops(shape, [500], 400), flops.model_flops(shape, [500], 400, trained=0)
    assert adapters / full == pytest.approx(2 / 3, rel=0.02)


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", None),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla T4", None),
        ("cpu", None),
    ],
)
def test_peaks_are_known_or_not_given(device: str, peak: float | None) -> None:
    assert flops.peak_of(device, "bf16") == peak
    assert flops.peak_of(device, "float32") is None


def test_the_share_is_over_all_devices_and_unknown_with_one_unknown() -> None:
    known = ["NVIDIA A100-SXM4-80GB"] * 2
    assert flops.used_share(312e12, 1.0, known, "bf16") == pytest.approx(0.5)
    assert flops.used_share(312e12, 1.0, [*known, "cpu"], "bf16") is None
    assert flops.used_share(312e12, 0.0, known, "bf16") is None
