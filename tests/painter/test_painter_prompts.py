"""Prompt parsing of the offline painter."""

from __future__ import annotations

import pytest

from imgkit.painter import drawings, glyphs, lexicon, palette, places, scenery
from imgkit.painter.prompts import Figure, parse_prompt

RED, BLUE, BLACK = (palette.parse_colour(code) for code in ("#d9342b", "#3a74d0", "#2c2b34"))
WHITE = palette.parse_colour("#fbfbf8")


def parse_counts(prompt: str) -> list[tuple[str, int]]:
    """Return names and counts of the figures in a prompt."""
    return [(figure.entry.name, figure.count) for figure in parse_prompt(prompt).figures]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A cute baby sea otter", [("otter", 1)]),
        ("three cats", [("cat", 3)]),
        ("2 dogs", [("dog", 2)]),
        ("a pair of shoes", [("shoe", 2)]),
        ("a dozen eggs", [("egg", 12)]),
        ("many balloons", [("balloon", 14)]),
        ("cats", [("cat", 3)]),
        ("a cat and a dog in front of a house", [("cat", 1), ("dog", 1), ("house", 1)]),
        ("a doctor and a nurse", [("doctor", 2)]),
        ("the cat sees a cat", [("cat", 1)]),
        ("999 cats", [("cat", 40)]),
        ("a kitten, a puppy and an automobile", [("kitten", 1), ("puppy", 1), ("car", 1)]),
        ("🦊🐻", [("fox", 1), ("bear", 1)]),
        ("no dogs, a cat", [("cat", 1)]),
        ("chocolate cake", [("birthday cake", 1)]),
        ("an elf in the woods", [("elf", 1)]),
        ("a hand drawn cat", [("cat", 1)]),
        ("a dark night, I saw what a cat can do", [("cat", 1)]),
        ("four score and 1024x1024 things", []),
    ],
)
def test_counts(prompt: str, expected: list[tuple[str, int]]) -> None:
    """Each thing is found once, with the number in the prompt."""
    assert parse_counts(prompt) == expected


@pytest.mark.parametrize(
    ("plural", "name"),
    [
        ("mice", "mouse"),
        ("geese", "goose"),
        ("wolves", "wolf"),
        ("people", "person"),
        ("men", "man"),
        ("women", "woman"),
        ("children", "boy"),
        ("butterflies", "butterfly"),
        ("foxes", "fox"),
        ("knives", "knife"),
        ("leaves", "leaf"),
        ("buses", "bus"),
        ("cherries", "cherry"),
        ("churches", "church"),
        ("tomatoes", "tomato"),
        ("cacti", "cactus"),
    ],
)
def test_plurals(plural: str, name: str) -> None:
    """A plural means three of its singular, whatever its English form."""
    ((singular, count),) = parse_counts(f"{plural} at noon")
    assert singular == name
    assert count == 3


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("polar bear", "polar bear"),
        ("hot dog", "hot dog"),
        ("teddy bear", "teddy bear"),
        ("christmas tree", "christmas tree"),
        ("sea lion", "seal"),
        ("fire truck", "fire truck"),
        ("ice cream", "ice cream"),
        ("T-Rex", "t rex"),
    ],
)
def test_longest_name_wins(prompt: str, expected: str) -> None:
    """A name of two words is not parsed as a single word."""
    assert parse_counts(f"a {prompt}") == [(expected, 1)]


def test_colours_belong_to_their_nouns() -> None:
    """Each colour word colours its noun and no other."""
    bird, hat, car = parse_prompt("a blue bird, a black hat and a red car").figures
    assert (bird.colours, hat.colours, car.colours) == ((BLUE,), (BLACK,), (RED,))
    (cat,) = parse_prompt("a black and white cat").figures
    assert cat.colours == (BLACK, WHITE)
    (house,) = parse_prompt("a house painted blue").figures
    assert house.colours == (BLUE,)
    (light,) = parse_prompt("a light blue car").figures
    assert palette.luma(light.colours[0]) > palette.luma(BLUE) + 40
    first, second = parse_prompt("a red balloon and a dog").figures
    assert (first.colours, second.colours) == ((RED,), ())


