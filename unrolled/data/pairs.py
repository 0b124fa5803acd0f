"""Translation pairs: two files whose lines belong together, or a table with a column for each side.

In two files line n of one is the translation of line n of the other, so their numbers of lines must be equal. A table
(see `tables.py`) has its columns named or numbered from 1; else those called source and target, or two columns in that
order. A column `split` says what each row is for.

Texts are stripped of white space around them. A pair with an empty side teaches nothing and is left out and counted; on
request it is kept, since an evaluation must give as many translations as it was given lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from unrolled.data.columns import SOURCE, TARGET
from unrolled.data.examples import Places, check_paths, picked, splits_of
from unrolled.data.tables import NoColumn, header_notes, looks_like_table, read_table
from unrolled.data.text_files import read_text, split_lines
from unrolled.errors import InputError


@dataclass(frozen=True)
class Pairs:
    """N sources with a target each."""

    sources: list[str]
    targets: list[str]
    places: Places
    splits: list[str] | None = None
    """The part of each, "train", "val" or "test", where the data say so."""
    notes: list[str] = field(default_factory=list)
    """What people should know: what was left out."""

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, rows: np.ndarray) -> "Pairs":
        """The pairs with these numbers."""
        splits = picked(self.splits, rows)
        sources, targets = ([values[n] for n in rows] for values in (self.sources, self.targets))
        return Pairs(sources, targets, self.places.take(rows), splits, self.notes)

    def keys(self) -> list[tuple[str, str]]:
        return list(zip(self.sources, self.targets, strict=True))

    def columns(self) -> tuple[list[str], ...]:
        return self.sources, self.targets


def read_pairs(
    paths: Sequence[str | PathLike[str]],
    *,
    source_column: str | None = None,
    target_column: str | None = None,
    encoding: str | None = None,
    keep_empty: bool = False,
) -> Pairs:
    """Pairs from a source file and a target file, or from one table. Raises `InputError` where they are unusable."""
    given = [Path(path) for path in paths]
    check_paths(given)
    for path in given:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give a file of sources and a file of targets, or one table")
    if len(given) > 2:
        raise InputError(f"{len(given)} files are given: give a file of sources and a file of targets, or one table")
    if len(given) == 2:
        if source_column is not None or target_column is not None:
            raise NoColumn("two files have no columns: give one table, or leave the columns out")
        found = _aligned(given[0], given[1], encoding)
    else:
        found = _of_table(given[0], source_column, target_column, encoding)
    if not keep_empty:
        found = _without_empty(found)
    if not found.sources:
        raise InputError(f"{' and '.join(map(str, given))}: there is no pair with both sides, so nothing to learn from")
    return found


def _aligned(source: Path, target: Path, encoding: str | None) -> Pairs:
    sources, targets = ([line.strip() for line in split_lines(read_text(p, encoding))] for p in (source, target))
    if len(sources) != len(targets):
        raise InputError(
            f"{source} has {len(sources):,} lines and {target} has {len(targets):,}: "
            "line n of one must be the translation of line n of the other"
        )
    return Pairs(sources, targets, Places.join([(source, range(1, len(sources) + 1))]))


def _of_table(path: Path, source: str | None, target: str | None, encoding: str | None) -> Pairs:
    if not looks_like_table(path, encoding):
        raise InputError(
            f"{path} is one file without a tab in its first line: give the file of translations too, or a table"
        )
    table = read_table(path, encoding=encoding, columns=(source, target))
    a = table.find(source, "--source-column") if source is not None else table.guess(SOURCE, "--source-column")
    b = table.find(target, "--target-column") if target is not None else table.guess(TARGET, "--target-column")
    if table.width == 2:
        if a is None and b is None:
            a, b = 0, 1
        a, b = (1 - (b or 0) if a is None else a), (1 - (a or 0) if b is None else b)
    if a is None or b is None:
        side = "source" if a is None else "target"
        raise InputError(
            f"{path} does not say which column is the {side}: choose --{side}-column from {table.listed()}"
        )
    if a == b:
        raise InputError(f"{path}: source and target are both column {a + 1}: choose two")
    places = Places.join([(path, table.lines)])
    notes = header_notes([table], "name the columns with --source-column and --target-column")
    return Pairs(table.column(a), table.column(b), places, splits_of(table), notes)


def _without_empty(found: Pairs) -> Pairs:
    whole = np.array([bool(s and t) for s, t in zip(found.sources, found.targets, strict=True)], dtype=bool)
    if whole.all():
        return found
    kept = found.take(np.flatnonzero(whole))
    first = found.places.say(int(np.argmin(whole)))
    note = f"left out {int((~whole).sum()):,} pairs with an empty side, the first of them in {first}"
    return Pairs(kept.sources, kept.targets, kept.places, kept.splits, [*found.notes, note])
