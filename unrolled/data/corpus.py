"""From text to tokens on disk: scan, split, vocabulary, and a memory-mapped file of token numbers.

A corpus of any size is read twice, block by block: once to check it, count its characters and collect those of the
training part, once to encode it into a temporary file that the operating system pages in as training needs it.
"""

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from unrolled.data.sources import TextSource
from unrolled.data.tokenizers import SPACED, CharTokenizer, Tokenizer, safe_cut, train
from unrolled.errors import InputError, UnrolledError


class Scan(NamedTuple):
    """What one pass over a text found."""

    characters: int
    sha256: str
    blocks: list[tuple[int, np.ndarray]]
    """Of each block: how many characters, and which code points occur."""


class Tokens(NamedTuple):
    """Encoded text: one long row of token numbers and where its documents begin."""

    ids: np.ndarray
    """(N,), memory-mapped; the smallest unsigned type that holds the vocabulary"""
    documents: np.ndarray
    """(D,), ascending: the first token of each document; the first is 0"""

    @property
    def predictions(self) -> int:
        """Tokens that have a token of the same document before them."""
        return len(self.ids) - len(self.documents)


def scan(source: TextSource) -> Scan:
    """Read everything once. Raises `InputError` where it is not UTF-8 text."""
    digest, total, blocks, document = hashlib.sha256(), 0, [], -1
    for block in source.blocks():
        data = block.text.encode()
        if block.document != document:
            document = block.document
            digest.update(b"document %d\0" % document)  # no text holds a zero byte, so this cannot be part of one
        digest.update(data)
        codes = np.frombuffer(
            data if block.text.isascii() else block.text.encode("utf-32-le"),
            dtype=np.uint8 if block.text.isascii() else "<u4",
        )
        blocks.append((len(codes), np.flatnonzero(np.bincount(codes))))
        total += len(codes)
    if total == 0:
        raise InputError(f"{source.name} is empty: give a file with text")
    return Scan(total, digest.hexdigest(), blocks)


def make_tokenizer(kind: str, source: TextSource, scanned: Scan, characters: int, size: int | None = None) -> Tokenizer:
    """A tokeniser from the first `characters` characters of the text: what follows them must not be known.

    size: how many tokens at most, for word and bpe.
    """
    if kind != "char":
        parts = _parts(source, characters, WORDS)
        return train(kind, (p.text for p in itertools.takewhile(lambda p: not p.rest, parts)), size)
    seen, done = np.zeros(0x110000, dtype=bool), 0
    for number, (count, codes) in enumerate(scanned.blocks):
        if done + count > characters:
            if not seen[codes].all():  # the split falls into this block, and it has something new: on which side?
                block = next(itertools.islice(source.blocks(), number, None))
                seen[[ord(c) for c in set(block.text[: characters - done])]] = True
            break
        seen[codes] = True
        done += count
    return CharTokenizer(map(chr, np.flatnonzero(seen)))


class Part(NamedTuple):
    """Some text of one document, on one side of the split."""

    document: int
    rest: bool
    """Is it behind the split."""
    text: str


WORDS = 1 << 20
"""A word that begins in one block and ends in the next is put together, if it has at most so many characters."""


def _parts(source: TextSource, split: int | None, words: int) -> Iterator[Part]:
    """The text of each document on each side of the split, block by block, in order; some may be empty.

    words: up to how many characters may be held back until a word is whole; 0 where tokens are not longer than
    characters.
    """
    held, characters = Part(-1, False, ""), 0
    for block in source.blocks():
        head = len(block.text) if split is None else min(max(0, split - characters), len(block.text))
        characters += len(block.text)
        for rest, text in ((False, block.text[:head]), (True, block.text[head:])):
            if not text and (rest or head < len(block.text)):
                continue
            if (block.document, rest) != held[:2]:
                if held.text:
                    yield held
                held = Part(block.document, rest, "")
            text = held.text + text
            cut = safe_cut(text, 0, len(text)) if words else len(text)
            cut = cut if len(text) - cut <= words else len(text)
            yield Part(block.document, rest, text[:cut])
            held = Part(block.document, rest, text[cut:])
    if held.text:
        yield held


def encode(source: TextSource, tokenizer: Tokenizer, split: int | None = None) -> tuple[Tokens, Tokens | None]:
    """The tokens of the text; with `split`, those of its first `split` characters and those of the rest.

    The file of tokens lies in the system's temporary folder (TMPDIR) without a name, and goes with the process.
    """
    kind = np.min_scalar_type(tokenizer.size - 1)
    documents: list[int] = []
    written, current = 0, -1
    cut: int | None = None
    try:
        with tempfile.TemporaryFile(prefix="unrolled-") as file:
            for part in _parts(source, split, WORDS if tokenizer.kind in SPACED else 0):
                if part.document != current:
                    current = part.document
                    documents.append(written)
                if part.rest and cut is None:
                    cut = written
                ids = tokenizer.encode(part.text).astype(kind)
                file.write(ids.tobytes())
                written += len(ids)
            file.flush()
            ids = np.memmap(file, dtype=kind, mode="r", shape=(written,))
    except OSError as error:
        raise UnrolledError(
            f"cannot write the encoded text to {tempfile.gettempdir()}: {error.strerror}; free some space there, "
            "or set TMPDIR to a folder with room"
        ) from error
    starts = np.array(documents, dtype=np.int64)
    if split is None:
        return Tokens(ids, starts), None
    cut = written if cut is None else cut
    before = starts[starts < cut]
    after = np.concatenate([[0], starts[starts > cut] - cut]).astype(np.int64)
    return Tokens(ids[:cut], before), Tokens(ids[cut:], after)
