"""A report on a captioner of pictures or of clips: one HTML file that needs nothing else, not even a network."""

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unrolled.inspection.caption_pictures import STOPS, tidy

LONGEST_SIDE = 360
"""Pixels of a picture in the report."""

STYLE = """
:root { color-scheme: light dark; --ink: #222; --faint: #666; --ground: #fff; --card: #f5f5f4; --mark: #2e6fbd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eee; --faint: #aaa; --ground: #161616; --card: #232323; --mark: #8ab8f0; } }
body { font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  margin: 2rem auto; max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } p.how { color: var(--faint); margin: .2rem 0 1rem; }
table { border-collapse: collapse; margin: 0 0 1.5rem; }
td, th { text-align: right; padding: .2rem .9rem .2rem 0; font-variant-numeric: tabular-nums; }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
article { background: var(--card); border-radius: .5rem; overflow: hidden; }
figure { margin: 0; position: relative; background: #0000000d; text-align: center; line-height: 0; }
figure div { position: relative; display: inline-block; vertical-align: top; }
img { width: 100%; height: auto; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; opacity: 0;
  transition: opacity .15s; }
canvas.on { opacity: 1; }
article > section { padding: .7rem .9rem .9rem; }
.written { font-weight: 650; margin: 0 0 .5rem; }
.written button { all: unset; cursor: pointer; border-radius: .2rem; }
.written button:is(:hover, :focus-visible) { background: var(--mark); color: var(--ground); }
ul { margin: 0; padding-left: 1rem; color: var(--faint); font-size: .875rem; }
small { color: var(--faint); overflow-wrap: anywhere; }
"""

SCRIPT = """
for (const word of document.querySelectorAll("button[data-light]")) {
  const canvas = word.closest("article").querySelector("canvas");
  const {rows, columns, most, place} = canvas.dataset, [x, y, width, height] = JSON.parse(place);
  const show = () => {
    const small = new OffscreenCanvas(columns, rows), brush = small.getContext("2d");
    const cells = brush.createImageData(small.width, small.height), whole = canvas.getContext("2d");
    JSON.parse(word.dataset.light).forEach((light, n) => { cells.data[4 * n + 3] = 200 * (1 - light / most); });
    brush.putImageData(cells, 0, 0);
    const seen = [x * canvas.width, y * canvas.height, width * canvas.width, height * canvas.height];
    whole.fillStyle = "rgb(0 0 0 / 78%)";
    whole.clearRect(0, 0, canvas.width, canvas.height);
    whole.fillRect(0, 0, canvas.width, canvas.height);
    whole.clearRect(...seen);
    whole.imageSmoothingQuality = "high";
    whole.drawImage(small, ...seen);
    canvas.classList.add("on");
  };
  for (const event of ["pointerenter", "focus", "click"]) word.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) word.addEventListener(event, () => canvas.classList.remove("on"));
}
"""


class Entry(NamedTuple):
    """A picture of the report."""

    name: str
    picture: np.ndarray
    """(H, W, 3) uint8"""
    found: Any
    """The `Caption` that the model wrote"""
    references: Sequence[str]


def page(title: str, how: str, metrics: dict[str, float], entries: Sequence[Entry], eye: Any) -> str:
    """The HTML. Where a caption has attention, a word that is pointed at darkens what the model did not look at."""
    rows = "".join(f"<th>{html.escape(name)}</th>" for name in metrics)
    values = "".join(f"<td>{value:.4f}</td>" for value in metrics.values())
    hint = " Point at a word to see where the model looked." if any(e.found.attention for e in entries) else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{html.escape(title)}</h1><p class=how>{html.escape(how + hint)}</p>"
        f"<table><tr>{rows}<tr>{values}</table>"
        f"<main>{''.join(_card(entry, eye) for entry in entries)}</main><script>{SCRIPT}</script></html>\n"
    )


def _card(entry: Entry, eye: Any) -> str:
    height, width = entry.picture.shape[:2]
    references = "".join(f"<li>{html.escape(tidy(text))}" for text in entry.references)
    share = min(1.0, width / height)  # of the card's width: no picture is higher than the card is wide
    shown = f'<img alt="" src="{_embedded(entry.picture)}">{_canvas(entry, eye)}'
    return (
        f'<article><figure><div style="width:{share:.1%}">{shown}</div></figure>'
        f"<section><p class=written>{_words(entry.found)}</p><ul>{references}</ul>"
        f"<small>{html.escape(entry.name)}, {width}×{height}</small></section></article>"
    )


def _canvas(entry: Entry, eye: Any) -> str:
    """The shade over the picture; where its regions lie, as parts of the picture, and how strong the strongest is."""
    if not entry.found.attention:
        return ""
    height, width = entry.picture.shape[:2]
    left, top, right, bottom = eye.place(height, width)
    rows, columns = eye.grid
    most = max(max(weights) for weights in entry.found.attention)
    place = [round(n, 4) for n in (left / width, top / height, (right - left) / width, (bottom - top) / height)]
    across = 320
    return (
        f"<canvas width={across} height={round(across * height / width)} data-rows={rows} data-columns={columns} "
        f'data-most={most:.4f} data-place="{place}"></canvas>'
    )


def _words(found: Any) -> str:
    """The caption; with attention each token a button that knows its weights."""
    if not found.attention:
        return html.escape(tidy(found.text)) or "(nothing)"
    parts: list[str] = []
    for token, weights in zip(found.tokens[:-1], found.attention, strict=False):
        space = " " if token[:1].isspace() and parts and token.strip() not in STOPS else ""
        light = json.dumps([round(w, 4) for w in weights], separators=(",", ":"))
        parts.append(f'{space}<button data-light="{light}">{html.escape(token.strip() or token)}</button>')
    return "".join(parts) or "(nothing)"


def _embedded(picture: np.ndarray) -> str:
    """As a JPEG in a data address."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    data = io.BytesIO()
    image.save(data, "jpeg", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
