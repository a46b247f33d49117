"""Checks of an encoded request: its wire form, its content type, and the absence of a key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pybase64

from imgkit.redact import is_secret_name
from imgkit.testing import canary
from imgkit.wire.messages import HttpRequest


def join_wire(request: HttpRequest) -> bytes:
    r"""Return everything of a request that reaches the server, as bytes to compare.

    >>> join_wire(HttpRequest("GET", "https://api.example/models"))
    b'GET https://api.example/models\n[]\n\n'
    """
    headers = sorted(request.headers.items())
    head = f"{request.method} {request.url}\n{headers}\n{request.body.content_type}\n"
    return head.encode() + b"".join(request.body.blocks())


def assert_well_formed(request: HttpRequest, secret_headers: set[str]) -> None:
    """Fail unless a request is a POST that every backend can send.

    Args:
        request: without credentials.
        secret_headers: names of the headers that an auth plugin sets.
    """
    assert request.method == "POST", (
        f"The method is {request.method}. A request that may cost money is a POST."
    )
    assert re.fullmatch(r"https?://[!-~]+", request.url), f"The URL is not quoted: {request.url!r}."
    assert "#" not in request.url, f"The URL has a fragment: {request.url}."
    assert request.body.content_type, "The body has no content type."
    for name, value in request.headers.items():
        assert name == name.lower(), f"The name of the header {name} is not in lower case."
        assert isinstance(value, str), f"The header {name} is {value!r}, not text."
        assert value.isprintable(), f"The header {name} has control characters: {value!r}."
    wrong = sorted({"content-length", "content-type", *secret_headers} & set(request.headers))
    assert not wrong, f"encode() sets {', '.join(wrong)}. An auth plugin and the body set these headers."


def assert_body_type(content_type: str, body: bytes) -> None:
    """Fail if a body is not of its content type.

    >>> assert_body_type("application/json", b'{"prompt": "a fox"}')
    """
    kind = content_type.partition(";")[0].strip().lower()
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    frame = b"--" + boundary[1].encode() if boundary else b"\0"
    is_true = {
        "application/json": is_json(body),
        "multipart/form-data": body.startswith(frame) and body.rstrip().endswith(frame + b"--"),
        "application/x-www-form-urlencoded": body.isascii() and b"{" not in body,
    }.get(kind, not is_json(body) and not body.startswith(b"--"))
    assert is_true, f"The body is sent as {content_type}, and begins with {body[:40]!r}."


def is_json(body: bytes) -> bool:
    """Return whether a body is a JSON value."""
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def find_image_types(body: bytes, image: bytes) -> set[str]:
    """Return the media types that a body states for an image in it.

    >>> find_image_types(b'{"image": "data:image/png;base64,R0lGODlh..."}', b"GIF89a...")
    {'image/png'}

    Args:
        body: a form with the image's bytes, or JSON with its base64.
        image: the bytes of the image.
    """
    start = pybase64.b64encode(image)[:8]
    part = rb"(?i)content-type: *([\w/.+-]+)[^\r\n]*(?:\r\n[^\r\n]+)*\r\n\r\n" + re.escape(image)
    url = rb"(?i)data:(image/[\w.+-]+);base64," + re.escape(start)
    types = {found.decode() for pattern in (part, url) for found in re.findall(pattern, body)}
    return types.union(_iterate_stated_types(json.loads(body), start.decode())) if is_json(body) else types


def _iterate_stated_types(value: Any, start: str) -> Iterator[str]:
    """Yield the media types beside the base64 of an image in a JSON value.

    Args:
        value: the JSON value.
        start: the first characters of the base64.
    """
    if isinstance(value, dict):
        texts = [member for member in value.values() if isinstance(member, str)]
        if any(text.startswith(start) for text in texts):
            yield from (text for text in texts if re.fullmatch(r"image/[\w.+-]+", text))
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for member in members:
        yield from _iterate_stated_types(member, start)


def assert_no_key(request: HttpRequest, secret_headers: set[str]) -> None:
    """Fail if a request holds the key of `canary`, or has a place for a key.

    Args:
        request: without credentials.
        secret_headers: names of the headers that an auth plugin sets.
    """
    parts = urlsplit(request.url)
    places = {"query": parts.query, "path": parts.path, "headers": repr(sorted(request.headers.items()))}
    places["body"] = b"".join(request.body.blocks()).decode("latin-1")
    for place, text in places.items():
        assert not any(spelling in text for spelling in canary.encode_variants()), (
            f"The key is in the {place} of the request. An auth plugin sends it in the headers of "
            "`credentials`; caches, cassettes and logs keep the rest of the request."
        )
    query = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    secret_names = [name for name in query if is_secret_name(name.lower())]
    assert not secret_names, (
        f"The query of the URL has {', '.join(secret_names)}. Logs and proxies keep URLs: name the header of "
        "the key in `credentials`."
    )
    wrong = sorted(secret_headers & set(request.headers))
    assert not wrong, (
        f"The request sets {', '.join(wrong)}. An auth plugin sets the headers of `credentials`."
    )
