"""`unrolled explain prediction`: the command, and how it looks in a terminal. No torch is imported before it runs."""

import json as json_
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from unrolled.app.given import refuse_a_name, refuse_an_option
from unrolled.app.output import DeviceFlag, ModelArgument, say_what_takes_long
from unrolled.app.page import Page, left, visible
from unrolled.errors import InputError

if TYPE_CHECKING:
    from unrolled.inspection.attribution import Attribution
    from unrolled.tasks.translator import Translation

SHADES = " ·░▒▓█"
"""From no weight to all; the first is below 1/20."""
LEVELS = (0.05, 0.15, 0.35, 0.6, 0.85)
WORD = 24
"""Cells of a word in the list of words"""
LABELS = 8
"""Characters of a source token above its column"""
MEANING = {
    "occlusion": "what the log-odds lose when the word is hidden",
    "gradient": "gradient of the log-odds by the word's vector, times that vector",
}


def prediction(
    model: ModelArgument,
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    label: str | None = None,
    method: str | None = None,
    beam: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    device: DeviceFlag = None,
    json: Annotated[bool, Parameter(help="Print one JSON object on standard output: every number.")] = False,
) -> int:
    """Why a model predicts what it does: which words moved a classifier, or where a translator looked.

    Parameters
    ----------
    text
        The text that is labelled or translated; - reads it from standard input.
    label
        For a classifier: the label whose log-odds the words move. Default: the likeliest.
    method
        For a classifier: occlusion (each word hidden in turn) or gradient (times input). Default: occlusion.
    beam
        For a translator: how many hypotheses it follows. Default: 5.
    out
        A picture, .png or .svg, beside what is printed.
    overwrite
        Replace a picture that exists.
    """
    from unrolled.inspection import pictures
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    if out is not None:
        pictures.check(out)
        if out.exists() and not overwrite:
            raise InputError(f"{out} exists already: name another picture with --out, or add --overwrite")
    refuse_an_option([text], "explain prediction")
    if text == "-":
        text = sys.stdin.read().rstrip("\r\n")
    else:
        refuse_a_name(text, "give it on standard input, and - for the text")
    say_what_takes_long()
    loaded = load(model, pick_device(device))
    if loaded.task == "classify-text":
        if beam is not None:
            raise InputError(f"--beam is for translators, and {model} is a model for classify-text: leave it out")
        _words(loaded, text, label, method or "occlusion", out, json)
    elif loaded.task == "translate":
        if label is not None or method is not None:
            raise InputError(f"--label and --method are for classifiers, and {model} is a translator: leave them out")
        _attention(loaded, text, 5 if beam is None else beam, out, json)
    else:
        raise InputError(f"{model} is a model for {loaded.task}: name a classifier of texts or a translator")
    return 0


def _words(loaded: Any, text: str, label: str | None, method: str, out: Path | None, as_json: bool) -> None:
    from unrolled.inspection import pictures
    from unrolled.inspection.attribution import attribute
    from unrolled.inspection.prediction_picture import draw_words

    found = attribute(loaded, text, label=label, method=method)
    if out is not None:
        pictures.save(draw_words(found), out)
    _print(found._asdict(), out) if as_json else show_words(found, Console(highlight=False), out)


def _attention(loaded: Any, text: str, beam: int, out: Path | None, as_json: bool) -> None:
    from unrolled.inspection import pictures
    from unrolled.inspection.prediction_picture import draw_attention

    if not text.strip():
        raise InputError("the text is empty: give one to translate")
    (found,) = loaded.predict([text], beam, aligned=True)
    if found.alignment is None:
        raise InputError("this translator has no attention: train one with --attention dot or additive")
    if out is not None:
        pictures.save(draw_attention(found), out)
    _print(found._asdict(), out) if as_json else show_attention(found, Console(highlight=False), out)


def _print(values: dict[str, Any], out: Path | None) -> None:
    print(json_.dumps({**values, "path": None if out is None else str(out)}, ensure_ascii=False))


# --- what is printed -------------------------------------------------------------------------------------------------


