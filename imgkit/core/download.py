"""Downloads: fetch an image from an untrusted result URL."""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from imgkit.core.core import Core
from imgkit.core.interception import can_answer_locally
from imgkit.errors import (
    DownloadBlockedError,
    DownloadError,
    ImgkitError,
    LinkExpiredError,
    NotSentError,
    TransportError,
)
from imgkit.images.sniff import has_end, sniff
from imgkit.redact import safe_url, scrub
from imgkit.runtime.flow import Flow, read_chunk, send_request, sleep
from imgkit.wire.addresses import BLOCKED_HINT
from imgkit.wire.headers import LONGEST_RETRY_AFTER_S, retry_after_s
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.urls import can_be_host, is_loopback, join_url, origin

MAX_REDIRECTS = 3
PAUSES_S = (0.5, 1.0, 2.0)
"""Longest pauses before the second, third and fourth attempt, in seconds; jitter halves them at most."""

REASON_BYTES = 16 * 1024
"""Part of a store's error reply that is read."""

_HEADERS = {"accept": "image/*", "accept-encoding": "identity"}
_SAVE_HINT = "Pass save_to=… to download with the call."
_RETRY_HINT = "It exists: try image.data or service.download(image) again before its link expires."


class FailedAttempt(NamedTuple):
    """A failure that another attempt may mend.

    Attributes:
        problem: the failure, a sentence.
        wait_s: the pause that the server asks for, None if it asks for none.
        body: the received bytes of an image that was cut off.
    """

    problem: str
    wait_s: float | None = None
    body: bytes = b""


Signer: TypeAlias = Callable[[HttpRequest], Flow[HttpRequest]]
"""Adds credentials to a request."""


def fetch_image(core: Core, url: str, deadline: float, sign: Signer | None = None) -> Flow[bytes]:
    """Return the bytes of the image at a result URL, as `_fetch_image` does.

    No error shows a key that the server has put into the URL.
    """
    flow = _fetch_image(core, url, deadline, sign)
    del url  # tracebacks may show local variables
    try:
        return (yield from flow)
    except ImgkitError as error:
        core.sent.all.clean_error(error)
        # The frames below hold the URL, which grants access.
        error.__traceback__ = None
        raise


def _fetch_image(core: Core, url: str, deadline: float, sign: Signer | None) -> Flow[bytes]:
    """Return the bytes of the image at a result URL.

    imgkit fetches https URLs whose connected peer is globally routable, URLs of the API's own origin, of
    this machine if the API is on it, and of `download_origins`. It sends no key, no cookie, and uses no
    proxy of the environment. Every redirect (at most three) passes the same checks.

    A download costs nothing. So imgkit makes up to four attempts if the connection fails, the image is
    cut off, or the server answers 408, 429 or 5xx.

    Args:
        core: parts of the service.
        url: the URL that a reply named.
        deadline: end of the call in monotonic seconds.
        sign: adds credentials at the API's own origin, and nowhere else; None for no credentials.

    Raises:
        DownloadBlockedError: the URL is not allowed; nothing was sent to it.
        LinkExpiredError: the URL is no longer served.
        DownloadError: the download failed in any other way.
    """
    number = 1
    while True:
        result = yield from _fetch_once(core, url, sign)
        if isinstance(result, bytes):
            return result
        wait_s = _choose_wait_s(core, result, number, deadline)
        if wait_s is None:
            raise _to_error(result, number)
        yield from sleep(wait_s)
        number += 1


def _to_error(failure: FailedAttempt, number: int) -> DownloadError:
    wait = f" The server asks to wait {failure.wait_s:g} s." if failure.wait_s else ""
    tries = f" imgkit tried {number} times." if number > 1 else ""
    error = DownloadError(f"{failure.problem}{wait}{tries}", hint=_RETRY_HINT)
    error.body = failure.body
    return error


