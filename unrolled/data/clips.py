"""Clips with a label each, and clips with a label for each frame, in the layouts people keep them in.

Clips with a label (`read_clips`):

* A table (TSV, CSV, JSON lines) with columns `path` and `label`, and where there are such, `group` (what clips have in
  common that are not independent: the person in them, the recording they were cut from) and `split`.
* A folder with such a table, called clips, labels or metadata, or the only one in it.
* Lists as UCF101 has them (trainlist01.txt): lines of Class/clip.avi, a number after it or not.
* A folder with a folder a class, in it a clip each file, or each folder of pictures, perhaps in folders of their own;
  or with folders train, val and test (by their usual names), each with a folder a class; or several such folders.

Where nothing else says groups, the names of the files may (v_Class_g07_c02.avi; see `media_files.IN_NAMES`).

Clips with labels over time (`read_segments`), always in a table, or a folder with one called segments, frames, labels:

* a row a segment: `path`, `start_frame`, `end_frame` (from 0; the frame after the last), `label`;
* or a row a frame: `path`, `frame` (from 0), `label`.

A frame that no segment covers has the label `none`, and so has one in a segment of that label. Segments of a clip may
not overlap. A path may be a file or a folder of pictures; where it may lie, `media_files.py` says.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from unrolled.data.columns import END, FRAME, LABEL, START
from unrolled.data.examples import BadFiles, Places, Skipped, check_paths, picked
from unrolled.data.folders import UNLABELLED, Aside, divided, entries
from unrolled.data.labelled import MANY, Classes
from unrolled.data.media_files import (
    Row,
    groups_of_rows,
    has_column,
    located,
    of_each_file,
    parts_of_names,
    places_of,
    rows_of_table,
    splits_of_rows,
    tables_in,
)
from unrolled.data.pictures import is_picture_name, natural
from unrolled.data.tables import FORMATS, Table, header_notes, read_table
from unrolled.data.text_files import read_text, split_lines
from unrolled.errors import InputError

NONE = "none"
"""The label of frames that no segment covers."""
NO_CLIPS = (".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".npz", ".npy", ".pdf", ".html", ".xml", ".srt", ".vtt")


@dataclass(frozen=True)
class Clips:
    """N clips with a label each."""

    paths: list[Path]
    labels: list[str]
    places: Places
    groups: list[str] | None = None
    splits: list[str] | None = None
    """The part of each, "train", "val" or "test", where the data say so."""
    notes: list[str] = field(default_factory=list)
    """What people should know: choices made, and what was left out."""
    skipped: list[Skipped] = field(default_factory=list)
    """Files that could not be read, where these are left out"""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "Clips":
        """The clips with these numbers."""
        paths, labels = ([values[n] for n in rows] for values in (self.paths, self.labels))
        groups, splits = picked(self.groups, rows), picked(self.splits, rows)
        return Clips(paths, labels, self.places.take(rows), groups, splits, self.notes, self.skipped)

    def keys(self) -> list[Path]:
        return [path.resolve() for path in self.paths]

    def columns(self) -> tuple[list[str], ...]:
        return [path.name for path in self.paths], self.labels


@dataclass(frozen=True)
class Segmented:
    """N clips with labels over time."""

    paths: list[Path]
    segments: list[list[tuple[int, int, str]]]
    """Of each clip, in order: first frame, the frame after the last, label"""
    places: Places
    """Of each clip's first segment"""
    groups: list[str] | None = None
    splits: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "Segmented":
        """The clips with these numbers."""
        paths, segments = [self.paths[n] for n in rows], [self.segments[n] for n in rows]
        groups, splits = picked(self.groups, rows), picked(self.splits, rows)
        return Segmented(paths, segments, self.places.take(rows), groups, splits, self.notes, self.skipped)

    def keys(self) -> list[Path]:
        return [path.resolve() for path in self.paths]

    def columns(self) -> tuple[list[str], ...]:
        return [path.name for path in self.paths], [str(segments) for segments in self.segments]

    def labels_of(self, clip: int, length: int) -> list[str]:
        """The label of each of the clip's `length` frames. Raises `InputError` where a segment ends after them."""
        labels = [NONE] * length
        for start, end, label in self.segments[clip]:
            if end > length:
                raise InputError(
                    f"{self.places.say(clip)}: {self.paths[clip]} has {length:,} frames and a segment {label!r} from "
                    f"frame {start:,} to {end:,}: count from 0, and let `end_frame` be the frame after the last"
                )
            labels[start:end] = [label] * (end - start)
        return labels

    def classes(self, lengths: Sequence[int]) -> Classes:
        """The labels that frames have, of clips of so many frames. Raises `InputError` where all are the same."""
        found = {label for clip, length in enumerate(lengths) for label in self.labels_of(clip, length)}
        if len(found) < 2:
            raise InputError(
                f"all frames of {self.places.name} have the label {min(found)!r}: give at least two labels"
            )
        named = [label for clip in self.segments for _, _, label in clip]
        once = sum(count == 1 for count in Counter(named).values())
        if len(named) >= MANY and 2 * once > len(named):
            raise InputError(
                f"{self.places.name} has {len(set(named)):,} labels for {len(named):,} segments: that looks like a "
                "number or a name of each, and not like classes; give labels that repeat"
            )
        return Classes(sorted(found))

    def numbers_of(self, clip: int, length: int, classes: Classes) -> np.ndarray:
        """(length,) int64: the number of each frame's label. Raises `InputError` at a label the classes have not."""
        known = {name: n for n, name in enumerate(classes.names)}
        labels = self.labels_of(clip, length)
        if strange := set(labels) - known.keys():
            listed = ", ".join(map(repr, classes.names[:10])) + (", …" if len(known) > 10 else "")
            raise InputError(
                f"{self.places.say(clip)}: {self.paths[clip]} has frames with the label {min(strange)!r}, which does "
                f"not occur in the training data ({listed}): correct it, or train with it"
            )
        return np.array([known[label] for label in labels], dtype=np.int64)


