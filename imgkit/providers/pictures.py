"""Pictures in the entries of a reply, and what is wrong with those that cannot be read."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

from imgkit.errors import UnreadableReplyError
from imgkit.images.sniff import has_end, sniff
from imgkit.images.sources import BytesSource, Source
from imgkit.providers.base import ReplyBody, Target
from imgkit.redact import scrub
from imgkit.wire.json_values import DivertedImage, decode_base64, decode_data_url, is_data_url
from imgkit.wire.messages import Head


def content_of(encoded: object, link: str | None, target: Target) -> tuple[dict[str, Any], list[str]]:
    """Return what a `Picture` has of an entry's content, where it can be read, and what is wrong with it."""
    content: dict[str, Any] = {}
    problems: list[str] = []
    try:
        if isinstance(encoded, DivertedImage) and (on_disk := encoded.source()) is not None:
            content["source"] = on_disk
        elif encoded and (data := decode_base64(encoded)):
            content["data"] = data
    except ValueError as error:
        problems.append(f"holds {error}")
    try:
        if link and is_data_url(link):
            if not content and (data := decode_data_url(link)):
                content["data"] = data
        elif link:
            content["url"] = urljoin(target.base_url + "/", link)
    except ValueError as error:
        problems.append(f"has a URL that cannot be read: {error}")
    source = content.get("source") or BytesSource(content.get("data", b""))
    if source.length and (doubt := _doubt(source)):
        problems.append(doubt)
    return content, problems


def _doubt(source: Source) -> str | None:
    kind = sniff(source.read_at(1024, 0))
    if kind is None:
        return "is no picture of a known format; its bytes are kept as they came"
    if not has_end(kind, source.length, source.read_at):
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
