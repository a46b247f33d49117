"""The page at ``/``, without a browser: `make browser` tries it in a real Chromium."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

from imgkit.server.page_reply import load_page
from tests.support.served import exchange, find_status, request_bytes, serve_offline


class TagCollector(HTMLParser):
    """Collects the tags of a page with their attributes, and its inline scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is not None:
            self.inline[self.cdata_elem] = self.inline.get(self.cdata_elem, "") + data


def read_page() -> TagCollector:
    """Return the parts of the page."""
    parts = TagCollector()
    parts.feed(load_page().body.decode())
    return parts


def test_the_page_is_sent_with_its_limits(tmp_path: Path) -> None:
    """Sends the page with a policy that allows its own script and style, and with nothing to cache."""
    with serve_offline(tmp_path) as server:
        reply = exchange(server, request_bytes("GET", "/"))
    head, _, body = reply.partition(b"\r\n\r\n")
    assert find_status(reply) == 200
    assert body == load_page().body
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n")[1:])
    }
    for tag in ("script", "style"):
        digest = b64encode(sha256(read_page().inline[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_server() -> None:
    """Has one script and one style, both inline, no handler in an attribute, and no address to load."""
    tags = read_page().tags
    assert [attributes for tag, attributes in tags if tag in ("script", "style")] == [{}, {}]
    names = {name for _, attributes in tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style", "action")}
    assert [attributes["href"] for _, attributes in tags if "href" in attributes] == ["data:,"]
    assert not re.search(rb"https?://|//cdn|@import|url\(", load_page().body)


def test_the_page_inserts_no_html() -> None:
    """Uses no function that reads a text as HTML or as a script."""
    script = read_page().inline["script"]
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", script)
