"""Painting, editing and varying images, and the image files of the offline painter."""

from __future__ import annotations

import hashlib
import io
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from imgkit.painter import glyphs, lettering
from imgkit.painter.image_files import encode_image, read_stored_prompt
from imgkit.painter.paint import Brief, edit_image, font_warnings, paint_image, vary_image
from tests.support.processes import run_process

OTTER = "A cute baby sea otter"


def make_brief(
    prompt: str = OTTER, width: int = 192, height: int = 192, salt: str = "", **options: bool
) -> Brief:
    """Return a brief; another salt gives another seed."""
    return Brief(prompt, width, height, hashlib.sha256(salt.encode()).hexdigest(), **options)


def hash_image(image: Image.Image) -> str:
    """Return a digest of an image's mode and pixels."""
    return hashlib.sha256(image.mode.encode() + image.tobytes()).hexdigest()


def changed_percent(left: Image.Image, right: Image.Image) -> int:
    """Return the share of different pixels in percent."""
    difference = ImageChops.difference(left.convert("RGB"), right.convert("RGB")).convert("L")
    same = difference.histogram()[0]
    return 100 - same * 100 // (left.width * left.height)


def make_photograph(width: int = 160, height: int = 120) -> Image.Image:
    """Return an image that is not a painting."""
    page = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(page).ellipse((20, 20, 80, 90), fill=(200, 60, 40))
    return page


def make_hole_mask(size: tuple[int, int], box: tuple[int, int, int, int], alpha: int = 0) -> Image.Image:
    """Return a mask with an elliptical hole."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).ellipse(box, fill=(0, 0, 0, alpha))
    return mask


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the painter look for its fonts in a package that does not exist."""
    monkeypatch.setattr(glyphs, "FONT_PACKAGE", "no_such_fonts")


PROGRAM = """
import hashlib
from imgkit.painter.paint import Brief, paint_image
for prompt in {prompts!r}:
    image = paint_image(Brief(prompt, 96, 80, "5eed"))
    print(hashlib.sha256(image.mode.encode() + image.tobytes()).hexdigest())
"""


def test_equal_briefs_give_equal_pixels() -> None:
    """Equal briefs give equal pixels, also in another process with another hash seed."""
    prompts = [OTTER, "two dogs in the rain at night", "xyzzy", "a vase of red roses on a table"]
    expected = [hash_image(paint_image(Brief(prompt, 96, 80, "5eed"))) for prompt in prompts]
    assert expected == [hash_image(paint_image(Brief(prompt, 96, 80, "5eed"))) for prompt in prompts]
    program = PROGRAM.format(prompts=prompts)
    process = run_process([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.split() == expected


def test_threads_paint_the_same() -> None:
    """Threads that paint at once produce the same images as a single thread."""
    prompts = [OTTER, "a robot playing the guitar", "grfl brrm", "five yellow flowers"] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: hash_image(paint_image(make_brief(prompt))), prompts))
    assert together == [hash_image(paint_image(make_brief(prompt))) for prompt in prompts]


def test_seeds_differ() -> None:
    """Two seeds give visibly different images of a prompt."""
    for prompt in (OTTER, "three cats", "a city at night", "xyzzy"):
        assert (
            changed_percent(paint_image(make_brief(prompt)), paint_image(make_brief(prompt, salt="other")))
            > 15
        )


def test_colour_words_colour_the_figure() -> None:
    """A red cat is mostly red, a blue cat mostly blue."""
    for colour, channel in (("red", 0), ("blue", 2)):
        page = paint_image(make_brief(f"a {colour} cat", transparent=True)).resize(
            (1, 1), Image.Resampling.BOX
        )
        assert max(page.tobytes()[:3]) == page.tobytes()[channel]


def test_three_cats_are_three() -> None:
    """On a transparent background, three cats are three separate shapes."""
    alpha = paint_image(make_brief("three cats", 480, 160, transparent=True)).getchannel("A")
    columns = [alpha.crop((x, 0, x + 1, 140)).getbbox() is not None for x in range(alpha.width)]
    starts = sum(now and not before for before, now in zip([False, *columns], columns, strict=False))
    assert starts == 3


