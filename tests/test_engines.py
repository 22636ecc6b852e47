"""Engines: what is asked, what comes back, and that no row is generated twice."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import orjson
import pytest

from star1 import chat, checkpoints, engines
from star1.errors import CallError, InputError, SettingError
from star1.records import read_rows, write_json, write_rows
from tests.loopback import Answer, completion, run_script, server
from tests.micro import checkpoint

torch = pytest.importorskip("torch")
QUESTIONS = ["What is tea?", "How do I bake bread at home?", "Tell me about bees and about the moon.", "Why?", "Tea?"]
SAMPLING = {"max_tokens": 12, "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("models") / "micro")


@pytest.fixture(scope="module")
def model(folder: Path) -> engines.Model:
    return engines.open_model("micro", folder / "manifest.json", "transformers")


def texts(model: engines.Model, work: Path, questions: Sequence[str] = QUESTIONS, **sampling: Any) -> list[str]:
    chosen = engines.sampling_from({**SAMPLING, **sampling})
    return [output.text for output in engines.generate(model, "transformers", questions, chosen, {}, work)]


# ---------------------------------------------------------------- transformers


def test_batches_with_padding_equal_one_prompt_at_a_time(model: engines.Model, tmp_path: Path) -> None:
    expected = texts(model, tmp_path / "one", batch_size=1, repetition_penalty=1.2)
    assert texts(model, tmp_path / "all", batch_size=5, repetition_penalty=1.2) == expected
    assert all(text.startswith("<think>\n") for text in expected)
    assert len(set(expected)) > 1


def test_greedy_equals_the_argmax_of_the_model(model: engines.Model, tmp_path: Path) -> None:
    network = checkpoints.load_model(model.folder or "", torch.float32)
    ids = chat.prompt_ids(model.tokenizer, QUESTIONS[0])
    prompt = len(ids)
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == model.tokenizer.eos_token_id:
                break
    expected = "<think>\n" + model.tokenizer.decode(ids[prompt:], skip_special_tokens=True)
    (output,) = engines.generate(
        model, "transformers", QUESTIONS[:1], engines.sampling_from(SAMPLING), {}, tmp_path / "w"
    )
    assert output.text == expected
    assert output.prompt_tokens == prompt
    assert output.completion_tokens == len(ids) - prompt


def test_sampling_repeats_with_its_seed(model: engines.Model, tmp_path: Path) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "seed": 1}
    first = texts(model, tmp_path / "a", **hot)
    assert first == texts(model, tmp_path / "b", **hot)
    assert first != texts(model, tmp_path / "c", **hot | {"seed": 2})
    assert first != texts(model, tmp_path / "d")


def test_end_token_stops_an_output(model: engines.Model) -> None:
    class Network:
        device = "cpu"

        def generate(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
            # On the left, masked, and of a token that the row has anyway: the repetition penalty sees padding too.
            assert input_ids.tolist() == [[3, 2], [3, 3]]
            assert attention_mask.tolist() == [[1, 1], [0, 1]]
            end = model.tokenizer.eos_token_id
            return torch.cat([input_ids, torch.tensor([[7, end, 8], [7, 8, 9]])], dim=1)

    config = SimpleNamespace(eos_token_id=[model.tokenizer.eos_token_id])
    ended, cut = engines._run_batch(model, Network(), config, [[3, 2], [3]])
    assert (ended.finish_reason, ended.completion_tokens, ended.prompt_tokens) == ("stop", 2, 2)
    assert (cut.finish_reason, cut.completion_tokens, cut.prompt_tokens) == ("length", 3, 1)
    assert ended.text == "<think>\n" + model.tokenizer.decode([7])


def test_all_end_tokens_of_tokenizer_and_checkpoint_end_an_output(model: engines.Model) -> None:
    """Llama's checkpoints name several; the tokenizer knows one."""
    end = model.tokenizer.eos_token_id
    for named, expected in ((None, [end]), (end, [end]), (9, [end, 9]), ([9, 5], [end, 5, 9])):
        network = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
        assert engines._ends(network, model.tokenizer) == expected


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
    _, config = engines._load(other, engines.sampling_from({"temperature": 0.6, "top_p": 0.95}), None)
    assert (config.do_sample, config.temperature, config.top_p, config.top_k) == (True, 0.6, 0.95, 0)


