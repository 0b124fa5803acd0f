"""Whether what a JSON file says has the types that its reader needs: a checksum does not prove that it makes sense."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Union

from unrolled.errors import InputError


def check(value: Any, expected: Any, what: str, optional: frozenset[str] = frozenset()) -> None:
    """Raise `InputError` at the first place of `value` that is not as expected.

    expected: a type, a union, a `Literal`, a list or dict of these, or a `TypedDict` or dataclass, whose fields must be
    there (except those that are `optional` or `NotRequired`) and may be accompanied by others. what: a name for the
    value in the message.

    >>> check({"height": 8, "width": "8"}, dict[str, int], "the shape")
    Traceback (most recent call last):
    unrolled.errors.InputError: width of the shape is '8', which is no int
    """
    for place, found, kind in _wrong(value, expected, "", optional):
        name = str(getattr(kind, "__name__", kind)) if isinstance(kind, type) else str(kind).replace("typing.", "")
        shown = repr(found) if len(repr(found)) <= 40 else repr(found)[:39] + "…"
        where = f"{place} of {what}" if place else what
        raise InputError(f"{where} is {shown}, which is no {name}" if kind else f"{where} is missing")


def _wrong(value: Any, expected: Any, place: str, optional: frozenset[str]) -> Iterator[tuple[str, Any, Any]]:
    """Places that are wrong, what stands there, and what should; None for a field that is missing."""
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return
    if origin in (types.UnionType, Union):
        if all(any(_wrong(value, one, place, optional)) for one in inner):
            yield place, value, expected
    elif origin is Literal:
        if not any(type(value) is type(one) and value == one for one in inner):
            yield place, value, expected
    elif origin is list or origin is dict:
        if not isinstance(value, origin):
            yield place, value, expected
            return
        parts: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _wrong(part, inner[-1], f"{place}.{key}" if place else str(key), optional)
    elif typing.is_typeddict(expected) or dataclasses.is_dataclass(expected):
        if not isinstance(value, dict):
            yield place, value, dict
            return
        hints = typing.get_type_hints(expected)
        needed = getattr(expected, "__required_keys__", hints.keys()) - optional
        for name, hint in hints.items():
            inside = f"{place}.{name}" if place else name
            if name in value:
                yield from _wrong(value[name], hint, inside, optional)
            elif name in needed:
                yield inside, None, None
    elif not _is(value, expected):
        yield place, value, expected


def _is(value: Any, kind: Any) -> bool:
    """Python lets people give 1 for True, 2 for 2.0 and the other way round, and files keep what was given."""
    if kind is bool:
        return value in (False, True) and isinstance(value, int)
    if kind in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind is float or isinstance(value, int) or value.is_integer())
    return isinstance(value, kind)
