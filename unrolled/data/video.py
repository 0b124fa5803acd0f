"""Frames of a clip, one after the other: of any container and codec that PyAV opens, or of a folder of pictures.

A clip is decoded while it is read, so a film of any length takes the memory of a few frames. Frames come in the order
in which they are shown. What they are made to be:

* upright: a rotation that the file states, as telephones write it, is applied;
* 8 bits a channel, whatever the file has: red, green and blue, or grey; white where it is transparent;
* of one size. Pixels that are not square stay so.

The content says what a file is, not its name.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unrolled.data import containers
from unrolled.data.endings import is_cut_off
from unrolled.data.pictures import check_file, picture_files, read_picture
from unrolled.errors import InputError

LONGEST = 24 * 3600.0
"""Seconds that one frame may be shown; more are damaged times, and would be filled with frames for ever."""


@dataclass(frozen=True)
class Video:
    """What a clip is like."""

    width: int
    height: int
    """Of a frame as it is shown, upright."""
    frames: int | None
    """As its header says; None where it does not"""
    rate: float | None
    """Frames a second, on average; None for a folder of pictures."""


class Shown(NamedTuple):
    """A frame, or whatever stands for it, and when it is shown, in seconds."""

    begin: float
    end: float
    frame: Any


def frames(
    path: str | PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    grey: bool = False,
    stride: int = 1,
    count: int | None = None,
    fps: float | None = None,
) -> Iterator[np.ndarray]:
    """The frames (H, W, C) uint8 of a file, or of a folder of pictures in natural order (frame2 before frame10).

    size: (W, H) of the frames; None leaves them as they are. grey: C = 1 instead of 3. fps: so many frames a second at
    equal times, whatever the file has; each is the one that is shown at that time. stride: of these, the first of every
    so many. count: of these, at most so many, from the middle of equal parts of the clip; the file is read once more
    for it, but not decoded. For the first n take `itertools.islice`.

    Raises `InputError` naming the file where it is missing, empty, no video, damaged or cut off; the frames before the
    damage have been given by then.
    """
    assert stride >= 1 and (count is None or count >= 1) and (fps is None or fps > 0)
    where = Path(path)
    if where.is_dir():
        if fps is not None:
            raise InputError(f"{where} is a folder of pictures, which have no times: leave the frames a second out")
        files = picture_files(where)
        yield from _pictures([files[n] for n in wanted(len(files), stride, count)], size, grey)
        return
    check_file(where)
    total = None if count is None else sum(1 for _ in _at_equal_times(_packets(where), fps, str(where)))
    with _opened(where) as container:
        chosen = _at_equal_times(_timed(container, str(where)), fps, str(where))
        if total is None:
            chosen = itertools.islice(chosen, 0, None, stride)
        else:
            numbers = set(wanted(total, stride, count).tolist())
            chosen = (frame for n, frame in enumerate(chosen) if n in numbers)
        yield from map(containers.Converter(str(where), size, grey), chosen)


def probe(path: str | PathLike[str]) -> Video:
    """What a file or a folder of pictures is like, without decoding it all."""
    where = Path(path)
    if where.is_dir():
        files = picture_files(where)
        height, width, _ = read_picture(files[0]).shape
        return Video(width, height, len(files), None)
    check_file(where)
    with _opened(where) as container:
        stream = containers.video_stream(container)
        first = next(containers.decoded(container, str(where)))
        height, width, _ = containers.Converter(str(where), None, True)(first).shape
        rate = stream.average_rate or stream.guessed_rate
        return Video(width, height, stream.frames or None, float(rate) if rate else None)


def wanted(total: int, stride: int, count: int | None) -> np.ndarray:
    """The numbers of the frames that are taken of so many.

    >>> wanted(10, 3, None).tolist(), wanted(10, 1, 3).tolist(), wanted(2, 1, 3).tolist()
    ([0, 3, 6, 9], [1, 5, 8], [0, 1])
    """
    numbers = np.arange(0, total, stride)
    if count is None or count >= len(numbers):
        return numbers
    return numbers[(2 * np.arange(count) + 1) * len(numbers) // (2 * count)]


def _pictures(files: list[Path], size: tuple[int, int] | None, grey: bool) -> Iterator[np.ndarray]:
    first: tuple[int, ...] | None = None
    for path in files:
        array = read_picture(path, size=size, grey=grey)
        first = first or array.shape
        if array.shape != first:
            raise InputError(
                f"{path} has {array.shape[1]}×{array.shape[0]} pixels and {files[0].name} beside it "
                f"{first[1]}×{first[0]}: make the frames of a clip equally large"
            )
        yield array


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Raises `InputError` where it is no whole video."""
    with path.open("rb", buffering=0) as file, containers.opened(containers.Nameless(file), str(path)) as container:
        if path.is_file() and is_cut_off(path, container.format.name):
            raise InputError(f"{path} is cut off: copy it again, or leave it out")
        yield container


def _packets(path: Path) -> list[Shown]:
    """When the frames of a file are shown, from what it says before decoding."""
    with _opened(path) as container, containers.errors(str(path)):
        stream = containers.video_stream(container)
        usual = _usual(stream)
        found = [p for p in container.demux(stream) if p.size and not p.is_discard]
        unit = float(stream.time_base)
        times = sorted(unit * p.pts if p.pts is not None else n * usual for n, p in enumerate(found))
        last = unit * found[-1].duration if found and found[-1].duration else usual
    ends = [*times[1:], times[-1] + last] if times else []
    return [Shown(begin, end, None) for begin, end in zip(times, ends, strict=True)]


def _timed(container: Any, name: str) -> Iterator[Shown]:
    usual = _usual(containers.video_stream(container))
    before: tuple[float, Any] | None = None
    frame = None
    for n, frame in enumerate(containers.decoded(container, name)):
        time = n * usual if frame.time is None else frame.time
        if before is not None:
            yield Shown(before[0], time, before[1])
        before = time, frame
    if before is not None and frame is not None:
        duration = float(frame.duration * frame.time_base) if frame.duration else usual
        yield Shown(before[0], before[0] + duration, before[1])


def _usual(stream: Any) -> float:
    """Seconds that a frame is shown, on average."""
    return 1 / float(stream.average_rate or stream.guessed_rate or 25)


def _at_equal_times(shown: Iterable[Shown], fps: float | None, name: str) -> Iterator[Any]:
    """The frame that is shown at each time k / fps after the first; without `fps` each once."""
    start, given = None, 0
    for begin, end, frame in shown:
        if fps is None:
            yield frame
            continue
        if end - begin > LONGEST:
            raise InputError(
                f"{name} shows a frame for {(end - begin) / 3600:,.0f} hours: leave the frames a second out"
            )
        start = begin if start is None else start
        while given / fps < end - start - 1e-6:
            yield frame
            given += 1
