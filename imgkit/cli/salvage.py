"""What was paid for outlives the process, also where the spool could not keep it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from imgkit.errors import ImgkitError, OutcomeUnknownError, SaveError, UnreadableReplyError
from imgkit.files import write_and_close
from imgkit.images.image import Image
from imgkit.images.sniff import EXTENSIONS
from imgkit.images.sources import UrlSource


def keep(error: ImgkitError, folder: Path) -> list[Path]:
    """Write what an error still holds to files of mode 0600, and say so in notes of the error.

    What the spool has (``error.spool_path``) is safe already.

    Args:
        error: a `SaveError`, `UnreadableReplyError` or `OutcomeUnknownError`; others hold nothing.
        folder: where the pictures were to go; the temporary folder is next.

    Returns:
        The files written.
    """
    spooled = getattr(error, "spool_path", None)
    if spooled is not None:
        return [Path(spooled)]  # a note says so already
    kept = []
    for what, data, suffix in _left(error):
        path = _write(data, suffix, folder)
        if path is None:
            error.add_note(
                f"{what} could not be kept: neither {str(folder)!r} nor the temporary folder takes it"
            )
        else:
            kept.append(path)
            error.add_note(f"{what} is kept in {path}")
    return kept


def _left(error: ImgkitError) -> list[tuple[str, bytes, str]]:
    if isinstance(error, UnreadableReplyError | OutcomeUnknownError):
        return [("what arrived", error.body, ".bin")] if error.body else []
    if not isinstance(error, SaveError):
        return []
    return [_picture(image) for image in error.images if isinstance(image, Image)]


def keep_url(image: Image, folder: Path) -> Path | None:
    """Write the URL of a picture to a file of mode 0600; return it, None if nothing takes it."""
    _, data, suffix = _picture(image)
    return _write(data, suffix, folder)


def _picture(image: Image) -> tuple[str, bytes, str]:
    number = f"picture {image.index + 1}"
    if isinstance(image.source, UrlSource) and not image.source.is_fetched:
        # Not fetched again: that has just failed, and may take minutes. The URL itself can be a
        # permission to read, so it goes into a private file and not into a message.
        return f"the URL of {number}", f"{image.url}\n".encode(), ".url.txt"
    return number, image.data, EXTENSIONS[image.format][0] if image.format else ".bin"


def _write(data: bytes, suffix: str, folder: Path) -> Path | None:
    for place in (folder, Path(tempfile.gettempdir())):
        path = None
        try:
            descriptor, name = tempfile.mkstemp(suffix, "imgkit-unsaved-", place)  # mode 0600
            path = Path(name).absolute()
            write_and_close(descriptor, data)
            return path
        except OSError:
            if path is not None:
                path.unlink(missing_ok=True)
    return None
