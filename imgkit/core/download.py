"""Fetching a picture from the URL that a reply named: a place that nobody vouches for."""

from __future__ import annotations

import io
import re
from urllib.parse import urljoin, urlsplit

from imgkit.core.core import Core
from imgkit.errors import DownloadBlockedError, DownloadError, LinkExpiredError, TransportError
from imgkit.images.sniff import sniff
from imgkit.redact import safe_url, scrub
from imgkit.runtime.flow import Flow, ReadChunk, SendRequest
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.urls import can_be_host, origin

MOST_REDIRECTS = 3
_GONE = (403, 404, 410)
_HEADERS = {"accept": "image/*", "accept-encoding": "identity"}


def fetch_image(core: Core, url: str) -> Flow[bytes]:
    """Return the picture at `url`.

    Fetched are https URLs whose connected peer is globally routable, and URLs of the API's own
    origin. No key, cookie or proxy of the environment goes along; each of at most three redirects is
    judged anew.

    Raises:
        DownloadBlockedError: not such a URL; nothing was sent to it.
        LinkExpiredError: no longer served.
        DownloadError: anything else that went wrong.
    """
    for _ in range(MOST_REDIRECTS + 1):
        request = build_download_request(core, url)
        try:
            head: Head = yield SendRequest(request)
            if 300 <= head.status < 400 and head.headers.get("location"):
                url = _next_hop(url, head.headers["location"])
                continue
            return (yield from _picture(core, url, head))
        except TransportError as error:
            raise DownloadError(
                f"the picture at {safe_url(url)} could not be fetched ({scrub(str(error), limit=200)}). It "
                "exists: try image.data or service.download(image) again before its link expires"
            ) from None
    raise DownloadError(f"{safe_url(url)}: more than {MOST_REDIRECTS} redirects")


def build_download_request(core: Core, url: str) -> HttpRequest:
    """Return the request for a URL that may be fetched.

    Raises:
        DownloadBlockedError: before any name is looked up.
    """
    own = False
    if re.fullmatch(r"https?://[A-Za-z0-9.\-_:\[\]]+([/?#][!-~]*)?", url) and not re.search(
        r'[\\"<>^`{|}]', url
    ):
        try:
            parts = urlsplit(url)
            own = origin(url) == origin(core.target.base_url)
            fit = parts.scheme == "https" or core.target.host_class == "offline"
            if can_be_host(parts.hostname) and (own or (fit and core.fetches_anywhere)):
                return HttpRequest("GET", url.partition("#")[0], _HEADERS, public_peer_only=not own)
        except ValueError:
            pass  # a port that is no number: blocked like the rest
    why = (
        "this backend cannot check where it connects to, so it fetches from the API's own origin only"
        if url.startswith("https://") and not core.fetches_anywhere
        else "only https URLs, and those of the API's own origin, are fetched"
    )
    raise DownloadBlockedError(
        f"{safe_url(url)} is not fetched: {why}. The URL is in image.url; or ask for "
        "response_format='b64_json'"
    )


def _next_hop(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise DownloadError(f"{safe_url(url)} redirects to something that is no URL") from None


def _picture(core: Core, url: str, head: Head) -> Flow[bytes]:
    if head.status in _GONE:
        raise LinkExpiredError(
            f"{safe_url(url)} is not served any more (HTTP {head.status}): links to results live for about "
            "an hour. The picture is not generated again by itself; use save_to=… to fetch at once"
        )
    if head.status != 200:
        raise DownloadError(f"{safe_url(url)} answered HTTP {head.status}: try again")
    data = io.BytesIO()  # not a bytearray: what it returns is its own memory, not a copy
    limit = core.limits.max_download_bytes
    length = head.headers.get("content-length", "")
    too_long = length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit)
    while not too_long and (chunk := (yield ReadChunk())):
        data.write(chunk)
        too_long = data.tell() > limit
    if too_long:
        raise DownloadError(f"{safe_url(url)} is over {limit} bytes: raise max_download_bytes to fetch it")
    if length.isascii() and length.isdigit() and data.tell() < int(length):
        raise DownloadError(f"{safe_url(url)} ended after {data.tell()} of {length} bytes: try again")
    content = data.getvalue()
    if sniff(content[:1024]) is None:
        start = scrub(content[:300].decode("utf-8", "replace"), limit=200)
        raise DownloadError(f"{safe_url(url)} is no picture but {start!r}")
    return content
