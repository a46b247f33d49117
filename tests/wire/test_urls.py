"""URLs: joined, split and compared without changing a byte."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from imgkit.wire.urls import is_loopback, join_url, path_and_query

BASE = "https://api.example:8443/v1/images/a.json?x=1#f"
JOINED: list[tuple[str, str]] = [
    ("https://cdn.example/a//b/../c%2f?", "https://cdn.example/a//b/../c%2f?"),
    ("HTTP://CDN.example", "HTTP://CDN.example"),
    ("//cdn.example/a/../b", "https://cdn.example/a/../b"),
    ("/a//b/../c%3a?sig=%2f", "https://api.example:8443/a//b/../c%3a?sig=%2f"),
    ("b//c/../d", "https://api.example:8443/v1/images/b//c/../d"),
    ("./b", "https://api.example:8443/v1/images/b"),
    ("../b", "https://api.example:8443/v1/b"),
    ("../../../../b", "https://api.example:8443/b"),
    ("..", "https://api.example:8443/v1/"),
    (".?y", "https://api.example:8443/v1/images/?y"),
    (".hidden", "https://api.example:8443/v1/images/.hidden"),
    ("?y=2", "https://api.example:8443/v1/images/a.json?y=2"),
    ("", "https://api.example:8443/v1/images/a.json?x=1"),
    ("#g", "https://api.example:8443/v1/images/a.json?x=1#g"),
    (" /a \n", "https://api.example:8443/a"),
]


@pytest.mark.parametrize(("reference", "url"), JOINED)
def test_join_url(reference: str, url: str) -> None:
    """Joins a reference as RFC 3986 does, but for dots within its path."""
    assert join_url(BASE, reference) == url
    if ".." not in reference.lstrip("./") and not reference.startswith((" ", "H", "#")) and reference:
        assert urljoin(BASE, reference).rstrip("?") == url.rstrip("?")


def test_join_url_refuses_other_text() -> None:
    """Raises a ValueError for text that is no URL."""
    with pytest.raises(ValueError, match="IPv6"):
        join_url(BASE, "https://[::1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h", "/"),
        ("http://h?a", "/?a"),
        ("http://h/?#f", "/?"),
        ("http://[::1]:80//a/%2F?b?c/d", "//a/%2F?b?c/d"),
        ("http://h/http://i/j", "/http://i/j"),
    ],
)
def test_path_and_query(url: str, shown: str) -> None:
    """Returns everything between the origin and the fragment."""
    assert path_and_query(url) == shown


def test_is_loopback() -> None:
    """Knows the usual names of this machine, and no other spelling."""
    names = ("localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::")
    assert all(map(is_loopback, names))
    others = (
        "",
        None,
        "localhost.evil.example",
        "127.1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "1.0.0.0",
        "128.0.0.1",
    )
    assert not any(map(is_loopback, others))
