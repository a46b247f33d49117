"""What becomes of the pictures of a request before they are encoded."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from imgkit import masks
from imgkit.catalogue.facts import InputFacts
from imgkit.core.inputs import InputRules, prepare_inputs
from imgkit.errors import InvalidRequestError
from imgkit.images.fitting import ImageNeeds
from imgkit.images.inputs import ImageFile, ImageReference, OpenedInputs, open_file
from imgkit.providers.base import BaseProvider
from tests.support.openings import cleanup
from tests.support.pictures import picture
from tests.support.rasters import exif, hole, refusal, saved, two

__all__ = ["cleanup"]  # a fixture, used by name

HOLE = masks.from_box((32, 16), (0, 0, 16, 16))
ANY = InputRules()
SQUARE = InputRules(image=ImageNeeds(formats=frozenset({"png"}), square=True))


def opened(one: Any, field: str, cleanup: ExitStack) -> Any:
    return one if one is None or isinstance(one, ImageReference) else open_file(one, field, cleanup)


def prepare(
    images: list[Any], cleanup: ExitStack, mask: Any = None, markup: Any = None, how: Any = None,
    rules: InputRules = ANY,
) -> tuple[OpenedInputs, list[str]]:  # fmt: skip
    files = [opened(one, f"image.{index}", cleanup) for index, one in enumerate(images)]
    others = [opened(one, field, cleanup) for field, one in (("mask", mask), ("markup", markup))]
    return prepare_inputs(files, *others, rules=rules, how=how, cleanup=cleanup)


def test_as_they_are(cleanup: ExitStack) -> None:
    """Unless asked, pictures go as they are: what a server thinks of them is its affair."""
    given = [exif(6, two()), saved(two("CMYK"), "JPEG"), saved(two(), "GIF")]
    ready, told = prepare(given, cleanup, rules=SQUARE)
    assert [one.read() for one in ready.image] == given
    assert (ready.mask, ready.markup, told) == (None, None, [])


def test_what_cannot_be_sent_at_all(cleanup: ExitStack) -> None:
    assert list(refusal(lambda: prepare([saved(two(), "BMP")], cleanup))) == ["image.0"]
    assert list(refusal(lambda: prepare([picture()], cleanup, markup=b"text"))) == ["markup"]


def test_masks_are_always_looked_at(cleanup: ExitStack) -> None:
    ready, told = prepare([saved(two()), picture()], cleanup, mask=HOLE)
    assert ready.mask is not None
    assert (ready.mask.read(), told) == (HOLE, [])
    for how in (None, "check"):
        with pytest.raises(InvalidRequestError, match="the image 8x8"):
            prepare([picture(), saved(two())], cleanup, mask=HOLE, how=how)
    with pytest.raises(InvalidRequestError, match="no transparency"):
        prepare([picture()], cleanup, mask=picture())
    _, told = prepare([picture()], cleanup, mask=masks.from_box((8, 8), (0, 0, 8, 8)))
    assert "transparent everywhere" in told[0]


def test_the_limit_of_masks_is_the_rules(cleanup: ExitStack) -> None:
    small = InputRules(mask=ImageNeeds(max_bytes=10))
    with pytest.raises(InvalidRequestError, match="at most 10"):
        prepare([saved(two())], cleanup, mask=HOLE, rules=small)
    assert prepare([saved(two())], cleanup, mask=HOLE, rules=InputRules(mask=ImageNeeds()))[1] == []


def test_checking(cleanup: ExitStack) -> None:
    ready, _ = prepare([picture(), picture()], cleanup, how="check", rules=SQUARE)
    assert len(ready.image) == 2
    fields = refusal(lambda: prepare([picture(), saved(two(), "BMP")], cleanup, how="check", rules=SQUARE))
    assert list(fields) == ["image.1"]
    assert "is a BMP" in fields["image.1"]
    assert "takes a square" in fields["image.1"]


def test_fitting(cleanup: ExitStack) -> None:
    """The mask follows the first picture; the others are made to fit on their own."""
    ready, told = prepare([saved(two()), saved(two(), "BMP")], cleanup, mask=HOLE, how="fit", rules=SQUARE)
    assert [(one.kind.format, one.kind.width, one.kind.height) for one in ready.image] == [
        ("png", 32, 32)
    ] * 2
    assert ready.mask is not None
    assert hole(ready.mask.read()) == {(x, y) for x in range(16) for y in range(8, 24)}
    assert [one.partition(":")[0] for one in told] == ["image.0", "mask", "image.1", "image.1"]


def test_polarity_comes_last(cleanup: ExitStack) -> None:
    """The caller's mask is transparent where it may change, whatever the provider wants."""
    white = InputRules(image=SQUARE.image, polarity="white")
    ready, _ = prepare([saved(two())], cleanup, mask=HOLE, how="fit", rules=white)
    assert ready.mask is not None
    assert hole(masks.from_white(ready.mask.read())) == {(x, y) for x in range(16) for y in range(8, 24)}


def test_markup_is_not_left_behind(cleanup: ExitStack) -> None:
    """A drawing over a picture that has been moved is refused; over one that has not, it goes along."""
    markup = saved(two("RGBA"))
    for wrong in (saved(two()), exif(3, two(), "PNG")):
        rules = SQUARE if wrong == saved(two()) else InputRules()
        with pytest.raises(InvalidRequestError, match="markup: is drawn over the picture as it was"):
            prepare([wrong], cleanup, markup=markup, how="fit", rules=rules)
    for fine in (saved(two()), saved(two(), "BMP"), saved(two("CMYK"), "JPEG")):
        ready, _ = prepare([fine], cleanup, markup=markup, how="fit")
        assert ready.markup is not None
        assert ready.markup.read() == markup


@pytest.mark.parametrize("how", [None, "check", "fit"])
def test_what_is_only_named(how: Any, cleanup: ExitStack) -> None:
    """Pictures that are not here are left alone; of a mask over one, all but its size is looked at."""
    there = ImageReference(file_id="file-1")
    ready, told = prepare([there, picture()], cleanup, mask=HOLE, markup=picture(mode="RGBA"), how=how)
    assert ready.image[0] is there
    assert isinstance(ready.mask, ImageFile)
    assert (ready.mask.read(), told) == (HOLE, [])
    with pytest.raises(InvalidRequestError, match="no transparency"):
        prepare([there], cleanup, mask=picture(), how=how)
    ready, _ = prepare([picture()], cleanup, mask=there, markup=there, how=how)
    assert ready.mask is there is ready.markup


def test_rules_of_facts() -> None:
    """What is known of a model is what is judged; nothing is made up where nothing is known."""
    facts = InputFacts(formats=frozenset({"png", "tiff"}), most_bytes=9, mask_most_bytes=5, square=True)
    rules = InputRules.from_facts(facts, "white")
    assert rules.image == ImageNeeds(formats=frozenset({"png"}), max_bytes=9, square=True)
    assert (rules.mask.max_bytes, rules.mask.formats, rules.polarity) == (5, {"png"}, "white")
    unknown = InputRules.from_facts(None, "transparent")
    assert (unknown.image, unknown.mask.max_bytes) == (ImageNeeds(), None)


def test_what_a_provider_says() -> None:
    class White(BaseProvider):
        mask_polarity = "white"

    assert White().mask_polarity == "white"
    assert BaseProvider().mask_polarity == "transparent"
