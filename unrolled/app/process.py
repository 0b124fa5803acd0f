"""How the command's own process uses the machine: set once, before torch is imported. A library must not do this."""

import ctypes
import os
import sys
import time

STARTED = time.monotonic()
"""When the command started: `--seconds` counts from here, the import of torch included."""
SPINS = "20000"
"""Rounds that a thread of PyTorch (libgomp) waits awake before it sleeps. Too few, and small steps wait to be woken:
with 2,000 a step of 8 rows took twice as long. Too many, and beside another busy process threads wait for each other in
vain: with libgomp's 300,000 that was 75 times slower. Figures: results/, benchmarks/contention.py."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""From glibc's malloc.h."""


def tune() -> None:
    """Waiting threads spin for a while, and freed memory stays with the process.

    A training step frees and asks again for the same tens of megabytes. glibc would give them back to the system each
    time, and taking them again costs a page fault for every 4 KiB: a tenth of a step.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 1 << 30)
            mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
            mallopt(M_TOP_PAD, 64 << 20)
