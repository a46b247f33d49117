"""References to images that the API holds or fetches: imgkit does not upload them."""

from __future__ import annotations

from dataclasses import dataclass

from imgkit.redact import safe_url


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An input of an edit that imgkit does not upload. Pass either a `url` or a `file_id`.

    >>> ImageReference(file_id="file-123")
    ImageReference(file_id='file-123')

    imgkit sends an edit with references as JSON (API reference of images/edits, read 2026-11-23), and its
    other inputs as ``data:`` URLs.

    Attributes:
        url: an https URL that the API fetches.
        file_id: id of a file that you have uploaded to the API.
    """

    url: str | None = None
    file_id: str | None = None

    @property
    def problem(self) -> str | None:
        """The reason why the reference is invalid; None if it is valid."""
        if (self.url is None) == (self.file_id is None):
            return "The reference needs a url or a file_id, and not both."
        if self.url is not None and not (isinstance(self.url, str) and self.url.startswith("https://")):
            return "The reference needs an https:// URL. Pass any other image itself."
        if self.file_id is not None and not (isinstance(self.file_id, str) and self.file_id.strip()):
            return "The reference needs a file_id that is not empty."
        return None

    def __repr__(self) -> str:
        argument = f"file_id={self.file_id!r}" if self.url is None else f"url={safe_url(str(self.url))!r}"
        return f"ImageReference({argument})"
