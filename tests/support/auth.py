"""Keys, requests and calls that the authentication tests share."""

from __future__ import annotations

from typing import Any

from imgkit.default_plugins.auth import BearerAuth
from imgkit.models import HostClass
from imgkit.plugins.events import Call
from imgkit.plugins.tokens import TokenNeeded
from imgkit.wire.messages import HttpRequest

KEY = "sk-test-CANARY-1234567890abcdef"
VARIABLE = "OPENAI_API_KEY"
REQUEST = HttpRequest("POST", "https://api.example.com/v1/images/generations", {"accept": "application/json"})

BROKEN = ["", " ", "\n", "Bearer ", f"{KEY}\n", f"\n{KEY}", f"{KEY}\r\nX-Evil: 1", f"{KEY}\0",
          f"{KEY} {KEY}", f"{KEY}é", f"{KEY}\t", f"{KEY}\x7f", f"“{KEY}”", f"{KEY}\ud800",
          f"bearer {KEY}"]  # fmt: skip

UNTYPED: list[Any] = [KEY.encode(), 5, [KEY], {"key": KEY}, True]


def call(host_class: HostClass = "official") -> Call:
    """Return a call to a host of this class."""
    return Call(
        id="c1",
        operation="create_image",
        backend="requests",
        provider="openai",
        base_url="https://api.example.com/v1",
        host_class=host_class,
        timeout_s=1.0,
    )


def header(auth: BearerAuth, host_class: HostClass = "official") -> str | None:
    """Return the Authorization header that the plugin sets; return None if it sets none."""
    signed = auth.imgkit_authenticate(REQUEST, call(host_class))
    if signed is None:
        return None
    if isinstance(signed, TokenNeeded):
        signed.fetch()
        signed = signed.sign(REQUEST)
    assert signed.headers["accept"] == "application/json"
    assert (signed.method, signed.url, signed.body) == (REQUEST.method, REQUEST.url, REQUEST.body)
    return signed.headers["authorization"]
