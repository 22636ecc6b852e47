"""Engines: what is asked, what comes back, and that no row is generated twice."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from star1 import chat, checkpoints, decoding, engine_transformers, engines
from star1.errors import InputError, SettingError
from star1.records import write_json
from tests.micro import checkpoint, counting_loads

torch = pytest.importorskip("torch")
QUESTIONS = ["What is tea?", "How do I bake bread at home?", "Tell me about bees and about the moon.", "Why?", "Tea?"]
SAMPLING = {"max_tokens": 12, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("models") / "micro")


@pytest.fixture(scope="module")
def model(folder: Path) -> decoding.Model:
    return engines.open_model("micro", folder / "manifest.json", "transformers")


def requests(
    model: decoding.Model, questions: Sequence[str] = QUESTIONS, engine: str = "transformers", **sampling: Any
) -> list[decoding.Request]:
    chosen = decoding.sampling_from({**SAMPLING, **sampling})
    return [one for question in questions for one in engines.requests_for(model, engine, question, chosen)]


def outputs(model: decoding.Model, work: Path, questions: Sequence[str] = QUESTIONS, **sampling: Any) -> list[Any]:
    return engines.generate(model, "transformers", requests(model, questions, **sampling), {}, work)


def texts(model: decoding.Model, work: Path, questions: Sequence[str] = QUESTIONS, **sampling: Any) -> list[str]:
    return [output.text for output in outputs(model, work, questions, **sampling)]


# ---------------------------------------------------------------- transformers


def test_batches_with_padding_equal_one_prompt_at_a_time(model: decoding.Model, tmp_path: Path) -> None:
    expected = texts(model, tmp_path / "one", batch_size=1, repetition_penalty=1.2)
    assert texts(model, tmp_path / "all", batch_size=5, repetition_penalty=1.2) == expected
    assert all(text.startswith("<think>\n") for text in expected)
    assert len(set(expected)) > 1


def test_greedy_equals_the_argmax_of_the_model(model: decoding.Model, tmp_path: Path) -> None:
    network = checkpoints.load_model(model.folder or "", torch.float32)
    ids = chat.prompt_ids(model.tokenizer, QUESTIONS[0])
    prompt = len(ids)
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == model.tokenizer.eos_token_id:
                break
    expected = "<think>\n" + model.tokenizer.decode(ids[prompt:], skip_special_tokens=True)
    (output,) = outputs(model, tmp_path / "w", QUESTIONS[:1])
    assert output.text == expected
    assert output.prompt_tokens == prompt
    assert output.completion_tokens == len(ids) - prompt


def test_draws_repeat_with_their_seed_whatever_stands_beside_them(model: decoding.Model, tmp_path: Path) -> None:
    """One generator drew for a whole batch: a row's tokens hung on the rows beside it, and on what a kill had left."""
    hot: dict[str, Any] = {"temperature": 1.5, "seed": 1, "batch_size": 5}
    first = texts(model, tmp_path / "a", **hot)
    assert first == texts(model, tmp_path / "b", **hot)
    assert first == texts(model, tmp_path / "c", **hot | {"batch_size": 1})
    assert first[::-2] == texts(model, tmp_path / "d", QUESTIONS[::-2], **hot)
    assert first != texts(model, tmp_path / "e", **hot | {"seed": 2})
    assert first != texts(model, tmp_path / "f")


def test_samples_are_draws_of_their_own_by_row_and_then_by_sample(model: decoding.Model, tmp_path: Path) -> None:
    three = texts(model, tmp_path / "a", temperature=1.5, samples=3)
    assert len(set(three)) == len(three) == 3 * len(QUESTIONS)
    assert three[::3] == texts(model, tmp_path / "b", temperature=1.5)


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.4, 0.3, 0.2, 0.1]),
        (0.5, 1.0, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (1.0, 0.65, [4 / 7, 3 / 7, 0, 0]),
        (1.0, 0.75, [4 / 9, 3 / 9, 2 / 9, 0]),
        (1.0, 0.1, [1, 0, 0, 0]),
    ],
)
def test_draws_have_the_shares_that_temperature_and_top_p_leave(
    temperature: float, top_p: float, expected: list[float]
) -> None:
    rows = 8000
    draws = engine_transformers.Draws(decoding.Sampling(temperature=temperature, top_p=top_p), range(rows))
    scores = torch.tensor([0.2, 0.4, 0.1, 0.3]).log().repeat(rows, 1)
    drawn = draws(None, scores)
    assert (drawn.isfinite().sum(-1) == 1).all()
    found = drawn.argmax(-1).bincount(minlength=4).double() / rows
    wanted = torch.tensor([expected[place] for place in (2, 0, 3, 1)], dtype=torch.float64)
    assert torch.allclose(found, wanted, atol=4 * (0.25 / rows) ** 0.5)
    assert (found[wanted == 0] == 0).all()