@pytest.mark.parametrize(
    ("width", "height"),
    [(16, 16), (16, 48), (48, 16), (64, 64), (100, 300), (300, 100), (256, 256), (333, 217), (3840, 1280)],
)
@pytest.mark.parametrize("prompt", [OTTER, "ten cats and a castle under many stars", "unknown grfl words"])
def test_sizes(prompt: str, width: int, height: int) -> None:
    """Images of every size and aspect ratio can be painted."""
    assert paint_image(make_brief(prompt, width, height)).size == (width, height)


def test_transparent_background() -> None:
    """A transparent painting contains only figures; the corners stay empty."""
    page = paint_image(make_brief("a cat", transparent=True))
    alpha = page.getchannel("A")
    assert page.mode == "RGBA"
    assert alpha.getpixel((0, 0)) == 0
    assert 10 < sum(alpha.histogram()[200:]) * 100 // (page.width * page.height) < 80


def test_mark_fits_from_48_pixels_on() -> None:
    """Images from 48 pixels on carry the mark; an image of 16 pixels has no room for it."""
    for size, is_marked in (((1024, 1024), True), ((64, 64), True), ((48, 48), True), ((16, 16), False)):
        page = Image.new("RGB", size, (9, 99, 9))
        lettering.write_mark(page)
        assert (page.getcolors(9999) != [(size[0] * size[1], (9, 99, 9))]) is is_marked


def test_masked_edit_keeps_every_other_pixel() -> None:
    """Outside the hole every pixel stays exactly equal; inside most pixels change."""
    before = make_photograph()
    mask = make_hole_mask(before.size, (60, 10, 140, 100))
    for prompt in ("a red bird", "a castle at sunset", "xyzzy", "", "many many stars"):
        after = edit_image(make_brief(prompt, 160, 120), before, mask)
        keep = mask.getchannel("A").point([255 if value >= 128 else 0 for value in range(256)])
        outside = Image.composite(after, before, keep)
        assert outside.tobytes() == before.tobytes()
        box = (75, 30, 125, 80)
        assert changed_percent(after.crop(box), before.crop(box)) > 80


def test_half_transparent_mask_counts_from_the_middle() -> None:
    """Alpha 127 is repainted, alpha 128 is not."""
    before = make_photograph()
    for alpha, is_same in ((127, False), (128, True)):
        after = edit_image(
            make_brief("a dog", 160, 120), before, make_hole_mask(before.size, (40, 20, 120, 100), alpha)
        )
        assert (after.tobytes() == before.tobytes()) is is_same


def test_mask_without_transparency_changes_nothing() -> None:
    """A mask without an alpha channel keeps the whole image."""
    before = make_photograph()
    assert (
        edit_image(make_brief("a dog", 160, 120), before, Image.new("RGB", before.size)).tobytes()
        == before.tobytes()
    )


def test_tiny_hole_has_no_mark() -> None:
    """A hole of 6 pixels has no room for the mark, and the pixels around it stay."""
    before = make_photograph()
    after = edit_image(make_brief("a dog", 160, 120), before, make_hole_mask(before.size, (30, 30, 35, 35)))
    difference = ImageChops.difference(after, before).getbbox()
    assert difference is not None
    assert difference[0] >= 30
    assert difference[1] >= 30
    assert difference[2] <= 36
    assert difference[3] <= 36


def test_mask_of_another_size_is_rejected() -> None:
    """Mask and image must have the same size."""
    with pytest.raises(ValueError, match="The mask is 10x10"):
        edit_image(make_brief(), make_photograph(), Image.new("RGBA", (10, 10)))


@pytest.mark.parametrize(
    "prompt", ["wearing a beret", "add a red balloon", "make it night", "xyzzy", "snowing", "add 3 cats"]
)
def test_edit_without_mask_adds_something(prompt: str) -> None:
    """Without a mask the image stays recognisable, and part of it changes."""
    before = paint_image(make_brief())
    after = edit_image(make_brief(prompt, salt="edit"), before, None)
    assert after.size == before.size
    assert changed_percent(after, before) >= 2
    if prompt not in ("make it night",):
        assert changed_percent(after, before) < 75


