"""Any picture becomes the same kind of array, and what cannot be read is said in one sentence that names the file."""

import io
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import assert_one_sentence
from unrolled.data import pictures
from unrolled.data.pictures import picture_files, read_picture
from unrolled.errors import InputError

WIDTH, HEIGHT = 40, 24
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners() -> Image.Image:
    """Red, green / blue, white."""
    image = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    image.paste(RED, (0, 0, WIDTH // 2, HEIGHT // 2))
    image.paste(GREEN, (WIDTH // 2, 0, WIDTH, HEIGHT // 2))
    image.paste(BLUE, (0, HEIGHT // 2, WIDTH // 2, HEIGHT))
    return image


def seen(array: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the four corners, row by row, as they are after slight losses."""
    height, width, _ = array.shape
    points = [array[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(int(round(c / 255) * 255) for c in point) for point in points]


def saved(folder: Path, image: Image.Image, name: str, kind: str, **options: object) -> Path:
    image.save(folder / name, kind, **options)
    return folder / name


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert_one_sentence(message)
    assert path.name in message
    return message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "TGA", "JPEG2000"])
def test_every_format_whatever_its_name(tmp_path: Path, kind: str) -> None:
    for name in ("a.tga",) if kind == "TGA" else (f"a.{kind.lower()}", "a.jpg", "a.png", "a.mp4", "a"):
        array = read_picture(saved(tmp_path, corners(), name, kind))
        assert array.shape == (HEIGHT, WIDTH, 3) and array.dtype == np.uint8
        assert seen(array) == [RED, GREEN, BLUE, WHITE]


def test_a_lossless_picture_comes_back_exactly_and_can_be_written_to(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    array = read_picture(saved(tmp_path, Image.fromarray(values), "a.png", "PNG"))
    assert np.array_equal(array, values)
    array[0] = 0


@pytest.mark.parametrize(
    ("orientation", "as_seen"),
    {
        1: [RED, GREEN, BLUE, WHITE],
        2: [GREEN, RED, WHITE, BLUE],
        3: [WHITE, BLUE, GREEN, RED],
        4: [BLUE, WHITE, RED, GREEN],
        5: [RED, BLUE, GREEN, WHITE],
        6: [BLUE, RED, WHITE, GREEN],
        7: [WHITE, GREEN, BLUE, RED],
        8: [GREEN, WHITE, RED, BLUE],
    }.items(),
)
def test_the_camera_s_note_of_its_position_is_applied(tmp_path: Path, orientation: int, as_seen: list) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = read_picture(saved(tmp_path, corners(), "a.jpg", "JPEG", exif=exif))
    assert array.shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))
    assert seen(array) == as_seen


def test_grey_and_16_bits(tmp_path: Path) -> None:
    levels = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 68
    upper = (levels >> 8).astype(np.uint8)
    deep = Image.fromarray(levels)
    for path in (
        saved(tmp_path, deep, "a.png", "PNG"),
        saved(tmp_path, deep, "a.tif", "TIFF"),
        saved(tmp_path, deep, "a.pgm", "PPM"),
        saved(tmp_path, Image.fromarray(upper), "b.png", "PNG"),
    ):
        assert np.array_equal(read_picture(path), np.stack([upper] * 3, 2)), path
        assert np.array_equal(read_picture(path, grey=True), upper[:, :, None]), path
    one_bit = Image.fromarray(levels > 0x8000)
    assert one_bit.mode == "1"
    assert np.array_equal(read_picture(saved(tmp_path, one_bit, "c.png", "PNG"))[..., 1], (levels > 0x8000) * 255)


def test_16_bits_a_colour(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (5, 6, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    path = tmp_path / "deep.png"
    path.write_bytes(png(6, 5, rows, depth=16))
    assert np.array_equal(read_picture(path), values >> 8)


def test_cmyk(tmp_path: Path) -> None:
    ink = corners().convert("CMYK")
    for name, kind in (("a.jpg", "JPEG"), ("a.tif", "TIFF")):
        assert seen(read_picture(saved(tmp_path, ink, name, kind))) == [RED, GREEN, BLUE, WHITE]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = corners().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, WIDTH // 2, HEIGHT // 2))
    paths = [saved(tmp_path, image, "a.png", "PNG"), saved(tmp_path, image, "a.webp", "WEBP", lossless=True)]
    palette = corners().quantize(8)
    paths.append(saved(tmp_path, palette, "a.gif", "GIF", transparency=palette.getpixel((1, 1))))
    paths.append(saved(tmp_path, palette, "p.png", "PNG", transparency=palette.getpixel((1, 1))))
    for path in paths:
        assert seen(read_picture(path)) == [WHITE, GREEN, BLUE, WHITE], path
    half = Image.new("LA", (3, 2), (100, 128))
    array = read_picture(saved(tmp_path, half, "half.png", "PNG"))
    assert abs(int(array[0, 0, 0]) - (100 * 128 + 255 * 127) / 255) <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path, kind: str) -> None:
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in (GREEN, BLUE)]
    path = saved(tmp_path, corners(), "a", kind, save_all=True, append_images=others)
    assert seen(read_picture(path)) == [RED, GREEN, BLUE, WHITE]


def test_scaled_down_it_is_the_average_of_what_was_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), "a.png", "PNG")
    small = read_picture(path, size=(6, 4))
    assert small.shape == (4, 6, 3) and abs(small.astype(float) - 127.5).max() < 6  # one pixel in many would be noise
    assert read_picture(path, size=(3, 2), grey=True).shape == (2, 3, 1)
    assert seen(read_picture(saved(tmp_path, corners(), "b.png", "PNG"), size=(400, 100))) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000"])
def test_cut_off_anywhere_it_is_refused(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    whole = saved(tmp_path, noise, "whole", kind).read_bytes()
    for part in (0.01, 0.3, 0.7, 0.95):
        path = tmp_path / f"cut-{part}.{kind}"
        path.write_bytes(whole[: int(len(whole) * part)])
        refusal(path)


def test_missing_empty_and_something_else(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.jpg")
    (tmp_path / "zero.jpg").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "zero.jpg")
    (tmp_path / "text.jpg").write_text("a text about a picture\n" * 20)
    assert "is not a picture" in refusal(tmp_path / "text.jpg")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "program.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    assert "is not a picture" in refusal(tmp_path / "program.eps")


def test_what_is_white_must_be_known(tmp_path: Path) -> None:
    fractions = Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
    assert "fractions" in refusal(saved(tmp_path, fractions, "f.tif", "TIFF"))
    wide = Image.fromarray(np.arange(12, dtype=np.int32).reshape(3, 4) * 1_000_000)
    assert "32 bits" in refusal(saved(tmp_path, wide, "i.tif", "TIFF"))


def png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    bomb = tmp_path / "bomb.png"
    for side in (12_000, 60_000, 2_000_000_000):  # below and above what Pillow refuses itself
        bomb.write_bytes(png(side, side, b""))
        message = refusal(bomb)
        assert f"at most {pictures.MOST_PIXELS:,}" in message
    assert bomb.stat().st_size < 100


def test_no_damage_leaves_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A thousand damaged files: each is read or refused by `InputError`."""
    draw, path, refused = random.Random(3), tmp_path / "a", 0
    wholes = []
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM"):
        buffer = io.BytesIO()
        corners().save(buffer, kind)
        wholes.append(buffer.getvalue())
    for number in range(1_000):
        data = bytearray(wholes[number % len(wholes)])
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(min(len(data), draw.choice([40, 200, 10**9])))] = draw.randrange(256)
        path.write_bytes(data)
        try:
            array = read_picture(path, size=(8, 8))
        except InputError:
            refused += 1
        else:
            assert array.shape == (8, 8, 3)
    assert 300 < refused < 1_000
    capfd.readouterr()  # libtiff speaks for itself


def test_the_pictures_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    for name in ("f10.png", "f2.PNG", "F1.jpeg", ".hidden.png", "notes.txt", "f1.png"):
        (tmp_path / name).touch()
    (tmp_path / "f3.png").mkdir()
    assert [p.name for p in picture_files(tmp_path)] == ["F1.jpeg", "f1.png", "f2.PNG", "f10.png"]
    with pytest.raises(InputError, match="has no pictures"):
        picture_files(tmp_path / "f3.png")


def test_real_pictures(shared_data: Path) -> None:
    for path in picture_files(shared_data / "test_images"):
        array = read_picture(path)
        with Image.open(path) as image:
            assert array.shape == (image.height, image.width, 3)
            assert np.array_equal(array, np.asarray(image.convert("RGB")))


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, corners(), "a.png", "PNG")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InputError, match=r"pip install 'unrolled\[vision\]'") as caught:
        read_picture(tmp_path / "a.png")
    assert_one_sentence(str(caught.value))
