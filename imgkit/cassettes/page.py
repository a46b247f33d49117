"""Cassettes as a page to look at: one file of HTML, which loads nothing and runs nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import pybase64

from imgkit.cassettes.meaning import fields_of
from imgkit.cassettes.parts import substitute
from imgkit.cassettes.reader import Recorded, read
from imgkit.images.sniff import HEAD_BYTES, sniff
from imgkit.redact import scrub

THUMBNAIL_PX = 160
_MOST_SVG_BYTES = 100_000
_MOST_PIXELS = 64_000_000
_MOST_CHARACTERS = 400

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


def page(places: Iterable[Path]) -> str:
    """Return the page for cassettes: what was asked, what came, and all pictures small.

    Args:
        places: of the cassettes.

    Raises:
        ConfigurationError: one cannot be read, or a picture is missing.
    """
    return _HEAD + "".join(part for place in places for part in _cassette(place)) + "</body>\n</html>\n"


def _cassette(path: Path) -> Iterator[str]:
    recorded = read(path)
    yield f"<h2>{escape(str(path))} ({len(recorded)})</h2>\n"
    for one in recorded:
        yield from _entry(one)


def _entry(one: Recorded) -> Iterator[str]:
    bad = "" if 200 <= one.status < 300 else " bad"
    yield (
        f'<article>\n<h3><span class="status{bad}">{one.status}</span> {escape(one.method)} '
        f"{escape(one.url)}</h3>\n<dl>\n"
    )
    for name, value in _said(one).items():
        yield f"<dt>{escape(name)}</dt><dd>{escape(scrub(value, limit=_MOST_CHARACTERS))}</dd>\n"
    yield f"<dt>bytes</dt><dd>{len(one.body)} sent, {len(one.reply)} received</dd>\n</dl>\n"
    for what, body, kind in (
        ("sent", one.body, one.content_type),
        ("received", one.reply, one.headers.get("content-type", "")),
    ):
        for data in _pictures(body, kind):
            yield _figure(what, data)
    yield "</article>\n"


def _said(one: Recorded) -> dict[str, str]:
    """Return the fields of a request as they are read best, and what an error says."""
    said = {}
    for name, value in fields_of(one.content_type, one.body).items():
        if value.startswith('"'):
            value = str(json.loads(value))
        said[name] = value
    if not 200 <= one.status < 300:
        said["reply"] = one.reply[:_MOST_CHARACTERS].decode("utf-8", "replace")
    return said


def _pictures(body: bytes, content_type: str) -> list[bytes]:
    found: list[bytes] = []

    def note(data: bytes) -> None:
        if sniff(data[:1024]) is not None:
            found.append(data)

    substitute(body, content_type, note, note)
    return found


def _figure(what: str, data: bytes) -> str:
    kind = sniff(data[:HEAD_BYTES])
    assert kind is not None, "only pictures are shown"
    size = f"{kind.width}×{kind.height}, " if kind.width else ""
    source = _thumbnail(data)
    shown = f'<img src="{source}" alt="picture {what}">' if source else "cannot be shown"
    return (
        f"<figure>{shown}<figcaption>{what}: {kind.format}, {size}{len(data)} bytes</figcaption></figure>\n"
    )


def _thumbnail(data: bytes) -> str | None:
    """Return a small picture as a URL; a drawing as it is, since a page runs no scripts of an image."""
    kind = sniff(data[:HEAD_BYTES])
    if kind is not None and kind.format == "svg":
        return _data_url("image/svg+xml", data) if len(data) <= _MOST_SVG_BYTES else None
    if kind is None or (kind.width or 0) * (kind.height or 0) > _MOST_PIXELS:
        return None
    import PIL.Image

    stream = io.BytesIO()
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            picture.convert("RGBA").save(stream, "WEBP", quality=70)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return None
    return _data_url("image/webp", stream.getvalue())


def _data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{pybase64.b64encode(data).decode()}"
