"""The files in which results of one recipe are kept: one array after the other, and an index.

They are in the folder `frames/<hash of the recipe>` of the cache (see `caches.py`):

* `data`: the arrays;
* `index`: a line for each, a JSON list of its key, its length and its CRC-32, in the order of the arrays; of several
  lines with one key the last one counts;
* `about.json`: the recipe, the type and the shape.

Files only grow, data before index, and an index is only believed as far as there are data. So a process may be killed
at any time, and the next one goes on where it was. Several processes may write: each locks the folder, reads what the
others have added, and adds what is still missing. Arrays stay where they are.

Disks and people damage files. Whole lines of the index and about.json carry their own CRC-32: where one does not fit,
nothing here can be believed, and the store begins again with new files. An array that does not fit its CRC-32
(`Store.check`) is computed again and added once more. CRC-32 finds every damage of up to 32 bits in a row, and of
other damage all but one in four billion; it takes half as long as SHA-256.

Where all recipes together take more than `LIMIT` gigabytes (or UNROLLED_CACHE_GB), those used longest ago, and
that no process is writing, are removed; arrays that are mapped stay readable. Files that are not ours are neither
counted nor touched.
"""

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from unrolled.data.caches import cache_folder
from unrolled.data.frames import Frames
from unrolled.errors import InputError

VERSION = 2
"""Of these files; another makes all recipes others."""
LIMIT = 20.0
IN_USE = "in-use"
FILES = ("data", "index", "about.json", "about.new", "lock", IN_USE)
"""All that belongs to a recipe. `in-use` comes last, so that it is removed last."""
NAME = re.compile(r"[0-9a-f]{32}")
"""Of a recipe's folder."""


class Damaged(Exception):
    """What the files of a store say cannot be believed; the text says which."""


class Store:
    """The results of one recipe; a context, within which nobody removes them."""

    def __init__(self, recipe: str) -> None:
        self.recipe = recipe
        self.known: dict[str, int] = {}
        """The number of each key's array"""
        self.notes: list[str] = []
        """What people should know: damage that was repaired."""
        self._lengths: list[int] = []
        self._sums: list[int] = []
        """The CRC-32 of each array"""
        self._read_to = 0
        """Bytes of the index that are read"""
        self.about: dict[str, Any] | None = None
        with _told():
            self.folder = cache_folder() / "frames" / hashlib.sha256(f"{VERSION} {recipe}".encode()).hexdigest()[:32]

    def __enter__(self) -> "Store":
        with contextlib.ExitStack() as stack, _told(self.folder):
            mark = self._claim()
            stack.callback(os.close, mark)
            for name in ("data", "index", "lock"):
                (self.folder / name).touch(mode=0o600)
            os.utime(self.folder)
            with contextlib.suppress(FileNotFoundError):  # another process makes room
                _make_room(self.folder)
            with self._locked():
                try:
                    self._read()
                except Damaged as damage:
                    self._begin_again(mark, damage)
            self._in_use = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._in_use.close()

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def add(self, results: Sequence[tuple[str, np.ndarray, Path]]) -> None:
        """Keep arrays (T, ...), each with its key and the file it is of. What is there already stays."""
        with _told(self.folder), self._locked():
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
                index.write(b"".join(_sealed([key, len(array), _sum(array)]) for key, (array, _) in new.items()))
                _sync(index)
            self._read()

    def check(self, keys: Iterable[str]) -> list[str]:
        """Those of these keys whose arrays are damaged; they count as unknown from now on. Reads all of the arrays."""
        known = [key for key in keys if key in self.known]
        if not known:
            return []
        frames = self.frames(known)
        damaged = [key for n, key in enumerate(known) if _sum(frames[n]) != self._sums[self.known[key]]]
        for key in damaged:
            del self.known[key]
        return damaged

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
            with open(self.folder / "about.new", "wb") as file:
                file.write(_sealed(about))
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
        """What this and other processes have added; under the lock. Raises `Damaged`."""
        if self.about is None:
            self.about = self._read_about()
        if self.about is None:
            return
        left = os.stat(self.folder / "data").st_size - sum(self._lengths) * self._item
        with open(self.folder / "index", "rb") as index:
            index.seek(self._read_to)
            for line in index:
                if not line.endswith(b"\n"):
                    return  # a kill left it, and the next addition takes its place
                key, length, checksum = _unsealed(line, f"the index, at byte {self._read_to:,}")
                if length * self._item > left:
                    return  # in the same way, without its data
                self.known[key] = len(self._lengths)
                self._lengths.append(length)
                self._sums.append(checksum)
                self._read_to += len(line)
                left -= length * self._item

    def _read_about(self) -> dict[str, Any] | None:
        """None where nothing has been kept yet."""
        path = self.folder / "about.json"
        if not path.exists():
            if os.stat(self.folder / "index").st_size:
                raise Damaged("about.json is missing")
            return None
        about: dict[str, Any] = _unsealed(path.read_bytes(), "about.json")
        if about["recipe"] != self.recipe:
            raise Damaged("about.json is that of another folder")
        return about

    def _begin_again(self, mark: int, damage: Damaged) -> None:
        """With new files, under the lock. Arrays that other processes have mapped stay as they are, since the old files
        are removed and not written to; a process that still adds to them must end first."""
        import fcntl  # not on Windows

        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Damaged(f"{damage}, and another process is using it") from None
        for name in ("index", "data", "about.json"):
            (self.folder / name).unlink(missing_ok=True)
        for name in ("data", "index"):
            (self.folder / name).touch(mode=0o600)
        fcntl.flock(mark, fcntl.LOCK_SH)
        self.known, self._lengths, self._sums, self._read_to, self.about = {}, [], [], 0, None
        self.notes.append(f"the cache {self.folder} was damaged ({damage}), and what it had is computed again")

    def _claim(self) -> int:
        """Makes the folder, and marks it as in use while the descriptor that it returns is open."""
        import fcntl  # not on Windows

        while True:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark = self.folder / IN_USE
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


