"""The resident memory of this process, now and at its peak, as Linux counts it in /proc."""

from pathlib import Path

NO_PROC = "the peak of resident memory is read from /proc, which only Linux has"


def readable() -> bool:
    """Whether this system tells the peak and lets it be forgotten."""
    return Path("/proc/self/clear_refs").exists()


def now() -> int:
    """Bytes."""
    return _status("VmRSS")


def peak() -> int:
    """Bytes: the most since the process began, or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """From here on the peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
