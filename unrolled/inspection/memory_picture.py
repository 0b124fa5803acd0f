"""The picture of `measure_memory`: how far back gradients reach, any length in constant memory, what depth brings."""

from typing import TYPE_CHECKING, Any

from unrolled.inspection import pictures
from unrolled.inspection.pictures import COLOURS, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
LOWEST = 1e-12
"""Gradients below it are not shown."""
SMALL, MEDIUM, LARGE = 10, 11, 13
"""Points"""
MIB = 2**20


def draw(found: dict[str, Any]) -> "Figure":
    """One sheet. found: what `measure_memory` returns."""
    figure = pictures.figure(14, 10)
    grid = figure.add_gridspec(2, 3, height_ratios=[1.45, 1])
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12, wspace=0.03, hspace=0.03)
    _gradients(figure.add_subplot(grid[0, :]), found)
    _memory(figure.add_subplot(grid[1, 0]), found["long_run"])
    _time(figure.add_subplot(grid[1, 1]), found["long_run"])
    _depth(figure.add_subplot(grid[1, 2]), found["depth"])
    return figure


def _gradients(axes: "Axes", found: dict[str, Any]) -> None:
    cells = {cell: each for cell, each in found["gradients"].items() if cell in NAMES}
    for cell, each in cells.items():
        _untrained(axes, cell, each["untrained"]["h"]["median"])
    for cell, each in cells.items():
        for node, line in each["trained"].items():
            _followed(axes, cell, node, line)
    lags, chunk = found["settings"]["lags"], found["training"]["bptt"]
    shown = [line["median"] for each in cells.values() for line in each["trained"].values()]
    axes.set_yscale("log")
    axes.set_xlim(0, lags)
    axes.set_ylim(max(LOWEST, min(map(min, shown)) / 2), 4 * max(map(max, shown)))
    if chunk < lags:
        axes.axvline(chunk, color=FAINT, lw=1, ls=(0, (2, 3)), zorder=0)
        axes.annotate(
            f"training cuts gradients off\nafter at most {chunk} steps",
            (chunk, 0.98), (6, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=SMALL, color=FAINT, va="top",
        )  # fmt: skip
    axes.plot([], [], color=FAINT, lw=1.2, ls=":", label=r"before training, by $h_{t-k}$")
    axes.legend(
        fontsize=MEDIUM, framealpha=0.95, edgecolor="none", loc="upper right", alignment="left", title_fontsize=SMALL,
        title="dots: steps back at which the median has fallen\nto 1/10, 1/100, 1/1000 of its value at $k$ = 1",
    )  # fmt: skip
    _style(
        axes,
        "How far back gradients reach",
        "$k$, timesteps (characters) back",
        r"$\|\partial L_t/\partial h_{t-k}\|$,   dashed: $\|\partial L_t/\partial c_{t-k}\|$",
    )
    rows = found["gradients"]["windows"]
    what = "the loss of timestep $t$, differentiated by the states $k$ steps before; median and quartiles"
    axes.set_title(f"{what} of {rows} stretches of validation text", loc="right", fontsize=SMALL, color=INK)


def _followed(axes: "Axes", cell: str, node: str, line: dict[str, Any]) -> None:
    """One curve after training, with its quartiles and its reach."""
    colour, by_h = COLOURS[cell], node == "h"
    fallen = ", ".join("–" if k is None else str(k) for k in line["reach"].values())
    label = rf"{NAMES[cell]}, by ${node}_{{t-k}}$:  {fallen}"
    steps = range(len(line["median"]))
    style: dict[str, Any] = {"lw": 2.4, "ls": "-"} if by_h else {"lw": 1.8, "ls": (0, (5, 2))}
    axes.plot(steps, line["median"], color=colour, label=label, **style)
    if by_h:
        axes.fill_between(steps, line["lower_quartile"], line["upper_quartile"], color=colour, alpha=0.16, lw=0)
    reached = [k for k in line["reach"].values() if k is not None]
    axes.plot(reached, [line["median"][k] for k in reached], "o", color=colour, ms=6 if by_h else 4.5, mec="white")


def _untrained(axes: "Axes", cell: str, median: list[float]) -> None:
    axes.plot(range(len(median)), median, color=COLOURS[cell], lw=1.2, ls=":", alpha=0.7)


def _memory(axes: "Axes", found: dict[str, Any]) -> None:
    title = "Memory at any length"
    if found["memory_not_measured"]:
        axes.text(0.5, 0.5, "not measured here", ha="center", color=FAINT, fontsize=MEDIUM, transform=axes.transAxes)
    else:
        for name, label, how in _runs():
            rows = found[name]
            sizes = [max(0.0, row["bytes"] / MIB) for row in rows]
            axes.plot([row["steps"] for row in rows], sizes, label=label, **how)
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1, linscale=0.5)
        axes.set_ylim(-0.2, 60 * max(1.0, *(row["bytes"] / MIB for row in found["backpropagate"])))
        ticks = [tick for tick in (0, 1, 10, 100, 1_000) if tick < axes.get_ylim()[1]]
        axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.legend(fontsize=SMALL, frameon=False, loc="upper left")
    _style(axes, title, "timesteps", "growth of resident memory, MiB")