def _choose_wait_s(core: Core, failure: FailedAttempt, number: int, deadline: float) -> float | None:
    """Return the pause after a failed attempt, None to give up."""
    if number > len(PAUSES_S):
        return None
    wait_s = failure.wait_s
    if wait_s is None:
        wait_s = PAUSES_S[number - 1] * (0.5 + random.random() / 2)
    if wait_s > LONGEST_RETRY_AFTER_S or time.monotonic() + wait_s >= deadline:
        return None
    # A recorded pause has passed.
    return 0.0 if core.target.host_class == "offline" else wait_s


def _fetch_once(core: Core, url: str, sign: Signer | None) -> Flow[bytes | FailedAttempt]:
    """Make one attempt, redirects included."""
    from imgkit.core.store_errors import find_query_secrets  # only downloads load it

    secrets = find_query_secrets(url)
    from_public = False
    for _ in range(MAX_REDIRECTS + 1):
        request = build_download_request(core, url, from_public=from_public)
        if sign is not None and origin(url) == origin(core.target.base_url):
            request = yield from sign(request)
        try:
            head = yield from send_request(request)
            if 300 <= head.status < 400 and head.headers.get("location"):
                url = _join_location(url, head.headers["location"])
                secrets = (*secrets, *find_query_secrets(url))
                from_public = from_public or request.public_peer_only
                continue
            if head.status != 200:
                return (yield from _read_refusal(core, url, head, secrets))
            return (yield from _read_image(core, url, head, secrets))
        except DownloadBlockedError as error:
            raise _blocked_error(error.problem, url) from None
        except TransportError as error:
            problem = (
                f"The image at {safe_url(url)} could not be fetched "
                f"({scrub(_extract_reason(error), secrets, limit=200)})."
            )
            if isinstance(error, NotSentError) and error.permanent:
                raise DownloadError(problem, hint=_RETRY_HINT) from None
            return FailedAttempt(problem)
    raise DownloadError(f"{safe_url(url)} redirects more than {MAX_REDIRECTS} times.")


def build_download_request(core: Core, url: str, *, from_public: bool = False) -> HttpRequest:
    """Return the request for an allowed URL.

    Args:
        core: parts of the service.
        url: the URL.
        from_public: a server of the public internet redirects to it, which must not reach this machine.

    Raises:
        DownloadBlockedError: the URL is not allowed; no name was looked up.
    """
    place, own = _parse_origin(url), origin(core.target.base_url)
    if place is not None:
        is_local = place[0] == own[0] and is_loopback(place[1]) and is_loopback(own[1])
        is_trusted = place == own or place in core.download_origins or (is_local and not from_public)
        is_public = place[0] == "https" and place[2] in (443, own[2])
        is_offline = core.target.host_class == "offline"
        request = HttpRequest("GET", url.partition("#")[0], _HEADERS, public_peer_only=not is_trusted)
        is_allowed = is_trusted or (core.fetches_anywhere and (is_public or is_offline))
        if is_allowed or can_answer_locally(request):
            return request
    why = (
        "This backend cannot check the address it connects to, so it fetches only from the API's origin"
        if place is not None and place[0] == "https" and not core.fetches_anywhere
        else "imgkit fetches https URLs at the port 443 or the API's own, and URLs of the API's own origin"
    )
    raise _blocked_error(f"{safe_url(url)} is not fetched. {why}.", url)


def _blocked_error(problem: str, url: str) -> DownloadBlockedError:
    """Return the error for a URL that is not fetched. Its hint names the origin that the caller may trust."""
    place = _parse_origin(url)
    if place is None:
        return DownloadBlockedError(problem, hint=BLOCKED_HINT)
    text = "{}://{}".format(*urlsplit(url)[:2])
    hint = BLOCKED_HINT.replace("download_origins=[…] with its origin", f'download_origins=["{text}"]')
    error = DownloadBlockedError(problem, hint=hint)
    error.origin = text
    return error


def _parse_origin(url: str) -> tuple[str, str, int] | None:
    """Return the origin of a well-formed http(s) URL without a user, None for any other text."""
    if not re.fullmatch(r"https?://[A-Za-z0-9.\-_:\[\]]+([/?#][!-~]*)?", url) or re.search(
        r'[\\"<>^`{|}]', url
    ):
        return None
    try:
        return origin(url) if can_be_host(urlsplit(url).hostname) else None
    except ValueError:
        return None  # the port is no number


