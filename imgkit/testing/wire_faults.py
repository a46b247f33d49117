"""Faults of servers: scripts for a `WireServer`, with the errors that they cause."""

from __future__ import annotations

import imgkit
from imgkit.testing import canary
from imgkit.testing.wire_server import Script, drip, drop, hang, head, raw, reply, reset

HEADERS = {"content-type": "application/json", "x-request-id": "req_1", "connection": "close"}
"""Headers of a JSON reply that ends its connection."""

_CHUNKED_HEADERS = {**HEADERS, "transfer-encoding": "chunked"}

UNKNOWN, API, UNREADABLE = imgkit.OutcomeUnknownError, imgkit.ApiError, imgkit.UnreadableReplyError

FAULTS: dict[str, tuple[Script, type[Exception] | tuple[type[Exception], ...]]] = {
    "closed after the request": (drop, UNKNOWN),
    "reset after the request": (reset, UNKNOWN),
    "half a status line": (raw(b"HTTP/1.1 20"), UNKNOWN),
    # Some libraries accept half a head; then the body is unreadable. Either may have been billed.
    "half a head": (raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl"), (UNKNOWN, UNREADABLE)),
    "garbage": (raw(b"HELLO\r\n\r\n"), UNKNOWN),
    "half a body": (raw(head(200, {**HEADERS, "content-length": "100"}) + b'{"data'), UNKNOWN),
    "half a chunk": (raw(head(200, _CHUNKED_HEADERS) + b'20\r\n{"data'), UNKNOWN),
    "no last chunk": (raw(head(200, _CHUNKED_HEADERS) + b"2\r\n{}\r\n"), UNKNOWN),
    "cut without a length": (raw(head(200, HEADERS) + b'{"data"'), UNREADABLE),
    "empty body": (reply(200, b""), UNREADABLE),
    "gateway page": (reply(504, b"<html>Gateway</html>", content_type="text/html"), UNKNOWN),
    "key echoed": (
        reply(401, {"error": {"message": f"wrong: {canary.KEY}", "code": "invalid_api_key"}}),
        API,
    ),
    "failure of the API": (reply(500, {"error": {"message": "x", "code": "server_error"}}), API),
    "redirect": (reply(307, b"", location="https://elsewhere.invalid/v1"), API),
}
"""Scripts of faulty servers by name, each with the class of the error that a call must raise."""

SLOW: dict[str, Script] = {
    "silence": hang,
    "the head drips": drip(head(200, {**HEADERS, "x-slow": "x" * 4000})),
    "the body drips": drip(b" " * 4000, head(200, {**HEADERS, "content-length": "4000"})),
}
"""Scripts of servers that never send a whole reply in time."""
