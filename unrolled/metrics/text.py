"""Measures of a language model, and two references that need no network."""

import lzma
import math

import numpy as np


def bits(nats: float) -> float:
    """Bits from nats.

    >>> round(bits(math.log(2)), 6)
    1.0
    """
    return nats / math.log(2)


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
