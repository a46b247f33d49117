"""The root of the error tree, which is drawn in `imgkit.errors`."""

from __future__ import annotations

from typing import Any


class ImgkitError(Exception):
    """The root: `except ImgkitError` catches whatever imgkit raises on purpose."""

    def __reduce__(self) -> Any:
        # Exceptions are pickled by their positional arguments; ours have keywords too.
        return _revive, (type(self), self.args, self.__dict__)


def _revive(kind: type[ImgkitError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ImgkitError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error
