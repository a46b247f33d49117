"""Which headers may be sent, and who sets them."""

from __future__ import annotations

import re
from collections.abc import Mapping

FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that follow from the body and the connection: nobody else sets them."""

NOT_FOR_USERS = FRAMING | {"accept-encoding", "authorization", "cookie", "proxy-authorization"}
"""Headers that imgkit or its plugins set."""

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")


def header_problem(headers: object, reserved: frozenset[str]) -> str | None:
    """Return why headers cannot be sent, None if they can. The text shows no value.

    Args:
        headers: a mapping of names to text; None as a value means "left out".
        reserved: lower-case names that may not be among them.
    """
    if not isinstance(headers, Mapping):
        return "must be a mapping of header names to values"
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return f"{str(name)[:60]!r} is not a header name"
        if name.lower() in reserved:
            return f"{name!r} is set by imgkit or its plugins: leave it out"
        if value is not None and not (isinstance(value, str) and _VALUE.fullmatch(value)):
            return f"the value of {name!r} must be printable ASCII text, without blanks at its ends"
    return None
