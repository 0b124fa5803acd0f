"""Finding and reading text: files and folders of UTF-8, block by block, with errors that say where."""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unrolled.errors import InputError

BLOCK = 1 << 22
"""Bytes read at a time: memory stays small however large the file."""


class Block(NamedTuple):
    """Some whole characters of one document."""

    document: int
    text: str


class TextSource:
    """The documents of a corpus, in order: each file is one; a folder gives its text files, sorted by path.

    Hidden files are left out; `skipped` lists the files of a folder that do not look like UTF-8 text.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        if not paths:
            raise InputError("no text is given: name a file or a folder")
        self.documents: list[Path] = []
        self.skipped: list[Path] = []
        for path in map(Path, paths):
            try:
                self._add(path)
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror}") from error
        self.bytes = sum(document.stat().st_size for document in self.documents)

    def _add(self, path: Path) -> None:
        if path.is_dir():
            found = [f for f in sorted(path.rglob("*")) if f.is_file() and not _hidden(f.relative_to(path))]
            text = [f for f in found if _looks_like_text(f)]
            if not text:
                raise InputError(f"no UTF-8 text files in the folder {path}: name a folder with text, or a file")
            self.documents += text
            self.skipped += sorted(set(found) - set(text))
        elif not path.exists():
            raise InputError(f"no such file or folder: {path}")
        elif not path.is_file():
            raise InputError(f"{path} is neither a file nor a folder: save its text to a file first")
        elif path.stat().st_size == 0:
            raise InputError(f"{path} is empty: give a file with text")
        else:
            self.documents.append(path)

    @property
    def name(self) -> str:
        """For messages: the file, or the number of documents."""
        if len(self.documents) == 1:
            return str(self.documents[0])
        return f"{len(self.documents)} documents"

    def blocks(self) -> Iterator[Block]:
        """The text, checked: raises `InputError` with file and byte where it is not UTF-8 or looks binary."""
        for number, path in enumerate(self.documents):
            offset, rest = 0, b""
            for data in _read(path):
                data = rest + data
                cut = len(data) - _unfinished(data)
                yield Block(number, _checked(path, data[:cut], offset))
                offset += cut
                rest = data[cut:]
            if rest:
                _checked(path, rest, offset)  # a character that the end of the file cuts in two: raises


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.read(BLOCK):
                yield data
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _checked(path: Path, data: bytes, offset: int) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise _binary(path, offset + data.index(b"\0")) from None
        where = offset + error.start
        raise InputError(
            f"{path} is not UTF-8 at byte {where:,} (0x{data[error.start]:02x}): "
            f"convert it first, for example: iconv -f LATIN1 -t UTF-8 {shlex.quote(path.name)} > utf8.txt"
        ) from None
    if "\0" in text:
        raise _binary(path, offset + data.index(b"\0"))
    return text


def _binary(path: Path, where: int) -> InputError:
    return InputError(f"{path} looks binary (a zero byte at byte {where:,}): give a text file in UTF-8")


def _unfinished(data: bytes) -> int:
    """How many bytes at the end begin a character that goes on past it (0 to 3)."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _looks_like_text(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1 << 16)
    head = head[: len(head) - _unfinished(head)]
    try:
        return bool(head) and "\0" not in head.decode()
    except UnicodeDecodeError:
        return False
