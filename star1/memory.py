"""How much memory a training run will need in each process, from the model's config.json alone; what does not fit is refused.

It counts what lies there when most does: in the backward pass of the last layer. Weights, gradients and AdamW's moments are
float32; with precision bf16, a copy of the weights and most activations are bfloat16, and beside adapters the base itself.
What is saved for the backward pass is counted layer by layer as transformers writes Llama and Qwen layers, not for other ones.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from star1.errors import InputError, SettingError, tell
from star1.losses import rows_at_once
from star1.packing import QUERIES, SHORT, filled, roomy
from star1.recipe import Settings
from star1.rooms import GIB, room_of
from star1.shapes import Shape, read_shape

# What a process has before the first weight, and whatever its data: interpreter, libraries, oneDNN's kernels (CPU), CUDA's
# own (GPU). Measured on a CPU with data of many lengths (docs/training.md), a guess for a GPU.
BEFORE = {"cpu": 0.9 * GIB, "cuda": 1.0 * GIB}
# Lost between blocks. On a GPU a guess, of everything. On a CPU of what comes and goes, measured (docs/training.md): what
# was freed stays with the process (heap.py), and small blocks that are still needed keep a hole from being one with the
# next. Adapters, whose products are in parts that are narrowed, widened and added, leave twice as many holes.
LOST = 0.05
HOLES = {"full": 0.4, "lora": 0.8}
RANK = 16  # of adapters, where none is told
ROOM = 1.125  # tokens with the room after them, for each token of sequences that attention takes by plain products
BUCKETS = 2 * 5e8  # weights that DeepSpeed keeps in flight between processes
LIVE = 1e9  # weights that ZeRO-3 keeps together at once
PREFETCHED = 5e7  # weights that it has on their way besides
USUAL = 8  # GPUs of a machine
FOUR_BITS = 4.127 / 8  # a weight of qlora with its scales, scaled themselves [bytes]
PARTS = ("process", "weights", "gradients", "optimizer", "activations", "logits")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What decides how much memory a run needs.

    Attributes:
        tier: "full", "lora" or "qlora".
        sharding: "none", "zero2", "zero3" or "fsdp".
        offload: "none", "optimizer" or "all": what lies in the machine's memory.
        processes: that share the run, over all machines; a GPU each.
        nodes: machines that they are spread over.
        precision: "bf16" or "float32".
        checkpointing: whether activations are recomputed.
        pack_tokens: tokens of one forward pass.
        longest: tokens of the longest sequence.
        kind: "cuda" or "cpu".
        rank: of adapters.
    """

    tier: str = "full"
    sharding: str = "none"
    offload: str = "none"
    processes: int = 1
    nodes: int = 1
    precision: str = "bf16"
    checkpointing: bool = False
    pack_tokens: int = 8192
    longest: int = 8192
    kind: str = "cuda"
    rank: int = RANK

    @property
    def tokens(self) -> int:
        """Tokens of the largest pack."""
        return filled(max(self.pack_tokens, self.longest), self.kind)

    @property
    def local(self) -> int:
        """Processes of one machine."""
        return -(-self.processes // self.nodes)


def plan_of(
    settings: Settings,
    kind: str,
    processes: int | None = None,
    tier: str = "full",
    longest: int | None = None,
    nodes: int | None = None,
    rank: int = RANK,
) -> Plan:
    """The plan of a run with these settings.

    Args:
        settings: of the run; where they do not have sharding, offload and processes yet, there is one process.
        kind: "cuda" or "cpu".
        processes: how many over all machines, if not as many as the settings say.
        tier: of the run.
        longest: tokens of the longest row; by default as many as a row may have.
        nodes: machines, if not as many as the settings say.
        rank: of adapters, for a tier that has some.
    """
    nodes = nodes or int(getattr(settings, "nodes", 1))
    return Plan(
        tier=tier,
        sharding=getattr(settings, "sharding", "none"),
        offload=getattr(settings, "offload", "none"),
        processes=processes or nodes * int(getattr(settings, "processes", 1)),
        nodes=nodes,
        precision=settings.precision,
        checkpointing=settings.gradient_checkpointing,
        pack_tokens=settings.pack_tokens,
        longest=min(settings.max_tokens, settings.pack_tokens) if longest is None else longest,
        kind=kind,
        rank=rank,
    )


# ---------------------------------------------------------------- how much


def estimate(shape: Shape, plan: Plan) -> dict[str, float]:
    """Memory of one process where it computes [bytes], by what it is for."""
    held = _held(shape, plan)
    held["activations"] = activations(shape, plan)
    held["logits"] = logits(shape, plan)
    held["process"] = BEFORE[plan.kind] + _lost(shape, plan, held)
    return {name: held[name] for name in PARTS}


def _lost(shape: Shape, plan: Plan, held: dict[str, float]) -> float:
    """Memory that is between blocks. On a CPU weights and moments are asked for once, and leave no holes."""
    if plan.kind != "cpu":
        return LOST * sum(held.values())
    moving = held["activations"] + held["logits"] + _gathered(shape, plan)
    return HOLES["full" if plan.tier == "full" else "lora"] * moving


def offloaded(shape: Shape, plan: Plan) -> float:
    """What the processes of one machine have in its memory besides [bytes]."""
    if plan.offload == "none" or plan.kind == "cpu":
        return 0.0
    # Moments, the weights they belong to, and gradients on their way.
    every = _trained(shape, plan) * 16.0 + (_base(shape, plan) if plan.offload == "all" else 0.0)
    return every * plan.local / plan.processes


def loading(shape: Shape, plan: Plan) -> float:
    """What a process has in the machine's memory once it has read the base, which it then spreads or moves [bytes].

    DeepSpeed and FSDP2 are given a model that each process has read whole; four bits are read onto the GPU.
    """
    return BEFORE["cpu"] + (0.0 if plan.tier == "qlora" else _base(shape, plan))


def exporting(shape: Shape, plan: Plan) -> float:
    """What the main process has on a CPU while it writes the checkpoint, which is in bfloat16 [bytes].

    What was trained lies there still. Adapters are added to a base that is read again: its file, and the sums.
    """
    held = _held(shape, plan)
    return BEFORE["cpu"] + held["weights"] + held["optimizer"] + shape.weights * (2.0 if plan.tier == "full" else 4.0)


def of_machine(shape: Shape, plan: Plan) -> float:
    """The most that all processes of one machine have in its memory, where they compute on GPUs [bytes]."""
    return max(plan.local * loading(shape, plan), plan.local * BEFORE["cpu"] + offloaded(shape, plan))


def needed(shape: Shape, plan: Plan) -> float:
    """The most that a process has where it computes [bytes]; on a CPU, reading or writing may take more than training."""
    training = sum(estimate(shape, plan).values())
    return training if plan.kind != "cpu" else max(training, loading(shape, plan), exporting(shape, plan))


def _trained(shape: Shape, plan: Plan) -> float:
    """Weights that are trained."""
    if plan.tier == "full":
        return shape.weights
    query, key = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    sides = 2 * (shape.hidden + query) + 2 * (shape.hidden + key) + 3 * (shape.hidden + shape.intermediate)
    return float(plan.rank * sides * shape.layers)


def _width(plan: Plan) -> float:
    """What a weight takes that is read from the base and not of four bits: a frozen one is as wide as what is computed with."""
    return 2.0 if plan.tier != "full" and plan.precision == "bf16" else 4.0


def _base(shape: Shape, plan: Plan) -> float:
    """The model's own weights, without adapters, all of them [bytes]."""
    narrow = shape.layers * shape.linear if plan.tier == "qlora" else 0
    return narrow * FOUR_BITS + (shape.weights - narrow) * _width(plan)


def _held(shape: Shape, plan: Plan) -> dict[str, float]:
    """Weights, gradients and moments."""
    trained, narrow = _trained(shape, plan), plan.precision == "bf16"
    matrices = shape.layers * shape.linear
    weights, adapters = _base(shape, plan), trained * 4.0 if plan.tier != "full" else 0.0
    # Autocast keeps what it has narrowed until the forward pass is over, and layers keep it for the backward pass.
    # Where weights are spread and layers computed twice, nothing keeps them but the layer that is at work.
    whole = matrices if plan.sharding not in ("zero3", "fsdp") or not plan.checkpointing else shape.linear
    copies = (trained if plan.tier != "full" else whole) * 2.0 * narrow
    share = plan.processes if plan.sharding != "none" else 1
    gradients, moments = trained * 4.0 / share, trained * 8.0 / share
    if plan.sharding.startswith("zero"):
        moments += trained * 4.0 / share  # DeepSpeed's own copy of the weights that it changes
        gradients += min(BUCKETS, 2.0 * trained) * 4.0
    if plan.sharding == "none" and plan.processes > 1:
        gradients *= 2  # torch adds them up over processes in buckets of its own
    if plan.sharding in ("zero3", "fsdp"):
        weights = weights / share + _gathered(shape, plan)
        # DeepSpeed keeps whole in every process what has fewer than 100,000 elements, as most matrices of adapters have.
        adapters /= share if plan.sharding == "fsdp" else 1
    if plan.kind == "cuda" and plan.offload != "none":  # from a CPU to its own memory would free nothing
        moments = 0.0
        weights -= _base(shape, plan) / share if plan.offload == "all" else 0.0
    return {"weights": weights + adapters + copies, "gradients": gradients, "optimizer": moments}


def _gathered(shape: Shape, plan: Plan) -> float:
    """Weights of other processes that one has for the products at hand [bytes]."""
    if plan.sharding not in ("zero3", "fsdp") or plan.processes == 1:
        return 0.0
    together = float(min(2 * shape.layer + shape.head * (1 if shape.tied else 2), shape.weights))
    if plan.sharding == "zero3":
        together = min(LIVE, shape.weights) + min(PREFETCHED, shape.weights)
    return together * _width(plan)


def activations(shape: Shape, plan: Plan) -> float:
    """What the backward pass needs of the forward pass [bytes]."""
    layer = per_layer(shape, plan) * plan.tokens + _scores(shape, plan)
    edge = 3 * 4.0 * shape.hidden * plan.tokens  # embedding, last norm, and the gradient of both
    working = _working(shape, plan) * plan.tokens
    if plan.checkpointing:
        return 4.0 * shape.hidden * plan.tokens * shape.layers + layer + working + edge
    return layer * shape.layers + working + edge


def per_layer(shape: Shape, plan: Plan) -> float:
    """What a layer keeps for each token [bytes]."""
    narrow = plan.precision == "bf16"
    width = 2.0 if narrow else 4.0
    query, key = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    # Queries, keys and values as attention sees them, what comes out, and the same as one piece.
    heads = width * ((query + 2 * key) * ROOM + query if _plain(plan) else 3 * query + 2 * key)
    kept = _norms(shape, plan) + heads + 3 * width * shape.intermediate  # gate, the other half, and their product
    if plan.tier == "full" or not narrow or (plan.kind != "cpu" and plan.sharding != "zero3"):
        return kept
    # Adapters are float32: each widens what comes to it and narrows it again for its product, and keeps what it narrowed in
    # place of what came. DeepSpeed's products, of weights that it puts together, keep what they were given: both.
    inputs = 5 * shape.hidden + query + shape.intermediate
    shared = (2 * shape.hidden + query + shape.intermediate) * 2.0
    return kept + 4.0 * inputs if plan.sharding == "zero3" else kept + 2.0 * inputs - shared


def _norms(shape: Shape, plan: Plan) -> float:
    """What the two norms of a layer keep for each token: what came in, and what goes out [bytes].

    On a GPU, where nothing has been measured, they still count as the library's own, which keep more.
    """
    narrow = plan.precision == "bf16"
    if plan.kind != "cpu":
        return 4 * 4.0 * shape.hidden + (5 * 2.0 * shape.hidden if narrow else 2 * 4.0 * shape.hidden)
    came = 4.0 if plan.tier == "full" or not narrow else 2.0  # as wide as the embedding
    return 2 * (came + (2.0 if narrow else 4.0)) * shape.hidden


def _plain(plan: Plan) -> bool:
    """Whether attention is made of plain products, which keep queries, keys and values with room, and no result."""
    return plan.kind == "cpu" and plan.longest <= SHORT


def _scores(shape: Shape, plan: Plan) -> float:
    """Attention weights that a layer keeps: on a CPU those of short sequences [bytes]."""
    if not _plain(plan):
        return 0.0
    width = 2.0 if plan.precision == "bf16" else 4.0
    return width * shape.heads * ROOM * plan.tokens * (roomy(plan.longest) + min(QUERIES, plan.longest)) / 2


def _working(shape: Shape, plan: Plan) -> float:
    """What comes and goes within the backward pass of a layer, for each token [bytes]."""
    width = 2.0 if plan.precision == "bf16" else 4.0
    # What goes into an adapter, widened, and its gradient.
    wide = 8.0 * shape.intermediate if plan.tier != "full" and width == 2 and plan.kind == "cpu" else 0.0
    return 3 * width * shape.intermediate + 4 * 4.0 * shape.hidden + wide


def logits(shape: Shape, plan: Plan) -> float:
    """Logits of a chunk, and the gradient of the output matrix, which is made with them [bytes]."""
    chunk = min(rows_at_once(plan.kind, shape.vocabulary), plan.tokens) * shape.vocabulary
    narrow = plan.precision == "bf16"
    trained = plan.tier == "full"
    return (
        # The softmax is made in place on a CPU alone.
        chunk * ((6.0 if narrow else 4.0) + (0.0 if plan.kind == "cpu" else 4.0))
        + shape.head * (2.0 * narrow + 8.0 * trained)
        + 8.0 * shape.hidden * plan.tokens
    )


# ---------------------------------------------------------------- whether it fits


def changes(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """What could be changed, the mildest first: in words, and the plan then."""
    now, told = plan, list[str]()

    def step(words: str, **values: Any) -> tuple[str, Plan]:
        nonlocal now
        now = dataclasses.replace(now, **values)
        told.append(words)
        return ", ".join(told), now

    if not plan.checkpointing:
        yield step("gradient_checkpointing: true", checkpointing=True)
    if plan.pack_tokens > plan.longest:
        yield step(f"pack_tokens: {plan.longest}", pack_tokens=plan.longest)
    if plan.tier == "qlora":  # four bits are not spread
        return
    if plan.processes > 1 and plan.sharding == "none":
        yield step("sharding: zero2", sharding="zero2")
    if plan.processes > 1 and plan.sharding in ("none", "zero2"):
        told[:] = [one for one in told if not one.startswith("sharding")]
        yield step("sharding: zero3", sharding="zero3")
    if plan.kind == "cuda" and plan.offload == "none":
        if not now.sharding.startswith("zero"):
            told[:] = [one for one in told if not one.startswith("sharding")]
            yield step("sharding: zero2, offload: optimizer", sharding="zero2", offload="optimizer")
        else:
            yield step("offload: optimizer", offload="optimizer")
    for count in (2, 4, 8, 16):
        if count > plan.nodes and plan.processes % count == 0:
            words = f"nodes: {count}, processes: {plan.processes // count}, sharding: zero3"
            yield words, dataclasses.replace(plan, sharding="zero3", nodes=count)
    mild = dataclasses.replace(plan, checkpointing=True, pack_tokens=min(plan.pack_tokens, plan.longest))
    if plan.tier == "full":
        yield "tier: lora with gradient_checkpointing: true", dataclasses.replace(mild, tier="lora")
    for count in (2, 4, 8, 16, 32, 64, 128, 256):
        if count > plan.processes and plan.kind == "cuda":
            nodes = max(plan.nodes, -(-count // max(plan.local, USUAL)))
            many = f"{count} processes (GPUs)" + (f" on {nodes} machines" if nodes > 1 else "")
            spread = dataclasses.replace(mild, sharding="zero3", offload="none", processes=count, nodes=nodes)
            yield f"{many} with sharding: zero3 and gradient_checkpointing: true", spread


def would_fit(shape: Shape, plan: Plan, room: float, host: float | None = None) -> str | None:
    """The first change with which a run fits, in words; None if it fits as it is, "" if nothing known helps.

    Args:
        shape: of the model.
        plan: of the run.
        room: memory of one process where it computes [bytes].
        host: the machine's own memory, for all its processes [bytes]; None: as much as is needed.
    """
    if fits(shape, plan, room, host):
        return None
    return next((words for words, changed in changes(plan) if fits(shape, changed, room, host)), "")


def fits(shape: Shape, plan: Plan, room: float, host: float | None = None) -> bool:
    """Whether a run needs no more than there is."""
    return needed(shape, plan) <= room and (host is None or plan.kind == "cpu" or of_machine(shape, plan) <= host)


def check(stage: str, base: str | Path, plan: Plan) -> None:
    """See that a run fits into the memory that is free now.

    Raises:
        SettingError: it cannot.
    """
    try:
        shape = read_shape(base)
    except InputError as error:
        tell(f"{stage}: memory not estimated: {error.found} is no family that it is known of")
        return
    room, host = room_of(plan.kind)
    if (hint := would_fit(shape, plan, room, host)) is None:
        return
    told = f"it would fit with {hint}" if hint else "no setting that is known of makes it fit: take a smaller model"
    if needed(shape, plan) <= room:
        many = f"{plan.local} processes that each read the base model" if plan.local > 1 else "the base model"
        found, expected = f"{_gib(host)} free in this machine", f"{_gib(of_machine(shape, plan))} for {many}"
    else:
        where = "on the GPU" if plan.kind == "cuda" else "of memory for this process"
        found, expected = f"{_gib(room)} free {where}", _gib(needed(shape, plan))
    raise SettingError(f"{stage}: memory", found, f"{expected}, as `star1 train fit` estimates", told)


def _gib(count: float) -> str:
    return f"{count / GIB:,.1f} GiB"


def _size(count: float) -> str:
    """In GiB; of a tiny model, whose parts would all be 0.0, in MiB."""
    return f"{count / 2**20:,.1f} MiB" if 0 < count < GIB / 10 else _gib(count)


def table(shape: Shape, plan: Plan, room: float | None, host: float | None = None) -> list[str]:
    """Lines about a run: what it needs for what, and whether that is there."""
    found = estimate(shape, plan)
    many = "one process"
    if plan.processes > 1:
        machines = f" on {plan.nodes} machines" if plan.nodes > 1 else ""
        many = f"{plan.processes} processes{machines}, sharding {plan.sharding}, offload {plan.offload}"
    recomputed = "recomputed" if plan.checkpointing else "kept"
    lines = [
        f"{shape.weights:,} weights, tier {plan.tier}, {plan.precision}, {many}, {plan.kind}",
        f"packs of {plan.tokens:,} tokens, activations {recomputed}",
        "",
        *(f"{name:<12} {_size(found[name]):>14}" for name in PARTS),
        f"{'total':<12} {_gib(sum(found.values())):>14}  {'per GPU' if plan.kind == 'cuda' else 'per process'}",
    ]
    if plan.kind == "cuda":
        read = f"{_gib(plan.local * loading(shape, plan))} while the base is read"
        lines.append(f"{'machine':<12} {_gib(of_machine(shape, plan)):>14}  in a machine's memory, {read}")
    if moved := offloaded(shape, plan):
        lines.append(f"{'offloaded':<12} {_gib(moved):>14}  of it what stays there")
    if room is None:
        return lines
    hint = would_fit(shape, plan, room, host)
    if hint is None:
        return [*lines, "", f"fits: {_gib(room)} there"]
    lines += ["", f"does not fit: {_gib(room)} there"]
    return [*lines, f"it would fit with {hint}" if hint else "no setting that is known of makes it fit"]
