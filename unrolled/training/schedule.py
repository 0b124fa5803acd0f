"""How far a training is, by step or by clock, and the learning rate that follows from it."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

RESERVE = 0.05
"""Part of the time that is kept for the final validation and saving, until it is known how long they take."""


@dataclass
class Clock:
    """Seconds since the command started, those of earlier sessions of the same run included."""

    before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside takes no time on this clock."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.started += time.monotonic() - begun


@dataclass
class FromFirstLook(Clock):
    """Runs from the first look at it, when the first update begins: for trainings that are compared at equal time,
    whose preparation must not count."""

    looked: bool = False

    def elapsed(self) -> float:
        if not self.looked:
            self.looked, self.started = True, time.monotonic()
        return super().elapsed()


class Schedule:
    """Linear warm-up by updates, then linear decay to zero by step or by clock.

    Decay to zero: Bergsma et al. 2025, arXiv:2502.15938. Under a clock, `reserve` seconds at the end are kept for the
    final validation and saving, and training time runs from the first update.
    """

    def __init__(self, peak: float, warmup: int, *, steps: int | None, seconds: float | None, clock: Clock) -> None:
        self.peak, self.steps, self.seconds, self.clock = peak, steps, seconds, clock
        self.warmup = warmup if steps is None else min(warmup, max(1, steps // 10))
        self.reserve = RESERVE * seconds if seconds is not None else 0.0
        self.begin: float | None = None
        """When the first update began, on the clock."""

    def fraction(self, step: int) -> float:
        """How much of the training is done, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.seconds is not None
        now = self.clock.elapsed()
        self.begin = now if self.begin is None else self.begin
        end = self.seconds - self.reserve
        return min(1.0, (now - self.begin) / (end - self.begin)) if end > self.begin else 1.0

    def learning_rate(self, step: int, fraction: float) -> float:
        """For the update after `step` others."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.peak * warm * (1 - fraction)

    def left(self, step: int, now: float, trained: float) -> float:
        """Seconds to the end; under steps an estimate from the `trained` seconds that `step` updates took."""
        if self.seconds is not None:
            return max(0.0, self.seconds - now)
        assert self.steps is not None
        return trained * (self.steps - step) / step if step else math.nan
