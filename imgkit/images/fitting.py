"""Pictures made to fit what a model takes: told what is wrong, or changed as little as will do.

`check` only explains. `fitted` and `fitted_pair` decode, turn, convert, shrink, pad and encode. A picture
that fits is left alone, byte for byte; one that does not is encoded anew, without its metadata but for the
colour profile. The same picture makes the same bytes each time, so that caches and cassettes still match.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from imgkit.errors import InvalidRequestError
from imgkit.images import pixels
from imgkit.images.inputs import ImageFile, RawFile
from imgkit.images.mask_pixels import by, opacity_of, reopened, resized, rewritten
from imgkit.images.pixels import Look
from imgkit.images.sniff import Format

if TYPE_CHECKING:
    import PIL.Image


_MOST_STEPS = 24
_GENTLEST = 0.92
_STEEPEST = 0.5
_A_LITTLE_MORE = 0.97
_FIT = 'or say prepare="fit"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNeeds:
    """What a model takes.

    Attributes:
        formats: the file formats.
        max_bytes: largest file in bytes; None without a limit.
        max_pixels: largest width times height; None without a limit.
        square: width and height must be equal.
    """

    formats: frozenset[Format] = frozenset({"png", "jpeg", "webp"})
    max_bytes: int | None = None
    max_pixels: int | None = None
    square: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """What became of the pixels' places, so that a mask can follow.

    Attributes:
        orientation: of EXIF, which was applied; 1 if none was.
        inner: size in pixels after that, and after shrinking.
        outer: size in pixels with what was added to make it square.
    """

    orientation: int
    inner: tuple[int, int]
    outer: tuple[int, int]

    @property
    def corner(self) -> tuple[int, int]:
        """Where the picture lies within what was added."""
        return (self.outer[0] - self.inner[0]) // 2, (self.outer[1] - self.inner[1]) // 2


def problems(file: RawFile, needs: ImageNeeds) -> list[str]:
    """Return what is wrong with a picture for a model, and what to do. May block.

    Raises:
        InvalidRequestError: it cannot be opened at all.
    """
    return _problems(file, pixels.look(file), needs)


def check(file: RawFile, needs: ImageNeeds) -> None:
    """Refuse a picture that does not fit; what ``prepare="check"`` does. May block.

    Raises:
        InvalidRequestError: it does not fit, or cannot be opened; says everything that is wrong.
    """
    found = problems(file, needs)
    if found:
        raise InvalidRequestError({file.field: "; ".join(found) + "."})


def fit_image(file: RawFile, needs: ImageNeeds, cleanup: ExitStack) -> tuple[ImageFile, list[str]]:
    """Return a picture that fits a model; what ``prepare="fit"`` does. May block.

    Args:
        file: what was opened (`imgkit.images.inputs.open_file`), of any format that Pillow can open.
        needs: what the model takes.
        cleanup: gets what is to be closed when the call is over.

    Returns:
        The picture, and what was done to it in sentences for ``reply.warnings``; the file itself and nothing
        where it fits.

    Raises:
        InvalidRequestError: it cannot be opened, or be made small enough.
    """
    made, done, _ = _fitted(file, needs, cleanup)
    return made, done


def fit_image_and_mask(
    image: RawFile, mask: RawFile, needs: ImageNeeds, mask_needs: ImageNeeds, cleanup: ExitStack
) -> tuple[ImageFile, ImageFile, list[str]]:
    """Return a picture and its mask so that both fit; what moves in one moves in the other. May block.

    Args:
        image, needs: as for `fitted`.
        mask: for the picture as it is stored, or as it is shown where EXIF turns it; another size of the same
            shape is brought to the picture's.
        mask_needs: what the model takes as a mask; what is written is always a PNG.
        cleanup: as for `fitted`.

    Returns:
        Both, and what was done in sentences.

    Raises:
        InvalidRequestError: as for `fitted`; or the mask has no transparency, or another shape.
    """
    made, done, place = _fitted(image, needs, cleanup)
    seen = pixels.look(mask)
    size = (seen.width, seen.height)
    stored = pixels.look(image)
    if place == Placement(1, size, size) and not _problems(mask, seen, mask_needs):
        return made, ImageFile.of(mask), done
    opaque = opacity_of(mask)
    if size != stored.shown or stored.shown == (stored.width, stored.height):
        opaque = resized(opaque, (stored.width, stored.height), mask.field)
        opaque = _turned(opaque, place.orientation)
    opaque = resized(opaque, place.inner, mask.field)
    written = reopened(rewritten(_padded(opaque, place, pixels.OPAQUE)), mask.field, cleanup)
    if mask_needs.max_bytes is not None and written.length > mask_needs.max_bytes:
        raise InvalidRequestError(
            {mask.field: f"is {written.length} bytes also without its colours, and at most "
             f"{mask_needs.max_bytes} are taken: draw it with simpler edges, or shrink both."}
        )  # fmt: skip
    return made, written, [*done, f"{mask.field}: written anew to go with the picture."]


def moved(before: RawFile, after: ImageFile) -> bool:
    """Return whether fitting has turned, shrunk or padded a picture, so that its pixels are elsewhere."""
    seen = pixels.look(before)
    return seen.orientation != 1 or (seen.width, seen.height) != (after.kind.width, after.kind.height)


def _fitted(file: RawFile, needs: ImageNeeds, cleanup: ExitStack) -> tuple[ImageFile, list[str], Placement]:
    seen = pixels.look(file)
    if not _problems(file, seen, needs):
        made = ImageFile.of(file)
        size = (seen.width, seen.height)
        return made, [], Placement(1, size, size)
    done = list(_conversions(seen, needs))
    picture = _turned(pixels.plain(file), seen.orientation)
    place = _placement(seen, needs)
    data, place, format = _small_enough(file, picture, place, seen, needs)
    if place.inner != seen.shown:
        done.append(f"shrunk from {by(*seen.shown)} to {by(*place.inner)} pixels")
    if place.outer != place.inner:
        done.append(f"padded from {by(*place.inner)} to {by(*place.outer)} pixels, the picture in the middle")
    if format == "jpeg" and picture.mode == "RGBA":
        done.append("transparent parts made white")
    if format != seen.format.lower():
        done.append(f"written as {format}{', which loses a little' if format == 'jpeg' else ''}")
    elif not done:
        done.append(f"written anew in {len(data)} bytes instead of {file.length}")
    return reopened(data, file.field, cleanup), [f"{file.field}: {one}." for one in done], place


def _problems(file: RawFile, seen: Look, needs: ImageNeeds) -> list[str]:
    found = []
    if seen.format.lower() not in needs.formats:
        found.append(f"is {_a(seen.format)}, and {_names(needs)} is taken: convert it, {_FIT}")
    if seen.mode == "CMYK":
        found.append(f"is a CMYK {seen.format}: convert it to RGB, {_FIT}")
    if seen.bits > 8:
        found.append(f"has {seen.bits} bits per channel: convert it to 8, {_FIT}")
    if seen.mode in ("P", "PA", "1") and seen.format != "GIF":
        what = "only black and white" if seen.mode == "1" else "a palette"
        found.append(f"has {what} instead of full colours: convert it to RGB, {_FIT}")
    if seen.orientation != 1:
        found.append(f"is shown turned (EXIF orientation {seen.orientation}): turn its pixels, {_FIT}")
    if seen.frames > 1:
        found.append(f"is animated ({seen.frames} frames): give a single one, {_FIT} for the first")
    if needs.square and seen.width != seen.height:
        found.append(f"is {by(seen.width, seen.height)} pixels, and a square is taken: pad it, {_FIT}")
    if needs.max_pixels is not None and seen.width * seen.height > needs.max_pixels:
        found.append(
            f"has {seen.width * seen.height} pixels, and at most {needs.max_pixels} are taken: shrink it, "
            f"{_FIT}"
        )
    if needs.max_bytes is not None and file.length > needs.max_bytes:
        found.append(f"is {file.length} bytes, and at most {needs.max_bytes} are taken: shrink it, {_FIT}")
    return found


def _conversions(seen: Look, needs: ImageNeeds) -> list[str]:
    """Return what becomes of the pixels, apart from their number."""
    done = []
    if seen.frames > 1:
        done.append(f"the first of {seen.frames} frames taken")
    if seen.mode == "CMYK":
        done.append("converted from CMYK to RGB")
    elif seen.mode in ("P", "PA", "1"):
        done.append("converted to full colours")
    if seen.bits > 8:
        done.append(f"converted from {seen.bits} to 8 bits per channel")
    if seen.orientation != 1:
        done.append(f"turned upright (EXIF orientation {seen.orientation})")
    return done


def _placement(seen: Look, needs: ImageNeeds) -> Placement:
    scale = 1.0
    place = _scaled(Placement(seen.orientation, seen.shown, seen.shown), scale, seen.shown, needs)
    while needs.max_pixels is not None and place.inner != (1, 1):
        share = needs.max_pixels / (place.outer[0] * place.outer[1])
        if share >= 1:
            break
        scale *= min(math.sqrt(share), 0.999)  # more than once where an edge is down to its last pixel
        place = _scaled(place, scale, seen.shown, needs)
    return place


def _scaled(place: Placement, scale: float, shown: tuple[int, int], needs: ImageNeeds) -> Placement:
    inner = max(1, int(shown[0] * scale)), max(1, int(shown[1] * scale))
    outer = (max(inner), max(inner)) if needs.square else inner
    return replace(place, inner=inner, outer=outer)


def _small_enough(
    file: RawFile, picture: PIL.Image.Image, place: Placement, seen: Look, needs: ImageNeeds
) -> tuple[bytes, Placement, Format]:
    """Encode a picture within the limit: with all its pixels if that can be, else with fewer and fewer."""
    wanted: Format | None = next((one for one in needs.formats if one == seen.format.lower()), None)
    scale = max(place.inner) / max(seen.shown)
    for _ in range(_MOST_STEPS):
        page = _page(picture, place, needs)
        made = encoded(page, wanted, needs.formats, needs.max_bytes)
        if made is not None and (needs.max_bytes is None or len(made[0]) <= needs.max_bytes):
            return made[0], place, made[1]
        if place.inner == (1, 1):
            break
        share = needs.max_bytes / len(made[0]) if made and needs.max_bytes else 0.0
        scale *= min(_GENTLEST, max(_STEEPEST, math.sqrt(share) * _A_LITTLE_MORE))
        place = _scaled(place, scale, seen.shown, needs)
    limit = f"{needs.max_bytes} bytes" if needs.max_bytes else "this size"
    raise InvalidRequestError(
        {file.field: f"cannot be written as {_names(needs)} of {limit}: give another picture."}
    )


def _page(picture: PIL.Image.Image, place: Placement, needs: ImageNeeds) -> PIL.Image.Image:
    """Return the picture in its place: shrunk, and padded to what is taken."""
    import PIL.Image

    profile = picture.info.get("icc_profile")
    if picture.size != place.inner:
        picture = picture.resize(place.inner, PIL.Image.Resampling.LANCZOS)
    if place.outer != place.inner:
        if needs.formats & {"png", "webp"}:
            picture = _padded(picture.convert("RGBA"), place, (0, 0, 0, 0))
        else:
            picture = _padded(picture, place, _edge_colour(picture))
    picture.info["icc_profile"] = profile
    return picture


def _padded(picture: PIL.Image.Image, place: Placement, fill: int | tuple[int, ...]) -> PIL.Image.Image:
    import PIL.Image

    if place.outer == picture.size:
        return picture
    page = PIL.Image.new(picture.mode, place.outer, fill)
    page.paste(picture, place.corner)
    return page


def _edge_colour(picture: PIL.Image.Image) -> int | tuple[int, ...]:
    """Return the mean colour along the edges that will be padded."""
    import PIL.Image

    wide = picture.width > picture.height
    one, other = (
        ((0, 0, picture.width, 1), (0, picture.height - 1, picture.width, picture.height))
        if wide
        else ((0, 0, 1, picture.height), (picture.width - 1, 0, picture.width, picture.height))
    )
    means = [picture.crop(edge).resize((1, 1), PIL.Image.Resampling.BOX).tobytes() for edge in (one, other)]
    colour = tuple((first + second) // 2 for first, second in zip(*means, strict=True))
    return colour if len(colour) > 1 else colour[0]


def _turned(picture: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Apply an orientation of EXIF (CIPA DC-008, tag 0x0112)."""
    from PIL.Image import Transpose

    how = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }.get(orientation)  # fmt: skip
    if how is None:
        return picture
    profile = picture.info.get("icc_profile")
    turned = picture.transpose(how)
    turned.info["icc_profile"] = profile
    return turned


