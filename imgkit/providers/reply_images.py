"""Images in the entries of a reply, and the problems of unreadable entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from imgkit.errors import UnreadableReplyError
from imgkit.images.sniff import has_end, sniff
from imgkit.images.sources import BytesSource
from imgkit.models import Cost, is_amount
from imgkit.providers.base import DecodedImage, DecodedImages, ReplyBody, Target
from imgkit.redact import Secret, scrub
from imgkit.wire.json_values import DivertedImage, decode_base64, decode_data_url, is_data_url, restore_base64
from imgkit.wire.messages import Head
from imgkit.wire.urls import join_url

SMALL_BYTES = 64 * 1024
"""Largest image that is read as a whole before it is examined."""

QUOTE_BYTES = 8 * 1024
"""Part of an unreadable reply that is read for its error."""

QUOTE_LIMIT = 200
"""Longest quotation of it in characters."""


def decode_content(encoded: object, link: str | None, target: Target) -> tuple[dict[str, Any], list[str]]:
    """Return the readable content of an entry as arguments of `DecodedImage`, and the entry's problems.

    Args:
        encoded: the base64 member; text, a diverted image, or None.
        link: the URL member: absolute, relative to the target's address, a ``data:`` URL, or the image
            itself in base64.
        target: the server that sent the reply.
    """
    content: dict[str, Any] = {}
    problems: list[str] = []
    try:
        if isinstance(encoded, DivertedImage) and (source_on_disk := encoded.source()) is not None:
            content["source"] = source_on_disk
        elif encoded and (data := decode_base64(encoded)):
            content["data"] = data
    except ValueError as error:
        problems.append(f"holds {error}")
    try:
        if link and is_data_url(link):
            if not content and (data := decode_data_url(link)):
                content["data"] = data
        elif link and is_base64_image(link):
            if not content:
                content["data"] = decode_base64(link)
        elif link:
            content["url"] = join_url(target.base_url + "/", link)
    except ValueError as error:
        problems.append(f"has an unreadable URL: {error}")
    source = content.get("source") or BytesSource(content.get("data", b""))
    if not source.length:
        return content, problems
    # It takes less time to read a short image once than to look into its chunks several times.
    small = BytesSource(source.read()) if source.length <= SMALL_BYTES else source
    kind = sniff(small.read_at(1024, 0))
    if kind is None:
        problems.append("is not an image of a known format; its bytes are kept unchanged")
    elif not has_end(kind, small.length, small.read_at):
        problems.append("seems to be cut off; its bytes are kept unchanged")
    return content, problems


def decode_image_body(
    head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
) -> DecodedImages:
    """Return the image of an API that answers with the image itself, whatever type it declares.

    Args:
        head, body, target, secrets: as for `Provider.decode`.

    Raises:
        UnreadableReplyError: The body is no image.

    Example:
        ::

            def decode(self, head, body, target, secrets=()):
                return decode_image_body(head, body, target, secrets)
    """
    image = body.image()
    if image is None:
        raise unreadable_reply_error(head, body, "the body is no image", secrets)
    content, problems = decode_content(image, None, target)
    warnings = tuple(f"Image 0 {problem}." for problem in problems)
    return DecodedImages(pictures=(DecodedImage(**content),), warnings=warnings, damaged=bool(problems))


def decode_entries(
    entries: Mapping[int, object], target: Target, **members: Any
) -> tuple[list[DecodedImage], list[str]]:
    """Return the readable images of a list, and the problems of its entries: none loses the others.

    An entry is an object with the address of an image, or with the image itself, in ``url``. Its other
    members become `DecodedImage.extra`.

    Args:
        entries: the entries by number.
        target: the server that sent the reply.
        members: further arguments of each `DecodedImage`.
    """
    images: list[DecodedImage] = []
    broken: list[str] = []
    for number, entry in entries.items():
        rest = dict(entry) if isinstance(entry, dict) else {}
        link = rest.pop("url", None)
        is_text = isinstance(link, str)
        content, problems = decode_content(None if is_text else link, link if is_text else None, target)
        if content:
            images.append(DecodedImage(**content, **members, extra=restore_base64(rest)))
        broken += [f"images.{number} {problem}" for problem in problems]
        if not content and not problems:
            broken.append(f"images.{number} has no image")
    return images, broken


def read_cost(amount: object, units_per_dollar: int = 1, note: str = "as the reply tells it") -> Cost | None:
    """Return the cost that a reply tells, None for anything but a finite number from 0 on.

    Args:
        amount: the member of the reply, or a header: a number, or its text.
        units_per_dollar: such as 100 for cents.
        note: `Cost.note`.

    Example:
        >>> str(read_cost(400_000_000, 10**10))
        '0.0400 USD (as the reply tells it)'
    """
    if not isinstance(amount, int | float | str) or isinstance(amount, bool):
        return None
    try:
        dollars = Decimal(str(amount)) / units_per_dollar
    except (ArithmeticError, ValueError):
        # Python writes no integer of more than 4,300 digits.
        return None
    return Cost(amount=dollars, note=note) if is_amount(dollars) else None


def is_base64_image(text: str) -> bool:
    """Return whether a text begins like an image in base64, which no URL does."""
    start = "".join(text[:128].split())[:64]
    try:
        return len(start) == 64 and sniff(decode_base64(start)) is not None
    except ValueError:
        return False


@contextmanager
def readable(head: Head, body: ReplyBody, secrets: tuple[Secret, ...] = ()) -> Iterator[None]:
    """Turn the builtin exceptions of code that reads a reply into an `UnreadableReplyError`.

    Put it around the lines of `Provider.decode` and `StreamingProvider.decode_event` that look into the
    body. Errors of imgkit pass through unchanged.

    Args:
        head: status and headers of the reply.
        body: the reply; ``error.body`` keeps its bytes, which may hold a paid image.
        secrets: strings that must not appear in the message.

    Raises:
        UnreadableReplyError: The body is no JSON, or lacks a member, or a member has another type.

    Example:
        ::

            def decode(self, head, body, target, secrets=()):
                with readable(head, body, secrets):
                    entries = body.json()["pictures"]
                    images = tuple(DecodedImage(data=decode_base64(entry)) for entry in entries)
                return DecodedImages(pictures=images)
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Such an exception may quote the reply, and the key with it.
        raise unreadable_reply_error(head, body, f"{type(error).__name__}: {error}", secrets) from None


