"""Replies of a cassette with small pictures in place of large ones, of the same kind and size in pixels.

Pictures of requests stay: a replay is matched by them. What takes the place of a picture has one colour,
taken from its digest, so that different pictures stay different and equal ones equal.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import pybase64

from imgkit.cassettes.parts import substitute
from imgkit.cassettes.reader import body_of, content_type, interactions
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import commit, dump, text_of
from imgkit.images.sniff import HEAD_BYTES, Kind, sniff

_WORTH = 0.75
"""What is not at least a quarter smaller stays, so that doing it twice changes nothing."""
_MOST_PIXELS = 64_000_000
_SVG_ROOT = re.compile(rb"<svg\b[^>]*>", re.IGNORECASE)
_SVG_SIZE = re.compile(rb"""\s(width|height|viewBox)\s*=\s*["']([0-9a-z. ,%-]{1,60})["']""", re.IGNORECASE)


def shrink(path: Path) -> tuple[int, int]:
    """Shrink the replies of one cassette, and return how many bytes of pictures there were and are.

    Args:
        path: of the cassette.

    Raises:
        ConfigurationError: it is no cassette, a picture is missing, or something in it looks like a key.
        SaveError: it cannot be written; where it was put.
    """
    entries = interactions(path)
    old, files = SideFiles(path), SideFiles(path)
    sizes = [0, 0]

    def small(data: bytes) -> bytes:
        less = smaller(data)
        sizes[0] += len(data)
        sizes[1] += len(less)
        return less

    changed = False
    for one in entries:
        response = one["response"]
        kind = content_type(response)
        whole = old.put_back(body_of((response.get("body") or {}).get("string")), kind)
        shrunk = substitute(whole, kind, small, lambda data: pybase64.b64encode(small(data)))
        if shrunk != whole:
            changed = True
            response["body"] = {"string": text_of(files.put_away(shrunk, kind))}
            _set_length(response, len(shrunk))
    if changed:
        commit(path, dump(entries), files)
    return sizes[0], sizes[1]


def smaller(data: bytes) -> bytes:
    """Return a picture of one colour, of the same kind and size in pixels; this one if that gains nothing.

    Args:
        data: any bytes; what is no picture comes back as it is.
    """
    kind = sniff(data[:HEAD_BYTES])
    if kind is None:
        return data
    red, green, blue = hashlib.sha256(data).digest()[:3]
    less = _svg(data, f"#{red:02x}{green:02x}{blue:02x}") if kind.format == "svg" else None
    if kind.format != "svg" and kind.width and kind.height and kind.width * kind.height <= _MOST_PIXELS:
        less = _flat(kind, kind.width, kind.height, (red, green, blue))
    return data if less is None or len(less) > len(data) * _WORTH else less


def _flat(kind: Kind, width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    import PIL.Image

    stream = io.BytesIO()
    if kind.format in ("png", "gif"):
        picture = PIL.Image.new("P", (width, height), 0)
        picture.putpalette(colour)
    else:
        picture = PIL.Image.new("RGB", (width, height), colour)
    options: dict[str, dict[str, object]] = {
        "png": {"bits": 1, "compress_level": 9},
        "jpeg": {"quality": 1, "subsampling": 2, "optimize": True},
        "webp": {"lossless": True},
    }
    picture.save(stream, kind.format.upper(), **options.get(kind.format, {}))
    return stream.getvalue()


def _svg(data: bytes, colour: str) -> bytes | None:
    root = _SVG_ROOT.search(data[:HEAD_BYTES])
    if root is None:
        return None
    size = b"".join(b' %s="%s"' % (name, value) for name, value in _SVG_SIZE.findall(root[0]))
    inside = f'<rect width="100%" height="100%" fill="{colour}"/>'.encode()
    return b'<svg xmlns="http://www.w3.org/2000/svg"' + size + b">" + inside + b"</svg>"


def _set_length(response: dict[str, object], length: int) -> None:
    headers = response.get("headers")
    assert isinstance(headers, dict), "a reply with a picture has headers"
    for name, value in headers.items():
        if str(name).lower() == "content-length":
            headers[name] = [str(length)] if isinstance(value, list) else str(length)
