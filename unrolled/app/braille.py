"""A curve in the terminal: braille characters hold 2 × 4 dots each.

plotext would do it too, but its 6.0 replaced the whole interface of its 5.3, and this is all that is needed.
"""

from collections.abc import Sequence

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot, from the top: left column, right column (Unicode, block U+2800)."""


def curve(values: Sequence[float | None], height: int, low: float, high: float) -> list[str]:
    """Lines of text, the top one first, with a value for each column of dots; None leaves a column empty.

    Neighbours are joined, so that a steep curve has no holes. Values outside low … high lie on the edge.

    >>> curve([0, 1, 2, 3, None, None], 1, 0, 3)
    ['⡠⠊⠀']
    """
    rows = 4 * height
    cells = [[0] * -(-len(values) // 2) for _ in range(height)]
    before: int | None = None
    for column, value in enumerate(values):
        if value is None:
            before = None
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        row = round((1 - min(1.0, max(0.0, share))) * (rows - 1))
        for lit in _between(before, row):
            cells[lit // 4][column // 2] |= DOTS[lit % 4][column % 2]
        before = row
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]


def _between(before: int | None, row: int) -> range:
    """The rows to light in this column: its own and those on the way from the last one's."""
    if before is None or abs(before - row) <= 1:
        return range(row, row + 1)
    return range(row, before) if before > row else range(before + 1, row + 1)
