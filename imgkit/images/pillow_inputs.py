"""Pillow objects as inputs: the bytes of their file while it is unread, else a PNG with its metadata."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TypeGuard

from imgkit.errors import InvalidRequestError
from imgkit.images.sniff import is_complete_bytes, sniff
from imgkit.wire.plain_values import describe_failure

if TYPE_CHECKING:
    import PIL.Image

UPLOAD_FORMATS = ("png", "jpeg", "webp", "gif")
ORIENTATION_TAG = 0x0112

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
_CONVERSIONS = {"I": "I;16", "La": "LA"}


def is_pil(value: object) -> TypeGuard[PIL.Image.Image]:
    """Return whether a value is a Pillow image."""
    # By name: a caller with such an image has imported Pillow, so imgkit need not.
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def encode_pil(image: PIL.Image.Image, field: str, max_bytes: int) -> bytes:
    """Return the file of a Pillow image.

    An image that Pillow has opened and not decoded yet is unchanged: it gives the bytes of its file, if an
    API takes their format. Any other image becomes a PNG with its EXIF orientation and its colour profile.

    Args:
        image: any object of Pillow's class.
        field: the path in the request, for error messages.
        max_bytes: a longer file is not read.

    Raises:
        InvalidRequestError: the image has no pixels, or Pillow cannot write it.
    """
    try:
        width, height = image.size
        if width < 1 or height < 1:
            raise InvalidRequestError({field: f"The PIL image has {width}x{height} pixels."})
        return _read_unchanged_file(image, max_bytes) or _encode_png(image)
    except InvalidRequestError:
        raise
    except Exception as error:
        # Pillow raises errors of many classes, and a foreign class of this name may raise any.
        problem = f"The PIL image cannot be written as PNG ({describe_failure(error)}). Pass its file."
        raise InvalidRequestError({field: problem}) from None


def _read_unchanged_file(image: PIL.Image.Image, max_bytes: int) -> bytes | None:
    """Return the file of an image whose pixels nobody has read yet, None for any other image."""
    import PIL.Image

    stream = getattr(image, "fp", None)
    if stream is None or getattr(image, "_im", None) is not None or image.tell() != 0:
        return None
    position = stream.tell()
    try:
        stream.seek(0)
        data = bytes(stream.read(max_bytes + 1))
    finally:
        stream.seek(position)
    kind = sniff(data)
    if kind is None or kind.format not in UPLOAD_FORMATS or not is_complete_bytes(data):
        return None
    with PIL.Image.open(io.BytesIO(data), formats=[kind.format.upper()]) as again:
        # `Image.draft` changes size or mode without decoding.
        return data if (again.size, again.mode) == (image.size, image.mode) else None


def _encode_png(image: PIL.Image.Image) -> bytes:
    orientation = get_orientation(image)
    profile = image.info.get("icc_profile") or b""
    if image.mode == "CMYK":
        image, profile = convert_cmyk(image, profile), b""
    elif image.mode not in _PNG_MODES:
        default = "RGBA" if image.has_transparency_data else "RGB"
        image = image.convert(_CONVERSIONS.get(image.mode, default))
    options: dict[str, object] = {"icc_profile": profile if profile_fits(profile, image.mode) else None}
    if orientation != 1:
        import PIL.Image

        exif = PIL.Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        options["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1, **options)
    return stream.getvalue()


def profile_fits(profile: bytes, mode: str) -> bool:
    """Return whether a colour profile describes pixels of a mode (ICC.1:2022, bytes 16 to 19)."""
    is_grey = mode.startswith(("1", "L", "I"))
    return profile[16:20] == (b"GRAY" if is_grey else b"RGB ")


def convert_cmyk(image: PIL.Image.Image, profile: bytes) -> PIL.Image.Image:
    """Return a CMYK image in sRGB, by its own profile if that is readable."""
    from PIL import ImageCms

    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )  # fmt: skip
        except (ImageCms.PyCMSError, OSError):
            converted = None  # broken or foreign profile: use the plain formula
        if converted is not None:
            return converted
    return image.convert("RGB")


def get_orientation(image: PIL.Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (as stored) without a readable one."""
    import PIL.Image

    try:
        # Call the base class: the PNG class decodes all pixels to read the chunks after them.
        orientation = PIL.Image.Image.getexif(image).get(ORIENTATION_TAG, 1)
    except Exception:
        # Pillow raises various errors on broken metadata; the image itself may be intact.
        return 1
    return orientation if orientation in range(1, 9) else 1
