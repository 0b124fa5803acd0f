"""Measures of a language model, and two references that need no network."""

import lzma
import math
from collections.abc import Iterable

import numpy as np

SPARSE = 30
"""Texts with fewer than one space in so many characters are not written in words between spaces."""


def bits(nats: float) -> float:
    """Bits from nats.

    >>> round(bits(math.log(2)), 6)
    1.0
    """
    return nats / math.log(2)


def spaced(texts: Iterable[str]) -> bool:
    """Whether spaces divide these texts, taken together, into words. They do not in Thai, Chinese or Japanese, nor in
    texts of one word each: there what is written is compared character by character.

    >>> spaced(["a dog runs", "a cat"]), spaced(["สุนัขวิ่งในสวน"]), spaced(["2026-11-28"])
    (True, False, False)
    """
    spaces = characters = 0
    for text in texts:
        characters += len(text)
        spaces += sum(map(str.isspace, text))
    return spaces * SPARSE >= characters


def measured_by_characters(texts: Iterable[str], measures: str) -> list[str]:
    """What people should know where spaces do not divide the texts that these measures compare with."""
    if spaced(texts):
        return []
    return [f"the validation texts have hardly any spaces, so {measures} count characters instead of words"]


def bigram_cross_entropy(train: np.ndarray, validation: np.ndarray, size: int) -> float:
    """Nats a token of `validation` under the bigrams counted in `train`, with one added to each count (Laplace).

    What the best one-to-one model can reach: the next token from the current one alone. Both: (N,) tokens below `size`.
    """
    counts = np.ones((size, size))
    np.add.at(counts, (train[:-1].astype(np.int64), train[1:].astype(np.int64)), 1)
    log_p = np.log(counts / counts.sum(1, keepdims=True))
    return float(-log_p[validation[:-1].astype(np.int64), validation[1:].astype(np.int64)].mean())


def xz_bits_per_character(train: str, validation: str) -> float:
    """What xz (LZMA2, largest preset) needs for the validation text once it has packed the training text, in bits a
    character: the growth of the archive when the validation text is added."""

    def size(text: str) -> int:
        return len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

    return 8 * (size(train + validation) - size(train)) / len(validation)
