"""The check of the headers that a plugin changes: it may set headers, and nothing else of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from imgkit.errors import PluginError
from imgkit.redact import HiddenDict
from imgkit.wire.headers import FRAMING, header_problem
from imgkit.wire.messages import HttpRequest


def find_changed_headers(
    before: HttpRequest, after: HttpRequest, result_error: Callable[[str], PluginError]
) -> dict[str, str]:
    """Return the headers that a plugin has set. Their repr hides the values.

    Args:
        before: the request that the plugin got.
        after: the request that it returned.
        result_error: returns the error for a problem.

    Raises:
        PluginError: it changed anything else, or set a header that cannot be sent.
    """
    if type(after) is not type(before):
        raise result_error(f"returned a {type(after).__name__}")
    if (after.method, after.url, after.body) != (before.method, before.url, before.body):
        raise result_error("returned a request with another method, URL or body")
    if not isinstance(after.headers, Mapping):
        raise result_error(f"returned headers that cannot be sent ({header_problem(after.headers, FRAMING)})")
    had = before.headers
    changed = HiddenDict(
        (name, value) for name, value in after.headers.items() if name not in had or had[name] != value
    )
    problem = header_problem(changed, FRAMING)
    if problem is None and any(name != name.lower() or value is None for name, value in changed.items()):
        problem = "names must be in lower case, and values text"
    if problem:
        raise result_error(f"returned headers that cannot be sent ({problem})")
    return changed
