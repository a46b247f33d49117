"""References to images that the API holds or fetches: imgkit does not upload them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imgkit.redact import safe_url
from imgkit.wire.plain_values import show_value, to_text


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
        url, file_id = to_text(self.url), to_text(self.file_id)
        if self.url is not None and (
            url is None or not re.fullmatch(r"https://[^\s\x00-\x1f\ud800-\udfff]+", url)
        ):
            return "The reference needs an https:// URL. Pass any other image itself."
        if self.file_id is not None and (file_id is None or not re.fullmatch(r"[!-~]+", file_id.strip())):
            return "The reference needs a file_id that is not empty, of printable ASCII characters."
        return None

    def to_plain(self) -> ImageReference:
        """Return a valid reference with exact texts."""
        return ImageReference(url=to_text(self.url), file_id=to_text(self.file_id))

    def __repr__(self) -> str:
        url = to_text(self.url)
        argument = f"file_id={show_value(self.file_id)}" if url is None else f"url={safe_url(url)!r}"
        return f"ImageReference({argument})"
