"""What the GPUs of this machine are doing: by the driver's library (NVML), or by nvidia-smi."""

import shutil
import subprocess
from typing import Any

from star1.records import Row

TOOL_S = 10.0
ASKED = ("index", "name", "utilization.gpu", "memory.used", "memory.total")


def use() -> list[Row]:
    """{index, name, busy_percent, used_mib, total_mib} of each GPU; none where there are none, or nothing tells.

    What the device does not tell is None.
    """
    found = _nvml()
    return _tool() if found is None else found


def _nvml() -> list[Row] | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return [_device(pynvml, at) for at in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return None


def _device(nvml: Any, at: int) -> Row:
    handle = nvml.nvmlDeviceGetHandleByIndex(at)
    name, memory = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:
        busy = None
    name = name.decode() if isinstance(name, bytes) else name
    return {
        "index": at,
        "name": name,
        "busy_percent": busy,
        "used_mib": memory.used // 2**20,
        "total_mib": memory.total // 2**20,
    }


def _tool() -> list[Row]:
    if not shutil.which("nvidia-smi"):
        return []
    ask = ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=TOOL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line.split(", ") for line in done.stdout.splitlines()]
    return [_line(cells) for cells in lines if len(cells) == len(ASKED) and cells[0].strip().isdigit()]


def _line(cells: list[str]) -> Row:
    at, name, *numbers = (cell.strip() for cell in cells)
    busy, used, total = (int(one) if one.isdigit() else None for one in numbers)  # "[N/A]" where it does not tell
    return {"index": int(at), "name": name, "busy_percent": busy, "used_mib": used, "total_mib": total}
