"""What the painter understands of a prompt."""

from __future__ import annotations

import pytest

from imgkit.painter import drawings, glyphs, lexicon, palette, places, scenery
from imgkit.painter.prompts import Figure, read

RED, BLUE, BLACK = (palette.parse(code) for code in ("#d9342b", "#3a74d0", "#2c2b34"))
WHITE = palette.parse("#fbfbf8")


def seen(prompt: str) -> list[tuple[str, int]]:
    """Return the things in a prompt with their numbers."""
    return [(figure.entry.name, figure.count) for figure in read(prompt).figures]


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
    """Every thing is found once, with the number that the prompt gives it."""
    assert seen(prompt) == expected


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
    """A plural means several of its singular, however English forms it."""
    ((found, count),) = seen(f"{plural} at noon")
    assert found == name
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
    """A name of two words is not taken for one of its words."""
    assert seen(f"a {prompt}") == [(expected, 1)]


def test_colours_belong_to_their_nouns() -> None:
    """Each colour word colours the noun that follows it, and only that one."""
    bird, hat, car = read("a blue bird, a black hat and a red car").figures
    assert (bird.colours, hat.colours, car.colours) == ((BLUE,), (BLACK,), (RED,))
    (cat,) = read("a black and white cat").figures
    assert cat.colours == (BLACK, WHITE)
    (house,) = read("a house painted blue").figures
    assert house.colours == (BLUE,)
    (light,) = read("a light blue car").figures
    assert palette.luma(light.colours[0]) > palette.luma(BLUE) + 40
    first, second = read("a red balloon and a dog").figures
    assert (first.colours, second.colours) == ((RED,), ())


def test_orange_is_a_colour_or_a_fruit() -> None:
    """The word orange before a noun is a colour, alone it is a fruit."""
    (cat,) = read("an orange tabby cat").figures
    assert cat.entry.kind == "animal"
    assert cat.colours
    assert seen("three oranges") == [("orange", 3)]


def test_sizes() -> None:
    """Size words scale their noun; "baby" and "giant" are sizes before a noun and beings alone."""
    small, large = read("a tiny elephant and a giant mouse").figures
    assert small.scale < 60
    assert large.scale > 150
    assert seen("a giant mouse") == [("mouse", 1)]
    assert seen("a baby") == [("baby", 1)]


def joined(figure: Figure) -> list[tuple[str, str]]:
    """Return what is joined to a figure."""
    return [(link, other.entry.name) for link, other in figure.joined]


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
    """Riding, holding, wearing and holding inside join one thing to the other."""
    assert joined(read(prompt).figures[0]) == expected


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
    """Place, time of day and weather are read independently."""
    scene = read(prompt)
    assert (scene.place, scene.time, scene.weather) == (place, time, weather)


def test_things_bring_their_home() -> None:
    """Without a place in the prompt, a thing is painted where it lives."""
    assert read("a whale").home == "sea"
    assert read("a camel").home == "desert"
    assert read("an apple").home == "room"
    assert read("a dog").home == "meadow"


def test_unknown_words_are_not_recognised() -> None:
    """A prompt without a known word says so, and keeps its colours."""
    scene = read("purple xyzzy")
    assert not scene.recognised
    assert scene.colours == [palette.parse("#7d3fa8")]


def test_every_entry_can_be_painted() -> None:
    """Each entry of the data files has a glyph or a drawing, a place to be and a tool that exists."""
    known = lexicon.language()
    assert len(known.nouns) > 1500
    for entry in known.nouns.values():
        assert drawings.has(entry.art) or glyphs.has_glyph(entry.art), entry
        assert drawings.has(drawings.stand_in(entry.kind)), entry
        assert not entry.home or entry.home in places.PLACES, entry
        assert not entry.tool or (entry.tool,) in known.nouns, entry


def test_every_setting_has_a_painter() -> None:
    """Each place and time in the word list has its colours and its painter."""
    for axis, name in lexicon.language().settings.values():
        if axis == "places":
            assert scenery.horizon(scenery.Setting(name), 100) > 0
            assert name in places.PLACES
