"""Where weights, gradients and moments lie: whole in every process, or spread over them by DeepSpeed (ZeRO) or FSDP2.

Whichever it is, the loop sees the same few operations, and an update is the same sum over the same samples. Weights and
moments are float32; with precision bf16 products are taken in bfloat16 (`losses.Scored`), by the same rule everywhere.
"""

import contextlib
import datetime
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from star1 import peers
from star1.errors import SettingError

# The main process may write a large checkpoint while the others wait.
PATIENCE = datetime.timedelta(minutes=60)
WEIGHTS, OPTIMIZER, RANDOM, ENGINE = "weights", "optimizer", "random", "deepspeed"


def accelerator_for(sharding: str, offload: str, gradient_norm: float) -> Any:
    """Accelerate's object for the way that weights are spread; the settings stand here and in no file.

    Raises:
        SettingError: DeepSpeed is asked for and not installed.
    """
    # DeepSpeed is imported wherever it is installed, and would tell each time that it looked for an accelerator.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    # DeepSpeed calls what this torch has newer names for.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    several, on_cpu, deepspeed = "LOCAL_RANK" in os.environ, not torch.cuda.is_available(), sharding.startswith("zero")
    given: dict[str, Any] = {"cpu": True} if several and on_cpu and not deepspeed else {}
    if several:
        # DeepSpeed on a CPU: without a backend by name accelerate takes every process for the only one.
        backend = {"backend": "gloo"} if on_cpu else {}
        given["kwargs_handlers"] = [InitProcessGroupKwargs(timeout=PATIENCE, **backend)]
    if deepspeed:
        given["deepspeed_plugin"] = _deepspeed(int(sharding[-1]), offload, gradient_norm)
    accelerator = Accelerator(mixed_precision="no", **given)
    if deepspeed:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        # Else transformers would spread whatever it reads from now on: also the base, which the main process alone reads
        # again to add adapters to it, and would wait for ever for the others.
        unset_hf_deepspeed_config()
    found = accelerator.distributed_type.value
    if deepspeed != (found == "DEEPSPEED") or accelerator.num_processes != peers.world():
        # It has passed over a plugin without a word before, where it took a machine for another kind.
        told = f"{found}, {accelerator.num_processes} processes of {peers.world()}"
        raise SettingError(
            f"finetune.settings.sharding: {sharding}", f"accelerate started as {told}", "what was asked for"
        )
    return accelerator


