"""Pictures with the captions that a model wrote: a contact sheet, and where it looked while it wrote each word."""

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unrolled.inspection import pictures
from unrolled.inspection.pictures import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
"""Of the sheet."""
SIDE, GAP = 2.9, 0.22
"""Inches of a picture's box, and between two."""
WRITTEN, TRUE = 12.5, 9.5
"""Points of the model's caption, and of the references."""
REFERENCES = 2
"""Reference captions under a picture of the sheet; the report has all."""
TILE = 2.0
"""Inches of a picture under a word."""
DARK = 0.25
"""What is left of a picture's light where the model does not look."""
STOPS = ".,;:!?"
WORDS = 40
"""Words that are drawn, at most."""


class Shown(NamedTuple):
    """A picture and what is said of it."""

    picture: np.ndarray
    """(H, W, 3) uint8"""
    written: str
    references: Sequence[str]


def sheet(shown: Sequence[Shown]) -> "Figure":
    """Pictures side by side; under each the model's caption, and in small letters two of the reference captions."""
    from matplotlib.figure import Figure

    fonts, texts = pictures.drawable(*(_plain(text) for s in shown for text in (s.written, *s.references[:REFERENCES])))
    drawable = iter(texts)
    columns = min(COLUMNS, len(shown))
    rows = [shown[at : at + columns] for at in range(0, len(shown), columns)]
    cells = [[_lines([next(drawable) for _ in (s.written, *s.references[:REFERENCES])]) for s in row] for row in rows]
    heights = [max(_height(cell) for cell in row) for row in cells]
    width = columns * (SIDE + GAP) + GAP
    height = sum(heights) + len(rows) * (SIDE + 2 * GAP) + GAP / 2
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    top = GAP
    for row, texts_of, below in zip(rows, cells, heights, strict=True):
        for column, (s, lines) in enumerate(zip(row, texts_of, strict=True)):
            left = GAP + column * (SIDE + GAP)
            _fit(axes, s.picture, left, top, SIDE)
            _under(axes, lines, left, top + SIDE + 0.1, fonts)
        top += SIDE + below + 2 * GAP
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _lines(texts: Sequence[str]) -> list[tuple[str, bool]]:
    """The model's caption and the references, wrapped; True for the model's."""
    written, *true = texts
    lines = [(line, True) for line in textwrap.wrap(written, 27) or ["(nothing)"]]
    return lines + [(line, False) for text in true for line in textwrap.wrap(text, 40, initial_indent="· ")]


def _height(lines: Sequence[tuple[str, bool]]) -> float:
    return 0.1 + sum(_leading(written) for _, written in lines)


def _leading(written: bool) -> float:
    """Inches from a line to the next."""
    return 1.35 * (WRITTEN if written else TRUE) / 72


def _under(axes: "Axes", lines: Sequence[tuple[str, bool]], left: float, top: float, fonts: list[str]) -> None:
    for line, written in lines:
        axes.text(
            left, top, line, va="top", fontfamily=fonts, fontsize=WRITTEN if written else TRUE,
            fontweight="bold" if written else "normal", color=INK if written else "#5a5a5a",
        )  # fmt: skip
        top += _leading(written)


def _fit(axes: "Axes", picture: np.ndarray, left: float, top: float, side: float) -> None:
    """The picture as large as fits into a square, on a faint ground."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), side, side, facecolor="#f2f2f2", linewidth=0))
    scale = side / max(picture.shape[:2])
    height, width = (scale * length for length in picture.shape[:2])
    x, y = left + (side - width) / 2, top + (side - height) / 2
    axes.imshow(picture, extent=(x, x + width, y + height, y), interpolation="lanczos", aspect="auto", zorder=2)


def attention(picture: np.ndarray, found: Any, eye: Any) -> "Figure":
    """The picture, and for each word that the model wrote the picture again, light where it looked.

    found: a `Caption` with its attention; eye: where its regions are. Outside of what the network sees of the
    picture it is dark.
    """
    from matplotlib.figure import Figure

    weights = np.array(found.attention)[:WORDS]
    fonts, words = pictures.drawable(*(_plain(token.strip()) or "␣" for token in found.tokens[:WORDS]))
    columns = min(6, len(words) + 1)
    rows = -(-(len(words) + 1) // columns)
    tall = TILE * min(1.5, picture.shape[0] / picture.shape[1])
    width, height = columns * (TILE + 0.12) + 0.12, rows * (tall + 0.42) + 0.4
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    light = [_light(w.reshape(eye.grid), picture.shape[:2], eye) for w in weights]
    brightest = max(float(layer.max()) for layer in light)
    for n, name in enumerate(["", *words]):
        left, top = 0.12 + (n % columns) * (TILE + 0.12), 0.42 + (n // columns) * (tall + 0.42)
        drawn = picture if n == 0 else shaded(picture, light[n - 1] / brightest)
        axes.imshow(drawn, extent=(left, left + TILE, top + tall, top), interpolation="lanczos", aspect="auto")
        axes.text(left + 0.02, top - 0.08, name, fontsize=14, fontfamily=fonts, color=INK, fontweight="bold")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.text(
        0.12, height - 0.12, f"Light: where the model looks while it writes the word. {len(weights[0])} regions, "
        f"at most {weights.max():.0%} in one.", fontsize=9.5, color=FAINT,
    )  # fmt: skip
    return figure


def shaded(picture: np.ndarray, light: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 under light (H, W) from 0 to 1."""
    return (picture * (DARK + (1 - DARK) * light[..., None])).astype(np.uint8)


def _light(weights: np.ndarray, size: tuple[int, int], eye: Any) -> np.ndarray:
    """Weights of regions (rows, columns), smooth, at their place in a picture of this size (H, W)."""
    from PIL import Image

    left, top, right, bottom = eye.place(*size)
    x, y = max(0, round(left)), max(0, round(top))
    width, height = min(size[1], round(right)) - x, min(size[0], round(bottom)) - y
    spread = Image.fromarray(weights.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    light = np.zeros(size, dtype=np.float32)
    light[y : y + height, x : x + width] = np.maximum(np.asarray(spread), 0)
    return light


def tidy(text: str) -> str:
    """Without the space before a full stop, where captions have one.

    >>> tidy("a dog , it runs .")
    'a dog, it runs.'
    """
    return re.sub(rf" (?=[{STOPS}](?: |$))", "", text)


def _plain(text: str) -> str:
    """Nothing in it is mathematics."""
    return tidy(text).replace("$", r"\$")
