"""Did you mean …?"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean '…'?)" with the known word closest to `word`, "" if none is close."""
    import difflib

    close = difflib.get_close_matches(word.lower()[:60], list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
