"""Base64 that arrives in pieces, decoded while it does."""

from __future__ import annotations

import json
import re

import pybase64

URL_SAFE = str.maketrans("-_", "+/")

_CLEAN = re.compile(rb"[A-Za-z0-9+/]*+")
_CUT_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")


class Base64Decoder:
    """Decodes the content of a JSON string, cut anywhere.

    Clean text takes a fast path; white space, JSON escapes, the URL-safe alphabet and padding take a slower
    one. Anything else ends the decoding: from there on the text is kept as it came.

    Attributes:
        failed: whether decoding has ended so.
        refused: the text from that point on, as it came.
    """

    def __init__(self) -> None:
        self.failed = False
        self._carry = b""  # up to three clean characters that wait for a fourth
        self._escape = b""  # the beginning of an escape
        self._padding = 0
        self.refused: list[bytes] = []

    def feed(self, text: bytes) -> list[bytes]:
        """Return what the next piece decodes to, as far as it is complete. Its bulk is not copied first."""
        if self.failed:
            self.refused.append(text)
            return []
        lead = -len(self._carry) % 4  # completes what was carried along
        unclean = [at for at in (text.find(b"\\"), text.find(b"=")) if at >= 0]
        clean = min(unclean, default=len(text))
        if self._escape or self._padding or clean < min(lead, len(text)):
            return self._feed_unclean(self._carry + self._escape + text)
        whole = max(lead, clean - (clean - lead) % 4)
        first, bulk, rest = self._carry + text[:lead], memoryview(text)[lead:whole], text[whole:]
        try:
            found = [pybase64.b64decode(one, validate=True) for one in (first, bulk) if len(one) >= 4]
        except ValueError:
            return self._feed_unclean(self._carry + text)
        self._carry = first if len(first) in (1, 2, 3) else b""
        if unclean:
            return found + self._feed_unclean(rest)
        self._carry += rest
        return found

    def close(self) -> bytes:
        """Return what the last characters decode to."""
        if self.failed or not (self._carry or self._escape):
            return b""
        written = self._carry + b"=" * self._padding + self._escape
        if self._escape:
            return self._fail(written)
        try:
            return pybase64.b64decode(self._carry + b"=" * (-len(self._carry) % 4), validate=True)
        except ValueError:
            return self._fail(written)

    def _feed_unclean(self, joined: bytes) -> list[bytes]:
        cut = _CUT_ESCAPE.search(joined)
        end = cut.start() if cut else len(joined)
        try:
            text = json.loads(b'"' + joined[:end] + b'"')
            text = "".join(text.split()).translate(URL_SAFE)
            content = text.rstrip("=")
            if content and self._padding and len(content) > len(self._carry):
                raise ValueError("something behind the padding")
            whole = len(content) & ~3
            data = pybase64.b64decode(content[:whole], validate=True)
        except ValueError:  # not UTF-8 and not JSON included
            return [self._fail(self._carry + b"=" * self._padding + joined[len(self._carry) :])]
        self._padding += len(text) - len(content)
        self._carry = content[whole:].encode("ascii", "replace")
        self._escape = joined[end:]
        return [data]

    def _fail(self, joined: bytes) -> bytes:
        """Decode up to the first character that is wrong, and keep the rest as it is."""
        self.failed = True
        clean = _CLEAN.match(joined)
        good = clean.end() & ~3 if clean and not self._padding else 0
        self.refused.append(joined[good:])
        return pybase64.b64decode(joined[:good], validate=True)
