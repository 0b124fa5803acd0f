"""Clips and tables that tests write, and what is done to them."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.helpers import assert_one_sentence
from unrolled.errors import InputError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
STEP = 10
"""How much brighter each frame of a clip is than the one before."""


def corners(width: int = 64, height: int = 48) -> np.ndarray:
    """Red, green / blue, white."""
    array = np.full((height, width, 3), 255, np.uint8)
    array[: height // 2, : width // 2] = RED
    array[: height // 2, width // 2 :] = GREEN
    array[height // 2 :, : width // 2] = BLUE
    return array


def brighter(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Grey frames, frame n as bright as STEP · n."""
    return [np.full((height, width, 3), STEP * n, np.uint8) for n in range(count)]


def numbers(frames: Any) -> list[int]:
    """Which of the frames of `brighter` these are."""
    return [round(float(frame.mean()) / STEP) for frame in frames]


def write_clip(
    path: Path | Any,
    arrays: Sequence[np.ndarray],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    rate: int = 10,
    form: str | None = None,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Any:
    """Encode frames (H, W, 3). times: of each, in milliseconds."""
    height, width, _ = arrays[0].shape
    target = str(path) if isinstance(path, Path) else path
    with av.open(target, "w", format=form, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for n, array in enumerate(arrays):
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[n], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Put a display matrix into an MP4's track header, as a telephone that is held upright does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    assert struct.unpack(">9i", data[at : at + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_sound(path: Path, cover: bytes = b"") -> Path:
    """A second of silence; an MP3 may have a cover, which FFmpeg calls a video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp3" if path.suffix == ".mp3" else "pcm_s16le", rate=44_100)
        stream.layout = "mono"
        for _ in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4_410), np.int16), format="s16", layout="mono")
            frame.sample_rate = 44_100
            frame.pts = None
            for packet in stream.encode(frame):
                container.mux(packet)
        container.mux(stream.encode(None))
    if cover:
        picture = b"\0image/png\0\x03\0" + cover
        body = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
        size = bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0))
        data = path.read_bytes()
        if data[:3] == b"ID3":
            data = data[10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True)) :]
        path.write_bytes(b"ID3\x03\0\0" + size + body + data)
    return path


def make(folder: Path, *files: str, **texts: str) -> Path:
    """Empty files, and texts by name (`__` is a dot)."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, text in texts.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def refused(read: object, *paths: Path, **how: object) -> str:
    """What a reader of tables says of them."""
    with pytest.raises(InputError) as caught:
        read(list(paths), **how)  # type: ignore[operator]
    assert_one_sentence(str(caught.value))
    return str(caught.value)
