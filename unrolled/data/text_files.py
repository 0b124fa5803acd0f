"""How a text file is read: its encoding, its byte-order mark, its lines. Every reader of text comes here.

* A text is in UTF-8, unless its encoding is named, or a byte-order mark at its beginning says UTF-16 or UTF-32. A
  mark that contradicts the encoding that was named is an error.
* The byte-order mark at the beginning is no part of the text; one further on is a character like any other.
* LF or CRLF end a line, and CR alone where the text has no LF. Nothing else does: texts in Latin-1 and from the web
  hold other characters that Unicode calls line ends (U+0085, U+2028, VT, FF).
* A zero byte says that a file is binary.
"""

import codecs
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from unrolled.data.encodings import advice, is_utf16
from unrolled.errors import InputError

BLOCK = 1 << 22
"""Bytes read at a time: memory stays small however large the file."""
BOMS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
BOM = "\ufeff"
SOUND = {codec for _, codec in BOMS}
"""Codecs that let no half of a surrogate pair through."""


def read_text(path: Path, encoding: str | None = None, *, flag: bool = True) -> str:
    """A whole file as text. encoding: as Python knows it; flag: whether the user can name it with --encoding.

    Raises `InputError` where it cannot be read or is not in that encoding, with line and byte.
    """
    return "".join(blocks(path, encoding, flag=flag))


def blocks(path: Path, encoding: str | None = None, *, flag: bool = True) -> Iterator[str]:
    """The text of a file of any size, some whole characters at a time; as `read_text`."""
    check_encoding(encoding)
    yield from _decoded(_bytes_of(path), path, encoding, flag)


def lines_of(path: Path, encoding: str | None = None) -> Iterator[str]:
    """The lines of a file of any size, one after the other, as `split_lines` would find them."""
    end = "\n" if any("\n" in block for block in blocks(path, encoding)) else "\r"
    return _lines(blocks(path, encoding), end)


def lines_of_standard_input(encoding: str | None = None) -> Iterator[str]:
    """The lines as they come; where no LF comes at all, at the end, since CR may then divide them."""
    check_encoding(encoding)
    chunks = iter(lambda: os.read(sys.stdin.fileno(), 1 << 16), b"")
    return _lines(_decoded(chunks, "standard input", encoding, True), None)


def split_lines(text: str) -> list[str]:
    """The lines, without their ends."""
    lines = text.split("\n" if "\n" in text else "\r")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def check_encoding(name: str | None) -> None:
    """Raises `InputError` where Python knows no such encoding of text."""
    try:
        b"a".decode("utf-8" if name is None else name)
    except UnicodeError:
        return  # one that needs more than a byte
    except (LookupError, ValueError):
        raise InputError(
            f"unknown --encoding {name!r}: choose for example utf-8, latin-1, cp1252, cp949 or utf-16"
        ) from None


def check_unicode(text: str, where: str) -> None:
    """Raises `InputError` where a text is none: with half of a character, which no UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} has half a character (U+{ord(text[error.start]):04X}), as a text that was cut inside an emoji, "
            "or one that is not in UTF-8: remove it"
        ) from None


def is_text(path: Path) -> bool:
    """By its beginning: not empty, in UTF-8 or with a byte-order mark, and without a zero byte."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    codec = codec_of(head, None, path)
    try:
        text = codecs.getincrementaldecoder(codec)().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text.removeprefix(BOM)) and "\0" not in text


def is_empty(path: Path) -> bool:
    """Whether a file holds nothing, or a byte-order mark alone."""
    with path.open("rb") as file:
        head = file.read(5)
    return not head or head in [bom for bom, _ in BOMS]


