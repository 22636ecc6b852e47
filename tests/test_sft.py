"""Fine-tuning: what is learnt, what is masked, that packing changes nothing, and that runs repeat."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import orjson
import pytest

from star1 import chat, sft
from star1.errors import InputError, SettingError
from star1.records import read_json, write_rows
from tests.loopback import run_script
from tests.micro import (
    ROWS,
    SETTINGS,
    checkpoint,
    fresh_accelerate,
    small_settings,
    tokenizer_and_model,
    weights_digest,
)

torch = pytest.importorskip("torch")
ROW = {"question": "What is tea?", "response": "<think>\nIt is a drink.\n</think>\n\nA drink."}


@pytest.fixture(scope="module")
def micro() -> tuple[Any, Any]:
    return tokenizer_and_model()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "micro")


def decoded(tokenizer: Any, row: dict[str, str], **changes: Any) -> tuple[str, str]:
    """Masked and learnt part of a row, as text."""
    example = sft.render(tokenizer, row, small_settings(**changes))
    assert isinstance(example, sft.Example)
    assert len(example.ids) == len(example.labels)
    assert all(label in (sft.IGNORED, token) for token, label in zip(example.ids, example.labels, strict=True))
    masked = [token for token, label in zip(example.ids, example.labels, strict=True) if label == sft.IGNORED]
    learnt = [label for label in example.labels if label != sft.IGNORED]
    return tokenizer.decode(masked), tokenizer.decode(learnt)


# ---------------------------------------------------------------- rendering


def test_prompt_is_masked_and_thinking_answer_and_end_are_learnt(micro: tuple[Any, Any]) -> None:
    assert decoded(micro[0], ROW) == (
        "<|start|><|user|>What is tea?<|assistant|><think>\n",
        "It is a drink.\n</think>\n\nA drink.<|end|>",
    )


def test_without_thinking_the_block_is_empty(micro: tuple[Any, Any]) -> None:
    assert decoded(micro[0], ROW, think=False)[1] == "\n</think>\n\nA drink.<|end|>"


def test_a_model_without_thinking_gets_the_answer_alone_or_the_whole_block(micro: tuple[Any, Any]) -> None:
    plain = copy.deepcopy(micro[0])
    plain.chat_template = "{{ bos_token }}<|user|>{{ messages[0]['content'] }}<|assistant|>"
    assert decoded(plain, ROW, think=False)[1] == "A drink.<|end|>"
    assert decoded(plain, ROW)[1] == "<think>\nIt is a drink.\n</think>\n\nA drink.<|end|>"


def test_training_continues_the_prompt_that_generation_sees(micro: tuple[Any, Any]) -> None:
    for row in ROWS:
        example = sft.render(micro[0], row, small_settings())
        assert isinstance(example, sft.Example)
        prompt = chat.prompt_ids(micro[0], row["question"])
        assert example.ids[: len(prompt)] == prompt
        assert example.labels[len(prompt)] != sft.IGNORED
        assert example.ids.count(micro[0].bos_token_id) == 1


def test_long_and_broken_rows_are_dropped_with_a_count_and_never_cut(micro: tuple[Any, Any]) -> None:
    rows = [
        ROW,
        ROW | {"question": "tea " * 300},
        ROW | {"response": "<think>\nno end"},
        ROW | {"response": "Well. <think>\nno end"},
        ROW | {"response": "<think>\n\n</think>\n\nno thinking"},
        ROW | {"response": "<think>\nno answer\n</think>\n\n"},
    ]
    examples, dropped = sft.render_all(micro[0], rows, small_settings())
    assert len(examples) == 1
    assert dropped == {"longer than 256 tokens": 1, "no complete think block and answer": 4}
    with pytest.raises(InputError, match="5 rows, none usable"):
        sft.render_all(micro[0], rows[1:], small_settings())


@pytest.mark.parametrize(("name", "value"), [("response", None), ("question", 5), ("response", ["text"])])
def test_a_row_whose_question_or_response_is_no_text_is_named(tmp_path: Path, name: str, value: Any) -> None:
    """It ended with a traceback from deep within a library."""
    write_rows(tmp_path / "rows.jsonl", [ROW, ROW | {name: value}])
    with pytest.raises(InputError, match=rf"rows.jsonl: row 2: {name} .*; expected text"):
        sft.read_data([str(tmp_path / "rows.jsonl")])


def test_thinking_without_an_end_is_no_answer_to_learn(micro: tuple[Any, Any]) -> None:
    """Without thinking, the row `Well. <think> no end` was learnt as if all of it were the answer."""
    settings = small_settings(think=False)
    for response in ("<think>\nno end", "Well. <think>\nno end"):
        found = sft.render(micro[0], ROW | {"response": response}, settings)
        assert found == "no complete think block and answer"


# ---------------------------------------------------------------- order and packing


def test_plan_sees_every_row_each_epoch_and_straddles_epochs() -> None:
    updates = sft.plan(10, small_settings(epochs=3, batch_size=4))
    flat = [number for update in updates for number in update]
    assert [len(update) for update in updates] == [4] * 7  # 30 samples: the last 2 are left out
    assert sorted(flat[:10]) == sorted(flat[10:20]) == list(range(10))
    assert flat[:10] != flat[10:20]
    kept = sft.plan(10, small_settings(epochs=3, batch_size=4, drop_last=False))
    assert kept[:7] == updates
    assert len(kept[7]) == 2


def test_plan_of_the_published_run_has_39_updates() -> None:
    assert len(sft.plan(1000, sft.Settings())) == 39


def test_a_batch_larger_than_the_data_is_an_error() -> None:
    with pytest.raises(SettingError, match="lower batch_size"):
        sft.plan(3, small_settings(epochs=1, batch_size=4))
    assert sft.plan(3, small_settings(epochs=1, batch_size=4, drop_last=False)) != []


def test_pack_keeps_every_sequence_and_the_capacity() -> None:
    examples = [sft.Example([number] * size, [number] * size) for number, size in enumerate((5, 9, 1, 30, 4, 6))]
    packs = sft.pack(examples, 10)
    assert sorted(example.ids[0] for group in packs for example in group) == list(range(6))
    assert [sum(len(example.ids) for example in group) for group in packs] == [30, 10, 10, 5]


def gradients(model: Any, groups: list[list[sft.Example]]) -> tuple[float, list[Any]]:
    model.zero_grad()
    loss = torch.stack([sft.loss_sum(model, group) for group in groups]).sum()
    loss.backward()
    return float(loss.detach()), [parameter.grad.clone() for parameter in model.parameters()]


def test_packed_loss_and_gradients_equal_unpacked_ones(micro: tuple[Any, Any]) -> None:
    """In float32, for our attention and for the library's, against one sequence at a time."""
    tokenizer, model = micro[0], copy.deepcopy(micro[1])
    examples, _ = sft.render_all(tokenizer, ROWS, small_settings())
    model.set_attn_implementation("eager")
    expected, slopes = gradients(model, [[example] for example in examples])
    assert expected > 0
    for implementation in ("sdpa", sft.PACKED):
        if implementation == sft.PACKED:
            sft.use_packed_attention(model)
            assert model.config._attn_implementation == sft.PACKED
        else:
            model.set_attn_implementation(implementation)
        loss, found = gradients(model, sft.pack(examples, 400))
        assert loss == pytest.approx(expected, rel=1e-5)
        for slope, other in zip(slopes, found, strict=True):
            torch.testing.assert_close(other, slope, rtol=1e-3, atol=1e-4)


