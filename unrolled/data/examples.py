"""What labelled texts and translation pairs have in common: where each example was found, and its part of the data."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from unrolled.data.columns import SPLIT
from unrolled.data.folders import check_data
from unrolled.data.splits import PARTS, divide, part_of
from unrolled.data.tables import Table
from unrolled.errors import InputError

RULES = ContextVar("RULES", default=2)
"""By which rules the data of a training are read and divided. 1: those of commit 5096622 and before, which knew neither
groups nor COCO's parts from the names of files, and with --val trained on all rows of a table, whatever its split
column said. A run that began so is resumed so."""
CONTENT = "content:"
"""How a fingerprint begins that is made of the contents of the files that a table names."""
BadFiles = Literal["stop", "skip"]
"""What a file means that is missing or cannot be decoded: an error, or that it is left out and noted."""


class Skipped(NamedTuple):
    """A file that could not be read and was left out."""

    path: str
    reason: str


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
    def places(self) -> Places: ...
    @property
    def splits(self) -> list[str] | None: ...
    @property
    def notes(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def take(self, rows: np.ndarray) -> Self: ...
    def keys(self) -> Sequence[Hashable]:
        """Of each example what makes another one the same: texts with what is said of them, or the file."""
        ...

    def columns(self) -> tuple[Sequence[str], ...]:
        """What the data say, wherever they lie, for a fingerprint."""
        ...


R = TypeVar("R", bound=Read)


class Divided(NamedTuple, Generic[R]):
    """The examples of a training."""

    train: R
    val: R
    notes: list[str]
    """What people should know of them"""
    digest: str
    """Of all that was read before it was divided: `part_asked` knows the data again"""


def train_and_val(
    read: Callable[[Any], R],
    paths: Sequence[Any],
    val: Sequence[Any] | None,
    *,
    fraction: float | None,
    seed: int,
    strata: Callable[[R], Sequence[str] | None] = lambda found: None,
    groups: Callable[[R], Sequence[str] | None] = lambda found: None,
    val_groups: Sequence[str] | None = None,
    again: bool = False,
) -> Divided[R]:
    """The examples to train on and to validate on, and what people should know of them.

    val: where the latter are; None: divided from the former, as `splits.divide` does it. strata: the label of each;
    groups: the group of each. again: a training is resumed, whose options were accepted when it began.
    """
    found = read(paths)
    notes, digest = [*given_twice(paths), *found.notes], fingerprint(*found.columns())
    if val is not None:
        other = read(val)
        notes += [*given_twice(val), *other.notes]
        if RULES.get() < 2:
            train, held = found, other
            notes += [EVERY_ROW] if found.splits else []
        else:
            train, held = found.take(_to_train_on(found, notes)), other.take(_to_validate_on(other, notes))
        notes += _straddling(groups(train), groups(held))
    else:
        if fraction is not None and not again and "val" in (found.splits or ()):
            raise InputError(
                f"{found.places.name} says itself which rows are for validation, so none are drawn: leave "
                "--val-fraction out"
            )
        parts = divide(
            len(found),
            splits=found.splits,
            strata=strata(found),
            groups=groups(found),
            val_groups=val_groups,
            fraction=fraction,
            seed=seed,
        )
        train, held = found.take(parts.train), found.take(parts.val)
        notes.append(parts.how)
    return Divided(train, held, notes + _in_both(train, held), digest)


EVERY_ROW = "an older version began this run and trained on all rows, those for validation and test too: so it goes on"


def given_twice(paths: Sequence[Any]) -> list[str]:
    """A note on paths that are the same place."""
    places = [Path(path).resolve() for path in paths]
    twice = [path for n, path in enumerate(paths) if places[n] in places[:n]]
    return [f"given more than once: {', '.join(map(str, twice))}"] if twice else []


class Skipping(Protocol):
    """Examples of which some files may have been left out."""

    @property
    def skipped(self) -> list[Skipped]: ...


def skipped_of(*parts: Skipping) -> list[Skipped]:
    """What was left out of these parts of the data, each file once."""
    return list(dict.fromkeys(one for part in parts for one in part.skipped))


def _to_train_on(found: Read, notes: list[str]) -> np.ndarray:
    """The rows for training, where other data are for validation."""
    if found.splits is None:
        return np.arange(len(found))
    rows = {part: np.flatnonzero(np.array(found.splits) == part) for part in PARTS}
    if not len(rows["train"]):
        raise InputError(f"{found.places.name} has no row for training in its split column: call some of them train")
    if len(rows["train"]) < len(found):
        notes.append(
            f"trained on the {len(rows['train']):,} rows of {found.places.name} for training; left out, since --val is "
            f"given: {len(rows['val']):,} for validation, {len(rows['test']):,} for test"
        )
    return rows["train"]


def _to_validate_on(found: Read, notes: list[str]) -> np.ndarray:
    """Of data that are given for validation: the rows for it, or all where they are all for the same."""
    if found.splits is None or len(set(found.splits)) == 1:
        return np.arange(len(found))
    rows = np.flatnonzero(np.array(found.splits) == "val")
    if not len(rows):
        raise InputError(
            f"--val {found.places.name} has rows for training and for test, and none for validation: call some of "
            "them val, or give a file of those alone"
        )
    notes.append(
        f"validated on the {len(rows):,} rows of {found.places.name} for validation; left out: "
        f"{len(found) - len(rows):,} others"
    )
    return rows


def _straddling(train: Sequence[str] | None, held: Sequence[str] | None) -> list[str]:
    both = sorted(set(train or ()) & set(held or ()))
    if not both:
        return []
    listed = ", ".join(both[:5]) + (", …" if len(both) > 5 else "")
    return [f"groups are in training and validation ({len(both):,}: {listed}), so the parts are not independent"]


def _in_both(train: Read, held: Read) -> list[str]:
    """A note on examples that were trained on and are validated on."""
    known = set(train.keys())
    same = [row for row, key in enumerate(held.keys()) if key in known]
    if not same:
        return []
    return [
        f"{len(same):,} of {len(held):,} validation examples are in the training data too, the first of them at "
        f"{held.places.say(same[0])}: they do not show what the model makes of unseen ones"
    ]


def trained_on(val: Sequence[Any] | None, digest: str) -> dict[str, Any]:
    """What a model file says of the data of its training: where those were that --val named, and a fingerprint of
    the others."""
    return {"val": None if val is None else [str(path) for path in val], "digest": digest}


ASSUMED = "the model does not say whether its training was given --val: it is assumed that it was not"
OTHERS = (
    "these are not the data that the model was trained on, so this is not the part that its training used: it is "
    "drawn from them in the same way"
)


def part_asked(
    found: R,
    split: str,
    paths: Sequence[Any],
    trained: dict[str, Any] | None,
    what: str,
    *,
    fraction: float | None,
    seed: int,
    strata: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    val_groups: Sequence[str] | None = None,
) -> R:
    """The examples of a part of the data, as a training with these options divides them; `what` an example is.

    trained: of the model's training (see `trained_on`); None where that is not known. Raises `InputError` where the
    data have no such part, or where the training validated on other data.
    """
    if split not in PARTS:
        raise InputError(f"unknown split {split!r}: choose train, val or test")
    if split == "test":
        return found.take(rows_of(split, found.splits, found.places, what))
    if is_held_out(split, paths, trained):
        return found.take(_to_validate_on(found, found.notes))
    if trained and trained["val"] is not None:
        return found.take(_to_train_on(found, found.notes))
    told = "val" in (found.splits or ())
    if not told:
        found.notes.extend(doubts(trained, fingerprint(*found.columns())))
    parts = divide(
        len(found),
        splits=found.splits,
        strata=strata,
        groups=groups,
        val_groups=None if told else val_groups,
        fraction=fraction,
        seed=seed,
    )
    return found.take(parts.val if split == "val" else parts.train)


def is_held_out(split: str, paths: Sequence[Any], trained: dict[str, Any] | None) -> bool:
    """Whether these are the data that --val named, and are asked for. Raises `InputError` where others are asked for
    as the validation part."""
    if split != "val" or not trained or trained["val"] is None:
        return False
    if [Path(path).resolve() for path in paths] == [Path(path).resolve() for path in trained["val"]]:
        return True
    names = " ".join(trained["val"])
    raise InputError(
        f"the model's training validated on {names} (--val), not on a part of these data: measure it on {names}, "
        "without --split"
    )


def doubts(trained: dict[str, Any] | None, digest: str) -> list[str]:
    """Why a part that is drawn again may not be the training's."""
    if trained is None:
        return [ASSUMED]
    return [OTHERS] if trained.get("digest") not in (None, digest) else []


def all_parts(splits: Sequence[str | None] | None) -> list[str]:
    """A note where data with a part for training are measured as a whole."""
    others = sorted({part for part in splits or () if part} - {"train"})
    if not others or "train" not in (splits or ()):
        return []
    return [f"measured on all of these data, the part for training too: --split {others[0]} measures that part alone"]


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


def check_paths(paths: Sequence[Path], bad_files: BadFiles = "stop") -> None:
    if bad_files not in ("stop", "skip"):
        raise InputError(f"unknown bad_files {bad_files!r}: choose stop or skip")
    if not paths:
        raise InputError("no data are given: name a file or a folder")
    for path in paths:
        check_data(path)
