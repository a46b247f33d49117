"""Signatures of the operations: errors for wrong arguments, and concrete types for `help` and editors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from imgkit.errors import InvalidRequestError
from imgkit.redact import HiddenDict, PrivateDict, format_suggestion
from imgkit.runtime.flow import fail

_WRAPPERS = {"extra_body": PrivateDict, "model_options": PrivateDict, "extra_headers": HiddenDict}
"""Dictionaries with a safe repr, by the arguments that may hold secrets."""

MethodT = TypeVar("MethodT", bound=Callable[..., object])
ServiceT = TypeVar("ServiceT", bound=type[object])


def operation(method: MethodT) -> MethodT:
    """Turn the `TypeError` for wrong arguments of a method into an `InvalidRequestError`.

    The error is raised where the call's other errors are: by an awaited call, when it is awaited.
    """

    @functools.wraps(method)
    def call(self: Any, /, *args: object, **kwargs: object) -> object:
        _wrap_secrets(kwargs)
        try:
            return method(self, *args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise  # raised inside the method
        return self._run_flow(fail(argument_error(method, args, kwargs)), None)

    return call  # type: ignore[return-value]  # it has the signature of the method


def with_result_types(
    results: Mapping[str, str], *, is_async: bool = False
) -> Callable[[ServiceT], ServiceT]:
    """Return a class decorator that gives a service's operations their concrete result types at run time.

    Type checkers derive them from the type variables. `help`, `inspect` and mock libraries cannot.

    Args:
        results: names of the result types, by the name of their type variable.
        is_async: make the operations that are no streams coroutine functions.
    """

    def decorate(service: ServiceT) -> ServiceT:
        for name in dir(service):
            method: Any = getattr(getattr(service, name), "__wrapped__", None)
            variable: str = getattr(method, "__annotations__", {}).get("return", "")
            if variable in results:
                bound = operation(method) if variable == "StreamT" or not is_async else _as_coroutine(method)
                bound.__qualname__ = f"{service.__name__}.{name}"
                bound.__module__ = "imgkit"
                bound.__annotations__ = {**method.__annotations__, "return": results[variable]}
                bound.__signature__ = inspect.signature(method).replace(return_annotation=results[variable])
                setattr(service, name, bound)
        return service

    return decorate


def _as_coroutine(method: Callable[..., Any]) -> Any:
    call = operation(method)

    @functools.wraps(method)
    async def await_call(self: object, /, *args: object, **kwargs: object) -> object:
        _wrap_secrets(kwargs)
        return await call(self, *args, **kwargs)

    return await_call


def _wrap_secrets(arguments: dict[str, object]) -> None:
    """Wrap the arguments that may hold secrets, because tracebacks may show local variables."""
    for name, wrapper in _WRAPPERS.items():
        if issubclass(type(given := arguments.get(name)), Mapping):
            with suppress(Exception):  # the validation names the problem of a mapping that cannot be read
                arguments[name] = wrapper(given)


def argument_error(
    method: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> InvalidRequestError:
    """Return the error for arguments that do not fit a method, with the nearest real name of each.

    Args:
        method: the method, unbound.
        args: positional arguments without ``self``.
        kwargs: keyword arguments.
    """
    parameters = list(inspect.signature(method).parameters.values())[1:]
    known = [parameter.name for parameter in parameters]
    fields = {
        name: f"{method.__name__} has no such parameter{format_suggestion(name, known)}. "
        "Pass a server's own parameters in extra_body={…}."
        for name in kwargs
        if name not in known
    }
    if not fields:
        required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
        missing = [name for name in required[len(args) :] if name not in kwargs]
        fields = dict.fromkeys(missing, "This argument is missing.")
    if not fields:
        repeated = [name for name in known[: len(args)] if name in kwargs]
        fields = dict.fromkeys(repeated, "This argument is given twice, by position and by name.")
    if not fields:
        fields = {"arguments": f"{method.__name__} takes {known[0]}, then keywords such as {known[-1]}=…."}
    return InvalidRequestError(fields)