def show_words(found: "Attribution", console: Console, out: Path | None = None) -> None:
    """A terminal gets the text in colours; all get a line a word."""
    page = Page(console)
    page.say((found.label, "bold"), f"   probability {found.probability:.4f}, log-odds {found.log_odds:+.2f}")
    page.say(f"Each word's part: {MEANING[found.method]}; above 0 it speaks for the label.")
    page.line()
    strongest = max(map(abs, found.scores)) or 1.0
    if console.is_terminal and not console.no_color:
        page.say(*_coloured(found, strongest))
        page.line()
    for word, score, unknown in zip(found.words, found.scores, found.unknown, strict=True):
        bar = "█" * round(20 * abs(score) / strongest)
        note = "  (not in the vocabulary)" if unknown else ""
        page.line(f"{score:+8.3f}  ", (bar, _ink(score)), " " if bar else "", short(word, WORD) + note)
    if out is not None:
        page.line(str(out))


def _ink(score: float) -> str:
    return "#4271db" if score > 0 else "#d43f3f"


def _coloured(found: "Attribution", strongest: float) -> list[Text | str]:
    """The words, each on its colour, in black or white."""
    from unrolled.inspection.prediction_picture import ink_on, mixed

    pieces: list[Text | str] = []
    for word, score in zip(found.words, found.scores, strict=True):
        fill = mixed(score / strongest)
        pieces += [
            Text(short(word, WORD), style=f"{ink_on(fill).replace('white', '#ffffff')} on {fill}"),
            " ",
        ]
    return pieces


def show_attention(found: "Translation", console: Console, out: Path | None = None) -> None:
    """A row a token that was written, a column a token that was read, as shades; the strongest in words."""
    assert found.alignment is not None
    page = Page(console)
    page.say((found.text, "bold"))
    page.line()
    rows = [short(token) for token in found.tokens]
    columns = [short(token) for token in found.source_tokens]
    names = max(map(cell_len, rows)) + 3
    strongest = [max(range(len(columns)), key=weights.__getitem__) for weights in found.alignment]
    notes = [f"  {columns[at]} {w[at]:.2f}" for at, w in zip(strongest, found.alignment, strict=True)]
    room = page.width - names - max(map(cell_len, notes))
    fit = max(1, room // 2)
    for first in range(0, len(columns), fit):
        if first:
            page.line()
        some = columns[first : first + fit]
        for line in upright(some):
            page.line(" " * names + line)
        for row, weights, note in zip(rows, found.alignment, notes, strict=True):
            cells = "".join(2 * shade(weight) for weight in weights[first : first + fit])
            page.line(f"{left(row, names - 2)} │", (left(cells, 2 * len(some)), "#4271db"), ("│" + note, ""))
    page.line()
    page.say(
        f"{'  '.join(f'{SHADES[i + 1]} {level}' for i, level in enumerate(LEVELS))} and more; right: the strongest"
    )
    if out is not None:
        page.line(str(out))


def shade(weight: float) -> str:
    """A weight as a character.

    >>> "".join(map(shade, (0, 0.1, 0.2, 0.5, 0.7, 1.0)))
    ' ·░▒▓█'
    """
    return SHADES[sum(weight >= level for level in LEVELS)]


def short(token: str, most: int = 12) -> str:
    """A token on one line and in so many cells, without the space before a word.

    >>> short(" house"), short(" "), short("Donaudampfschiff")
    ('house', '␣', 'Donaudampfs…')
    """
    bare = token.strip() or token
    text = "".join(map(visible, bare[: most + 1])) or "∅"
    if cell_len(text) <= most:
        return text
    while cell_len(text) >= most:
        text = text[:-1]
    return text + "…"


def upright(tokens: Sequence[str]) -> list[str]:
    """Tokens as columns of two cells, written from top to bottom, standing on the same line.

    >>> upright(["ab", "c"])
    ['a', 'b c']
    """
    cut = [token if len(token) <= LABELS else token[: LABELS - 1] + "…" for token in tokens]
    height = max(map(len, cut))
    lines = ("".join(left(c, 2) for c in line) for line in zip(*(token.rjust(height) for token in cut), strict=True))
    return [line.rstrip() for line in lines]
