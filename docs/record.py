"""Run a command in a terminal of a given size and draw what it shows: PNG of moments, or a GIF of the whole.

    python docs/record.py --size 80x24 --theme dark --out demo.gif -- unrolled demo
    python docs/record.py --size 140x40 --theme light --at 0.5 --out demo.png -- unrolled demo

--at: moments to draw, as shares of the command's whole time or `end`; several give demo-1.png, demo-2.png, …
The terminal is pyte's, the font matplotlib's DejaVu Sans Mono; braille characters, which it lacks, are drawn as dots.
"""

import argparse
import os
import pty
import select
import struct
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pyte
from PIL import Image, ImageDraw, ImageFont

from unrolled.app.braille import DOTS

FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"
BOLD = FONT.with_name("DejaVuSansMono-Bold.ttf")
SIZE, MARGIN = 15, 12
THEMES = {
    "dark": {
        "background": "#1d1f21", "default": "#d8d8d8", "black": "#1d1f21", "red": "#e06c75", "green": "#8fc379",
        "brown": "#d7ba7d", "blue": "#6cb2ff", "magenta": "#d58fe6", "cyan": "#63c5cf", "white": "#d8d8d8",
    },
    "light": {
        "background": "#ffffff", "default": "#24292f", "black": "#24292f", "red": "#b3242d", "green": "#1a7f37",
        "brown": "#8a6100", "blue": "#0550ae", "magenta": "#8250df", "cyan": "#0f6e7c", "white": "#6e7781",
    },
}  # fmt: skip


class Frame(NamedTuple):
    seconds: float
    cells: list[list[pyte.screens.Char]]


def run(command: list[str], columns: int, rows: int, every: float) -> list[Frame]:
    """The screen at most once `every` seconds, whenever something was written, and at the end."""
    screen = _Dim(columns, rows)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows)}
        os.execvpe(command[0], command, environment)
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    begun, frames, changed = time.monotonic(), [], False
    while True:
        now = time.monotonic() - begun
        if select.select([terminal], [], [], 0.03)[0]:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # Linux says so when the last writer has gone
                data = b""
            if not data:
                break
            stream.feed(data)
            changed = True
        elif changed and (not frames or now - frames[-1].seconds >= every):  # quiet: nothing is half drawn
            frames.append(Frame(now, _copy(screen)))
            changed = False
    frames.append(Frame(time.monotonic() - begun, _copy(screen)))
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{' '.join(command)}: exit code {code}")
    return frames


class _Dim(pyte.Screen):
    """pyte does not know dim text (SGR 2): it is kept as blinking, which nothing of ours does."""

    def select_graphic_rendition(self, *attributes: int, **more: bool) -> None:
        super().select_graphic_rendition(*(5 if a == 2 else a for a in attributes), **more)
        if 22 in attributes:
            super().select_graphic_rendition(25, **more)


def _copy(screen: pyte.Screen) -> list[list[pyte.screens.Char]]:
    return [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]


def draw(frame: Frame, theme: dict[str, str]) -> Image.Image:
    regular, bold = ImageFont.truetype(FONT, SIZE), ImageFont.truetype(BOLD, SIZE)
    width, height = round(regular.getlength("M")), round(SIZE * 1.3)
    columns, rows = len(frame.cells[0]), len(frame.cells)
    size = (round(columns * width) + 2 * MARGIN, rows * height + 2 * MARGIN)
    image = Image.new("RGB", size, theme["background"])
    pen = ImageDraw.Draw(image)
    for y, line in enumerate(frame.cells):
        for x, cell in enumerate(line):
            ink = theme.get(cell.fg) or f"#{cell.fg}"
            paper = theme["background"] if cell.bg == "default" else theme.get(cell.bg) or f"#{cell.bg}"
            ink, paper = (paper, ink) if cell.reverse else (ink, paper)
            left, top = MARGIN + x * width, MARGIN + y * height
            if paper != theme["background"]:
                pen.rectangle((left, top, left + width, top + height), fill=paper)
            ink = _mix(ink, theme["background"]) if cell.blink else ink
            if 0x2800 <= ord(cell.data[:1] or " ") <= 0x28FF:
                _braille(pen, ord(cell.data) - 0x2800, left, top, (width, height), ink)
            elif cell.data.strip():
                pen.text((left, top), cell.data, font=bold if cell.bold else regular, fill=ink)
    return image


def _braille(pen: ImageDraw.ImageDraw, bits: int, x: float, y: float, size: tuple[float, float], ink: str) -> None:
    for row, pair in enumerate(DOTS):
        for column, bit in enumerate(pair):
            if bits & bit:
                left, top = x + size[0] * (column + 0.5) / 2, y + size[1] * (row + 0.5) / 4
                pen.ellipse((left - 1.5, top - 1.5, left + 1.5, top + 1.5), fill=ink)


def _mix(ink: str, paper: str) -> str:
    pairs = ((int(ink[i : i + 2], 16), int(paper[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(0.6 * a + 0.4 * b):02x}" for a, b in pairs)


def animate(frames: list[Frame], theme: dict[str, str], out: Path, faster: float) -> None:
    """A GIF that shows the last frame for five seconds."""
    images = [draw(frame, theme).quantize(32, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE) for frame in frames]
    times = [f.seconds for f in frames]
    shown = [max(20, round(1000 * (b - a) / faster)) for a, b in zip(times, times[1:], strict=False)] + [5000]
    images[0].save(out, save_all=True, append_images=images[1:], duration=shown, loop=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="80x24", help="columns x rows")
    parser.add_argument("--theme", choices=list(THEMES), default="dark")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--at", nargs="*", default=["end"])
    parser.add_argument("--every", type=float, default=0.5, help="seconds between the frames of a GIF")
    parser.add_argument("--faster", type=float, default=4.0, help="how many times faster a GIF runs")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    columns, rows = map(int, options.size.split("x"))
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    frames = run(command, columns, rows, options.every)
    theme = THEMES[options.theme]
    if options.out.suffix == ".gif":
        animate(frames, theme, options.out, options.faster)
        return
    for number, moment in enumerate(options.at, 1):
        wanted = frames[-1].seconds * (1.0 if moment == "end" else float(moment))
        frame = min(frames, key=lambda f, wanted=wanted: abs(f.seconds - wanted))
        name = options.out if len(options.at) == 1 else options.out.with_stem(f"{options.out.stem}-{number}")
        draw(frame, theme).save(name)


if __name__ == "__main__":
    main()
