"""Whether a file of video has lost its end, where FFmpeg reads what is there and says nothing.

Matroska says how long it is, and so does each box of an MP4; a GIF ends with a byte of its own, an FLV with the length
of its last tag, and transport streams have packets of one length. MPEG-1, YUV4MPEG and streams without a container have
no end that could be missed.
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
        if "mp4" in form:
            return _boxes_end(file) > size
        if form == "flv":
            return not _ends_with_a_tag(file, size)
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


def _boxes_end(file: BinaryIO) -> int:
    """Where the last box of an MP4 ends (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while len(header := file.read(16)) >= 8:
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:  # to the end of the file; or damaged, which is noticed elsewhere
            return 0
        end += size
        file.seek(end)
    return end + 8 if header else end


def _ends_with_a_tag(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    file.seek(max(0, size - 4 - length))
    return length >= 11 and int.from_bytes(file.read(4)[1:], "big") == length - 11


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
