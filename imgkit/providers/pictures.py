"""Pictures in the entries of a reply, and what is wrong with those that cannot be read."""

from __future__ import annotations

from urllib.parse import urljoin

from imgkit.errors import UnreadableReplyError
from imgkit.providers.base import ReplyBody, Target
from imgkit.redact import scrub
from imgkit.sniff import is_complete_bytes, sniff
from imgkit.streaming.replies import decode_base64, decode_data_url, is_data_url
from imgkit.wire import Head


def content_of(
    encoded: object, link: str | None, target: Target
) -> tuple[bytes | None, str | None, list[str]]:
    """Return the bytes and the URL of an entry, where they can be read, and what is wrong with it."""
    data: bytes | None = None
    url: str | None = None
    problems: list[str] = []
    try:
        data = decode_base64(encoded) if encoded else None
    except ValueError as error:
        problems.append(f"holds {error}")
    try:
        if link and is_data_url(link):
            data = data or decode_data_url(link)
        elif link:
            url = urljoin(target.base_url + "/", link)
    except ValueError as error:
        problems.append(f"has a URL that cannot be read: {error}")
    if data and (doubt := _doubt(data)):
        problems.append(doubt)
    return data or None, url, problems


def _doubt(data: bytes) -> str | None:
    if sniff(data[:1024]) is None:
        return "is no picture of a known format; its bytes are kept as they came"
    if not is_complete_bytes(data):
        return "seems to be cut off; its bytes are kept as they came"
    return None


def unreadable(head: Head, body: ReplyBody, why: str) -> UnreadableReplyError:
    """Return the error for a success reply from which no picture can be read."""
    return UnreadableReplyError(
        f"HTTP {head.status}, but no picture can be read from the reply: {scrub(why, limit=200)} "
        f"({body.length} bytes, request id {head.request_id or 'not given'}). It may have been billed; the "
        "reply is kept in error.body.",
        request_id=head.request_id,
        body=body.raw(),
    )