def _time(axes: "Axes", found: dict[str, Any]) -> None:
    highest = 0.0
    for name, label, how in _runs()[:2]:
        rows = found[name]
        micros = [1e6 * row["seconds_per_step"] for row in rows]
        highest = max(highest, *micros)
        axes.plot([row["steps"] for row in rows], micros, label=label, **how)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.45 * highest)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left")
    _style(axes, "Time a step at any length", "timesteps", "microseconds a timestep")


def _runs() -> list[tuple[str, str, dict[str, Any]]]:
    """Which rows, what they are called, and how they are drawn."""
    colour = COLOURS["lstm"]
    return [
        ("read", "read, state carried", {"color": colour, "marker": "o", "lw": 2.2}),
        ("write", "write", {"color": colour, "marker": "s", "lw": 1.8, "ls": (0, (5, 2)), "mfc": "white"}),
        ("backpropagate", "train on all at once (full BPTT)", {"color": INK, "marker": "^", "lw": 1.8, "ls": ":"}),
    ]


def _depth(axes: "Axes", found: dict[str, Any]) -> None:
    colour = COLOURS["lstm"]
    lines: list[tuple[str, str, dict[str, Any]]] = [
        ("same_width", "the same width", {"color": colour, "marker": "o", "lw": 2.2}),
        ("same_parameters", "as many parameters", {"color": colour, "marker": "s", "lw": 1.8, "ls": (0, (5, 2))}),
    ]
    for name, label, how in lines:
        rows = found[name]
        axes.plot([r["layers"] for r in rows], [r["bits_per_character"] for r in rows], label=label, **how)
    every = [r for rows in found.values() for r in rows]
    low, high = (f(r["bits_per_character"] for r in every) for f in (min, max))
    room = max(high - low, 0.02)
    axes.set_ylim(low - 0.4 * room, high + 0.75 * room)
    for number in range(1, len(found["same_width"])):
        _name_models(axes, found["same_width"][number], found["same_parameters"][number])
    _label(axes, found["same_width"][0], (-10, 0), ha="right", va="center")
    layers = [r["layers"] for r in found["same_width"]]
    axes.set_xticks(layers)
    axes.set_xlim(min(layers) - 0.8, max(layers) + 0.4)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left", ncols=2, columnspacing=1.2, handlelength=1.8)
    _style(axes, "Depth, in the same training time", "LSTM layers", "bits a character (less is better)")


def _name_models(axes: "Axes", wide: dict[str, Any], narrow: dict[str, Any]) -> None:
    """The labels of the two models of one depth: of the upper one above it, of the lower one below."""
    lower, upper = sorted((narrow, wide), key=lambda row: row["bits_per_character"])
    _label(axes, upper, (0, 8), ha="center", va="bottom")
    _label(axes, lower, (0, -8), ha="center", va="top")


def _label(axes: "Axes", row: dict[str, Any], offset: tuple[int, int], **alignment: Any) -> None:
    axes.annotate(
        f"{row['bits_per_character']:.2f}\n{row['hidden']} units",
        (row["layers"], row["bits_per_character"]), offset, textcoords="offset points",
        fontsize=SMALL, color=INK, linespacing=1.1, **alignment,
        bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
    )  # fmt: skip


def _style(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=LARGE, fontweight="bold", color=INK, pad=9)
    axes.set_xlabel(x, fontsize=MEDIUM, color=INK)
    axes.set_ylabel(y, fontsize=MEDIUM, color=INK)
    axes.tick_params(labelsize=SMALL, colors=INK)
    axes.grid(True, color="#e4e4e4", lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