def read_clips(
    paths: Sequence[str | PathLike[str]], *, encoding: str | None = None, bad_files: BadFiles = "stop"
) -> Clips:
    """Clips with a label each; see the module's first lines. Raises `InputError` with file and line."""
    given, notes, skipped = [Path(path) for path in paths], list[str](), list[Skipped]()
    check_paths(given, bad_files)
    lists = all(path.suffix.lower() == ".txt" and path.is_file() for path in given)
    tables = [] if lists else _tables(given, ("clips", "labels", "metadata"), encoding, notes)
    if lists:
        parts = parts_of_names(given)
        listed = [row for p, part in zip(given, parts, strict=True) for row in _of_list(p, part, encoding)]
        rows = located(listed, bad_files, notes, skipped)
    elif tables:
        named = [row for t, part in tables for row in rows_of_table(t, (LABEL,), part)]
        rows = located(named, bad_files, notes, skipped)
    else:
        rows = _of_folders(given, notes)
    for first, *others in of_each_file(rows):
        if others:
            raise InputError(f"{others[0].place}: {first.path} is in line {first.line:,} already: a clip has one label")
    labels = [_label(row) for row in rows]
    groups, splits = groups_of_rows(rows, notes), splits_of_rows(rows)
    return Clips([row.path for row in rows], labels, places_of(rows), groups, splits, notes, skipped)


def read_segments(
    paths: Sequence[str | PathLike[str]], *, encoding: str | None = None, bad_files: BadFiles = "stop"
) -> Segmented:
    """Clips with labels over time; see the module's first lines. Raises `InputError` with file and line."""
    given, notes, skipped = [Path(path) for path in paths], list[str](), list[Skipped]()
    check_paths(given, bad_files)
    tables = _tables(given, ("segments", "frames", "labels"), encoding, notes)
    if not tables:
        needed = "a table with the columns path, start_frame, end_frame and label"
        raise InputError(f"the folder {given[0]} has no segments.csv: give it {needed}")
    rows: list[Row] = []
    for table, part in tables:
        columns = (LABEL, START, END) if has_column(table, START) else (LABEL, FRAME)
        rows += rows_of_table(table, columns, part)
    clips = of_each_file(located(rows, bad_files, notes, skipped))
    firsts = [clip[0] for clip in clips]
    segments = [_in_order(clip) for clip in clips]
    groups, splits = groups_of_rows(firsts, notes), splits_of_rows(firsts)
    return Segmented([row.path for row in firsts], segments, places_of(firsts), groups, splits, notes, skipped)


def _tables(
    given: list[Path], names: Sequence[str], encoding: str | None, notes: list[str]
) -> list[tuple[Table, str | None]]:
    """The tables that are given or are in the given folder, each with the part of the data that its name says where
    all names do; [] for folders without."""
    folders = [path.is_dir() for path in given]
    if any(folders) and not all(folders):
        raise InputError(f"{given[0]} and the others are files and folders: give one kind")
    files = [table for path in given for table in tables_in(path, names)] if folders[0] else given
    for path in files:
        if path.suffix.lower() not in FORMATS:
            raise InputError(
                f"{path} is no table: give a .csv, .tsv or .jsonl that names clips, or a folder with clips"
            )
    read = [read_table(path, encoding=encoding, flag=False) for path in files]
    notes += header_notes(read, "name the columns in it")
    return list(zip(read, parts_of_names(files), strict=True))


