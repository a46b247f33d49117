"""How a plan that is bound to a service looks from outside: in help(), and in errors about its arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from imgkit.errors import InvalidRequestError
from imgkit.redact import nearest

M = TypeVar("M", bound=Callable[..., Any])


def argument_error(
    plan: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> InvalidRequestError:
    """Say what is wrong with the arguments of a call, with the nearest real name of each."""
    known = list(inspect.signature(plan).parameters)[1:]
    fields = {
        name: f"{plan.__name__} has no such parameter{nearest(name, known)}; "
        "what a server has beyond imgkit goes into extra_body={…}"
        for name in kwargs
        if name not in known
    }
    if not fields:
        required = [
            name for name, one in inspect.signature(plan).parameters.items() if one.default is one.empty
        ]
        missing = [name for name in required[1 + len(args) :] if name not in kwargs]
        fields = dict.fromkeys(missing, "is missing")
    if not fields:
        twice = [name for name in known[: len(args)] if name in kwargs]
        fields = dict.fromkeys(twice, "is given twice, by position and by name")
    if not fields:
        fields = {"arguments": f"{plan.__name__} takes {known[0]} and then keywords, such as {known[-1]}=…"}
    return InvalidRequestError(fields)


def copy_signature(method: M, plan: Callable[..., Any], owner: str, returns: str | None = None) -> M:
    """Give a bound plan the name, signature and description that help() and editors show.

    Args:
        method: the plan, bound.
        plan: a generator of needs.
        owner: the service's name.
        returns: name of what the method returns, where that is not what the plan does.
    """
    functools.update_wrapper(method, plan)  # keeps the plan as __wrapped__, where type hints resolve
    signature = inspect.signature(plan)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    annotation = returns or str(signature.return_annotation).removeprefix("Flow[").removesuffix("]")
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect's own protocol
        parameters=[own, *list(signature.parameters.values())[1:]], return_annotation=annotation
    )
    method.__annotations__ = {**plan.__annotations__, "return": annotation}
    method.__annotations__.pop("core", None)
    method.__qualname__ = f"{owner}.{plan.__name__}"
    method.__module__ = "imgkit"
    return method
