"""Calls of a provider's methods: a bug in one of them ends the call with an error of imgkit."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, TypeVar

from imgkit.errors import (
    ApiError,
    EmptyResultError,
    ImgkitError,
    OutcomeUnknownError,
    PluginError,
    ServerError,
    StreamError,
    UnreadableReplyError,
)
from imgkit.models import Cost, Estimate, ImageRequest, Operation, Usage
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.table import PluginSource, describe_error
from imgkit.providers.base import (
    DecodedImage,
    DecodedImages,
    DecodedPartialImage,
    MaskPolarity,
    Provider,
    ReplyBody,
    Target,
)
from imgkit.providers.job_values import JobUpdate, Upload
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.plain_values import show_value
from imgkit.wire.urls import origin

if TYPE_CHECKING:
    from imgkit.core.core import Core

T = TypeVar("T")

_BLANK = re.compile(r"[\x00-\x20\x7f]")
_LINE_END = re.compile(r"[\r\n\0]")

_RESULTS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("encode", "encode_stream", "add_handle", "poll", "price_request"), HttpRequest),
    **dict.fromkeys(("find_lost", "cancel_job", "progress"), (HttpRequest, NoneType)),
    "next_upload": (Upload, NoneType),
    "submit_handle": (Mapping, NoneType),
    "decode_price": Estimate,
}
"""The types that methods return; others return anything."""


def call_before_sending(core: Core, name: str, method: Callable[[], T]) -> T:
    """Call a method that runs before anything is sent: ``check``, ``encode`` or ``encode_stream``.

    Args:
        core: parts of the service.
        name: name of the method.
        method: the method with its arguments.

    Raises:
        ImgkitError: raised by the method.
        PluginError: the method raised another exception; nothing was sent.
    """
    return _call_provider(core, name, method, "Nothing was sent.")


def list_fields(provider: Provider, operation: Operation, target: Target) -> Collection[str] | None:
    """Return the fields that a server takes for an operation; None if it may take any.

    A provider that does not derive from `BaseProvider` refuses fields by itself.
    """
    method = getattr(provider, "list_fields", None)
    fields: Collection[str] | None = None if method is None else method(operation, target)
    return fields


def choose_model(provider: Provider, request: ImageRequest) -> str | None:
    """Return the model that a provider chooses for a request without one, None if its server chooses."""
    method = getattr(provider, "choose_model", None)
    name: str | None = None if method is None else method(request)
    return name


def find_mask_polarity(core: Core, request: ImageRequest) -> MaskPolarity:
    """Return the pixels of a request's mask that its endpoint changes.

    A provider that does not derive from `BaseProvider` has the same for all endpoints.

    Raises:
        PluginError: the provider failed; nothing was sent.
    """
    provider = core.provider
    choose: Callable[[ImageRequest, Target], MaskPolarity] | None
    choose = getattr(provider, "choose_mask_polarity", None)
    if choose is None:
        return provider.mask_polarity
    return call_before_sending(core, "choose_mask_polarity", partial(choose, request, core.target))


def call_for_job(core: Core, name: str, method: Callable[[], T]) -> T:
    """Call a method about an accepted job, such as ``poll`` or ``decode_poll``. The job goes on.

    Args:
        core, name, method: as for `call_before_sending`.

    Raises:
        ImgkitError: raised by the method.
        PluginError: the method raised another exception, or returned a result of a wrong type.
    """
    return _call_provider(core, name, method, "The state of the job may be damaged.")


def _call_provider(core: Core, name: str, method: Callable[[], T], consequence: str) -> T:
    try:
        result = method()
        if name == "decode_poll":
            check_decoded(result)
        elif name == "decode_progress":
            _check_progress(result)
        elif not isinstance(result, _RESULTS.get(name, object)):
            raise TypeError(f"it returned a {type(result).__name__}")
        if isinstance(result, HttpRequest | Upload):
            _check_http_request(result if isinstance(result, HttpRequest) else result.request)
        return result
    except ImgkitError:
        raise
    except Exception as error:
        origin = find_origin(core)
        raise PluginError(
            f"{_name_provider(core)} failed in {name}() ({describe_error(error)}). {consequence} Report "
            "it to the provider's author.",
            plugin=origin.plugin if origin else core.provider_name,
            distribution=origin.distribution if origin else "",
            hook="imgkit_providers",
        ) from error


def _check_http_request(request: HttpRequest) -> None:
    """Raise a TypeError or a ValueError for a request that no backend can send as it is.

    The address of a poll often comes from a server. No message shows it: it may be signed.
    """
    if request.method not in ("GET", "POST", "PUT", "DELETE"):
        raise ValueError(f"its request has the method {show_value(request.method)}")
    url = request.url
    if not isinstance(url, str) or _BLANK.search(url) or not request.path_and_query.isascii():
        raise ValueError("the URL of its request is no text, or is not quoted")
    scheme, host, _ = origin(url)  # raises a ValueError for a broken host or port
    if scheme not in ("http", "https") or not host:
        raise ValueError("the URL of its request is not absolute, or no http or https URL")
    for name, value in request.headers.items():
        if not isinstance(name, str) or not isinstance(value, str) or _LINE_END.search(value):
            raise ValueError(f"the header {show_value(name)} of its request is no text, or has a line break")


def call_decode(
    core: Core,
    name: str,
    method: Callable[[], T],
    head: Head,
    body: ReplyBody,
    secrets: tuple[Secret, ...],
) -> T:
    """Call ``decode`` or ``decode_event`` on a paid reply, under `guard_decode`."""
    with guard_decode(core, name, head, body, secrets):
        result = method()
        # An event may hold nothing of interest.
        if result is not None or name == "decode":
            check_decoded(result, is_event=name != "decode")
        return result


@contextmanager
def guard_decode(
    core: Core, name: str, head: Head, body: ReplyBody, secrets: tuple[Secret, ...]
) -> Iterator[None]:
    """Turn any exception of a provider that decodes a paid reply into an error with the reply.

    Args:
        core: parts of the service.
        name: name of the provider's method.
        head: status and headers of the reply.
        body: the reply or the event.
        secrets: strings that must not appear in an error.

    Raises:
        ApiError, ReceivedReply: raised by the method; an `ApiError` has the beginning of the reply as its
            ``body``.
        UnreadableReplyError: the method raised another exception.
    """
    try:
        yield
    except ApiError as error:
        keep_body(error, body.raw(), secrets)
        raise
    except (EmptyResultError, OutcomeUnknownError, StreamError, UnreadableReplyError):
        raise
    except Exception as error:  # an error that says that nothing was sent would have the request repeated
        marks = f"{body.length} bytes, request id {head.request_id or 'not given'}"
        raise UnreadableReplyError(
            f"{_name_provider(core)} failed in {name}() on HTTP {head.status} ({describe_error(error)}; "
            f"{marks}). The call may have been billed.",
            hint="error.body holds the reply. Report it to the provider's author.",
            request_id=head.request_id,
            body=body.raw(),
        ) from error


def check_decoded(result: object, *, is_event: bool = False) -> None:
    """Raise a TypeError for a result of another type than those that providers return.

    Args:
        result: the result of a provider's method.
        is_event: it decoded an event, which may hold a partial image.
    """
    if isinstance(result, DecodedPartialImage if is_event else JobUpdate):
        if isinstance(result, JobUpdate):
            _check_update(result)
        return
    if not isinstance(result, DecodedImages):
        raise TypeError(f"it returned a {type(result).__name__} in place of DecodedImages")
    if not isinstance(result.pictures, tuple):
        raise TypeError(f"pictures is a {type(result.pictures).__name__} in place of a tuple")
    for image in result.pictures:
        if not isinstance(image, DecodedImage):
            raise TypeError(f"pictures holds a {type(image).__name__} in place of a DecodedImage")
        if not isinstance(image.data, bytes | None) or not isinstance(image.url, str | None):
            raise TypeError("a DecodedImage has data that are no bytes, or a url that is no text")
        if image.data is None and image.url is None and image.source is None:
            raise TypeError("a DecodedImage has neither data, nor a url, nor a source")
    if not isinstance(result.usage, Usage | None):
        raise TypeError(f"usage is a {type(result.usage).__name__} in place of a Usage")


def _check_progress(result: object) -> None:
    """Raise a TypeError for a result of ``decode_progress`` that is no news."""
    if not isinstance(result, JobUpdate):
        raise TypeError(f"it returned a {type(result).__name__} in place of a JobUpdate")
    _check_update(result)


def ensure_images(decoded: DecodedImages, head: Head, body: ReplyBody, secrets: tuple[Secret, ...]) -> None:
    """Raise an `EmptyResultError` for a success reply in which the provider has found no image."""
    if decoded.pictures == ():
        from imgkit.providers.unusual_replies import empty_result_error

        raise empty_result_error(head, body, secrets)


def _check_update(update: JobUpdate) -> None:
    """Raise a TypeError for news of a job with values of other types than it declares."""
    number = (int, float, NoneType)
    types: dict[str, type | tuple[type, ...]] = {
        "state": Mapping, "poll_after_s": number, "progress": number, "note": str,
        "preview": (bytes, NoneType), "cost": (Cost, NoneType), "expires_at": number,
    }  # fmt: skip
    for name, kind in types.items():
        value = getattr(update, name)
        if not isinstance(value, kind) or value != value:  # NaN
            raise TypeError(f"{name} of its JobUpdate is {type(value).__name__} {show_value(value)}")


def to_reply_error(core: Core, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
    """Return the error for a reply outside 2xx: a 5xx is free only by the provider's rule.

    A reply with images is never free, whatever its status and code; the error has them. If a method of the
    provider fails, the rule of imgkit's own dialects chooses the class, and no 5xx is free.
    """
    from imgkit.core.cut_replies import attach_images_of_failure, find_results  # only failures need it

    provider, results = core.provider, find_results(body)
    try:
        error = provider.error(head, body, secrets)
        if not isinstance(error, ImgkitError):
            raise TypeError(f"error() returned a {type(error).__name__}")
        # A provider of another base class may lack the rule.
        rule = getattr(provider, "failure_is_free", None)
        is_free = head.status < 500 or error.maybe_billed or (rule is not None and rule(head, body))
        if results and isinstance(error, ServerError) and error.status >= 500:
            is_free = False
        note = ""
    except Exception as bug:
        is_free, note = False, f"{_name_provider(core)} failed to read this reply ({describe_error(bug)})."
    if not is_free or note:
        from imgkit.providers.error_replies import error_from_reply

        error = error_from_reply(head, body, secrets, is_free=False)
    if note:
        error.add_note(note)
    attach_images_of_failure(error, results)
    keep_body(error, body, secrets)
    return error


def keep_body(error: ImgkitError, body: bytes, secrets: tuple[Secret, ...]) -> None:
    """Give an error the beginning of its reply, unless it has one."""
    if isinstance(error, ApiError | OutcomeUnknownError) and not error.body:
        from imgkit.providers.error_facts import trim_body

        error.body = trim_body(body, secrets)


def find_origin(core: Core) -> PluginSource | None:
    """Return the plugin that supplies the provider of a service, None for an object of the caller."""
    named = core.table.specs_by_name(ProviderSpec).get(core.provider_name)
    return None if named is None else named.origin


def _name_provider(core: Core) -> str:
    origin = find_origin(core)
    whence = "" if origin is None or origin.is_own else f" of {origin}"
    return f"Provider {core.provider_name!r}{whence}"