def _sealed(value: Any) -> bytes:
    """A line of JSON that says whether it is whole."""
    return json.dumps([value, zlib.crc32(json.dumps(value).encode())]).encode() + b"\n"


def _unsealed(line: bytes, what: str) -> Any:
    """The other way round. Raises `Damaged`."""
    try:
        value, checksum = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        raise Damaged(what) from None
    if checksum != zlib.crc32(json.dumps(value).encode()):
        raise Damaged(what)
    return value


def _sum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def _make_room(needed: Path) -> None:
    """Remove recipes that were used longest ago while all take more than the limit."""
    import fcntl  # not on Windows

    given = os.environ.get("UNROLLED_CACHE_GB", "")
    try:
        limit = float(given or LIMIT) * 1e9
    except ValueError:
        raise InputError(f"UNROLLED_CACHE_GB is {given!r}: make it a number of gigabytes") from None
    ours = [p for p in needed.parent.iterdir() if NAME.fullmatch(p.name) and (p / IN_USE).is_file()]
    sizes = {folder: sum(p.stat().st_size for name in FILES if (p := folder / name).is_file()) for folder in ours}
    total = sum(sizes.values())
    for folder in sorted(sizes, key=lambda path: path.stat().st_mtime):
        if total <= limit:
            return
        if folder == needed:
            continue
        with open(folder / IN_USE, "ab") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in FILES:
                (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # files of others are in it, or a process has just begun to use it
                folder.rmdir()
            total -= sizes[folder]


@contextlib.contextmanager
def _told(folder: Path | None = None) -> Iterator[None]:
    """Damage and errors of the disk as `InputError`."""
    try:
        yield
    except Damaged as damage:
        raise InputError(f"{folder} is damaged ({damage}): delete this folder, it holds nothing but a cache") from None
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
