"""Whether a file of video has lost its end, where FFmpeg reads what is there and says nothing.

MP4, MOV, AVI and their like say how many frames they have, which `containers.py` notices. Matroska says how long it is,
a GIF ends with a byte of its own, and transport streams have packets of one length. What has no end of its own (raw
streams, MPEG-1) may end anywhere.
"""

import os
from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = 0x1A45DFA3, 0x18538067
"""The two elements at the top of Matroska (RFC 8794, RFC 9559)."""
PACKET = 188
"""Bytes of a packet of an MPEG transport stream."""


def is_cut_off(path: Path, form: str) -> bool:
    """form: FFmpeg's name of the format."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if "matroska" in form:
            return _matroska_end(file) > size
        if form == "gif":
            file.seek(max(0, size - PACKET))
            return not file.read().rstrip(b"\0").endswith(b";")
        if form == "mpegts":
            begin = file.read(2 * PACKET)
            return begin[:1] == begin[PACKET : PACKET + 1] == b"G" and size % PACKET != 0
    return False


def _matroska_end(file: BinaryIO) -> int:
    """Where the file must end; 0 where it does not say."""
    element, size = _number(file, keep=True), _number(file)
    if element != EBML or size is None:
        return 0
    file.seek(size, os.SEEK_CUR)
    element, size = _number(file, keep=True), _number(file)
    return file.tell() + size if element == SEGMENT and size is not None else 0


def _number(file: BinaryIO, keep: bool = False) -> int | None:
    """A number of variable length: zeros before the first one say how many bytes follow. keep: that one belongs to it.
    None where all bits are ones, which means "unknown", or where the file ends."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    data = file.read(more)
    value = int.from_bytes(first + data, "big")
    bits = 7 * (more + 1)
    if not keep:
        value &= (1 << bits) - 1
        if value == (1 << bits) - 1:
            return None
    return value if len(data) == more else None
