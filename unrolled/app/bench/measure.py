"""Timing side by side: contenders take turns in short blocks, so that a slow second of the machine hits them all."""

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Work = Callable[[int], object]
"""Does so many units of work: training steps, passes, characters."""


@dataclass(frozen=True)
class Effort:
    """How long to measure. `quick` also shrinks the sizes, so that its figures say only that everything runs."""

    rounds: int = 9
    seconds: float = 0.25
    """Of one block of one contender."""
    quick: bool = False


FULL, QUICK = Effort(), Effort(rounds=3, seconds=0.002, quick=True)


@dataclass(frozen=True)
class Contender:
    """Something that is measured: its work, and how long its blocks are beside those of the others."""

    name: str
    work: Work
    share: float = 1.0


@dataclass(frozen=True)
class Timing:
    """Seconds a unit, one for each round."""

    rounds: list[float]

    @property
    def seconds(self) -> float:
        return statistics.median(self.rounds)


def alternate(contenders: Iterable[Contender], effort: Effort) -> dict[str, Timing]:
    """Let the contenders take turns, each round in another order; what comes before the rounds warms up."""
    contenders = list(contenders)
    units = {c.name: units_in(c.work, c.share * effort.seconds) for c in contenders}
    took: dict[str, list[float]] = {c.name: [] for c in contenders}
    for number in range(effort.rounds):
        start = number % len(contenders)
        for contender in contenders[start:] + contenders[:start]:
            took[contender.name].append(clock(contender.work, units[contender.name]) / units[contender.name])
    return {name: Timing(rounds) for name, rounds in took.items()}


def units_in(work: Work, seconds: float) -> int:
    """How many units fill so many seconds, at least 1. The first three, which may compile something, do not count."""
    work(3)
    units = 1
    while (took := clock(work, units)) < seconds / 4:
        units *= 2
    return max(1, round(units * seconds / took))


def clock(work: Work, units: int) -> float:
    """Seconds that so many units take."""
    begun = time.perf_counter()
    work(units)
    return time.perf_counter() - begun


def geometric_mean(values: Iterable[float]) -> float:
    """The mean for ratios: twice as fast here and half as fast there is 1.

    >>> geometric_mean([2.0, 0.5])
    1.0
    """
    return math.exp(statistics.fmean(math.log(value) for value in values))


def compare(timings: dict[str, Timing], ours: str, peers: Iterable[str]) -> dict[str, Any]:
    """The fastest of the peers by its median, and how many times as fast we are."""
    present = [name for name in peers if name in timings]
    if not present:
        return {"best_peer": None, "ratio": None}
    best = min(present, key=lambda name: timings[name].seconds)
    return {"best_peer": best, "ratio": timings[best].seconds / timings[ours].seconds}
