"""Packed and chunked losses are the plain ones, in value, gradients and memory."""

import copy
import itertools
import subprocess
import sys
from typing import Any

import pytest

from star1 import losses, packing, rendering, sft, tiny
from tests.conftest import ROOT
from tests.micro import ROWS, SETTINGS, fresh_accelerate, small_settings, tokenizer_and_model

torch = pytest.importorskip("torch")


chunked_loss: Any = losses.ChunkedCrossEntropy.apply


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_and_model()[0]


@pytest.fixture(scope="module")
def examples(tokenizer: Any) -> list[rendering.Example]:
    return rendering.render_all(tokenizer, ROWS, small_settings())[0]


def model_of(tokenizer: Any, kv_heads: int, tied: bool) -> Any:
    """A micro Qwen2 with 4 query heads whose attention is not flat."""
    from transformers import Qwen2ForCausalLM

    model = tiny.make_model(tokenizer, tiny.Settings(**{**vars(SETTINGS), "heads": 4, "kv_heads": kv_heads}))
    model.config.tie_word_embeddings = tied
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(model.config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(4)
    return model


def gradients(model: Any, groups: list[list[rendering.Example]], chunked: bool) -> tuple[float, dict[str, Any]]:
    model.zero_grad()
    total = 0.0
    for group in groups:
        loss: Any = losses.pack_loss(model, packing.collate(group), chunked)
        loss.backward()
        total += loss.item()
    return total, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest difference of any weight's gradient, relative to the norm of that gradient."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).norm() / one[name].norm()) for name in one)


# ---------------------------------------------------------------- packing


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_is_unpacked(
    tokenizer: Any, examples: list[rendering.Example], kv_heads: int, tied: bool, checkpointing: bool
) -> None:
    """Loss and every gradient within 1e-5 in float32: two packs, shared keys, recomputed activations, loss by chunks."""
    model = model_of(tokenizer, kv_heads, tied)
    model.set_attn_implementation("eager")
    expected, slopes = gradients(model, [[example] for example in examples], chunked=False)
    sft.use_packed_attention(model)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    longest = max(len(example.ids) for example in examples)
    groups = packing.pack(examples, sum(len(example.ids) for example in examples) // 2 + longest)
    assert len(groups) == 2
    loss, found = gradients(model, groups, losses.is_plain(model))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert distance(slopes, found) <= 1e-5


def test_a_leak_between_sequences_would_be_seen(tokenizer: Any, examples: list[rendering.Example]) -> None:
    """The test above would not pass if sequences saw each other: with one `end` too few the loss is another."""
    model = model_of(tokenizer, 2, True)
    sft.use_packed_attention(model)
    batch = packing.collate(examples[:4])
    right = losses.pack_loss(model, batch, True).item()
    batch["ends"] = [0, batch["ends"][-1]]
    assert losses.pack_loss(model, batch, True).item() != pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize(
    "sizes", [[1], [2], [packing.QUERIES - 1], [packing.QUERIES], [packing.QUERIES + 1], [700], [300, 1, 65, 512, 9]]
)
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 2), (3, 1)])
def test_short_attention_is_causal_attention(sizes: list[int], heads: int, shared: int) -> None:
    """At the borders of its blocks and of sequences, against torch's own; values and all three gradients."""
    torch.manual_seed(0)
    ends = [*itertools.accumulate(sizes, initial=0)]
    shapes = [(1, count, ends[-1], 8) for count in (heads, shared, shared)]
    one = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    other = [tensor.detach().clone().requires_grad_() for tensor in one]
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            *(tensor[:, :, start:end] for tensor in one), is_causal=True, scale=0.3, enable_gqa=True
        )
        for start, end in itertools.pairwise(ends)
    ]
    expected = torch.cat(parts, dim=2).transpose(1, 2)
    found: Any = packing._short(other[0], other[1], other[2], ends, 0.3)
    slope = torch.randn_like(expected)
    expected.backward(slope)
    found.backward(slope)
    torch.testing.assert_close(found, expected)
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(right.grad, left.grad)


