"""Clips through PyAV: what is safe to open, what damage looks like, how a decoded frame becomes an array.

Playlists and scripts that name other files or addresses are not opened, and neither is text, which FFmpeg would draw as
a terminal does. A frame that is too large to be meant is refused before it is decoded.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from unrolled.errors import InputError

OLDEST = (17, 1)
"""Of PyAV: 17.0 crashes on some files, earlier ones scale differently."""
MOST_PIXELS = 1 << 26
"""Of a frame: 8192×8192. A larger one is a mistake or an attack: a file of 100 bytes can ask for 16 GB."""
THREADED = 480 * 270
"""Pixels of a frame from which decoding in parallel is worth its threads."""
REFUSED = {"tty", "bin", "adf", "idf", "xbin", "ffmetadata", "data", "image2", "alias_pix", "brender_pix"}
REFUSED |= {"hls", "dash", "hds", "smoothstreaming", "webm_dash_manifest", "concat", "imf", "sdp", "rtp", "rtsp", "sap"}
REFUSED |= {"lavfi", "fbdev", "kmsgrab", "x11grab", "alsa", "oss"}
EAGER = {"formatprobesize": "8192", "probesize": "65536", "analyzeduration": "200000", "fpsprobesize": "0"}
"""How little FFmpeg looks at of a stream before it gives the first frame; it would wait for seconds."""
BUFFER = 1 << 16
"""Bytes that are read at a time."""
STILL = "_pipe"
"""How FFmpeg's names of formats of single pictures end."""


def library() -> Any:
    """`av`; raises `InputError` where it is not installed, or too old."""
    try:
        found = importlib.import_module("av")
    except ImportError as error:
        raise InputError("videos are read with PyAV: pip install 'unrolled[video]'") from error
    if tuple(int(part) for part in found.__version__.split(".")[:2]) < OLDEST:
        raise InputError(f"PyAV {found.__version__} is too old to read videos here: pip install -U 'unrolled[video]'")
    return found


@contextmanager
def opened(source: Any, name: str, *, live: bool = False, form: str | None = None) -> Iterator[Any]:
    """A container with a video stream. source: what `av.open` takes; name: for messages; live: its frames are wanted as
    soon as they come; form: FFmpeg's name of the format, where it is not to be found out."""
    options = {"format_whitelist": _formats(), "protocol_whitelist": "file,pipe", "max_pixels": str(MOST_PIXELS)}
    options |= EAGER if live else {}
    with errors(name):
        container = library().open(source, options=options, metadata_errors="replace", format=form, buffer_size=BUFFER)
    with container:
        _prepare(container, name, live)
        yield container


class Nameless:
    """A file as PyAV reads it, without the name that FFmpeg would judge it by."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def errors(name: str) -> Iterator[None]:
    """PyAV's errors as `InputError` that names the file."""
    try:
        yield
    except (library().error.FFmpegError, OSError, MemoryError) as error:
        said = getattr(error, "strerror", None) or "out of memory"
        raise InputError(f"{name} is no video, damaged or cut off ({said}): copy it again, or leave it out") from None


def video_stream(container: Any) -> Any:
    """The first one, but for the picture beside the sound of a song."""
    return next(stream for stream in container.streams.video if not _is_cover(stream))


def decoded(container: Any, name: str) -> Iterator[Any]:
    """The frames of a file in the order in which they are shown. Raises `InputError` where it is damaged or cut off."""
    stream, count = video_stream(container), 0
    with errors(name):
        for packet in container.demux(stream):
            frames = packet.decode() if not packet.is_corrupt else []
            if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
                raise InputError(f"{name} is damaged or cut off near frame {count:,}: copy it again, or leave it out")
            count += len(frames)
            yield from frames
    if not count:
        raise InputError(f"{name} has no frames: it is empty, damaged or cut off")


@cache
def _formats() -> str:
    """FFmpeg's names of the formats that may be opened."""
    names = {name for entry in library().formats_available for name in entry.split(",")}
    return ",".join(sorted(names - REFUSED))


