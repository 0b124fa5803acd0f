"""Drawing an unrolled graph."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.inspection import pictures
from unrolled.inspection.graph.layout import CELL_STATE, Arrow, Box, Note, lay_out
from unrolled.inspection.graph.nodes import Graph, Node

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILLS = {
    "input": pictures.INPUT,
    "embedding": pictures.INPUT,
    "state": pictures.STATE,
    "start": pictures.STATE,
    "hidden": pictures.STATE,
    "context": pictures.STATE,
    "output": pictures.OUTPUT,
    "loss": pictures.LOSS,
    "total": pictures.LOSS,
    "weight": "#ececec",
    "join": "white",
    "pool": pictures.STATE,
    "target": "white",
}
LABEL, SMALL_LABEL = 14.0, 11.0
"""Type sizes of what is written in boxes, in points."""
ROLES: dict[str, dict[str, Any]] = {
    "title": {"size": 17.0, "weight": "bold", "color": pictures.INK},
    "heading": {"size": 15.0, "weight": "bold", "color": pictures.INK},
    "example": {"size": 12.0, "style": "italic", "color": pictures.INK},
    "subtitle": {"size": 11.0, "color": "#555555"},
    "row": {"size": 10.5, "weight": "bold", "color": pictures.INK},
    "formula": {"size": 13.0, "color": pictures.INK},
    "shapes": {"size": 11.0, "color": "#444444"},
    "detail": {"size": 9.5, "color": "#555555"},
    "dots": {"size": 18.0, "color": pictures.INK},
    "caption": {"size": 10.5, "color": "#555555", "linespacing": 1.4},
    "note": {"size": 10.5, "color": "#555555"},
}
STYLES: dict[str, dict[str, Any]] = {
    "forward": {"color": pictures.INK, "linewidth": 1.1, "zorder": 3},
    "recurrent": {"color": pictures.INK, "linewidth": 1.1, "zorder": 3},
    "feedback": {"color": pictures.INK, "linewidth": 1.1, "zorder": 2, "linestyle": (0, (4, 2.5))},
    "weight": {"color": "#9a9a9a", "linewidth": 0.9, "zorder": 1},
    "carried": {"color": pictures.INK, "linewidth": 1.1, "zorder": 3},
    "boundary": {"color": "#b03a3a", "linewidth": 1.3, "zorder": 2, "linestyle": (0, (5, 3))},
}


def draw(graph: Graph) -> "Figure":
    """The figure of a graph."""
    scene = lay_out(graph)
    figure, axes = canvas(scene.width, scene.height)
    for arrow in scene.arrows:
        draw_arrow(axes, arrow)
    for name, box in scene.boxes.items():
        _node(axes, graph.nodes[name], box)
    for note in scene.notes:
        write(axes, note)
    return figure


def save(graph: Graph, path: Path) -> None:
    """Write the picture of a graph, as PNG or SVG."""
    pictures.save(draw(graph), path)


def canvas(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure and axes that cover it, in inches."""
    figure = pictures.figure(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    return figure, axes


def rectangle(axes: "Axes", box: Box, fill: str, dashed: bool = False) -> None:
    """A box with round corners."""
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (box.left, box.bottom),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=fill,
            edgecolor=pictures.INK,
            linewidth=1.0,
            linestyle=(0, (3, 2)) if dashed else "solid",
            zorder=4,
        )
    )


def draw_arrow(axes: "Axes", arrow: Arrow) -> None:
    """A line, with a head whose tip is its last point."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon

    style, points = STYLES[arrow.kind], list(arrow.points)
    if arrow.head:
        length, width = (0.085, 0.035) if arrow.kind == "weight" else (0.125, 0.05)
        (x0, y0), (x, y) = points[-2:]
        away = math.hypot(x - x0, y - y0)
        dx, dy = (x - x0) / away, (y - y0) / away
        base = (x - dx * length, y - dy * length)
        corners = [(x, y), (base[0] - dy * width, base[1] + dx * width), (base[0] + dy * width, base[1] - dx * width)]
        axes.add_patch(Polygon(corners, facecolor=style["color"], linewidth=0, zorder=style["zorder"]))
        points[-1] = base
    line = Line2D(*zip(*points, strict=True), solid_capstyle="projecting", solid_joinstyle="miter", **style)
    axes.add_line(line)


def tight(mathematics: str) -> str:
    """Subscripts such as t-1 without the space around a minus between numbers."""
    return re.sub(r"([tT])([+-])1", r"\1{\2}1", mathematics)


def write(axes: "Axes", note: Note) -> None:
    """Text outside the boxes."""
    axes.text(note.x, note.y, tight(note.text), ha=note.align, va="center", math_fontfamily="stix", **ROLES[note.role])


def _node(axes: "Axes", node: Node, box: Box) -> None:
    if node.kind != "target":
        rectangle(axes, box, FILLS[node.kind], dashed=node.name.startswith("fed"))
    small = node.kind in ("target", "join", "pool", "weight", "context") or node.name == "start"
    for line, label in enumerate(node.label):
        y = box.y + (2 * CELL_STATE * ((len(node.label) - 1) / 2 - line))
        axes.text(
            box.x,
            y,
            tight(f"${label}$"),
            ha="center",
            va="center",
            fontsize=SMALL_LABEL if small else LABEL,
            color=pictures.INK,
            math_fontfamily="stix",
            zorder=5,
        )