def unreadable_reply_error(
    head: Head, body: ReplyBody, why: str, secrets: tuple[Secret, ...] = ()
) -> UnreadableReplyError:
    """Return the error for a success reply without a readable image. It quotes the start of the reply."""
    from imgkit.providers.error_bodies import is_page

    raw = body.raw()
    step = " Check base_url." if is_page(raw) else ""
    media_type = scrub(head.headers.get("content-type", "").partition(";")[0], secrets, 60)
    return UnreadableReplyError(
        f"HTTP {head.status}, but the reply has no readable image: {scrub(why, secrets, limit=200)} "
        f"({body.length} bytes of {media_type or 'unnamed'} content, request id "
        f"{head.request_id or 'not given'}). {quote_start(raw, secrets)}{step} "
        "The call may have been billed.",
        hint="error.body holds the reply.",
        request_id=head.request_id,
        body=raw,
    )


def quote_start(raw: bytes, secrets: tuple[Secret, ...]) -> str:
    """Return a sentence with the start of a reply, without secrets and images.

    Example:
        >>> quote_start(b"<html><title>Log in</title></html>", ())
        'The web page begins: Log in.'
    """
    from imgkit.providers.error_bodies import is_page, page_text
    from imgkit.wire.secret_filter import SecretFilter

    if not raw.strip():
        return "The reply is empty."
    if (kind := sniff(raw[:1024])) is not None:
        return f"The reply is itself a {kind.format} image."
    start = SecretFilter(secrets).clean_bytes(raw[:QUOTE_BYTES])
    if b"\0" in start[:200]:
        return f"The reply begins with the bytes {start[:16].hex(' ')}."
    is_markup = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    text = page_text(start) if is_markup else start.decode("utf-8", "replace")
    what = "web page" if is_page(start) else "reply"
    return f"The {what} begins: {scrub(' '.join(text.split()), secrets, QUOTE_LIMIT).rstrip('. ')}."
