"""Whether a mask fits its picture: looked at before anything is sent.

The rules are those of ``POST /images/edits`` (OpenAI API reference, read 2026-11-23): a PNG with transparent
parts, under 4 MB, of the first picture's size.
"""

from __future__ import annotations

from dataclasses import dataclass

from imgkit import pixels
from imgkit.errors import InvalidRequestError
from imgkit.inputs import InputFile
from imgkit.mask_pixels import HOW
from imgkit.sniff import png_header

MOST_BYTES = 4 * 1024 * 1024
"""Largest mask in bytes that OpenAI's API takes."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What there is to say of a mask.

    Attributes:
        problems: why it would be refused, or do nothing; each names what to do.
        doubts: what is allowed, and probably not meant.
    """

    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def judge(mask: InputFile, image: InputFile | None, *, max_bytes: int | None = MOST_BYTES) -> Judgement:
    """Return what is wrong with a mask for the first picture of a request. Neither is moved nor changed.

    Args:
        mask: opened.
        image: the picture that it is for, opened; None where it is not here, and its size not known.
        max_bytes: what the API takes; None without a limit.
    """
    problems = _problems_of_bytes(mask, max_bytes)
    if image is not None:
        problems += _problems_of_size(mask, image)
    doubts = []
    if not problems:
        opaque = pixels.opacity(mask)
        if opaque is None or pixels.hides_all(opaque):
            problems.append(
                "is opaque everywhere, so nothing could change: make transparent what may, or turn it round "
                "with imgkit.masks.invert"
            )
        elif pixels.shows_all(opaque):
            doubts.append(
                "is transparent everywhere, so all of the picture may change, as without a mask. If that is "
                "not meant, draw it anew with imgkit.masks"
            )
    return Judgement(tuple(problems), tuple(doubts))


def check_mask(mask: InputFile, image: InputFile | None, *, max_bytes: int | None = MOST_BYTES) -> list[str]:
    """Refuse a mask that does not fit the first picture, before it is sent. May block.

    Args:
        mask: opened; neither it nor `image` is moved or changed.
        image: the picture that it is for, opened; None where it is not here, and its size not known.
        max_bytes: what the API takes; None without a limit.

    Returns:
        Warnings, for ``reply.warnings``.

    Raises:
        InvalidRequestError: it does not fit; ``fields["mask"]`` names what to do.
    """
    found = judge(mask, image, max_bytes=max_bytes)
    if found.problems:
        raise InvalidRequestError({mask.field: "; ".join(found.problems) + "."})
    return [f"mask: {doubt}." for doubt in found.doubts]


def _problems_of_bytes(mask: InputFile, max_bytes: int | None) -> list[str]:
    if mask.kind.format != "png":
        return [f"is a {mask.kind.format}, and a mask is a PNG with transparent parts: {HOW}"]
    header = png_header(mask.read_at)
    problems = []
    if not header.has_alpha:
        problems.append(f"has no transparency, which says what may change: {HOW}")
    if header.animated:
        problems.append("is an animated PNG: save a single picture")
    if max_bytes is not None and mask.length > max_bytes:
        problems.append(
            f"is {mask.length} bytes, and at most {max_bytes} are taken: `imgkit mask --from-mask mask.png "
            "-o small.png`, or imgkit.masks.union(mask), writes it without its colours"
        )
    return problems


def _problems_of_size(mask: InputFile, image: InputFile) -> list[str]:
    ours, theirs = (mask.kind.width, mask.kind.height), (image.kind.width, image.kind.height)
    if ours == theirs:
        return []
    said = f"is {ours[0]}x{ours[1]} pixels, the picture {theirs[0]}x{theirs[1]}"
    if ours == theirs[::-1] and pixels.look(image).shown == ours:
        return [f"{said}, and shown turned (EXIF): turn its pixels with PIL.ImageOps.exif_transpose"]
    return [
        f"{said}: `imgkit mask --from-mask mask.png --like photo.png -o fitting.png`, or "
        "imgkit.masks.resize, brings it to that size"
    ]
