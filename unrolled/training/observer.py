"""Who is told of a training on the way, and may stop it."""

from typing import Any, NamedTuple


class Progress(NamedTuple):
    """A training after one update."""

    step: int
    """Updates so far"""
    fraction: float
    """0 to 1, how much of the training was done before this update"""
    elapsed: float
    """Seconds on the clock"""
    left: float
    """Seconds to the end, the final validation included under a clock; an estimate under --steps"""
    loss: float
    """Of this update, nats a token"""
    gradient_norm: float
    """Before clipping"""
    learning_rate: float
    tokens_per_second: float
    unit: str
    """What the tokens are, in the plural: characters, bytes, …"""


class Observer:
    """Does nothing; override what you want to know. Nothing here may draw random numbers from PyTorch."""

    def report(self, line: dict[str, Any]) -> None:
        """A line of metrics.jsonl, or {"note": text}."""

    def progress(self, now: Progress) -> None:
        """After each update: be quick."""

    def watch(self, model: Any) -> None:
        """The model as users hold it, in evaluation mode: before the first update, then after each report of the
        training's loss, every few seconds."""

    def stop(self, step: int) -> bool:
        """Asked before each update with the number of updates so far; True ends the training with a checkpoint."""
        return False
