"""Where what is computed once is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of all that `unrolled` caches: UNROLLED_CACHE, else XDG_CACHE_HOME/unrolled, else ~/.cache/unrolled.

    `OSError` where the user has no home.
    """
    if named := os.environ.get("UNROLLED_CACHE"):
        return Path(named).absolute()
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = given if os.path.isabs(given) else os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise FileNotFoundError(None, "the user has no home folder", "~")
    return Path(base) / "unrolled"
