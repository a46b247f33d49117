"""Files for paid data that an error still holds, in case the spool does not have it."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from imgkit.errors import ImgkitError, OutcomeUnknownError, SaveError, UnreadableReplyError
from imgkit.files import write_and_close
from imgkit.images.image import Image
from imgkit.images.sniff import EXTENSIONS
from imgkit.images.sources import UrlSource

_PREFIX = "imgkit-unsaved-"


def save_paid_data(error: ImgkitError, folder: Path) -> list[Path]:
    """Write the paid data that an error holds to files of mode 0600, and add notes with their paths.

    Data that the spool has (``error.spool_path``) is not written again.

    Args:
        error: a `SaveError`, `UnreadableReplyError` or `OutcomeUnknownError`; others hold no data.
        folder: the output folder; the temporary folder is the second choice.

    Returns:
        The files that hold the data.
    """
    spool_path = getattr(error, "spool_path", None)
    if spool_path is not None:
        return [Path(spool_path)]  # the error has a note with this path
    saved = []
    for name, data, suffix in _list_paid_data(error):
        path = _write_private_file(data, suffix, folder)
        if path is None:
            error.add_note(
                f"{name} could not be saved: neither {str(folder)!r} nor the temporary folder is writable."
            )
        else:
            saved.append(path)
            error.add_note(f"{name} was saved to {path}")
    return saved


def save_url(image: Image, folder: Path) -> Path | None:
    """Write the URL of an image to a file of mode 0600, unless the folder has such a file already.

    Returns:
        The file, or None if neither `folder` nor the temporary folder is writable.
    """
    _, data, suffix = _build_image_file(image)
    for path in folder.glob(f"{_PREFIX}*{suffix}"):
        with suppress(OSError):
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return path.absolute()
    return _write_private_file(data, suffix, folder)


def _list_paid_data(error: ImgkitError) -> list[tuple[str, bytes, str]]:
    """Return a name, the bytes and a file suffix for each piece of data."""
    if isinstance(error, OutcomeUnknownError) and error.status is not None:
        return []  # an error reply, which holds no image
    if isinstance(error, UnreadableReplyError | OutcomeUnknownError):
        return [("The received data", error.body, ".bin")] if error.body else []
    if not isinstance(error, SaveError):
        return []
    return [_build_image_file(image) for image in error.images if isinstance(image, Image)]


def _build_image_file(image: Image) -> tuple[str, bytes, str]:
    if isinstance(image.source, UrlSource) and not image.source.is_fetched:
        # A second download would probably fail too, and may take minutes. The URL can grant access to
        # the image, so it goes into a private file and not into a message.
        return f"The URL of image {image.index + 1}", f"{image.url}\n".encode(), ".url.txt"
    suffix = EXTENSIONS[image.format][0] if image.format else ".bin"
    return f"Image {image.index + 1}", image.data, suffix


def _write_private_file(data: bytes, suffix: str, folder: Path) -> Path | None:
    for place in (folder, Path(tempfile.gettempdir())):
        path = None
        try:
            descriptor, name = tempfile.mkstemp(suffix, _PREFIX, place)  # mode 0600
            path = Path(name).absolute()
            write_and_close(descriptor, data)
            return path
        except OSError:
            if path is not None:
                path.unlink(missing_ok=True)
    return None
