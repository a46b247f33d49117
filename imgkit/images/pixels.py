"""Pixels of opened files, by Pillow, within bounds; for masks and for inputs that are made to fit.

Pillow is imported when a pixel is needed, and told which formats to try. A header that claims too much is
refused before anything is decoded, below the size at which Pillow itself would warn: filters of warnings are
shared by all threads, and no place to catch anything.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import UPLOAD_FORMATS, RawFile
from imgkit.images.sniff import HEAD_BYTES, png_header, sniff
from imgkit.redact import scrub

if TYPE_CHECKING:
    import PIL.Image

T = TypeVar("T")

MOST_DECODED_PIXELS = 64_000_000
"""Largest picture in pixels that is decoded: 256 MB as RGBA."""

OPAQUE = 255
_HALF = 128
_OTHERS = ("AVIF", "HEIF", "TIFF", "BMP", "JPEG2000")
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture's header says.

    Attributes:
        format: as Pillow calls it, such as "PNG"; an MPO is the JPEG that it begins with.
        mode: as Pillow calls it, such as "CMYK".
        width, height: in pixels, as stored.
        bits: per channel.
        frames: how many there are.
        orientation: that of EXIF, from 1 (as stored) to 8; from 5 on width and height change places.
    """

    format: str
    mode: str
    width: int
    height: int
    bits: int
    frames: int
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height in pixels, as viewers show it."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def look(file: RawFile) -> Look:
    """Return what the header of a picture says.

    Raises:
        InvalidRequestError: Pillow cannot open it, or it claims too many pixels.
    """

    def read(picture: PIL.Image.Image) -> Look:
        name = "JPEG" if picture.format == "MPO" else picture.format or ""
        frames = 1 if name == "JPEG" else getattr(picture, "n_frames", 1)
        return Look(name, picture.mode, *picture.size, _bits(file, picture), frames, _orientation(picture))

    return _with_picture(file, read)


def plain(file: RawFile) -> PIL.Image.Image:
    """Return the first frame of a picture, as stored, with 8 bits per channel: L, RGB or RGBA.

    A colour profile that fits is in its ``info``. CMYK becomes sRGB, by its own profile if it has one.

    Raises:
        InvalidRequestError: Pillow cannot decode it, or it claims too many pixels.
    """
    return _with_picture(file, lambda picture: _plain(file, picture))


def opacity(file: RawFile) -> PIL.Image.Image | None:
    """Return how opaque each pixel is, as an "L" picture (0: transparent), None without transparency.

    Raises:
        InvalidRequestError: as `decoded`; or the transparency is of a kind that Pillow does not apply.
    """
    return _with_picture(file, lambda picture: _opacity(file, picture))


def grey(file: RawFile, backdrop: int) -> PIL.Image.Image:
    """Return a picture as greys of 8 bits, its transparent parts over a grey of this value."""

    def convert(picture: PIL.Image.Image) -> PIL.Image.Image:
        import PIL.Image

        whole = _plain(file, picture)
        if whole.mode != "RGBA":
            return whole.convert("L")
        greys = whole.convert("RGB").convert("L")
        return PIL.Image.composite(greys, PIL.Image.new("L", whole.size, backdrop), whole.getchannel("A"))

    return _with_picture(file, convert)


