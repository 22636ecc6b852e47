"""Architectures beyond the four that the pipeline is made for: packs and losses are right with them too, or are not used."""

import copy
import random
from typing import Any

import pytest

from star1 import losses, packing, recipe, training
from star1.rendering import IGNORED, Example

torch = pytest.importorskip("torch")

SMALL = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LAYERS = SMALL | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
EXPERTS = LAYERS | {"num_experts_per_tok": 2, "head_dim": 8}
# Config, its values, and whether sequences stay apart in a pack.
MODELS: dict[str, tuple[str, dict[str, Any], bool]] = {
    # In the library's own attention (no other can be set), positions of a pack are counted on: sequences saw each other.
    "bloom": ("BloomConfig", SMALL | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, False),
    # Its convolutions reach from one sequence into the next.
    "lfm2": ("Lfm2Config", LAYERS | {"layer_types": ["conv", "full_attention"]}, False),
    # Its attention has a further column, which the library puts beside the wrong keys of a pack.
    "gpt_oss": ("GptOssConfig", EXPERTS | {"num_local_experts": 4, "sliding_window": 8}, False),
    # Attention within chunks, which are no windows by name.
    "llama4_text": (
        "Llama4TextConfig",
        EXPERTS | {"intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 8},
        True,
    ),
    # Does not hand on where sequences end; its own attention goes by positions.
    "stablelm": ("StableLmConfig", LAYERS, True),
    # Positions are learnt.
    "gpt2": (
        "GPT2Config",
        SMALL
        | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
        | {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0},
        True,
    ),
    # Its logits are capped, which small ones do not show.
    "gemma2": ("Gemma2Config", LAYERS | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}, True),
    "mixtral": ("MixtralConfig", LAYERS | {"num_local_experts": 4, "sliding_window": None}, True),
}


def model_of(name: str) -> Any:
    import transformers

    torch.manual_seed(0)
    config, values, _ = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**values)).float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:  # so that attention is not flat
                weight.mul_(3)
    return model.train()


def examples_of(lengths: tuple[int, ...] = (2, 17, 64, 65, 3, 40)) -> list[Example]:
    draw = random.Random(3)
    rows = [[draw.randrange(3, 96) for _ in range(length)] for length in lengths]
    return [Example(ids, [IGNORED] * (len(ids) // 3) + ids[len(ids) // 3 :]) for ids in rows]


def plain_loss(model: Any, examples: list[Example]) -> Any:
    """Of single rows, by the library alone."""
    parts = []
    for example in examples:
        logits = model(input_ids=torch.tensor([example.ids]), use_cache=False).logits[0, :-1].float()
        wanted = torch.tensor(example.labels[1:])
        parts.append(torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum"))
    return torch.stack(parts).sum()


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_gets_the_loss_and_gradients_of_single_rows(name: str) -> None:
    """Some took sequences of a pack for one, without a word: their losses were up to 1 % another, gradients anything."""
    model, examples = model_of(name), examples_of()
    other = copy.deepcopy(model)
    expected = plain_loss(other, examples)
    expected.backward()
    apart = packing.use_packed_attention(model)
    assert apart == MODELS[name][2]
    scored, total = losses.Scored(model), 0.0
    for group in packing.pack(examples, 120 if apart else 1):
        loss = scored(packing.collate(group))
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(expected.item(), rel=1e-5)
    slopes = [one.grad for one in other.parameters()]
    largest = max(slope.norm() for slope in slopes if slope is not None)
    for slope, (label, weight) in zip(slopes, model.named_parameters(), strict=True):
        if slope is not None and slope.norm() > 1e-6 * largest:
            assert (slope - weight.grad).norm() <= 2e-5 * slope.norm(), label


def test_a_model_whose_logits_are_capped_takes_the_librarys_way() -> None:
    """A cap at 30 was not seen where the logits that it was tried on were small, and was left out of the loss then."""
    assert not losses.is_plain(model_of("gemma2"))
    assert losses.is_plain(model_of("mixtral"))


def test_a_run_of_a_model_that_mixes_sequences_takes_each_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The loss of the first update, before any weight has changed."""
    model, examples = model_of("bloom"), examples_of()
    targets = sum(label != IGNORED for example in examples for label in example.labels[1:])
    expected = plain_loss(model, examples).item() / targets
    settings = recipe.Optimisation(precision="float32", pack_tokens=512)
    _, history = training.train(model, [examples], settings, "finetune test")
    assert history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert "bloom does not keep sequences of a pack apart: each is taken alone" in capsys.readouterr().err


@pytest.mark.parametrize("world", [2, 8, 16])
def test_processes_have_as_much_to_do_as_each_other(world: int) -> None:
    """128 rows of STAR-1's lengths fill 8 packs: of 16 processes 8 had nothing to do, and with 2 one waited for the other."""
    draw = random.Random(1)
    lengths = [int(draw.lognormvariate(6.1, 0.38)) for _ in range(128)]
    examples = [Example([number] * length, [number] * length) for number, length in enumerate(lengths)]
    packs = packing.deal(examples, 8192, world)
    sizes = [sum(len(example.ids) for example in group) for group in packs]
    assert len(packs) % world == 0
    assert sorted(example.ids[0] for group in packs for example in group) == [*range(128)]
    rounds = [max(sizes[start : start + world]) for start in range(0, len(sizes), world)]
    assert max(sizes) <= 8192
    assert sum(lengths) > 0.95 * world * sum(rounds)


def test_one_process_and_crowded_packs_are_packed_as_ever() -> None:
    """Where packs as long as each other would be longer than a pack may be, they are not made."""
    examples = [Example([1] * length, [1] * length) for length in (50, 50, 33, 33, 33)]
    assert packing.deal(examples, 100, 1) == packing.pack(examples, 100)
    crowded = [sorted(len(one.ids) for one in group) for group in packing.deal(examples, 100, 2)]
    assert crowded == [[50, 50], [33, 33, 33]]


def test_norms_that_are_not_called_so_do_not_decay() -> None:
    """`ln_1`, `ln_2` and `ln_f` are norms by their kind alone, and decayed."""
    model = model_of("gpt2")
    decayed, plain = (group["params"] for group in training.make_optimizer(model, recipe.Optimisation()).param_groups)
    assert all(weight.ndim == 2 for weight in decayed)
    assert all(weight.ndim == 1 for weight in plain)
    assert len(decayed) + len(plain) == len([*model.parameters()])


@pytest.mark.parametrize(("name", "apart"), [("bloom", False), ("lfm2", False), ("mixtral", True), ("stablelm", True)])
def test_sequences_that_mix_are_seen_in_bfloat16_too(name: str, apart: bool) -> None:
    """As beside adapters: what one sequence does to the next was less than what rounding does to it."""
    import transformers

    torch.manual_seed(0)
    config, values, _ = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**values)).to(torch.bfloat16)
    assert packing.use_packed_attention(model) == apart
