"""Tables of clips; replaced by `clips.py` when that is there."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unrolled.data.examples import Places, check_paths, splits_of
from unrolled.data.tables import read_table
from unrolled.errors import InputError


@dataclass(frozen=True)
class Clips:
    """N clips with a label each."""

    paths: list[Path]
    labels: list[str]
    places: Places
    groups: list[str] | None = None
    splits: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "Clips":
        groups, splits = (None if v is None else [v[n] for n in rows] for v in (self.groups, self.splits))
        paths, labels = [self.paths[n] for n in rows], [self.labels[n] for n in rows]
        return Clips(paths, labels, self.places.take(rows), groups, splits, self.notes)


@dataclass(frozen=True)
class Segmented:
    """N clips, each in segments."""

    paths: list[Path]
    segments: list[list[tuple[int, int, str]]]
    """First frame, the frame after the last, label"""
    places: Places
    groups: list[str] | None = None
    splits: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "Segmented":
        groups, splits = (None if v is None else [v[n] for n in rows] for v in (self.groups, self.splits))
        paths, segments = [self.paths[n] for n in rows], [self.segments[n] for n in rows]
        return Segmented(paths, segments, self.places.take(rows), groups, splits, self.notes)


def read_clips(paths: list[Path]) -> Clips:
    check_paths(paths)
    (path,) = paths
    if path.is_dir():
        if (path / "clips.csv").exists():
            return read_clips([path / "clips.csv"])
        files = [p for p in sorted(path.glob("*/*")) if not p.name.startswith(".")]
        if not files:
            raise InputError(f"the folder {path} has no clips: give a folder for each class, with its clips in it")
        return Clips(files, [p.parent.name for p in files], Places.join([(p, [0]) for p in files]))
    table = read_table(path, names=("path", "label"))
    files = [path.parent / cell for cell in _column(table, "path") or []]
    places = Places.join([(path, table.lines)])
    return Clips(files, _column(table, "label") or [], places, _column(table, "group"), splits_of(table))


def read_segments(paths: list[Path]) -> Segmented:
    check_paths(paths)
    (path,) = paths
    if path.is_dir():
        return read_segments([path / "segments.csv"])
    table = read_table(path, names=("path", "label"))
    names = _column(table, "path") or []
    begins, ends = ([int(cell) for cell in _column(table, name) or []] for name in ("start_frame", "end_frame"))
    labels, splits = _column(table, "label") or [], splits_of(table)
    first: dict[str, int] = {}
    segments: dict[str, list[tuple[int, int, str]]] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
        segments.setdefault(name, []).append((begins[row], ends[row], labels[row]))
    rows = list(first.values())
    places = Places.join([(path, [table.lines[row] for row in rows])])
    parts = None if splits is None else [splits[row] for row in rows]
    return Segmented([path.parent / name for name in first], list(segments.values()), places, None, parts)


def _column(table, name):  # type: ignore[no-untyped-def]
    at = table.guess([name], name)
    return None if at is None else table.column(at)