def png_bytes(picture: PIL.Image.Image, *, smallest: bool = True) -> bytes:
    """Return a picture as a PNG without metadata: the same pixels make the same bytes."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=smallest)
    return stream.getvalue()


def hides_all(opaque: PIL.Image.Image) -> bool:
    """Return whether no pixel is more transparent than opaque."""
    low, _ = _extremes(opaque)
    return low >= _HALF


def shows_all(opaque: PIL.Image.Image) -> bool:
    """Return whether every pixel is fully transparent."""
    _, high = _extremes(opaque)
    return high == 0


def _extremes(band: PIL.Image.Image) -> tuple[int, int]:
    low, high = band.getextrema()
    return int(low), int(high)  # type: ignore[arg-type]  # of one band, these are numbers


def _plain(file: RawFile, picture: PIL.Image.Image) -> PIL.Image.Image:
    profile = picture.info.get("icc_profile") or b""
    opaque = _opacity(file, picture)
    whole = _eight_bits(picture)
    if opaque is not None:
        whole = whole.convert("RGBA")
        whole.putalpha(opaque)
    elif whole.mode == "CMYK":
        whole, profile = _from_cmyk(whole, profile), b""
    else:
        whole = whole.convert("L" if whole.mode in ("1", "L") else "RGB")
    fits = profile[16:20] == (b"GRAY" if whole.mode == "L" else b"RGB ")
    whole.info = {"icc_profile": profile} if fits else {}
    return whole


def _from_cmyk(picture: PIL.Image.Image, profile: bytes) -> PIL.Image.Image:
    from PIL import ImageCms

    if profile:
        try:
            made = ImageCms.profileToProfile(
                picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )  # fmt: skip
        except (ImageCms.PyCMSError, OSError):
            made = None  # a profile that is broken or of something else: the plain formula will do
        if made is not None:
            return made
    return picture.convert("RGB")


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if not picture.mode.startswith("I"):
        return picture
    wide = picture.convert("I")
    low, high = _extremes(wide)
    if low < 0 or high > 0xFFFF:
        raise ValueError("its greys have more than 16 bits")
    return wide.point([value >> 8 for value in range(0x10000)], "L")


def _opacity(file: RawFile, picture: PIL.Image.Image) -> PIL.Image.Image | None:
    if not picture.has_transparency_data:
        return None
    key, bits = picture.info.get("transparency"), _bits(file, picture)
    if picture.mode.startswith("I"):
        return picture.convert("I").point([OPAQUE * (value != key) for value in range(0x10000)], "L")
    if picture.mode == "L" and bits < 8 and isinstance(key, int):
        whole = key * OPAQUE // (2**bits - 1)  # the key is as stored, the pixels are stretched to 8 bits
        return picture.point([OPAQUE * (value != whole) for value in range(256)])
    if picture.mode == "RGB" and bits == 16:
        raise InvalidRequestError(
            {file.field: "makes one of its 16-bit colours transparent: save it anew, with an alpha channel."}
        )
    return picture.convert("RGBA").getchannel("A")


def _orientation(picture: PIL.Image.Image) -> int:
    import PIL.Image

    try:
        # That of the base class: a PNG's own decodes all pixels to look behind them.
        found = PIL.Image.Image.getexif(picture).get(_ORIENTATION, 1)
    except Exception:  # whatever Pillow makes of metadata that is broken: the picture itself may be sound
        return 1
    return found if found in range(1, 9) else 1


def _bits(file: RawFile, picture: PIL.Image.Image) -> int:
    if picture.format == "PNG":
        return png_header(file.read_at).bits
    return {"1": 1, "I": 32, "F": 32}.get(picture.mode, 16 if picture.mode.startswith("I;16") else 8)


def _with_picture(file: RawFile, work: Callable[[PIL.Image.Image], T]) -> T:
    import PIL.Image

    kind = sniff(file.read_at(HEAD_BYTES, 0))
    if kind is not None and kind.width and kind.height:
        _bounded(file, kind.width, kind.height)
    formats = [kind.format.upper()] if kind and kind.format in UPLOAD_FORMATS else _known_others()
    try:
        with PIL.Image.open(io.BytesIO(file.read()), formats=formats) as picture:
            _bounded(file, *picture.size)
            return work(picture)
    except ImgkitError:
        raise
    except PIL.UnidentifiedImageError:
        raise InvalidRequestError(
            {file.field: "is no picture that Pillow can open here: convert it to PNG (for HEIC, pillow-heif "
             "can be installed and its register_heif_opener() called)."}
        ) from None  # fmt: skip
    except Exception as error:
        # Whatever Pillow raises on a file of the caller's is that file's fault.
        why = scrub(str(error), limit=200).rstrip(".")
        raise InvalidRequestError(
            {file.field: f"cannot be decoded ({type(error).__name__}: {why}): open it and save it anew."}
        ) from None


def _bounded(file: RawFile, width: int, height: int) -> None:
    if width * height > MOST_DECODED_PIXELS:
        raise InvalidRequestError(
            {file.field: f"is {width}x{height} pixels, too many to be decoded here (at most "
             f"{MOST_DECODED_PIXELS}): shrink it first."}
        )  # fmt: skip


def _known_others() -> list[str]:
    import PIL.Image

    PIL.Image.init()
    return [name for name in _OTHERS if name in PIL.Image.OPEN]
