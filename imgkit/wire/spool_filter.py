"""The secrets of a request, removed from the text of a reply on its way to a spool."""

from __future__ import annotations

from collections.abc import Sequence

from imgkit.wire.event_body import EVENT_MARK
from imgkit.wire.json_body import SpoolChunks
from imgkit.wire.secret_filter import SecretFilter, is_like_json, keep_json_valid, list_quotes
from imgkit.wire.secret_finder import BASE64_CONTEXT, Match


class SpoolFilter:
    """Removes secrets from the chunks for a spool. Images pass as they are: their bytes are paid for.

    Args:
        secrets: the secrets.
    """

    def __init__(self, secrets: SecretFilter) -> None:
        self._secrets = secrets
        self._texts: dict[str, TextFilter] = {}

    def clean(self, chunks: Sequence[tuple[str, bytes]]) -> SpoolChunks:
        """Return the chunks that are safe to keep so far."""
        if not self._secrets:
            return list(chunks)
        cleaned: SpoolChunks = []
        for name, data in chunks:
            if name not in ("reply", "raw"):
                cleaned.append((name, data))
            elif data == EVENT_MARK:
                cleaned += [*self._end_text(name), (name, data)]
            else:
                if name not in self._texts:
                    # Raw bytes are the content of a JSON string.
                    self._texts[name] = TextFilter(self._secrets, in_string=name == "raw")
                cleaned.append((name, self._texts[name].feed(data)))
        return [(name, data) for name, data in cleaned if data]

    def close(self) -> SpoolChunks:
        """Return the rest of all texts."""
        return [chunk for name in list(self._texts) for chunk in self._end_text(name)]

    def _end_text(self, name: str) -> SpoolChunks:
        text = self._texts.pop(name, None)
        rest = b"" if text is None else text.close()
        return [(name, rest)] if rest else []


_LONGEST_RUN = 64
"""Backslashes before a cut that may belong to one escape, however often it was escaped."""


class TextFilter:
    """Removes secrets from a text that arrives in pieces cut anywhere. JSON stays JSON.

    It holds back as many bytes as a secret may take, unless the text ends like a JSON value.

    Args:
        secrets: the secrets.
        in_string: the text begins inside a JSON string.
    """

    def __init__(self, secrets: SecretFilter, *, in_string: bool = False) -> None:
        self._secrets = secrets
        self._buffer = b""
        # Bytes of the buffer that have been returned; decisions about the next ones may need them.
        self._done = 0
        self._in_string = in_string
        self._is_json: bool | None = True if in_string else None

    def feed(self, text: bytes) -> bytes:
        """Return the text that is safe to keep so far."""
        self._buffer += text
        if self._is_json is None and self._buffer.strip():
            self._is_json = is_like_json(self._buffer)
        held = 0 if self._ends_value() else self._secrets.finder.longest + BASE64_CONTEXT
        return self._take(len(self._buffer) - held, is_last=False)

    def _ends_value(self) -> bool:
        """Return whether the text ends with a JSON object or array: a process may die while it waits."""
        if not self._is_json or self._buffer[-64:].rstrip()[-1:] not in (b"}", b"]"):
            return False
        return self._in_string == (len(list_quotes(self._buffer, self._done)) % 2 == 1)

    def close(self) -> bytes:
        """Return the rest of the text."""
        return self._take(len(self._buffer), is_last=True)

    def _take(self, end: int, *, is_last: bool) -> bytes:
        """Return the text up to a position, or up to a secret that crosses it."""
        buffer, start = self._buffer, self._done
        if end <= start:
            return b""
        matches = self._secrets.finder.find(buffer)
        while (safe_end := _find_safe_end(buffer, matches, end)) < end and not is_last:
            end = safe_end
        end = max(start, end)
        inside = [match for match in matches if start <= match.start and match.end <= end]
        if self._is_json:
            inside = keep_json_valid(buffer, inside, start=start, in_string=self._in_string)
            self._in_string ^= len(list_quotes(buffer, start, end)) % 2 == 1
        cleaned = self._secrets.replace(buffer, inside, start, end)
        kept_from = max(0, end - BASE64_CONTEXT)
        self._buffer, self._done = buffer[kept_from:], end - kept_from
        return cleaned


def _find_safe_end(buffer: bytes, matches: Sequence[Match], end: int) -> int:
    """Return a position up to `end` that is in no match and not behind a backslash."""
    # Of a long run of backslashes each pair is an escape of its own.
    run = end - len(buffer[max(0, end - _LONGEST_RUN) : end].rstrip(b"\\")) - max(0, end - _LONGEST_RUN)
    end -= run if run < _LONGEST_RUN else 0
    return next((match.start for match in matches if match.start < end < match.end), end)