def test_orange_is_a_colour_or_a_fruit() -> None:
    """The word "orange" is a colour before a noun, and a fruit alone."""
    (cat,) = parse_prompt("an orange tabby cat").figures
    assert cat.entry.kind == "animal"
    assert cat.colours
    assert parse_counts("three oranges") == [("orange", 3)]


def test_sizes() -> None:
    """Size words scale their noun; "baby" and "giant" are sizes before a noun and nouns alone."""
    small, large = parse_prompt("a tiny elephant and a giant mouse").figures
    assert small.scale < 60
    assert large.scale > 150
    assert parse_counts("a giant mouse") == [("mouse", 1)]
    assert parse_counts("a baby") == [("baby", 1)]


def list_attachments(figure: Figure) -> list[tuple[str, str]]:
    """Return links and names of a figure's attachments."""
    return [(link, other.entry.name) for link, other in figure.attachments]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("an astronaut riding a horse", [("on", "horse")]),
        ("a robot playing the guitar", [("hold", "guitar")]),
        ("a cat wearing a red hat", [("wear", "hat")]),
        ("a cat in a box", [("in", "box")]),
        ("a bowl of apples", [("of", "apple")]),
        ("a snowman wearing a scarf and a top hat", [("wear", "scarf"), ("wear", "hat")]),
        ("a cat with green eyes", []),
        ("a cat under a tree", []),
    ],
)
def test_links(prompt: str, expected: list[tuple[str, str]]) -> None:
    """Riding, holding, wearing and containing attach a figure to another."""
    assert list_attachments(parse_prompt(prompt).figures[0]) == expected


@pytest.mark.parametrize(
    ("prompt", "place", "time", "weather"),
    [
        ("a city at night in the rain", "city", "night", "rain"),
        ("a fox in the snow", "snow", "", ""),
        ("sunset over the ocean", "sea", "sunset", ""),
        ("a foggy forest at dawn", "forest", "dawn", "fog"),
        ("fish under the sea", "underwater", "", ""),
        ("a bedroom", "room", "", ""),
        ("the Sahara", "desert", "", ""),
    ],
)
def test_settings(prompt: str, place: str, time: str, weather: str) -> None:
    """Place, time of day and weather are parsed independently."""
    scene = parse_prompt(prompt)
    assert (scene.place, scene.time, scene.weather) == (place, time, weather)


def test_figures_bring_their_home() -> None:
    """Without a place in the prompt, a figure brings its home."""
    assert parse_prompt("a whale").home == "sea"
    assert parse_prompt("a camel").home == "desert"
    assert parse_prompt("an apple").home == "room"
    assert parse_prompt("a dog").home == "meadow"


def test_unknown_words_are_not_recognised() -> None:
    """A prompt without a known word is not recognised, and keeps its colours."""
    scene = parse_prompt("purple xyzzy")
    assert not scene.recognised
    assert scene.colours == [palette.parse_colour("#7d3fa8")]


def test_every_entry_can_be_painted() -> None:
    """Each vocabulary entry has a glyph or a drawing, a valid home and an existing tool."""
    known = lexicon.load_language()
    assert len(known.nouns) > 1500
    for entry in known.nouns.values():
        assert drawings.has_drawing(entry.art) or glyphs.has_glyph(entry.art), entry
        assert drawings.has_drawing(drawings.find_stand_in(entry.kind)), entry
        assert not entry.home or entry.home in places.PLACE_PAINTERS, entry
        assert not entry.tool or (entry.tool,) in known.nouns, entry


def test_every_setting_has_a_painter() -> None:
    """Each place in the vocabulary has its colours and its painter."""
    for axis, name in lexicon.load_language().settings.values():
        if axis == "places":
            assert scenery.find_horizon(scenery.Setting(name), 100) > 0
            assert name in places.PLACE_PAINTERS
