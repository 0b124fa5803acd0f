"""The loss over a training: collected on the way in constant memory, and drawn."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from unrolled.inspection import pictures
from unrolled.metrics.text import bits

BINS = 512


class LossCurve:
    """Losses over the training, in so many bins that memory does not grow."""

    def __init__(self) -> None:
        self._loss, self._seconds, self._count = [0.0] * BINS, [0.0] * BINS, [0] * BINS
        self.validation: list[tuple[float, float, float]] = []
        """How much of the training was done, seconds, and the loss."""

    def add(self, fraction: float, seconds: float, loss: float) -> None:
        """An update, when 0 … 1 of the training was done."""
        place = min(BINS - 1, int(fraction * BINS))
        self._loss[place] += loss
        self._seconds[place] += seconds
        self._count[place] += 1

    @property
    def last(self) -> float:
        """The mean of the newest bins, about a fiftieth of the training."""
        newest = [i for i in range(BINS) if self._count[i]][-10:]
        return sum(self._loss[i] for i in newest) / sum(self._count[i] for i in newest)

    def points(self) -> tuple[list[float], list[float]]:
        """Seconds and losses, the means of the bins that hold an update."""
        filled = [i for i in range(BINS) if self._count[i]]
        return [self._seconds[i] / self._count[i] for i in filled], [self._loss[i] / self._count[i] for i in filled]

    def columns(self, count: int) -> list[float | None]:
        """The mean of each of `count` parts of the training; parts without an update lie on the line between those
        around them, parts after the last one are None."""
        sums, counts = [0.0] * count, [0] * count
        for place in range(BINS):
            sums[place * count // BINS] += self._loss[place]
            counts[place * count // BINS] += self._count[place]
        values = [s / c if c else None for s, c in zip(sums, counts, strict=True)]
        known = [(i, v) for i, v in enumerate(values) if v is not None]
        for (i, first), (j, second) in pairwise(known):
            for k in range(i + 1, j):
                values[k] = first + (second - first) * (k - i) / (j - i)
        return values


def draw(curve: LossCurve, path: Path, *, title: str, colour: str, levels: Sequence[tuple[str, float]] = ()) -> None:
    """The losses, given in nats, in bits against seconds, as PNG or SVG; levels: names and bits to compare with."""
    figure = pictures.figure(8, 4.5)
    axis = figure.subplots()
    seconds, losses = curve.points()
    x, y = _with_gaps(seconds, [bits(loss) for loss in losses])
    axis.plot(x, y, color=colour, linewidth=1.2, alpha=0.8, label="training, each update")
    if curve.validation:
        axis.plot(
            [s for _, s, _ in curve.validation],
            [bits(loss) for _, _, loss in curve.validation],
            "o",
            color=pictures.INK,
            markersize=5,
            label="validation",
        )
    for name, level in levels:
        axis.axhline(level, color=pictures.FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axis.annotate(
            f"{name}: {level:.2f}", (1, level), (-4, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", color=pictures.INK, fontsize=9,
        )  # fmt: skip
    low = min([level for _, level in levels] + [bits(loss) for loss in losses])
    axis.set_xlim(left=0)
    axis.set_ylim(0.95 * low, 1.03 * max(bits(loss) for loss in losses))
    axis.set_title(title, loc="left", color=pictures.INK)
    axis.set_xlabel("seconds")
    axis.set_ylabel("bits a character")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    pictures.save(figure, path)


def _with_gaps(seconds: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """The same points, the line between them interrupted where the training was: by a validation."""
    usual = sorted(b - a for a, b in pairwise(seconds))[len(seconds) // 2] if len(seconds) > 2 else 0.0
    x, y = list(seconds[:1]), list(values[:1])
    for (before, second), value in zip(pairwise(seconds), values[1:], strict=True):
        if second - before > max(1.0, 5 * usual):
            x.append(before)
            y.append(math.nan)
        x.append(second)
        y.append(value)
    return x, y
