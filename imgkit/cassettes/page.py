"""Render cassettes as a single HTML page that loads nothing and runs no script."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import pybase64

from imgkit.cassettes.bodies import replace_images
from imgkit.cassettes.matching import parse_fields
from imgkit.cassettes.reader import RecordedExchange, read_exchanges
from imgkit.images.sniff import HEAD_BYTES, sniff
from imgkit.redact import scrub

THUMBNAIL_PX = 160
_MAX_SVG_BYTES = 100_000
_MAX_PIXELS = 64_000_000
_MAX_CHARACTERS = 400

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cassettes</title>
<style>
body { color: #222; font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem }
body { padding: 0 1rem }
h2 { font-size: 1rem; margin: 2.5rem 0 .5rem; overflow-wrap: anywhere }
article { border: 1px solid #ccc; border-radius: 6px; margin: .7rem 0; padding: .6rem .9rem }
h3 { font-size: .95rem; margin: 0 0 .3rem; overflow-wrap: anywhere }
.status { border-radius: 4px; color: #fff; background: #27703c; padding: 0 .4em }
.bad { background: #a3262a }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .8rem; margin: .3rem 0 }
dt { color: #666 }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap }
figure { display: inline-block; margin: .4rem .8rem .2rem 0; vertical-align: top }
figcaption { color: #666; font-size: .8rem }
img { border: 1px solid #ddd; display: block; max-height: 160px; max-width: 160px }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd }
  dt, figcaption { color: #999 }
}
</style>
</head>
<body>
<h1>Cassettes</h1>
"""


def render_page(paths: Iterable[Path]) -> str:
    """Return an HTML page with the requests, replies and thumbnails of cassettes.

    Args:
        paths: Paths of the cassettes.

    Raises:
        ConfigurationError: A cassette cannot be read, or an image is missing.
    """
    return _HEAD + "".join(part for path in paths for part in _render_cassette(path)) + "</body>\n</html>\n"


def _render_cassette(path: Path) -> Iterator[str]:
    recorded = read_exchanges(path)
    yield f"<h2>{escape(str(path))} ({len(recorded)})</h2>\n"
    for exchange in recorded:
        yield from _render_exchange(exchange)


def _render_exchange(exchange: RecordedExchange) -> Iterator[str]:
    bad = "" if 200 <= exchange.status < 300 else " bad"
    yield (
        f'<article>\n<h3><span class="status{bad}">{exchange.status}</span> {escape(exchange.method)} '
        f"{escape(exchange.url)}</h3>\n<dl>\n"
    )
    for name, value in _format_fields(exchange).items():
        yield f"<dt>{escape(name)}</dt><dd>{escape(scrub(value, limit=_MAX_CHARACTERS))}</dd>\n"
    yield f"<dt>bytes</dt><dd>{len(exchange.body)} sent, {len(exchange.reply)} received</dd>\n</dl>\n"
    for direction, body, kind in (
        ("sent", exchange.body, exchange.content_type),
        ("received", exchange.reply, exchange.headers.get("content-type", "")),
    ):
        for data in _find_images(body, kind):
            yield _render_figure(direction, data)
    yield "</article>\n"


def _format_fields(exchange: RecordedExchange) -> dict[str, str]:
    """Return the fields of a request in readable form, and the body of an error reply."""
    fields = {}
    for name, value in parse_fields(exchange.content_type, exchange.body).items():
        if value.startswith('"'):
            value = str(json.loads(value))
        fields[name] = value
    if not 200 <= exchange.status < 300:
        fields["reply"] = exchange.reply[:_MAX_CHARACTERS].decode("utf-8", "replace")
    return fields


def _find_images(body: bytes, content_type: str) -> list[bytes]:
    images: list[bytes] = []

    def collect(data: bytes) -> None:
        if sniff(data[:1024]) is not None:
            images.append(data)

    replace_images(body, content_type, collect, collect)
    return images


def _render_figure(direction: str, data: bytes) -> str:
    kind = sniff(data[:HEAD_BYTES])
    assert kind is not None, "only images have a figure"
    size = f"{kind.width}×{kind.height}, " if kind.width else ""
    source = _make_thumbnail_url(data)
    image = f'<img src="{source}" alt="image {direction}">' if source else "cannot be displayed"
    return (
        f"<figure>{image}<figcaption>{direction}: {kind.format}, {size}{len(data)} bytes"
        "</figcaption></figure>\n"
    )


def _make_thumbnail_url(data: bytes) -> str | None:
    """Return a thumbnail as a data URL; an SVG stays whole, as browsers run no scripts in images."""
    kind = sniff(data[:HEAD_BYTES])
    if kind is not None and kind.format == "svg":
        return _to_data_url("image/svg+xml", data) if len(data) <= _MAX_SVG_BYTES else None
    if kind is None or (kind.width or 0) * (kind.height or 0) > _MAX_PIXELS:
        return None
    import PIL.Image

    stream = io.BytesIO()
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            image.convert("RGBA").save(stream, "WEBP", quality=70)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return None
    return _to_data_url("image/webp", stream.getvalue())


def _to_data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{pybase64.b64encode(data).decode()}"
