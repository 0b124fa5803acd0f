"""The roofline picture: how fast each model runs beside what the machine's arithmetic and memory allow.

After Williams, Waterman & Patterson 2009. The height of a point is dense-equivalent GFLOP/s; its place from left to
right the FLOP of the work over the bytes that it has to move at least (`intensity`), the same for all contenders. A
model that stays in a cache can lie above the slanted roof, which is that of main memory.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.app.bench.peers import GATES
from unrolled.app.bench.report import NAMES

OURS = "unrolled"
DARK, OURS_COLOUR, PEER_COLOUR, ROOF = "#1a1a1a", "#0b4fa8", "#b3470e", "#555555"
MARKERS = {"torch.nn": "s", "PyTorch": "s", "torch.nn one-hot": "P", "torch.compile": "^", "ONNX Runtime": "D"}
SHIFTS = [(dx, dy) for reach in (9, 18, 30, 45, 65, 90) for dy in range(-5, 6) for dx in (reach, -reach)]
SHIFTS.sort(key=lambda shift: abs(shift[0]) + 6 * abs(shift[1]))
"""Places to try for a label: points to the right or left of its mark, lines up or down."""


class Point(NamedTuple):
    intensity: float
    gflops: float
    name: str
    label: str


def intensity(row: dict[str, Any]) -> float:
    """FLOP a byte, counting in float32 what has to move at least.

    Generation: every weight once a step. Training: every weight read forward and backward, its gradient written, and
    AdamW's seven passes; of each timestep, row and layer the gates, their gradients and the state, written and read.
    """
    gates, layers, hidden = GATES[row["cell"]], row["layers"], row["hidden"]
    weights = layers * gates * hidden * 2 * hidden + 65 * hidden
    if "steps" not in row:
        return row["batch"] * row["flop"] / (4 * weights)
    kept = layers * hidden * (2 * gates + (2 if row["cell"] == "lstm" else 1))
    return row["flop"] / (4 * (10 * weights + 2 * kept * row["batch"] * row["steps"]))


def points(rows: Sequence[dict[str, Any]]) -> list[Point]:
    """Ours and the best peer's of each row."""
    found = []
    for row in rows:
        label = f"{NAMES[row['cell']]} {row['layers']}×{row['hidden']}"
        label += f", {row['batch']} rows" if "steps" not in row and row["batch"] > 1 else ""
        for name in (OURS, row["best_peer"]):
            seconds = row["contenders"][name]["seconds"]
            found.append(Point(intensity(row), row["flop"] / seconds / 1e9, name, label))
    return found


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG, a panel for generation and one for training. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (title, points(results[suite]["rows"]))
        for suite, title in (("generation", "Generation"), ("training", "Training step"))
        if suite in results
    ]
    with pyplot.rc_context({"font.size": 10, "text.color": DARK, "axes.labelcolor": DARK, "axes.edgecolor": DARK}):
        figure, axes = pyplot.subplots(1, len(panels), figsize=(7.5 * len(panels), 7), dpi=110, squeeze=False)
        for axis, (title, found) in zip(axes[0], panels, strict=True):
            _panel(axis, title, found, results["machine"])
        machine = results["machine"]
        figure.suptitle(
            f"{machine['cpu']}, threads: {machine['threads']}. "
            f"Measured: {machine['matrix_gflops']:.0f} GFLOP/s in matrix products, "
            f"{machine['bandwidth_gbs']:.0f} GB/s of memory",
            color=DARK,
        )
        figure.tight_layout()
        for axis, (_, found) in zip(axes[0], panels, strict=True):
            _label(figure, axis, found, results["machine"])
        figure.savefig(path, facecolor="white")
        pyplot.close(figure)