def test_hat_goes_to_the_upper_middle() -> None:
    """A beret is added in the upper half; below it only the mark changes."""
    before = Image.new("RGB", (200, 200), (120, 160, 200))
    after = edit_image(make_brief("put on a beret", 200, 200), before, None)
    assert changed_percent(after.crop((50, 0, 150, 100)), before.crop((50, 0, 150, 100))) > 25
    assert changed_percent(after.crop((0, 110, 200, 180)), before.crop((0, 110, 200, 180))) == 0


def test_edit_resizes_first() -> None:
    """The result has the size of the brief and keeps the transparency of the input."""
    before = make_photograph().convert("RGBA")
    before.putalpha(200)
    mask = make_hole_mask(before.size, (60, 10, 140, 100))
    after = edit_image(make_brief("a dog", 320, 240), before, mask)
    assert after.size == (320, 240)
    assert after.mode == "RGBA"
    assert after.getchannel("A").getpixel((0, 0)) == 200


def test_variations_differ() -> None:
    """Variations keep the size, and differ from the original and from each other."""
    painting, photograph = paint_image(make_brief(width=160, height=120)), make_photograph()
    for prompt, image in (
        (OTTER, painting),
        ("", photograph),
        ("xyzzy", paint_image(make_brief("xyzzy", 160, 120))),
    ):
        first, second = (vary_image(make_brief(prompt, 160, 120, salt), image) for salt in ("one", "two"))
        assert first.size == second.size == (160, 120)
        for left, right in ((first, image), (second, image), (first, second)):
            assert changed_percent(left, right) > 15


def test_variation_without_prompt_keeps_colours() -> None:
    """The variation of a red image without a prompt is mostly red."""
    page = vary_image(make_brief("", 100, 100, "vary"), Image.new("RGB", (100, 100), (200, 40, 40)))
    red, green, blue = page.crop((50, 10, 51, 11)).tobytes()
    assert red > 2 * green
    assert red > 2 * blue


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_image_mode_is_accepted(mode: str) -> None:
    """Edits and variations accept images of any mode."""
    image = Image.new(mode, (64, 64))
    assert edit_image(make_brief("a dog", 64, 64), image, None).mode in ("RGB", "RGBA")
    assert vary_image(make_brief("", 64, 64), image).mode in ("RGB", "RGBA")


SCRIPTS = [
    "",
    "   ",
    "\x00\x01\x7f\u200b\ufeff",
    "\u0301\u0301",
    "مرحبا بالعالم",
    "שלום עולם and more",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "გამარჯობა",
    "猫と犬",
    "안녕하세요",
    "👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪",
    "\ud800 lone surrogate",
    "x" * 32_000,
    "grfl " * 6_400,
    "ﷺ" * 50,
]


@pytest.mark.parametrize("prompt", SCRIPTS)
def test_any_script(prompt: str) -> None:
    """A prompt in any script is painted, even if no font covers it."""
    for size in ((64, 64), (256, 96)):
        assert paint_image(make_brief(prompt, *size)).size == size


def test_caption_is_written() -> None:
    """An unknown prompt becomes a caption; different prompts of equal length look different."""
    page, other = (Image.new("RGB", (200, 100), "white") for _ in range(2))
    assert lettering.write_caption(page, "grfl")
    assert lettering.write_caption(other, "brrm")
    assert changed_percent(page, Image.new("RGB", (200, 100), "white")) > 2
    assert page.tobytes() != other.tobytes()
    assert not lettering.write_caption(page, "\x00\u200b")


def test_scripts_have_their_fonts() -> None:
    """Letters of several scripts map to a font that covers them."""
    for letter, part in (
        ("a", "NotoSans["),
        ("ب", "Arabic"),
        ("ש", "Hebrew"),
        ("ก", "Thai"),
        ("🦦", "Emoji"),
    ):
        assert part in (glyphs.find_font_file(letter) or "")
    assert glyphs.find_font_file("猫") is None


@settings(max_examples=40)
@given(st.text(max_size=60), st.integers(16, 80), st.integers(16, 80), st.booleans())
def test_arbitrary_text(prompt: str, width: int, height: int, transparent: bool) -> None:
    """Any text can be painted, and its image file returns the text."""
    page = paint_image(make_brief(prompt, width, height, transparent=transparent))
    assert page.size == (width, height)
    stored = read_stored_prompt(Image.open(io.BytesIO(encode_image(page, "png", None, prompt=prompt))))
    assert stored == prompt.replace("\0", "")


