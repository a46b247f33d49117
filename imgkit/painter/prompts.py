"""Prompt parsing: the figures, their counts, colours, sizes and links, and the setting."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from imgkit.painter.lexicon import LexiconEntry, Phrase, find_singulars, load_language
from imgkit.painter.palette import Colour, mix

MAX_WORDS = 600
MAX_FIGURES = 8
MAX_COPIES = 40
DEFAULT_PLURAL_COUNT = 3
ANIMATE = frozenset({"animal", "bird", "fish", "insect", "person"})
_TOKEN_PATTERN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]")


@dataclass(slots=True)
class Figure:
    """A thing that the prompt mentions.

    Attributes:
        entry: its entry in the vocabulary.
        count: number of copies.
        colours: colours that the prompt gives it.
        scale: size in percent of the usual size.
        word: the last word of its name in the prompt.
        attachments: pairs of a link ("on", "in", "wear", "hold", "of") and the attached figure.
    """

    entry: LexiconEntry
    count: int = 1
    colours: tuple[Colour, ...] = ()
    scale: int = 100
    word: str = ""
    attachments: list[tuple[str, Figure]] = field(default_factory=list)


@dataclass(slots=True)
class Scene:
    """A parsed prompt.

    Attributes:
        figures: the things to paint.
        place: the is_word place, or "".
        time: the is_word time of day, or "".
        weather: the is_word weather, or "".
        colours: colours that belong to no figure.

    Example:
        >>> scene = parse_prompt("three cats at night")
        >>> [(figure.entry.name, figure.count) for figure in scene.figures], scene.time
        ([('cat', 3)], 'night')
    """

    figures: list[Figure] = field(default_factory=list)
    place: str = ""
    time: str = ""
    weather: str = ""
    colours: list[Colour] = field(default_factory=list)

    @property
    def recognised(self) -> bool:
        """Whether the prompt names anything paintable."""
        return bool(self.figures or self.place or self.time or self.weather)

    @property
    def home(self) -> str:
        """The is_word place; otherwise the home of the figures; otherwise a meadow."""
        if self.place:
            return self.place
        furniture = [other.entry.home for figure in self.figures for _, other in figure.attachments]
        homes = [figure.entry.home for figure in self.figures if figure.entry.home]
        outdoors = [home for home in homes if home != "room"]
        if outdoors:
            return outdoors[0]
        indoors = "room" in furniture or (homes and len(homes) == len(self.figures))
        return "room" if indoors else "meadow"


@dataclass(slots=True)
class _PendingWords:
    """Words that wait for their noun."""

    count: int = 0
    scale: int = 100
    colours: list[Colour] = field(default_factory=list)
    denied: bool = False


def split_words(prompt: str) -> list[str]:
    """Split a prompt into lower-case words, punctuation and emoji, at most `MAX_WORDS`."""
    text = prompt[: MAX_WORDS * 12].lower().replace("-", " ")
    return _TOKEN_PATTERN.findall(text)[:MAX_WORDS]


def _match_longest(table: Container[Phrase], words: Sequence[str], at: int) -> int:
    """Return the length in words of the longest phrase of a table at a position; 0 for none."""
    for length in range(min(load_language().longest, len(words) - at), 0, -1):
        if tuple(words[at : at + length]) in table:
            return length
    return 0


def find_noun(words: Sequence[str], at: int = 0) -> tuple[LexiconEntry, int, bool] | None:
    """Find the longest noun that starts at a word.

    Args:
        words: lower-case words.
        at: index of the first word.

    Returns:
        The entry, its length in words, and whether it is a plural; None without a noun.
    """
    known = load_language()
    for length in range(min(known.longest, len(words) - at), 0, -1):
        *head, last = words[at : at + length]
        for index, form in enumerate((last, *find_singulars(last))):
            entry = known.nouns.get((*head, form))
            if entry is not None:
                return entry, length, index > 0 and form != last
    return None


class _PromptParser:
    """Parses the words of a prompt in a single pass from left to right."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.at = 0
        self.scene = Scene()
        self.pending = _PendingWords()
        self.links: tuple[str, ...] = ()
        self.last: Figure | None = None
        self.shared = ""
        self.known = load_language()

    def parse(self) -> Scene:
        """Return the scene of all words."""
        while self.at < len(self.words):
            if self.words[self.at] == "and" and self.shared:
                self.links = (self.shared,)
            for step in (self._parse_break, self._parse_number, self._parse_phrase, self._parse_adjective):
                length = step()
                if length:
                    self.at += length
                    break
            else:
                self.at += 1
        self._apply_late_colours()
        self.scene.colours += self.pending.colours
        return self.scene

    def _parse_break(self) -> int:
        """Parse a punctuation mark; return the number of parsed words, like all `_parse_…` methods."""
        word = self.words[self.at]
        if word not in self.known.breaks:
            return 0
        self._apply_late_colours()
        if word != ",":
            self.links, self.pending = (), _PendingWords()
        return 1

    def _apply_late_colours(self) -> None:
        """Apply colours that follow their noun, as in "a house painted blue"."""
        if (
            self.pending.colours
            and self.last is not None
            and not self.last.colours
            and self._is_after_copula()
        ):
            self.last.colours = tuple(self.pending.colours)
            self.pending.colours = []

    def _is_after_copula(self) -> bool:
        """Return whether a word such as "is" or "painted" stands just before."""
        return any(word in self.known.after for word in self.words[max(0, self.at - 4) : self.at])

    def _parse_number(self) -> int:
        """Parse a number or an article as the count of the next noun."""
        word = self.words[self.at]
        count = self.known.numbers.get(word, 0)
        if word.isascii() and word.isdigit() and len(word) < 4:
            count = int(word)
        if not count:
            return 0
        noun = find_noun(self.words, self.at)
        if noun is not None and noun[1] > 1 and word not in ("a", "an"):
            return 0
        if count > 1 or not self.pending.count:
            self.pending.count = count
        following = self.words[self.at + 1 : self.at + 2]
        if word in ("family", "field", "sky", "couple") and following != ["of"]:
            self.pending.count = 0
            return 0
        return 2 if count > 1 and following == ["of"] else 1

    def _parse_phrase(self) -> int:
        """Parse the longest phrase at this word: a setting, a link or a noun."""
        ignored = _match_longest(self.known.ignored, self.words, self.at)
        if ignored > 1:
            return ignored
        setting = _match_longest(self.known.settings, self.words, self.at)
        link = _match_longest(self.known.links, self.words, self.at)
        noun = find_noun(self.words, self.at)
        if noun is not None and noun[1] == 1 and self._is_adjective():
            noun = None
        if noun is not None and noun[2] and setting == noun[1]:
            # "in the woods" is a place, although "wood" is a thing.
            noun = None
        if noun is not None and noun[1] >= max(setting, link):
            return self._parse_noun(*noun)
        if setting and setting >= link:
            axis, name = self.known.settings[tuple(self.words[self.at : self.at + setting])]
            if not self.pending.denied and not getattr(self.scene, axis[:-1]):
                setattr(self.scene, axis[:-1], name)
            self.pending.denied = False
            return setting
        if link:
            self._apply_late_colours()
            self.links = self.known.links[tuple(self.words[self.at : self.at + link])]
        return link

    def _is_adjective(self) -> bool:
        """Return whether a noun follows soon: the colour "orange", "baby" as in "baby otter"."""
        if self.words[self.at] not in self.known.colours | self.known.sizes:
            return False
        for ahead in range(self.at + 1, min(self.at + 4, len(self.words))):
            word = self.words[ahead]
            if word in self.known.breaks or (word,) in self.known.links:
                return False
            if find_noun(self.words, ahead) is not None:
                return True
        return False

    def _parse_adjective(self) -> int:
        """Parse a colour, a size or a negation for the next noun."""
        word = self.words[self.at]
        if word in self.known.denials:
            self.pending.denied = True
        elif word in self.known.colours:
            self.pending.colours.append(self._parse_shaded_colour(word))
        elif word in self.known.sizes:
            self.pending.scale = self.known.sizes[word]
        else:
            return 0
        return 1

    def _parse_shaded_colour(self, word: str) -> Colour:
        """Return the colour of a word, made lighter or darker by the word before it."""
        colour = self.known.colours[word]
        before = self.words[self.at - 1] if self.at else ""
        return mix(colour, *self.known.shades[before]) if before in self.known.shades else colour

    def _parse_noun(self, entry: LexiconEntry, length: int, plural: bool) -> int:
        """Add the figure of a noun to the scene, with the words that waited for it."""
        words, end = self.words, self.at + length
        if self.last is not None and " ".join(words[self.at : end]) in self.known.parts and self.links:
            self.pending, self.links = _PendingWords(), ()
            return length
        head = find_noun(words, end) if end < len(words) and not plural else None
        is_word = words[self.at].isascii()
        if (
            head is not None
            and is_word
            and not ((words[end],) in self.known.ignored or self._is_number(words[end]))
        ):
            # In "chocolate cake" the first noun describes the second, here its colour.
            if not self.pending.colours:
                self.pending.colours.append(entry.fill)
            return length
        pending, self.pending = self.pending, _PendingWords()
        links, self.links = self.links, ()
        if pending.denied:
            return length
        count = pending.count
        if plural and count < 2:
            count = 9 if entry.size <= 45 else DEFAULT_PLURAL_COUNT
        figure = Figure(entry, min(MAX_COPIES, max(1, count)), tuple(pending.colours), pending.scale)
        figure.word = words[end - 1]
        self._add_figure(figure, links)
        return length

    def _is_number(self, word: str) -> bool:
        return word in self.known.numbers or word.isdigit()

    def _add_figure(self, figure: Figure, links: tuple[str, ...]) -> None:
        """Attach a figure to the previous figure, merge it with an equal figure, or append it."""
        entry, scene = figure.entry, self.scene
        scene.time = scene.time or entry.time
        scene.weather = scene.weather or entry.weather
        link = _choose_link(self.last, figure, links)
        if link and self.last is not None:
            self.last.attachments.append((link, figure))
            self.shared = link if link in ("wear", "of") else ""
            if link in ("on", "in", "of"):
                self.last = self.last if link == "of" else figure
            return
        same = next((other for other in scene.figures if other.entry is entry), None)
        if same is not None and same.colours == figure.colours:
            # "the cat ... a cat" is a single cat, but "a doctor and a nurse" are two similar people.
            more = figure.count if same.word != figure.word else 0
            same.count = min(MAX_COPIES, max(same.count + more, figure.count))
            self.last = same
        elif len(scene.figures) < MAX_FIGURES:
            self.shared = ""
            scene.figures.append(figure)
            self.last = figure


def _choose_link(owner: Figure | None, thing: Figure, links: tuple[str, ...]) -> str:
    """Return the link that fits two figures, from the links that a word may mean; "" for none."""
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


def parse_prompt(prompt: str) -> Scene:
    """Parse a prompt with the painter's vocabulary.

    Args:
        prompt: any text; only its first `MAX_WORDS` words count.

    Returns:
        The figures, the setting and the remaining colours. A text without known words gives a scene
        that is not `recognised`.

    Example:
        >>> parse_prompt("a red fox in the snow").place
        'snow'
    """
    return _PromptParser(split_words(prompt)).parse()