def _names(needs: ImageNeeds) -> str:
    return " or ".join(sorted(one.upper() for one in needs.formats))


def _a(name: str) -> str:
    return f"an {name}" if name[:1] in "AEIO" else f"a {name}"


_PREFERRED: tuple[Format, ...] = ("png", "webp", "jpeg", "gif")
_JPEG_QUALITIES = (95, 90, 85)
_LONGEST_EDGE: dict[Format, int] = {"webp": 16_383, "jpeg": 65_500, "gif": 65_535}
_HOPELESS = 1.3
"""So many times too large, a PNG is not worth the seconds that optimising it takes."""


def encoded(
    picture: PIL.Image.Image, wanted: Format | None, formats: frozenset[Format], max_bytes: int | None
) -> tuple[bytes, Format] | None:
    """Return a picture as a file.

    Args:
        picture: of mode L, RGB or RGBA; a colour profile in its ``info`` is kept.
        wanted: format to stay with, None where it is free.
        formats: those that are allowed.
        max_bytes: stop at the first way that is this small; None takes the first.

    Returns:
        The bytes, which are the smallest there are if none is small enough, and their format; None if the
        picture has more pixels than the formats can hold.
    """
    smallest: tuple[bytes, Format] | None = None
    for format, options in _ways(picture.mode, wanted, formats):
        if (
            smallest is not None
            and format == "png"
            and max_bytes
            and len(smallest[0]) > _HOPELESS * max_bytes
        ):
            continue
        if max(picture.size) > _LONGEST_EDGE.get(format, max(picture.size)):
            continue
        data = _saved(picture, format, options)
        if max_bytes is None or len(data) <= max_bytes:
            return data, format
        if smallest is None or len(data) < len(smallest[0]):
            smallest = data, format
    return smallest


