"""Which files hold labelled texts: tables, a folder a class, a file a class, and these in folders named after the parts
of the data. What the layouts are, `labelled.py` says.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unrolled.data.folders import UNLABELLED, Aside, divided, entries, files_below, listed, parts_of
from unrolled.data.tables import FORMATS, looks_like_table
from unrolled.errors import InputError

ASIDE = ("readme", "license", "licence", "source")


class Found(NamedTuple):
    """A file with labelled texts."""

    path: Path
    label: str | None
    """Of all its texts; None for a table"""
    whole: bool = False
    """Whether the file is one text; else each line is"""
    part: str | None = None
    """What its folder says, "train", "val" or "test" """


def find_texts(given: list[Path], encoding: str | None, notes: list[str]) -> list[Found]:
    """The files in these files or folders; what is left out, and where they lie if not in their class's folder, goes
    to the notes. Raises `InputError` where there are none, or they could be understood in two ways."""
    folders = [path.is_dir() for path in given]
    if any(folders) and not all(folders):
        raise InputError(f"{given[0]} and the others are files and folders: give one kind")
    if not folders[0]:
        return _files(given, encoding)
    aside = Aside()
    if len(given) == 1:
        found = _in_folder(given[0], None, encoding, aside, notes)
    elif parts := divided(given):
        found = [f for p, part in zip(given, parts, strict=True) for f in _in_folder(p, part, encoding, aside, notes)]
    else:
        found = _classes(given, None, aside, notes)
    notes += aside.notes()
    return found


def _files(given: list[Path], encoding: str | None) -> list[Found]:
    tables = [path.suffix.lower() in FORMATS for path in given]
    if all(tables) or (len(given) == 1 and looks_like_table(given[0], encoding)):
        return [Found(path, None) for path in given]
    if any(tables) or len(given) == 1:
        raise InputError(
            f"{given[tables.index(False)]} has texts without labels: give a .tsv, .csv or .jsonl with a column of "
            "labels, or one file a class"
        )
    return _file_classes(given, None, encoding)


def _in_folder(folder: Path, part: str | None, encoding: str | None, aside: Aside, notes: list[str]) -> list[Found]:
    """part: of the data, that the folder is."""
    inside = entries(folder, aside)
    folders = [p for p in inside if p.is_dir() and p.name.casefold() not in UNLABELLED]
    tables = [p for p in inside if p.suffix.lower() in FORMATS and p.is_file()]
    files = [p for p in inside if p.is_file() and p.stem.casefold() not in ASIDE]
    chosen = tables or folders or files
    aside.add(p for p in inside if p not in chosen)
    if not chosen:
        raise InputError(f"the folder {folder} has no texts: give tables, or a folder or a file a class")
    if tables:
        return [Found(path, None, part=part) for path in tables]
    if folders:
        parts = divided(folders) if part is None else None
        if not parts:
            return _classes(folders, part, aside, notes)
        notes.append(f"the folders of {folder} say what is for what: {listed(path.name for path in folders)}")
        pairs = zip(folders, parts, strict=True)
        return [found for path, of in pairs for found in _in_folder(path, of, encoding, aside, notes)]
    if len(files) == 1 and part is None:
        raise InputError(f"the folder {folder} has one file, {files[0].name}: give a file or a folder for each class")
    return _file_classes(files, part, encoding)


def _file_classes(files: list[Path], part: str | None, encoding: str | None) -> list[Found]:
    """A file a class, or tables that are named after parts of the data and not by a suffix of tables."""
    parts = parts_of([path.stem for path in files])
    if parts and all(looks_like_table(path, encoding) for path in files):
        return [Found(path, None, part=of) for path, of in zip(files, parts, strict=True)]
    if parts and len(set(parts)) > 1:
        raise InputError(
            f"{listed(path.name for path in files)} in {files[0].parent} are named after parts of the data, not after "
            "classes: give tables with a column of labels, or folders of these names with a file a class"
        )
    by_suffix = len(files) > 1 and len({p.stem for p in files}) == 1
    return [Found(p, p.suffix[1:] if by_suffix and p.suffix else p.stem, part=part) for p in files]


def _classes(folders: Sequence[Path], part: str | None, aside: Aside, notes: list[str]) -> list[Found]:
    """A folder a class, each file in it, however deep, one text."""
    found: list[Found] = []
    deeper: list[Path] = []
    inside = {folder: entries(folder, Aside()) for folder in folders}
    names = {tuple(p.name for p in some) for some in inside.values()}
    first = next(iter(inside.values()))
    if len(names) == 1 and len(first) > 1 and all(p.is_dir() for some in inside.values() for p in some):
        one = len(folders) == 1
        where = f"the folder {folders[0]} holds" if one else f"the folders {listed(map(str, folders))} hold"
        raise InputError(
            f"{where} folders and no texts ({listed(p.name for p in first)}): if those are the classes, give it as the "
            "data" + ("" if one else ", one at a time")
        )
    for folder in folders:
        files = files_below(folder, aside)
        if not files:
            raise InputError(f"the folder {folder} has no files: give it texts, one a file, or remove it")
        deeper += [path for path in files if path.parent != folder]
        found += [Found(path, folder.resolve().name, True, part) for path in files]
    if deeper:
        notes.append(f"texts in folders below that of their class: {len(deeper):,}, the first is {deeper[0]}")
    return found