def test_the_start_of_a_sequence_is_no_target_of_the_one_before(micro: tuple[Any, Any]) -> None:
    """Where every token is learnt, as in pre-training, the first one of a sequence has nothing to be predicted from."""
    rendered, _ = sft.render_all(micro[0], ROWS[:3], small_settings())
    examples = [sft.Example(example.ids, example.ids) for example in rendered]
    assert sft.target_count(examples) == sum(len(example.ids) - 1 for example in examples)
    with torch.no_grad():
        apart = sum(sft.loss_sum(micro[1], [example]).item() for example in examples)
        logits = micro[1](input_ids=torch.tensor([examples[0].ids])).logits[0, :-1]
        first = torch.nn.functional.cross_entropy(logits, torch.tensor(examples[0].ids[1:]), reduction="sum").item()
        assert sft.loss_sum(micro[1], examples).item() == pytest.approx(apart, rel=1e-5)
        assert sft.loss_sum(micro[1], examples[:1]).item() == pytest.approx(first, rel=1e-5)


def test_loss_equals_a_plain_computation_from_all_logits(micro: tuple[Any, Any]) -> None:
    """Guards the shift by one and the mask against the textbook form."""
    tokenizer, model = micro
    example = sft.render(tokenizer, ROW, small_settings())
    assert isinstance(example, sft.Example)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1].log_softmax(-1)
        expected = -sum(logits[at, label].item() for at, label in enumerate(example.labels[1:]) if label != sft.IGNORED)
        assert sft.loss_sum(model, [example]).item() == pytest.approx(expected, rel=1e-5)
    assert sft.target_count([example]) == len([label for label in example.labels if label != sft.IGNORED])


def test_every_process_gets_as_many_packs() -> None:
    packs = [[sft.Example([number], [number])] for number in range(5)]
    parts = [list(sft.shares(packs, rank, 2)) for rank in range(2)]
    assert [[(group[0].ids[0], weight) for group, weight in part] for part in parts] == [
        [(0, 1.0), (2, 1.0), (4, 1.0)],
        [(1, 1.0), (3, 1.0), (0, 0.0)],
    ]


