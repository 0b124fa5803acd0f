"""Which encoding a text that is not UTF-8 may have: only to advise, never to read it by.

The encodings of East Asia are told by their script: text of one language is hardly ever a valid text of another whose
characters are all of one script. What is left is of Western Europe: bytes 0x80 to 0x9f are quotes, dashes and the euro
in Windows-1252, and control characters, which nobody writes, in Latin-1.
"""

import shlex
from collections.abc import Callable
from pathlib import Path

SAMPLE = 1 << 20
"""Bytes that are looked at."""
ICONV = {"latin-1": "LATIN1", "euc_jp": "EUC-JP", "utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}
"""How iconv calls them, where upper case is not it."""


def _within(*ranges: tuple[int, int]) -> Callable[[str], bool]:
    return lambda character: any(low <= ord(character) <= high for low, high in ranges)


KANA, HANGUL, HAN, CYRILLIC = (
    _within((0x3040, 0x30FF)),
    _within((0xAC00, 0xD7A3)),
    _within((0x4E00, 0x9FFF), (0x3000, 0x303F), (0xFF00, 0xFF5E)),
    _within((0x0400, 0x045F)),
)
SCRIPTS = (
    ("shift_jis", KANA, 0.25, 0.2),  # before cp949, which has some Hangul for each pair of its bytes
    ("euc_jp", KANA, 0.25, 0.2),
    ("cp949", HANGUL, 0.9, 0.2),
    ("gb18030", HAN, 0.9, 0.2),
    ("big5", HAN, 0.9, 0.2),
    ("cp1251", CYRILLIC, 0.9, 0.5),
)
"""At least this share of the characters outside ASCII is of the script, and at least that share of all bytes is outside
ASCII."""


def likely(data: bytes) -> str | None:
    """An encoding that these bytes may be in, None where none is likely.

    >>> likely("안녕하세요, 세계".encode("cp949")), likely("café".encode("latin-1")), likely(b"\\x93a\\x94 \\x96 b")
    ('cp949', 'latin-1', 'cp1252')
    """
    data = data[:SAMPLE]
    if is_utf16(data):
        return "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    high = [byte for byte in data if byte >= 0x80]
    for name, of_script, share, dense in SCRIPTS:
        text = _decoded(data, name) if len(high) > dense * len(data) else ""
        others = [character for character in text if not character.isascii()]
        if others and sum(map(of_script, others)) >= share * len(others):
            return name
    if not any(0x80 <= byte <= 0x9F for byte in high):
        return "latin-1"
    return "cp1252" if _decoded(data, "cp1252") else None


def is_utf16(data: bytes) -> bool:
    """Whether zero bytes are at every second place, as in UTF-16 without a byte-order mark."""
    data = data[:SAMPLE]
    even, odd = data[::2].count(0), data[1::2].count(0)
    return max(even, odd) > 0.3 * (len(data) / 2) and min(even, odd) * 20 <= max(even, odd)


def advice(data: bytes, name: object, flag: bool) -> str:
    """What to do with a text whose bytes these are. flag: whether there is --encoding where it is read."""
    found = likely(data)
    if found is None:
        return "name its encoding with --encoding" if flag else "save it as UTF-8"
    if flag:
        return f"name its encoding, for example --encoding {found}"
    where = shlex.quote(str(name)) if isinstance(name, Path) else "FILE"
    return f"convert it first, for example: iconv -f {ICONV.get(found, found.upper())} -t UTF-8 {where} > utf8.txt"


def _decoded(data: bytes, name: str) -> str:
    """The text; empty where it is not in this encoding. The end may be cut off in the middle of a character."""
    for end in range(len(data), max(len(data) - 4, 0), -1):
        try:
            return data[:end].decode(name)
        except UnicodeDecodeError as error:
            if error.start < len(data) - 4:
                return ""
    return ""
