"""Replace large images in a cassette's replies with small images of the same format and dimensions.

Images in requests stay, because a replay matches them. Each replacement has a single color, derived from
the digest of the original: different images stay different, equal images stay equal.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import pybase64

from imgkit.cassettes.bodies import replace_images
from imgkit.cassettes.reader import get_content_type, load_interactions, to_bytes
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import dump_cassette, to_text, write_cassette
from imgkit.images.sniff import HEAD_BYTES, Kind, sniff

_MAX_SIZE_RATIO = 0.75
"""An image shrinks only by a quarter or more, so a second run changes nothing."""
_MAX_PIXELS = 64_000_000
_SVG_ROOT = re.compile(rb"<svg\b[^>]*>", re.IGNORECASE)
_SVG_SIZE = re.compile(rb"""\s(width|height|viewBox)\s*=\s*["']([0-9a-z. ,%-]{1,60})["']""", re.IGNORECASE)


def shrink_cassette(path: Path) -> tuple[int, int]:
    """Shrink the replies of a cassette; return the total image bytes before and after.

    Args:
        path: Path of the cassette.

    Raises:
        ConfigurationError: The file is not a cassette, an image is missing, or the text may hold a key.
        SaveError: The cassette cannot be written; the error names the copy.
    """
    entries = load_interactions(path)
    old_files, new_files = SideFiles(path), SideFiles(path)
    sizes = [0, 0]

    def shrink(data: bytes) -> bytes:
        shrunken = shrink_image(data)
        sizes[0] += len(data)
        sizes[1] += len(shrunken)
        return shrunken

    changed = False
    for interaction in entries:
        response = interaction["response"]
        kind = get_content_type(response)
        body = old_files.restore_images(to_bytes((response.get("body") or {}).get("string")), kind)
        new_body = replace_images(body, kind, shrink, lambda data: pybase64.b64encode(shrink(data)))
        if new_body != body:
            changed = True
            response["body"] = {"string": to_text(new_files.extract_images(new_body, kind))}
            _set_length(response, len(new_body))
    if changed:
        write_cassette(path, dump_cassette(entries), new_files)
    return sizes[0], sizes[1]


def shrink_image(data: bytes) -> bytes:
    """Return a single-color image of the same format and dimensions, or the original if that is no gain.

    Args:
        data: Any bytes; data that is not an image is returned unchanged.
    """
    kind = sniff(data[:HEAD_BYTES])
    if kind is None:
        return data
    red, green, blue = hashlib.sha256(data).digest()[:3]
    shrunken = _make_flat_svg(data, f"#{red:02x}{green:02x}{blue:02x}") if kind.format == "svg" else None
    if kind.format != "svg" and kind.width and kind.height and kind.width * kind.height <= _MAX_PIXELS:
        shrunken = _make_flat_image(kind, kind.width, kind.height, (red, green, blue))
    return data if shrunken is None or len(shrunken) > len(data) * _MAX_SIZE_RATIO else shrunken


def _make_flat_image(kind: Kind, width: int, height: int, color: tuple[int, int, int]) -> bytes:
    import PIL.Image

    stream = io.BytesIO()
    if kind.format in ("png", "gif"):
        image = PIL.Image.new("P", (width, height), 0)
        image.putpalette(color)
    else:
        image = PIL.Image.new("RGB", (width, height), color)
    options: dict[str, dict[str, object]] = {
        "png": {"bits": 1, "compress_level": 9},
        "jpeg": {"quality": 1, "subsampling": 2, "optimize": True},
        "webp": {"lossless": True},
    }
    image.save(stream, kind.format.upper(), **options.get(kind.format, {}))
    return stream.getvalue()


def _make_flat_svg(data: bytes, color: str) -> bytes | None:
    root = _SVG_ROOT.search(data[:HEAD_BYTES])
    if root is None:
        return None
    size = b"".join(b' %s="%s"' % (name, value) for name, value in _SVG_SIZE.findall(root[0]))
    content = f'<rect width="100%" height="100%" fill="{color}"/>'.encode()
    return b'<svg xmlns="http://www.w3.org/2000/svg"' + size + b">" + content + b"</svg>"


def _set_length(response: dict[str, object], length: int) -> None:
    headers = response.get("headers")
    assert isinstance(headers, dict), "a reply with an image has headers"
    for name, value in headers.items():
        if str(name).lower() == "content-length":
            headers[name] = [str(length)] if isinstance(value, list) else str(length)
