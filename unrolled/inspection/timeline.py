"""Pictures of clips with what a model says of them: frames in a strip, labels under them, probabilities over time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unrolled.inspection import pictures
from unrolled.inspection.pictures import FAINT, INK, LOSS, OUTPUT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, STRIP = 11.0, 1.1
"""Inches that the strip takes, and its height."""
SHOWN = 12
"""Frames in the strip, at most."""
LETTERS = 90
"""Points of size times letters that fit into an inch, in bold."""
NAMED = 8
"""Labels of a clip that are shown, and curves: there is no telling more apart."""
LIKELY = 0.15
"""A label has a curve if its probability reaches this somewhere."""
CURVES = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#64b5cd")
FILLS = ("#b8cdf0", "#f4cfae", "#b8dfb8", "#f4b8b8", "#cfc6e6", "#d8c9bd", "#f2cfe6", "#c3e3ec")


def fitting(width: int, height: int) -> int:
    """How many frames of this form stand side by side."""
    return max(6, min(SHOWN, int(WIDE / (STRIP * width / height))))


def labelled(frames: Sequence[np.ndarray], found: Any, labels: Sequence[str], true: Any = None) -> "Figure":
    """frames: (H, W, C) uint8 each, from the middle of equal parts of the clip, as `video.frames` gives so many with
    `count`; found: what `FrameLabeler.predict` says of the clip; labels: all that there are; true: the right segments
    in the form of `found.segments`, or None.

    From the top: the strip; under each frame its label and its number; the segments on a line of time; the probability
    of each label, for those that are likely somewhere.
    """
    rows = [1.6, 0.42, 1.8] if true is None else [1.6, 0.42, 0.42, 1.8]
    drawn = pictures.figure(12, 0.55 + sum(rows))
    grid = drawn.add_gridspec(len(rows), 1, height_ratios=rows)
    likely = [labels[n] for n in np.argsort(-found.probabilities.sum(0)) if found.probabilities[:, n].max() >= LIKELY]
    hues = {label: n for n, label in enumerate(dict.fromkeys([*likely, *(s.label for s in true or found.segments)]))}
    fills = {label: FILLS[n % len(FILLS)] for label, n in hues.items()}  # a label has one colour, wherever it stands
    span, count = found.segments[-1].end, len(found.labels)
    numbers = [(2 * n + 1) * count // (2 * len(frames)) for n in range(len(frames))]
    longest = max(len(found.labels[n]) for n in numbers)
    size = max(6, min(12, int(LETTERS * WIDE / len(frames) / longest)))
    lines = [((found.labels[n], size, INK, "bold"), (f"{n * span // count}", 9, FAINT, "normal")) for n in numbers]
    _strip(drawn.add_subplot(grid[0]), frames, lines)
    if true is not None:
        _segments(drawn.add_subplot(grid[1]), true, fills, span, "truth")
    _segments(drawn.add_subplot(grid[-2]), found.segments, fills, span, "predicted")
    _curves(drawn.add_subplot(grid[-1]), found, {label: labels.index(label) for label in likely[: len(CURVES)]}, span)
    return drawn


def classified(frames: Sequence[np.ndarray], found: Any) -> "Figure":
    """The strip of a clip's frames, and the likeliest labels with their probabilities."""
    ranked = sorted(found.probabilities.items(), key=lambda item: -item[1])[:NAMED]
    height = 0.3 + 0.27 * len(ranked)
    drawn = pictures.figure(12, 1.8 + height)
    grid = drawn.add_gridspec(2, 1, height_ratios=[1.4, height])
    _strip(drawn.add_subplot(grid[0]), frames, [()] * len(frames))
    axes = drawn.add_subplot(grid[1])
    names, values = [name for name, _ in ranked], [value for _, value in ranked]
    bars = axes.barh(range(len(ranked)), values, color=[OUTPUT if n else LOSS for n in range(len(ranked))], height=0.72)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, fontsize=10, color=INK)
    axes.set_yticks(range(len(ranked)), names, fontsize=11, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.06)
    axes.set_xlabel("probability", fontsize=10, color=INK)
    _plain(axes)
    return drawn


def _strip(axes: "Axes", frames: Sequence[np.ndarray], lines: Sequence[Sequence[tuple[str, int, str, str]]]) -> None:
    """Frames side by side, each with its lines below: text, size, colour and weight."""
    height, width = frames[0].shape[:2]
    for place, (picture, below) in enumerate(zip(frames, lines, strict=True)):
        left, drop = place * 1.04, 4
        box = (left, left + 1, 0, height / width)
        axes.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, extent=box, cmap="gray", vmin=0, vmax=255)
        for text, size, colour, weight in below:
            axes.annotate(
                text, (left + 0.5, 0), (0, -drop), textcoords="offset points", ha="center", va="top", fontsize=size,
                color=colour, weight=weight, annotation_clip=False,
            )  # fmt: skip
            drop += size + 5
    axes.set_xlim(0, len(frames) * 1.04 - 0.04)
    axes.set_ylim(0, height / width)
    axes.set_axis_off()


def _segments(axes: "Axes", segments: Sequence[Any], fills: dict[str, str], span: int, name: str) -> None:
    for s in segments:
        axes.barh(0, s.end - s.begin, left=s.begin, height=1, color=fills[s.label], edgecolor="white", linewidth=1.2)
        if (s.end - s.begin) * 12 / span > 0.11 * len(s.label):  # it fits
            axes.text((s.begin + s.end) / 2, 0, s.label, ha="center", va="center", fontsize=11, color=INK)
    axes.set_xlim(0, span)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([0], [name], fontsize=10, color=INK)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _curves(axes: "Axes", found: Any, labels: dict[str, int], span: int) -> None:
    """The probability over time of these labels, each with its number; the likeliest first."""
    time = (np.arange(len(found.labels)) + 0.5) * span / len(found.labels)
    for colour, (label, number) in zip(CURVES, labels.items(), strict=False):
        axes.plot(time, found.probabilities[:, number], color=colour, linewidth=1.8, label=label)
    axes.set_xlim(0, span)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("frame", fontsize=10, color=INK)
    axes.set_ylabel("probability", fontsize=10, color=INK)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=10)
    _plain(axes)


def _plain(axes: "Axes") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
