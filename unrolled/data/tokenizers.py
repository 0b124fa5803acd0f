"""Tokenisers: text to integers and back.

char and byte are here; `word_tokenizer.py` and `bpe_tokenizer.py` have a file each, `train` and `from_json` know all.
A tokeniser that meets something it has no token for falls back to UTF-8 bytes, so every text can be encoded and comes
back exactly; word alone has a token for what is unknown. What a model emits need not be valid UTF-8 (a byte model can
stop in the middle of a character): `TextDecoder` turns such places into U+FFFD, so what is shown always is.
"""

from collections.abc import Iterable
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np

from unrolled.data.contents import check
from unrolled.errors import InputError

CODE_POINTS = 0x110000


class Tokenizer(Protocol):
    kind: str
    size: int
    """How many tokens there are."""
    trained: int
    """Tokens below this number can occur in a training text; a model never writes one that is not."""
    starts: np.ndarray
    """(size,) booleans: does this token begin with the beginning of a character."""
    lengths: np.ndarray
    """(size,) float64: how many characters of text this token stands for. Summed over a text it counts characters; an
    unknown word counts as long as such words are on average."""
    unknown: tuple[int, ...]
    """Tokens for what the tokeniser has no token for."""

    def encode(self, text: str) -> np.ndarray:
        """Token numbers, int64, one dimension."""
        ...

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        """The UTF-8 the tokens stand for; bytes that cannot be UTF-8 stand for tokens that make no sense there."""
        ...

    def to_json(self) -> dict[str, Any]: ...


class ByteTokenizer:
    """One token a UTF-8 byte: 256 tokens, any text of any language.

    >>> t = ByteTokenizer()
    >>> t.encode("é").tolist(), decode(t, t.encode("한글"))
    ([195, 169], '한글')
    """

    kind = "byte"
    size = trained = 256
    unknown: tuple[int, ...] = ()

    def __init__(self) -> None:
        byte = np.arange(256)
        self.starts = (byte & 0xC0) != 0x80  # 10xxxxxx continues a character
        self.lengths = self.starts.astype(np.float64)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int64)

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        return bytes(tokens)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}


class CharTokenizer:
    """One token a character of the training text; any other character as its UTF-8 bytes.

    A byte is written as two tokens, its high and its low half, so that the fallback costs the softmax 32 tokens
    and not 256; the two halves are different tokens, so that a token alone says whether it begins a character.

    >>> t = CharTokenizer("hello")
    >>> t.characters, t.size, t.encode("hole").tolist()
    ('ehlo', 36, [1, 3, 2, 0])
    >>> len(t.encode("é")), decode(t, t.encode("hé!"))
    (4, 'hé!')
    """

    kind = "char"
    unknown: tuple[int, ...] = ()

    def __init__(self, characters: Iterable[str]) -> None:
        codes = sorted({ord(c) for c in characters})
        self.characters = "".join(map(chr, codes))
        known = len(codes)
        self.size, self.trained = known + 32, known
        self._ids = np.full(CODE_POINTS, -1, dtype=np.int32)
        self._ids[codes] = np.arange(known)
        half = np.arange(16)
        # a byte that continues a character is 10xxxxxx: its high half is 8 to 11; a low half never begins one
        self.starts = np.concatenate([np.ones(known, bool), (half & 0xC) != 0x8, np.zeros(16, bool)])
        self.lengths = self.starts.astype(np.float64)

    def encode(self, text: str) -> np.ndarray:
        codes = np.frombuffer(_utf32(text), dtype="<u4")
        ids = self._ids[codes].astype(np.int64)
        unseen = ids < 0
        if not unseen.any():
            return ids
        spelled = {int(c): self._spell(chr(c)) for c in np.unique(codes[unseen])}
        size = np.ones(len(codes), dtype=np.int64)
        for code, tokens in spelled.items():
            size[codes == code] = len(tokens)
        offset = np.cumsum(size) - size
        out = np.empty(int(size.sum()), dtype=np.int64)
        out[offset[~unseen]] = ids[~unseen]
        for code, tokens in spelled.items():
            out[offset[codes == code][:, None] + np.arange(len(tokens))] = tokens
        return out

    def _spell(self, character: str) -> list[int]:
        pairs = ((self.trained + (b >> 4), self.trained + 16 + (b & 15)) for b in character.encode())
        return [token for pair in pairs for token in pair]

    def to_bytes(self, tokens: Iterable[int]) -> bytes:
        tokens = list(tokens)
        if tokens and max(tokens) < self.trained:
            return "".join(map(self.characters.__getitem__, tokens)).encode()
        out = bytearray()
        high: int | None = None
        for token in tokens:
            half = token - self.trained
            if half >= 16 and high is not None:
                out.append(high << 4 | half - 16)
                high = None
                continue
            if high is not None or half >= 16:
                out.append(0xFF)  # half a byte without its other half: never valid UTF-8
            high = half if 0 <= half < 16 else None
            if half < 0:
                out += self.characters[token].encode()
        if high is not None:
            out.append(0xFF)
        return bytes(out)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self.characters}