# ---------------------------------------------------------------- optimisation


def test_rate_rises_then_falls_to_almost_nothing() -> None:
    settings = sft.Optimisation(learning_rate=1.0, warmup=0.1)
    rates = [sft.rate_at(update, 40, settings) for update in range(40)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[22] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 35 / 36)))  # the next one would be 0
    constant = dataclasses.replace(settings, schedule="constant")
    assert sft.rate_at(39, 40, constant) == 1.0


def test_norms_and_biases_do_not_decay(micro: tuple[Any, Any]) -> None:
    decayed, plain = sft.make_optimizer(micro[1], sft.Optimisation(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {parameter.ndim for parameter in plain["params"]} == {1}
    assert {parameter.ndim for parameter in decayed["params"]} == {2}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(micro[1].parameters()))


def test_training_is_the_textbook_loop(micro: tuple[Any, Any]) -> None:
    """Rate, accumulation, zeroing, clipping and AdamW, against the same written out with one row at a time."""
    examples, _ = sft.render_all(micro[0], ROWS, small_settings())
    updates = [examples[:5], examples[5:6], examples[6:], examples[:3], examples[3:9]]
    settings = small_settings(warmup=0.4, weight_decay=0.3, pack_tokens=200)
    fresh_accelerate()
    _, history = sft.train(copy.deepcopy(micro[1]), updates, settings, "test")
    model = copy.deepcopy(micro[1])
    decays = [
        {"params": [one for one in model.parameters() if (one.ndim == 2) == matrices], "weight_decay": 0.3 * matrices}
        for matrices in (True, False)
    ]
    optimizer = torch.optim.AdamW(decays, betas=(0.9, 0.95))
    expected = []
    for rows, rate in zip(updates, (1 / 3, 2 / 3, 1, 0.75, 0.25), strict=True):
        optimizer.zero_grad()
        losses, count = [], 0
        for example in rows:
            labels = torch.tensor(example.labels[1:])
            logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits, labels, ignore_index=sft.IGNORED, reduction="sum"))
            count += int((labels != sft.IGNORED).sum())
        loss = torch.stack(losses).sum() / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate
        optimizer.step()
        expected.append(loss.item())
    assert [entry["loss"] for entry in history] == pytest.approx(expected, rel=1e-4)
    assert [entry["rate"] for entry in history] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2, 0.75e-2, 0.25e-2])


def test_pack_size_does_not_change_what_is_learnt(micro: tuple[Any, Any]) -> None:
    examples, _ = sft.render_all(micro[0], ROWS, small_settings())
    ends = []
    for capacity in (1, 4096):
        fresh_accelerate()
        model = copy.deepcopy(micro[1])
        _, history = sft.train(model, [examples] * 3, small_settings(pack_tokens=capacity), "test")
        ends.append([entry["loss"] for entry in history])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)
    assert ends[0][-1] < ends[0][0]


