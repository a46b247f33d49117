"""What would go over the wire, without sending it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imgkit.core import operations
from imgkit.core.config import Core
from imgkit.errors import ConfigurationError, ImgkitError, MissingKeyError
from imgkit.plugins.resources import PluginResources
from imgkit.providers.base import list_credentials
from imgkit.redact import safe_headers
from imgkit.runtime.flow import EffectFailed, Finished, Flow, RunBlocking, RunParallel, SendRequest, advance
from imgkit.service import AsyncImageService, ImageService
from imgkit.wire.messages import HttpRequest
from imgkit.wire.multipart import Field, MultipartBody

PLANS = {plan.__name__: plan for plan in (
    operations.create_image, operations.create_image_edit, operations.create_image_variation,
    operations.stream_image, operations.stream_image_edit,
)}  # fmt: skip


def preview(service: ImageService | AsyncImageService, operation: str, /, *args: Any, **kwargs: Any) -> str:
    """Return the request that a call would send, as text; nothing is sent and no key is needed.

    The plan of the call is stepped up to the point where it asks for the request to be opened.

    Args:
        service: as it would be called; its plugins change the request as they would.
        operation: name of the method that would be called, such as "create_image".
        *args: the arguments of the call.
        **kwargs: its keywords.

    Returns:
        Method and URL, headers with credentials as "…", and the body: JSON as it is sent, a form with
        each file as its size and digest.

    Raises:
        ImgkitError: whatever the call would raise before sending.
    """
    if operation not in PLANS:
        raise ConfigurationError(f"there is no operation {operation!r}; there are {', '.join(PLANS)}")
    # No observers, no cache and no ledgers: nothing is going to happen.
    quiet = replace(service._core.table, observers=())
    core = service._core._replace(table=quiet, equipment=PluginResources())
    try:
        return _described(*_first_request(core, operation, args, kwargs))
    except MissingKeyError:
        unsigned = core._replace(table=replace(core.table, authenticates=()))
        found = _first_request(unsigned, operation, args, kwargs)
        return _described(*found, {_key_header(core): "(no key was found)"})


def _key_header(core: Core) -> str:
    """Return the header that ``api_key=`` goes into."""
    provider = core.provider
    return next(one.header for one in list_credentials(provider) if one.variable == provider.env["api_key"])


def _described(request: HttpRequest, count: int, more: Mapping[str, str] | None = None) -> str:
    others = f"\n({count} such requests, for all the pictures that are asked for)\n" if count > 1 else ""
    return describe(request, more) + others


def _first_request(core: Core, operation: str, args: Any, kwargs: Any) -> tuple[HttpRequest, int]:
    """Step a plan to where it asks for its request; return that, and how many there will be."""
    # How a cache would be used is not a part of the request.
    given = {name: value for name, value in kwargs.items() if name != "cache"}
    return _stepped(PLANS[operation](core, *args, **given))


def _stepped(flow: Flow[Any]) -> tuple[HttpRequest, int]:
    news: object = None
    try:
        while True:
            match advance(flow, news):
                case SendRequest(request) if request.method == "GET":
                    raise ConfigurationError(
                        "an input is still at its URL: call service.download(image) first"
                    )
                case SendRequest(request):
                    return request, 1
                case RunBlocking(fn, _):
                    try:
                        news = fn()
                    except ImgkitError as error:
                        news = EffectFailed(error)
                case RunParallel(flows, _):
                    return _stepped(flows[0])[0], len(flows)
                case Finished():
                    raise ConfigurationError("the call would send nothing")
                case need:
                    raise ConfigurationError(f"cannot be shown without sending: {type(need).__name__}")
    finally:
        flow.close()


def describe(request: HttpRequest, more: Mapping[str, str] | None = None) -> str:
    """Return a request as text, without secrets and without the bytes of files.

    Args:
        request: as it would be sent.
        more: lines to show among the headers as they are.
    """
    shown = {**safe_headers(request.wire_headers(), request.secret_headers), **(more or {})}
    head = "\n".join(f"{name}: {value}" for name, value in sorted(shown.items()))
    return f"{request.method} {request.url}\n{head}\n\n{_body(request)}\n"


def _body(request: HttpRequest) -> str:
    if not isinstance(request.body, MultipartBody):
        return b"".join(request.body.blocks()).decode("utf-8")
    lines = []
    for part in request.body.parts:
        if isinstance(part, Field):
            lines.append(f"{part.name} = {json.dumps(part.value, ensure_ascii=False)}")
        else:
            content = part.content
            lines.append(
                f"{part.name} = <{part.filename}, {part.media_type}, {content.length} bytes, "
                f"sha256 {content.sha256}>"
            )
    return "\n".join(lines)
