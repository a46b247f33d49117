"""Input images of a request: prepared between opening and encoding.

Masks are always checked: a mask without effect costs as much as a useful one. Images are checked or changed
only if the caller asks for it (``prepare="check"`` or ``"fit"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import get_args

from imgkit.catalogue.facts import InputFacts
from imgkit.errors import InvalidRequestError
from imgkit.images import fitting
from imgkit.images.fitting import ImageNeeds
from imgkit.images.inputs import ImageFile, OpenedInputs, Prepare, RawFile
from imgkit.images.mask_pixels import MAX_MASK_BYTES, check_mask, convert_polarity, format_size
from imgkit.images.references import ImageReference
from imgkit.images.sniff import Format
from imgkit.providers.base import MaskPolarity

ANY_IMAGE = ImageNeeds()
ANY_MASK = ImageNeeds(formats=frozenset({"png"}), max_bytes=MAX_MASK_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRules:
    """The rules of a model for its input images.

    Attributes:
        image: rules for each image; the default for an unknown model.
        mask: rules for a mask.
        polarity: which pixels of a mask the API edits.
        hard_mask: each pixel of a grey mask is black or white.
    """

    image: ImageNeeds = ANY_IMAGE
    mask: ImageNeeds = ANY_MASK
    polarity: MaskPolarity = "transparent"
    hard_mask: bool = False

    @classmethod
    def from_facts(
        cls, facts: InputFacts | None, polarity: MaskPolarity, *, hard_mask: bool = False
    ) -> InputRules:
        """Return the rules of a model's facts. An unknown limit is no limit."""
        if facts is None:
            return cls(mask=replace(ANY_MASK, max_bytes=None), polarity=polarity, hard_mask=hard_mask)
        formats = frozenset(name for name in get_args(Format) if name in facts.formats) or ANY_IMAGE.formats
        return cls(
            image=ImageNeeds(formats=formats, max_bytes=facts.most_bytes, square=facts.square),
            mask=replace(ANY_MASK, max_bytes=facts.mask_most_bytes),
            polarity=polarity,
            hard_mask=hard_mask,
        )


def prepare_inputs(
    images: Sequence[RawFile | ImageReference],
    mask: RawFile | ImageReference | None,
    markup: RawFile | ImageReference | None,
    *,
    rules: InputRules,
    how: Prepare | None,
    cleanup: ExitStack,
) -> tuple[OpenedInputs, list[str]]:
    """Return the input images as they will be sent. May block.

    Args:
        images: in the caller's order; the mask belongs to the first. References stay as they are.
        mask, markup: None without one.
        rules: the model's rules.
        how: "check" refuses images that do not fit, "fit" changes them, None sends them unchanged.
        cleanup: gets the files to close at the end of the call.

    Returns:
        The inputs, and warnings about changes and doubtful masks.

    Raises:
        InvalidRequestError: an image cannot be sent or does not fit; nothing was sent.
    """
    warnings: list[str] = []
    prepared: list[ImageFile | ImageReference] = []
    raw_mask = mask
    for index, file in enumerate(images):
        if isinstance(file, ImageReference):
            prepared.append(file)
        elif how == "fit":
            if index == 0 and isinstance(mask, RawFile):
                fitted, raw_mask, changes = fitting.fit_image_and_mask(
                    file, mask, rules.image, rules.mask, cleanup
                )
            else:
                fitted, changes = fitting.fit_image(file, rules.image, cleanup)
            prepared.append(fitted)
            warnings += changes
        else:
            if how == "check":
                fitting.check_fit(file, rules.image)
            prepared.append(ImageFile.from_raw(file))
    ready_mask: ImageFile | ImageReference | None = None
    if isinstance(raw_mask, RawFile):
        mask_file = ImageFile.from_raw(raw_mask)
        first = prepared[0] if isinstance(prepared[0], ImageFile) else None
        warnings += check_mask(mask_file, first, max_bytes=rules.mask.max_bytes)
        ready_mask = convert_polarity(mask_file, rules.polarity, cleanup, hard=rules.hard_mask)
    else:
        ready_mask = raw_mask
    if isinstance(markup, RawFile):
        if how == "fit":
            _check_markup(images[0], prepared[0], markup)
        markup = ImageFile.from_raw(markup)
    return OpenedInputs(tuple(prepared), ready_mask, markup), warnings


def _check_markup(
    before: RawFile | ImageReference, after: ImageFile | ImageReference, markup: RawFile
) -> None:
    """Refuse a markup over an image whose pixels have moved."""
    if isinstance(before, ImageReference) or isinstance(after, ImageReference):
        return
    if fitting.has_moved_pixels(before, after):
        size = format_size(after.kind.width or 0, after.kind.height or 0)
        raise InvalidRequestError(
            {markup.field: f"The markup was drawn over the original image, which was fitted to {size} "
             "pixels. Fit the image first, and draw the markup over the result."}
        )  # fmt: skip
