"""A search for secrets in text, as they are and as servers spell them.

A server may repeat a key in JSON, in a URL, in HTML, in base64 or in hexadecimal digits. It may encode it
twice, change its case, or wrap it over two lines.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias

from imgkit.redact import Secret

MIN_SECRET_LENGTH = 4
"""Shorter secrets are not searched for: their removal would blank out half of a text."""

ENCODED_LENGTH = 6
"""Base64 and hexadecimal spellings of shorter secrets are too short to be told from other text."""

UNMISTAKABLE_LENGTH = 10
"""A shorter text may occur in the base64 of an image by chance."""

WRAPPED_LENGTH = 8
"""Shorter secrets are not searched for across the end of a line."""

FOLDED_LENGTH = 16
"""Secrets from this length on are found in any case of their letters."""

BASE64_CONTEXT = 200
"""Runs of base64 characters from this length on may be an image."""

MAX_ESCAPES = 200_000
"""Escapes of a text that are decoded. Behind them, only unescaped spellings are found."""

_MAX_LAYERS = 3
_LONGEST_ESCAPE = len(r"\u002f")
_NUMBER = re.compile(rb"[-+.0-9eE]+|true|false|null")
_WORD = re.compile(rb"[a-z_]{1,15}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\\-]*")
_LINE_BREAK = re.compile(rb"\n|\\[nr]")
_NAMES = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}
_ESCAPE_STARTS = (b"%", b"\\", b"&", b"\n")
# A wrapped line, or the next line of an event.
_NEXT_LINE = rb"[ \t]*(?:data:[ \t]*)?"
# Each branch begins with a literal character, so the search skips all others quickly.
_ESCAPE = re.compile(
    rb"%%(?:25)*(?P<url>[0-9A-Fa-f]{2})"
    rb"|\\\\*(?:u(?P<unicode>[0-9A-Fa-f]{4})|x(?P<hex>[0-9A-Fa-f]{2}))"
    rb"|\\(?:\\*)(?P<itself>[\"'/\\])"
    rb"|&(?:#(?P<decimal>[0-9]{1,6})|#[xX](?P<entity>[0-9A-Fa-f]{1,5})|(?P<name>amp|lt|gt|quot|apos));"
    rb"|\n%b|\r\n%b|\\(?:\\*)[nr]%b" % (_NEXT_LINE, _NEXT_LINE, _NEXT_LINE)
)


Kind: TypeAlias = Literal["text", "number", "word"]
"""A secret may look like a JSON number, or like the name of a JSON member."""


class Match(NamedTuple):
    """The place of a secret in a text.

    Attributes:
        start, end: its bounds in bytes.
        kind: what the secret looks like.
    """

    start: int
    end: int
    kind: Kind = "text"


class _Needle(NamedTuple):
    """One spelling of a secret.

    Attributes:
        text: the spelling; in lower case if `ignores_case`.
        ignores_case: upper and lower case mean the same.
        kind: what the secret looks like.
    """

    text: bytes
    ignores_case: bool = False
    kind: Kind = "text"


class _Layer(NamedTuple):
    """A text without its escapes, and the way back to the text.

    Attributes:
        text: the text with each escape decoded.
        starts: the start of each run in `text`: of plain bytes and of escapes, by turns.
        origins: the start of each run in the text with escapes.
    """

    text: bytes
    starts: list[int]
    origins: list[int]

    def to_origin(self, match: Match) -> Match:
        """Return the place of a match in the text with escapes."""
        run = bisect_right(self.starts, match.start) - 1
        start = self.origins[run] + match.start - self.starts[run]
        run = bisect_left(self.starts, match.end)
        if run < len(self.starts) and self.starts[run] == match.end:
            return match._replace(start=start, end=self.origins[run])
        return match._replace(start=start, end=self.origins[run - 1] + match.end - self.starts[run - 1])


class SecretFinder:
    r"""Finds secrets in text.

    Example::

        >>> finder = SecretFinder([Secret("s3cr3t/key")])
        >>> [(match.start, match.end) for match in finder.find(b"s3cr3t/key, s3cr3t%2Fkey, s3cr3t\\/key")]
        [(0, 10), (12, 24), (26, 37)]

    Args:
        secrets: the secrets. Those with fewer than `MIN_SECRET_LENGTH` characters are left out.

    Attributes:
        longest: bytes that the longest spelling of a secret takes.
    """

    __slots__ = ("_needles", "_unfolded_needles", "longest")

    def __init__(self, secrets: Iterable[Secret]) -> None:
        needles = dict.fromkeys(
            needle
            for secret in secrets
            if len(secret.reveal()) >= MIN_SECRET_LENGTH
            for needle in _list_needles(secret.reveal())
        )
        self._needles = tuple(needles)
        # As they stand in text without escapes.
        self._unfolded_needles = tuple(dict.fromkeys(map(_unfold_needle, needles)))
        self.longest = max((len(needle.text) for needle in needles), default=0) * _LONGEST_ESCAPE

    def find(self, text: bytes) -> list[Match]:
        """Return the places of secrets, in order and without overlap."""
        if not self._needles:
            return []
        matches = _search(text, self._needles)
        layers: list[_Layer] = []
        while len(layers) < _MAX_LAYERS:
            layer = _unfold(layers[-1].text if layers else text)
            if layer is None:
                break
            layers.append(layer)
            for match in _search(layer.text, self._unfolded_needles):
                length = match.end - match.start
                for each in reversed(layers):
                    match = each.to_origin(match)
                if length >= WRAPPED_LENGTH or not _LINE_BREAK.search(text, match.start, match.end):
                    matches.append(match)
        return _merge([match for match in matches if not _may_be_image(text, match)]) if matches else matches


def _search(text: bytes, needles: tuple[_Needle, ...]) -> list[Match]:
    """Return all places of the needles."""
    matches = []
    lowered = text.lower()
    for wanted, ignores_case, kind in needles:
        place = lowered if ignores_case else text
        at = place.find(wanted)
        while at >= 0:
            matches.append(Match(at, at + len(wanted), kind))
            at = place.find(wanted, at + len(wanted))
    return matches


def _list_needles(secret: str) -> Iterator[_Needle]:
    """Yield the spellings of a secret."""
    raw = secret.encode("utf-8", "surrogatepass")
    kind: Kind = "text"
    if _NUMBER.fullmatch(raw):
        kind = "number"
    elif _WORD.fullmatch(raw):
        kind = "word"
    for text in {raw, json.dumps(secret)[1:-1].encode("ascii")}:
        ignores_case = len(raw) >= FOLDED_LENGTH
        yield _Needle(text.lower() if ignores_case else text, ignores_case, kind)
    if len(raw) < ENCODED_LENGTH:
        return
    yield _Needle(raw.hex().encode("ascii"), ignores_case=True)
    for before in range(3):
        # The characters that do not depend on the text around the secret.
        text = base64.b64encode(b"\0" * before + raw)
        inner = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        yield _Needle(inner)
        yield _Needle(inner.replace(b"+", b"-").replace(b"/", b"_"))


def _unfold_needle(needle: _Needle) -> _Needle:
    """Return a needle without escapes."""
    text = needle.text
    while (layer := _unfold(text)) is not None:
        text = layer.text
    return needle._replace(text=text.lower() if needle.ignores_case else text)


def _unfold(text: bytes) -> _Layer | None:
    """Return the text with each escape decoded and each line break left out, None without any."""
    if not any(start in text for start in _ESCAPE_STARTS):
        return None
    pieces: list[bytes] = []
    starts: list[int] = []
    origins: list[int] = []
    at = length = 0
    for escape in islice(_ESCAPE.finditer(text), MAX_ESCAPES):
        plain, decoded = text[at : escape.start()], _decode(escape)
        pieces += (plain, decoded)
        starts += (length, length + len(plain))
        origins += (at, escape.start())
        length += len(plain) + len(decoded)
        at = escape.end()
    if not pieces:
        return None
    return _Layer(b"".join([*pieces, text[at:]]), [*starts, length], [*origins, at])


def _decode(escape: re.Match[bytes]) -> bytes:
    """Return the bytes that an escape stands for, b"" for a line break."""
    kind = escape.lastgroup
    if kind is None:
        return b""
    code: bytes = escape[kind]
    if kind == "itself":
        return code
    if kind == "name":
        return _NAMES[code]
    number = int(code, 10 if kind == "decimal" else 16)
    return bytes([number]) if kind in ("url", "hex") else chr(number).encode("utf-8", "surrogatepass")


def _may_be_image(text: bytes, match: Match) -> bool:
    """Return whether a short match stands in a long run of base64, perhaps by chance."""
    length = match.end - match.start
    if length >= UNMISTAKABLE_LENGTH:
        return False
    before = text[max(0, match.start - BASE64_CONTEXT) : match.start][::-1]
    after = text[match.start : match.start + BASE64_CONTEXT]
    left, right = _BASE64.match(before), _BASE64.match(after)
    return left is not None and right is not None and left.end() + right.end() >= BASE64_CONTEXT


def _merge(matches: list[Match]) -> list[Match]:
    """Return matches in order, with those that overlap as one."""
    merged: list[Match] = []
    for match in sorted(matches):
        last = merged[-1] if merged else None
        if last is None or match.start >= last.end:
            merged.append(match)
        elif match.end > last.end or match.kind == "text":
            kind = "text" if "text" in (match.kind, last.kind) else last.kind
            merged[-1] = Match(last.start, max(last.end, match.end), kind)
    return merged
