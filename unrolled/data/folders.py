"""What a folder holds that can be data, for every reader: the rest is left out and said.

Left out are hidden files and those that Windows and macOS leave in folders; run folders (known by their run.json), the
folder that a training is about to write, the cache, and folders with nothing but these; what is neither file nor
folder.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from unrolled.data.caches import cache_folder
from unrolled.data.splits import part_at_the_end
from unrolled.errors import InputError

RUN_KEYS = frozenset({"task", "data", "val", "sha256", "options", "vocabulary"})
"""Of every run.json."""
SYSTEM = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx")
UNLABELLED = ("unsup", "unlabeled", "unlabelled")
"""Folders beside those of classes, with examples without a label."""
LISTED = 5
_reserved: ContextVar[tuple[Path, ...]] = ContextVar("reserved", default=())


class Aside:
    """What was left out, for notes."""

    def __init__(self) -> None:
        self._found: dict[Path, list[str]] = {}
        self._hidden: list[Path] = []
        self._ours: list[Path] = []

    def add(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._found.setdefault(path.parent, []).append(path.name)

    def add_hidden(self, path: Path) -> None:
        self._hidden.append(path)

    def add_ours(self, path: Path) -> None:
        self._ours.append(path)

    def notes(self) -> list[str]:
        """One line for each of the first folders, and one for the others."""
        folders = list(self._found.items())
        notes = [f"left out of {folder}: {listed(sorted(set(names)))}" for folder, names in folders[:LISTED]]
        if others := folders[LISTED:]:
            count = sum(len(set(names)) for _, names in others)
            notes.append(f"left out of {len(others):,} other folders: {count:,} files and folders")
        if self._hidden:
            count = len(set(self._hidden))
            notes.append(f"left out, hidden or of the system: {count:,}, the first is {self._hidden[0]}")
        if self._ours:
            notes.append(f"left out, since unrolled wrote it: {listed(map(str, dict.fromkeys(self._ours)))}")
        return notes


def listed(names: Iterable[str]) -> str:
    """The first few of them, and how many more there are."""
    found = list(names)
    return ", ".join(found[:LISTED]) + (f" and {len(found) - LISTED:,} more" if len(found) > LISTED else "")


@contextmanager
def leaving_out(*folders: Path | None) -> Iterator[None]:
    """While this lasts, these folders are no data wherever they are met: a training is about to write them."""
    token = _reserved.set((*_reserved.get(), *(folder.resolve() for folder in folders if folder is not None)))
    try:
        yield
    finally:
        _reserved.reset(token)


def entries(folder: Path, aside: Aside) -> list[Path]:
    """The files and folders of a folder that can be data, sorted; the others go to `aside`."""
    try:
        with os.scandir(folder) as scanned:
            found = sorted((folder / entry.name, entry.is_dir(), entry.is_file()) for entry in scanned)
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error
    kept = []
    for path, is_folder, is_file in found:
        if path.name.startswith(".") or path.name.casefold() in SYSTEM:
            aside.add_hidden(path)
        elif not (is_folder or is_file):
            aside.add([path])
        elif is_folder and is_ours(path):
            aside.add_ours(path)
        else:
            kept.append(path)
    return kept


def files_below(folder: Path, aside: Aside) -> list[Path]:
    """The files of a folder and of the folders in it, sorted. Links to folders are not followed."""
    found = []
    for path in entries(folder, aside):
        if not path.is_dir():
            found.append(path)
        elif path.is_symlink():
            aside.add([path])
        else:
            found += files_below(path, aside)
    return sorted(found)


def is_run_folder(folder: Path) -> bool:
    """Whether a training has written it."""
    try:
        found = json.loads((folder / "run.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= RUN_KEYS


def is_ours(folder: Path) -> bool:
    """Whether a folder, met on the way, was written by us, or holds nothing but folders that were."""
    if is_run_folder(folder) or folder.resolve() in (*_reserved.get(), *_caches()):
        return True
    if folder.is_symlink():
        return False
    try:
        inside = [Path(entry.path) if entry.is_dir() else None for entry in os.scandir(folder) if entry.name[0] != "."]
    except OSError:
        return False  # whoever reads it will say so
    return bool(inside) and None not in inside and all(is_ours(path) for path in inside if path)


def check_data(path: Path) -> None:
    """Raises `InputError` where there is no such file or folder, or a training wrote it."""
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"no such file or folder: {shown(path)}")
    if kind not in ("file", "folder"):
        raise InputError(f"{unusable(path, kind)}: name a file or a folder")
    if kind == "folder" and is_run_folder(path):
        raise InputError(f"{path} is the folder of a training, not data: name the data, or a file in it")


def kind_of(path: Path) -> str:
    """ "file", "folder", "missing", what else it is, or why that cannot be told. Nothing is opened."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:
        return "its name has a zero byte"
    found = (name for name, is_one in KINDS.items() if is_one(mode))
    return next(found, "a device")


KINDS = {"file": stat.S_ISREG, "folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}


def unusable(path: Path, kind: str) -> str:
    """For messages, of what is neither file nor folder."""
    if kind.startswith("a "):
        return f"{shown(path)} is neither a file nor a folder but {kind}"
    return f"cannot read {shown(path)}: {kind}"


def shown(name: Path) -> str:
    """For messages: one line, not longer than a name may be.

    >>> len(shown(Path("x" * 1000)))
    81
    """
    text = str(name) if str(name).isprintable() else ascii(str(name))[1:-1]
    return text if len(text) <= 255 else text[:80] + "…"


def parts_of(names: Sequence[str]) -> list[str] | None:
    """What part of the data each is, where all names say it, else None: all are train, val and the like, or end so,
    with training among them, after the same beginning.

    >>> parts_of(["train", "test"]), parts_of(["ptb.train", "ptb.valid"]), parts_of(["test", "exam"])
    (['train', 'test'], ['train', 'val'], None)
    >>> parts_of(["blood_test", "driving_test"])
    """
    found = [part_at_the_end(name) for name in names]
    parts, fronts = [part for _, part in found if part is not None], {front for front, _ in found}
    if not parts or len(parts) < len(names):
        return None
    several = "train" in parts and len(set(parts)) > 1 and (len(fronts) == 1 or "" in fronts)
    return parts if fronts == {""} or several else None


def divided(folders: Sequence[Path]) -> list[str] | None:
    """As `parts_of`, of folders. Raises `InputError` where some are named after parts, training among them, and others
    are not: then they are neither parts nor classes."""
    names = [path.resolve().name for path in folders]
    if parts := parts_of(names):
        return parts
    named = [part_at_the_end(name)[1] for name in names]
    if ("", "train") in map(part_at_the_end, names) and len({*named} - {None}) > 1:
        of, other = folders[named.index("train")], folders[named.index(None)]
        raise InputError(
            f"{of} is named after a part of the data, and {other.name} beside it is not: move that away, or name the "
            "folders of the parts alone"
        )
    return None


def _caches() -> tuple[Path, ...]:
    try:
        cache = cache_folder().resolve()
    except OSError:
        return ()
    return cache, cache / "native", cache / "frames"
