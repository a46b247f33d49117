"""The painter of the offline backend: paintings, edits, variations, files."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from imgkit.painter import glyphs, lettering
from imgkit.painter.painter import Brief, edit, encode, notices, paint, prompt_of, vary

OTTER = "A cute baby sea otter"


def brief(prompt: str = OTTER, width: int = 192, height: int = 192, salt: str = "", **more: bool) -> Brief:
    """Return a brief whose seed depends on a salt."""
    return Brief(prompt, width, height, hashlib.sha256(salt.encode()).hexdigest(), **more)


def digest(picture: Image.Image) -> str:
    """Return a picture's fingerprint."""
    return hashlib.sha256(picture.mode.encode() + picture.tobytes()).hexdigest()


def changed(one: Image.Image, other: Image.Image) -> int:
    """Return how many percent of the pixels differ."""
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).convert("L")
    same = difference.histogram()[0]
    return 100 - same * 100 // (one.width * one.height)


def photograph(width: int = 160, height: int = 120) -> Image.Image:
    """Return a picture that the painter did not make."""
    page = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(page).ellipse((20, 20, 80, 90), fill=(200, 60, 40))
    return page


def hole(size: tuple[int, int], box: tuple[int, int, int, int], alpha: int = 0) -> Image.Image:
    """Return a mask that asks to repaint an ellipse."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).ellipse(box, fill=(0, 0, 0, alpha))
    return mask


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the painter look for its fonts in a package that does not exist."""
    monkeypatch.setattr(glyphs, "PACKAGE", "no_such_fonts")


PROGRAM = """
import hashlib
from imgkit.painter.painter import Brief, paint
for prompt in {prompts!r}:
    picture = paint(Brief(prompt, 96, 80, "5eed"))
    print(hashlib.sha256(picture.mode.encode() + picture.tobytes()).hexdigest())
"""


def test_same_brief_same_pixels() -> None:
    """A brief gives the same pixels again, in this process and in a fresh one with another hash seed."""
    prompts = [OTTER, "two dogs in the rain at night", "xyzzy", "a vase of red roses on a table"]
    here = [digest(paint(Brief(prompt, 96, 80, "5eed"))) for prompt in prompts]
    assert here == [digest(paint(Brief(prompt, 96, 80, "5eed"))) for prompt in prompts]
    program = PROGRAM.format(prompts=prompts)
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == here


def test_threads_paint_the_same() -> None:
    """Several threads may paint at once; each picture is what one thread alone paints."""
    prompts = [OTTER, "a robot playing the guitar", "grfl brrm", "five yellow flowers"] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: digest(paint(brief(prompt))), prompts))
    assert together == [digest(paint(brief(prompt))) for prompt in prompts]


def test_seeds_differ() -> None:
    """Two seeds paint one prompt visibly differently."""
    for prompt in (OTTER, "three cats", "a city at night", "xyzzy"):
        assert changed(paint(brief(prompt)), paint(brief(prompt, salt="other"))) > 15


def test_colour_words_reach_the_picture() -> None:
    """A red cat is mostly red, a blue one mostly blue."""
    for colour, most in (("red", 0), ("blue", 2)):
        page = paint(brief(f"a {colour} cat", transparent=True)).resize((1, 1), Image.Resampling.BOX)
        assert max(page.tobytes()[:3]) == page.tobytes()[most]


def test_three_cats_are_three() -> None:
    """On a transparent ground, three cats are three separate shapes."""
    alpha = paint(brief("three cats", 480, 160, transparent=True)).getchannel("A")
    columns = [alpha.crop((x, 0, x + 1, 140)).getbbox() is not None for x in range(alpha.width)]
    starts = sum(now and not before for before, now in zip([False, *columns], columns, strict=False))
    assert starts == 3


@pytest.mark.parametrize(
    ("width", "height"),
    [(16, 16), (16, 48), (48, 16), (64, 64), (100, 300), (300, 100), (256, 256), (333, 217), (3840, 1280)],
)
@pytest.mark.parametrize("prompt", [OTTER, "ten cats and a castle under many stars", "unknown grfl words"])
def test_sizes(prompt: str, width: int, height: int) -> None:
    """Every size and shape of picture can be painted."""
    assert paint(brief(prompt, width, height)).size == (width, height)


def test_transparent_background() -> None:
    """A transparent painting has only the things in it: no colour where nothing is."""
    page = paint(brief("a cat", transparent=True))
    alpha = page.getchannel("A")
    assert page.mode == "RGBA"
    assert alpha.getpixel((0, 0)) == 0
    assert 10 < sum(alpha.histogram()[200:]) * 100 // (page.width * page.height) < 80


def test_mark_fits_from_48_pixels_on() -> None:
    """The mark is there on small pictures, and left out where it cannot fit."""
    for size, there in (((1024, 1024), True), ((64, 64), True), ((48, 48), True), ((16, 16), False)):
        page = Image.new("RGB", size, (9, 99, 9))
        lettering.mark(page)
        assert (page.getcolors(9999) != [(size[0] * size[1], (9, 99, 9))]) is there


