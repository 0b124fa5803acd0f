"""Text pages for terminals: headings, paragraphs, numbers in columns, matrices side by side.

Widths are those of terminal cells, so that wide characters align. What is not a terminal gets plain text of at most 80
columns (rich's Console sees to that); colours are legible on light and on dark backgrounds.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from unrolled.inspection.explanation import Matrix

INPUT, STATE, OUTPUT, GRADIENT = "#d43f3f", "#298729", "#4271db", "#ba42bd"
"""As in the lecture: inputs red, hidden states green, outputs blue. Each has a contrast of about 4.5 to 1 with white
and with black, and where a terminal has 16 colours, its nearest is neither yellow nor white."""
WIDEST = 120
"""Columns that a page uses at most; paragraphs take `PROSE`, since longer lines are hard to read."""
PROSE = 96
GAP = 2
SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥"}

Piece = str | tuple[str, str] | Text
"""A text, a text with its style, or a text that is styled already."""


class Row(NamedTuple):
    """A label and a cell for each column."""

    label: str
    cells: Sequence[str]
    style: str = ""


def visible(character: str) -> str:
    """A character as it can be shown on one line.

    >>> [visible(c) for c in "a한 \\n\\x00\\u0301"]
    ['a', '한', '␣', '↵', 'U+0000', 'U+0301']
    """
    if character in SIGNS:
        return SIGNS[character]
    return character if character.isprintable() and cell_len(character) else f"U+{ord(character):04X}"


def shown(text: str) -> str:
    """A text in quotation marks.

    >>> shown("a b")
    '"a␣b"'
    """
    return '"' + "".join(map(visible, text)) + '"'


def number(x: float, digits: int = 2) -> str:
    """A number with so many decimals; with an exponent where it would be long.

    >>> number(-0.001), number(1234.5), number(1.5e9)
    ('0.00', '1234.50', '1.50e+09')
    """
    return f"{x:z.{digits}f}" if abs(x) < 1e4 else f"{x:.{digits}e}"


def magnitude(x: float) -> str:
    """A norm: what has vanished is told from what is 0.

    >>> magnitude(0.0), magnitude(2.5e-7), magnitude(1.0)
    ('0', '2e-07', '1.000')
    """
    return "0" if x == 0 else f"{x:.0e}" if x < 0.0005 else number(x, 3)


def right(text: str, width: int) -> str:
    """Padded on the left to so many cells."""
    return " " * (width - cell_len(text)) + text


def left(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


class Page:
    """Writes a page to a console, from top to bottom."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = min(console.width, WIDEST)

    def line(self, *pieces: Piece) -> None:
        """One line out of pieces."""
        text = Text.assemble(*pieces)
        text.rstrip()
        self.console.print(text, no_wrap=True, overflow="ignore", crop=False)

    def heading(self, title: str) -> None:
        self.line()
        self.line((f"── {title} ", "bold"), ("─" * (self.width - cell_len(title) - 4), "dim"))

    def say(self, *pieces: Piece, indent: int = 0) -> None:
        """A paragraph; lines after the first are indented."""
        width = min(self.width, PROSE)
        whole = Text.assemble(*pieces)
        first, *rest = whole.wrap(self.console, width) if indent == 0 else self._hanging(whole, width, indent)
        for text in (first, *rest):
            text.rstrip()
            self.console.print(text, no_wrap=True, overflow="ignore", crop=False)

    def _hanging(self, whole: Text, width: int, indent: int) -> list[Text]:
        """Everything from column `indent` on is wrapped there."""
        head, body = whole.divide([indent])
        lines = body.wrap(self.console, width - indent)
        return [Text.assemble(head if i == 0 else " " * indent, line) for i, line in enumerate(lines)]

    def entry(self, name: str, *pieces: Piece) -> None:
        """A name and what there is to say of it."""
        self.say(f"  {left(name, 12)}", *pieces, indent=14)

    def formulas(self, *formulas: str) -> None:
        """Formulas beside each other as far as the page is wide."""
        taken = ""
        for formula in formulas:
            beside = f"{taken}    {formula}" if taken else f"  {formula}"
            if taken and cell_len(beside) > self.width:
                self.line((taken, "italic"))
                beside = f"  {formula}"
            taken = beside
        self.line((taken, "italic"))

    def columns(self, rows: Sequence[Row]) -> None:
        """Rows of equally wide cells; columns that do not fit follow below, with the labels again."""
        label = max(cell_len(row.label) for row in rows) + 2
        cell = max(cell_len(c) for row in rows for c in row.cells) + GAP
        count = len(rows[0].cells)
        fit = max(1, (self.width - label) // cell)
        fit = -(-count // -(-count // fit))  # lines of about the same length
        for first in range(0, count, fit):
            if first:
                self.line()
            for row in rows:
                cells = "".join(right(c, cell) for c in row.cells[first : first + fit])
                self.line(f"  {left(row.label, label - 2)}", (cells, row.style))

    def matrices(self, matrices: Sequence[tuple[str, Matrix]], digits: int = 2, style: str = "") -> None:
        """Matrices with a title each, beside each other as far as the page is wide."""
        blocks = [_block(title, matrix, digits) for title, matrix in matrices]
        row: list[list[str]] = []
        begun = False
        for block in [*blocks, None]:
            used = sum(cell_len(b[0]) + GAP for b in row)
            if row and (block is None or used + cell_len(block[0]) + GAP > self.width):
                if begun:
                    self.line()
                self._beside(row, style)
                begun = True
                row = []
            if block is not None:
                row.append(block)

    def _beside(self, blocks: list[list[str]], style: str) -> None:
        for i in range(max(map(len, blocks))):
            line = "".join(" " * GAP + (b[i] if i < len(b) else " " * cell_len(b[0])) for b in blocks)
            self.line((line, style if i else "bold"))


def _block(title: str, matrix: Matrix, digits: int) -> list[str]:
    """The lines of a matrix, all of the same width, the title first."""
    cells = [[number(x, digits) for x in row] for row in matrix]
    wide = max(len(c) for row in cells for c in row)
    lines = ["[ " + " ".join(c.rjust(wide) for c in row) + " ]" for row in cells]
    width = max(cell_len(title), *map(len, lines))
    return [left(line, width) for line in (title, *lines)]
