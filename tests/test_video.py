"""The frames of any clip come in order, upright and of one kind; what cannot be read is said in one sentence."""

import contextlib
import gc
import io
import itertools
import random
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import assert_one_sentence
from tests.media_helpers import (
    BLUE,
    GREEN,
    RED,
    STEP,
    WHITE,
    brighter,
    corners,
    numbers,
    with_matrix,
    write_clip,
    write_sound,
)
from unrolled.data.video import Video, frames, probe
from unrolled.errors import InputError
from unrolled.inspection import resident

CONTAINERS = {
    "mp4": {},
    "mkv": {},
    "mov": {},
    "ts": {},
    "flv": {},
    "webm": {"codec": "libvpx"},
    "avi": {"codec": "mpeg4"},
    "mpg": {"codec": "mpeg1video", "rate": 25},
    "apng": {"codec": "apng", "pixels": "rgb24"},
    "nut": {"codec": "ffv1"},
    "gif": {"codec": "gif", "pixels": "rgb8"},
    "y4m": {"codec": "rawvideo"},
    "h264": {},
    "fast.mp4": {"muxer": {"movflags": "faststart"}},
    "pieces.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
}
ENDLESS = ("y4m", "mpg", "h264")
"""What has no end that could be missed."""


def clip(path: Path, count: int = 12, size: tuple[int, int] = (64, 48)) -> Path:
    kind = path.name.split(".", 1)[1]
    return write_clip(path, brighter(count, *size), **CONTAINERS[kind])


def refusal(path: Path, **how: object) -> str:
    with pytest.raises(InputError) as caught:
        list(frames(path, **how))
    message = str(caught.value)
    assert_one_sentence(message)
    assert path.name in message
    return message