def test_masked_edit_keeps_every_other_pixel() -> None:
    """Outside the hole no pixel changes, not even by one; inside most do."""
    before = photograph()
    mask = hole(before.size, (60, 10, 140, 100))
    for prompt in ("a red bird", "a castle at sunset", "xyzzy", "", "many many stars"):
        after = edit(brief(prompt, 160, 120), before, mask)
        kept = mask.getchannel("A").point([255 if value >= 128 else 0 for value in range(256)])
        outside = Image.composite(after, before, kept)
        assert outside.tobytes() == before.tobytes()
        box = (75, 30, 125, 80)
        assert changed(after.crop(box), before.crop(box)) > 80


def test_half_transparent_mask_counts_from_the_middle() -> None:
    """Alpha 127 asks for new paint, 128 does not."""
    before = photograph()
    for alpha, same in ((127, False), (128, True)):
        after = edit(brief("a dog", 160, 120), before, hole(before.size, (40, 20, 120, 100), alpha))
        assert (after.tobytes() == before.tobytes()) is same


def test_mask_without_transparency_changes_nothing() -> None:
    """A mask that has no alpha at all keeps the whole picture."""
    before = photograph()
    assert edit(brief("a dog", 160, 120), before, Image.new("RGB", before.size)).tobytes() == before.tobytes()


def test_tiny_hole_has_no_mark() -> None:
    """In a hole of 6 pixels there is no room for the mark, and the rest stays as it was."""
    before = photograph()
    after = edit(brief("a dog", 160, 120), before, hole(before.size, (30, 30, 35, 35)))
    difference = ImageChops.difference(after, before).getbbox()
    assert difference is not None
    assert difference[0] >= 30
    assert difference[1] >= 30
    assert difference[2] <= 36
    assert difference[3] <= 36


def test_mask_of_another_size_is_refused() -> None:
    """A mask must be as large as the picture."""
    with pytest.raises(ValueError, match="mask is 10x10"):
        edit(brief(), photograph(), Image.new("RGBA", (10, 10)))


@pytest.mark.parametrize(
    "prompt", ["wearing a beret", "add a red balloon", "make it night", "xyzzy", "snowing", "add 3 cats"]
)
def test_edit_without_mask_adds_something(prompt: str) -> None:
    """Without a mask the picture stays recognisable, and something is new."""
    before = paint(brief())
    after = edit(brief(prompt, salt="edit"), before, None)
    assert after.size == before.size
    assert changed(after, before) >= 2
    if prompt not in ("make it night",):
        assert changed(after, before) < 75


def test_hat_goes_to_the_upper_middle() -> None:
    """A beret is added above the middle, and nothing changes below but the mark."""
    before = Image.new("RGB", (200, 200), (120, 160, 200))
    after = edit(brief("put on a beret", 200, 200), before, None)
    assert changed(after.crop((50, 0, 150, 100)), before.crop((50, 0, 150, 100))) > 25
    assert changed(after.crop((0, 110, 200, 180)), before.crop((0, 110, 200, 180))) == 0


def test_edit_resizes_first() -> None:
    """The result has the size of the brief, whatever came in, and keeps transparency."""
    before = photograph().convert("RGBA")
    before.putalpha(200)
    mask = hole(before.size, (60, 10, 140, 100))
    after = edit(brief("a dog", 320, 240), before, mask)
    assert after.size == (320, 240)
    assert after.mode == "RGBA"
    assert after.getchannel("A").getpixel((0, 0)) == 200


def test_variations_differ() -> None:
    """Variations keep the size, and differ from the picture and from each other."""
    ours, theirs = paint(brief(width=160, height=120)), photograph()
    for prompt, picture in ((OTTER, ours), ("", theirs), ("xyzzy", paint(brief("xyzzy", 160, 120)))):
        first, second = (vary(brief(prompt, 160, 120, salt), picture) for salt in ("one", "two"))
        assert first.size == second.size == (160, 120)
        for one, other in ((first, picture), (second, picture), (first, second)):
            assert changed(one, other) > 15


def test_variation_of_a_strangers_picture_keeps_its_colours() -> None:
    """A mostly red picture stays mostly red."""
    page = vary(brief("", 100, 100, "vary"), Image.new("RGB", (100, 100), (200, 40, 40)))
    red, green, blue = page.crop((50, 10, 51, 11)).tobytes()
    assert red > 2 * green
    assert red > 2 * blue


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_can_come_in(mode: str) -> None:
    """Edits and variations take pictures of any mode."""
    picture = Image.new(mode, (64, 64))
    assert edit(brief("a dog", 64, 64), picture, None).mode in ("RGB", "RGBA")
    assert vary(brief("", 64, 64), picture).mode in ("RGB", "RGBA")


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
    """A prompt in any script is painted, whatever of it can be written."""
    for size in ((64, 64), (256, 96)):
        assert paint(brief(prompt, *size)).size == size


def test_caption_is_written() -> None:
    """An unknown prompt is written on its picture; two such prompts of one length look different."""
    page, other = (Image.new("RGB", (200, 100), "white") for _ in range(2))
    assert lettering.caption(page, "grfl")
    assert lettering.caption(other, "brrm")
    assert changed(page, Image.new("RGB", (200, 100), "white")) > 2
    assert page.tobytes() != other.tobytes()
    assert not lettering.caption(page, "\x00\u200b")


