"""What `predict`, `evaluate` and others are given: texts or names of files, files that cannot be read, how to search.

No torch here.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from unrolled.errors import InputError
from unrolled.tasks.options import SearchOptions

BadFiles = Literal["stop", "skip"]
WRITERS = ("translate", "caption-image", "caption-video")
"""Tasks whose models write, and search for what they write."""
SEARCH = "--beam, --length-penalty, --min-length, --max-length and --no-repeat-ngram"
SUFFIX = re.compile(r".*[^.]\.[a-z][a-z0-9]{0,9}", re.IGNORECASE)
COUNTED = re.compile(r"[\d.,:/+%-]+")


def searched(search: SearchOptions | None, loaded: Any, model: Path) -> dict[str, Any]:
    """How a model that writes is to search; nothing for others. Raises `InputError` where those are to search too."""
    if loaded.task in WRITERS:
        return {name: value for name, value in asdict(search or SearchOptions()).items() if value is not None}
    if search is not None:
        raise InputError(f"{SEARCH} are for what writes, and {model} is a model for {loaded.task}: leave them out")
    return {}


def looks_like_a_file(given: str) -> bool:
    """Whether someone who writes this means a file: one word with a path separator in it, or with a suffix, which is a
    dot and up to 10 letters and digits at its end, a letter first. Numbers, dates and web addresses are texts.

    >>> [looks_like_a_file(name) for name in ("reviews.txt", "data/reviews", "and/or", r"a\\b", "./x", "Node.js")]
    [True, True, True, True, True, True]
    >>> any(map(looks_like_a_file, ("so good.txt", "10/10", "3.5", "U.S.", "http://x.y/z", "Was?", "l'été", "word")))
    False
    """
    if not given or any(c.isspace() for c in given) or "://" in given or COUNTED.fullmatch(given):
        return False
    return "/" in given or "\\" in given or SUFFIX.fullmatch(given) is not None


def refuse_a_name(given: str, how: str) -> None:
    """Raises `InputError` where a text is the name of a file, there or not; `how` a text is given all the same."""
    if looks_like_a_file(given):
        what = "is a file, not a text" if Path(given).exists() else "looks like the name of a file, and there is none"
        raise InputError(f"{given} {what}: correct it, or, if it is the text itself, {how}")


def refuse_an_option(given: Iterable[str], command: str) -> None:
    """Raises `InputError` at a word that begins with a dash: a mistyped option. What has white space in it is a
    text."""
    for one in given:
        if one.startswith("-") and one != "-" and not any(c.isspace() for c in one):
            raise InputError(
                f"unknown option: {one}. See unrolled {command} --help; a text that begins so, give on standard input"
            )


def say(notes: Iterable[str]) -> None:
    """On standard error, a line each."""
    for note in notes:
        print(note, file=sys.stderr, flush=True)


class Skips:
    """Files that cannot be read: left out and named, or the end."""

    def __init__(self, bad_files: BadFiles | None) -> None:
        self.stop = bad_files == "stop"
        self.skipped: list[dict[str, str]] = []

    @contextmanager
    def reading(self, path: str | Path) -> Iterator[None]:
        """What is done with this file; if it raises `InputError`, the file is one that cannot be read."""
        try:
            yield
        except InputError as error:
            if self.stop:
                raise
            say([f"left out: {error}"])
            self.skipped.append({"path": str(path), "reason": str(error)})

    @property
    def code(self) -> int:
        """What the command exits with."""
        return 1 if self.skipped else 0
