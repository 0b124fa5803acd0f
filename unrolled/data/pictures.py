"""Pictures as arrays: of any format that Pillow reads, upright, red, green and blue, 8 bits a channel.

The content says what a file is, not its name. What is made of it:

* a rotation or flip that the camera notes (EXIF) is applied;
* what is transparent becomes white, and of an animation the first picture is taken;
* of 16 bits a channel the upper 8 are kept; grey, palettes and CMYK become RGB; colour profiles are ignored.

PostScript and Windows metafiles are no pictures here: to read them would run a program that they hold.
"""

import importlib
import re
import struct
import warnings
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.data.folders import Aside, entries, kind_of, unusable
from unrolled.errors import InputError

MOST_PIXELS = 1 << 27
"""134 million. A larger picture is refused before it is decoded: a file of a few kilobytes can hold gigabytes."""
RUN = ("EPS", "WMF", "MPEG")
"""Formats that are programs; and one that Pillow only recognises."""
DAMAGE = (OSError, ValueError, RuntimeError, SyntaxError, TypeError, LookupError, ArithmeticError, struct.error)
"""What Pillow raises at damaged files, as found by damaging them."""


def read_picture(path: str | PathLike[str], *, size: tuple[int, int] | None = None, grey: bool = False) -> np.ndarray:
    """A picture (H, W, 3) uint8, or with `grey` (H, W, 1). size: (W, H) to scale it to.

    Raises `InputError` naming the file where it is missing, empty, no picture, damaged, cut off or enormous.
    """
    where = Path(path)
    pillow = library()
    check_file(where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes and notes of the camera: what matters is checked here
        try:
            with pillow.open(where, formats=_formats()) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise _enormous(where, f"{image.width:,}×{image.height:,} pixels")
                return _array(where, image, size, grey)
        except InputError:
            raise
        except pillow.UnidentifiedImageError:
            raise InputError(
                f"{where} is not a picture, or its beginning is damaged: copy it again, or leave it out"
            ) from None
        except (pillow.DecompressionBombError, MemoryError):
            raise _enormous(where, "more pixels than fit in memory") from None
        except DAMAGE as error:
            raise InputError(f"{where} is damaged or cut off ({error}): copy it again, or leave it out") from None


def library() -> Any:
    """`PIL.Image`; raises `InputError` where Pillow is not installed."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise InputError("pictures are read with Pillow: pip install 'unrolled[vision]'") from error


def check_file(path: Path) -> None:
    """Raises `InputError` where there is no file with bytes in it."""
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"no such file: {path}")
    if kind == "folder":
        raise InputError(f"{path} is a folder: name a file")
    if kind != "file":
        raise InputError(f"{unusable(path, kind)}: name a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): copy it again, or leave it out")


def picture_files(folder: Path) -> list[Path]:
    """The files of a folder that are pictures by their names, in natural order; hidden ones are left out.

    Raises `InputError` where there are none.
    """
    known = _suffixes()
    found = [p for p in entries(folder, Aside()) if p.suffix.lower() in known and p.is_file()]
    if not found:
        raise InputError(f"the folder {folder} has no pictures: give a folder with some")
    return sorted(found, key=natural)


def is_picture_name(path: Path) -> bool:
    return path.suffix.lower() in _suffixes()


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts frame2 before frame10.

    >>> [p.name for p in sorted(map(Path, ["f10", "f2", "f1b", "f02"]), key=natural)]
    ['f1b', 'f02', 'f2', 'f10']
    """
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts] + [(2, 0, path.name)]


@cache
def _formats() -> list[str]:
    library().init()
    return [name for name in library().OPEN if name not in RUN]


@cache
def _suffixes() -> frozenset[str]:
    names = _formats()
    return frozenset(suffix for suffix, name in library().EXTENSION.items() if name in names)


def _array(path: Path, image: Any, size: tuple[int, int] | None, grey: bool) -> np.ndarray:
    from PIL import ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _upper_8_bits(path, image)
    elif image.mode == "F":
        raise InputError(f"{path} has fractions for pixels, and does not say what is white: convert it to 8 bits first")
    if image.has_transparency_data:
        white = library().new("RGBA", image.size, "white")
        image = library().alpha_composite(white, image.convert("RGBA"))
    array = np.array(image.convert("L" if grey else "RGB"))
    return array.reshape(image.height, image.width, -1) if size is None else scaled(array, size)


def scaled(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, (H, W, 3) or grey (H, W), scaled to size (W, H): (H, W, channels)."""
    width, height = size
    if picture.shape[:2] != (height, width):
        image = library().fromarray(picture)
        picture = np.array(image.resize(size, library().Resampling.BILINEAR))  # over all pixels that one replaces
    return picture.reshape(height, width, -1)


def _upper_8_bits(path: Path, image: Any) -> Any:
    """A grey picture of 16 bits, which Pillow may hold in 32."""
    values = np.array(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise InputError(f"{path} has pixels of 32 bits, and does not say what is white: convert it to 8 bits first")
    return library().fromarray((values >> 8).astype(np.uint8))


def _enormous(path: Path, what: str) -> InputError:
    return InputError(f"{path} has {what}; at most {MOST_PIXELS:,} are read: make it smaller, or leave it out")
