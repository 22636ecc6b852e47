"""The tiny base model: text, tokenizer, and a pre-training that learns and repeats itself to the byte."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from star1 import bases, chat, checkpoints, sft, tiny
from star1.dialogues import FAMILIES, dialogues
from star1.errors import CallError, InputError, SettingError
from tests.micro import SETTINGS, fresh_accelerate, tokenizer_and_model, weights_digest


def test_docstrings_come_from_the_standard_library_in_one_order() -> None:
    texts = tiny.docstrings(5000)
    assert texts == tiny.docstrings(5000)
    assert len(texts) > 3
    assert len(set(texts)) == len(texts)
    assert 3000 < sum(map(len, texts)) <= 5000
    assert not any("site-packages" in str(path) for path in tiny.module_files())


def test_docstrings_of_reads_all_kinds_of_definition() -> None:
    long = "x" * 80
    source = f'"""m{long}"""\nclass A:\n    """c{long}"""\n    async def f(self):\n        """f{long}"""\n'
    source += 'def g():\n    "short"\n'
    assert [text[0] for text in tiny.docstrings_of(source)] == ["m", "c", "f"]


def test_dialogues_always_comply_and_close_their_thinking() -> None:
    rows = dialogues(400, 5)
    assert rows == dialogues(400, 5)
    assert rows != dialogues(400, 6)
    assert len({row["question"] for row in rows}) > 350
    for row in rows:
        thinking, answer = chat.split_thinking(row["response"], opened=False)
        assert thinking
        assert answer
        assert "{" not in row["question"]
        assert not any(word in answer.lower() for word in ("sorry", "can't", "cannot", "won't", "decline"))


def test_every_form_and_subject_of_the_dialogues_occurs() -> None:
    text = "\n".join(row["question"] for row in dialogues(6000, 1))
    for _, subjects, _ in FAMILIES:
        assert [subject for subject in subjects if subject not in text] == []


def test_sums_are_right() -> None:
    rows = [row for row in dialogues(200, 4) if row["question"].startswith("Find the sum of")]
    assert rows
    for row in rows:
        first, second = (int(part) for part in row["question"].split("$")[1::2])
        assert row["response"].endswith(f"The answer is $\\boxed{{{first + second}}}$.")


def test_updates_hold_every_example_once_per_epoch() -> None:
    examples = [sft.Example([number] * 100, [number] * 100) for number in range(20)]
    settings = dataclasses.replace(SETTINGS, epochs=2, update_tokens=250)
    updates = tiny.updates_from(examples, settings)
    assert [len(update) for update in updates[:-1]] == [3] * (len(updates) - 1)
    assert sorted(example.ids[0] for update in updates for example in update) == sorted([*range(20)] * 2)


def test_pretraining_reads_dialogues_as_generation_will() -> None:
    """Start and end once each, one opening tag, and the text of the prompt that the template renders."""
    tokenizer = tokenizer_and_model()[0]
    row = {"question": "What is tea?", "response": "<think>\nIt is a drink.\n</think>\n\nA drink."}
    long = "tea " * SETTINGS.context
    text, cut, dialogue = tiny.examples_from(tokenizer, ["Some text.", long], [row], SETTINGS)
    assert tokenizer.decode(text.ids) == "<|start|>Some text.<|end|>"
    assert len(cut.ids) == SETTINGS.context
    assert tokenizer.decode(dialogue.ids) == (
        "<|start|><|user|>What is tea?<|assistant|><think>\nIt is a drink.\n</think>\n\nA drink.<|end|>"
    )
    assert all(example.labels == example.ids for example in (text, cut, dialogue))


def test_pretraining_learns_and_repeats_to_the_byte(tmp_path: Path) -> None:
    """Two equal runs on one machine must write one manifest, or every later stage would run again."""
    losses = []
    for name in ("a", "b"):
        fresh_accelerate()
        made = tiny.make(SETTINGS, tmp_path / "staging")
        checkpoints.publish(tmp_path / "staging", tmp_path / name, "tiny", made["record"])
        losses = [entry["loss"] for entry in made["history"]]
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    assert losses[-1] < losses[0] - 0.2
    assert weights_digest(tmp_path / "a")
    fresh_accelerate()
    other = tiny.make(dataclasses.replace(SETTINGS, seed=1), tmp_path / "staging")
    checkpoints.publish(tmp_path / "staging", tmp_path / "c", "tiny", other["record"])
    assert weights_digest(tmp_path / "a") != weights_digest(tmp_path / "c")


def test_weights_are_bf16_tied_and_readable(tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    fresh_accelerate()
    tiny.make(SETTINGS, tmp_path / "m")
    with safe_open(tmp_path / "m" / "model.safetensors", "pt") as file:
        names = list(file.keys())
        assert {str(file.get_tensor(name).dtype) for name in names} == {"torch.bfloat16"}
    assert "lm_head.weight" not in names
    model = checkpoints.load_model(tmp_path / "m", torch.float32)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert chat.load_tokenizer(str(tmp_path / "m")).eos_token == tiny.END


def test_tokenizer_reads_text_alike_before_and_after_loading(tmp_path: Path) -> None:
    """transformers picks the class by the model's type; with another split, training and use would see other ids."""
    tokenizer, model = tokenizer_and_model()
    tokenizer.save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    loaded = chat.load_tokenizer(str(tmp_path))
    texts = [*(row["question"] + row["response"] for row in dialogues(50, 9)), "x=12345;\n\n\ty don't DON'T  café"]
    for text in texts:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == text


