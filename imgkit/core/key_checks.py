"""Checks of keys before anything is sent: whether a service can sign its requests."""

from __future__ import annotations

import uuid

from imgkit.core.core import Core
from imgkit.errors import ImgkitError, MissingKeyError
from imgkit.models import ImageRequest, Operation
from imgkit.plugins.events import Call
from imgkit.plugins.tokens import TokenNeeded
from imgkit.wire.messages import HttpRequest


def has_key(core: Core) -> bool:
    """Return whether a key is at hand, without a fetch, or none is needed. May block.

    Raises:
        ConfigurationError: the key cannot be used.
    """
    try:
        signed = core.table.authenticate(_to_host(core), build_check_call(core))
    except MissingKeyError:
        return False
    return not isinstance(signed, TokenNeeded)


def find_key_error(core: Core) -> ImgkitError | None:
    """Return why requests cannot be signed; None if they can, or if their key is fetched first. May block."""
    try:
        core.table.authenticate(_to_host(core), build_check_call(core))
    except ImgkitError as error:
        return error
    return None


def sign_request(core: Core, request: ImageRequest) -> None:
    """Sign a request as its call would, with the headers that plugins add. May block.

    Raises:
        MissingKeyError: there is no key.
        ImgkitError: the key cannot be used, or fetched.
    """
    call = build_check_call(core, request.operation)
    prepared = core.table.prepare(request, call)
    headers = {name.lower(): value for name, value in (prepared.extra_headers or {}).items() if value}
    sent = core.table.before_send(_to_host(core).with_headers(headers), call)
    signed = core.table.authenticate(sent, call)
    if isinstance(signed, TokenNeeded):
        signed.fetch()


def build_check_call(core: Core, operation: Operation = "create_image") -> Call:
    """Return a call for hooks that sign a request. No observer sees it.

    Args:
        core: parts of the service.
        operation: the operation that the key is for.
    """
    return Call(
        id=uuid.uuid4().hex,
        operation=operation,
        backend=core.backend_name,
        provider=core.provider_name,
        base_url=core.target.base_url,
        host_class=core.target.host_class,
        timeout_s=core.limits.timeout_s,
    )


def _to_host(core: Core) -> HttpRequest:
    return HttpRequest("POST", core.target.base_url)
