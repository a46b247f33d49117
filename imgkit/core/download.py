"""Downloads: fetch an image from an untrusted result URL."""

from __future__ import annotations

import io
import re
from urllib.parse import urljoin, urlsplit

from imgkit.core.core import Core
from imgkit.errors import DownloadBlockedError, DownloadError, LinkExpiredError, TransportError
from imgkit.images.sniff import sniff
from imgkit.redact import safe_url, scrub
from imgkit.runtime.flow import Flow, ReadChunk, send_request
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.urls import can_be_host, origin

MAX_REDIRECTS = 3
_EXPIRED_STATUSES = (403, 404, 410)
_HEADERS = {"accept": "image/*", "accept-encoding": "identity"}


def fetch_image(core: Core, url: str) -> Flow[bytes]:
    """Return the bytes of the image at a result URL.

    imgkit fetches https URLs whose connected peer is globally routable, and URLs of the API's own origin.
    It sends no key, no cookie, and uses no proxy of the environment. Every redirect (at most three) passes
    the same checks.

    Args:
        core: parts of the service.
        url: the URL that a reply named.

    Raises:
        DownloadBlockedError: the URL is not allowed; nothing was sent to it.
        LinkExpiredError: the URL is no longer served.
        DownloadError: the download failed in any other way.
    """
    for _ in range(MAX_REDIRECTS + 1):
        request = build_download_request(core, url)
        try:
            head = yield from send_request(request)
            if 300 <= head.status < 400 and head.headers.get("location"):
                url = _join_location(url, head.headers["location"])
                continue
            return (yield from _read_image(core, url, head))
        except TransportError as error:
            raise DownloadError(
                f"The image at {safe_url(url)} could not be fetched ({scrub(str(error), limit=200)}).",
                hint="It exists: try image.data or service.download(image) again before its link expires.",
            ) from None
    raise DownloadError(f"{safe_url(url)} redirects more than {MAX_REDIRECTS} times.")


def build_download_request(core: Core, url: str) -> HttpRequest:
    """Return the request for an allowed URL.

    Raises:
        DownloadBlockedError: the URL is not allowed; no name was looked up.
    """
    is_own = False
    if re.fullmatch(r"https?://[A-Za-z0-9.\-_:\[\]]+([/?#][!-~]*)?", url) and not re.search(
        r'[\\"<>^`{|}]', url
    ):
        try:
            parts = urlsplit(url)
            is_own = origin(url) == origin(core.target.base_url)
            is_allowed = parts.scheme == "https" or core.target.host_class == "offline"
            if can_be_host(parts.hostname) and (is_own or (is_allowed and core.fetches_anywhere)):
                return HttpRequest("GET", url.partition("#")[0], _HEADERS, public_peer_only=not is_own)
        except ValueError:
            pass  # the port is no number: refused below
    why = (
        "This backend cannot check the address it connects to, so it fetches only from the API's origin"
        if url.startswith("https://") and not core.fetches_anywhere
        else "imgkit fetches https URLs, and URLs of the API's own origin"
    )
    raise DownloadBlockedError(
        f"{safe_url(url)} is not fetched. {why}.",
        hint='The URL is in image.url; or pass response_format="b64_json".',
    )


def _join_location(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise DownloadError(f"{safe_url(url)} redirects to an invalid URL.") from None


def _read_image(core: Core, url: str, head: Head) -> Flow[bytes]:
    if head.status in _EXPIRED_STATUSES:
        raise LinkExpiredError(
            f"{safe_url(url)} is no longer served (HTTP {head.status}). Links to results live for about an "
            "hour. imgkit does not generate the image again.",
            hint="Pass save_to=… to download with the call.",
        )
    if head.status != 200:
        raise DownloadError(f"{safe_url(url)} answered HTTP {head.status}. Try again.")
    data = io.BytesIO()  # its value is not a copy, unlike that of a bytearray
    limit = core.limits.max_download_bytes
    length = head.headers.get("content-length", "")
    too_long = length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit)
    while not too_long and (chunk := (yield ReadChunk())):
        data.write(chunk)
        too_long = data.tell() > limit
    if too_long:
        raise DownloadError(
            f"{safe_url(url)} exceeds {limit} bytes.",
            hint="Raise max_download_bytes to fetch it.",
            field="max_download_bytes",
        )
    if length.isascii() and length.isdigit() and data.tell() < int(length):
        raise DownloadError(f"{safe_url(url)} ended after {data.tell()} of {length} bytes. Try again.")
    content = data.getvalue()
    if sniff(content[:1024]) is None:
        start = scrub(content[:300].decode("utf-8", "replace"), limit=200)
        raise DownloadError(f"{safe_url(url)} holds no image but {start!r}.")
    return content
