"""`unrolled doctor`: what this machine offers, and which engine would run what."""

import os
import platform
import shutil
import statistics
import time
from typing import Any

import torch

import unrolled
from unrolled.cells import CELLS, Inputs
from unrolled.data.caches import cache_folder
from unrolled.engines import ENGINES, auto_order
from unrolled.engines.native import build
from unrolled.nn import Recurrent
from unrolled.nn.convnet import precision
from unrolled.tasks.fitting import pick_device


def examine() -> dict[str, Any]:
    """Versions, hardware, measured speed, and for each engine and cell the speed of a forward and backward pass, or the
    reason why it refuses."""
    device = pick_device(None)
    return {
        "unrolled": unrolled.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "compiler": shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"),
        "kernels": build.where(),
        "cache": _cache(),
        "matrix_gflops": round(_matrix_gflops(device), 1),
        "convolutions": f"train in {precision(device)}",
        "auto_order": {cell: list(auto_order(device.type, CELLS[cell])) for cell in CELLS},
        "engines": {name: {cell: _try(name, cell, device) for cell in CELLS} for name in ENGINES},
    }


def lines(findings: dict[str, Any]) -> list[str]:
    """The findings for people."""
    shown = [f"{name:16} {value}" for name, value in findings.items() if name not in ("engines", "auto_order")]
    shown.append("auto             the first engine that accepts a call runs it, asked in this order:")
    shown += [f"  {cell:14} {', '.join(order)}" for cell, order in findings["auto_order"].items()]
    shown.append("engines          forward and backward, 64 timesteps × 32 rows × 256 units:")
    for name, cells in findings["engines"].items():
        results = (f"{cell} {r} ms" if isinstance(r, float) else f"{cell}: {r}" for cell, r in cells.items())
        shown.append(f"  {name:14} " + "  ".join(results))
    return shown


def _cache() -> str:
    """Where compiled kernels, decoded frames and features of pictures are kept, and how much that is."""
    try:
        folder = cache_folder()
    except OSError as error:
        return f"none: {error.strerror or error}"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{folder}, {size / 2**20:,.0f} MiB (deleting it costs time, nothing else)"


def _matrix_gflops(device: torch.device, size: int = 1024) -> float:
    """Median speed of a float32 matrix product."""
    a, b = torch.randn(2, size, size, device=device)
    took = _median_seconds(lambda: a @ b, device, 7)
    return 2 * size**3 / took / 1e9


def _try(engine: str, cell: str, device: torch.device) -> float | str:
    """Milliseconds of one pass, or why not."""
    layer = Recurrent(CELLS[cell], 256, 256, engine=engine, device=device)
    x = torch.randn(64, 32, 256, device=device)
    w, state = layer.weights(0), tuple(s[0] for s in layer.initial_state(32))
    if reason := ENGINES[engine].refuses(CELLS[cell], w, Inputs(x), state):
        return reason

    def once() -> None:
        outputs, _ = layer.unroll(Inputs(x))
        outputs.sum().backward()

    return round(1000 * _median_seconds(once, device, 3), 1)


def _median_seconds(call: Any, device: torch.device, runs: int) -> float:
    took = []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - begun)
    return statistics.median(took[1:])  # the first warms up
