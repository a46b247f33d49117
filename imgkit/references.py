"""Pictures that the API has, or fetches itself: named, and not sent."""

from __future__ import annotations

from dataclasses import dataclass

from imgkit.redact import safe_url


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An input of an edit that is not uploaded: exactly one of the two is given.

    The edit then goes as JSON (API reference of images/edits, read 2026-11-23); other inputs of the same edit
    go along as ``data:`` URLs.

    Attributes:
        url: an https URL that the API fetches.
        file_id: id of a file that was uploaded to the API before.
    """

    url: str | None = None
    file_id: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with it, None if nothing is."""
        if (self.url is None) == (self.file_id is None):
            return "needs a url or a file_id, and not both."
        if self.url is not None and not (isinstance(self.url, str) and self.url.startswith("https://")):
            return "needs an https:// URL: other pictures are given as they are."
        if self.file_id is not None and not (isinstance(self.file_id, str) and self.file_id.strip()):
            return "needs a file_id that is not empty."
        return None

    def __repr__(self) -> str:
        named = f"file_id={self.file_id!r}" if self.url is None else f"url={safe_url(str(self.url))!r}"
        return f"ImageReference({named})"
