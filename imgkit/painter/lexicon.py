"""The vocabulary of the painter, loaded once from the data files beside this module."""

from __future__ import annotations

import importlib.resources
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from imgkit.painter.palette import Colour, parse_colour

WORD_FILES = ("animals", "food", "nature", "people", "places", "things")
Phrase = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LexiconEntry:
    """A paintable thing and its default look.

    Attributes:
        name: its first English name.
        art: an emoji, or the name of a drawing.
        kind: such as "animal", "building" or "hat".
        fill: the main colour.
        second: colour of small enclosed parts; None for a shade of `fill`.
        ink: colour of the lines; None for a shade of `fill`.
        solid: whether the lines carry the thing's colour.
        top: colour and height in percent of a band at the top.
        foot: colour and height in percent of a band at the bottom.
        size: size in percent of a typical thing.
        at: usual position, such as "ground", "sky", "water" or "head".
        home: usual place, such as "forest"; "" for any.
        time: time of day that the thing implies.
        weather: weather that the thing implies.
        tool: name of a thing that it holds.
        ride: whether an animal or a person can ride on it.
        holds: whether it contains other things.
        head: x of the head in percent of the width; 0 to find it in the image.
        rim: y of a container's rim in percent of the height.
    """

    name: str
    art: str
    kind: str
    fill: Colour
    second: Colour | None = None
    ink: Colour | None = None
    solid: bool = False
    top: tuple[Colour, int] | None = None
    foot: tuple[Colour, int] | None = None
    size: int = 100
    at: str = "ground"
    home: str = ""
    time: str = ""
    weather: str = ""
    tool: str = ""
    ride: bool = False
    holds: bool = False
    head: int = 0
    rim: int = 30


@dataclass(frozen=True, slots=True)
class Language:
    """The vocabulary. A phrase is a tuple of lower-case words.

    Attributes:
        nouns: entries by phrase.
        numbers: counts by word.
        sizes: sizes in percent by word.
        colours: colours by word.
        shades: colour and percent to mix into a following colour, by word.
        irregular: singulars by irregular plural.
        settings: axis ("times", "weathers", "places") and name, by phrase.
        links: possible links by phrase; see `Figure.attachments`.
        ignored: phrases without meaning for the painter.
        denials: words that cancel the next noun or setting.
        breaks: punctuation that ends a part of the prompt.
        parts: body parts and parts of buildings, which are not painted alone.
        after: words that may stand between a noun and its colour.
        longest: length of the longest phrase in words.

    Example:
        >>> load_language().numbers["dozen"]
        12
    """

    nouns: dict[Phrase, LexiconEntry]
    numbers: dict[str, int]
    sizes: dict[str, int]
    colours: dict[str, Colour]
    shades: dict[str, tuple[Colour, int]]
    irregular: dict[str, str]
    settings: dict[Phrase, tuple[str, str]]
    links: dict[Phrase, tuple[str, ...]]
    ignored: dict[Phrase, str]
    denials: frozenset[str]
    breaks: frozenset[str]
    parts: frozenset[str]
    after: frozenset[str]
    longest: int


def _load_toml(name: str) -> dict[str, Any]:
    source = importlib.resources.files(__package__ or "imgkit.painter") / f"{name}.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _parse_band(value: list[Any] | None) -> tuple[Colour, int] | None:
    """Parse a colour and a height in percent."""
    return None if value is None else (parse_colour(value[0]), int(value[1]))


def _build_entry(key: str, family: dict[str, Any], member: dict[str, Any]) -> LexiconEntry:
    """Build an entry from the shared values of its family and its own."""
    both = {**family, **member}
    return LexiconEntry(
        name=_split_list(both["names"])[0],
        art=both.get("art", key),
        kind=both["kind"],
        fill=parse_colour(both["fill"]),
        second=parse_colour(both["second"]) if "second" in both else None,
        ink=parse_colour(both["ink"]) if "ink" in both else None,
        top=_parse_band(both.get("top")),
        foot=_parse_band(both.get("foot")),
        **{
            field: both[field]
            for field in (
                "solid",
                "size",
                "at",
                "home",
                "time",
                "weather",
                "tool",
                "ride",
                "holds",
                "head",
                "rim",
            )
            if field in both
        },
    )


@lru_cache(maxsize=1)
def load_language() -> Language:
    """Return the vocabulary. The first call reads the data files."""
    nouns: dict[Phrase, LexiconEntry] = {}
    for name in WORD_FILES:
        for family in _load_toml(f"words_{name}")["family"]:
            shared = {key: value for key, value in family.items() if key != "members"}
            for key, member in family["members"].items():
                entry = _build_entry(key, shared, member)
                for words in _split_list(member["names"]):
                    nouns.setdefault(tuple(words.split()), entry)
                if len(key) == 1:
                    nouns.setdefault((key,), entry)
    data = _load_toml("language")
    settings = {
        tuple(phrase.split()): (axis, name)
        for axis in ("times", "weathers", "places")
        for name, phrases in data[axis].items()
        for phrase in _split_list(phrases)
    }
    links: dict[Phrase, tuple[str, ...]] = {}
    for link, phrases in data["links"].items():
        for phrase in _split_list(phrases):
            links[tuple(phrase.split())] = (*links.get(tuple(phrase.split()), ()), link)
    return Language(
        nouns=nouns,
        numbers=data["numbers"],
        sizes=data["sizes"],
        colours={word: parse_colour(code) for word, code in data["colours"].items()},
        shades={word: (parse_colour(mixed[0]), int(mixed[1])) for word, mixed in data["shades"].items()},
        irregular=data["irregular"],
        settings=settings,
        links=links,
        ignored={tuple(phrase.split()): phrase for phrase in _split_list(data["ignored"])},
        denials=frozenset(_split_list(data["denials"])),
        breaks=frozenset(data["breaks"].split()),
        parts=frozenset(_split_list(data["parts"])),
        after=frozenset(_split_list(data["after"])),
        longest=max(len(phrase) for table in (nouns, settings, links) for phrase in table),
    )


def find_singulars(word: str) -> tuple[str, ...]:
    """Return the possible singulars of a word.

    Args:
        word: a lower-case word.

    Returns:
        Candidates, the most likely first; empty if the word cannot be a plural.
    """
    irregular = load_language().irregular.get(word)
    if irregular:
        return (irregular,)
    if len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return ()
    candidates = [word[:-1]]
    if word.endswith("ies"):
        candidates.insert(0, word[:-3] + "y")
    elif word.endswith("ves"):
        candidates += [word[:-3] + "f", word[:-3] + "fe"]
    elif word.endswith("es"):
        candidates.append(word[:-2])
    return tuple(candidates)