def _join_location(url: str, location: str) -> str:
    try:
        return join_url(url, location)
    except ValueError:
        raise DownloadError(f"{safe_url(url)} redirects to an invalid URL.") from None


def _extract_reason(error: TransportError) -> str:
    """Return the reason of a failure, without the words about paid requests: a download is free."""
    return (error.reason or str(error)).rstrip(".")


def _read_refusal(core: Core, url: str, head: Head, secrets: tuple[str, ...]) -> Flow[FailedAttempt]:
    """Read an error reply of the store, and tell its reason.

    Raises:
        LinkExpiredError: the store no longer serves the URL.
        DownloadError: the store refuses it for another reason.
    """
    from imgkit.core.store_errors import find_past_expiry, read_reason, says_expired

    reason = read_reason(core.sent.all.clean_bytes((yield from _read_start())))
    quoted = scrub(reason, secrets, limit=400).rstrip(". ")
    answer = f"HTTP {head.status}: {quoted}" if quoted else f"HTTP {head.status}"
    if head.status >= 500 or head.status in (408, 429):
        return FailedAttempt(f"{safe_url(url)} answered {answer}.", retry_after_s(head.headers))
    expiry = find_past_expiry(url)
    never_again = "imgkit does not generate the image again."
    if says_expired(reason) or (expiry is not None and head.status in (400, 401, 403, 404, 410)):
        until = "" if expiry is None else f" It was valid until {expiry:%Y-%m-%d %H:%M:%S} UTC."
        raise LinkExpiredError(
            f"The link {safe_url(url)} has expired ({answer}).{until} {never_again}", hint=_SAVE_HINT
        )
    if head.status in (404, 410):
        raise LinkExpiredError(f"{safe_url(url)} is not served ({answer}). {never_again}", hint=_SAVE_HINT)
    if head.status == 403 and not reason:
        raise LinkExpiredError(
            f"The server refuses {safe_url(url)} ({answer}) and gives no reason. {never_again}",
            hint=_SAVE_HINT,
        )
    raise DownloadError(
        f"{safe_url(url)} answered {answer}.", hint='Ask for the image itself: response_format="b64_json".'
    )


def _read_start() -> Flow[bytes]:
    """Return the beginning of an error reply; its status counts even if the connection breaks."""
    body = b""
    try:
        while len(body) < REASON_BYTES and (chunk := (yield from read_chunk())):
            body += chunk
    except TransportError:
        return body
    return body


def _read_image(core: Core, url: str, head: Head, secrets: tuple[str, ...]) -> Flow[bytes | FailedAttempt]:
    data = io.BytesIO()  # its value is not a copy, unlike that of a bytearray
    limit = core.limits.max_download_bytes
    length = head.headers.get("content-length", "")
    too_long = length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit)
    while not too_long and (chunk := (yield from read_chunk())):
        data.write(chunk)
        too_long = data.tell() > limit
    if too_long:
        raise DownloadError(
            f"{safe_url(url)} exceeds {limit} bytes.",
            hint="Raise max_download_bytes to fetch it.",
            field="max_download_bytes",
        )
    content = data.getvalue()
    if length.isascii() and length.isdigit() and len(content) < int(length):
        problem = f"{safe_url(url)} ended after {len(content)} of {length} bytes."
        return FailedAttempt(problem, body=content)
    if not content:
        return FailedAttempt(f"{safe_url(url)} sent no bytes.")
    kind = sniff(content[:1024])
    if kind is None:
        from imgkit.core.store_errors import read_reason

        content = core.sent.all.clean_bytes(content[:REASON_BYTES])
        start = scrub(read_reason(content), secrets, limit=200)
        shown = start or scrub(content[:300].decode("utf-8", "replace"), secrets, limit=200)
        raise DownloadError(f"{safe_url(url)} holds no image but {shown!r}.")
    if not has_end(kind, len(content), lambda size, position: content[position : position + size]):
        problem = f"The image at {safe_url(url)} is cut off after {len(content)} bytes."
        return FailedAttempt(problem, body=content)
    return content