def test_bf16_and_gradient_checkpointing_stay_close_to_float32(micro: tuple[Any, Any]) -> None:
    examples, _ = sft.render_all(micro[0], ROWS, small_settings())
    losses = []
    for changes in ({}, {"gradient_checkpointing": True}, {"precision": "bf16"}):
        fresh_accelerate()
        _, history = sft.train(copy.deepcopy(micro[1]), [examples] * 2, small_settings(**changes), "test")
        losses.append([entry["loss"] for entry in history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=2e-2)
    assert losses[2] != losses[0]


def test_a_loss_that_is_no_number_ends_the_run(micro: tuple[Any, Any]) -> None:
    fresh_accelerate()
    model = copy.deepcopy(micro[1])
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    examples, _ = sft.render_all(micro[0], ROWS, small_settings())
    told = (
        r"update 1 of 1: loss nan, norm .* expected a finite loss and norm. Hint: lower learning_rate$"  # a norm is set
    )
    with pytest.raises(sft.TrainingError, match=told):
        sft.train(model, [examples], small_settings(), "test")


def test_gradients_that_are_no_numbers_end_the_run_though_the_loss_is_finite(micro: tuple[Any, Any]) -> None:
    """After the last update nothing looked at the weights again: a checkpoint full of NaN was published."""
    examples, _ = sft.render_all(micro[0], ROWS, small_settings())
    for limit in (1.0, 0.0):
        fresh_accelerate()
        model = copy.deepcopy(micro[1])
        model.model.norm.weight.register_hook(lambda slope: slope * math.inf)
        with pytest.raises(sft.TrainingError, match=r"update 1 of 1: loss \d.*, norm of the gradients (nan|inf)"):
            sft.train(model, [examples], small_settings(gradient_norm=limit), "test")


def test_gradients_are_scaled_down_to_their_norm_and_only_then(micro: tuple[Any, Any]) -> None:
    """A limit above the norm changes nothing, none at all changes nothing, one below does."""
    examples, _ = sft.render_all(micro[0], ROWS, small_settings())
    weights = []
    for limit in (0.0, 1e6, 1e-9):
        fresh_accelerate()
        model = copy.deepcopy(micro[1])
        sft.train(model, [examples], small_settings(gradient_norm=limit, weight_decay=0.0), "test")
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# ---------------------------------------------------------------- the stage


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    return tmp_path / "rows.jsonl"


def finetune(base: Path, data: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Run the script; gives the manifest."""
    fresh_accelerate()
    settings = dataclasses.asdict(small_settings())
    del settings["seed"], settings["think"]
    run_script(
        "finetune",
        *("--run", folder.name, "--base", str(base / "manifest.json"), "--data", str(data)),
        *("--settings", orjson.dumps(settings).decode()),
        *("--choices", orjson.dumps({"base": "micro", "data": ["rows"], "think": True, "seed": 1, **changes}).decode()),
        *("--output", str(folder / "manifest.json"), "--metrics", str(folder.parent / f"{folder.name}.metrics.json")),
    )
    return dict(read_json(folder / "manifest.json"))


def test_equal_runs_write_equal_checkpoints_and_the_original_template(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = finetune(base, data, tmp_path / "a")
    assert "finetune a: 12 rows used, 6 updates, loss" in capsys.readouterr().out
    finetune(base, data, tmp_path / "b")
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    for name in ("chat_template.jinja", "tokenizer.json"):
        assert (tmp_path / "a" / name).read_bytes() == (base / name).read_bytes()
    assert weights_digest(tmp_path / "a") != weights_digest(base)
    record = manifest["record"]
    assert record["rows"] == {"used": 12, "dropped": {}}
    assert record["settings"]["seed"] == 1
    assert record["loss"]["last"] < record["loss"]["first"]
    assert str(tmp_path) not in (tmp_path / "a/manifest.json").read_text()
    metrics = read_json(tmp_path / "a.metrics.json")
    assert [entry["update"] for entry in metrics["history"]] == [1, 2, 3, 4, 5, 6]
    assert set(metrics) == {"history"}  # times would make equal runs differ
    finetune(base, data, tmp_path / "c", seed=2)
    assert weights_digest(tmp_path / "c") != weights_digest(tmp_path / "a")
    assert not any((tmp_path / ".work" / "finetune").iterdir())
    assert not any((tmp_path / ".work" / "finetune-states").iterdir())


def test_a_failed_run_leaves_no_manifest(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "bad.jsonl", [{"question": "q", "response": "no block"}])
    with pytest.raises(SystemExit):
        finetune(base, tmp_path / "bad.jsonl", tmp_path / "run")
    assert "error: training rows: 1 rows, none usable" in capsys.readouterr().err
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_damaged_base_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(base, tmp_path / "base")
    weights = bytearray((tmp_path / "base/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "base/model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="SHA-256"):
        sft.finetune(tmp_path / "base", [str(data)], small_settings(), tmp_path / "staging")


def test_a_row_longer_than_the_model_can_read_is_refused(base: Path, tmp_path: Path) -> None:
    """max_tokens above the model's context trained on positions that the model does not have, without a word."""
    write_rows(tmp_path / "rows.jsonl", [ROW | {"question": "tea " * 300}])
    settings = small_settings(max_tokens=4096, batch_size=1)
    with pytest.raises(InputError, match=r"one of \d+ tokens; expected at most 256, the model's context"):
        sft.finetune(base, [str(tmp_path / "rows.jsonl")], settings, tmp_path / "staging")


def test_config_says_which_type_the_saved_weights_have(base: Path, data: Path, tmp_path: Path) -> None:
    """It said float32 beside bfloat16 weights, so that whoever goes by it loads twice the size."""
    from safetensors import safe_open

    fresh_accelerate()
    sft.finetune(base, [str(data)], small_settings(epochs=1), tmp_path / "staging")
    with safe_open(tmp_path / "staging" / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118
    assert read_json(tmp_path / "staging" / "config.json")["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "unknown name 'learning_rat'"),
        ({"epochs": 0}, "epochs: 0; expected a number above 0"),
        ({"precision": "fp8"}, "bf16 or float32"),
        ({"schedule": "linear"}, "cosine or constant"),
    ],
)
def test_settings_that_cannot_be_meant(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        sft.settings_from(values)


def test_micro_settings_are_the_documented_ones() -> None:
    """The settings file and the dataclasses must name the same things."""
    from star1 import params

    fields = {field.name for field in dataclasses.fields(sft.Settings)}
    assert {*params.Training.model_fields} | {"think", "seed"} == fields
    assert {*params.TinyModel.model_fields} - {"kind"} <= {field.name for field in dataclasses.fields(SETTINGS)}
