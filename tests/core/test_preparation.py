"""Input images of a request before they are encoded."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from imgkit import masks
from imgkit.catalogue.facts import InputFacts
from imgkit.core.preparation import InputRules, prepare_inputs
from imgkit.errors import InvalidRequestError
from imgkit.images.fitting import ImageNeeds
from imgkit.images.inputs import ImageFile, OpenedInputs, open_file
from imgkit.images.references import ImageReference
from imgkit.providers import BaseProvider
from tests.support.openings import cleanup
from tests.support.pictures import picture
from tests.support.rasters import exif, hole, refusal, saved, two

__all__ = ["cleanup"]  # a fixture, used by name

HOLE = masks.from_box((32, 16), (0, 0, 16, 16))
ANY = InputRules()
SQUARE = InputRules(image=ImageNeeds(formats=frozenset({"png"}), square=True))


def open_unless_reference(value: Any, field: str, cleanup: ExitStack) -> Any:
    """Open an input, unless it is absent or a reference."""
    return value if value is None or isinstance(value, ImageReference) else open_file(value, field, cleanup)


def prepare(
    images: list[Any], cleanup: ExitStack, mask: Any = None, markup: Any = None, how: Any = None,
    rules: InputRules = ANY,
) -> tuple[OpenedInputs, list[str]]:  # fmt: skip
    """Open the inputs and prepare them."""
    files = [open_unless_reference(value, f"image.{index}", cleanup) for index, value in enumerate(images)]
    others = [
        open_unless_reference(value, field, cleanup) for field, value in (("mask", mask), ("markup", markup))
    ]
    return prepare_inputs(files, *others, rules=rules, how=how, cleanup=cleanup)


def read(file: ImageFile | ImageReference | None) -> bytes:
    """Return the bytes of an input that is a file."""
    assert isinstance(file, ImageFile)
    return file.read()


def test_inputs_stay_unchanged_by_default(cleanup: ExitStack) -> None:
    """Leaves input images unchanged unless asked; the server decides whether it takes them."""
    given = [exif(6, two()), saved(two("CMYK"), "JPEG"), saved(two(), "GIF")]
    ready, warnings = prepare(given, cleanup, rules=SQUARE)
    assert [read(image) for image in ready.image] == given
    assert (ready.mask, ready.markup, warnings) == (None, None, [])


def test_unsendable_inputs_are_refused(cleanup: ExitStack) -> None:
    """Refuses formats that no server takes, and names the field."""
    assert list(refusal(lambda: prepare([saved(two(), "BMP")], cleanup))) == ["image.0"]
    assert list(refusal(lambda: prepare([picture()], cleanup, markup=b"text"))) == ["markup"]


def test_masks_are_always_checked(cleanup: ExitStack) -> None:
    """Checks the size and transparency of masks, in every mode of `prepare`."""
    ready, warnings = prepare([saved(two()), picture()], cleanup, mask=HOLE)
    assert ready.mask is not None
    assert (read(ready.mask), warnings) == (HOLE, [])
    for how in (None, "check"):
        with pytest.raises(InvalidRequestError, match="the image 8x8"):
            prepare([picture(), saved(two())], cleanup, mask=HOLE, how=how)
    with pytest.raises(InvalidRequestError, match="no transparency"):
        prepare([picture()], cleanup, mask=picture())
    _, warnings = prepare([picture()], cleanup, mask=masks.from_box((8, 8), (0, 0, 8, 8)))
    assert "transparent everywhere" in warnings[0]


def test_rules_limit_masks(cleanup: ExitStack) -> None:
    """Limits the bytes of a mask as the model's rules say."""
    small = InputRules(mask=ImageNeeds(max_bytes=10))
    with pytest.raises(InvalidRequestError, match="at most 10"):
        prepare([saved(two())], cleanup, mask=HOLE, rules=small)
    assert prepare([saved(two())], cleanup, mask=HOLE, rules=InputRules(mask=ImageNeeds()))[1] == []


