"""Pictures of clips with the captions that a model wrote: at which frames it looked while it wrote each word; and a
clip as one still picture, for contact sheets and reports."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unrolled.inspection import pictures
from unrolled.inspection.pictures import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, LEFT, EDGE = 9.6, 1.9, 0.25
"""Inches of the frames, of the words beside them, and around all."""
SHOWN = 10
"""Frames in the strip, at most."""
ROW = 0.27
"""Inches of a word's row."""
WORDS = 40
"""Words that are drawn, at most."""
CELLS = ("#ffffff", "#dbe6f7", "#9dbce8", "#4c72b0", "#22406f")
"""From no weight to the largest."""


class Still:
    """A clip as one picture of six frames, the regions of which are pieces of its time: what a report on a captioner
    of pictures asks of the network that looks (`nn/vision.Backbone`)."""

    grid = (2, 3)
    """Rows and columns of frames"""

    def place(self, height: int, width: int) -> tuple[float, float, float, float]:
        """All of the picture: left, top, right, bottom."""
        return 0.0, 0.0, float(width), float(height)

    def pieces(self, count: int) -> list[slice]:
        """Of so many frames those of each piece; some belong to several where there are fewer than pieces."""
        pieces = self.grid[0] * self.grid[1]
        begins = [n * count // pieces for n in range(pieces + 1)]
        return [slice(begin, max(end, begin + 1)) for begin, end in zip(begins, begins[1:], strict=False)]

    def picture(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """frames: (H, W, C) uint8 each. The middle one of each piece, row by row, white lines between them on their own
        pixels: (2 H, 3 W, 3)."""
        middles = [(piece.start + piece.stop - 1) // 2 for piece in self.pieces(len(frames))]
        chosen = [np.broadcast_to(frames[n], (*frames[n].shape[:2], 3)) for n in middles]
        rows, columns = self.grid
        still = np.concatenate([np.concatenate(chosen[r * columns : (r + 1) * columns], 1) for r in range(rows)])
        height, width = frames[0].shape[:2]
        thick = max(1, height // 64)
        for row in range(1, rows):
            still[row * height - thick : row * height] = 255
        for column in range(1, columns):
            still[:, column * width - thick : column * width] = 255
        return still

    def light(self, weights: Sequence[float]) -> list[float]:
        """A word's weights of the frames to those of the pieces."""
        return [sum(weights[piece]) for piece in self.pieces(len(weights))]


def captioned(frames: Sequence[np.ndarray], found: Any, numbers: Sequence[int] | None = None) -> "Figure":
    """frames: (H, W, C) uint8 each, those that the words can look at; found: a `Caption`, with its attention where the
    model has one; numbers: of the frames, where they are not 0, 1, 2, …

    From the top: the caption; frames from all of the clip; a row a word, darker where the model looked while it wrote
    the word. Columns of the rows lie under their frames.
    """
    from matplotlib.figure import Figure

    weights = np.array(found.attention or [])[:WORDS]
    text = " ".join(found.text.split()).replace("$", r"\$") or "(nothing)"
    words = [token.strip().replace("$", r"\$") or "␣" for token in found.tokens[: len(weights)]]
    fonts, (text, *words) = pictures.drawable(text, *words)
    lines = textwrap.wrap(text, 88)
    shown = min(len(frames), SHOWN)
    tile = WIDE / shown
    tall = min(1.5, (tile - 0.06) * frames[0].shape[0] / frames[0].shape[1])
    title, below, note = 0.3 * len(lines), 0.25, 0.5 if words else 0.0
    width, height = LEFT + WIDE + EDGE, 2 * EDGE + title + tall + below + ROW * len(words) + note
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for n, line in enumerate(lines):
        axes.text(LEFT, EDGE + 0.3 * n, line, va="top", fontsize=14, fontweight="bold", fontfamily=fonts, color=INK)
    top = EDGE + title + 0.08
    for n in range(shown):
        at = (2 * n + 1) * len(frames) // (2 * shown)
        number = at if numbers is None else numbers[at]
        _frame(axes, frames[at], number, (LEFT + n * tile, top, tile, tall))
    if words:
        _weights(axes, weights, words, top + tall + below, fonts)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _weights(axes: Any, weights: np.ndarray, words: Sequence[str], top: float, fonts: list[str]) -> None:
    """A row a word, a column a frame."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("weights", CELLS)
    bottom, right = top + ROW * len(words), LEFT + WIDE
    axes.imshow(
        weights, extent=(LEFT, right, bottom, top), cmap=colours, vmin=0, aspect="auto", interpolation="nearest"
    )
    for n, word in enumerate(words):
        axes.text(
            LEFT - 0.12, top + ROW * (n + 0.5), word, ha="right", va="center", fontsize=11.5, fontfamily=fonts,
            color=INK if word != "<end>" else FAINT,
        )  # fmt: skip
    axes.plot([LEFT, right, right, LEFT, LEFT], [top, top, bottom, bottom, top], color="#c8c8c8", lw=0.8)
    axes.text(
        LEFT, bottom + 0.1, f"Dark: where the model looks while it writes the word. {weights.shape[1]} frames, at most "
        f"{weights.max():.0%} on one.", va="top", fontsize=10, color=FAINT,
    )  # fmt: skip


def _frame(axes: Any, picture: np.ndarray, number: int, box: tuple[float, float, float, float]) -> None:
    """A frame above its place in the rows, its number below; box: left, top, width, height."""
    left, top, tile, tall = box
    wide = tall * picture.shape[1] / picture.shape[0]
    x = left + (tile - wide) / 2
    grey = picture.shape[2] == 1
    axes.imshow(
        picture[..., 0] if grey else picture, extent=(x, x + wide, top + tall, top), cmap="gray" if grey else None,
        vmin=0, vmax=255, aspect="auto", interpolation="nearest" if picture.shape[0] <= 96 else "lanczos",
    )  # fmt: skip
    axes.text(left + tile / 2, top + tall + 0.05, str(number), ha="center", va="top", fontsize=9, color=FAINT)
