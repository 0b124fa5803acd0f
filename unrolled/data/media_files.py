"""Tables that name clips or pictures: which table of a folder is meant, and where the files are that it names.

A file is named relative to its table; it may also lie in a folder beside it that is called clips, videos, images or the
like, and where the table is in a folder of tables, such as annotations, beside that one. A file that is missing is an
error; on request (`bad_files="skip"`) its rows are left out, and a note says so.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unrolled.data.columns import GROUP, PATH
from unrolled.data.examples import RULES, BadFiles, Places, Skipped, splits_of
from unrolled.data.folders import Aside, entries, kind_of, shown, unusable
from unrolled.data.splits import part_at_the_end
from unrolled.data.tables import FORMATS, Table
from unrolled.errors import InputError

BESIDE = (
    *("", "clips", "videos", "video", "images", "Images"),
    *("Flicker8k_Dataset", "flickr30k_images", "flickr30k-images", "UCF-101", "TrainValVideo", "TestVideo"),
)
"""Folders in which the files of a table may lie; those of known data sets are called as these come."""
APART = ("annotations", "ucftraintestlist")
"""Folders of nothing but tables (COCO, UCF101)."""
IN_NAMES = (
    re.compile(r"v_\w+_(g[0-9]+)_c[0-9]+"),  # UCF101 and UCF50: the clips of a group were cut from one recording
    re.compile(r"(person[0-9]+)_\w+_d[0-9]+(?:_uncomp)?"),  # KTH
)
"""Names of files that say a group."""


class Row(NamedTuple):
    """What a line of a table says of a file."""

    table: Path
    line: int
    """From 1; 0 where the file stands for itself"""
    path: Path
    cells: tuple[str, ...]
    split: str | None = None
    group: str | None = None
    """What the file has in common with others that it is not independent of"""
    flat: bool = False
    """Whether the file may also lie without its folder"""

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.table}, line {self.line:,}" if self.line else str(self.table)


def places_of(rows: Iterable[Row]) -> Places:
    by_table = itertools.groupby(rows, key=lambda row: row.table)
    return Places.join([(table, [row.line for row in group]) for table, group in by_table])


def splits_of_rows(rows: Sequence[Row]) -> list[str] | None:
    """The part of each row; None where the tables do not say it."""
    return _all_or_none([row.split for row in rows], rows, "split")


def groups_of_rows(rows: Sequence[Row], notes: list[str]) -> list[str] | None:
    """The group of each row; None where neither the tables nor all names of files say it."""
    groups = _all_or_none([row.group for row in rows], rows, "group")
    if groups is not None and "" in groups:
        raise InputError(f"{rows[groups.index('')].place} has no group: add it, or remove the column")
    return groups if groups is not None or RULES.get() < 2 else _in_names(rows, notes)


def _in_names(rows: Sequence[Row], notes: list[str]) -> list[str] | None:
    for pattern in IN_NAMES:
        found = [named[1] for row in rows if (named := pattern.fullmatch(row.path.stem))]
        if len(found) == len(rows) and len(set(found)) > 1:
            notes.append(f"groups from the names of the files: {len(set(found)):,} ({rows[0].path.name}: {found[0]})")
            return found
    return None


def _all_or_none(values: Sequence[str | None], rows: Sequence[Row], what: str) -> list[str] | None:
    found = [value for value in values if value is not None]
    if 0 < len(found) < len(values):
        silent = rows[values.index(None)].table
        raise InputError(f"{silent} has no {what} column, but another table has one: give all of them one")
    return found or None


def tables_in(folder: Path, names: Sequence[str], suffixes: Iterable[str] = FORMATS) -> list[Path]:
    """The tables of a folder that are meant: the one with the first of these names that is there, with one of these
    suffixes; else all tables where each is named after its part of the data; else the only one."""
    known = set(suffixes)
    found = [p for p in entries(folder, Aside()) if p.suffix.lower() in known and p.is_file()]
    for name in names:
        same = [p for p in found if p.stem.casefold() == name]
        if len(same) > 1:
            raise InputError(f"the folder {folder} has {' and '.join(p.name for p in same)}: name the one to read")
        if same:
            return same
    found = [p for p in found if p.suffix.lower() in FORMATS]
    if len(found) > 1 and all(part_of_name(p) for p in found):
        return found
    return found if len(found) == 1 else []


def part_of_name(path: Path) -> str | None:
    """The part of the data that a file or folder is named after, such as "val" for words_dev.csv, and "train" for
    captions_train2014.json (COCO) and trainlist01.txt (UCF101)."""
    stem = path.stem if RULES.get() < 2 else re.sub(r"(list[0-9]{2}|(19|20)[0-9]{2})$", "", path.stem)
    return part_at_the_end(stem)[1]


def parts_of_names(files: Sequence[Path]) -> Sequence[str | None]:
    """The parts that several files are named after, where all of them are named so."""
    parts = [part_of_name(path) for path in files]
    return parts if len(files) > 1 and None not in parts else [None] * len(files)


def rows_of_table(table: Table, columns: Sequence[Sequence[str]], split: str | None = None) -> list[Row]:
    """Each row of a table, with its cells of these columns, each given by its possible names. split: of all rows where
    the table has no such column."""
    paths = _column(table, PATH)
    cells = list(zip(*(_column(table, names) for names in columns), strict=True)) or [()] * len(paths)
    splits: Sequence[str | None] = splits_of(table) or [split] * len(paths)
    groups: Sequence[str | None] = _column(table, GROUP) if has_column(table, GROUP) else [None] * len(paths)
    if "" in paths:
        raise InputError(f"{table.place(paths.index(''))} names no file: add it, or remove the line")
    known = {path: Path(path) for path in set(paths)}
    return [
        Row(table.path, table.lines[n], known[path], cells[n], splits[n], groups[n]) for n, path in enumerate(paths)
    ]


def has_column(table: Table, names: Sequence[str]) -> bool:
    return any(name.casefold() in names for name in table.header or [])


def _column(table: Table, names: Sequence[str]) -> list[str]:
    """The cells of the column with the first of these names that the header has."""
    header = [name.casefold() for name in table.header or []]
    for name in names:
        if header.count(name) > 1:
            raise InputError(f"{table.path} has {header.count(name)} columns called {name!r}: keep one of them")
        if name in header:
            return table.column(header.index(name))
    has = ("its columns are" if table.header else "it has no header, its first row is") + f" {table.listed()}"
    raise InputError(
        f"{table.path} has no column called {names[0]} ({' or '.join(names[1:4])}); {has}: name the columns"
    )


def located(rows: Sequence[Row], bad_files: BadFiles, notes: list[str], skipped: list[Skipped]) -> list[Row]:
    """The rows with the paths of files that are there; see the module's first lines. The others are added to `skipped`
    and counted in a note."""
    where: dict[tuple[Path, Path], Path | str] = {}
    for row in rows:
        key = (row.table.parent, row.path)
        if key not in where:
            where[key] = _look(row)
    found = [row._replace(path=path) for row in rows if isinstance(path := where[row.table.parent, row.path], Path)]
    missing = {name: why for (_, name), why in where.items() if isinstance(why, str)}
    if missing:
        first, why = next((r, w) for r in rows if isinstance(w := where[r.table.parent, r.path], str))
        more = f" (and {len(missing) - 1:,} other files that it names)" if len(missing) > 1 else ""
        if bad_files == "stop" or not found:
            raise InputError(f"{first.place}: {why}{more}; put the file there, or leave the line out")
        notes.append(f"missing files left out: {len(missing):,} ({', '.join(map(shown, missing))})")
        skipped += [Skipped(str(name), reason) for name, reason in missing.items()]
    return found


def _candidates(row: Row) -> Iterator[Path]:
    """Where the file of a row may be, the likeliest place first."""
    folder = row.table.parent
    for base in (folder, folder.parent) if folder.name.casefold() in APART else (folder,):
        for name in (row.path, Path(row.path.name)) if row.flat else (row.path,):
            yield from (base / beside / name for beside in BESIDE)


def _look(row: Row) -> Path | str:
    """Where the file of a row is, or why there is none. Nothing is opened."""
    strange = None
    for path in _candidates(row):
        kind = kind_of(path)
        if kind in ("file", "folder"):
            return path
        strange = strange or (kind if kind != "missing" else None)
    return unusable(row.path, strange) if strange else f"no such file: {shown(row.path)}"


def of_each_file(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each file together, files in the order of their first rows. Raises `InputError` where rows of a file
    put it into different parts or groups."""
    files: dict[Path, list[Row]] = {}
    for row in rows:
        first = files.setdefault(row.path, [row])[0]
        if row is not first:
            files[row.path].append(row)
        for what, a, b in (("split", first.split, row.split), ("group", first.group, row.group)):
            if a != b:
                raise InputError(
                    f"{row.place}: {row.path} has the {what} {b!r} here and {a!r} in {first.place}: choose one"
                )
    return list(files.values())
