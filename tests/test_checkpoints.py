"""Checkpoints: the manifest comes last, and what it says is checked."""

from pathlib import Path

import orjson
import pytest

from star1 import checkpoints
from star1.errors import InputError


def staged(folder: Path, **files: str) -> Path:
    (folder / "inner").mkdir(parents=True)
    for name, text in {"config": "{}", "weights": "abc", **files}.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "inner" / "vocabulary.txt").write_text("words")
    return folder


def test_publish_moves_files_and_describes_them(tmp_path: Path) -> None:
    manifest = checkpoints.publish(staged(tmp_path / "s"), tmp_path / "t", "sft", {"updates": 3})
    assert not (tmp_path / "s").exists()
    assert orjson.loads((tmp_path / "t" / "manifest.json").read_bytes()) == manifest
    assert list(manifest["files"]) == ["config.json", "inner/vocabulary.txt", "weights.json"]
    assert manifest["files"]["weights.json"] == {
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "bytes": 3,
    }
    assert (manifest["kind"], manifest["record"]) == ("sft", {"updates": 3})
    assert checkpoints.verify(tmp_path / "t") == manifest


def test_equal_checkpoints_have_equal_manifests(tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoints.publish(staged(tmp_path / f"{name}.staging"), tmp_path / name, "sft", {"updates": 3})
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_files_of_an_earlier_checkpoint_are_removed(tmp_path: Path) -> None:
    checkpoints.publish(staged(tmp_path / "s", shard="old"), tmp_path / "t", "sft", {})
    checkpoints.publish(staged(tmp_path / "s"), tmp_path / "t", "sft", {})
    assert not (tmp_path / "t" / "shard.json").exists()
    checkpoints.verify(tmp_path / "t")


def test_no_manifest_while_files_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle must leave a folder that says of itself that it is unfinished."""
    checkpoints.publish(staged(tmp_path / "s"), tmp_path / "t", "sft", {})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_move", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.publish(staged(tmp_path / "s"), tmp_path / "t", "sft", {})
    assert not (tmp_path / "t" / "manifest.json").exists()
    with pytest.raises(InputError, match="finished checkpoint"):
        checkpoints.verify(tmp_path / "t")


def test_verify_catches_a_flipped_byte_a_cut_and_a_missing_file(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    checkpoints.publish(staged(tmp_path / "s"), folder, "sft", {})
    (folder / "weights.json").write_text("abd")
    with pytest.raises(InputError, match=r"weights\.json: SHA-256 .*expected ba7816bf8f01cfea"):
        checkpoints.verify(folder)
    checkpoints.verify(folder, contents=False)
    (folder / "weights.json").write_text("ab")
    with pytest.raises(InputError, match="2 bytes; expected 3 bytes"):
        checkpoints.verify(folder, contents=False)
    (folder / "weights.json").unlink()
    with pytest.raises(InputError, match="no such file"):
        checkpoints.verify(folder)


def test_a_file_that_nobody_made_is_noticed(tmp_path: Path) -> None:
    """transformers loads an adapter or a generation config that lies beside the weights, under the same digest."""
    folder = tmp_path / "t"
    checkpoints.publish(staged(tmp_path / "s"), folder, "sft", {})
    (folder / ".nfs0001").write_text("")  # file systems and version control leave such files
    checkpoints.verify(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"adapter_config\.json: a file that manifest\.json does not name"):
        checkpoints.verify(folder)


def test_weights_that_are_not_there_are_not_drawn_at_random(tmp_path: Path) -> None:
    """transformers only warns, and fine-tuning started from a base with random layers."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from tests.micro import checkpoint

    folder = checkpoint(tmp_path / "micro")
    assert checkpoints.load_model(folder, torch.bfloat16).dtype == torch.bfloat16
    weights = load_file(folder / "model.safetensors")
    whole = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights missing .*layers\.1\.mlp\.up_proj"):
        checkpoints.load_model(folder, torch.float32)
    save_file(
        weights | {"model.layers.1.mlp.up_proj.weight": whole[:5]}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match="micro"):
        checkpoints.load_model(folder, torch.float32)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="not readable") as caught:
        checkpoints.load_model(folder, torch.float32)
    assert "\n" not in str(caught.value)


def test_an_empty_staging_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(InputError, match="no file"):
        checkpoints.publish(tmp_path / "s", tmp_path / "t", "sft", {})


def test_carry_over_leaves_weights_and_config_behind(tmp_path: Path) -> None:
    source = staged(tmp_path / "s")
    for name in ("model.safetensors", "model.safetensors.index.json", "chat_template.jinja"):
        (source / name).write_text(name)
    checkpoints.publish(source, tmp_path / "base", "hub", {})
    checkpoints.carry_over(tmp_path / "base", tmp_path / "new")
    found = sorted(path.name for path in (tmp_path / "new").rglob("*") if path.is_file())
    assert found == ["chat_template.jinja", "vocabulary.txt", "weights.json"]


def test_folder_of_wants_a_manifest() -> None:
    assert checkpoints.folder_of("models/run/manifest.json") == Path("models/run")
    with pytest.raises(InputError, match=r"manifest\.json"):
        checkpoints.folder_of("models/run/model.safetensors")
