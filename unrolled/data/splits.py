"""Which examples are for training, validation and test: by what the data say, else by a ratio and a seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrolled.errors import InputError

FRACTION = 0.1
"""Of the examples that is drawn for validation, where no other is asked for."""
PARTS = ("train", "val", "test")
NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
}


class Division(NamedTuple):
    """Row numbers of each part, ascending."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    how: str
    """One line for people: who divided, and how many each part has."""


def divide(
    count: int,
    *,
    splits: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    val_groups: Sequence[str] | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> Division:
    """Divide `count` examples.

    splits: the part of each, "train", "val" or "test": then that is it; without any for validation, `fraction` of the
    training part is drawn for it (None: `FRACTION`). strata: the label of each; then the same fraction of each is
    drawn, at least one where there are two. groups: of each, what it has in common with examples that it is not
    independent of; then whole groups are drawn until they make `fraction`, at most half, and none that holds all that
    there is of a label.
    val_groups: the groups to validate on, instead of a draw. The draw depends on seed, order, labels and groups alone.
    """
    fraction = FRACTION if fraction is None else fraction
    everything = np.arange(count)
    part = np.full(count, "train") if splits is None else np.array(splits)
    train, val, test = (everything[part == name] for name in ("train", "val", "test"))
    if len(train) == 0:
        raise InputError("the data have no row for training: call some of them train, in a column or by a name")
    if val_groups is not None:
        if len(val):
            raise InputError("the data say themselves what to validate on: leave the groups for validation out")
        return _named(train, test, groups, val_groups)
    if len(val):
        sizes = f"{len(train):,} for training, {len(val):,} for validation, {len(test):,} for test"
        return Division(train, val, test, f"split as the data say: {sizes}{_straddling(groups, part)}")
    if groups is not None:
        return _drawn(train, test, groups, strata, fraction, seed)
    random = np.random.Generator(np.random.PCG64(seed))
    strata_rows = [train] if strata is None else _rows_of_each(train, _numbered(strata)[0][train])
    val = np.sort(np.concatenate([_draw(group, fraction, random) for group in strata_rows]))
    if len(val) == 0:
        raise InputError(_too_few(len(train), strata is not None))
    train = np.setdiff1d(train, val, assume_unique=True)
    of_each = "" if strata is None else " of each class"
    how = f"validation: {len(val):,} of {len(val) + len(train):,}, {fraction:.0%}{of_each}, drawn with seed {seed}"
    how += f"; left out, for test: {len(test):,}" if len(test) else ""
    return Division(train, val, test, how)


def _too_few(count: int, labelled: bool) -> str:
    if labelled and count > 1:
        return (
            f"no label occurs twice in the {count:,} examples for training, so none can be kept for validation: choose "
            "another column of labels, give at least two examples of a label, or --val"
        )
    return f"{count:,} examples are too few to keep some for validation: give more, or --val"


def _named(train: np.ndarray, test: np.ndarray, groups: Sequence[str] | None, chosen: Sequence[str]) -> Division:
    """The chosen groups are for validation."""
    if groups is None:
        raise InputError("the data have no groups to choose for validation: add a column `group`, or leave them out")
    names = np.array(groups)[train]
    for name in chosen:
        if name not in names:
            known = sorted(set(names.tolist()))
            listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
            raise InputError(f"there is no group {name!r} to validate on: choose from {listed}")
    inside = np.isin(names, list(chosen))
    if not chosen or inside.all():
        raise InputError("no group is left for training: validate on fewer" if chosen else "no group is named")
    return Division(train[~inside], train[inside], test, _told(names, inside, "as named"))


def _drawn(
    train: np.ndarray,
    test: np.ndarray,
    groups: Sequence[str],
    strata: Sequence[str] | None,
    fraction: float,
    seed: int,
) -> Division:
    """Whole groups, at random, are for validation."""
    random = np.random.Generator(np.random.PCG64(seed))
    numbers, names = _numbered([groups[row] for row in train])
    labels = np.zeros(len(train), dtype=np.int64) if strata is None else _numbered(strata)[0][train]
    left, inside = np.bincount(labels), np.zeros(len(train), dtype=bool)
    rows_of = _rows_of_each(np.arange(len(train)), numbers)
    for group in random.permutation(len(names)):
        if inside.sum() >= fraction * len(train):
            break
        rows = rows_of[group]
        labels_of, counts = np.unique(labels[rows], return_counts=True)
        every_label = strata is None or bool((left[labels_of] > counts).all())
        if every_label and 2 * (len(train) - left.sum() + len(rows)) <= len(train):
            inside[rows] = True
            left[labels_of] -= counts
    if not inside.any():
        raise InputError(
            f"the {len(names):,} groups cannot be divided so that training has half of the examples and "
            "every label: give more groups, or --val"
        )
    return Division(
        train[~inside], train[inside], test, _told(np.array(names)[numbers], inside, f"drawn with seed {seed}")
    )


def _straddling(groups: Sequence[str] | None, part: np.ndarray) -> str:
    """What people should know of the data's own split."""
    both = 0 if groups is None else len(set(zip(groups, part.tolist(), strict=True))) - len(set(groups))
    return f"; groups are in several parts ({both:,} times), so the parts are not independent" if both else ""


def _told(names: np.ndarray, inside: np.ndarray, how: str) -> str:
    held = sorted(set(names[inside].tolist()))
    listed = ", ".join(held[:10]) + (", …" if len(held) > 10 else "")
    of = f"{len(held):,} of {len(np.unique(names)):,} groups ({listed})"
    return f"validation: {inside.sum():,} of {len(names):,}, {of}, {how}"


def _numbered(words: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The number of each among the different ones, and these in order."""
    names = sorted(set(words))
    number = {name: n for n, name in enumerate(names)}
    return np.fromiter(map(number.__getitem__, words), dtype=np.int64, count=len(words)), names


def _rows_of_each(rows: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """The rows of each number, in the order of numbers and rows; numbers: of each row."""
    order = np.argsort(numbers, kind="stable")
    found = np.split(rows[order], np.flatnonzero(np.diff(numbers[order])) + 1)
    return found if len(rows) else []


def _draw(rows: np.ndarray, fraction: float, random: np.random.Generator) -> np.ndarray:
    """A fraction of the rows; of two or more at least one, and never all."""
    wanted = min(max(1, round(fraction * len(rows))), len(rows) - 1)
    return random.permutation(rows)[:wanted]


def part_of(value: str) -> str | None:
    """The part that a split's name means, None for another word."""
    return NAMES.get(value.strip().casefold())


def part_at_the_end(name: str) -> tuple[str, str | None]:
    """What a name begins with, and the part that it ends with; None where it ends with none.

    >>> part_at_the_end("dev"), part_at_the_end("words_dev"), part_at_the_end("words")
    (('', 'val'), ('words', 'val'), ('', None))
    """
    front, _, last = name.replace("-", "_").replace(".", "_").rpartition("_")
    return front, part_of(last)