class TextDecoder:
    """Tokens in, text out as soon as a character is complete; always valid UTF-8."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._pending: list[int] = []

    def feed(self, token: int) -> str:
        """The text that this token completes; empty inside a character."""
        if self.tokenizer.starts[token] and self._pending:
            text = self.flush() + self.feed(token)
        else:
            self._pending.append(token)
            text = self._try()
        return text

    def feed_all(self, tokens: list[int]) -> str:
        """What `feed` says of these tokens one after the other. All but the last character are decoded at once."""
        starts = self.tokenizer.starts
        last = next((at for at in range(len(tokens) - 1, -1, -1) if starts[tokens[at]]), 0)
        try:
            text = self.tokenizer.to_bytes(self._pending + tokens[:last]).decode()
        except UnicodeDecodeError:
            return "".join(map(self.feed, tokens))
        self._pending = []
        return text + "".join(map(self.feed, tokens[last:]))

    def _try(self) -> str:
        try:
            text = self.tokenizer.to_bytes(self._pending).decode()
        except UnicodeDecodeError:
            return self.flush() if len(self._pending) >= 8 else ""  # no character is longer than 8 half bytes
        self._pending = []
        return text

    def flush(self) -> str:
        """What is left at the end: an unfinished character becomes U+FFFD."""
        data = self.tokenizer.to_bytes(self._pending)
        self._pending = []
        return data.decode(errors="replace")


def decode(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """The text of the tokens; U+FFFD where they are not UTF-8."""
    return tokenizer.to_bytes(int(t) for t in tokens).decode(errors="replace")


KINDS = ("char", "byte", "word", "bpe")
SPACED = ("word", "bpe")
"""Kinds whose tokens may be longer than a character, with a space inside."""
SIZES = {"word": 10_000, "bpe": 2_000}
"""Tokens where nobody says how many, of the kinds that can be told."""


def train(
    kind: str, texts: Iterable[str], size: int | None = None, *, min_count: int | None = None, lower: bool = False
) -> Tokenizer:
    """A tokeniser of this kind from texts, which word and bpe may see in any parts that end between words.

    size: at most so many tokens, for word and bpe; min_count: a word that is rarer is unknown; lower: words in lower
    case.
    """
    from unrolled.data.bpe_tokenizer import BpeTokenizer  # both build on this module
    from unrolled.data.word_tokenizer import MIN_COUNT, WordTokenizer

    if kind == "char":
        return CharTokenizer({character for text in texts for character in text})
    if kind == "byte":
        return ByteTokenizer()
    if kind == "word":
        least = MIN_COUNT if min_count is None else min_count
        return WordTokenizer.train(texts, size or SIZES[kind], min_count=least, lower=lower)
    if kind == "bpe":
        return BpeTokenizer.train(texts, size or SIZES[kind])
    raise InputError(f"unknown tokens {kind!r}: choose {', '.join(KINDS[:-1])} or {KINDS[-1]}")


class Characters(TypedDict):
    characters: str


class Words(TypedDict):
    words: list[str]
    unknown_lengths: list[float]
    lower: bool


class Merged(TypedDict):
    tokens: list[str]
    merges: list[list[int]]
    trained: int
    longest: NotRequired[int]


KEPT = {"char": Characters, "word": Words, "bpe": Merged}
"""What `to_json` says of each kind."""


def notes(*learnt: Tokenizer) -> list[str]:
    """What people should know of how these tokenisers were trained."""
    return list(dict.fromkeys(note for one in learnt if (note := getattr(one, "note", None))))


def from_json(description: dict[str, Any]) -> Tokenizer:
    """The tokeniser that `to_json` described; raises `InputError` where it makes no sense."""
    from unrolled.data.bpe_tokenizer import BpeTokenizer  # both build on this module
    from unrolled.data.word_tokenizer import WordTokenizer

    check(description, dict[str, Any], "its tokeniser")
    kind = description.get("kind")
    check(kind, str, "the kind of its tokeniser")
    if kind in KEPT:
        check(description, KEPT[kind], "its tokeniser")
    if kind == "char":
        return CharTokenizer(description["characters"])
    if kind == "byte":
        return ByteTokenizer()
    if kind == "word":
        return WordTokenizer(description["words"], description["unknown_lengths"], description["lower"])
    if kind == "bpe":
        longest = description.get("longest")  # tokenisers of version 0.1.0 have none
        return BpeTokenizer(description["tokens"], description["merges"], description["trained"], longest)
    raise InputError(f"unknown tokeniser {kind!r}: this model needs a newer unrolled")


def safe_cut(text: str, begin: int, end: int) -> int:
    """The last place in text[begin:end] where a space or a newline follows no white space; `begin` where there is
    none. No token of word or bpe goes across such a place.

    >>> safe_cut("two  words", 0, 10), safe_cut("word", 0, 4)
    (3, 0)
    """
    while end > begin:
        end = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end))
        if end > begin and not text[end - 1].isspace():
            return end
    return begin


def utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start}: give UTF-8 text") from error


def _utf32(text: str) -> bytes:
    try:
        return text.encode("utf-32-le")
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start}: give UTF-8 text") from error
