"""Low-rank adapters in place of all weights: put beside the base's linear layers, trained, and added to them at the end.

The checkpoint that a run leaves is an ordinary one; its adapter lies beside it in `adapter/`, as the peft library reads it.
Source: Hu et al. 2021, arXiv 2106.09685; for weights of four bits, Dettmers et al. 2023, arXiv 2305.14314.
"""

import dataclasses
import importlib.util
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from star1 import checkpoints
from star1.errors import SettingError
from star1.recipe import Settings as Training
from star1.recipe import four_bits_mistake
from star1.records import write_json

FOLDER = "adapter"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TIERS = ("lora", "qlora")
PREFIX = "base_model.model."  # of a weight's name in peft's wrapper, before its name in the model


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run's adapters.

    Attributes:
        tier: "lora", or "qlora": beside a base of four bits, on a GPU.
        rank: of the two matrices of an adapter.
        alpha: what an adapter adds is scaled by alpha / rank.
        dropout: on what goes into an adapter, in [0, 1).
        targets: names of layers, or "all-linear": all linear ones but the output matrix.
    """

    tier: str = "lora"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"


def settings_from(values: Mapping[str, Any] | None) -> Settings | None:
    """Settings from a JSON object; None where a run has no adapters.

    Raises:
        SettingError: a name that is not a setting, or a value that cannot be meant.
    """
    if values is None:
        return None
    names = {field.name for field in dataclasses.fields(Settings)}
    if unknown := sorted(set(values) - names):
        raise SettingError("adapter settings", f"unknown name {unknown[0]!r}", "one of " + ", ".join(sorted(names)))
    targets = values.get("targets", Settings.targets)
    made = Settings(**{**values, "targets": targets if isinstance(targets, str) else tuple(targets)})
    if made.tier not in TIERS:
        raise SettingError("adapter settings: tier", repr(made.tier), " or ".join(TIERS))
    for name in ("rank", "alpha"):
        if getattr(made, name) <= 0:
            raise SettingError(f"adapter settings: {name}", str(getattr(made, name)), "a number above 0")
    return made


def preflight(adapter: Settings, training: Training, stage: str) -> None:
    """See that a tier can be trained as it is to be, and on this machine, before anything is read.

    Raises:
        SettingError: it cannot.
    """
    if told := four_bits_mistake(adapter.tier, training.sharding):
        raise SettingError(f"{stage}: tier", *told)
    if adapter.tier != "qlora":
        return
    where, instead = f"{stage}: tier qlora", "set tier: lora, which needs neither"
    if not torch.cuda.is_available():
        raise SettingError(where, "no CUDA device", "a GPU, where weights of four bits are computed with", instead)
    if importlib.util.find_spec("bitsandbytes") is None:
        hint = f"install it where the run trains, or {instead}"
        raise SettingError(where, "the library bitsandbytes is not there", "it, for weights of four bits", hint)
    if training.precision != "bf16":
        raise SettingError(where, f"precision {training.precision}", "bf16, or tier lora")


def versions(adapter: Settings) -> dict[str, str]:
    """Versions of the libraries that a tier needs beside the others."""
    return checkpoints.versions(("peft", "bitsandbytes") if adapter.tier == "qlora" else ("peft",))


def wrap(base: str | Path, adapter: Settings, training: Training) -> Any:
    """The base model with untrained adapters in it; all that can be trained is theirs.

    Frozen weights lie in memory in the precision that is computed with, adapters in float32, also where they are spread.

    Returns:
        peft's wrapper; the causal language model that is trained is its `get_base_model()`.
    """
    from peft import LoraConfig, get_peft_model

    model = _quantised(base) if adapter.tier == "qlora" else _plain(base, training.precision)
    targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
    )
    torch.manual_seed(training.seed)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # it asks models by an older name
            return get_peft_model(model, config)
    except ValueError as error:  # so peft tells of names that no layer has
        told = str(error).splitlines()[0]
        raise SettingError("adapter settings: targets", told, "names of the model's linear layers") from None


def _plain(base: str | Path, precision: str) -> Any:
    return checkpoints.load_model(base, torch.bfloat16 if precision == "bf16" else torch.float32)


def _quantised(base: str | Path) -> Any:
    """The base in four bits on this process's GPU. Source: the documentation of transformers and peft; never run here."""
    from peft import prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    place = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    model = checkpoints.load_model(base, torch.bfloat16, quantization_config=four, device_map=place)
    # The training loop turns gradient checkpointing on, where it is wanted.
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def save(wrapped: Any, weights: Mapping[str, torch.Tensor], folder: str | Path, base: str) -> None:
    """Write the adapters to `folder` as peft reads them, the same bytes for the same adapters.

    Args:
        wrapped: from `wrap`.
        weights: of the adapters, whole wherever the model's own lie, by their names in its `get_base_model()`.
        folder: where to.
        base: what the base model is called in the adapter's config, in place of this machine's path.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder = checkpoints.empty(folder)
    named = {f"{PREFIX}{name}": tensor for name, tensor in weights.items()}
    tensors = get_peft_model_state_dict(wrapped, named, save_embedding_layers=False)
    save_file(
        {name: tensor.contiguous() for name, tensor in sorted(tensors.items())},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    # The library keeps the layers' names in a set, which is in another order in every process.
    config = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in wrapped.peft_config["default"].to_dict().items()
    }
    write_json(folder / CONFIG, {**config, "base_model_name_or_path": base, "inference_mode": True})


def merged(base: str | Path, folder: str | Path, dtype: Any = torch.bfloat16) -> Any:
    """The base model, on the CPU, with the adapters in `folder` added to its weights.

    The base is read again, so that what is added to are its own weights also where it was trained on in fewer bits. Sums
    are made in float32, layer by layer, and then rounded once to `dtype`.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # as in `wrap`
        wrapped = PeftModel.from_pretrained(checkpoints.load_model(base, "auto"), str(folder), torch_device="cpu")
    for layer in wrapped.modules():
        if isinstance(layer, LoraLayer):
            layer.get_base_layer().to(torch.float32)
            layer.merge(safe_merge=True)
            layer.get_base_layer().to(dtype)
    return wrapped.unload().to(dtype)


def export(base: str | Path, folder: str | Path) -> None:
    """Add the adapters in `folder`/adapter to the base model and write the checkpoint to `folder`."""
    model = merged(base, Path(folder) / FOLDER)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