@pytest.mark.usefixtures("no_fonts")
def test_without_fonts() -> None:
    """Without the fonts the painter paints simple shapes, and a warning explains why."""
    (warning,) = font_warnings()
    assert "pip install 'imgkit-service[painter]'" in warning
    for prompt in (
        OTTER,
        "two dogs and a house at sunset",
        "xyzzy",
        "مرحبا",
        "a knight on a horse",
        "a cat, a car and a rose",
    ):
        image = paint_image(make_brief(prompt))
        assert image.size == (192, 192)
        assert changed_percent(image, paint_image(make_brief(prompt, salt="other"))) > 10
    before = make_photograph()
    after = edit_image(make_brief("a dog", 160, 120), before, make_hole_mask(before.size, (60, 10, 140, 100)))
    assert changed_percent(after, before) > 10


def test_no_warning_with_fonts() -> None:
    """With the fonts there is no warning."""
    assert font_warnings() == ()


@pytest.mark.parametrize("prompt", [OTTER, "größer, 猫, émoji 🦦", "", "a\nb\tc"])
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_files_remember_their_prompt(output_format: str, prompt: str) -> None:
    """A file of each format opens in that format and contains its prompt."""
    data = encode_image(paint_image(make_brief(prompt, 64, 64)), output_format, 80, prompt=prompt)
    opened = Image.open(io.BytesIO(data))
    assert (opened.format or "").lower() == output_format
    assert read_stored_prompt(opened) == prompt


def test_files_of_other_origin_have_no_prompt() -> None:
    """A description in a file of other origin is not read as a prompt."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "my holiday"
    make_photograph().save(file, "JPEG", exif=exif)
    assert read_stored_prompt(Image.open(file)) == ""
    assert read_stored_prompt(make_photograph()) == ""


def test_long_prompt_fits_every_format() -> None:
    """The longest prompt of the API fits into every format; JPEG may truncate it."""
    prompt = "猫" * 32_000
    for output_format in ("png", "jpeg", "webp"):
        stored = read_stored_prompt(
            Image.open(io.BytesIO(encode_image(make_photograph(), output_format, None, prompt=prompt)))
        )
        assert prompt.startswith(stored)
        assert len(stored) >= 19_000


def test_png_is_exact_and_keeps_transparency() -> None:
    """A PNG file contains exactly the painted pixels, with their transparency."""
    page = paint_image(make_brief(transparent=True))
    opened = Image.open(io.BytesIO(encode_image(page, "png", None, prompt="")))
    assert (opened.mode, opened.tobytes()) == ("RGBA", page.tobytes())


def test_compression_sets_quality() -> None:
    """A higher compression value makes a larger JPEG or WebP file, as in the real API."""
    page = paint_image(make_brief())
    for output_format in ("jpeg", "webp"):
        low, high = (len(encode_image(page, output_format, number, prompt="")) for number in (10, 90))
        assert low < high


def test_unknown_format_is_rejected() -> None:
    """An unsupported format raises ValueError."""
    with pytest.raises(ValueError, match="gif"):
        encode_image(make_photograph(), "gif", None, prompt="")


def test_visual_order_of_words() -> None:
    """Words and letters of a right-to-left script are reversed, words of other scripts are not."""
    assert lettering._to_visual_order(["אב", "one", "two", "גד"], True) == ["דג", "one", "two", "בא"]
    assert lettering._to_visual_order(["one", "אב", "גד", "two"], False) == ["one", "דג", "בא", "two"]


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (0, 0, 2, 119), (0, 60, 159, 60), (0, 0, 159, 119)])
def test_holes_of_any_shape(box: tuple[int, int, int, int]) -> None:
    """A hole of a single pixel, a line or the whole image can be painted with any setting."""
    before = make_photograph()
    mask = Image.new("RGBA", before.size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).rectangle(box, fill=(0, 0, 0, 0))
    for prompt in ("a dog", "a dog on a meadow at night", "a city", "a beach", "grfl"):
        after = edit_image(make_brief(prompt, 160, 120), before, mask)
        difference = ImageChops.difference(after, before).getbbox()
        assert difference is not None
        assert difference[0] >= box[0]
        assert difference[1] >= box[1]
        assert difference[2] <= box[2] + 1
        assert difference[3] <= box[3] + 1
