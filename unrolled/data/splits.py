"""Which examples are for training, validation and test: by what the data say, else by a ratio and a seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrolled.errors import InputError

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
    fraction: float = 0.1,
    seed: int = 0,
) -> Division:
    """Divide `count` examples.

    splits: the part of each, "train", "val" or "test": then that is it; without any for validation, `fraction` of the
    training part is drawn for it. strata: the label of each; then the same fraction of each is drawn, at least one
    where there are two. The draw depends on seed, order and labels alone.
    """
    everything = np.arange(count)
    part = np.full(count, "train") if splits is None else np.array(splits)
    train, val, test = (everything[part == name] for name in ("train", "val", "test"))
    if len(train) == 0:
        raise InputError("the split column has no row for training: call some of them train")
    if len(val):
        sizes = f"{len(train):,} for training, {len(val):,} for validation, {len(test):,} for test"
        return Division(train, val, test, f"split as the data say: {sizes}")
    random = np.random.Generator(np.random.PCG64(seed))
    groups = [train] if strata is None else _groups(train, np.array(strata))
    val = np.sort(np.concatenate([_draw(group, fraction, random) for group in groups]))
    if len(val) == 0:
        raise InputError(f"{len(train):,} examples are too few to keep some for validation: give more, or --val")
    train = np.setdiff1d(train, val, assume_unique=True)
    of_each = "" if strata is None else " of each class"
    how = f"validation: {len(val):,} of {len(val) + len(train):,}, {fraction:.0%}{of_each}, drawn with seed {seed}"
    return Division(train, val, test, how)


def _groups(rows: np.ndarray, strata: np.ndarray) -> list[np.ndarray]:
    labels = strata[rows]
    return [rows[labels == label] for label in np.unique(labels)]


def _draw(rows: np.ndarray, fraction: float, random: np.random.Generator) -> np.ndarray:
    """A fraction of the rows; of two or more at least one, and never all."""
    wanted = min(max(1, round(fraction * len(rows))), len(rows) - 1)
    return random.permutation(rows)[:wanted]


def part_of(value: str) -> str | None:
    """The part that a split's name means, None for another word."""
    return NAMES.get(value.strip().casefold())