def deepspeed_config(stage: int, offload: str, gradient_norm: float) -> dict[str, Any]:
    """DeepSpeed's settings: no scaling, averaging or rounding of its own beyond the mean over processes."""
    place = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": torch.cuda.is_available()}
    if offload != "none":
        zero["offload_optimizer"] = place
    if offload == "all":
        zero["offload_param"] = place
    return {
        "train_micro_batch_size_per_gpu": 1,
        # The loop says itself which pack is the last of an update: their number differs from update to update.
        "gradient_accumulation_steps": 1,
        "gradient_clipping": gradient_norm,
        "zero_optimization": zero,
        # AdamW stays torch's, also where it runs on the CPU: nothing is compiled, and the arithmetic is the same.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


def _deepspeed(stage: int, offload: str, gradient_norm: float) -> Any:
    try:
        import deepspeed
    except ImportError as error:
        found = f"zero{stage}, and deepspeed cannot be imported ({error})"
        hint = "pip install '.[deepspeed]', or set sharding: fsdp, which needs torch alone"
        raise SettingError("finetune.settings.sharding", found, "an installed deepspeed", hint) from None
    from accelerate.utils import DeepSpeedPlugin

    # An all-reduce in shared memory that is compiled when it is first used; gloo does as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel("WARNING")  # it logs to stdout
    return DeepSpeedPlugin(hf_ds_config=deepspeed_config(stage, offload, gradient_norm))


def prepare(accelerator: Any, sharding: str, model: Any, optimizer: Callable[[Any], torch.optim.Optimizer]) -> "Whole":
    """Spread the model and make its optimizer; gives both as the loop uses them.

    Args:
        accelerator: from `accelerator_for` with the same `sharding`.
        sharding: as in `recipe.Settings`.
        model: a `losses.Scored`, whole.
        optimizer: makes the optimizer of a model.
    """
    if sharding == "fsdp":
        _shard(accelerator.device, model)
        return Sharded(accelerator, model, optimizer(model))
    if sharding == "zero3":
        _partition(accelerator, model)
    kind = Engine if sharding.startswith("zero") else Whole
    return kind(accelerator, *accelerator.prepare(model, optimizer(model)))


def _partition(accelerator: Any, model: Any) -> None:
    """Spread weights one by one: left to its start, DeepSpeed would first put the whole model on every GPU."""
    import deepspeed

    deepspeed.zero.Init(module=model, config_dict_or_path=accelerator.state.deepspeed_plugin.hf_ds_config.config)
    for buffer in model.buffers():  # which DeepSpeed then leaves where they are
        buffer.data = buffer.data.to(accelerator.device)


def _shard(device: torch.device, model: Any) -> None:
    """FSDP2, by torch itself: accelerate passes over it on a CPU. Each layer is put together when it is called."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (peers.world(),))
    layers = set(getattr(model.causal, "_no_split_modules", None) or ())
    for module in [one for one in model.modules() if type(one).__name__ in layers]:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


class Whole:
    """Weights that every process has whole: one process, or data parallel."""

    spread = False

    def __init__(self, accelerator: Any, model: Any, optimizer: Any) -> None:
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.device = accelerator.device
        self.causal = accelerator.unwrap_model(model).causal

    def set_rate(self, rate: float) -> None:
        """Take this learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def add(self, batch: dict[str, Any], factor: float, last: bool) -> torch.Tensor:
        """Add to the gradients what a pack brings; gives its loss times `factor`.

        Args:
            batch: what `packing.collate` made.
            factor: of the loss; gradients are averaged over processes.
            last: whether it is the last pack of the update.
        """
        # Gradients are exchanged between processes with the last pack of an update alone.
        with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
            part: torch.Tensor = self.model(batch) * factor
            self.accelerator.backward(part)
        return part.detach()

    def step(self, limit: float) -> torch.Tensor:
        """Change the weights; gives the norm of the gradients over all processes, before it was cut to `limit` (0: never)."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return _full(norm)

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights by name, whole and in bfloat16, in the main process; nothing in the others.

        Of each matrix one is made whole at a time; names that are tied share one tensor.
        """
        found: dict[int, torch.Tensor] = {}
        named = self.causal.state_dict(keep_vars=True)
        for tensor in named.values():
            if id(tensor) not in found:
                found[id(tensor)] = _kept(self.full(tensor), torch.bfloat16)
        return {name: found[id(tensor)] for name, tensor in named.items()} if peers.main() else {}

    def trained(self) -> dict[str, torch.Tensor]:
        """The weights that are trained by name, whole and in float32, in the main process; nothing in the others."""
        found = {name: _kept(self.full(tensor), torch.float32) for name, tensor in distinct(self.causal).items()}
        return found if peers.main() else {}

    def full(self, tensor: torch.Tensor) -> torch.Tensor:
        """A weight as a whole."""
        return tensor.detach()

    # ------------------------------------------------------------ training states

    def write(self, folder: Path) -> None:
        """Write what this process alone has to `folder`."""
        from safetensors.torch import save_file

        save_file(_random(), folder / self.file(RANDOM))
        if not (self.spread or peers.main()):
            return
        named = distinct(self.causal)
        moments = self.optimizer.state_dict()["state"]
        flat = {f"{number}.{name}": one for number, values in moments.items() for name, one in values.items()}
        for what, tensors in ((WEIGHTS, named), (OPTIMIZER, flat)):
            save_file({name: self.part(one).contiguous() for name, one in tensors.items()}, folder / self.file(what))

    def load(self, folder: Path) -> None:
        """Take up what `write` left in `folder`."""
        from safetensors.torch import load_file

        weights = load_file(folder / self.file(WEIGHTS))
        with torch.no_grad():
            for name, tensor in distinct(self.causal).items():
                self.part(tensor).copy_(weights[name])
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        moments: dict[int, dict[str, Any]] = {}
        for key, value in load_file(folder / self.file(OPTIMIZER)).items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = self.like(parameters[int(number)], value)
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        _set_random(load_file(folder / self.file(RANDOM)))

    def file(self, what: str) -> str:
        """Name of the file that this process has `what` in."""
        # Dropout draws in each process on its own, also where weights are whole in all.
        own = self.spread or (what == RANDOM and peers.world() > 1)
        return f"{what}-{peers.rank():05d}.safetensors" if own else f"{what}.safetensors"

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """What this process has of a tensor, in the tensor's own memory."""
        return tensor.detach()

    def like(self, parameter: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        """A moment of `parameter`, of which this process has `part`."""
        return part


class Sharded(Whole):
    """FSDP2: every process has its rows of each weight, of its gradient and of its moments."""

    spread = True

    def add(self, batch: dict[str, Any], factor: float, last: bool) -> torch.Tensor:
        """As above; exchanged after every pack, since gradients that wait would be whole in every process."""
        part: torch.Tensor = self.model(batch) * factor
        part.backward()  # type: ignore[no-untyped-call]
        return part.detach()

    def full(self, tensor: torch.Tensor) -> torch.Tensor:
        """A weight as a whole."""
        return _full(tensor.detach())

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """What this process has of a tensor, in the tensor's own memory."""
        local: Any = tensor.detach()
        found: torch.Tensor = local.to_local() if hasattr(local, "to_local") else local
        return found

    def like(self, parameter: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        """A moment of `parameter`, of which this process has `part`."""
        from torch.distributed.tensor import DTensor

        if part.ndim == 0 or not isinstance(parameter, DTensor):  # the count of steps is no share of anything
            return part
        mesh, placements = parameter.device_mesh, parameter.placements
        part = part.to(self.device)
        return DTensor.from_local(part, mesh, placements, shape=parameter.shape, stride=parameter.stride())


class Engine(Whole):
    """DeepSpeed: moments and gradients (ZeRO-2), or the weights too (ZeRO-3), are spread over the processes."""

    spread = True

    def __init__(self, accelerator: Any, model: Any, optimizer: Any) -> None:
        super().__init__(accelerator, model, optimizer)
        self.frozen = frozen(self.causal)

        def leave_out(_model: Any, state: dict[str, Any], prefix: str, _facts: Any) -> None:
            for name in self.frozen:
                state.pop(f"{prefix}causal.{name}", None)

        # DeepSpeed leaves frozen weights out of a checkpoint itself, but keeps tied ones under their second name.
        accelerator.unwrap_model(model).register_state_dict_post_hook(leave_out)

    def add(self, batch: dict[str, Any], factor: float, last: bool) -> torch.Tensor:
        """As above; what is exchanged when is DeepSpeed's affair."""
        self.model.set_gradient_accumulation_boundary(last)
        part: torch.Tensor = self.model(batch) * factor
        self.model.backward(part)
        return part.detach()

    def step(self, limit: float) -> torch.Tensor:
        """As above; DeepSpeed cuts gradients itself (`deepspeed_config`) and forgets them."""
        self.model.step()
        return torch.as_tensor(self.model.get_global_grad_norm(), dtype=torch.float32, device=self.device)

    def full(self, tensor: torch.Tensor) -> torch.Tensor:
        """A weight as a whole."""
        if not hasattr(tensor, "ds_id"):
            return tensor.detach()
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()

    def write(self, folder: Path) -> None:
        """DeepSpeed's own checkpoint, which every process writes its part of; of frozen weights nothing."""
        from safetensors.torch import save_file

        self.model.save_checkpoint(str(folder), tag=ENGINE, save_latest=False, exclude_frozen_parameters=True)
        save_file(_random(), folder / self.file(RANDOM))

    def load(self, folder: Path) -> None:
        """Take up what `write` left in `folder`."""
        from safetensors.torch import load_file

        self.model.load_checkpoint(str(folder), tag=ENGINE, load_module_strict=not self.frozen)
        _set_random(load_file(folder / self.file(RANDOM)))


# ---------------------------------------------------------------- tensors


def distinct(model: Any) -> dict[str, torch.Tensor]:
    """All weights by name, of weights that are tied one; where some are frozen, those that are trained."""
    whole = model.state_dict(keep_vars=True)
    if frozen(model):
        whole = {name: tensor for name, tensor in whole.items() if tensor.requires_grad}
    found = {id(tensor): (name, tensor) for name, tensor in reversed(whole.items())}
    return dict(sorted(found.values(), key=lambda pair: pair[0]))


def frozen(model: Any) -> list[str]:
    """Names of the weights that are not trained, tied ones under each of their names."""
    whole = model.state_dict(keep_vars=True).items()
    return [name for name, one in whole if isinstance(one, torch.nn.Parameter) and not one.requires_grad]


def _full(tensor: Any) -> torch.Tensor:
    found: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def _kept(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Floating-point numbers as `dtype`, in the memory of the machine; in other processes than the main one nothing."""
    if not peers.main():
        return torch.empty(0)
    return tensor.to("cpu", dtype) if tensor.is_floating_point() else tensor.cpu()


def _random() -> dict[str, torch.Tensor]:
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _set_random(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
