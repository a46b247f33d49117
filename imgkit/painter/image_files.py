"""Image files: encode an image with its prompt, and read the prompt back."""

from __future__ import annotations

import io

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

SOFTWARE_NAME = "imgkit offline"
MAX_EXIF_PROMPT_BYTES = 60_000
"""Maximum length of a prompt in Exif data: the Exif segment of a JPEG file holds 64 KB."""


def encode_image(image: Image.Image, output_format: str, compression: int | None, *, prompt: str) -> bytes:
    """Encode an image as a file that stores its prompt.

    Args:
        image: RGB or RGBA.
        output_format: "png", "jpeg" or "webp".
        compression: quality for JPEG and WebP, 0 (smallest file) to 100 (best quality); None for 100.
            PNG ignores it.
        prompt: the prompt of the image, stored as PNG text or as Exif ImageDescription.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: the format is not supported.

    Example:
        >>> encode_image(Image.new("RGB", (16, 16)), "png", None, prompt="a fox")[1:4]
        b'PNG'
    """
    text = prompt.encode("utf-8", "replace").replace(b"\0", b"").decode("utf-8")
    file = io.BytesIO()
    if output_format == "png":
        info = PngInfo()
        info.add_itxt("Software", SOFTWARE_NAME)
        info.add_itxt("Description", text)
        image.save(file, "PNG", pnginfo=info, compress_level=3)
        return file.getvalue()
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE_NAME
    # Bytes, because Pillow replaces the non-ASCII letters of a text by question marks.
    exif[ExifTags.Base.ImageDescription] = text.encode()[:MAX_EXIF_PROMPT_BYTES]
    quality = 100 if compression is None else min(100, max(0, compression))
    if output_format == "jpeg":
        image.convert("RGB").save(file, "JPEG", quality=max(1, min(95, quality)), exif=exif)
    elif output_format == "webp":
        image.save(file, "WEBP", quality=quality, method=2, exif=exif)
    else:
        raise ValueError(f"Unknown image format {output_format!r}. Available: jpeg, png, webp.")
    return file.getvalue()


def read_stored_prompt(image: Image.Image) -> str:
    """Return the prompt that `encode_image` stored in an image file.

    Args:
        image: an image that was opened from a file.

    Returns:
        The prompt, or "" for an image that the offline painter did not create.
    """
    if image.info.get("Software") == SOFTWARE_NAME:
        return str(image.info.get("Description", ""))
    try:
        exif = image.getexif()
    except (OSError, SyntaxError, ValueError):
        # The painter writes no broken Exif blocks, so the image has another origin.
        return ""
    if exif.get(ExifTags.Base.Software) != SOFTWARE_NAME:
        return ""
    stored = exif.get(ExifTags.Base.ImageDescription, "")
    raw = stored if isinstance(stored, bytes) else str(stored).encode("latin-1", "replace")
    return raw.decode("utf-8", "ignore")
