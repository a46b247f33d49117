"""A decoder for base64 that arrives in chunks."""

from __future__ import annotations

import json
import re

import pybase64

URL_SAFE = str.maketrans("-_", "+/")

_CLEAN = re.compile(rb"[A-Za-z0-9+/]*+")
_CUT_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")


class Base64Decoder:
    """A decoder for the content of a JSON string, in chunks of any size.

    Clean text takes a fast path. White space, JSON escapes, the URL-safe alphabet and padding take
    a slower path. Any other character ends the decoding: the decoder keeps the rest as it arrived.

    Example::

        >>> decoder = Base64Decoder()
        >>> b"".join([*decoder.feed(b"Zm"), *decoder.feed(b"94"), decoder.close()])
        b'fox'

    Attributes:
        failed: decoding ended at a wrong character.
        rejected: the text from that character on, as it arrived.
    """

    def __init__(self) -> None:
        self.failed = False
        # Up to three clean characters that wait for a fourth.
        self._carry = b""
        # The beginning of an escape.
        self._escape = b""
        self._padding = 0
        self.rejected: list[bytes] = []

    def feed(self, text: bytes) -> list[bytes]:
        """Decode the next chunk; return the complete bytes. Most of the chunk is not copied."""
        if self.failed:
            self.rejected.append(text)
            return []
        # The first characters complete the carry.
        lead = -len(self._carry) % 4
        unclean = [at for at in (text.find(b"\\"), text.find(b"=")) if at >= 0]
        clean = min(unclean, default=len(text))
        if self._escape or self._padding or clean < min(lead, len(text)):
            return self._feed_unclean(self._carry + self._escape + text)
        end = max(lead, clean - (clean - lead) % 4)
        head, bulk, tail = self._carry + text[:lead], memoryview(text)[lead:end], text[end:]
        try:
            decoded = [pybase64.b64decode(part, validate=True) for part in (head, bulk) if len(part) >= 4]
        except ValueError:
            return self._feed_unclean(self._carry + text)
        self._carry = head if len(head) in (1, 2, 3) else b""
        if unclean:
            return decoded + self._feed_unclean(tail)
        self._carry += tail
        return decoded

    def close(self) -> bytes:
        """Decode and return the last characters."""
        if self.failed or not (self._carry or self._escape):
            return b""
        text = self._carry + b"=" * self._padding + self._escape
        if self._escape:
            return self._end_decoding(text)
        try:
            return pybase64.b64decode(self._carry + b"=" * (-len(self._carry) % 4), validate=True)
        except ValueError:
            return self._end_decoding(text)

    def _feed_unclean(self, joined: bytes) -> list[bytes]:
        """Decode text that may hold escapes, white space, padding or the URL-safe alphabet."""
        cut = _CUT_ESCAPE.search(joined)
        end = cut.start() if cut else len(joined)
        try:
            text = json.loads(b'"' + joined[:end] + b'"')
            text = "".join(text.split()).translate(URL_SAFE)
            content = text.rstrip("=")
            if content and self._padding and len(content) > len(self._carry):
                raise ValueError("text after the padding")
            complete = len(content) & ~3
            data = pybase64.b64decode(content[:complete], validate=True)
        except ValueError:
            # Text that is not UTF-8 or not JSON arrives here too.
            return [self._end_decoding(self._carry + b"=" * self._padding + joined[len(self._carry) :])]
        self._padding += len(text) - len(content)
        self._carry = content[complete:].encode("ascii", "replace")
        self._escape = joined[end:]
        return [data]

    def _end_decoding(self, joined: bytes) -> bytes:
        """Decode up to the first wrong character, and keep the rest as it is."""
        self.failed = True
        clean = _CLEAN.match(joined)
        end = clean.end() & ~3 if clean and not self._padding else 0
        self.rejected.append(joined[end:])
        return pybase64.b64decode(joined[:end], validate=True)
