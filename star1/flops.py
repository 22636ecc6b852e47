"""How much a model has to compute for an update, and what part of a device's peak that is (MFU)."""

import re
from collections.abc import Sequence

from star1.shapes import Shape

# Peak of dense bfloat16 matrix products with float32 sums, by what the driver calls a device [TFLOP/s].
# Source: the makers' data sheets, figures without sparsity: NVIDIA H100, H200, GH200, A100, A10, A30, L4, L40, L40S, B200 (HGX),
# RTX A6000, RTX 6000 Ada, and the Ada and Ampere (GA102) white papers for GeForce; AMD Instinct MI250X and MI300X.
PEAKS = (
    (r"H200 NVL", 835.5),
    (r"H200", 989.5),
    (r"GH200", 989.5),
    (r"H100 PCIe", 756.0),
    (r"H100 NVL", 835.5),
    (r"H100 \d+GB HBM3", 989.5),
    (r"B200", 2250.0),
    (r"A100", 312.0),
    (r"A30", 165.0),
    (r"A10", 125.0),
    (r"L40S", 362.0),
    (r"L40", 181.0),
    (r"L4", 121.0),
    (r"RTX 6000 Ada Generation", 364.2),
    (r"RTX A6000", 154.8),
    (r"RTX 4090", 165.2),
    (r"RTX 3090", 71.0),
    (r"MI300X", 1307.4),
    (r"MI250X", 383.0),
)


def peak_of(device: str, precision: str) -> float | None:
    """Peak of a device [FLOP/s], None where it is not known: a CPU, another device or a slice of one, not bf16."""
    if precision != "bf16" or "MIG" in device:  # a slice of a device
        return None
    for pattern, peak in PEAKS:
        if re.search(rf"(?<![A-Za-z0-9]){pattern}(?![0-9A-Za-z])(?! Laptop)(?! D\b)", device):
            return peak * 1e12
    return None


def model_flops(shape: Shape, lengths: Sequence[int], targets: int, trained: int | None = None) -> float:
    """What forward and backward pass of some sequences need [FLOP]; recomputed activations and padding do not count.

    A weight costs 2 FLOP a token forwards, 2 backwards, and 2 more where it is trained itself. The output matrix counts for
    target tokens alone, and of a sequence's attention the half below the diagonal: a higher figure would have work in it
    that need not be done.

    Args:
        shape: of the model.
        lengths: tokens of each sequence.
        targets: tokens that are learnt.
        trained: weights that are trained, where it is not all (adapters).

    Source: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B.
    Differs: in the last two points, and in the embedding, which is looked up and not multiplied.
    """
    tokens, inner = sum(lengths), shape.layers * shape.linear
    through = inner * tokens + shape.head * targets
    own = trained * tokens if trained is not None else through
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    attention = 2 * 2 * shape.layers * shape.heads * shape.head_width * pairs
    return 4.0 * through + 2.0 * own + 3.0 * attention


def used_share(flops: float, seconds: float, devices: Sequence[str], precision: str) -> float | None:
    """Model FLOP/s as a share of the peak of all devices together (MFU); None where a peak is not known."""
    peaks = [peak_of(device, precision) for device in devices]
    if not peaks or seconds <= 0 or any(peak is None for peak in peaks):
        return None
    return flops / seconds / sum(peak for peak in peaks if peak)
