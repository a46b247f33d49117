"""The door for backend authors: the backend protocols, their values, and the bundled backends.

A backend sends one HTTP request and streams its response. It knows bytes and no image API.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgkit.backends.aiohttp import AiohttpBackend as AiohttpBackend
    from imgkit.backends.offline import OfflineBackend as OfflineBackend
    from imgkit.backends.requests import RequestsBackend as RequestsBackend
    from imgkit.backends.sockets import proxy_authorization as proxy_authorization
    from imgkit.backends.sockets import tls_context as tls_context
    from imgkit.wire.capabilities import CAPABILITIES as CAPABILITIES
    from imgkit.wire.decoding import ContentDecoder as ContentDecoder
    from imgkit.wire.messages import AsyncBackend as AsyncBackend
    from imgkit.wire.messages import AsyncReply as AsyncReply
    from imgkit.wire.messages import Backend as Backend
    from imgkit.wire.messages import BackendOptions as BackendOptions
    from imgkit.wire.messages import Body as Body
    from imgkit.wire.messages import BytesBody as BytesBody
    from imgkit.wire.messages import Head as Head
    from imgkit.wire.messages import HttpRequest as HttpRequest
    from imgkit.wire.messages import Reply as Reply
    from imgkit.wire.messages import SizedBlocks as SizedBlocks
    from imgkit.wire.messages import whole_or_blocks as whole_or_blocks
    from imgkit.wire.transfer import Transfer as Transfer

_EXPORTS = {
    "imgkit.backends.aiohttp": ("AiohttpBackend",),
    "imgkit.backends.offline": ("OfflineBackend",),
    "imgkit.backends.requests": ("RequestsBackend",),
    "imgkit.backends.sockets": ("proxy_authorization", "tls_context"),
    "imgkit.wire.capabilities": ("CAPABILITIES",),
    "imgkit.wire.decoding": ("ContentDecoder",),
    "imgkit.wire.messages": (
        "AsyncBackend",
        "AsyncReply",
        "Backend",
        "BackendOptions",
        "Body",
        "BytesBody",
        "Head",
        "HttpRequest",
        "Reply",
        "SizedBlocks",
        "whole_or_blocks",
    ),
    "imgkit.wire.transfer": ("Transfer",),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