def _panel(axis: Any, title: str, found: list[Point], machine: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    peak, bandwidth = machine["matrix_gflops"], machine["bandwidth_gbs"]
    xs, ys = [p.intensity for p in found], [p.gflops for p in found]
    low, high = min(xs) / 3, max(*xs, peak / bandwidth) * 3
    corners = [x for x in (low, peak / bandwidth, high) if x >= low]
    axis.plot(corners, [min(peak, x * bandwidth) for x in corners], color=ROOF, linewidth=1.5, gid="roof")
    for one, other in zip(found[::2], found[1::2], strict=True):
        axis.plot([one.intensity, other.intensity], [one.gflops, other.gflops], color="#c8c8c8", linewidth=1, zorder=1)
    for name in dict.fromkeys(p.name for p in found):
        of = [p for p in found if p.name == name]
        colour, marker = (OURS_COLOUR, "o") if name == OURS else (PEER_COLOUR, MARKERS.get(name, "X"))
        shown = name if name == OURS else f"best peer: {name}"
        style = {"color": colour, "marker": marker, "s": 42, "zorder": 3, "label": shown}
        axis.scatter([p.intensity for p in of], [p.gflops for p in of], **style)
    axis.set(xscale="log", yscale="log", title=title, xlim=(low, high))
    axis.set_ylim(min(*ys, low * bandwidth) / 1.6, max(*ys, peak) * 1.8)
    axis.set_xlabel("FLOP a byte that has to move")
    axis.set_ylabel("GFLOP/s, dense-equivalent")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(subs=(1, 2, 5)))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())
    axis.grid(True, which="major", color="#ececec", linewidth=0.7)
    axis.tick_params(colors=DARK, which="both")
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.09), "ncols": 4}  # below, where it covers no mark
    axis.legend(frameon=False, labelcolor=DARK, **place)


def _label(figure: Any, axis: Any, found: list[Point], machine: dict[str, Any]) -> None:
    """Name each mark where there is room: a label may touch no other label, no mark and no roof."""
    figure.canvas.draw()
    marks = [axis.transData.transform((p.intensity, p.gflops)) for p in found]
    roof = _roof_pixels(axis, machine)
    taken = [_around(x, y, 8) for x, y in marks] + [_around(x, y, 3) for x, y in roof]
    taken += [_name_roofs(axis, roof, machine)]
    for point in sorted(found, key=lambda p: (p.name != OURS, -p.gflops)):
        colour, size = (OURS_COLOUR, 9.5) if point.name == OURS else (PEER_COLOUR, 8.5)
        taken.append(_place(axis, point, taken, {"color": colour, "fontsize": size}))


def _name_roofs(axis: Any, roof: list[Any], machine: dict[str, Any]) -> Any:
    """Write the speeds at the ends of the roof, and return what the right one covers."""
    style = {"xycoords": "figure pixels", "color": ROOF, "fontsize": 9, "va": "bottom"}
    (x, y), (after, higher) = roof[8], roof[9]
    if higher > y + 1e-6:  # this panel shows the slanted part
        angle = math.degrees(math.atan2(higher - y, after - x))
        axis.annotate(
            f"{machine['bandwidth_gbs']:.0f} GB/s", (x - 4, y + 4), rotation=angle, rotation_mode="anchor", **style
        )
    x, y = roof[-3]
    return axis.annotate(f"{machine['matrix_gflops']:.0f} GFLOP/s", (x, y + 5), ha="right", **style).get_window_extent()


def _place(axis: Any, point: Point, taken: list[Any], style: dict[str, Any]) -> Any:
    """Write the label at the first place that is free, and return what it covers."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    for dx, dy in SHIFTS:
        far = abs(dx) > SHIFTS[0][0] or dy
        text = axis.annotate(
            point.label,
            (point.intensity, point.gflops),
            xytext=(dx, 8 * dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right",
            va="center",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": style["color"], "linewidth": 0.6} if far else None,
            **style,
        )
        text.update_positions(axis.figure.canvas.get_renderer())
        box = Text.get_window_extent(text)  # without the line that leads to it
        inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and axis.bbox.y0 < box.y0 and box.y1 < axis.bbox.y1
        if (inside and not any(box.overlaps(other) for other in taken)) or (dx, dy) == SHIFTS[-1]:
            return box
        text.remove()
    raise AssertionError("the last place is always taken")


def _around(x: float, y: float, reach: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _roof_pixels(axis: Any, machine: dict[str, Any]) -> list[Any]:
    """Places along the roof, close enough for a label not to slip between them."""
    low, high = axis.get_xlim()
    xs = [low * (high / low) ** (i / 300) for i in range(301)]
    roof = [(x, min(machine["matrix_gflops"], x * machine["bandwidth_gbs"])) for x in xs]
    return [axis.transData.transform(place) for place in roof]
