"""Words as tokens: for texts whose words repeat.

A text is cut into pieces that together are the text again: words (letters with their marks, an apostrophe inside:
"don't"), numbers ("1,000.5"), punctuation, a character of Chinese or Japanese (they write no spaces between words), and
white space. A single space before a piece belongs to it: " world" is one token and not "world" with something around
it, so decoding puts the pieces together and adds nothing. Other white space is a token a character. Korean words are
what stands between spaces; text without spaces in other scripts, such as Thai, is one long word: use bpe there.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unrolled.data.tokenizers import utf8
from unrolled.errors import InputError

MIN_COUNT = 2
"""A word that occurs once says nothing of how it is used, and lets the model learn what follows an unknown one."""
DISTINCT = 1 << 22
"""Different words that are counted at a time; above that those counted once are forgotten, to spare memory."""
UNKNOWN = ("<unk>", " <unk>")
IDEOGRAPHS = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


class WordTokenizer:
    """A token for each of some words, and two for any other: an unknown word, and one after a space.

    >>> t = WordTokenizer.train(["to be, or not to be"], min_count=1)
    >>> t.encode(" be, to").tolist(), t.to_bytes(t.encode(" be, to")).decode()
    ([0, 4, 3], ' be, to')
    >>> t.to_bytes(t.encode("to see")).decode()
    'to <unk>'
    """

    kind = "word"

    def __init__(self, words: Sequence[str], unknown_lengths: Sequence[float], lower: bool = False) -> None:
        """words: the known ones, in the order of their tokens. unknown_lengths: how many characters an unknown word
        stands for, without and with a space before it."""
        if len(set(words)) < len(words) or "" in words or len(unknown_lengths) != 2:
            raise InputError("the words of a tokeniser are not those of a training")
        self.words, self.lower, self.unknown_lengths = list(words), lower, tuple(unknown_lengths)
        self.trained = len(self.words)
        self.size = self.trained + 2
        self.unknown: tuple[int, ...] = (self.trained, self.trained + 1)
        self._ids = {word: n for n, word in enumerate(self.words)}
        self._bytes = [word.encode() for word in (*self.words, *UNKNOWN)]
        self.starts = np.ones(self.size, dtype=bool)
        self.lengths = np.array([*map(len, self.words), *unknown_lengths], dtype=np.float64)

    @classmethod
    def train(
        cls, texts: Iterable[str], size: int | None = None, *, min_count: int = MIN_COUNT, lower: bool = False
    ) -> "WordTokenizer":
        """The most frequent words of the texts, at most `size` tokens with the two for unknown words; white space is
        known however rare. Of equally frequent words the first by code points. Raises `InputError` where the texts have
        words and none of them would be known."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(pieces(text.lower() if lower else text))
            if len(counts) > DISTINCT:
                counts = Counter({word: n for word, n in counts.items() if n > 1})
        known = [word for word, n in counts.items() if n >= min_count or word.isspace()]
        known.sort(key=lambda word: (-counts[word], word))
        fits = known if size is None else known[: max(0, size - 2)]
        kept = set(fits)
        rare = {word: n for word, n in counts.items() if word not in kept}
        if not _knows_any(fits, rare):
            if _knows_any(known, rare):
                raise InputError(
                    f"--vocabulary {size} has no room for a word beside white space and the unknown: give more"
                )
            raise InputError(
                f"no word of the training text occurs at least {min_count} times, so all of them would be unknown with "
                "--tokens word: choose --tokens char or bpe, or give more text"
            )
        known = fits
        return cls(known, _unknown_lengths(rare, counts), lower)

    def encode(self, text: str) -> np.ndarray:
        utf8(text)
        found = pieces(text.lower() if self.lower else text)
        ids = np.fromiter((self._ids.get(piece, -1) for piece in found), dtype=np.int64, count=len(found))
        unseen = np.flatnonzero(ids < 0)
        if not len(unseen):
            return ids
        parts, done = [], 0
        for at in unseen.tolist():
            parts += [ids[done:at], np.array(self._other(found[at]), dtype=np.int64)]
            done = at + 1
        return np.concatenate([*parts, ids[done:]])

    def _other(self, piece: str) -> list[int]:
        """The tokens of a piece that has none: a space and the word without it, where these are known."""
        space, word = self._ids.get(" "), self._ids.get(piece[1:])
        if piece[0] == " " and space is not None and word is not None:
            return [space, word]
        return [self.unknown[piece[0] == " " and len(piece) > 1]]

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join(map(self._bytes.__getitem__, tokens))

    def to_json(self) -> dict[str, Any]:
        unknown = list(self.unknown_lengths)
        return {"kind": self.kind, "words": self.words, "unknown_lengths": unknown, "lower": self.lower}


def pieces(text: str) -> list[str]:
    """The text in words, numbers, punctuation and white space; joined they are the text.

    >>> pieces("Don't pay 1,000.5 won...  한국어 텍스트\\n漢字 <unk>")
    ["Don't", ' pay', ' 1,000.5', ' won', '...', ' ', ' 한국어', ' 텍스트', '\\n', '漢', '字', ' <unk>']
    """
    return _pattern().findall(text)


@functools.cache
def _pattern() -> re.Pattern[str]:
    # Python's \w has no combining marks, without which words of Hindi or Arabic fall apart
    marks = "".join(
        c for c in map(chr, (*range(0x20000), *range(0xE0100, 0xE01F0))) if unicodedata.category(c)[0] == "M"
    )
    letter = rf"[^\W\d_{IDEOGRAPHS}]"
    word = rf"{letter}(?:{letter}|[{re.escape(marks)}\u200c\u200d]|['’](?={letter}))*"
    runs = "|".join(rf"{re.escape(c)}{{2,3}}" for c in ".-!?~")
    return re.compile(rf" ?(?:{word}|<[A-Za-z]+>|\d+(?:[.,]\d+)*|[{IDEOGRAPHS}]|{runs}|[^\w\s]|_)|\s")


def _knows_any(known: Iterable[str], rare: Iterable[str]) -> bool:
    """Whether one of the words is known; of texts without letters and digits, one of the other pieces."""

    def is_word(piece: str) -> bool:
        return any(map(str.isalnum, piece))

    known = list(known)
    for wanted in (is_word, lambda piece: not piece.isspace()):
        if any(map(wanted, known)):
            return True
        if any(map(wanted, rare)):
            return False
    return True


def _unknown_lengths(rare: dict[str, int], counts: "Counter[str]") -> tuple[float, float]:
    """The mean length of rare words, those after a space apart. Where no word is rare, of words that occur once, since
    words never seen are most like these; where there are none, of all."""
    groups = rare, {word: n for word, n in counts.items() if n == 1}, counts, {"word": 1, " word": 1}

    def mean(spaced: bool) -> float:
        for group in groups:
            chosen = [(len(w), n) for w, n in group.items() if (w[0] == " ") is spaced and not w.isspace()]
            if chosen:
                return sum(length * n for length, n in chosen) / sum(n for _, n in chosen)
        raise AssertionError("the last group has a word of each kind")

    return mean(False), mean(True)