def codec_of(head: bytes, encoding: str | None, name: object) -> str:
    """The codec of a text that begins so. Raises `InputError` where its byte-order mark contradicts the encoding."""
    told = next((codec for bom, codec in BOMS if head.startswith(bom)), None)
    asked = "utf-8" if encoding is None else codecs.lookup(encoding).name
    if told is None:  # of UTF-16 and UTF-32 that do not say their order, nearly all begin with the low byte
        return {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}.get(asked, asked)
    family = "-".join(told.split("-")[:2])
    if encoding is not None and asked not in (told, family, "utf-8-sig" if told == "utf-8" else told):
        raise InputError(
            f"{name} begins with the byte-order mark of {family.upper()}, so it is not {encoding}: leave --encoding out"
        )
    return told


def _bytes_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.read(BLOCK):
                yield data
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _decoded(chunks: Iterable[bytes], name: object, encoding: str | None, flag: bool) -> Iterator[str]:
    chunks, head = iter(chunks), b""
    while len(head) < 4 and any(bom.startswith(head) for bom, _ in BOMS):
        more = next(chunks, b"")
        if not more:
            break
        head += more
    codec = codec_of(head, encoding, name)
    decoder = codecs.getincrementaldecoder(codec)()
    fed, lines, begun = 0, 0, False
    for data in chain([head], chunks, [None]):
        try:
            text = decoder.decode(data or b"", final=data is None)
        except UnicodeDecodeError as error:
            begin = fed + len(data or b"") - len(error.object)
            raise _not_encoded(name, error, begin, lines, encoding, codec, flag) from None
        except UnicodeError as error:
            raise InputError(f"{name} is not {encoding} ({error}): give another --encoding") from None
        if "\0" in text:
            raise _binary(name, data or b"", fed, codec, flag)
        if codec not in SOUND:
            check_unicode(text, str(name))
        fed += len(data or b"")
        if text and not begun:
            text, begun = text.removeprefix(BOM), True
        if text:
            lines += text.count("\n")
            yield text


def _binary(name: object, data: bytes, before: int, codec: str, flag: bool) -> InputError:
    """data: the block with the zero byte, which begins after so many bytes."""
    if codec.startswith(("utf-16", "utf-32")):
        return InputError(f"{name} looks binary (it has a zero character): give a text file")
    where = f"{name} looks binary (a zero byte at byte {before + data.find(0):,})"
    if codec == "utf-8" and is_utf16(data):
        return InputError(f"{where}, or is UTF-16 without a byte-order mark: {advice(data, name, flag)}")
    return InputError(f"{where}: give a text file, or leave it out")


def _not_encoded(
    name: object, error: UnicodeDecodeError, begin: int, lines: int, encoding: str | None, codec: str, flag: bool
) -> InputError:
    """begin: bytes of the file before those that were decoded; lines: before them."""
    data: bytes = error.object
    if b"\0" in data and not codec.startswith(("utf-16", "utf-32")):
        return _binary(name, data, begin, codec, flag)
    before = data[: error.start].decode(codec, errors="ignore")
    found = encoding or ("UTF-8" if codec == "utf-8" else codec.upper())
    where = (
        f"{name} is not {found} in line {lines + before.count(chr(10)) + 1:,}, at byte {begin + error.start:,} of the "
        f"file (0x{data[error.start]:02x})"
    )
    if encoding is not None:
        return InputError(f"{where}: give another --encoding")
    if codec != "utf-8":
        return InputError(f"{where}, though its byte-order mark says so: save it again")
    if not before.isascii():
        return InputError(f"{where}, but it is before: correct that line, which is damaged or from another file")
    return InputError(f"{where}: {advice(data, name, flag)}")


def _lines(texts: Iterable[str], end: str | None) -> Iterator[str]:
    """end: what ends a line; None: LF, or at the end of a text without any, CR."""
    held: list[str] = []
    for text in texts:
        first, *others = text.split(end or "\n")
        held.append(first)
        for part in others:
            end = end or "\n"
            yield "".join(held).removesuffix("\r")
            held = [part]
    if rest := "".join(held):
        yield from split_lines(rest) if end is None else [rest.removesuffix("\r")]