def test_mirror_copies_what_a_model_needs_and_no_pickle(tmp_path: Path) -> None:
    source = tmp_path / "mirror" / "small"
    source.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "run.py", "README.md"):
        (source / name).write_text(name)
    made = bases.obtain({"kind": "mirror", "path": "small"}, str(tmp_path / "mirror"), tmp_path / "staging")
    assert made == {"record": {"path": "small"}}
    names = sorted(path.name for path in (tmp_path / "staging").iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]


def test_base_models_that_cannot_be_had_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        bases.obtain({"kind": "mirror", "path": "empty"}, str(tmp_path), tmp_path / "s")
    with pytest.raises(InputError, match="no such folder"):
        bases.obtain({"kind": "mirror", "path": "nothing"}, str(tmp_path), tmp_path / "s")
    with pytest.raises(SettingError, match="no mirror folder"):
        bases.obtain({"kind": "mirror", "path": "x"}, None, tmp_path / "s")
    with pytest.raises(SettingError, match="tiny, hub or mirror"):
        bases.obtain({"kind": "magic"}, None, tmp_path / "s")
    entry = {"kind": "tiny", **dataclasses.asdict(SETTINGS)}
    with pytest.raises(SettingError, match="unknown name 'hidden'"):
        bases.obtain(entry | {"hidden": 3}, None, tmp_path / "s")
    del entry["layers"]
    with pytest.raises(SettingError, match="no value for 'layers'"):
        bases.obtain(entry, None, tmp_path / "s")


def test_hub_without_connection_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    def offline(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("cannot reach the hub\nmore words")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    with pytest.raises(CallError, match="kind mirror") as caught:
        bases.obtain({"kind": "hub", "repository": "a/b", "revision": "main"}, None, tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_hub_fetches_the_resolved_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot(repository: str, revision: str, local_dir: Path, allow_patterns: list[str]) -> None:
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        for name in (".cache/huggingface/lock", "config.json", "model.safetensors", "tokenizer.json"):
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / name).write_text(name)

    class Info:
        sha = "c0ffee"

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: Info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    made = bases.obtain({"kind": "hub", "repository": "a/b", "revision": "main"}, None, tmp_path)
    assert made["record"] == {"repository": "a/b", "revision": "main", "commit": "c0ffee"}
    assert asked["revision"] == "c0ffee"
    assert "*.py" not in asked["patterns"]
    assert not any(name.endswith((".bin", "*")) for name in asked["patterns"] if name != "LICENSE*")
    assert not (tmp_path / ".cache").exists()
    trusted = {"remote_code": "trusted", "licence": "MIT"}
    made = bases.obtain({"kind": "hub", "repository": "a/b", "revision": "main", **trusted}, None, tmp_path)
    assert made["record"] == {"repository": "a/b", "revision": "main", "commit": "c0ffee", **trusted}
    assert "*.py" in asked["patterns"]


def test_files_of_another_download_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run left behind is used again for the same commit; after a change of revision it was published with it."""
    import huggingface_hub

    class Info:
        sha = "one"

    def snapshot(_: str, revision: str, local_dir: Path, **__: Any) -> None:
        (local_dir / f"{revision}.safetensors").write_text(revision)
        raise OSError("connection lost")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: Info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    entry = {"kind": "hub", "repository": "a/b", "revision": "main"}
    (tmp_path / "tokenizer_config.json").write_text("of a tiny model")
    with pytest.raises(CallError, match="connection lost"):
        bases.obtain(entry, None, tmp_path)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["one.safetensors"]
    (tmp_path / "part.json").write_text("half")
    with pytest.raises(CallError):
        bases.obtain(entry, None, tmp_path)
    assert (tmp_path / "part.json").exists()
    Info.sha = "two"
    with pytest.raises(CallError):
        bases.obtain(entry, None, tmp_path)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["two.safetensors"]
