"""Clips through PyAV: what is safe to open, what damage looks like, how a decoded frame becomes an array.

Playlists and scripts that name other files or addresses are not opened, and neither is text, which FFmpeg would draw as
a terminal does.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from unrolled.errors import InputError

MOST_PIXELS = 1 << 26
"""Of a frame: 8192×8192. A larger one is a mistake or an attack: a file of 100 bytes can ask for 16 GB."""
THREADED = 480 * 270
"""Pixels from which decoding frames in parallel is worth its threads."""
REFUSED = {
    "tty",
    "bin",
    "adf",
    "idf",
    "xbin",
    "hls",
    "dash",
    "concat",
    "lavfi",
    "image2",
    "ffmetadata",
    "sdp",
    "rtp",
    "rtsp",
}
REFUSED |= {"hds", "smoothstreaming", "webm_dash_manifest", "data", "imf", "fbdev", "kmsgrab", "x11grab", "alias_pix"}
STILL = "_pipe"
"""How the names of FFmpeg's formats of single pictures end."""


def library() -> Any:
    """`av`; raises `InputError` where it is not installed."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise InputError("videos are read with PyAV: pip install 'unrolled[video]'") from error


@contextmanager
def opened(source: Any, name: str, options: dict[str, str] | None = None) -> Iterator[Any]:
    """A container with a video stream. source: what `av.open` takes; name: for messages."""
    av = library()
    limits = {"format_whitelist": _formats(), "protocol_whitelist": "file,pipe", "max_pixels": str(MOST_PIXELS)}
    with errors(name):
        container = av.open(source, options={**limits, **(options or {})}, metadata_errors="replace")
    with container:
        _check(container, name)
        yield container


@contextmanager
def errors(name: str) -> Iterator[None]:
    """PyAV's errors as `InputError` that names the file."""
    av = library()
    try:
        yield
    except (av.error.FFmpegError, MemoryError) as error:
        said = getattr(error, "strerror", None) or str(error) or "out of memory"
        raise InputError(f"{name} cannot be decoded as video ({said}): it is damaged, cut off or no video") from None


@cache
def _formats() -> str:
    """FFmpeg's names of the formats that may be opened."""
    names = {name for entry in library().formats_available for name in entry.split(",")}
    return ",".join(sorted(names - REFUSED))


def _check(container: Any, name: str) -> None:
    kind = container.format.name
    if kind.endswith(STILL):
        raise InputError(
            f"{name} is a picture ({kind.removesuffix(STILL)}), not a video: give a clip, or a folder of pictures"
        )
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        found = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise InputError(f"{name} has no video stream (it has {found}): give a file with pictures that move")
    context = streams[0].codec_context
    if context is None:
        raise InputError(f"{name} is coded in a way that this FFmpeg cannot decode: convert it to H.264 first")
    check_size(context.width, context.height, name)
    wide = context.width * context.height >= THREADED
    context.thread_type = "AUTO" if wide else "NONE"
    if not wide:
        context.thread_count = 1


def check_size(width: int, height: int, name: str) -> None:
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{name} has frames of {width:,}×{height:,} pixels, more than {MOST_PIXELS:,}: make it smaller first"
        )


def _is_cover(stream: Any) -> bool:
    """A picture beside the sound of a song."""
    return "attached_pic" in str(stream.disposition)


def video_stream(container: Any) -> Any:
    """The first that moves."""
    return next(s for s in container.streams.video if not _is_cover(s))


def decoded(container: Any, name: str) -> Iterator[Any]:
    """The frames of a file in the order in which they are shown. Raises `InputError` where it is damaged or cut off."""
    stream, count = video_stream(container), 0
    with errors(name):
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise InputError(f"{name} is damaged or cut off after {count:,} frames: copy it again, or leave it out")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise InputError(f"{name} is damaged at frame {count:,}: copy it again, or leave it out")
                yield frame
                count += 1
    if not count:
        raise InputError(f"{name} has no frames: it is empty, damaged or cut off")


class Converter:
    """Makes arrays (H, W, C) uint8 of decoded frames, all of the same size."""

    def __init__(self, name: str, size: tuple[int, int] | None, grey: bool) -> None:
        self.name, self.size, self.grey = name, size, grey
        self._reformatter = library().video.reformatter.VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        turns, flipped = _orientation(frame)
        width, height = self.size or upright_size(frame.width, frame.height, turns)
        check_size(frame.width, frame.height, self.name)
        if self.size is None:
            self.size = (width, height) if frame.width else None
        stored = upright_size(width, height, turns)
        kind = "rgba" if any(c.is_alpha for c in frame.format.components) else "gray8" if self.grey else "rgb24"
        smaller = stored[0] < frame.width or stored[1] < frame.height
        scaled = self._reformatter.reformat(
            frame,
            width=stored[0],
            height=stored[1],
            format=kind,
            interpolation="AREA" if smaller else "BILINEAR",
            threads=1,
        )
        array = scaled.to_ndarray()
        if kind == "rgba":
            array = on_white(array)
            if self.grey:
                array = luma(array)
        array = array.reshape(*array.shape[:2], -1)
        array = array[:, ::-1] if flipped else array
        return np.array(np.rot90(array, turns), order="C")


def upright_size(width: int, height: int, turns: int) -> tuple[int, int]:
    return (height, width) if turns % 2 else (width, height)


def _orientation(frame: Any) -> tuple[int, bool]:
    """How many quarter turns, counterclockwise, make it upright, and whether it is mirrored before."""
    return round(frame.rotation / 90) % 4, False


def on_white(array: np.ndarray) -> np.ndarray:
    """(H, W, 4) with opacity last, laid on white: (H, W, 3)."""
    opacity = array[..., 3:].astype(np.uint16)
    return ((array[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def luma(array: np.ndarray) -> np.ndarray:
    """Brightness (H, W) of (H, W, 3), as ITU-R BT.601 weighs the colours."""
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((array @ weights + 0x8000) >> 16).astype(np.uint8)