def test_the_room_after_a_sequence_is_at_most_a_quarter_and_leaves_few_sizes() -> None:
    sizes = [packing.roomy(tokens) for tokens in range(1, 2049)]
    assert all(tokens <= size <= 1.25 * tokens for tokens, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 64


def test_what_fills_up_a_pack_changes_neither_loss_nor_gradients(
    tokenizer: Any, examples: list[rendering.Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = examples[:3]
    plain = sum(len(example.ids) for example in some)
    found = []
    for step in (packing.STEP, 1):
        monkeypatch.setattr(packing, "STEP", step)
        model = model_of(tokenizer, 2, True)
        sft.use_packed_attention(model)
        batch = packing.collate(some)
        loss: Any = losses.pack_loss(model, batch, True)
        loss.backward()
        found.append((batch["ids"].shape[1], loss.item(), [one.grad for one in model.parameters()]))
    assert found[1][0] == plain < found[0][0], "the examples must not fill a pack by chance"
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)
    for left, right in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_a_pack_for_a_gpu_is_not_filled_up() -> None:
    assert packing.filled(65, "cuda") == 65
    assert packing.filled(65) == 2 * packing.STEP


def test_long_sequences_take_the_fused_kernel(
    tokenizer: Any, examples: list[rendering.Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tokenizer, 2, True)
    sft.use_packed_attention(model)
    short = losses.loss_sum(model, examples).item()
    monkeypatch.setattr(packing, "SHORT", 0)
    assert losses.loss_sum(model, examples).item() == pytest.approx(short, rel=1e-5)


# ---------------------------------------------------------------- cross-entropy by chunks


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_chunked_is_plain(monkeypatch: pytest.MonkeyPatch, rows: int, bias: bool) -> None:
    """Value and gradients within 1e-6 in float32, also where the last chunk is a part, and where the gradient is scaled."""
    torch.manual_seed(0)
    vocabulary = 321
    monkeypatch.setitem(losses.CHUNK, "cpu", rows * vocabulary)
    monkeypatch.setattr(losses, "FEWEST", 1)
    given = [torch.randn(64, 16), torch.randn(vocabulary, 16), torch.randn(vocabulary) if bias else None]
    targets = torch.randint(0, vocabulary, (64,))
    one, other = ([None if tensor is None else tensor.clone().requires_grad_() for tensor in given] for _ in range(2))
    plain = torch.nn.functional.linear(*one)
    expected = torch.nn.functional.cross_entropy(plain, targets, reduction="sum")
    found = chunked_loss(*other, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (expected * 0.37).backward()
    (found * 0.37).backward()
    for left, right in zip(one, other, strict=True):
        if left is not None and right is not None:
            assert float((left.grad - right.grad).norm() / left.grad.norm()) <= 1e-6


def test_a_large_vocabulary_is_not_taken_by_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 151,936 words three rows were a chunk on a CPU, and the gradient of the output matrix was added to for each: 12
    times as slow as 128 rows."""
    added: list[int] = []
    real = losses._add_gradients

    def counted(made: Any, slope: Any, *given: Any) -> None:
        added.append(len(slope))
        real(made, slope, *given)

    monkeypatch.setattr(losses, "_add_gradients", counted)
    weight = torch.randn(20_000, 4, requires_grad=True)
    chunked_loss(torch.randn(300, 4), weight, None, torch.randint(0, 20_000, (300,)))
    assert added == [128, 128, 44]
    assert losses.rows_at_once("cpu", 2048) == 256
    assert losses.rows_at_once("cuda", 151_936) == 883


def test_chunked_under_autocast_and_without_gradients() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 32, requires_grad=True), torch.randn(300, 32, requires_grad=True)
    targets = torch.randint(0, 300, (50,))
    exact = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16):
        found = chunked_loss(hidden, weight, None, targets)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-2)
    found.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32
    with torch.no_grad():
        assert chunked_loss(hidden, weight, None, targets).item() == pytest.approx(exact.item())


MEMORY = """
import resource, sys, torch
from star1.losses import ChunkedCrossEntropy
torch.set_num_threads(1)
hidden, weight = torch.randn(8192, 64, requires_grad=True), torch.randn(50_000, 64, requires_grad=True)
targets = torch.randint(0, 50_000, (8192,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "chunked":
    ChunkedCrossEntropy.apply(hidden, weight, None, targets).backward()
else:
    torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum").backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_logits_are_never_whole_in_memory() -> None:
    """8,192 x 50,000 logits are 1,563 MiB in float32. By chunks it takes at most 150 MiB, gradients included."""
    taken = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, way], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
        )
        for way in ("chunked", "plain")
    }
    assert taken["chunked"] <= 150
    assert taken["plain"] >= 1563  # so the figure means what it says


def test_models_that_scale_or_cap_logits_take_their_own_way(examples: list[rendering.Example]) -> None:
    """Gemma 2 caps, Granite and Cohere scale: the output matrix alone would give another loss, without a word."""
    from transformers import (
        CohereConfig,
        CohereForCausalLM,
        Gemma2Config,
        Gemma2ForCausalLM,
        GraniteConfig,
        GraniteForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    size: dict[str, Any] = {
        "vocab_size": 500,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    for kind, config, plain in (
        (LlamaForCausalLM, LlamaConfig(**size), True),
        (GraniteForCausalLM, GraniteConfig(**size, logits_scaling=8.0), False),
        (CohereForCausalLM, CohereConfig(**size, logit_scale=0.0625, pad_token_id=0, bos_token_id=1), False),
        (Gemma2ForCausalLM, Gemma2Config(**size, head_dim=8, final_logit_softcapping=0.05), False),
    ):
        torch.manual_seed(0)
        model = kind(config)
        assert losses.is_plain(model) == plain, kind
        assert losses.Scored(model).chunked == plain
        some = examples[0]
        logits = model(input_ids=torch.tensor([some.ids])).logits[0, :-1].float()
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(some.labels[1:]), reduction="sum")
        assert losses.loss_sum(model, [some]).item() == pytest.approx(expected.item(), rel=1e-5)


# ---------------------------------------------------------------- no waiting


def test_nothing_looks_at_a_tensor_between_two_gatherings(
    tokenizer: Any, examples: list[rendering.Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, each look makes the CPU wait for it. Counted here: looks at values while updates are made."""
    looks: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero", "cpu"):
        real = getattr(torch.Tensor, name)

        def counted(self: Any, *args: Any, real: Any = real, name: str = name, **kwargs: Any) -> Any:
            # The optimizer counts its steps in tensors that stay on the CPU.
            if self.is_floating_point() and "/torch/optim/" not in sys._getframe(1).f_code.co_filename:
                looks.append(name)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    fresh_accelerate()
    counts = []
    for updates in (4, 8):
        looks.clear()
        model = copy.deepcopy(tokenizer_and_model()[1])
        sft.train(model, [examples[:4]] * updates, small_settings(gather_every=100, diverged_factor=0.0), "test")
        counts.append(len(looks))
    assert counts[0] == counts[1] > 0, "looks grow with the number of updates"
