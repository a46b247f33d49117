"""Reading a prompt: which things, how many, in which colours and sizes, how joined, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from imgkit.painter.lexicon import LexiconEntry, Phrase, language, singulars
from imgkit.painter.palette import Colour, mix

MOST_WORDS = 600
MOST_FIGURES = 8
MOST_COPIES = 40
PLURAL = 3
ANIMATE = frozenset({"animal", "bird", "fish", "insect", "person"})
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]")


@dataclass(slots=True)
class Figure:
    """One mention in the prompt: a thing, its number and looks, and what is joined to it."""

    entry: LexiconEntry
    count: int = 1
    colours: tuple[Colour, ...] = ()
    scale: int = 100
    word: str = ""
    joined: list[tuple[str, Figure]] = field(default_factory=list)


@dataclass(slots=True)
class Scene:
    """What a prompt asks to see."""

    figures: list[Figure] = field(default_factory=list)
    place: str = ""
    time: str = ""
    weather: str = ""
    colours: list[Colour] = field(default_factory=list)

    @property
    def recognised(self) -> bool:
        """Whether there is anything to paint that the prompt names."""
        return bool(self.figures or self.place or self.time or self.weather)

    @property
    def home(self) -> str:
        """The place named, else where the things are at home, else a meadow."""
        if self.place:
            return self.place
        furniture = [other.entry.home for figure in self.figures for _, other in figure.joined]
        homes = [figure.entry.home for figure in self.figures if figure.entry.home]
        outdoors = [home for home in homes if home != "room"]
        if outdoors:
            return outdoors[0]
        indoors = "room" in furniture or (homes and len(homes) == len(self.figures))
        return "room" if indoors else "meadow"


@dataclass(slots=True)
class _Pending:
    """Words that wait for the noun they belong to."""

    count: int = 0
    scale: int = 100
    colours: list[Colour] = field(default_factory=list)
    denied: bool = False


def words_of(prompt: str) -> list[str]:
    """Cut a prompt into lower-case words, marks and emoji, at most `MOST_WORDS` of them."""
    text = prompt[: MOST_WORDS * 12].lower().replace("-", " ")
    return _TOKEN.findall(text)[:MOST_WORDS]


def _longest(table: dict[Phrase, object], words: Sequence[str], at: int) -> int:
    """Return how many words from `at` on make the longest phrase of the table; 0 for none."""
    for length in range(min(language().longest, len(words) - at), 0, -1):
        if tuple(words[at : at + length]) in table:
            return length
    return 0


def find_noun(words: Sequence[str], at: int = 0) -> tuple[LexiconEntry, int, bool] | None:
    """Find the longest noun that starts at a word.

    Parameters:
        words: lower-case words.
        at: index of the first word.

    Returns:
        What it names, how many words it takes and whether it is a plural; None for no noun.
    """
    known = language()
    for length in range(min(known.longest, len(words) - at), 0, -1):
        *head, last = words[at : at + length]
        for index, form in enumerate((last, *singulars(last))):
            entry = known.nouns.get((*head, form))
            if entry is not None:
                return entry, length, index > 0 and form != last
    return None


class _Reader:
    """Walks over the words once, from left to right."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.at = 0
        self.scene = Scene()
        self.pending = _Pending()
        self.links: tuple[str, ...] = ()
        self.last: Figure | None = None
        self.shared = ""
        self.known = language()

    def read(self) -> Scene:
        while self.at < len(self.words):
            if self.words[self.at] == "and" and self.shared:
                self.links = (self.shared,)
            for step in (self._break, self._number, self._compare, self._look):
                length = step()
                if length:
                    self.at += length
                    break
            else:
                self.at += 1
        self._settle()
        self.scene.colours += self.pending.colours
        return self.scene

    def _break(self) -> int:
        word = self.words[self.at]
        if word not in self.known.breaks:
            return 0
        self._settle()
        if word != ",":
            self.links, self.pending = (), _Pending()
        return 1

    def _settle(self) -> None:
        """Give colours that came after their noun ("a house painted blue") to that noun."""
        if self.pending.colours and self.last is not None and not self.last.colours and self._said_after():
            self.last.colours = tuple(self.pending.colours)
            self.pending.colours = []

    def _said_after(self) -> bool:
        return any(word in self.known.after for word in self.words[max(0, self.at - 4) : self.at])

    def _number(self) -> int:
        word = self.words[self.at]
        count = self.known.numbers.get(word, 0)
        if word.isascii() and word.isdigit() and len(word) < 4:
            count = int(word)
        if not count:
            return 0
        if find_noun(self.words, self.at) is not None and word not in ("a", "an"):
            found = find_noun(self.words, self.at)
            if found is not None and found[1] > 1:
                return 0
        if count > 1 or not self.pending.count:
            self.pending.count = count
        following = self.words[self.at + 1 : self.at + 2]
        if word in ("family", "field", "sky", "couple") and following != ["of"]:
            self.pending.count = 0
            return 0
        return 2 if count > 1 and following == ["of"] else 1

    def _compare(self) -> int:
        """Take a setting, a link or a noun, whichever phrase is the longest here."""
        skipped = _longest(dict[Phrase, object](self.known.ignored), self.words, self.at)
        if skipped > 1:
            return skipped
        setting = _longest(dict[Phrase, object](self.known.settings), self.words, self.at)
        link = _longest(dict[Phrase, object](self.known.links), self.words, self.at)
        noun = find_noun(self.words, self.at)
        if noun is not None and noun[1] == 1 and self._is_adjective_here():
            noun = None
        if noun is not None and noun[2] and setting == noun[1]:
            # "in the woods" is a place although "wood" is a thing.
            noun = None
        if noun is not None and noun[1] >= max(setting, link):
            return self._noun(*noun)
        if setting and setting >= link:
            axis, name = self.known.settings[tuple(self.words[self.at : self.at + setting])]
            if not self.pending.denied and not getattr(self.scene, axis[:-1]):
                setattr(self.scene, axis[:-1], name)
            self.pending.denied = False
            return setting
        if link:
            self._settle()
            self.links = self.known.links[tuple(self.words[self.at : self.at + link])]
        return link

    def _is_adjective_here(self) -> bool:
        """Tell the colour orange from the fruit, a baby otter from a baby: their noun comes soon after."""
        if self.words[self.at] not in self.known.colours | self.known.sizes:
            return False
        for ahead in range(self.at + 1, min(self.at + 4, len(self.words))):
            word = self.words[ahead]
            if word in self.known.breaks or (word,) in self.known.links:
                return False
            if find_noun(self.words, ahead) is not None:
                return True
        return False

    def _look(self) -> int:
        word = self.words[self.at]
        if word in self.known.denials:
            self.pending.denied = True
        elif word in self.known.colours:
            self.pending.colours.append(self._shaded(word))
        elif word in self.known.sizes:
            self.pending.scale = self.known.sizes[word]
        else:
            return 0
        return 1

    def _shaded(self, word: str) -> Colour:
        """Return a colour word's colour, lighter or darker as the word before it says."""
        colour = self.known.colours[word]
        before = self.words[self.at - 1] if self.at else ""
        return mix(colour, *self.known.shades[before]) if before in self.known.shades else colour

    def _noun(self, entry: LexiconEntry, length: int, plural: bool) -> int:
        words, end = self.words, self.at + length
        if self.last is not None and " ".join(words[self.at : end]) in self.known.parts and self.links:
            self.pending, self.links = _Pending(), ()
            return length
        head = find_noun(words, end) if end < len(words) and not plural else None
        named = words[self.at].isascii()
        if (
            head is not None
            and named
            and not ((words[end],) in self.known.ignored or self._is_number(words[end]))
        ):
            # "chocolate cake": the first noun only says what the second is like, here its colour.
            if not self.pending.colours:
                self.pending.colours.append(entry.fill)
            return length
        pending, self.pending = self.pending, _Pending()
        links, self.links = self.links, ()
        if pending.denied:
            return length
        count = pending.count
        if plural and count < 2:
            count = 9 if entry.size <= 45 else PLURAL
        figure = Figure(entry, min(MOST_COPIES, max(1, count)), tuple(pending.colours), pending.scale)
        figure.word = words[end - 1]
        self._place(figure, links)
        return length

    def _is_number(self, word: str) -> bool:
        return word in self.known.numbers or word.isdigit()

    def _place(self, figure: Figure, links: tuple[str, ...]) -> None:
        entry, scene = figure.entry, self.scene
        scene.time = scene.time or entry.time
        scene.weather = scene.weather or entry.weather
        link = _link(self.last, figure, links)
        if link and self.last is not None:
            self.last.joined.append((link, figure))
            self.shared = link if link in ("wear", "of") else ""
            if link in ("on", "in", "of"):
                self.last = self.last if link == "of" else figure
            return
        same = next((other for other in scene.figures if other.entry is entry), None)
        if same is not None and same.colours == figure.colours:
            # "the cat ... a cat" is one cat, "a doctor and a nurse" are two people who look alike.
            more = figure.count if same.word != figure.word else 0
            same.count = min(MOST_COPIES, max(same.count + more, figure.count))
            self.last = same
        elif len(scene.figures) < MOST_FIGURES:
            self.shared = ""
            scene.figures.append(figure)
            self.last = figure


def _link(owner: Figure | None, thing: Figure, links: tuple[str, ...]) -> str:
    """Decide which of the links that a word may mean fits the two things it joins; "" for none."""
    if owner is None or owner is thing:
        return ""
    body, other = owner.entry, thing.entry
    fits = {
        "on": other.ride or (other.kind == "animal" and body.kind in ANIMATE and other.size >= 95),
        "in": other.ride or other.holds,
        "wear": body.kind in ANIMATE | {"face", "thing", "food", "land"}
        and other.at in ("head", "face", "neck"),
        "hold": body.kind in ANIMATE and other.kind in ("thing", "instrument", "food", "flower", "plant"),
        "of": body.holds and other.at == "ground" and other.kind in ("food", "flower", "thing", "plant"),
    }
    return next((link for link in links if fits.get(link, False)), "")


def read(prompt: str) -> Scene:
    """Understand a prompt as far as the vocabulary goes.

    Parameters:
        prompt: any text; only its first words are looked at.

    Returns:
        The things, the setting and the left-over colours; an unrecognised scene for a text that
        names none of them.
    """
    return _Reader(words_of(prompt)).read()
