"""Objects of every kind that a caller might pass by mistake, some of which raise in each of their methods."""

from __future__ import annotations

import collections
import decimal
import enum
import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
import PIL.Image

import imgkit


class Size(enum.StrEnum):
    BIG = "1024x1024"


class TextEnum(str, enum.Enum):  # noqa: UP042 - formats as "TextEnum.HIGH", unlike a StrEnum
    HIGH = "high"


class Count(enum.IntEnum):
    TWO = 2


class Flag(enum.IntFlag):
    A = 1


class PlainEnum(enum.Enum):
    PNG = "png"


class Text(str):
    """A subclass whose methods fail; only its own content counts."""

    def _fail(self, *args: Any) -> Any:
        raise RuntimeError("no method of the object is needed")

    __str__ = __repr__ = __eq__ = __format__ = strip = __contains__ = _fail
    __hash__ = str.__hash__


class Number(int):
    def _fail(self, *args: Any) -> Any:
        raise RuntimeError("no method of the object is needed")

    __str__ = __repr__ = __index__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = _fail
    __hash__ = int.__hash__


class ClassRaises:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("sk-1234567890")


class AttributesRaise:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class AnyAttribute:
    def __getattr__(self, name: str) -> Any:
        return AnyAttribute()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return AnyAttribute()


class BrokenMapping(collections.UserDict[str, int]):
    def __iter__(self) -> Any:
        raise RuntimeError("cannot iterate")


class BrokenDict(dict[str, int]):
    def _fail(self, *args: Any) -> Any:
        raise RuntimeError("cannot iterate")

    __iter__ = keys = items = _fail


class PathOf:
    def __init__(self, path: Any) -> None:
        self._path = path

    def __fspath__(self) -> Any:
        return self._path


class MetaRaises(type):
    def __repr__(cls) -> str:
        raise RuntimeError("no repr of the class")


class WithMeta(metaclass=MetaRaises):
    pass


def constant(value: Any) -> Callable[[], Any]:
    """Return a function that returns a value."""
    return lambda: value


def raising(*names: str) -> object:
    """Return an object whose special methods of these names raise."""

    def fail(self: object, *args: Any) -> Any:
        raise RuntimeError("boom " + "x" * 5_000)

    return type("Raises", (), dict.fromkeys(names, fail))()


def closed_file() -> io.BytesIO:
    """Return a closed file object."""
    stream = io.BytesIO(b"x")
    stream.close()
    return stream


def released_memory() -> memoryview:
    """Return a memoryview without its buffer."""
    view = memoryview(b"abc")
    view.release()
    return view


def closed_image() -> PIL.Image.Image:
    """Return a Pillow image that was closed."""
    image = PIL.Image.new("RGB", (2, 2))
    image.close()
    return image


def nested_dict(depth: int = 3_000) -> dict[str, Any]:
    """Return a dictionary that no recursive function can read."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def endless_list() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


FakeImage: Any = type("Image", (), {"__module__": "PIL.Image"})
SPECIAL_METHODS = ["__str__", "__repr__", "__eq__", "__hash__", "__fspath__", "__len__", "__iter__"]
SPECIAL_METHODS += ["__bool__", "__index__", "__int__", "__float__", "__lt__", "__contains__", "__getitem__"]
SPECIAL_METHODS += ["__call__", "read", "seekable", "tell"]
PLAIN_VALUES: list[Any] = [True, 0, -1, 2.5, 1e308, float("nan"), float("inf"), 1j, b"abc"]
PLAIN_VALUES += ["", "\ud800", "a\0b", "{", "~nobody/x"]
WRONG_PATHS: list[Any] = [None, 5, b"", b"a\0", "\ud800", []]

MAKERS: dict[str, Callable[[], Any]] = {
    **{repr(value): constant(value) for value in PLAIN_VALUES},
    "huge int": lambda: 10**5_000,
    "huge negative int": lambda: -(10**5_000),
    "long text": lambda: "x" * 100_000,
    "text enum": lambda: TextEnum.HIGH,
    "int enum": lambda: Count.TWO,
    "int flag": lambda: Flag.A,
    "plain enum": lambda: PlainEnum.PNG,
    "enum class": lambda: Size,
    "broken str": lambda: Text("high"),
    "broken int": lambda: Number(2),
    "numpy int": lambda: numpy.int64(2),
    "numpy float": lambda: numpy.float32(2.5),
    "numpy bool": lambda: numpy.bool_(True),
    "numpy text": lambda: numpy.str_("high"),
    "numpy array": lambda: numpy.array([1, 2]),
    "numpy scalar array": lambda: numpy.array(2),
    "numpy image": lambda: numpy.zeros((4, 4, 3), "u1"),
    "released memory": released_memory,
    "list": lambda: [1],
    "endless list": endless_list,
    "set": lambda: {1},
    "generator": partial(iter, range(3)),
    "dict": lambda: {"a": 1},
    "dict of int keys": lambda: {1: 2},
    "dict of NaN": lambda: {"a": float("nan")},
    "dict of objects": lambda: {"a": raising("__str__", "__repr__")},
    "dict of odd text": lambda: {Text("x"): Text("y")},
    "dict of surrogates": lambda: {"\ud800": "\ud800"},
    "dict of a huge int": lambda: {"a": 10**5_000},
    "dict of enums": lambda: {"a": TextEnum.HIGH, "b": [Count.TWO, numpy.int64(3), numpy.float64(0.5)]},
    "nested dict": nested_dict,
    "broken mapping": lambda: BrokenMapping(a=1),
    "broken dict": lambda: BrokenDict(a=1),
    "proxy": lambda: MappingProxyType({"a": 1}),
    "decimal": lambda: decimal.Decimal("sNaN"),
    "class": lambda: int,
    "function": constant(lambda: 1 / 0),
    "module": lambda: os,
    "object": object,
    **{f"raises in {name}": partial(raising, name) for name in SPECIAL_METHODS},
    "raises in all": lambda: raising(*SPECIAL_METHODS),
    **{f"path of {path!r}": partial(PathOf, path) for path in WRONG_PATHS},
    "path of broken str": lambda: PathOf(Text("x")),
    "path": lambda: Path("/no/such/file"),
    "closed file": closed_file,
    "text file": lambda: io.StringIO("x"),
    "raw file": io.RawIOBase,
    "class raises": ClassRaises,
    "attributes raise": AttributesRaise,
    "any attribute": AnyAttribute,
    "metaclass raises": WithMeta,
    "fake image": FakeImage,
    "empty image": lambda: PIL.Image.new("RGB", (0, 5)),
    "closed image": closed_image,
    "broken reference": lambda: imgkit.ImageReference(url=Text("https://x")),
    "surrogate reference": lambda: imgkit.ImageReference(file_id="\ud800"),
    "image of no bytes": lambda: imgkit.Image.from_bytes(5),  # type: ignore[arg-type]
    "request": lambda: imgkit.CreateImageRequest(prompt=5),  # type: ignore[arg-type]
}
"""Functions that make an odd value, by its name."""
