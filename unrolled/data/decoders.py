"""What frames and features depend on besides the files: the versions of the libraries that decode and compute.

Another version may give other numbers for the same file. So whatever is computed of files and kept is found again only
under the same versions (`frame_cache.py`), and a resumed training says where they have changed since it began.
"""

import importlib
from types import ModuleType

CODECS = ("jpg", "libjpeg_turbo", "jpg_2000", "zlib", "zlib_ng", "libtiff", "webp", "avif")
"""Libraries that Pillow decodes with. A system's own Pillow may come with others than the same version from PyPI."""


def of_pictures() -> str:
    """What reads and scales pictures."""
    return _version("PIL", "Pillow") + _codecs()


def of_clips() -> str:
    """What reads clips, which are files for PyAV or folders of pictures."""
    av = _installed("av")
    libraries = getattr(av, "library_versions", {})
    ffmpeg = " ".join(f"{name} {'.'.join(map(str, version))}" for name, version in sorted(libraries.items()))
    return f"{_version('av', 'PyAV')} ({ffmpeg}), {of_pictures()}"


def of_networks() -> str:
    """What prepares pictures for pretrained networks, and runs those: transformers' preprocessing has changed with its
    versions, and PyTorch's kernels round differently. The device is none of it: its rounding is lost in float16."""
    return f"{of_pictures()}, {_version('transformers', 'transformers')}, {_version('torch', 'torch')}"


def _version(module: str, name: str) -> str:
    return f"{name} {getattr(_installed(module), '__version__', 'not installed')}"


def _codecs() -> str:
    features = _installed("PIL.features")
    if features is None:
        return ""
    found = ((name, features.version(name)) for name in CODECS)
    return f" ({' '.join(f'{name} {version}' for name, version in found if version)})"


def _installed(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
