"""The look of every picture, and how one is written: no display, no global state, PNG or SVG, whole or not at all."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from unrolled.errors import InputError
from unrolled.training import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"rnn": "#c44e52", "rnn_relu": "#937860", "gru": "#55a868", "lstm": "#4c72b0", "one_to_one": "#8c8c8c"}
"""One colour a cell, in every picture."""
INPUT, STATE, OUTPUT, LOSS = "#f4b8b8", "#b8dfb8", "#b8cdf0", "#f5dfa3"
"""Fills of the boxes, as in the lecture: inputs red, states green, outputs blue; losses yellow."""
INK, FAINT = "#222222", "#8a8a8a"
SUFFIXES = (".png", ".svg")
STIX_OR_SIMILAR = b"'STIXGeneral', 'STIX Two Text', 'Times New Roman', 'Liberation Serif', Times, serif"
"""The font of mathematics in an SVG, which names its fonts without bringing them, and what resembles it elsewhere."""


def figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def check(path: Path) -> None:
    """Raise `InputError` where `save` would, before anything is computed."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is neither .png nor .svg: name a picture of one of these kinds")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a picture")


def save(drawn: "Figure", path: Path) -> None:
    """Write the figure as the suffix says. The same figure gives the same bytes: no date, no random names."""
    import matplotlib

    check(path)
    kind = path.suffix.lower()[1:]
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "unrolled"}):  # text stays text
        drawn.savefig(data, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, data.getvalue().replace(b"'STIXGeneral'", STIX_OR_SIMILAR) if kind == "svg" else data.getvalue())


def drawable(*texts: str) -> tuple[list[str], list[str]]:
    """Installed fonts that together have the characters of these texts, matplotlib's own first, and the texts with □
    for characters that none has."""
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    fonts, missing = ["DejaVu Sans"], {c for text in texts for c in text if ord(c) not in own}
    for entry in font_manager.fontManager.ttflist:
        if not missing:
            break
        if entry.name.startswith("Last Resort"):  # has a box for every character
            continue
        found = {c for c in missing if ord(c) in font_manager.get_font(entry.fname).get_charmap()}
        if found:
            fonts.append(entry.name)
            missing -= found
    return fonts, ["".join("□" if c in missing else c for c in text) for text in texts]
