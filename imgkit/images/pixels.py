"""Decoding and encoding with Pillow within limits, for masks and for fitting.

Each function imports Pillow on first use and restricts the formats that it tries. imgkit rejects oversized
headers before decoding, below the size at which Pillow itself warns. All threads share the warning filters,
so imgkit cannot catch such a warning safely.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import RawFile
from imgkit.images.pillow_inputs import UPLOAD_FORMATS, convert_cmyk, get_orientation, profile_fits
from imgkit.images.sniff import HEAD_BYTES, Format, read_png_header, sniff
from imgkit.redact import scrub

if TYPE_CHECKING:
    import PIL.Image

T = TypeVar("T")

MAX_DECODED_PIXELS = 64_000_000
"""Largest image in pixels that imgkit decodes: 256 MB as RGBA."""

OPAQUE = 255
_HALF = 128
_OTHER_FORMATS = ("AVIF", "HEIF", "TIFF", "BMP", "JPEG2000")

_FORMATS_BY_PREFERENCE: tuple[Format, ...] = ("png", "webp", "jpeg", "gif")
_JPEG_QUALITIES = (95, 90, 85)
_LONGEST_EDGE_PX: dict[Format, int] = {"webp": 16_383, "jpeg": 65_500, "gif": 65_535}
_HOPELESS_RATIO = 1.3
"""Above this multiple of the limit, optimising a PNG is not worth the seconds that it takes."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Facts about an image from its header.

    Attributes:
        format: Pillow's name, such as "PNG". An MPO counts as the JPEG at its beginning.
        mode: Pillow's name, such as "CMYK".
        width, height: in pixels, as stored.
        bits: bits per channel.
        frames: number of frames.
        orientation: EXIF orientation, from 1 (as stored) to 8; from 5 on it exchanges width and height.
    """

    format: str
    mode: str
    width: int
    height: int
    bits: int
    frames: int
    orientation: int

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height in pixels as viewers display the image."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(file: RawFile) -> ImageHeader:
    """Return the header of an image.

    Raises:
        InvalidRequestError: Pillow cannot open it, or it claims too many pixels.
    """

    def build_header(image: PIL.Image.Image) -> ImageHeader:
        name = "JPEG" if image.format == "MPO" else image.format or ""
        frames = 1 if name == "JPEG" else getattr(image, "n_frames", 1)
        return ImageHeader(
            name, image.mode, *image.size, _get_bits(file, image), frames, get_orientation(image)
        )

    return _with_image(file, build_header)


def decode_first_frame(file: RawFile) -> PIL.Image.Image:
    """Return the first frame of an image, as stored, with 8 bits per channel: L, RGB or RGBA.

    Its ``info`` keeps a matching colour profile. CMYK becomes sRGB, by its own profile if it has one.

    Raises:
        InvalidRequestError: Pillow cannot decode it, or it claims too many pixels.
    """
    return _with_image(file, lambda image: _convert_to_plain(file, image))


def decode_opacity(file: RawFile) -> PIL.Image.Image | None:
    """Return the opacity of each pixel as an "L" image (0: transparent); None without transparency.

    Raises:
        InvalidRequestError: as `decode_first_frame`; or Pillow cannot apply the transparency.
    """
    return _with_image(file, lambda image: _extract_opacity(file, image))


def decode_grey(file: RawFile, backdrop: int) -> PIL.Image.Image:
    """Return an image in 8-bit greys, with its transparent parts over a backdrop of this grey value."""

    def convert(image: PIL.Image.Image) -> PIL.Image.Image:
        import PIL.Image

        plain = _convert_to_plain(file, image)
        if plain.mode != "RGBA":
            return plain.convert("L")
        greys = plain.convert("RGB").convert("L")
        return PIL.Image.composite(greys, PIL.Image.new("L", plain.size, backdrop), plain.getchannel("A"))

    return _with_image(file, convert)


def is_opaque(opacity: PIL.Image.Image) -> bool:
    """Return whether every pixel of an opacity band is at least half opaque."""
    low, _ = _get_extremes(opacity)
    return low >= _HALF


def lowest_opacity(opacity: PIL.Image.Image) -> int:
    """Return the lowest value of an opacity band: 0 if a pixel is fully transparent."""
    return _get_extremes(opacity)[0]


def is_transparent(opacity: PIL.Image.Image) -> bool:
    """Return whether every pixel of an opacity band is fully transparent."""
    _, high = _get_extremes(opacity)
    return high == 0


def _get_extremes(band: PIL.Image.Image) -> tuple[int, int]:
    low, high = band.getextrema()
    return int(low), int(high)  # type: ignore[arg-type]  # numbers for a single band


def _convert_to_plain(file: RawFile, image: PIL.Image.Image) -> PIL.Image.Image:
    profile = image.info.get("icc_profile") or b""
    opacity = _extract_opacity(file, image)
    plain = _reduce_to_eight_bits(image)
    if opacity is not None:
        plain = plain.convert("RGBA")
        plain.putalpha(opacity)
    elif plain.mode == "CMYK":
        plain, profile = convert_cmyk(plain, profile), b""
    else:
        plain = plain.convert("L" if plain.mode in ("1", "L") else "RGB")
    plain.info = {"icc_profile": profile} if profile_fits(profile, plain.mode) else {}
    return plain


def _reduce_to_eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    wide = image.convert("I")
    low, high = _get_extremes(wide)
    if low < 0 or high > 0xFFFF:
        raise ValueError("its greys have more than 16 bits")
    return wide.point([value >> 8 for value in range(0x10000)], "L")


def _extract_opacity(file: RawFile, image: PIL.Image.Image) -> PIL.Image.Image | None:
    if not image.has_transparency_data:
        return None
    key, bits = image.info.get("transparency"), _get_bits(file, image)
    if image.mode.startswith("I"):
        return image.convert("I").point([OPAQUE * (value != key) for value in range(0x10000)], "L")
    if image.mode == "L" and bits < 8 and isinstance(key, int):
        # Pillow stretches the pixels to 8 bits, but not the key.
        stretched_key = key * OPAQUE // (2**bits - 1)
        return image.point([OPAQUE * (value != stretched_key) for value in range(256)])
    if image.mode == "RGB" and bits == 16:
        raise InvalidRequestError(
            {file.field: "The image makes one of its 16-bit colours transparent. Save it again with an alpha "
             "channel."}
        )  # fmt: skip
    return image.convert("RGBA").getchannel("A")


def _get_bits(file: RawFile, image: PIL.Image.Image) -> int:
    if image.format == "PNG":
        return read_png_header(file.read_at).bits
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _with_image(file: RawFile, work: Callable[[PIL.Image.Image], T]) -> T:
    """Open a file with Pillow and return `work(image)`.

    Raises:
        InvalidRequestError: for every exception of Pillow, since the file is the caller's.
    """
    import PIL.Image

    kind = sniff(file.read_at(HEAD_BYTES, 0))
    if kind is not None and kind.width and kind.height:
        _check_pixels(file, kind.width, kind.height)
    formats = [kind.format.upper()] if kind and kind.format in UPLOAD_FORMATS else _list_other_formats()
    try:
        with PIL.Image.open(io.BytesIO(file.read()), formats=formats) as image:
            _check_pixels(file, *image.size)
            return work(image)
    except ImgkitError:
        raise
    except PIL.UnidentifiedImageError:
        raise InvalidRequestError(
            {file.field: "The file is no image that Pillow can open here. Convert it to PNG. For HEIC, "
             "install pillow-heif and call its register_heif_opener()."}
        ) from None  # fmt: skip
    except Exception as error:
        reason = scrub(str(error), limit=200).rstrip(".")
        problem = f"The file cannot be decoded ({type(error).__name__}: {reason}). Open and save it again."
        raise InvalidRequestError({file.field: problem}) from None


def _check_pixels(file: RawFile, width: int, height: int) -> None:
    if width * height > MAX_DECODED_PIXELS:
        raise InvalidRequestError(
            {file.field: f"The image has {width}x{height} pixels, too many to be decoded here (at most "
             f"{MAX_DECODED_PIXELS}). Shrink it first."}
        )  # fmt: skip


def _list_other_formats() -> list[str]:
    import PIL.Image

    PIL.Image.init()
    return [name for name in _OTHER_FORMATS if name in PIL.Image.OPEN]


# --- Encoding --------------------------------------------------------------------------------


def encode_png(image: PIL.Image.Image, *, smallest: bool = True) -> bytes:
    """Return an image as a PNG without metadata. Equal pixels give equal bytes."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=smallest)
    return stream.getvalue()


