"""Byte-pair encoding: frequent words are a token, rare ones a few, and any text can be spelled in bytes.

The most frequent pair of neighbouring tokens becomes a new token, again and again (Sennrich et al. 2016,
arXiv:1508.07909), beginning with bytes (Radford et al. 2019, GPT-2), whose pattern also keeps merges inside words. The
`tokenizers` library trains and encodes; what it learnt is stored as a list of tokens and a list of merges.

A stretch of letters, digits or signs without an end, such as DNA, would be one word, whose merges take time with the
square of its length. So words are cut after every `LONGEST` characters, and of endless stretches the first `LEARNT`
characters teach merges. Tokenisers of version 0.1.0, which do not say `longest`, cut nothing.
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
SPACE = re.compile(r"\s")
PART = 1 << 14
"""Characters the library is given at a time: parts are encoded in parallel."""
LONGEST = 64
"""Characters of a word, at most."""
ENDLESS = re.compile(rf"\w{{{LONGEST + 1}}}")
LEARNT = 1 << 23
"""Characters of text without white space that merges are learnt from, at most: about half a minute."""


class BpeTokenizer:
    """At least 256 tokens, one a byte, and the merges.

    >>> t = BpeTokenizer.train(["low lower lowest"], size=262)
    >>> [t.to_bytes([n]) for n in t.encode("low newest")]
    [b'low', b' ', b'n', b'e', b'w', b'e', b'st']
    """

    kind = "bpe"
    unknown: tuple[int, ...] = ()
    note: str | None = None
    """What people should know of its training"""

    def __init__(
        self, tokens: Sequence[str], merges: Sequence[Sequence[int]], trained: int, longest: int | None = LONGEST
    ) -> None:
        """tokens: in GPT-2's way of writing bytes as characters, numbered in this order; merges: pairs of their
        numbers, in the order in which they are applied; trained: tokens from here on did not occur in the training;
        longest: characters of a word at most, None for any."""
        self.tokens, self.merges, self.trained = list(tokens), [(a, b) for a, b in merges], trained
        self.longest = longest
        self.size = len(self.tokens)
        if not 0 <= trained <= self.size or len(set(self.tokens)) < self.size or not all((*self.tokens, longest != 0)):
            raise InputError("the tokens of a byte-pair tokeniser are not those of a training")
        byte_of = {character: byte for byte, character in enumerate(ALPHABET)}
        self._bytes = [bytes(byte_of[c] for c in token) for token in self.tokens]
        continues = [[(byte & 0xC0) == 0x80 for byte in token] for token in self._bytes]
        self.starts = np.array([not c[0] for c in continues])
        self.lengths = np.array([len(c) - sum(c) for c in continues], dtype=np.float64)
        self._library = _build(self.tokens, self.merges, longest)

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "BpeTokenizer":
        """At most `size` tokens from the texts; the same texts give the same tokens, however many threads there are."""
        if size < 257:
            raise InputError(
                f"a vocabulary of {size} is too small for bpe: give at least 257, one more than there are bytes"
            )
        models, trainers = _import("models"), _import("trainers")
        library = _empty(models.BPE(), LONGEST)
        trainer = trainers.BpeTrainer(
            vocab_size=size, show_progress=False, initial_alphabet=list(ALPHABET), special_tokens=[]
        )
        seen = np.zeros(256, dtype=bool)
        endless, cut = 0, False

        def noted() -> Iterator[str]:
            nonlocal endless, cut
            for text in texts:
                seen[np.frombuffer(utf8(text), dtype=np.uint8)] = True
                cut = cut or ENDLESS.search(text) is not None
                for part in parts(text, endless=True):
                    endless += len(part) if len(part) == PART and SPACE.search(part) is None else 0
                    if endless <= LEARNT or SPACE.search(part):
                        yield part

        library.train_from_iterator(noted(), trainer=trainer)
        model = _model_of(library)
        merges = [(str(a), str(b)) for a, b in model["merges"]]
        order = sorted(model["vocab"], key=model["vocab"].__getitem__)
        # bytes that did not occur come last, so that a model is never asked to write them
        unseen = {ALPHABET[byte] for byte in np.flatnonzero(~seen)}
        tokens = [t for t in order if t not in unseen] + [t for t in order if t in unseen]
        number = {token: n for n, token in enumerate(tokens)}
        found = cls(tokens, [(number[a], number[b]) for a, b in merges], len(tokens) - len(unseen))
        if cut:
            found.note = (
                f"words of more than {LONGEST} characters are cut after every {LONGEST}, so byte-pair tokens do not go "
                "across these places"
            )
        if endless > LEARNT:
            found.note = f"{found.note}; of text without white space the first {LEARNT:,} characters taught the tokens"
        return found

    def encode(self, text: str) -> np.ndarray:
        utf8(text)
        encoded = self._library.encode_batch_fast(list(parts(text, endless=self.longest is not None)))
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.array(e.ids, dtype=np.int64) for e in encoded)])

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join(map(self._bytes.__getitem__, tokens))

    def to_json(self) -> dict[str, Any]:
        merges = [list(pair) for pair in self.merges]
        cut = {} if self.longest is None else {"longest": self.longest}
        return {"kind": self.kind, "tokens": self.tokens, "merges": merges, "trained": self.trained, **cut}


def parts(text: str, *, endless: bool = False) -> Iterator[str]:
    """The text in parts that are encoded one by one as they would be together; `endless`: where a stretch without white
    space is longer than a part, it is cut all the same."""
    begin = 0
    while len(text) - begin > PART:
        end = safe_cut(text, begin, begin + PART)
        if end == begin and endless:
            end = begin + PART
        elif end == begin:  # a word longer than a part
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


def _build(tokens: list[str], merges: list[tuple[int, int]], longest: int | None) -> "Library":
    models = _import("models")
    vocabulary = {token: n for n, token in enumerate(tokens)}
    return _empty(models.BPE(vocab=vocabulary, merges=[(tokens[a], tokens[b]) for a, b in merges]), longest)


def _empty(model: Any, longest: int | None) -> "Library":
    """Of GPT-2's words, or with `longest` of these words cut after so many characters."""
    library, pre = _import().Tokenizer(model), _import("pre_tokenizers")
    library.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    if longest is not None:
        most = f"{{1,{longest}}}"
        runs = rf" ?\p{{L}}{most}| ?\p{{N}}{most}| ?[^\s\p{{L}}\p{{N}}]{most}|\s{most}(?!\S)|\s{most}"
        words = pre.Split(_import().Regex(rf"'s|'t|'re|'ve|'m|'ll|'d|{runs}"), "isolated")
        library.pre_tokenizer = pre.Sequence([words, pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    return library


def _model_of(library: "Library") -> dict[str, Any]:
    return json.loads(library.to_str())["model"]


def _import(module: str | None = None) -> Any:
    try:
        return importlib.import_module("tokenizers" if module is None else f"tokenizers.{module}")
    except ImportError as error:
        raise InputError("bpe tokens need the tokenizers library: pip install 'unrolled[text]'") from error
