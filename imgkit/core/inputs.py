"""The pictures of a request between being opened and being encoded.

A mask is always looked at, since one that does nothing costs as much as one that works. The pictures are
judged or changed where the caller says so (``prepare="check"`` or ``"fit"``).
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
from imgkit.images.inputs import ImageFile, ImageReference, OpenedInputs, Prepare, RawFile
from imgkit.images.mask_pixels import MOST_BYTES, by, check_mask, convert_polarity
from imgkit.images.sniff import Format
from imgkit.providers.base import MaskPolarity

ANY_IMAGE = ImageNeeds()
ANY_MASK = ImageNeeds(formats=frozenset({"png"}), max_bytes=MOST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRules:
    """What a model takes as pictures.

    Attributes:
        image: of each picture; the default where nothing is known of the model.
        mask: of a mask.
        polarity: which pixels of a mask may change, as the provider's API has it.
    """

    image: ImageNeeds = ANY_IMAGE
    mask: ImageNeeds = ANY_MASK
    polarity: MaskPolarity = "transparent"

    @classmethod
    def of(cls, facts: InputFacts | None, polarity: MaskPolarity) -> InputRules:
        """Return what is known of a model as rules; a limit that is not known is none."""
        if facts is None:
            return cls(mask=replace(ANY_MASK, max_bytes=None), polarity=polarity)
        formats = frozenset(one for one in get_args(Format) if one in facts.formats) or ANY_IMAGE.formats
        return cls(
            image=ImageNeeds(formats=formats, max_bytes=facts.most_bytes, square=facts.square),
            mask=replace(ANY_MASK, max_bytes=facts.mask_most_bytes),
            polarity=polarity,
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
    """Return the pictures of a request as they are to be sent. May block.

    Args:
        images: in the caller's order, the mask is for the first. What is only named is left alone.
        mask, markup: where given.
        rules: what the model takes.
        how: "check" refuses what does not fit, "fit" changes it, None sends pictures as they are.
        cleanup: gets what is to be closed when the call is over.

    Returns:
        The pictures, and warnings for the reply: what was done, and what is odd.

    Raises:
        InvalidRequestError: one cannot be sent, or does not fit; nothing was sent.
    """
    told: list[str] = []
    made: list[ImageFile | ImageReference] = []
    ready = mask
    for index, file in enumerate(images):
        if isinstance(file, ImageReference):
            made.append(file)
        elif how == "fit":
            if index == 0 and isinstance(mask, RawFile):
                one, ready, done = fitting.fit_image_and_mask(file, mask, rules.image, rules.mask, cleanup)
            else:
                one, done = fitting.fit_image(file, rules.image, cleanup)
            made.append(one)
            told += done
        else:
            if how == "check":
                fitting.check(file, rules.image)
            made.append(ImageFile.of(file))
    if isinstance(ready, RawFile):
        ready = ImageFile.of(ready)
        first = made[0] if isinstance(made[0], ImageFile) else None
        told += check_mask(ready, first, max_bytes=rules.mask.max_bytes)
        ready = convert_polarity(ready, rules.polarity, cleanup)
    if isinstance(markup, RawFile):
        if how == "fit":
            _check_in_place(images[0], made[0], markup)
        markup = ImageFile.of(markup)
    return OpenedInputs(tuple(made), ready, markup), told


def _check_in_place(
    before: RawFile | ImageReference, after: ImageFile | ImageReference, markup: RawFile
) -> None:
    """Refuse a markup over a picture whose pixels are elsewhere now."""
    if isinstance(before, ImageReference) or isinstance(after, ImageReference):
        return
    if fitting.moved(before, after):
        size = by(after.kind.width or 0, after.kind.height or 0)
        raise InvalidRequestError(
            {markup.field: f"is drawn over the picture as it was, which has been made to fit ({size} pixels "
             "now): make the picture fit first, and draw over that."}
        )  # fmt: skip