def test_batches_are_of_one_sampling_and_made_over_all_requests() -> None:
    """Benchmarks of one load have limits of their own; a batch has one."""
    short, long = decoding.Sampling(max_tokens=5, batch_size=2), decoding.Sampling(max_tokens=9, batch_size=2)
    asked = [
        decoding.Request("", [0] * length, how)
        for length, how in ((3, short), (1, long), (1, short), (2, short), (4, long), (2, long))
    ]
    assert engine_transformers.batches(asked) == [[2, 3], [0], [1, 5], [4]]


def test_each_request_gets_its_own_limit_with_one_load(
    model: decoding.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = counting_loads(monkeypatch)
    asked = [*requests(model, QUESTIONS[:2], max_tokens=3), *requests(model, QUESTIONS[:3], max_tokens=6)]
    found = engines.generate(model, "transformers", asked, {}, tmp_path / "w")
    cut = [one.completion_tokens for one in found if one.finish_reason == "length"]
    assert set(cut) == {3, 6}
    assert all(one.completion_tokens <= request.sampling.max_tokens for request, one in zip(asked, found, strict=True))
    assert len(loads) == 1


def test_end_token_stops_an_output(model: decoding.Model) -> None:
    class Network:
        device = "cpu"

        def generate(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
            # On the left, masked, and of a token that the row has anyway: the repetition penalty sees padding too.
            assert input_ids.tolist() == [[3, 2], [3, 3]]
            assert attention_mask.tolist() == [[1, 1], [0, 1]]
            end = model.tokenizer.eos_token_id
            return torch.cat([input_ids, torch.tensor([[7, end, 8], [7, 8, 9]])], dim=1)

    config = SimpleNamespace(eos_token_id=[model.tokenizer.eos_token_id])
    asked = [decoding.Request("", ids, decoding.Sampling()) for ids in ([3, 2], [3])]
    ended, cut = engine_transformers.run_batch(model, Network(), config, asked)
    assert (ended.finish_reason, ended.completion_tokens, ended.prompt_tokens) == ("stop", 2, 2)
    assert (cut.finish_reason, cut.completion_tokens, cut.prompt_tokens) == ("length", 3, 1)
    assert ended.text == "<think>\n" + model.tokenizer.decode([7])


def test_all_end_tokens_of_tokenizer_and_checkpoint_end_an_output(model: decoding.Model) -> None:
    """Llama's checkpoints name several; the tokenizer knows one."""
    end = model.tokenizer.eos_token_id
    for named, expected in ((None, [end]), (end, [end]), (9, [end, 9]), ([9, 5], [end, 5, 9])):
        network = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
        assert engine_transformers.end_tokens(network, model.tokenizer) == expected


def test_decoding_defaults_of_a_checkpoint_or_the_library_do_not_leak_in(folder: Path, tmp_path: Path) -> None:
    """What the settings do not say is off: not the checkpoint's own defaults, and not the library's 50 best tokens."""
    expected = texts(engines.open_model("micro", folder / "manifest.json", "transformers"), tmp_path / "a")
    shutil.copytree(folder, tmp_path / "staging")
    (tmp_path / "staging" / "manifest.json").unlink()
    defaults = {"no_repeat_ngram_size": 1, "do_sample": True, "temperature": 9.0, "eos_token_id": 1}
    write_json(tmp_path / "staging" / "generation_config.json", defaults)
    checkpoints.publish(tmp_path / "staging", tmp_path / "other", "sft", {})
    other = engines.open_model("micro", tmp_path / "other" / "manifest.json", "transformers")
    assert texts(other, tmp_path / "b") == expected
    config = engine_transformers.decoding_config(
        other, engine_transformers.load(other, None), decoding.sampling_from({"temperature": 0.6, "top_p": 0.95})
    )
    assert (config.do_sample, config.top_k, config.no_repeat_ngram_size) == (False, None, None)


def test_a_prompt_that_leaves_no_room_is_an_error(model: decoding.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 256 tokens"):
        texts(model, tmp_path / "w", max_tokens=250)


def test_a_batch_that_does_not_fit_is_one_line(
    model: decoding.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_batch(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine_transformers, "run_batch", run_batch)
    with pytest.raises(SettingError, match=r"batch_size: 2: no memory for 2 prompts at once.*lower batch_size"):
        outputs(model, tmp_path / "w", ["Why?", "Tea?"])


# ---------------------------------------------------------------- memory


class KilledError(Exception):
    """Stands for a kill."""


def counting(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[list[int]]:
    """Record the prompts of every batch that is really generated; stop before batch `stop_after`."""
    real = engine_transformers.run_batch
    seen: list[list[int]] = []

    def run_batch(model: Any, network: Any, config: Any, asked: list[decoding.Request]) -> list[decoding.Output]:
        if len(seen) == stop_after:
            raise KilledError
        seen.append([len(request.ids or ()) for request in asked])
        return real(model, network, config, asked)

    monkeypatch.setattr(engine_transformers, "run_batch", run_batch)
    return seen


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_killed_job_goes_on_without_doing_a_row_twice(
    model: decoding.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    whole = texts(model, tmp_path / "whole", temperature=temperature)
    with monkeypatch.context() as patch:
        counting(patch, stop_after=2)
        with pytest.raises(KilledError):
            texts(model, tmp_path / "work", temperature=temperature)
    assert len(engines.remembered(tmp_path / "work")) == 4
    with (tmp_path / "work").open("ab") as file:
        file.write(b'{"key":"cut o')  # a kill in the middle of a line
    seen = counting(monkeypatch)
    assert texts(model, tmp_path / "work", temperature=temperature) == whole
    assert [len(batch) for batch in seen] == [1]
    assert texts(model, tmp_path / "work", temperature=temperature) == whole
    assert len(seen) == 1


def test_other_settings_or_weights_are_not_taken_from_memory(
    model: decoding.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(model, tmp_path / "w")
    seen = counting(monkeypatch)
    texts(model, tmp_path / "w", repetition_penalty=1.3)
    assert len(seen) == 3
    texts(decoding.Model(model.name, model.folder, model.tokenizer, "other digest"), tmp_path / "w")
    assert len(seen) == 6


def test_equal_prompts_are_generated_once(
    model: decoding.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counting(monkeypatch)
    first, second, other = texts(model, tmp_path / "w", ["Tea?", "Tea?", "Why?"])
    assert first == second
    assert [len(batch) for batch in seen] == [2]
    assert other


def test_one_more_sample_leaves_the_others_in_memory(
    model: decoding.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = texts(model, tmp_path / "w", temperature=1.5, samples=2)
    seen = counting(monkeypatch)
    three = texts(model, tmp_path / "w", temperature=1.5, samples=3, batch_size=2)
    assert [text for at, text in enumerate(three) if at % 3 < 2] == two
    written = (tmp_path / "w").read_bytes().split()
    assert len([line for line in written if b'"key"' in line]) == len(engines.remembered(tmp_path / "w")) == 15
    assert seen


def test_an_option_that_only_says_how_a_server_is_reached_does_not_count(model: decoding.Model) -> None:
    (asked,) = requests(model, QUESTIONS[:1], "openai")
    key = engines.key_of(model, "openai", asked, {"served_model": "a"})
    other = {"served_model": "a", "concurrency": 3, "base_url": "http://127.0.0.1:1/v1", "key_variable": "X"}
    assert engines.key_of(model, "openai", asked, other) == key
    assert engines.key_of(model, "openai", asked, {"served_model": "b"}) != key


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "values",
    [
        {"temp": 1},
        {"temperature": -1},
        {"top_p": 0},
        {"max_tokens": 0},
        {"batch_size": 0},
        {"samples": 0},
        {"repetition_penalty": 0},
        {"samples": 2},  # greedy twice is the same twice
    ],
)
def test_sampling_that_cannot_be_meant(values: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="sampling"):
        decoding.sampling_from(values)


def test_sampling_of_a_benchmark_a_model_and_both() -> None:
    of: dict[str, dict[str, Any]] = {
        "gpqa": {"max_tokens": 2, "seed": 2},
        "small": {"max_tokens": 3, "top_p": 0.3},
        "small/gpqa": {"max_tokens": 4},
        "other": {"max_tokens": 9},
    }
    found = decoding.sampling_for("small", "gpqa", {"max_tokens": 1, "batch_size": 7}, of)
    assert found == decoding.Sampling(max_tokens=4, seed=2, top_p=0.3, batch_size=7)
    assert decoding.sampling_for("big", "gpqa", {}, of).max_tokens == 2
    assert decoding.sampling_for("small", "aime24", {}, of).max_tokens == 3
    stars: dict[str, dict[str, Any]] = {
        "*/gpqa": {"max_tokens": 6},
        "sm*": {"max_tokens": 7, "seed": 7},
        "aime*": {"max_tokens": 8},
    }
    assert decoding.sampling_for("small", "gpqa", {}, stars) == decoding.Sampling(max_tokens=6, seed=7)
    assert decoding.sampling_for("small", "aime24", {}, stars).max_tokens == 7
    assert decoding.sampling_for("big", "aime24", {}, stars) == decoding.Sampling(max_tokens=8)
    with pytest.raises(SettingError, match="sampling of small on gpqa: 2 samples at temperature 0"):
        decoding.sampling_for("small", "gpqa", {"samples": 2}, of)


def test_unknown_engine_and_missing_checkpoint(model: decoding.Model, tmp_path: Path) -> None:
    asked = requests(model)
    with pytest.raises(SettingError, match="one of transformers, vllm, openai"):
        engines.generate(model, "magic", asked, {}, tmp_path / "w")
    with pytest.raises(SettingError, match="no checkpoint"):
        engines.open_model("x", None, "vllm")
    with pytest.raises(SettingError, match="unknown name 'batch'"):
        engines.generate(model, "transformers", asked, {"batch": 2}, tmp_path / "w")
    with pytest.raises(SettingError, match="'fp16'; expected bf16 or float32"):  # was a KeyError
        engines.generate(model, "transformers", asked, {"precision": "fp16"}, tmp_path / "w")
