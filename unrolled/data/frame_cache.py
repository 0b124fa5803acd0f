"""What is computed of files, frames of clips or features of pictures, is computed once and kept on disk.

`cached` gives `Frames` whose array is memory-mapped, so that sets larger than memory can be trained on. A result is
found again by the SHA-256 of its file's contents, by the recipe, a text that says all else it depends on, and by the
versions of what decodes; so a file that is moved or copied is known, and one that is changed is not. What is kept is
in `frame_store.py`.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unrolled.data.examples import BadFiles, Skipped
from unrolled.data.frame_store import Store
from unrolled.data.frames import Frames
from unrolled.data.pictures import check_file, picture_files
from unrolled.errors import InputError

WAITING_BYTES, WAITING_SECONDS = 1 << 26, 1.0
"""Results that wait to be written together: what a kill may cost."""
Progress = Callable[[int, int], None]
"""Told how many files are done, and of how many. At the end the two are equal, whatever ended it."""
watcher: Progress | None = None
"""Told of progress by calls that name nobody."""


class Kept(NamedTuple):
    """The results of the files that could be read."""

    frames: Frames
    """A sequence each, in order"""
    rows: np.ndarray
    """(N,) int64: which of the files these are"""
    notes: list[str]
    """What people should know: which files were left out, and why; what was damaged and computed again."""
    skipped: list[Skipped]
    """The files that were left out"""
    keys: list[str]
    """(N,): the hash of each one's contents"""
    decoders: str
    """The versions of what decoded them"""


def cached(
    files: Sequence[Path],
    recipe: str,
    compute: Callable[[Path], np.ndarray],
    progress: Progress | None = None,
    *,
    versions: str = "",
    finish: Callable[[list[np.ndarray]], Sequence[np.ndarray]] | None = None,
    at_once: int = 16,
    bad_files: BadFiles = "stop",
) -> Kept:
    """What `compute` makes of each file or folder of pictures; from the cache where it is there.

    compute: reads one file and returns an array (T, ...) with T ≥ 1. The recipe must determine its type and all of its
    shape but T. It raises `InputError` at a file that is unusable; that ends it all, or with `bad_files="skip"` leaves
    the file out. progress: default `watcher`. versions: of the libraries that `compute` and `finish` depend on
    (`decoders.py`). finish: makes what is kept of `at_once` such arrays, for what is cheaper together. Whatever ends
    it, what was computed by then is kept. What is damaged in the cache is computed again, and noted.

    Raises `InputError` also where the cache cannot be written, and where no file is left.
    """
    bad: dict[int, InputError] = {}
    keys = _keys(files, bad, bad_files)
    with Store(f"{recipe}; {versions}" if versions else recipe) as store:
        first = {key: n for n, key in reversed(keys.items())}  # of equal files one is computed
        notes = store.notes + _repaired(store.check(first), first, files)
        todo = [n for key, n in first.items() if key not in store][::-1]
        with _Told(progress or watcher, len(files) - len(todo), len(files)) as told, _Writer(store) as writer:
            for n, result in _computed(todo, files, compute, finish, at_once, bad_files):
                if isinstance(result, InputError):
                    bad |= {row: result for row, key in keys.items() if key == keys[n]}
                else:
                    writer.add(keys[n], result, files[n])
                told.one_more()
        rows = np.array([n for n in range(len(files)) if n not in bad], dtype=np.int64)
        if not len(rows):
            raise InputError(f"none of {len(files):,} files can be read; the first: {bad[0]}") from bad[0]
        of_rows = [keys[n] for n in rows.tolist()]
        skipped = [Skipped(str(files[n]), str(bad[n])) for n in sorted(bad)]
        notes += _note(len(files), skipped)
        return Kept(store.frames(of_rows), rows, notes, skipped, of_rows, versions)


def content_hash(path: Path) -> str:
    """SHA-256 of a file's contents; of a folder of pictures, of the pictures' in their order."""
    digest = hashlib.sha256()
    for file in picture_files(path) if path.is_dir() else [path]:
        check_file(file)
        with file.open("rb") as opened:
            part = hashlib.file_digest(opened, "sha256").digest()
        if not path.is_dir():
            return part.hex()
        digest.update(part)
    return "folder-" + digest.hexdigest()


def _keys(files: Sequence[Path], bad: dict[int, InputError], bad_files: BadFiles) -> dict[int, str]:
    """The key of each file that has contents; the others go to `bad`."""
    keys: dict[int, str] = {}
    known: dict[Path, str] = {}
    for n, path in enumerate(files):
        try:
            keys[n] = known[path] if path in known else known.setdefault(path, content_hash(path))
        except InputError as error:
            if bad_files == "stop":
                raise
            bad[n] = error
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
    return keys


def _computed(
    rows: Sequence[int],
    files: Sequence[Path],
    compute: Callable[[Path], np.ndarray],
    finish: Callable[[list[np.ndarray]], Sequence[np.ndarray]] | None,
    at_once: int,
    bad_files: BadFiles,
) -> Iterator[tuple[int, np.ndarray | InputError]]:
    """These files' results, in order."""
    step = 1 if finish is None else at_once
    for begin in range(0, len(rows), step):
        some = rows[begin : begin + step]
        tried = [(n, _tried(files[n], compute, bad_files)) for n in some]
        arrays = [(n, result) for n, result in tried if not isinstance(result, InputError)]
        yield from ((n, result) for n, result in tried if isinstance(result, InputError))
        results = [result for _, result in arrays]
        if finish is not None and results:
            results = list(finish(results))
        yield from zip((n for n, _ in arrays), results, strict=True)


def _tried(path: Path, compute: Callable[[Path], np.ndarray], bad_files: BadFiles) -> np.ndarray | InputError:
    try:
        return compute(path)
    except InputError as error:
        if bad_files == "stop":
            raise
        return error


class _Told:
    """Counts the files that are done for somebody who wants to know, who also hears of an early end."""

    def __init__(self, progress: Progress | None, done: int, total: int) -> None:
        self._progress, self._done, self._total = progress, done, total

    def __enter__(self) -> "_Told":
        self._tell(self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._done < self._total:
            self._tell(self._done)

    def one_more(self) -> None:
        self._done += 1
        self._tell(self._total)

    def _tell(self, total: int) -> None:
        if self._progress:
            self._progress(self._done, total)


class _Writer:
    """Adds results to a store, several together; whatever ends it, what it was given is written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[str, np.ndarray, Path]] = []
        self._bytes, self._since = 0, time.monotonic()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def add(self, key: str, array: np.ndarray, path: Path) -> None:
        self._waiting.append((key, array, path))
        self._bytes += array.nbytes
        if self._bytes >= WAITING_BYTES or time.monotonic() > self._since + WAITING_SECONDS:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._store.add(waiting)
        self._bytes, self._since = 0, time.monotonic()


def _repaired(damaged: Sequence[str], first: dict[str, int], files: Sequence[Path]) -> list[str]:
    if not damaged:
        return []
    listed = ", ".join(str(files[first[key]]) for key in damaged)
    return [f"damaged in the cache and computed again: {len(damaged):,} of {len(first):,} ({listed})"]


def _note(files: int, skipped: Sequence[Skipped]) -> list[str]:
    if not skipped:
        return []
    listed = "; ".join(one.reason for one in skipped)
    return [f"bad files left out: {len(skipped):,} of {files:,} ({listed})"]
