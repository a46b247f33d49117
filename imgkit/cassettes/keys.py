r"""What looks like a key, or like the id of an account, wherever in a text it begins.

A word begins behind anything but a letter or a digit; and behind an escape of JSON, YAML or a URL, though
that ends in one: in ``"\nsk-..."`` the key begins behind the ``n``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from imgkit.redact import is_secret_name

_SHORTEST_KEY = 16
"""What is shorter may be a word of the answer, such as the key of a test."""

_BEFORE = (
    rb"(?<![A-Za-z0-9]%s)",
    rb"(?<=\\[0abefnrtvLNP_]%s)",
    rb"(?<=\\x[0-9A-Fa-f]{2}%s)",
    rb"(?<=\\u[0-9A-Fa-f]{4}%s)",
    rb"(?<=\\U[0-9A-Fa-f]{8}%s)",
    rb"(?<=%%[0-9A-Fa-f]{2}%s)",
)


def _shape(beginning: bytes, rest: bytes) -> re.Pattern[bytes]:
    """Return the pattern of a word: each begins with plain text, which is found ten times as fast."""
    before = b"|".join(one % beginning for one in _BEFORE)
    return re.compile(b"(" + beginning + b")(?:" + before + b")(?!scrubbed\\b)" + rest)


_CODE = rb"[A-Za-z0-9]{20,}"
_OTHERS = (
    *(_shape(beginning, _CODE) for beginning in (b"gsk_", b"hf_", b"r8_", b"sess-", b"xai-")),
    # as long as it is and no longer: base64 may hold its beginning by chance
    _shape(b"AIza", rb"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_+/=-])"),
)
_SCRUBBED = (
    _shape(b"sk-", rb"[A-Za-z0-9_-]{8,}"),
    *_OTHERS,
    *(_shape(beginning, rb"[A-Za-z0-9]{8,}\b") for beginning in (b"org-", b"proj_", b"req_")),
)
_KEY_LIKE = (
    _shape(b"sk-", rb"[A-Za-z0-9_-]{16,}"),
    _shape(b"Bearer", rb"(?:[\s\\]|%20)+(?!scrubbed\b)[A-Za-z0-9._~+/-]{16,}"),
    _shape(b"AKIA", rb"[0-9A-Z]{16}"),
    _shape(b"eyJ", rb"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\."),
    *_OTHERS,
)


def scrub_keys(text: bytes) -> bytes:
    """Return text without keys and ids of accounts; of each only its kind is left, as in ``sk-scrubbed``."""
    for shape in _SCRUBBED:
        text = shape.sub(rb"\1scrubbed", text)
    return text


def key_like(text: bytes) -> str | None:
    """Return the beginning of something that looks like a key, None if nothing does."""
    for shape in _KEY_LIKE:
        found = shape.search(text)
        if found is not None:
            return f"{found.group()[:6].decode('ascii', 'replace')}…"
    return None


def sent_keys(headers: Mapping[str, str | bytes], secret: Container[str] = ()) -> frozenset[bytes]:
    """Return the keys that a request was sent with, whatever they look like.

    Args:
        headers: of the request, by name in any case.
        secret: further names of headers that hold keys, in lower case.
    """
    values = (
        value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        for name, value in headers.items()
        if name.lower() in secret or is_secret_name(name.lower())
    )
    words = (value.split()[-1] for value in values if value.strip())  # behind "Bearer", if that is there
    return frozenset(word for word in words if len(word) >= _SHORTEST_KEY)


def without(text: bytes, keys: Iterable[bytes]) -> bytes:
    """Return what a server has said without the keys that were sent to it."""
    for key in sorted(keys, key=len, reverse=True):
        known = scrub_keys(key)
        text = text.replace(key, b"scrubbed" if known == key else known)
    return text