def test_a_prompt_that_leaves_no_room_is_an_error(model: engines.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 256 tokens"):
        texts(model, tmp_path / "w", max_tokens=250)


# ---------------------------------------------------------------- memory


class KilledError(Exception):
    """Stands for a kill."""


def counting(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[list[int]]:
    """Record the prompts of every batch that is really generated; stop before batch `stop_after`."""
    real = engines._run_batch
    seen: list[list[int]] = []

    def run_batch(model: Any, network: Any, config: Any, prompts: list[list[int]]) -> list[engines.Output]:
        if len(seen) == stop_after:
            raise KilledError
        seen.append([len(prompt) for prompt in prompts])
        return real(model, network, config, prompts)

    monkeypatch.setattr(engines, "_run_batch", run_batch)
    return seen


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_killed_job_goes_on_without_doing_a_row_twice(
    model: engines.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
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
    model: engines.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(model, tmp_path / "w")
    seen = counting(monkeypatch)
    texts(model, tmp_path / "w", repetition_penalty=1.3)
    assert len(seen) == 3
    texts(engines.Model(model.name, model.folder, model.tokenizer, "other digest"), tmp_path / "w")
    assert len(seen) == 6


def test_equal_prompts_are_generated_once(
    model: engines.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counting(monkeypatch)
    first, second, other = texts(model, tmp_path / "w", ["Tea?", "Tea?", "Why?"])
    assert first == second
    assert [len(batch) for batch in seen] == [2]
    assert other


# ---------------------------------------------------------------- the stage


def benchmark(path: Path, name: str, questions: Sequence[str]) -> Path:
    rows = [{"id": str(at), "question": text, "benchmark": name} for at, text in enumerate(questions)]
    write_rows(path, rows)
    return path


def test_script_writes_every_benchmark_and_forgets_its_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one = benchmark(tmp_path / "one.jsonl", "one", QUESTIONS[:3])
    two = benchmark(tmp_path / "two.jsonl", "two", QUESTIONS[2:])
    run_script(
        "generate",
        *("--model", "micro", "--checkpoint", str(folder / "manifest.json"), "--engine", "transformers"),
        *("--benchmarks", f"one={one}:out/one.jsonl", f"two={two}:out/two.jsonl"),
        *("--sampling", orjson.dumps(SAMPLING).decode()),
    )
    rows = read_rows("out/one.jsonl")
    assert [row["question"] for row in rows] == QUESTIONS[:3]
    assert set(rows[0]) == {
        *("id", "benchmark", "question", "response", "thinking", "answer", "finish_reason"),
        *("prompt_tokens", "completion_tokens", "sampling", "model", "engine"),
    }
    assert {(row["model"], row["engine"], row["benchmark"]) for row in rows} == {("micro", "transformers", "one")}
    assert [row["benchmark"] for row in read_rows("out/two.jsonl")] == ["two"] * 3
    for row in rows:
        assert (row["thinking"], row["answer"]) == chat.split_thinking(row["response"], opened=False)
    assert "generate micro: 6 rows" in capsys.readouterr().out
    assert not list((tmp_path / ".work").rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a=x.jsonl:y.jsonl", ("x.jsonl", "y.jsonl")), ("a=x=1.jsonl:y.jsonl", ("x=1.jsonl", "y.jsonl"))],
)
def test_parse_benchmark(text: str, expected: tuple[str, str]) -> None:
    assert engines.parse_benchmark(text) == expected


@pytest.mark.parametrize("text", ["", "a", "a=x", "a=:y", "=x:y"])
def test_parse_benchmark_refuses(text: str) -> None:
    with pytest.raises(SettingError, match="NAME=INPUT:OUTPUT"):
        engines.parse_benchmark(text)


@pytest.mark.parametrize(
    "values", [{"temp": 1}, {"temperature": -1}, {"top_p": 0}, {"max_tokens": 0}, {"batch_size": 0}]
)
def test_sampling_that_cannot_be_meant(values: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="sampling"):
        engines.sampling_from(values)


def test_unknown_engine_and_missing_checkpoint(model: engines.Model, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="one of transformers, vllm, openai"):
        engines.generate(model, "magic", QUESTIONS, engines.Sampling(), {}, tmp_path / "w")
    with pytest.raises(SettingError, match="no checkpoint"):
        engines.open_model("x", None, "vllm")
    with pytest.raises(SettingError, match="unknown name 'batch'"):
        engines.generate(
            model, "transformers", QUESTIONS, engines.sampling_from(SAMPLING), {"batch": 2}, tmp_path / "w"
        )
    with pytest.raises(SettingError, match="'fp16'; expected bf16 or float32"):  # was a KeyError
        engines.generate(
            model, "transformers", QUESTIONS, engines.sampling_from(SAMPLING), {"precision": "fp16"}, tmp_path / "w"
        )


# ---------------------------------------------------------------- servers


def ask(url: str, work: Path, questions: Sequence[str] = QUESTIONS, **options: Any) -> list[engines.Output]:
    model = engines.open_model("served", None, "openai")
    sampling = engines.sampling_from({"max_tokens": 9, "repetition_penalty": 1.2})
    return engines.generate(model, "openai", questions, sampling, {"base_url": url, "retries": 0} | options, work)


def test_openai_asks_with_our_sampling_and_keeps_the_order(tmp_path: Path) -> None:
    def respond(body: dict[str, Any], _: int) -> Answer:
        question = body["messages"][0]["content"]
        return Answer(completion(f"<think>\nt\n</think>\n\nre: {question}"), wait_s=0.05 if "tea" in question else 0)

    with server(respond) as served:
        outputs = ask(served.url, tmp_path / "w", served_model="their-name", concurrency=2)
        again = ask(served.url, tmp_path / "w", served_model="their-name", concurrency=2)
    assert [output.text.rsplit("re: ")[1] for output in outputs] == QUESTIONS
    assert again == outputs
    assert len(served.requests) == len(QUESTIONS)
    assert served.most_at_once == 2
    body = served.requests[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["repetition_penalty"], body["seed"]) == (
        *("their-name", 0.0, 9, 1.2, 46),
    )
    assert (outputs[0].prompt_tokens, outputs[0].completion_tokens) == (1, 1)


def test_openai_puts_a_split_off_thinking_back(tmp_path: Path) -> None:
    replies = {
        "closed": completion("a", reasoning_content="t"),
        "cut": completion(None, "length", reasoning_content="t"),
        "plain": completion("a"),
        "filtered": completion(None, "content_filter"),
    }
    with server(lambda body, _: Answer(replies[body["messages"][0]["content"]])) as served:
        found = ask(served.url, tmp_path / "w", list(replies))
    split = {name: chat.split_thinking(output.text, False) for name, output in zip(replies, found, strict=True)}
    assert split == {"closed": ("t", "a"), "cut": ("t", None), "plain": (None, "a"), "filtered": (None, "")}
    assert [output.finish_reason for output in found] == ["stop", "length", "stop", "content_filter"]


def test_openai_thinking_without_its_opening_tag_is_no_answer(model: engines.Model, tmp_path: Path) -> None:
    """The template writes the tag into the prompt. A server that splits nothing off leaves it out of its reply, and
    thinking that was cut off was handed on as an answer."""
    replies = {
        "cut": completion("I should", "length"),
        "whole": completion("t\n</think>\n\na"),
        "tagged": completion("<think>\nt\n</think>\n\na"),
        "split": completion("a", reasoning_content=""),
    }
    sampling = engines.sampling_from({"max_tokens": 9})
    with server(lambda body, _: Answer(replies[body["messages"][0]["content"]])) as served:
        options = {"base_url": served.url, "retries": 0}
        found = engines.generate(model, "openai", list(replies), sampling, options, tmp_path / "w")
        (unknown,) = ask(served.url, tmp_path / "u", ["whole"])
    split = {name: chat.split_thinking(output.text, False) for name, output in zip(replies, found, strict=True)}
    assert split == {"cut": ("I should", None), "whole": ("t", "a"), "tagged": ("t", "a"), "split": (None, "a")}
    assert found[1].text == found[2].text == unknown.text  # also where no template is at hand to tell


def test_openai_reply_without_choices_is_one_line(tmp_path: Path) -> None:
    """Some servers answer 200 with an error inside; it ended in a traceback."""
    refused = Answer({"error": {"message": "overloaded"}})
    with server(lambda *_: refused) as served, pytest.raises(CallError, match="served: a reply without choices"):
        ask(served.url, tmp_path / "w", QUESTIONS[:2])


def test_openai_failure_is_one_line_without_the_key_and_keeps_finished_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")

    def respond(_: dict[str, Any], place: int) -> Answer:
        refusal = {"error": {"message": "no such key", "code": "invalid_api_key"}}
        return Answer(completion("a")) if place < 2 else Answer(refusal, status=401)

    with server(respond) as served, pytest.raises(CallError, match="status 401: no such key") as caught:
        ask(served.url, tmp_path / "w", key_variable="SECRET_KEY", concurrency=1)
    assert "Hint: set SECRET_KEY" in str(caught.value)
    assert "very-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert served.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert len(engines.remembered(tmp_path / "w")) == 2


def test_no_server_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="Connection error"):
        ask("http://127.0.0.1:9/v1", tmp_path / "w", QUESTIONS[:1])


# ---------------------------------------------------------------- vLLM


def test_missing_vllm_is_told(model: engines.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(SettingError, match=r"engine vllm.*an environment with vLLM"):
        engines.generate(model, "vllm", QUESTIONS, engines.sampling_from(SAMPLING), {}, tmp_path / "w")


def test_vllm_gets_token_ids_and_sampling(
    model: engines.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module in its place: shows what would be asked, not that vLLM understands it."""
    calls: dict[str, Any] = {"chunks": []}

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            calls["llm"] = arguments

        def generate(self, prompts: list[dict[str, Any]], parameters: Any) -> list[Any]:
            calls["chunks"].append([prompt["prompt_token_ids"] for prompt in prompts])
            calls["parameters"] = parameters
            written = SimpleNamespace(token_ids=[7, model.tokenizer.eos_token_id], finish_reason="abort")
            return [
                SimpleNamespace(outputs=[written], prompt_token_ids=prompt["prompt_token_ids"]) for prompt in prompts
            ]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, lambda **named: named  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    options = {"chunk": 3, "llm": {"dtype": "float32", "tensor_parallel_size": 2}}
    outputs = engines.generate(model, "vllm", QUESTIONS, engines.sampling_from(SAMPLING), options, tmp_path / "w")
    assert [len(chunk) for chunk in calls["chunks"]] == [3, 2]
    assert calls["chunks"][0][0] == chat.prompt_ids(model.tokenizer, QUESTIONS[0])
    assert calls["llm"] == {"model": str(model.folder), "dtype": "float32", "seed": 46, "tensor_parallel_size": 2}
    assert "batch_size" not in calls["parameters"]
    assert calls["parameters"]["max_tokens"] == 12
    assert {output.text for output in outputs} == {"<think>\n" + model.tokenizer.decode([7])}
    assert outputs[0].prompt_tokens == len(calls["chunks"][0][0])
    assert outputs[0].finish_reason == "abort"  # was told as "stop", as if the answer were complete
