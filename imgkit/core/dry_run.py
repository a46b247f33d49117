"""Dry runs: the request of a call as text, without sending it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

from imgkit.core.core import Core
from imgkit.core.operations import OperationFlows
from imgkit.errors import ConfigurationError, ImgkitError, MissingKeyError
from imgkit.plugins.resources import PluginResources
from imgkit.providers.base import find_credentials
from imgkit.redact import hide_json_members, hide_members, safe_headers
from imgkit.runtime.flow import EffectFailed, Finished, Flow, RunBlocking, RunParallel, SendRequest, advance
from imgkit.wire.messages import HttpRequest
from imgkit.wire.multipart import Field, MultipartBody
from imgkit.wire.plain_values import show_value, to_text

OPERATIONS = (
    "create_image",
    "create_image_edit",
    "create_image_variation",
    "stream_image",
    "stream_image_edit",
)


def describe_call(core: Core, operation: str, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """Return the request that a call would send, as text.

    The flow of the call is stepped up to its first request. Plugins change the request as they would.

    Args:
        core: parts of the service.
        operation: name of the method, such as "create_image".
        args, kwargs: arguments of the call.

    Raises:
        ConfigurationError: there is no such operation, or the call would send nothing.
        ImgkitError: as the call itself would raise it before sending.
    """
    if to_text(operation) not in OPERATIONS:
        raise ConfigurationError(
            f"Unknown operation {show_value(operation)}. Available: {', '.join(OPERATIONS)}."
        )
    # The call uses no observers, no cache, no ledgers and no records of jobs: nothing happens.
    core = core._replace(
        table=replace(core.table, observers=()),
        resources=PluginResources(),
        settings=replace(core.settings, state_folder=None),
    )
    try:
        return _describe_requests(*_find_first_request(core, operation, args, kwargs))
    except MissingKeyError:
        unsigned = core._replace(table=replace(core.table, authenticates=()))
        request, count = _find_first_request(unsigned, operation, args, kwargs)
        return _describe_requests(request, count, {_key_header(core): "(no key was found)"})


def _key_header(core: Core) -> str:
    """Return the name of the header that carries ``api_key=``."""
    credentials, key_variable = find_credentials(core.provider, core.target)
    return next(credential.header for credential in credentials if credential.variable == key_variable)


def _describe_requests(
    request: HttpRequest, count: int, extra_headers: Mapping[str, str] | None = None
) -> str:
    others = f"\n({count} such requests, for all images of the call)\n" if count > 1 else ""
    return describe_request(request, extra_headers) + others


def _find_first_request(
    core: Core, operation: str, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[HttpRequest, int]:
    """Step a call up to its first request. Return it and the number of such requests."""
    # The use of a cache is no part of the request.
    arguments = {name: value for name, value in kwargs.items() if name != "cache"}
    return _step_to_request(getattr(OperationFlows(core), operation)(*args, **arguments))


def _step_to_request(flow: Flow[object]) -> tuple[HttpRequest, int]:
    result: object = None
    try:
        while True:
            match advance(flow, result):
                case SendRequest(request) if request.method == "GET":
                    raise ConfigurationError(
                        "An input image is still at its URL.", hint="Call service.download(image) first."
                    )
                case SendRequest(request):
                    return request, 1
                case RunBlocking(fn, _):
                    try:
                        result = fn()
                    except ImgkitError as error:
                        result = EffectFailed(error)
                case RunParallel(flows, _, first_ends_all):
                    request, count = _step_to_request(flows[0])
                    return request, count if first_ends_all else len(flows)
                case Finished():
                    raise ConfigurationError("The call would send nothing.")
                case effect:
                    raise ConfigurationError(
                        f"The request cannot be shown without sending it: {type(effect).__name__}."
                    )
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a job that this call names will never be sent
            flow.close()


def describe_request(request: HttpRequest, extra_headers: Mapping[str, str] | None = None) -> str:
    """Return a request as text, without secrets and without the bytes of files.

    Args:
        request: as it would be sent.
        extra_headers: headers to show unchanged.
    """
    shown = {**safe_headers(request.wire_headers(), request.secret_headers), **(extra_headers or {})}
    head = "\n".join(f"{name}: {value}" for name, value in sorted(shown.items()))
    return f"{request.method} {request.url}\n{head}\n\n{_describe_body(request)}\n"


def _describe_body(request: HttpRequest) -> str:
    if not isinstance(request.body, MultipartBody):
        return hide_json_members(b"".join(request.body.blocks()).decode("utf-8"))
    lines = []
    for part in request.body.parts:
        if isinstance(part, Field):
            value = hide_members(part.value, part.name)
            lines.append(f"{part.name} = {json.dumps(hide_json_members(value), ensure_ascii=False)}")
        else:
            content = part.content
            lines.append(
                f"{part.name} = <{part.filename}, {part.media_type}, {content.length} bytes, "
                f"sha256 {content.sha256}>"
            )
    return "\n".join(lines)