def _ways(
    mode: str, wanted: Format | None, formats: frozenset[Format]
) -> Iterator[tuple[Format, dict[str, Any]]]:
    """Yield formats with options, those that lose nothing first."""
    free = [one for one in _PREFERRED if one in formats]
    if wanted == "jpeg" and mode != "RGBA":
        free = ["jpeg"]  # it lost something before; without loss it would only grow
    first = [wanted] if wanted in free else []
    for format in [*first, *(one for one in free if one != wanted)]:
        if format == "png":
            yield "png", {"compress_level": 6}
            yield "png", {"optimize": True}
        elif format == "webp":
            yield "webp", {"lossless": True, "quality": 80, "exact": True}
        elif format == "jpeg" and (mode != "RGBA" or free == ["jpeg"]):
            for quality in _JPEG_QUALITIES:
                yield "jpeg", {"quality": quality, "subsampling": 0}
        elif format == "gif" and free == ["gif"]:
            yield "gif", {}


def _saved(picture: PIL.Image.Image, format: Format, options: dict[str, Any]) -> bytes:
    import PIL.Image

    profile = picture.info.get("icc_profile")
    if format == "jpeg" and picture.mode == "RGBA":
        flat = PIL.Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A"))
        picture = flat
    stream = io.BytesIO()
    picture.save(stream, format.upper(), **options, **({"icc_profile": profile} if profile else {}))
    return stream.getvalue()
