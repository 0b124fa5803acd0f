"""The machine: what it is, what it can do at best, and who else used it meanwhile."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

import unrolled
from unrolled.app.bench.measure import Contender, Effort, Timing, alternate

SHAPES = ((1024, 1024, 1024), (2048, 512, 2048), (4096, 512, 2048))
"""(M, K, N) of the float32 products whose fastest is the matrix peak."""
BUSY = 0.1
"""Cores used by others from which a measurement is in doubt."""


def describe(effort: Effort) -> dict[str, Any]:
    """Hardware, versions, and the two roofs: GFLOP/s of matrix products and GB/s of a triad, with all threads."""
    shapes = ((64, 64, 64),) if effort.quick else SHAPES
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "simd_of_torch": torch.backends.cpu.get_cpu_capability(),
        "simd_of_cpu": _vector_flags(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "unrolled": unrolled.__version__,
        "gomp_spincount": os.environ.get("GOMP_SPINCOUNT"),
        "matrix_gflops": peak_gflops(alternate(matrix_products(shapes), effort)),
        "bandwidth_gbs": _bandwidth(2**16 if effort.quick else 2**25, effort),
    }


def matrix_products(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> list[Contender]:
    """Contenders that measure the peak while others are measured, since a virtual machine's speed drifts."""
    return [_product(*shape) for shape in shapes]


def _product(m: int, k: int, n: int) -> Contender:
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)

    def work(units: int) -> None:
        for _ in range(units):
            torch.mm(a, b, out=out)

    return Contender(f"matrix {m}×{k}×{n}", work, share=0.2)


def peak_gflops(timings: dict[str, Timing]) -> float:
    """The fastest matrix product among the timings, GFLOP/s."""

    def flop(name: str) -> int:
        m, k, n = map(int, name.removeprefix("matrix ").split("×"))
        return 2 * m * k * n

    return max(flop(name) / timing.seconds / 1e9 for name, timing in timings.items() if name.startswith("matrix "))


def _bandwidth(size: int, effort: Effort) -> float:
    """GB/s of a = b + s c over tensors far larger than any cache (as McCalpin's STREAM counts: three tensors)."""
    a, b, c = (torch.ones(size) for _ in range(3))

    def work(units: int) -> None:
        for _ in range(units):
            torch.add(b, c, alpha=3.0, out=a)

    return 3 * 4 * size / alternate([Contender("triad", work)], effort)["triad"].seconds / 1e9


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _vector_flags() -> list[str]:
    """The vector instructions that the operating system offers; empty where it does not say (macOS)."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return [flag for flag in ("sse4_2", "avx", "avx2", "fma", "avx512f", "asimd", "sve") if flag in words]


class Watch:
    """Counts what others used of the machine while it runs: processor time of other processes, and of other virtual
    machines ("steal"). Linux only; elsewhere the figures are None."""

    def __init__(self) -> None:
        self._begun, self._before = time.monotonic(), _busy()

    def stop(self) -> dict[str, Any]:
        """Average cores used by others and stolen by the host since the start, and the load of the last minute."""
        now, seconds = _busy(), max(1e-9, time.monotonic() - self._begun)
        found: dict[str, Any] = {"others_cores": None, "stolen_cores": None, "load_average": os.getloadavg()[0]}
        if now is None or self._before is None:
            return {**found, "warning": "not known whether the machine was idle: there is no /proc here"}
        all_, stolen, own = (max(0.0, after - before) for after, before in zip(now, self._before, strict=True))
        found["others_cores"] = round(max(0.0, all_ - own) / seconds, 3)
        found["stolen_cores"] = round(stolen / seconds, 3)
        doubts = [
            f"{who} used {found[key]:.2f} cores on average"
            for key, who in (("others_cores", "other processes"), ("stolen_cores", "other virtual machines"))
            if found[key] > BUSY
        ]
        return {**found, "warning": " and ".join(doubts) or None}


def _busy() -> tuple[float, float, float] | None:
    """Seconds of processor time so far: of everybody, stolen, and of this process and its ended children."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, soft, stolen = map(int, stat.read_text().split()[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    own = os.times()
    return (user + nice + system + irq + soft) / tick, stolen / tick, sum(own[:4])
