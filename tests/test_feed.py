"""Frames as they arrive: from a pipe, a growing file or folder, each long before the end is there."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers import assert_one_sentence
from tests.media_helpers import STEP, brighter, numbers, write_clip
from unrolled.data.feed import Feed
from unrolled.errors import InputError

LIVE: dict[str, dict[str, Any]] = {
    "mpegts": {"options": {"tune": "zerolatency"}},
    "matroska": {"options": {"tune": "zerolatency"}, "muxer": {"cluster_time_limit": "0"}},
    "mp4": {"options": {"tune": "zerolatency"}, "muxer": {"movflags": "frag_every_frame+empty_moov+default_base_moof"}},
    "mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "yuv4mpegpipe": {"codec": "rawvideo"},
}


class Sender:
    """Writes a clip into a file descriptor, each frame only when it is asked for."""

    def __init__(self, file: int) -> None:
        self._file, self._allowed = file, threading.Semaphore(0)

    def write(self, data: bytes) -> int:
        return os.write(self._file, data)

    def frames(self, arrays: list[np.ndarray]) -> "Waiting":
        return Waiting(arrays, self._allowed)

    def allow(self, count: int) -> None:
        self._allowed.release(count)


class Waiting(list):
    """Frames, each handed out when it is allowed."""

    def __init__(self, arrays: list[np.ndarray], allowed: threading.Semaphore) -> None:
        super().__init__(arrays)
        self._allowed = allowed

    def __iter__(self) -> Iterator[np.ndarray]:
        for array in super().__iter__():
            assert self._allowed.acquire(timeout=3), "the frames before this one have not come"
            yield array


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    os.close(ends[0])


def busy(count: int) -> list[np.ndarray]:
    """As `brighter`, of noise, so that a frame has as many bytes as a camera's has."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 2 * STEP * n + 1, (120, 160, 3), dtype=np.uint8) for n in range(count)]


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("form", LIVE)
def test_a_frame_is_there_long_before_the_end(pipe: tuple[int, int], form: str) -> None:
    """Frame n comes when at most six later ones have been sent."""
    reading, writing = pipe
    sender = Sender(writing)
    how = {"muxer": {}, **LIVE[form]}
    how["muxer"] = {**how["muxer"], "flush_packets": "1"}

    def send() -> None:
        try:
            write_clip(sender, sender.frames(busy(13)), form=form, **how)
        finally:
            os.close(writing)

    thread = in_background(send)
    sender.allow(7)
    feed, found = Feed(f"/dev/fd/{reading}", size=(16, 12)), []
    for frame in feed:
        found.append(frame)
        assert frame.shape == (12, 16, 3)
        sender.allow(1)
    thread.join(5)
    assert numbers(found) == list(range(13)) and feed.damaged == 0


def test_standard_input(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", brighter(12))
    code = (
        "from unrolled.data.feed import Feed\n"
        "print([round(float(f.mean()) / 10) for f in Feed('-', size=(16, 12), grey=True, stride=2)])"
    )
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(list(range(0, 12, 2))), done.stderr


def test_a_growing_file_is_followed(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.ts", brighter(20, 160, 120)).read_bytes()
    growing = tmp_path / "growing.ts"
    growing.touch()
    half = len(whole) // 2
    sent = []

    def grow() -> None:
        with growing.open("ab", buffering=0) as file:
            for begin, end in itertools.pairwise([0, half // 3, half, half + 100, len(whole)]):
                time.sleep(0.05)
                file.write(whole[begin:end])
                sent.append(end)

    thread = in_background(grow)
    found = numbers(Feed(growing, follow=True, patience=0.5))
    thread.join()
    assert found == list(range(20)) and len(sent) == 4
    assert numbers(Feed(growing)) == list(range(20))  # and without following


def test_a_growing_folder_is_followed(tmp_path: Path) -> None:
    def grow() -> None:
        for n, array in enumerate(brighter(12)):
            part = tmp_path / f"f{n}.png"
            Image.fromarray(array).save(tmp_path / ".new", "PNG")
            data = (tmp_path / ".new").read_bytes()
            part.write_bytes(data[:40])  # a camera's program is in the middle of writing
            time.sleep(0.03)
            part.write_bytes(data)

    thread = in_background(grow)
    feed = Feed(tmp_path, follow=True, patience=0.6)
    begun = time.monotonic()
    found = numbers(feed)
    thread.join()
    assert found == list(range(12)) and feed.damaged == 0 and feed.arrived >= begun
    (tmp_path / "f12.png").write_bytes(b"no picture")
    feed = Feed(tmp_path)
    assert numbers(feed) == list(range(12)) and feed.damaged == 1


def test_what_is_damaged_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", brighter(20), "mjpeg", "yuvj420p")
    data = bytearray(path.read_bytes())
    begins = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    for n in (4, 5, 17):
        size = data.index(b"\xff\xd9", begins[n]) - begins[n]
        data[begins[n] : begins[n] + size] = bytes(size)
    path.write_bytes(data)
    feed = Feed(path)
    assert numbers(feed) == [n for n in range(20) if n not in (4, 5, 17)] and feed.damaged == 3


def test_a_stream_may_begin_and_end_anywhere(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "a.ts", brighter(25), options={"g": "5", "bf": "0"}).read_bytes()
    path = tmp_path / "middle.ts"
    path.write_bytes(data[len(data) // 3 : -len(data) // 5])
    found = numbers(Feed(path))
    assert 5 < len(found) < 20 and found[:-1] == list(range(found[0], found[0] + len(found) - 1))


def test_what_is_no_feed(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no video\n" * 100)
    (tmp_path / "zero").touch()
    (tmp_path / "folder").mkdir()
    for name in ("none", "text", "zero", "folder"):
        with pytest.raises(InputError) as caught:
            list(Feed(tmp_path / name, follow=name == "zero", patience=0.1))
        assert_one_sentence(str(caught.value))
        assert name in str(caught.value)
