"""The page at ``/``: a file of this package that loads nothing from elsewhere.

The page shows prompts and error texts of other callers. Two borders keep them text: the page's script
inserts text only, and the Content-Security-Policy lets the browser run that script and no other.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class Page(NamedTuple):
    """The page and the headers of its reply.

    Attributes:
        body: the HTML, in UTF-8.
        headers: its content type and its limits for browsers.
    """

    body: bytes
    headers: Mapping[str, str]


def build_policy(html: str) -> str:
    """Return the Content-Security-Policy of a page, which allows its inline script and style by hash.

    >>> build_policy("<style>p { color: red }</style>").split("; ")[2]
    "style-src 'sha256-ngewhhP73WDIbgwseeu52VAAJgKdGUsu1IUQQsAm8m4='"

    Args:
        html: the page. Its script and its style have no attributes.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(html):
        digest = b64encode(sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(hashes["script"]) or "'none'",
        "style-src": " ".join(hashes["style"]) or "'none'",
        "img-src": "data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


@cache
def load_page() -> Page:
    """Read the page from this package, once in a process, and return it with its headers."""
    html = files("imgkit.server").joinpath("page.html").read_text("utf-8")
    return Page(
        html.encode(),
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": build_policy(html),
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        },
    )
