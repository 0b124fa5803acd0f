"""How many parameters a recurrent language model has, and the width that gives a deeper one as many."""

from unrolled.cells import CELLS


def parameters(cell: str, hidden: int, layers: int, vocabulary: int, embedding: int) -> int:
    """Of the network that `LanguageModelOptions` with these values makes; embedding 0 means one-hot.

    Table V·E; each layer G·H (inputs + H + 2 biases), its inputs being E or V, then H; output V (H + 1).

    >>> parameters("lstm", 256, 1, 65, 64)
    350593
    """
    rows = CELLS[cell].gates * hidden
    first, above = rows * ((embedding or vocabulary) + hidden + 2), rows * (2 * hidden + 2)
    return vocabulary * embedding + first + (layers - 1) * above + vocabulary * (hidden + 1)


def width_with(target: int, cell: str, layers: int, vocabulary: int, embedding: int) -> int:
    """The number of hidden units, at least 1, whose network has nearest to `target` parameters.

    >>> width_with(parameters("lstm", 256, 1, 65, 64), "lstm", 2, 65, 64)
    156
    """

    def count(hidden: int) -> int:
        return parameters(cell, hidden, layers, vocabulary, embedding)

    above = 1
    while count(above) < target:
        above += 1
    return above - 1 if above > 1 and target - count(above - 1) < count(above) - target else above
