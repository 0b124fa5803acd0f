"""Pictures as arrays: of any format that Pillow opens, upright, red, green and blue, 8 bits a channel.

The content says what a file is, not its name. What is transparent becomes white; of an animation the first picture is
taken. A rotation or flip that the camera notes (EXIF) is applied. Pictures of 16 bits a channel keep their upper 8.
"""

import importlib
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.errors import InputError

MOST_PIXELS = 1 << 27
"""134 million: a larger picture is refused before it is decoded, since a file of a few kilobytes can hold gigabytes."""


def library() -> Any:
    """`PIL.Image`; raises `InputError` where Pillow is not installed."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise InputError("pictures are read with Pillow: pip install 'unrolled[vision]'") from error


def read_picture(path: str | PathLike[str], *, size: tuple[int, int] | None = None, grey: bool = False) -> np.ndarray:
    """A picture (H, W, C) uint8, C = 3 or with `grey` 1. size: (W, H) to scale it to.

    Raises `InputError` naming the file where it is missing, empty, no picture, damaged, cut off or enormous.
    """
    where = Path(path)
    image_class = library()
    check_file(where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged note about the camera, or a large picture: we look ourselves
        try:
            with image_class.open(where) as image:
                if image.width * image.height > MOST_PIXELS:
                    size_is = f"{image.width:,}×{image.height:,} pixels, more than {MOST_PIXELS:,}"
                    raise InputError(f"{where} has {size_is}: make it smaller first")
                return _array(image, size, grey)
        except InputError:
            raise
        except image_class.UnidentifiedImageError:
            raise InputError(f"{where} is not a picture that Pillow knows: it is damaged, or something else") from None
        except image_class.DecompressionBombError:
            raise InputError(
                f"{where} is an enormous picture, more than {MOST_PIXELS:,} pixels: make it smaller first"
            ) from None
        except (OSError, ValueError, SyntaxError, EOFError, MemoryError, TypeError, IndexError) as error:
            raise InputError(f"{where} cannot be decoded as a picture ({error}): it is damaged or cut off") from None


def check_file(path: Path) -> None:
    """Raises `InputError` where there is no file that has bytes."""
    if not path.exists():
        raise InputError(f"no such file: {path}")
    if not path.is_file():
        raise InputError(f"{path} is not a file: name a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): copy it again, or leave it out")


def _array(image: Any, size: tuple[int, int] | None, grey: bool) -> np.ndarray:
    from PIL import ImageOps

    image.load()
    if image.mode.startswith(("I;16", "I")):
        array = np.asarray(image)
        image = library().fromarray((array >> 8).clip(0, 255).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = library().new("RGBA", image.size, "white")
        image = library().alpha_composite(white, image)
    image = image.convert("L" if grey else "RGB")
    if size is not None and image.size != size:
        image = image.resize(size, library().Resampling.BOX if size[0] < image.width else library().Resampling.BILINEAR)
    array = np.asarray(image)
    return array[..., None].copy() if grey else array.copy()
