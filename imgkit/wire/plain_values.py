"""Plain Python values from the objects that callers pass, converted once at the door.

An enum member, a number of NumPy or a subclass of `str` reads unlike its plain value in a form, in JSON or in
a cache key. And any object may raise in any of its methods, so no function here calls more than it must.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard, TypeVar

from imgkit.redact import scrub

T = TypeVar("T")

_SHOWN_CHARACTERS = 80
_MAX_DEPTH = 200
_SHORT_INTEGER = 10**_SHOWN_CHARACTERS


def has_type(value: object, kind: type[T]) -> TypeGuard[T]:
    """Return whether the type of `value` is `kind` or a subclass.

    `isinstance` also asks the object, whose ``__class__`` may raise, or lie as a mock's does.
    """
    return issubclass(type(value), kind)


def type_name(value: object) -> str:
    """Return the name of an object's type, even if its metaclass raises.

    >>> type_name(5)
    'int'
    """
    return class_name(type(value))


def class_name(kind: object) -> str:
    """Return the name of a class, even if its metaclass raises.

    >>> class_name(int)
    'int'
    """
    return str(type.__dict__["__name__"].__get__(kind))


def show_value(value: object) -> str:
    """Return a short text for a value in a message: a plain value itself, the type of any other object.

    >>> show_value("png"), show_value(1.5), show_value([1])
    ("'png'", '1.5', 'a value of type list')
    """
    text = to_text(value)
    if text is not None:
        return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int and -_SHORT_INTEGER < value < _SHORT_INTEGER:
        return repr(value)
    return f"a value of type {type_name(value)}"


def describe_failure(error: BaseException) -> str:
    """Return the class and the scrubbed text of an exception that a caller's object has raised."""
    try:
        text = scrub(str(error), limit=200).rstrip(".")
    except Exception:
        # An exception of foreign code may be as broken as the code.
        text = "its text cannot be read"
    return f"{type_name(error)}: {text}"


def to_text(value: object) -> str | None:
    """Return text as an exact `str`, also of a `str` enum or another subclass; None for any other value.

    >>> from enum import StrEnum
    >>> to_text(StrEnum("Size", {"BIG": "1024x1024"}).BIG)
    '1024x1024'
    """
    return str.__str__(value) if has_type(value, str) else None


def to_integer(value: object) -> int | None:
    """Return a whole number as an exact `int`, also of an `int` enum or of NumPy; None for any other value.

    >>> to_integer(4), to_integer(True), to_integer(4.0)
    (4, None, None)
    """
    if has_type(value, bool) or not hasattr(type(value), "__index__"):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # its type has __index__
    except Exception:
        # The method is the caller's code: an object that fails is no number.
        return None


def to_number(value: object) -> float | int | None:
    """Return a finite real number as an exact `int` or `float`, also of NumPy; None for any other value."""
    whole = to_integer(value)
    if whole is not None or has_type(value, bool) or not issubclass(type(value), Real):
        return whole
    try:
        number = float(value)  # type: ignore[arg-type]  # a Real
    except Exception:
        # As in `to_integer`.
        return None
    return number if math.isfinite(number) else None


def to_flag(value: object) -> bool | None:
    """Return True or False, also of NumPy or written as 1 or 0; None for any other value."""
    if has_type(value, bool):
        return bool(value)
    whole = to_integer(value)
    if whole is None and type_name(value) in ("bool", "bool_") and type(value).__module__ == "numpy":
        return bool(value)
    return bool(whole) if whole in (0, 1) else None


def to_path(value: object) -> str:
    """Return a path as an exact `str`.

    Raises:
        ValueError: no path, or an object whose ``__fspath__`` fails. The text names the problem.
    """
    text = to_text(value)
    if text is not None:
        return text
    if not hasattr(type(value), "__fspath__"):
        raise ValueError(f"{show_value(value)} is no path")
    try:
        path = os.fspath(value)  # type: ignore[call-overload]  # its type has __fspath__
    except Exception as error:
        # The method is the caller's code, which may raise anything.
        raise ValueError(f"__fspath__ of {type_name(value)} failed with {type_name(error)}") from None
    return str.__str__(path) if has_type(path, str) else os.fsdecode(bytes(path))


def to_json_value(value: object, depth: int = 0) -> Any:
    """Return a JSON value of exact types: dict, list, str, int, float, bool and None.

    >>> to_json_value({"sizes": (1, 2)})
    {'sizes': [1, 2]}

    Raises:
        ValueError: the value is not JSON, or too deeply nested. The text names the problem.
    """
    if value is None or type(value) in (str, bool):
        return value
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply, or contains itself")
    if issubclass(type(value), Mapping):
        return _to_json_object(value, depth)  # type: ignore[arg-type]  # checked by its type
    if has_type(value, list) or has_type(value, tuple):
        return [to_json_value(inner, depth + 1) for inner in value]
    for convert in (to_text, to_number, to_flag):
        plain = convert(value)
        if plain is not None:
            return plain
    if has_type(value, float):
        raise ValueError("NaN and Infinity are not JSON")
    raise ValueError(f"{show_value(value)} is not JSON")


def _to_json_object(value: Mapping[Any, object], depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, inner in value.items():
        name = to_text(key)
        if name is None or name in members:
            problem = "appears twice" if name is not None else "is not a name"
            raise ValueError(f"the key {show_value(key)} {problem}")
        members[name] = to_json_value(inner, depth + 1)
    return members