def _of_list(path: Path, part: str | None, encoding: str | None) -> list[Row]:
    """UCF101's form: the label is the folder of the clip. The numbers of the classes are left out."""
    rows = []
    for line, text in enumerate(split_lines(read_text(path, encoding)), 1):
        clip = Path(re.sub(r"\s+[0-9]+$", "", text.strip()))
        if text.strip() and (len(clip.parts) < 2 or not clip.suffix):
            raise InputError(
                f"{path}, line {line:,} is not a clip as UCF101's lists name it (Class/clip.avi): correct it, or give "
                "a .csv, .tsv or .jsonl that names clips"
            )
        if text.strip():
            rows.append(Row(path, line, clip, (clip.parts[-2],), part))
    if not rows:
        raise InputError(f"{path} names no clips: give some")
    return rows


def _of_folders(given: list[Path], notes: list[str]) -> list[Row]:
    """Of folders of classes, or of parts with a folder a class each."""
    aside, deeper = Aside(), list[Path]()
    parts: Sequence[str | None] = (divided(given) if len(given) > 1 else None) or [None] * len(given)
    rows = []
    for folder, part in zip(given, parts, strict=True):
        inside = _folders(folder, aside)
        inner = divided(inside) if inside and part is None else None
        pairs: list[tuple[Path, str | None]] = [(path, part) for path in inside]
        if inner:
            pairs = [(c, of) for p, of in zip(inside, inner, strict=True) for c in _folders(p, aside)]
        if not pairs:
            raise InputError(
                f"the folder {folder} has neither a table of clips nor folders: give it a folder for each class"
            )
        for path, of in pairs:
            clips = _clips_below(path, aside, deeper)
            if not clips:
                raise InputError(f"the folder {path} has no clips: give it some, or remove it")
            rows += [Row(clip, 0, clip, (path.name,), of) for clip in clips]
    notes += aside.notes()
    if deeper:
        notes.append(f"clips in folders below that of their class: {len(deeper):,}, the first is {deeper[0]}")
    return rows


def _folders(folder: Path, aside: Aside) -> list[Path]:
    """In natural order; files beside them, and folders of what has no label, are left out."""
    found = entries(folder, aside)
    kept = [path for path in found if path.is_dir() and path.name.casefold() not in UNLABELLED]
    aside.add(path for path in found if path not in kept)
    return sorted(kept, key=natural)


def _clips_below(folder: Path, aside: Aside, deeper: list[Path]) -> list[Path]:
    """The clips of a class. A folder with pictures is one; what lies in other folders goes to `deeper` too."""
    clips = []
    for path in sorted(entries(folder, aside), key=natural):
        if path.is_dir():
            if any(is_picture_name(inside) for inside in entries(path, Aside())):
                clips.append(path)
                continue
            found = _clips_below(path, aside, [])
            deeper += found
            clips += found
            if not found:
                aside.add([path])
        elif path.suffix.lower() in NO_CLIPS:
            aside.add([path])
        else:
            clips.append(path)
    return clips


def _in_order(rows: Sequence[Row]) -> list[tuple[int, int, str]]:
    """The segments of a clip; frames of the same label that follow each other become one."""
    found = []
    for row in rows:
        start = _number(row, row.cells[1])
        end = _number(row, row.cells[2]) if len(row.cells) > 2 else start + 1
        if end <= start:
            raise InputError(f"{row.place}: the segment ends at frame {end:,}, before it has begun at {start:,}")
        found.append((start, end, row))
    found.sort(key=lambda segment: segment[:2])
    segments: list[tuple[int, int, str]] = []
    for n, (start, end, row) in enumerate(found):
        label, before = _label(row), found[n - 1][2]
        if segments and start < segments[-1][1]:
            raise InputError(
                f"{row.place}: frame {start:,} of {row.path} already has the label {before.cells[0]!r}, by line "
                f"{before.line:,}: a frame has one label, and `end_frame` is the frame after the last"
            )
        if segments and len(row.cells) == 2 and segments[-1][1:] == (start, label):
            segments[-1] = (segments[-1][0], end, label)
        else:
            segments.append((start, end, label))
    return segments


def _number(row: Row, cell: str) -> int:
    if not (cell.isascii() and cell.isdigit()):
        raise InputError(f"{row.place}: {cell!r} is not the number of a frame: give a whole number, counted from 0")
    return int(cell)


def _label(row: Row) -> str:
    if not row.cells[0]:
        raise InputError(f"{row.place} has no label: add it, or remove the line")
    return row.cells[0]
