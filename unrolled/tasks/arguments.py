"""What Python users give: paths, texts and options of plausible but wrong types are refused in a sentence."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import numpy as np

from unrolled.data.contents import check
from unrolled.errors import InputError

PathLike = str | os.PathLike[str]


def paths_of(given: Iterable[Any], what: str = "the data") -> list[PathLike]:
    """Paths, or lists of them, as one list. Raises `InputError` where one is neither."""
    found = [path for one in given for path in (one if isinstance(one, list | tuple) else [one])]
    for path in found:
        if not isinstance(path, str | os.PathLike) or isinstance(path, bytes):
            raise InputError(f"{what} are given as {_shown(path)}: give paths of files or folders, as str or Path")
    return found


def texts_of(given: Any, method: str = "predict") -> list[str]:
    """A list of texts, from a sequence or an array of them. Raises `InputError` where it is something else."""
    if isinstance(given, str):
        raise InputError(f"{method} takes a list of texts: put the text into brackets")
    if not isinstance(given, Sequence | np.ndarray | Iterable) or isinstance(given, Mapping | bytes | os.PathLike):
        raise InputError(f"{method} takes a list of texts, not {_shown(given)}: give a list of str")
    texts = list(given)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{method} takes a list of texts, and number {row} is {_shown(text)}: make it a str")
    return texts


def options_of(cls: Any, values: Mapping[str, Any]) -> Any:
    """The options of a task from keywords. Raises `InputError` at a keyword that there is not, or a value of another
    type than its own."""
    names = [field.name for field in fields(cls)]
    for name in values:
        if name not in names:
            like = get_close_matches(name, names, n=1)
            meant = f"did you mean {like[0]}=?" if like else "see the options of unrolled train"
            raise InputError(f"there is no option {name}=: {meant}")
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in plain.items()}
    try:
        found = cls(**plain)
    except InputError:
        raise  # the class says more about its own values than their types do
    except (TypeError, ValueError, AttributeError):
        check(plain, cls, "the options", frozenset(names))
        raise
    check(plain, cls, "the options", frozenset(names))
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}" if value is not None else "None"