def seen(frame: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the four corners, row by row."""
    height, width, _ = frame.shape
    points = [frame[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(round(c / 255) * 255 for c in point.tolist()) for point in points]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_gives_its_frames_in_order(tmp_path: Path, kind: str) -> None:
    path = clip(tmp_path / f"a.{kind}")
    found = list(frames(path))
    assert all(f.shape == (48, 64, 3) and f.dtype == np.uint8 for f in found)
    tolerance = 0.5 if kind != "gif" else 2.5  # 8 shades of grey
    assert len(found) == 12
    assert all(abs(f.mean() / STEP - n) < tolerance for n, f in enumerate(found))
    renamed = path.rename(tmp_path / "renamed.jpg")
    assert len(list(frames(renamed, size=(8, 6), grey=True))) == 12
    assert probe(renamed).width == 64 and probe(renamed).height == 48 and probe(renamed).frames in (12, None)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_cut_off_it_is_refused(tmp_path: Path, kind: str) -> None:
    data = clip(tmp_path / f"a.{kind}", size=(160, 120)).read_bytes()
    for part in (0.02, 0.4, 0.8, 0.97):
        path = tmp_path / f"cut-{part}.{kind}"
        path.write_bytes(data[: int(len(data) * part)])
        if kind in ENDLESS and part > 0.3:
            with contextlib.suppress(InputError):
                assert len(list(frames(path))) <= 12
        else:
            refusal(path)
            if part > 0.3:
                refusal(path, count=3)


@pytest.mark.parametrize("codec", ["libx264", "libvpx", "mpeg4"])
def test_frames_that_are_coded_out_of_order_come_in_order(tmp_path: Path, codec: str) -> None:
    options = {"bf": "3"} if codec != "libvpx" else {}
    path = write_clip(tmp_path / "a.mkv", brighter(20), codec, options=options)
    assert numbers(frames(path)) == list(range(20))


def test_colours(tmp_path: Path) -> None:
    for codec, pixels in (
        ("libx264", "yuv444p"),
        ("libx264rgb", "rgb24"),
        ("ffv1", "yuv420p10le"),
        ("mjpeg", "yuvj444p"),
    ):
        path = write_clip(tmp_path / f"{pixels}.mkv", [corners()] * 2, codec, pixels)
        (first, _) = frames(path)
        assert seen(first) == [RED, GREEN, BLUE, WHITE], pixels
        (grey, _) = frames(path, grey=True)
        assert grey.shape == (48, 64, 1)
        assert np.allclose(
            [grey[12, 16, 0], grey[12, 48, 0], grey[36, 16, 0], grey[36, 48, 0]], [76, 150, 29, 255], atol=4
        )


def test_grey_and_16_bits(tmp_path: Path) -> None:
    for pixels in ("gray", "gray16le", "rgb48le"):
        path = write_clip(tmp_path / f"{pixels}.nut", brighter(5), "rawvideo" if "rgb" in pixels else "ffv1", pixels)
        found = list(frames(path))
        assert numbers(found) == list(range(5)) and all(f.shape == (48, 64, 3) for f in found)
        assert all((f == f[..., :1]).all() for f in found)
        assert numbers(frames(path, grey=True)) == list(range(5))


TURNS = {
    (0, 1, -1, 0): [BLUE, RED, WHITE, GREEN],  # a quarter turn clockwise, as of a telephone held upright
    (0, -1, 1, 0): [GREEN, WHITE, RED, BLUE],
    (-1, 0, 0, -1): [WHITE, BLUE, GREEN, RED],
    (-1, 0, 0, 1): [GREEN, RED, WHITE, BLUE],
    (1, 0, 0, -1): [BLUE, WHITE, RED, GREEN],
    (0, 1, 1, 0): [RED, BLUE, GREEN, WHITE],
}


@pytest.mark.parametrize(("matrix", "as_seen"), TURNS.items())
def test_turned_and_mirrored_clips_are_made_upright(tmp_path: Path, matrix: tuple[int, ...], as_seen: list) -> None:
    path = with_matrix(write_clip(tmp_path / "a.mp4", [corners()] * 3), *matrix)
    (first, *_) = frames(path)
    size = (64, 48) if matrix[0] else (48, 64)
    assert seen(first) == as_seen and first.shape == (size[1], size[0], 3)
    assert (probe(path).width, probe(path).height) == size
    (small, *_) = frames(path, size=(20, 10))
    assert small.shape == (10, 20, 3) and seen(small) == as_seen


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(corners()).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 24))
    for kind in ("PNG", "GIF"):
        path = tmp_path / f"a.{kind}"
        image.save(
            path, kind, save_all=True, append_images=[image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], disposal=2
        )
        first, second = frames(path)
        assert seen(first) == [WHITE, GREEN, BLUE, WHITE]
        assert seen(second) == [GREEN, WHITE, WHITE, BLUE]
        assert next(frames(path, grey=True))[2, 2, 0] == 255


def test_stride_and_count(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 20)
    assert numbers(frames(path, stride=3)) == [0, 3, 6, 9, 12, 15, 18]
    assert numbers(frames(path, count=4)) == [2, 7, 12, 17]
    assert numbers(frames(path, stride=3, count=2)) == [3, 15]
    assert numbers(frames(path, count=50)) == list(range(20))
    assert numbers(itertools.islice(frames(path), 3)) == [0, 1, 2]


def test_frames_at_equal_times(tmp_path: Path) -> None:
    """A film of variable rate: frames 0 to 4 shown for 100, 50, 450, 100 ms and the rest."""
    path = write_clip(tmp_path / "a.mkv", brighter(5), times=[0, 100, 150, 600, 700], rate=1000, options={"bf": "0"})
    assert numbers(frames(path)) == [0, 1, 2, 3, 4]
    assert numbers(frames(path, fps=10))[:8] == [0, 1, 2, 2, 2, 2, 3, 4]
    assert numbers(frames(path, fps=20))[:14] == [0, 0, 1] + [2] * 9 + [3, 3]
    assert numbers(frames(path, fps=4))[:3] == [0, 2, 2]
    assert numbers(itertools.islice(frames(path, fps=10, stride=2), 4)) == [0, 2, 2, 3]
    constant = clip(tmp_path / "b.mp4", 20)  # 10 a second
    assert numbers(frames(constant, fps=5)) == list(range(0, 20, 2))
    assert numbers(frames(constant, fps=10)) == list(range(20))
    assert numbers(frames(constant, fps=20)) == [n // 2 for n in range(40)]
    assert numbers(frames(constant, fps=5, count=2)) == [4, 14]


def test_a_frame_that_is_shown_for_ever(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", brighter(3), times=[0, 100, 10**9], rate=1000, options={"bf": "0"})
    assert len(list(frames(path))) == 3
    assert "for 278 hours" in refusal(path, fps=10)


def test_scaled_down_it_is_the_average_of_what_was_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (320, 480, 3), dtype=np.uint8)
    path = write_clip(tmp_path / "a.mkv", [noise], "libx264rgb", "rgb24", options={"qp": "0"})
    (small,) = frames(path, size=(6, 4))
    blocks = noise.reshape(4, 80, 6, 80, 3).mean((1, 3))
    assert abs(small - blocks).max() < 4
    (large,) = frames(write_clip(tmp_path / "b.mp4", [corners()]), size=(200, 100))
    assert seen(large) == [RED, GREEN, BLUE, WHITE]


# folders of pictures


def test_a_folder_of_pictures_is_a_clip(tmp_path: Path) -> None:
    for n, array in enumerate(brighter(12)):
        Image.fromarray(array).save(tmp_path / f"frame{n}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    assert numbers(frames(tmp_path)) == list(range(12))
    assert numbers(frames(tmp_path, stride=2, count=3, size=(8, 8), grey=True)) == [2, 6, 10]
    assert probe(tmp_path) == Video(64, 48, 12, None)
    assert "have no times" in refusal(tmp_path, fps=5)
    Image.fromarray(corners(32, 32)).save(tmp_path / "frame12.png")
    with pytest.raises(InputError, match=r"frame12.png has 32×32 pixels and frame0.png beside it 64×48"):
        list(frames(tmp_path))
    assert len(list(frames(tmp_path, size=(8, 8)))) == 13
    (tmp_path / "frame5.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"frame5.png is empty"):
        list(frames(tmp_path, size=(8, 8)))
    (tmp_path / "empty").mkdir()
    assert "has no pictures" in refusal(tmp_path / "empty")


# what is no video


def test_missing_empty_and_something_else(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.mp4")
    (tmp_path / "zero.mp4").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "zero.mp4")
    for name, data in {
        "text.mp4": b"A text about a video.\n" * 100,
        "list.mp4": b"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile a.mp4\n",
        "noise.mp4": np.random.default_rng(0).bytes(5_000),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "is no video" in refusal(tmp_path / name)


def test_a_file_without_a_video_stream(tmp_path: Path) -> None:
    assert "has no video stream, only audio" in refusal(write_sound(tmp_path / "a.wav"))
    picture = io.BytesIO()
    Image.fromarray(corners()).save(picture, "PNG")
    song = write_sound(tmp_path / "song.mp3", cover=picture.getvalue())
    assert "has no video stream, only audio, video" in refusal(song)


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        Image.fromarray(corners()).save(tmp_path / "picture.mp4", kind)
        assert "is a picture" in refusal(tmp_path / "picture.mp4")


def test_an_enormous_frame_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = bytearray(clip(tmp_path / "a.gif").read_bytes())
    data[6:10] = struct.pack("<HH", 65_535, 65_535)
    (tmp_path / "bomb.gif").write_bytes(data)
    tracemalloc.start()
    refusal(tmp_path / "bomb.gif")
    huge = bytearray(clip(tmp_path / "a.apng").read_bytes())
    at = huge.index(b"IHDR") + 4
    huge[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    (tmp_path / "bomb.apng").write_bytes(huge)
    refusal(tmp_path / "bomb.apng")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_no_damage_leaves_a_traceback(tmp_path: Path) -> None:
    """A few hundred damaged files: each is read or refused by `InputError`."""
    draw, refused = random.Random(5), 0
    for kind in ("mp4", "mkv", "avi", "mpg", "gif", "flv", "ts", "nut"):
        whole = clip(tmp_path / f"a.{kind}", 5, (32, 32)).read_bytes()
        path = tmp_path / f"x.{kind}"
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(min(len(data), draw.choice([60, 400, 10**9])))] = draw.randrange(256)
            path.write_bytes(data)
            try:
                assert all(f.shape == (8, 8, 3) for f in itertools.islice(frames(path, size=(8, 8)), 1_000))
            except InputError:
                refused += 1
    assert 80 < refused < 320


def test_any_name_of_a_file(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    for name in ("a:b.mp4", "50% #1?.mp4", "%03d.png", "日本 語.mkv", "-", "http:"):
        (tmp_path / name).write_bytes((tmp_path / "a.mp4").read_bytes())
        assert len(list(frames(tmp_path / name))) == 12


def test_a_long_clip_is_never_held(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", brighter(25, 320, 240) * 12)
    tracemalloc.start()
    count = sum(1 for _ in frames(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300 and peak < 8 * 320 * 240 * 3  # NumPy tells tracemalloc of its arrays


@pytest.mark.skipif(not resident.readable(), reason=resident.NO_PROC)
def test_decoded_frames_do_not_wait_for_the_garbage_collection(tmp_path: Path) -> None:
    """A hundred megabytes are decoded; a few frames are in memory."""
    path = write_clip(tmp_path / "a.mp4", brighter(25, 1280, 720) * 4, options={"preset": "ultrafast"})
    reading = frames(path, size=(16, 9))
    for _ in itertools.islice(reading, 20):
        pass
    gc.disable()
    try:
        before = resident.now()
        assert sum(1 for _ in reading) == 80
        assert resident.now() - before < 50e6
    finally:
        gc.enable()


def test_real_clips(shared_data: Path) -> None:
    for name, count, size in (
        ("sample_videos/imageio_realshort.mp4", 36, (320, 240)),
        ("sample_videos/imageio_newtonscradle.gif", 36, (200, 150)),
        ("sample_videos/mmaction2_tests_data_test.avi", 164, (320, 240)),
        ("msvd/video/j2Dhf-xFUxU_13_20.avi", 106, (320, 240)),
        ("grid/bbaf2n.mpg", 75, (360, 288)),
        ("lip_words/begin/F01_01.mp4", 10, (64, 40)),
        ("sprites/clips/val_0088.mp4", 20, (64, 64)),
    ):
        path = shared_data / name
        found = probe(path)
        assert (found.width, found.height) == size and found.frames in (count, None), name
        assert sum(1 for _ in frames(path, size=(16, 16))) == count, name


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'unrolled\[video\]'") as caught:
        next(frames(tmp_path / "a.mp4"))
    assert_one_sentence(str(caught.value))
    monkeypatch.undo()
    monkeypatch.setattr("av.__version__", "16.1.0")
    with pytest.raises(InputError, match=r"PyAV 16.1.0 is too old to read videos here: pip install -U"):
        next(frames(tmp_path / "a.mp4"))
