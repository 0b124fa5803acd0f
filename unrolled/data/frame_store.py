"""The files in which results of one recipe are kept: one array after the other, and an index.

They are in the folder `frames/<hash of the recipe>` of the cache (see `caches.py`):

* `data`: the arrays;
* `index`: a line for each, a JSON list of its key and its length, in the order of the arrays;
* `about.json`: the recipe, the type and the shape.

Files only grow, data before index, and an index is only believed as far as there are data. So a process may be killed
at any time, and the next one goes on where it was. Several processes may write: each locks the folder, reads what the
others have added, and adds what is still missing. Arrays stay where they are.

Where all recipes together take more than `LIMIT` gigabytes (or UNROLLED_CACHE_GB), those used longest ago, and
that no process is writing, are removed; arrays that are mapped stay readable.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from unrolled.data.caches import cache_folder
from unrolled.data.frames import Frames
from unrolled.errors import InputError

VERSION = 1
"""Of these files; another makes all recipes others."""
LIMIT = 20.0


class Store:
    """The results of one recipe; a context, within which nobody removes them."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe
        self.known: dict[str, int] = {}
        """The number of each key's array"""
        self._lengths: list[int] = []
        self._read_to = 0
        """Bytes of the index that are read"""
        self.about: dict[str, Any] | None = None
        with _told():
            self.folder = cache_folder() / "frames" / hashlib.sha256(f"{VERSION} {recipe}".encode()).hexdigest()[:32]

    def __enter__(self) -> "Store":
        with contextlib.ExitStack() as stack, _told():
            stack.callback(os.close, self._claim())
            for name in ("data", "index", "lock"):
                (self.folder / name).touch(mode=0o600)
            os.utime(self.folder)
            with contextlib.suppress(FileNotFoundError):  # another process makes room
                _make_room(self.folder)
            with self._locked():
                self._read()
            self._in_use = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._in_use.close()

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def add(self, results: Sequence[tuple[str, np.ndarray, Path]]) -> None:
        """Keep arrays (T, ...), each with its key and the file it is of. What is there already stays."""
        with _told(), self._locked():
            self._read()
            new = {key: (array, path) for key, array, path in results if key not in self.known}
            for array, path in new.values():
                self._check(array, path)
            if not new:
                return
            with open(self.folder / "data", "r+b") as data:
                data.seek(sum(self._lengths) * self._item)
                for array, _ in new.values():
                    data.write(np.ascontiguousarray(array).data)
                _sync(data)
            with open(self.folder / "index", "r+b") as index:
                index.truncate(self._read_to)
                index.seek(self._read_to)
                index.write(b"".join(f"{json.dumps([key, len(array)])}\n".encode() for key, (array, _) in new.items()))
                _sync(index)
            self._read()

    def frames(self, keys: Sequence[str]) -> Frames:
        """The arrays of these keys, memory-mapped."""
        assert self.about is not None
        lengths = np.array(self._lengths, dtype=np.int64)
        shape = (int(lengths.sum()), *self.about["shape"])
        array = np.memmap(self.folder / "data", dtype=self._type, mode="r", shape=shape)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Frames(array, offsets, np.array([self.known[key] for key in keys], dtype=np.int64))

    @property
    def _type(self) -> Any:
        assert self.about is not None
        return np.dtype(self.about["type"])

    @property
    def _item(self) -> int:
        """Bytes of one timestep."""
        assert self.about is not None
        return int(self._type.itemsize * np.prod(self.about["shape"], dtype=np.int64))

    def _check(self, array: np.ndarray, path: Path) -> None:
        """Raises `InputError` where the array is not as the others are; the first says how they are."""
        if not len(array):
            raise InputError(f"{path} has no frames: leave it out")
        shape = list(array.shape[1:])
        if self.about is None:
            about = {"recipe": self.recipe, "type": array.dtype.str, "shape": shape}
            with open(self.folder / "about.new", "w", encoding="utf-8") as file:
                json.dump(about, file)
                _sync(file)
            os.replace(self.folder / "about.new", self.folder / "about.json")
            self.about = about
        if shape != self.about["shape"] or array.dtype.str != self.about["type"]:
            others = "×".join(map(str, self.about["shape"]))
            raise InputError(
                f"{path} gives {'×'.join(map(str, shape))} {array.dtype} a timestep and other files {others} "
                f"{self._type}: make all of one size"
            )

    def _read(self) -> None:
        """What this and other processes have added; under the lock."""
        if self.about is None and (self.folder / "about.json").exists():
            self.about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        if self.about is None:
            return
        left = os.stat(self.folder / "data").st_size - sum(self._lengths) * self._item
        with open(self.folder / "index", "rb") as index:
            index.seek(self._read_to)
            for line in index:
                entry = _entry(line)
                if entry is None or entry[1] * self._item > left:
                    return  # the end of what is whole; the next addition takes its place
                self.known.setdefault(entry[0], len(self._lengths))
                self._lengths.append(entry[1])
                self._read_to += len(line)
                left -= entry[1] * self._item

    def _claim(self) -> int:
        """Makes the folder, and marks it as in use while the descriptor that it returns is open."""
        import fcntl  # not on Windows

        while True:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark = self.folder / "in-use"
            with contextlib.suppress(FileNotFoundError):  # another process is removing the folder: once more
                file = os.open(mark, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(file, fcntl.LOCK_SH)
                if mark.exists() and os.path.samestat(os.fstat(file), os.stat(mark)):
                    return file
                os.close(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone in reading and writing the index. The lock goes when its process dies, however it dies."""
        import fcntl  # not on Windows

        with open(self.folder / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _entry(line: bytes) -> tuple[str, int] | None:
    """Key and length; None where the line is not whole."""
    try:
        key, length = json.loads(line)
    except ValueError:
        return None
    return (key, length) if line.endswith(b"\n") else None


def _make_room(needed: Path) -> None:
    """Remove recipes that were used longest ago while all take more than the limit."""
    import fcntl  # not on Windows

    given = os.environ.get("UNROLLED_CACHE_GB", "")
    try:
        limit = float(given or LIMIT) * 1e9
    except ValueError:
        raise InputError(f"UNROLLED_CACHE_GB is {given!r}: make it a number of gigabytes") from None
    sizes = {folder: sum(p.stat().st_size for p in folder.iterdir()) for folder in needed.parent.iterdir()}
    total = sum(sizes.values())
    for folder in sorted(sizes, key=lambda path: path.stat().st_mtime):
        if total <= limit:
            return
        if folder == needed:
            continue
        with open(folder / "in-use", "ab") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
            total -= sizes[folder]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of the disk as `InputError`."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise InputError(
            f"what is computed cannot be kept ({where}{error.strerror or error}): make room, or set UNROLLED_CACHE to "
            "a folder that can be written"
        ) from error


def _sync(file: IO[Any]) -> None:
    """To the disk, so that a power failure leaves no index without its data."""
    file.flush()
    os.fsync(file.fileno())
