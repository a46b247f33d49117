"""Picture files: writing them with the prompt inside, and finding the prompt again."""

from __future__ import annotations

import io

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

MADE_BY = "imgkit offline"
MOST_EXIF_BYTES = 60_000
"""A JPEG's Exif segment holds 64 KB at most, so a longer prompt is cut there."""


def encode(picture: Image.Image, output_format: str, compression: int | None, *, prompt: str) -> bytes:
    """Write a picture file that remembers its prompt.

    Parameters:
        picture: RGB or RGBA.
        output_format: "png", "jpeg" or "webp".
        compression: quality for JPEG and WebP, 0 (smallest) to 100 (best), None for 100; PNG ignores it.
        prompt: what the picture was painted for, stored as PNG text or as Exif ImageDescription.

    Returns:
        The file's bytes.

    Raises:
        ValueError: the format is none of the three.
    """
    text = prompt.encode("utf-8", "replace").replace(b"\0", b"").decode("utf-8")
    file = io.BytesIO()
    if output_format == "png":
        info = PngInfo()
        info.add_itxt("Software", MADE_BY)
        info.add_itxt("Description", text)
        picture.save(file, "PNG", pnginfo=info, compress_level=3)
        return file.getvalue()
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = MADE_BY
    # Bytes, because Pillow would turn a text's letters beyond ASCII into question marks.
    exif[ExifTags.Base.ImageDescription] = text.encode()[:MOST_EXIF_BYTES]
    quality = 100 if compression is None else min(100, max(0, compression))
    if output_format == "jpeg":
        picture.convert("RGB").save(file, "JPEG", quality=max(1, min(95, quality)), exif=exif)
    elif output_format == "webp":
        picture.save(file, "WEBP", quality=quality, method=2, exif=exif)
    else:
        raise ValueError(f"no picture file format {output_format!r}; there are png, jpeg and webp")
    return file.getvalue()


def prompt_of(picture: Image.Image) -> str:
    """Find the prompt that `encode` stored in a picture file.

    Parameters:
        picture: a picture that was opened from a file.

    Returns:
        The prompt, or "" for a picture that the offline painter did not make.
    """
    if picture.info.get("Software") == MADE_BY:
        return str(picture.info.get("Description", ""))
    try:
        exif = picture.getexif()
    except (OSError, SyntaxError, ValueError):
        # A stranger's broken Exif block only means that the picture is not one of ours.
        return ""
    if exif.get(ExifTags.Base.Software) != MADE_BY:
        return ""
    stored = exif.get(ExifTags.Base.ImageDescription, "")
    raw = stored if isinstance(stored, bytes) else str(stored).encode("latin-1", "replace")
    return raw.decode("utf-8", "ignore")
