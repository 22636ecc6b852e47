"""For tests: a micro Qwen2 checkpoint with random weights, made in about a second."""

from pathlib import Path
from typing import Any

import pytest

from star1 import checkpoints, sft, tiny
from star1.dialogues import dialogues
from star1.records import Row, write_rows

torch = pytest.importorskip("torch")
SETTINGS = tiny.Settings(
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    vocabulary=500,
    context=256,
    docstring_characters=2000,
    dialogues=60,
    update_tokens=512,
    pack_tokens=256,
    precision="float32",
)
ROWS: list[Row] = dialogues(12, 3)


def fresh_accelerate() -> None:
    """Forget accelerate's process-wide settings, so that a test can choose another precision."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def tokenizer_and_model(settings: tiny.Settings = SETTINGS) -> tuple[Any, Any]:
    """Tokenizer trained on a few dialogues, and random weights."""
    rows = dialogues(60, 1)
    tokenizer = tiny.make_tokenizer([f"{row['question']}\n{row['response']}" for row in rows], settings)
    return tokenizer, tiny.make_model(tokenizer, settings)


def checkpoint(folder: Path, settings: tiny.Settings = SETTINGS, loudness: float = 1.0) -> Path:
    """A finished checkpoint with random weights in `folder`; its logits are `loudness` times as large as they come."""
    tokenizer, model = tokenizer_and_model(settings)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.ndim == 2:  # else tied embeddings make it repeat its last token, whatever the prompt; and with
                parameter.mul_(8)  # larger norms, attention saturates, and a wrong mask would change nothing
        model.model.norm.weight.mul_(loudness)
    staging = folder.parent / f"{folder.name}.staging"
    tokenizer.save_pretrained(staging)
    model.config.dtype = torch.bfloat16
    model.to(torch.bfloat16).save_pretrained(staging)
    checkpoints.publish(staging, folder, "tiny", {"made": "for tests"})
    return folder


def base_and_rows(folder: Path, loudness: float = 1.0) -> Path:
    """A folder with a checkpoint `micro` and training rows, `rows.jsonl`."""
    checkpoint(folder / "micro", loudness=loudness)
    write_rows(folder / "rows.jsonl", ROWS)
    return folder


def counting_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of models that are loaded from now on."""
    real, loads = checkpoints.load_model, []

    def load_model(folder: str | Path, dtype: Any) -> Any:
        loads.append(str(folder))
        return real(folder, dtype)

    monkeypatch.setattr(checkpoints, "load_model", load_model)
    return loads


def weights_digest(folder: Path) -> str:
    """Digest of a checkpoint's weights, from its manifest."""
    return str(checkpoints.read_manifest(folder)["files"]["model.safetensors"]["sha256"])


def small_settings(**changes: Any) -> sft.Settings:
    """Settings of a fine-tuning run of seconds."""
    values = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "pack_tokens": 256, "max_tokens": 256}
    made: sft.Settings = sft.settings_from({**values, "precision": "float32", **changes})
    return made
