"""What labelled texts and translation pairs have in common: where each example was found, and its part of the data."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from unrolled.data.columns import SPLIT
from unrolled.data.folders import check_data
from unrolled.data.splits import divide, part_of
from unrolled.data.tables import Table
from unrolled.errors import InputError


@dataclass(frozen=True)
class Places:
    """Where each of N examples was found."""

    files: list[Path]
    file: np.ndarray
    """(N,) numbers of files"""
    line: np.ndarray
    """(N,) lines from 1; 0 where the whole file is the example"""

    @classmethod
    def join(cls, parts: "Sequence[tuple[Path, Sequence[int]]]") -> "Places":
        """Of the files and the lines found in each, in order."""
        counts = [len(lines) for _, lines in parts]
        lines = np.fromiter((n for _, lines in parts for n in lines), dtype=np.int64, count=sum(counts))
        return cls([path for path, _ in parts], np.repeat(np.arange(len(parts)), counts), lines)

    def take(self, rows: np.ndarray) -> "Places":
        return Places(self.files, self.file[rows], self.line[rows])

    def say(self, row: int) -> str:
        """For messages: the file, and the line where there is one."""
        path, line = self.files[self.file[row]], self.line[row]
        return f"{path}, line {line:,}" if line else str(path)

    @property
    def name(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else f"{len(self.files)} files"


class Read(Protocol):
    """Examples as they were read."""

    @property
    def splits(self) -> list[str] | None: ...
    @property
    def notes(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def take(self, rows: np.ndarray) -> Self: ...


R = TypeVar("R", bound=Read)


def train_and_val(
    read: Callable[[Any], R],
    paths: Any,
    val: Any,
    *,
    fraction: float,
    seed: int,
    strata: Callable[[R], Sequence[str] | None] = lambda found: None,
    groups: Callable[[R], Sequence[str] | None] = lambda found: None,
    val_groups: Sequence[str] | None = None,
) -> tuple[R, R, list[str]]:
    """The examples to train on and to validate on, and what people should know of them.

    val: where the latter are; None: divided from the former, as `splits.divide` does it. strata: the label of each;
    groups: the group of each.
    """
    found = read(paths)
    if val is not None:
        other = read(val)
        return found, other, [*found.notes, *other.notes]
    parts = divide(
        len(found),
        splits=found.splits,
        strata=strata(found),
        groups=groups(found),
        val_groups=val_groups,
        fraction=fraction,
        seed=seed,
    )
    return found.take(parts.train), found.take(parts.val), [*found.notes, parts.how]


def picked(column: Sequence[str] | None, rows: np.ndarray) -> list[str] | None:
    """What the column says of these rows; None where there is no column."""
    return None if column is None else [column[n] for n in rows]


def splits_of(table: Table) -> list[str] | None:
    """What a column called "split" says of each row; None where there is none. Raises `InputError` at other words."""
    at = table.guess(SPLIT, "the split column")
    if at is None:
        return None
    cells = table.column(at)
    parts = [part_of(cell) for cell in cells]
    if None in parts:
        row = parts.index(None)
        raise InputError(f"{table.place(row)}: unknown split {cells[row]!r}: choose train, val (or dev) or test")
    return [part for part in parts if part is not None]


def rows_of(split: str, splits: Sequence[str] | None, places: Places, what: str) -> np.ndarray:
    """The examples of this part of the data. Raises `InputError` where the data have none; `what` an example is."""
    rows = [] if splits is None else [n for n, part in enumerate(splits) if part == split]
    if not rows:
        raise InputError(f"{places.name} has no {what} of the split {split!r}: leave --split out")
    return np.array(rows)


def fingerprint(*columns: Sequence[str]) -> str:
    """SHA-256 of rows of texts: a resumed training must find what it began with."""
    digest = hashlib.sha256()
    for row in zip(*columns, strict=True):
        digest.update("".join(f"{len(text)} {text}\0" for text in row).encode())
    return digest.hexdigest()


def check_paths(paths: Sequence[Path]) -> None:
    if not paths:
        raise InputError("no data are given: name a file or a folder")
    for path in paths:
        check_data(path)