def _prepare(container: Any, name: str, live: bool) -> None:
    kind = container.format.name
    if kind.endswith(STILL) and not live:  # live it is picture after picture
        what = f"a picture ({kind.removesuffix(STILL)})"
        raise InputError(f"{name} is {what}, not a video: give a clip, or a folder of pictures")
    if all(_is_cover(stream) for stream in container.streams.video):
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise InputError(f"{name} has no video stream, only {found}: give a file with a video")
    context = video_stream(container).codec_context
    if context is None:
        raise InputError(f"{name} is coded in a way that this FFmpeg cannot decode: convert it to H.264")
    _check_size(context.width, context.height, name)
    wide = context.width * context.height >= THREADED
    context.thread_type = "AUTO" if wide and not live else "SLICE"  # frames in parallel come later


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & library().stream.Disposition.attached_pic)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MOST_PIXELS:
        what = f"frames of {width:,}×{height:,} pixels"
        raise InputError(f"{name} has {what}; at most {MOST_PIXELS:,} are read: make it smaller, or leave it out")


class Converter:
    """Makes arrays (H, W, C) uint8 of decoded frames: upright, all of the size (W, H), or of the first one's."""

    def __init__(self, name: str, size: tuple[int, int] | None, grey: bool) -> None:
        self.name, self.size, self.grey = name, size, grey
        self._reformatter = library().video.reformatter.VideoReformatter()
        self._orientation: tuple[tuple[slice, slice], bool] | None = None
        self._rotation = 0

    def __call__(self, frame: Any) -> np.ndarray:
        _check_size(frame.width, frame.height, self.name)
        across, turned = self._upright(frame)
        self.size = self.size or ((frame.height, frame.width) if turned else (frame.width, frame.height))
        width, height = self.size[::-1] if turned else self.size
        alpha = any(part.is_alpha for part in frame.format.components) or frame.format.has_palette
        smaller = width < frame.width or height < frame.height
        array = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if alpha else "gray8" if self.grey else "rgb24",
            interpolation="AREA" if smaller else "BILINEAR",
            threads=1,
        ).to_ndarray()
        if alpha:
            array = _on_white(array)
            array = _luma(array) if self.grey else array
        array = array.reshape(height, width, -1)
        array = array.transpose(1, 0, 2) if turned else array
        return np.array(array[across], order="C")

    def _upright(self, frame: Any) -> tuple[tuple[slice, slice], bool]:
        """How a frame is made upright; its matrix is looked at where its rotation is another than before.

        PyAV's `side_data` and its frame hold each other, so a frame that is asked for it stays until the next garbage
        collection: of a film in full size that would be hundreds.
        """
        rotation = frame.rotation
        if self._orientation is None or rotation != self._rotation:
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self._orientation = _orientation(None if matrix is None else np.frombuffer(matrix, np.int32))
            self._rotation = rotation
        return self._orientation


def _orientation(matrix: np.ndarray | None) -> tuple[tuple[slice, slice], bool]:
    """How a frame is made upright by its display matrix (9,): how its rows and columns are passed through, after they
    are exchanged, if they are. A matrix that is no quarter turn or flip is taken for the one that is nearest.

    The matrix has x' = a x + c y and y' = b x + d y (ISO/IEC 14496-12, 6.2.2).
    """
    a, b, _, c, d = (1, 0, 0, 0, 1) if matrix is None else (int(entry) for entry in matrix[:5])
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    x, y = (c, b) if turned else (a, d)
    return (slice(None, None, -1 if y < 0 else 1), slice(None, None, -1 if x < 0 else 1)), turned


def _on_white(array: np.ndarray) -> np.ndarray:
    """(H, W, 4) with opacity last, laid on white: (H, W, 3)."""
    opacity = array[..., 3:].astype(np.uint16)
    return ((array[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def _luma(array: np.ndarray) -> np.ndarray:
    """Brightness (H, W) of (H, W, 3), as ITU-R BT.601 weighs the colours."""
    return ((array @ np.array([19595, 38470, 7471], dtype=np.uint32) + 0x8000) >> 16).astype(np.uint8)
