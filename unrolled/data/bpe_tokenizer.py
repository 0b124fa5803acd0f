"""Byte-pair encoding: frequent words are a token, rare ones a few, and any text can be spelled in bytes.

The most frequent pair of neighbouring tokens becomes a new token, again and again (Sennrich et al. 2016,
arXiv:1508.07909), beginning with bytes (Radford et al. 2019, GPT-2), whose pattern also keeps merges inside words. The
`tokenizers` library trains and encodes; what it learnt is stored as a list of tokens and a list of merges.
"""

import importlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unrolled.data.tokenizers import safe_cut, utf8
from unrolled.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

SAFE = re.compile(r"\S[ \n]")
PART = 1 << 14
"""Characters the library is given at a time: parts are encoded in parallel."""


class BpeTokenizer:
    """At least 256 tokens, one a byte, and the merges.

    >>> t = BpeTokenizer.train(["low lower lowest"], size=262)
    >>> [t.to_bytes([n]) for n in t.encode("low newest")]
    [b'low', b' ', b'n', b'e', b'w', b'e', b'st']
    """

    kind = "bpe"
    unknown: tuple[int, ...] = ()

    def __init__(self, tokens: Sequence[str], merges: Sequence[Sequence[int]], trained: int) -> None:
        """tokens: in GPT-2's way of writing bytes as characters, numbered in this order; merges: pairs of their
        numbers, in the order in which they are applied; trained: tokens from here on did not occur in the training."""
        self.tokens, self.merges, self.trained = list(tokens), [(a, b) for a, b in merges], trained
        self.size = len(self.tokens)
        if not 0 <= trained <= self.size or len(set(self.tokens)) < self.size or "" in self.tokens:
            raise InputError("the tokens of a byte-pair tokeniser are not those of a training")
        byte_of = {character: byte for byte, character in enumerate(ALPHABET)}
        self._bytes = [bytes(byte_of[c] for c in token) for token in self.tokens]
        continues = [[(byte & 0xC0) == 0x80 for byte in token] for token in self._bytes]
        self.starts = np.array([not c[0] for c in continues])
        self.lengths = np.array([len(c) - sum(c) for c in continues], dtype=np.float64)
        self._library = _build(self.tokens, self.merges)

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "BpeTokenizer":
        """At most `size` tokens from the texts; the same texts give the same tokens, however many threads there are."""
        if size < 257:
            raise InputError(
                f"a vocabulary of {size} is too small for bpe: give at least 257, one more than there are bytes"
            )
        models, trainers = _import("models"), _import("trainers")
        library = _empty(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=size, show_progress=False, initial_alphabet=list(ALPHABET), special_tokens=[]
        )
        seen = np.zeros(256, dtype=bool)

        def noted() -> Iterator[str]:
            for text in texts:
                seen[np.frombuffer(utf8(text), dtype=np.uint8)] = True
                yield from parts(text)

        library.train_from_iterator(noted(), trainer=trainer)
        model = _model_of(library)
        merges = [(str(a), str(b)) for a, b in model["merges"]]
        order = sorted(model["vocab"], key=model["vocab"].__getitem__)
        # bytes that did not occur come last, so that a model is never asked to write them
        unseen = {ALPHABET[byte] for byte in np.flatnonzero(~seen)}
        tokens = [t for t in order if t not in unseen] + [t for t in order if t in unseen]
        number = {token: n for n, token in enumerate(tokens)}
        return cls(tokens, [(number[a], number[b]) for a, b in merges], len(tokens) - len(unseen))

    def encode(self, text: str) -> np.ndarray:
        utf8(text)
        encoded = self._library.encode_batch_fast(list(parts(text)))
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.array(e.ids, dtype=np.int64) for e in encoded)])

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join(map(self._bytes.__getitem__, tokens))

    def to_json(self) -> dict[str, Any]:
        merges = [list(pair) for pair in self.merges]
        return {"kind": self.kind, "tokens": self.tokens, "merges": merges, "trained": self.trained}


def parts(text: str) -> Iterator[str]:
    """The text in parts that are encoded one by one as they would be together."""
    begin = 0
    while len(text) - begin > PART:
        end = safe_cut(text, begin, begin + PART)
        if end == begin:  # a word longer than a part
            found = SAFE.search(text, begin + PART - 1)
            end = len(text) if found is None else found.start() + 1
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _alphabet() -> str:
    """The character that stands for each byte in GPT-2's files: printable ones of Latin-1 for themselves, then the
    code points from 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


ALPHABET = _alphabet()


def _build(tokens: list[str], merges: list[tuple[int, int]]) -> "Library":
    models = _import("models")
    vocabulary = {token: n for n, token in enumerate(tokens)}
    return _empty(models.BPE(vocab=vocabulary, merges=[(tokens[a], tokens[b]) for a, b in merges]))


def _empty(model: Any) -> "Library":
    library = _import().Tokenizer(model)
    library.pre_tokenizer = _import("pre_tokenizers").ByteLevel(add_prefix_space=False)
    return library


def _model_of(library: "Library") -> dict[str, Any]:
    return json.loads(library.to_str())["model"]


def _import(module: str | None = None) -> Any:
    try:
        return importlib.import_module("tokenizers" if module is None else f"tokenizers.{module}")
    except ImportError as error:
        raise InputError("bpe tokens need the tokenizers library: pip install 'unrolled[text]'") from error
