"""Why a model predicted what it did, drawn: a text whose words are coloured, and a translation's attention."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unrolled.errors import InputError
from unrolled.inspection import pictures
from unrolled.inspection.attribution import Attribution
from unrolled.inspection.pictures import FAINT, INK
from unrolled.tasks.translator import Translation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

AGAINST, NOTHING, FOR = "#d1495b", "#ffffff", "#2e6fbd"
WIDTH = 9.0
"""Inches of a picture of words"""
SIZE = 13
LINE = 0.42
"""Inches of a line of words"""
MOST_WORDS, MOST_TOKENS = 400, 80
"""That are drawn at most, the latter on a side"""
LONGEST = 40
"""Characters of a word that are drawn"""
CELL = 0.36
"""Inches of an attention weight"""
NUMBERED = 30
"""Tokens of the longer side up to which the weights are written into their cells."""


def draw_words(found: Attribution) -> "Figure":
    """The text, each word on the colour of its score: blue for the label, red against it."""
    if len(found.words) > MOST_WORDS:
        raise InputError(f"a text of {len(found.words):,} words is too long to draw, which is done up to {MOST_WORDS}")
    fonts, (label, *words) = pictures.drawable(found.label, *map(shown, found.words))
    from matplotlib.figure import Figure

    lines = _lines(words, fonts)
    height = 1.35 + LINE * len(lines)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    strongest = max(map(abs, found.scores)) or 1.0
    axes.text(0.35, 0.42, label, fontsize=17, fontweight="bold", color=INK, va="center", fontfamily=fonts)
    axes.text(
        WIDTH - 0.35, 0.42, f"probability {found.probability:.3f}, log-odds {found.log_odds:+.2f}",
        fontsize=11, color=INK, va="center", ha="right",
    )  # fmt: skip
    for number, line in enumerate(lines):
        for at, x, width in line:
            _word(axes, (x, 0.95 + LINE * number), width, words[at], found.scores[at] / strongest, fonts)
    _scale(axes, height - 0.28, strongest, found)
    return figure


def _lines(words: Sequence[str], fonts: list[str]) -> list[list[tuple[int, float, float]]]:
    """The words in lines: of each word its number, its left edge and its width in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    lines: list[list[tuple[int, float, float]]] = [[]]
    x, right = 0.35, WIDTH - 0.35
    for at, word in enumerate(words):
        width = TextPath((0, 0), word, size=SIZE, prop=FontProperties(family=fonts)).get_extents().width / 72 + 0.14
        if x + width > right and lines[-1]:
            lines.append([])
            x = 0.35
        lines[-1].append((at, x, width))
        x += width + 0.06
    return lines


def _word(axes: "Axes", place: tuple[float, float], width: float, word: str, share: float, fonts: list[str]) -> None:
    """share: its score, -1 to 1."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), fill = place, mixed(share)
    axes.add_patch(
        FancyBboxPatch(
            (x, y - 0.15), width, 0.3, boxstyle="round,pad=0,rounding_size=0.05", facecolor=fill, linewidth=0
        )
    )
    axes.text(
        x + width / 2, y + 0.01, word, fontsize=SIZE, ha="center", va="center_baseline", color=ink_on(fill),
        fontfamily=fonts,
    )  # fmt: skip


def _scale(axes: "Axes", y: float, strongest: float, found: Attribution) -> None:
    """What the colours mean."""
    left, width = 2.0, 2.0
    extent = (left, left + width, y + 0.07, y - 0.07)
    axes.imshow([[n / 50 - 1 for n in range(101)]], extent=extent, cmap=colours(), aspect="auto")
    text: dict[str, Any] = {"fontsize": 10, "va": "center", "color": INK}
    axes.text(left - 0.12, y, f"against  −{strongest:.2f}", ha="right", **text)
    axes.text(left + width + 0.12, y, f"+{strongest:.2f}  for", ha="left", **text)
    how = (
        "loss of log-odds when a word is hidden" if found.method == "occlusion" else "gradient of the log-odds × input"
    )
    axes.text(WIDTH - 0.35, y, how, ha="right", **text)


def draw_attention(found: Translation) -> "Figure":
    """Attention weights: a row a token that was written, a column a token of the source; a row sums to 1."""
    if found.alignment is None:
        raise InputError("this translator has no attention: train one with --attention dot or additive")
    rows, columns = len(found.tokens), len(found.source_tokens)
    if max(rows, columns) > MOST_TOKENS:
        raise InputError(
            f"{columns} tokens to {rows} are too many to draw, which is done up to {MOST_TOKENS}: give a shorter text"
        )
    fonts, labels = pictures.drawable(*map(shown, [*found.source_tokens, *found.tokens]))
    source, target = labels[:columns], labels[columns:]
    letter = 0.1
    figure = pictures.figure(
        1.2 + letter * max(map(len, target)) + CELL * columns, 1.0 + letter * max(map(len, source)) + CELL * rows
    )
    axes = figure.subplots()
    image = axes.imshow(found.alignment, cmap=_blues(), vmin=0, vmax=1, aspect="equal")
    how: dict[str, Any] = {"fontsize": 11, "fontfamily": fonts, "color": INK}
    axes.xaxis.tick_top()
    axes.set_xticks(range(columns), source, **how)
    lie = sum(len(token) > 2 for token in source) > columns / 2
    for label in axes.get_xticklabels():
        if lie or len(label.get_text()) > 2:
            label.set(rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(rows), target, **how)
    axes.tick_params(length=0)
    for place, line in ((columns, axes.axvline), (rows, axes.axhline)):
        for at in range(1, place):
            line(at - 0.5, color="#e4e4e4", linewidth=0.6)
    axes.spines[:].set_color(FAINT)
    if max(rows, columns) <= NUMBERED:
        _numbers(axes, found.alignment)
    else:
        bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=30, pad=0.02)
        bar.set_label("attention weight", fontsize=11, color=INK)
        bar.outline.set_edgecolor(FAINT)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("read", fontsize=11, fontstyle="italic", color=INK, loc="left")
    axes.set_ylabel("written", fontsize=11, fontstyle="italic", color=INK, loc="top")
    return figure


def _numbers(axes: "Axes", weights: list[list[float]]) -> None:
    """The weights of 0.05 and more in their cells."""
    from matplotlib.colors import to_hex

    how: dict[str, Any] = {"fontsize": 8.5, "ha": "center", "va": "center_baseline"}
    for y, row in enumerate(weights):
        for x, weight in enumerate(row):
            if weight >= 0.05:
                text = f"{weight:.2f}".removeprefix("0")
                axes.text(x, y, text, color=ink_on(to_hex(_blues()(weight))), **how)


def shown(token: str) -> str:
    """A token as it can be drawn, without the space before it, nothing in it mathematics; one of white space is seen.

    >>> shown(" house"), shown(" "), shown("ing"), shown("\\n")
    ('house', '␣', 'ing', '↵')
    """
    bare = token.strip()
    if len(bare) > LONGEST:
        bare = bare[: LONGEST - 1] + "…"
    if bare:
        return "".join(c if c.isprintable() else "□" for c in bare).replace("$", r"\$")
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "∅"


def mixed(share: float) -> str:
    """The colour of a score from -1 (against) to 1 (for)."""
    from matplotlib.colors import to_hex

    return to_hex(colours()((share + 1) / 2))


def ink_on(fill: str) -> str:
    """Black or white, whichever is the easier to read on a colour."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(fill)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.213 else "white"


def colours() -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("against-for", [AGAINST, NOTHING, FOR], N=257)


def _blues() -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("weights", [NOTHING, "#7fb0e6", "#1d4f91"], N=257)
