"""The pictures of a request between being opened and being encoded.

A mask is always looked at, since one that does nothing costs as much as one that works. The pictures are
judged or changed where the caller says so (``prepare="check"`` or ``"fit"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, TypeAlias

from imgkit import fitting
from imgkit.errors import InvalidRequestError
from imgkit.fitting import ImageNeeds
from imgkit.inputs import InputFile, OpenedFile
from imgkit.mask_check import MOST_BYTES, check_mask
from imgkit.mask_pixels import by, converted
from imgkit.providers.base import MaskPolarity, OpenedInputs

Prepare: TypeAlias = Literal["check", "fit"]

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


def prepared(
    images: Sequence[OpenedFile],
    mask: OpenedFile | None,
    markup: OpenedFile | None,
    *,
    rules: InputRules,
    how: Prepare | None,
    cleanup: ExitStack,
) -> tuple[OpenedInputs, list[str]]:
    """Return the pictures of a request as they are to be sent. May block.

    Args:
        images: in the caller's order, the mask is for the first.
        mask, markup: where given.
        rules: what the model takes.
        how: "check" refuses what does not fit, "fit" changes it, None sends pictures as they are.
        cleanup: gets what is to be closed when the call is over.

    Returns:
        The pictures, and warnings for the reply: what was done, and what is odd.

    Raises:
        InvalidRequestError: one cannot be sent, or does not fit; nothing was sent.
    """
    if how == "check":
        for file in images:
            fitting.check(file, rules.image)
    if how == "fit":
        made, ready, told = _fitted(images, mask, rules, cleanup)
        if markup is not None:
            _check_in_place(images[0], made[0], markup)
    else:
        made, told = [InputFile.of(file) for file in images], []
        ready = InputFile.of(mask) if mask is not None else None
    if ready is not None:
        told += check_mask(ready, made[0], max_bytes=rules.mask.max_bytes)
        ready = converted(ready, rules.polarity, cleanup)
    return OpenedInputs(tuple(made), ready, InputFile.of(markup) if markup is not None else None), told


def _fitted(
    images: Sequence[OpenedFile], mask: OpenedFile | None, rules: InputRules, cleanup: ExitStack
) -> tuple[list[InputFile], InputFile | None, list[str]]:
    made: list[InputFile] = []
    told: list[str] = []
    ready: InputFile | None = None
    for file in images:
        if mask is not None and ready is None:
            one, ready, done = fitting.fitted_pair(file, mask, rules.image, rules.mask, cleanup)
        else:
            one, done = fitting.fitted(file, rules.image, cleanup)
        made.append(one)
        told += done
    return made, ready, told


def _check_in_place(before: OpenedFile, after: InputFile, markup: OpenedFile) -> None:
    """Refuse a markup over a picture whose pixels are elsewhere now."""
    if fitting.moved(before, after):
        size = by(after.kind.width or 0, after.kind.height or 0)
        raise InvalidRequestError(
            {markup.field: f"is drawn over the picture as it was, which has been made to fit ({size} pixels "
             "now): make the picture fit first, and draw over that."}
        )  # fmt: skip
