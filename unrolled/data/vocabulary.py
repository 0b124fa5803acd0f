"""The tokens of sequence tasks: those of any tokeniser, and padding, begin and end in front of them.

What is unknown is the tokeniser's matter: char, byte and bpe spell it in bytes, word has tokens for it.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from unrolled.data import tokenizers
from unrolled.data.tokenizers import SPACED, Tokenizer, decode
from unrolled.errors import InputError

PADDING, BEGIN, END = 0, 1, 2
SPECIALS = 3
"""How many there are; the tokeniser's token n is n + SPECIALS."""


class Vocabulary:
    """Texts to tokens and back.

    Where tokens hold a space, a text gets one in front, so that its first word is the token that the word is elsewhere.

    >>> v = Vocabulary.learn("word", ["a dog", "a cat"], min_count=1)
    >>> v.encode("a dog", end=True).tolist(), v.decode([BEGIN, 3, 5, END, 4, PADDING])
    ([3, 5, 2], 'a dog')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.size = tokenizer.size + SPECIALS
        self.unknown = tuple(token + SPECIALS for token in tokenizer.unknown)
        self._front = " " if tokenizer.kind in SPACED else ""

    @classmethod
    def learn(
        cls,
        kind: str,
        texts: Iterable[str],
        size: int | None = None,
        *,
        min_count: int | None = None,
        lower: bool = False,
    ) -> "Vocabulary":
        """From the training texts alone. size: tokens without the specials, for word and bpe; min_count and lower: for
        word."""
        front = " " if kind in SPACED else ""
        return cls(tokenizers.train(kind, (front + text for text in texts), size, min_count=min_count, lower=lower))

    @property
    def writable(self) -> np.ndarray:
        """(size,) booleans: what a model may write, which is the end and what can occur in a training text."""
        tokens = np.arange(self.size) - SPECIALS
        return (tokens >= 0) & (tokens < self.tokenizer.trained) | (tokens == END - SPECIALS)

    def encode(self, text: str, *, begin: bool = False, end: bool = False) -> np.ndarray:
        """Token numbers, int64, one dimension."""
        tokens = self.tokenizer.encode(self._front + text) if text else np.zeros(0, dtype=np.int64)
        return np.concatenate([[BEGIN] * begin, tokens + SPECIALS, [END] * end]).astype(np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text up to the end token; padding and begin stand for nothing."""
        kept: list[int] = []
        for token in tokens:
            if token == END:
                break
            if token >= SPECIALS:
                kept.append(int(token) - SPECIALS)
        return decode(self.tokenizer, kept).removeprefix(self._front)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "sequence", "tokenizer": self.tokenizer.to_json()}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "Vocabulary":
        if description.get("kind") != "sequence":
            raise InputError(f"unknown vocabulary {description.get('kind')!r}: this model needs a newer unrolled")
        return cls(tokenizers.from_json(description["tokenizer"]))