def encode_image(
    image: PIL.Image.Image, own_format: Format | None, formats: frozenset[Format], max_bytes: int | None
) -> tuple[bytes, Format] | None:
    """Return an image as a file.

    Args:
        image: an image of mode L, RGB or RGBA; the file keeps the colour profile in its ``info``.
        own_format: the preferred format; None without a preference.
        formats: the accepted formats.
        max_bytes: the first encoding within this limit wins; None takes the first.

    Returns:
        The bytes and their format: the smallest encoding if none is within the limit. None if the image has
        more pixels than the formats can store.
    """
    smallest: tuple[bytes, Format] | None = None
    for format, options in _iterate_encodings(image.mode, own_format, formats):
        if format == "png" and smallest and max_bytes and len(smallest[0]) > _HOPELESS_RATIO * max_bytes:
            continue
        if max(image.size) > _LONGEST_EDGE_PX.get(format, max(image.size)):
            continue
        data = _encode(image, format, options)
        if max_bytes is None or len(data) <= max_bytes:
            return data, format
        if smallest is None or len(data) < len(smallest[0]):
            smallest = data, format
    return smallest


def _iterate_encodings(
    mode: str, own_format: Format | None, formats: frozenset[Format]
) -> Iterator[tuple[Format, dict[str, object]]]:
    """Yield formats with their options, lossless encodings first."""
    candidates = [name for name in _FORMATS_BY_PREFERENCE if name in formats]
    if own_format == "jpeg" and mode != "RGBA":
        candidates = ["jpeg"]  # it is lossy already; a lossless copy would only be larger
    preferred = [own_format] if own_format in candidates else []
    for format in [*preferred, *(name for name in candidates if name != own_format)]:
        if format == "png":
            yield "png", {"compress_level": 6}
            yield "png", {"optimize": True}
        elif format == "webp":
            yield "webp", {"lossless": True, "quality": 80, "exact": True}
        elif format == "jpeg" and (mode != "RGBA" or candidates == ["jpeg"]):
            for quality in _JPEG_QUALITIES:
                yield "jpeg", {"quality": quality, "subsampling": 0}
        elif format == "gif" and candidates == ["gif"]:
            yield "gif", {}


def _encode(image: PIL.Image.Image, format: Format, options: dict[str, object]) -> bytes:
    import PIL.Image

    profile = image.info.get("icc_profile")
    if format == "jpeg" and image.mode == "RGBA":
        flat = PIL.Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    stream = io.BytesIO()
    image.save(stream, format.upper(), **options, **({"icc_profile": profile} if profile else {}))
    return stream.getvalue()
