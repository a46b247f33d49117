"""The words the painter knows, read once from the data files beside this module."""

from __future__ import annotations

import importlib.resources
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from imgkit.painter.palette import Colour, parse

WORD_FILES = ("animals", "food", "nature", "people", "places", "things")
Phrase = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LexiconEntry:
    """One thing that can be painted, and how it looks when the prompt says no more than its name."""

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
    """Everything that is not a noun: counts, colours, sizes, links, settings."""

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


def _load(name: str) -> dict[str, Any]:
    source = importlib.resources.files(__package__ or "imgkit.painter") / f"{name}.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _band(value: list[Any] | None) -> tuple[Colour, int] | None:
    return None if value is None else (parse(value[0]), int(value[1]))


def _entry(key: str, family: dict[str, Any], member: dict[str, Any]) -> LexiconEntry:
    both = {**family, **member}
    return LexiconEntry(
        name=_words(both["names"])[0],
        art=both.get("art", key),
        kind=both["kind"],
        fill=parse(both["fill"]),
        second=parse(both["second"]) if "second" in both else None,
        ink=parse(both["ink"]) if "ink" in both else None,
        top=_band(both.get("top")),
        foot=_band(both.get("foot")),
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
def language() -> Language:
    """Return the vocabulary; the files are read at the first call."""
    nouns: dict[Phrase, LexiconEntry] = {}
    for name in WORD_FILES:
        for family in _load(f"words_{name}")["family"]:
            shared = {key: value for key, value in family.items() if key != "members"}
            for key, member in family["members"].items():
                entry = _entry(key, shared, member)
                for words in _words(member["names"]):
                    nouns.setdefault(tuple(words.split()), entry)
                if len(key) == 1:
                    nouns.setdefault((key,), entry)
    data = _load("language")
    settings = {
        tuple(phrase.split()): (axis, name)
        for axis in ("times", "weathers", "places")
        for name, phrases in data[axis].items()
        for phrase in _words(phrases)
    }
    links: dict[Phrase, tuple[str, ...]] = {}
    for link, phrases in data["links"].items():
        for phrase in _words(phrases):
            links[tuple(phrase.split())] = (*links.get(tuple(phrase.split()), ()), link)
    return Language(
        nouns=nouns,
        numbers=data["numbers"],
        sizes=data["sizes"],
        colours={word: parse(code) for word, code in data["colours"].items()},
        shades={word: (parse(mixed[0]), int(mixed[1])) for word, mixed in data["shades"].items()},
        irregular=data["irregular"],
        settings=settings,
        links=links,
        ignored={tuple(phrase.split()): phrase for phrase in _words(data["ignored"])},
        denials=frozenset(_words(data["denials"])),
        breaks=frozenset(data["breaks"].split()),
        parts=frozenset(_words(data["parts"])),
        after=frozenset(_words(data["after"])),
        longest=max(len(phrase) for table in (nouns, settings, links) for phrase in table),
    )


def singulars(word: str) -> tuple[str, ...]:
    """List what a word could be the plural of.

    Parameters:
        word: one lower-case word.

    Returns:
        Candidates from the likeliest on; empty for a word that cannot be a plural.
    """
    irregular = language().irregular.get(word)
    if irregular:
        return (irregular,)
    if len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return ()
    found = [word[:-1]]
    if word.endswith("ies"):
        found.insert(0, word[:-3] + "y")
    elif word.endswith("ves"):
        found += [word[:-3] + "f", word[:-3] + "fe"]
    elif word.endswith("es"):
        found.append(word[:-2])
    return tuple(found)