def test_scripts_have_their_fonts() -> None:
    """Letters of several scripts are found, each in a font that has them."""
    for letter, part in (
        ("a", "NotoSans["),
        ("ب", "Arabic"),
        ("ש", "Hebrew"),
        ("ก", "Thai"),
        ("🦦", "Emoji"),
    ):
        assert part in (glyphs.font_for(letter) or "")
    assert glyphs.font_for("猫") is None


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=60), st.integers(16, 80), st.integers(16, 80), st.booleans())
def test_arbitrary_text(prompt: str, width: int, height: int, transparent: bool) -> None:
    """No text makes the painter fail, and its file gives the text back."""
    page = paint(brief(prompt, width, height, transparent=transparent))
    assert page.size == (width, height)
    stored = prompt_of(Image.open(io.BytesIO(encode(page, "png", None, prompt=prompt))))
    assert stored == prompt.replace("\0", "")


@pytest.mark.usefixtures("no_fonts")
def test_without_fonts() -> None:
    """Without the fonts everything still works, more simply, and one sentence says why."""
    (sentence,) = notices()
    assert "pip install 'imgkit-service[painter]'" in sentence
    for prompt in (
        OTTER,
        "two dogs and a house at sunset",
        "xyzzy",
        "مرحبا",
        "a knight on a horse",
        "a cat, a car and a rose",
    ):
        plain = paint(brief(prompt))
        assert plain.size == (192, 192)
        assert changed(plain, paint(brief(prompt, salt="other"))) > 10
    before = photograph()
    after = edit(brief("a dog", 160, 120), before, hole(before.size, (60, 10, 140, 100)))
    assert changed(after, before) > 10


def test_with_fonts_there_is_no_notice() -> None:
    """With the fonts there is nothing to say, and the picture is another than without."""
    assert notices() == ()


@pytest.mark.parametrize("prompt", [OTTER, "größer, 猫, émoji 🦦", "", "a\nb\tc"])
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_files_remember_their_prompt(output_format: str, prompt: str) -> None:
    """A file of each format opens as that format and gives its prompt back."""
    data = encode(paint(brief(prompt, 64, 64)), output_format, 80, prompt=prompt)
    opened = Image.open(io.BytesIO(data))
    assert (opened.format or "").lower() == output_format
    assert prompt_of(opened) == prompt


def test_strangers_files_have_no_prompt() -> None:
    """A description in somebody else's picture is not taken for a prompt."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "my holiday"
    photograph().save(file, "JPEG", exif=exif)
    assert prompt_of(Image.open(file)) == ""
    assert prompt_of(photograph()) == ""


def test_long_prompt_fits_every_format() -> None:
    """The longest prompt the API takes can be stored, in JPEG possibly shortened."""
    prompt = "猫" * 32_000
    for output_format in ("png", "jpeg", "webp"):
        stored = prompt_of(Image.open(io.BytesIO(encode(photograph(), output_format, None, prompt=prompt))))
        assert prompt.startswith(stored)
        assert len(stored) >= 19_000


def test_png_is_exact_and_keeps_transparency() -> None:
    """A PNG file holds the very pixels, with their transparency."""
    page = paint(brief(transparent=True))
    opened = Image.open(io.BytesIO(encode(page, "png", None, prompt="")))
    assert (opened.mode, opened.tobytes()) == ("RGBA", page.tobytes())


def test_compression_is_quality() -> None:
    """A higher number makes a larger JPEG and WebP file, as in the real API."""
    page = paint(brief())
    for output_format in ("jpeg", "webp"):
        low, high = (len(encode(page, output_format, number, prompt="")) for number in (10, 90))
        assert low < high


def test_unknown_format_is_refused() -> None:
    """Only three formats can be written."""
    with pytest.raises(ValueError, match="gif"):
        encode(photograph(), "gif", None, prompt="")


def test_directions_of_writing() -> None:
    """Words of a script written leftwards are turned, those of another one among them are not."""
    assert lettering._in_order(["אב", "one", "two", "גד"], True) == ["דג", "one", "two", "בא"]
    assert lettering._in_order(["one", "אב", "גד", "two"], False) == ["one", "דג", "בא", "two"]


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (0, 0, 2, 119), (0, 60, 159, 60), (0, 0, 159, 119)])
def test_holes_of_any_shape(box: tuple[int, int, int, int]) -> None:
    """A hole of one pixel, of one line or of the whole picture can be painted with any setting."""
    before = photograph()
    mask = Image.new("RGBA", before.size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).rectangle(box, fill=(0, 0, 0, 0))
    for prompt in ("a dog", "a dog on a meadow at night", "a city", "a beach", "grfl"):
        after = edit(brief(prompt, 160, 120), before, mask)
        difference = ImageChops.difference(after, before).getbbox()
        assert difference is not None
        assert difference[0] >= box[0]
        assert difference[1] >= box[1]
        assert difference[2] <= box[2] + 1
        assert difference[3] <= box[3] + 1
