"""A decoder for base64 that arrives in chunks."""

from __future__ import annotations

import re

import pybase64

URL_SAFE = str.maketrans("-_", "+/")

_CLEAN = re.compile(rb"[A-Za-z0-9+/]*+")
_URL_SAFE_BYTES = bytes.maketrans(b"-_", b"+/")
_TOKEN = re.compile(
    rb"([A-Za-z0-9+/_-]++)"
    rb"|(=++)"
    rb"|(\\[nrtf])"
    rb"|(\\/|\\u[0-9A-Fa-f]{4}|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})"
)
"""Content, padding, white space, or a character in an unusual spelling."""

_CONTENT, _PADDING, _BLANK = 1, 2, 3
_CUT_TOKEN = re.compile(
    rb"(?:\\(?:u[0-9A-Fa-f]{0,3})?|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
)


class Base64Decoder:
    """A decoder for the content of a JSON string, in chunks of any size.

    Clean text takes a fast path. Line breaks, JSON escapes, the URL-safe alphabet and padding take a
    slower path. Any other character ends the decoding, and so does a blank, which may stand for "+":
    the decoder keeps the text that it has not decoded as it arrived. The result is the same wherever
    the chunks end.

    Example::

        >>> decoder = Base64Decoder()
        >>> b"".join([*decoder.feed(b"Zm"), *decoder.feed(b"94"), decoder.close()])
        b'fox'

    Attributes:
        failed: decoding ended at a wrong character.
        rejected: the text behind the last four characters that were decoded, as it arrived.
    """

    def __init__(self) -> None:
        self.failed = False
        # Up to three clean characters that wait for a fourth.
        self._carry = b""
        # The text behind the last four decoded characters, as it arrived.
        self._spelling: list[bytes] = []
        # The beginning of an escape, or of a character of several bytes.
        self._cut_token = b""
        self._padding = 0
        self.rejected: list[bytes] = []

    def feed(self, text: bytes) -> list[bytes]:
        """Decode the next chunk; return the complete bytes. Most of the chunk is not copied."""
        if self.failed:
            self.rejected.append(text)
            return []
        # The first characters complete the carry.
        lead = -len(self._carry) % 4
        if self._cut_token or self._padding or b"=" in text[:lead]:
            return self._feed_unclean(text)
        # Padding ends a text, and the slow path reads it; the decoder refuses any other.
        clean = len(text) if b"=" not in text[-4:] else max(0, text.find(b"="))
        end = max(lead, clean - (clean - lead) % 4)
        head, bulk, tail = self._carry + text[:lead], memoryview(text)[lead:end], text[end:]
        try:
            decoded = [pybase64.b64decode(part, validate=True) for part in (head, bulk) if len(part) >= 4]
        except ValueError:
            return self._feed_unclean(text)
        if len(head) in (1, 2, 3):
            tail = text
        elif decoded:
            self._carry = b""
            self._spelling.clear()
        if not _CLEAN.fullmatch(tail):
            return decoded + self._feed_unclean(tail)
        self._carry += tail
        self._spelling.append(tail)
        return decoded

    def close(self) -> bytes:
        """Decode and return the last characters."""
        if self.failed or not (self._carry or self._cut_token):
            return b""
        if not self._cut_token:
            try:
                return pybase64.b64decode(self._carry + b"=" * (-len(self._carry) % 4), validate=True)
            except ValueError:
                pass  # a single character, which encodes nothing
        self._end_decoding(self._cut_token)
        return b""

    def _feed_unclean(self, text: bytes) -> list[bytes]:
        """Decode text that may hold escapes, white space, padding or the URL-safe alphabet."""
        text, self._cut_token = self._cut_token + text, b""
        content = [self._carry]
        count = len(self._carry)
        at = complete = done = 0  # `done` is the position behind the last complete four characters
        is_wrong = False
        while at < len(text) and not is_wrong:
            token = _TOKEN.match(text, at)
            if token is None:
                is_wrong = _CUT_TOKEN.match(text, at) is None
                break
            kind, characters = token.lastindex, token[0]
            if kind not in (_CONTENT, _PADDING, _BLANK):
                kind, characters = _read_spelling(characters)
            if kind == _CONTENT and not self._padding:
                content.append(characters)
                count += len(characters)
                if count & ~3 > complete:
                    complete = count & ~3
                    # A character in an unusual spelling is never followed by others in its token.
                    done = token.end() - (count - complete)
            elif kind == _PADDING:
                self._padding += len(characters)
            elif kind != _BLANK:
                is_wrong = True
                break
            at = token.end()
        joined = b"".join(content).translate(_URL_SAFE_BYTES)
        if complete:
            self._spelling.clear()
        if is_wrong:
            self._end_decoding(text[done:])
        else:
            self._carry, self._cut_token = joined[complete:], text[at:]
            self._spelling.append(text[done:at])
        return [pybase64.b64decode(joined[:complete], validate=True)]

    def _end_decoding(self, rest: bytes) -> None:
        """Keep the text that is not decoded as it arrived."""
        self.failed = True
        self.rejected.append(b"".join(self._spelling) + rest)


def _read_spelling(spelling: bytes) -> tuple[int, bytes]:
    """Return the kind and the content of an escape or of a character of several bytes; 0 if it is wrong."""
    if spelling == b"\\/":
        return _CONTENT, b"/"
    is_escape = spelling.startswith(b"\\")
    character = chr(int(spelling[2:], 16)) if is_escape else spelling.decode("utf-8", "replace")
    if character.isspace() and character != " ":
        return _BLANK, b""
    token = _TOKEN.fullmatch(character.encode("utf-8", "replace"))
    kind = token.lastindex if token is not None else None
    return (kind, token[0]) if token is not None and kind in (_CONTENT, _PADDING) else (0, b"")
