"""Frames as they arrive: from standard input or another pipe, a camera, a file or a folder of pictures that grows.

Memory stays that of a few frames, however long it goes on. Formats that can be read without their end will do, such as
MPEG-TS, Matroska, fragmented MP4, MJPEG and YUV4MPEG; the usual MP4 has its index at the end, and can only be followed
when it is complete. A stream may begin and end anywhere, and what arrives damaged is left out and counted.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.data import containers
from unrolled.data.pictures import is_picture_name, natural, read_picture
from unrolled.errors import InputError

PATIENCE = 5.0
"""Seconds without anything new after which what grows is taken to be complete."""
PAUSE = 0.02
"""Seconds between two looks at what grows."""


class Feed:
    """The frames (H, W, C) uint8 of a source, each as soon as it can be decoded.

    source: "-" for standard input, a pipe, a camera (/dev/video0), a file, or a folder of pictures. follow: a file or
    folder goes on to grow, until nothing is added for `patience` seconds. size: (W, H); None leaves frames as the first
    one is. grey: C = 1 instead of 3. stride: the first of every so many.

    Raises `InputError` where the source is missing, or has no video at all.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        size: tuple[int, int] | None = None,
        grey: bool = False,
        stride: int = 1,
        follow: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        self.path = None if str(source) == "-" else Path(source)
        self.name = "standard input" if self.path is None else str(self.path)
        self.size, self.grey, self.stride = size, grey, stride
        self.patience = patience if follow else 0.0
        self.arrived = time.monotonic()
        """When the latest data came, on the monotonic clock: the time of a label less this is its latency."""
        self.damaged = 0
        """Frames, or pieces of the stream, that were left out"""

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.path is not None and not self.path.exists():
            raise InputError(f"no such file, folder or camera: {self.path}")
        for number, frame in enumerate(self._pictures() if self.path and self.path.is_dir() else self._video()):
            if number % self.stride == 0:
                yield frame

    def _video(self) -> Iterator[np.ndarray]:
        convert, given = containers.Converter(self.name, self.size, self.grey), 0
        with contextlib.ExitStack() as stack:
            source, form = self._source(stack)
            container = stack.enter_context(containers.opened(source, self.name, live=True, form=form))
            for frame in self._decoded(container):
                if form is not None:
                    self.arrived = time.monotonic()
                yield convert(frame)
                given += 1
        if not given:
            raise InputError(f"{self.name} has no frames that can be decoded: send a video, such as MPEG-TS or MJPEG")

    def _source(self, stack: contextlib.ExitStack) -> tuple[Any, str | None]:
        """What PyAV reads, and FFmpeg's name of its format where that is known."""
        if self.path is None:
            return _Bytes(self, sys.stdin.fileno()), None
        if self.path.is_char_device():
            return str(self.path), "v4l2"
        file = stack.enter_context(self.path.open("rb", buffering=0))
        complete = self.path.is_file() and not self.patience
        return (containers.Nameless(file) if complete else _Bytes(self, file.fileno())), None

    def _decoded(self, container: Any) -> Iterator[Any]:
        """All frames that are whole."""
        damage = containers.library().error.InvalidDataError
        stream, failed = containers.video_stream(container), False
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except damage:
                self.damaged += 1
                if failed:
                    return
                failed, packets = True, container.demux(stream)
                continue
            if packet is None:
                return
            failed = False
            try:
                frames = packet.decode() if not packet.is_corrupt else []
            except damage:
                frames = []
                self.damaged += 1
            self.damaged += packet.is_corrupt + sum(frame.is_corrupt for frame in frames)
            yield from (frame for frame in frames if not frame.is_corrupt)

    def _pictures(self) -> Iterator[np.ndarray]:
        assert self.path is not None
        seen: set[str] = set()
        last = time.monotonic()
        while True:
            new = [p for p in self.path.iterdir() if p.name not in seen and p.name[0] != "." and is_picture_name(p)]
            for path in sorted(new, key=natural):
                array = self._when_whole(path)
                seen.add(path.name)
                self.arrived = last = time.monotonic()
                if array is not None:
                    yield array
            if not new:
                if time.monotonic() - last >= self.patience:
                    break
                time.sleep(PAUSE)
        if not seen:
            raise InputError(f"the folder {self.path} has no pictures: give a folder with some, or to which some come")

    def _when_whole(self, path: Path) -> np.ndarray | None:
        """The picture, which may still be being written; None where it stays damaged."""
        begun = time.monotonic()
        while True:
            try:
                array = read_picture(path, size=self.size, grey=self.grey)
            except InputError:
                if time.monotonic() - begun >= self.patience:
                    self.damaged += 1
                    return None
                time.sleep(PAUSE)
            else:
                self.size = self.size or (array.shape[1], array.shape[0])
                return array


class _Bytes:
    """What PyAV reads from: what is there, waiting only where nothing is."""

    def __init__(self, feed: Feed, file: int) -> None:
        self._feed, self._file = feed, file
        self._ended = False

    def read(self, most: int) -> bytes:
        if self._ended:  # FFmpeg asks again, and would be made to wait each time
            return b""
        deadline = time.monotonic() + self._feed.patience
        while not (data := os.read(self._file, most)) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        if data:
            self._feed.arrived = time.monotonic()
        self._ended = not data
        return data