def test_check_reports_every_problem(cleanup: ExitStack) -> None:
    """Lists every problem of every input with how="check"."""
    ready, _ = prepare([picture(), picture()], cleanup, how="check", rules=SQUARE)
    assert len(ready.image) == 2
    fields = refusal(lambda: prepare([picture(), saved(two(), "BMP")], cleanup, how="check", rules=SQUARE))
    assert list(fields) == ["image.1"]
    assert "is a BMP" in fields["image.1"]
    assert "takes a square" in fields["image.1"]


def test_fit_moves_the_mask_with_its_image(cleanup: ExitStack) -> None:
    """Fits the mask with the first image, and each other image on its own."""
    ready, warnings = prepare(
        [saved(two()), saved(two(), "BMP")], cleanup, mask=HOLE, how="fit", rules=SQUARE
    )
    kinds = [image.kind for image in ready.image if isinstance(image, ImageFile)]
    assert [(kind.format, kind.width, kind.height) for kind in kinds] == [("png", 32, 32)] * 2
    assert ready.mask is not None
    assert hole(read(ready.mask)) == {(x, y) for x in range(16) for y in range(8, 24)}
    assert [warning.partition(":")[0] for warning in warnings] == ["image.0", "mask", "image.1", "image.1"]


def test_polarity_is_converted_last(cleanup: ExitStack) -> None:
    """Converts the caller's mask to the provider's polarity after fitting it."""
    white = InputRules(image=SQUARE.image, polarity="white")
    ready, _ = prepare([saved(two())], cleanup, mask=HOLE, how="fit", rules=white)
    assert ready.mask is not None
    assert hole(masks.from_white(read(ready.mask))) == {(x, y) for x in range(16) for y in range(8, 24)}


def test_markup_needs_an_unmoved_image(cleanup: ExitStack) -> None:
    """Sends markup along unless fitting moved the image that it is drawn over."""
    markup = saved(two("RGBA"))
    for wrong in (saved(two()), exif(3, two(), "PNG")):
        rules = SQUARE if wrong == saved(two()) else InputRules()
        with pytest.raises(InvalidRequestError, match="markup: The markup was drawn over the original image"):
            prepare([wrong], cleanup, markup=markup, how="fit", rules=rules)
    for fine in (saved(two()), saved(two(), "BMP"), saved(two("CMYK"), "JPEG")):
        ready, _ = prepare([fine], cleanup, markup=markup, how="fit")
        assert ready.markup is not None
        assert read(ready.markup) == markup


@pytest.mark.parametrize("how", [None, "check", "fit"])
def test_references_are_left_alone(how: Any, cleanup: ExitStack) -> None:
    """Passes references on unchanged, and checks a mask over a reference except for its size."""
    there = ImageReference(file_id="file-1")
    ready, warnings = prepare([there, picture()], cleanup, mask=HOLE, markup=picture(mode="RGBA"), how=how)
    assert ready.image[0] is there
    assert isinstance(ready.mask, ImageFile)
    assert (read(ready.mask), warnings) == (HOLE, [])
    with pytest.raises(InvalidRequestError, match="no transparency"):
        prepare([there], cleanup, mask=picture(), how=how)
    ready, _ = prepare([picture()], cleanup, mask=there, markup=there, how=how)
    assert ready.mask is there is ready.markup


def test_rules_come_from_model_facts() -> None:
    """Builds the input rules from the facts known about a model, and no rules without facts."""
    facts = InputFacts(formats=frozenset({"png", "tiff"}), most_bytes=9, mask_most_bytes=5, square=True)
    rules = InputRules.from_facts(facts, "white")
    assert rules.image == ImageNeeds(formats=frozenset({"png"}), max_bytes=9, square=True)
    assert (rules.mask.max_bytes, rules.mask.formats, rules.polarity) == (5, frozenset({"png"}), "white")
    unknown = InputRules.from_facts(None, "transparent")
    assert (unknown.image, unknown.mask.max_bytes) == (ImageNeeds(), None)


def test_the_provider_names_its_mask_polarity() -> None:
    """Reads the mask polarity of a provider; transparent is the default."""

    class White(BaseProvider):
        mask_polarity = "white"

    assert White().mask_polarity == "white"
    assert BaseProvider().mask_polarity == "transparent"
